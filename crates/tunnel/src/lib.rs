//! Links between nodes, and the streams on them.
//!
//! A link begins with three connections between two nodes, always dialled by one of them (the one
//! behind NAT): `sealane-control/1` for pings and reserved streams, `sealane/1` for streams the
//! dialler opens, `sealane-rev/1` for streams the other side opens. Each is mutual TLS 1.3 with a
//! 24-byte preface that ties them together, and HTTP/2 above; each stream is a CONNECT request with
//! a [`StreamHead`]. If one of the three ends, or nothing is heard on any of them for three ping
//! intervals, or on one of them for twelve, the link ends, and with it all its streams. The parts
//! of one node use the same links over pipes in memory or Unix sockets, without TLS. Beside it there is
//! a link over QUIC (RFC 9000), as far as UDP passes, of one connection whose streams are ours
//! (`quic`); which of them carries what begins, the hub decides by what is lost.
//!
//! Beside these a link has data connections (`sealane-data/1`), each of which is served by one
//! thread of a proxy alone: a [`Trunk`] comes out of [`Tunnel::trunks`], [`Trunks::serve`] runs it,
//! and [`Trunks::open`] opens streams on those of its thread. They have a framing of their own and
//! are dialled again when they end, as long as the link lives. A stream on one of them that sends much
//! goes over a spare connection meanwhile (`sealane-spare/1`), which it has for itself.
//!
//! A stream to a site without a link goes over others ([`Routes`]): its head says over which, and
//! each of them opens the next stretch (the proxy does). It is sealed: what it carries is encrypted
//! from end to end, and who asks is known by its certificate ([`Seal`]).
//!
//! Beside streams a link carries packets: octets with a label, as datagrams over QUIC and on a stream
//! over TLS ([`Links::send`], [`Tunnel::packets`]). They are lost where a link is full, and each link
//! says how large they may be ([`Link::mtu`], [`LinkEvent::Mtu`]). They are for the IP traffic of
//! Networks; nobody in the product sends or reads any yet.
//!
//! What it is not: it does not decide what a stream may reach (the proxy does, from its own
//! bundle) and chooses no way (`path` does), and knows no bundle, service or tenant rule. What a
//! packet is, and what its label means, it does not know either.
//!
//! Main types: [`start`] gives a [`Tunnel`]; [`Control::configure`] takes a [`Config`];
//! [`Links::open`] opens a [`Stream`] from any thread, without asking the tunnel's thread;
//! [`Incoming`] is a stream the other side opens; [`LinkEvent`] tells what is up; [`LinkTable`]
//! shows it without a lock.
//!
//! The way of data: bytes written to a [`TrunkStream`] are framed at once into what its connection
//! will send, and a task on the same thread encrypts and writes that when all who were ready have
//! said something; those of bulk go into the TLS of a spare connection at once. Bytes written to a
//! [`Stream`] are queued in its HTTP/2 connection, whose task on the tunnel's thread does the same. A
//! slow reader closes the stream's window, or that of TCP, and writing waits. Links live on a thread of their own so that a busy proxy never makes a living
//! peer look dead.
//!
//! ```no_run
//! # async fn example(config: tunnel::Config) -> Result<(), Box<dyn std::error::Error>> {
//! use tokio::io::AsyncWriteExt;
//! use tunnel::StreamHead;
//! let mut tunnel = tunnel::start(&runtime::metrics::Metrics::default())?;
//! tunnel.control.configure(config).await?;
//! println!("{:?}", tunnel.events.recv().await);
//! let head = StreamHead::to("cart.shop.acme:80");
//! let mut stream = tunnel.links.open(&"aws.acme".parse()?, &head).await?;
//! stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
//! # Ok(())
//! # }
//! ```

mod accept;
mod config;
mod dial;
mod event;
mod flow;
mod head;
mod hub;
mod incoming;
mod join;
mod link;
mod links;
mod metrics;
mod packets;
mod preface;
mod quic;
mod refusal;
mod routes;
mod seal;
mod socket;
mod spoken;
mod standing;
mod tasks;
mod transport;
mod trunk;

pub use config::{Admit, Config, DialTarget, Prefer, Uplink};
pub use dial::measure;
pub use event::{DownReason, LinkEvent, LinkId};
pub use head::{
    ClientRef, ClientRefError, EndpointRef, EndpointRefError, HeadError, MAX_HEAD_BYTES, MAX_VIA,
    RESERVED_DOMAIN, StreamHead,
};
pub use hub::Listening;
pub use incoming::Incoming;
pub use join::{
    JOIN_ALPN, JOIN_TIMEOUT, JoinError, JoinStream, Joining, MAX_JOIN_BYTES, join_dial,
};
pub use link::Side;
pub use links::{Link, LinkTable, Links, OPEN_TIMEOUT, OpenError, Stream, Transport};
pub use packets::{MAX_PACKET, Packet, PacketError};
pub use routes::{Routes, WayId};
pub use seal::{Seal, Sealed, SealedIncoming};
pub use standing::Standing;
pub use tasks::{Control, ControlError, Tunnel, start, succeed};
pub use transport::{BoxPipe, Pipe, Pipes};
pub use trunk::{Mover, Staleness, Trunk, TrunkIncoming, TrunkStream, Trunks};

#[cfg(test)]
mod tests;
