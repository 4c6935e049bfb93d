//! Tests of the brain by events.
