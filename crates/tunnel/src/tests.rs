//! Two nodes and a link: in memory on a paused clock, and over TLS on loopback.

mod line;
mod memory;
mod packets;
mod quic;
mod succession;
pub(crate) mod support;
mod tls;
