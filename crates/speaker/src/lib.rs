//! The speaker room.
