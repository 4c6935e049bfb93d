//! The kit tests.
