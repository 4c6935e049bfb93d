//! HPACK (RFC 7541): header blocks of HTTP/2, and what QPACK took over from them.
//!
//! Strict and bounded: a decoder's table has 4,096 octets, and a field that is not wanted any more
//! costs no copy. The encoder has no table: what it would save are some dozen octets of an answer,
//! for a search through what was said before.

mod decoder;
mod encoder;
pub(crate) mod huffman;
pub(crate) mod integer;
mod tables;

#[cfg(test)]
mod tests;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::{field, status, table_size_zero};

/// What is no header block: both sides' tables differ from now on (RFC 7541 §5.1 and following).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;
