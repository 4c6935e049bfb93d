//! HTTP/3 from clients (RFC 9114): over the public QUIC client, whose streams carry frames that
//! are made here.

mod leaving;
mod moving;
mod rfc9114;
mod serving;
mod shown;
mod talker;
