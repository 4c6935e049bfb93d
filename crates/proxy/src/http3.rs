//! HTTP/3 on a QUIC stream (RFC 9114), and its field sections (RFC 9204): pure functions and
//! machines over octets.
//!
//! Strict on purpose, as [`crate::http1`] is, and bounded: a frame is never held but for a field
//! section within its limit. No dynamic table is offered, so that no stream waits for another and
//! a client's memory here is what its requests need.

mod code;
pub(crate) mod control;
pub(crate) mod frame;
pub(crate) mod qpack;
mod tables;

#[cfg(test)]
mod tests;

pub(crate) use code::Code;
