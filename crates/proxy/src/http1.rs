//! HTTP/1.1 on the wire (RFC 9112): heads, body framing, and a buffered stream.
//!
//! Strict on purpose: whatever two parsers might read in two ways is refused, and nothing is
//! passed on as it came; each message is framed anew. The parsers are pure functions over
//! buffers; only [`wire`] touches a stream.

pub(crate) mod body;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

pub(crate) use body::{BodyDecoder, BodyError, Piece};
pub(crate) use encode::BodyEncoder;
pub(crate) use head::{Framing, HeadError, RequestHead, ResponseHead, Version};
pub(crate) use wire::Wire;
