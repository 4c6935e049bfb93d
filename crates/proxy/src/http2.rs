//! The server's side of HTTP/2 (RFC 9113) on a client's connection: a machine over octets.
//!
//! [`Connection`] is given what came and says what is to go out; it opens no socket, and reads no
//! clock but the one it is given. Strict on purpose, as [`crate::http1`] is, and bounded: what a
//! client may make it keep is a frame, a header block within its limit, a table of 4,096 octets,
//! and for each of a bounded number of streams a window of its body.

mod connection;
mod frame;
mod serving;
mod streams;
mod thrift;

#[cfg(test)]
mod tests;

pub(crate) use connection::{Connection, Opened};
pub(crate) use frame::Code;
pub(crate) use streams::Gone;
