//! The application proxy: what carries a request from a client to an endpoint in any site.
//!
//! What it is: the shell around `l7` and `balance`. [`Workers`] are threads, one a core, each with
//! its own listeners (`SO_REUSEPORT`), its own pool of upstream connections and no lock. At an
//! ingress a worker speaks HTTP/1.1 and HTTP/2, over TLS or not, and HTTP/3, asks `l7` what to do
//! with each request, picks an endpoint with `balance`, and reaches it by TCP in this site or through a
//! stream to the proxy of its own site ([`Dial`]). At that other end the same workers take the
//! stream ([`Incoming`]), look a second time whether it may be, and forward to the endpoint.
//!
//! What it is not: it decides nothing about configuration or health. It serves by the [`Snapshot`]
//! it was given last, reads each service's cell for every pick, and tells what it notices about
//! endpoints as [`ProxyEvent`]s.
//!
//! The way of data: listener → (PROXY header) → (TLS), or `quic` → `downstream` (h1, h2 or h3) →
//! `exchange` → `forward` → `attempt` → `upstream` (pool, or connect) → `relay` both bodies → access record. Through a tunnel:
//! `egress` → `attempt` → endpoint. Connections that are not HTTP go `layer4` → `pipe`, at both
//! ends, and datagrams stay in `udp`. A failed try is repeated on another endpoint where that is
//! safe: for any request when provably nothing reached the endpoint, for safe methods when the
//! connection broke, the link closed, or news came that the endpoint is down, always within the
//! request's deadline and only while its body (up to 64 KiB, or what its route has taken whole) is
//! still at hand.
//!
//! ```no_run
//! use std::sync::Arc;
//! # async fn example() -> Result<(), proxy::StartError> {
//! let (workers, _events) = proxy::Workers::start(proxy::Config {
//!     workers: 2,
//!     snapshot: Arc::new(proxy::Snapshot::empty(base::SiteId(1))),
//!     dial: Arc::new(proxy::NoTunnels),
//!     access_log: None,
//!     spans: None,
//!     metrics: runtime::metrics::Metrics::default(),
//!     seed: 1,
//!     inherited: Vec::new(),
//! })?;
//! let bind = "127.0.0.1:8080".parse().expect("an address");
//! let bound = workers
//!     .set_listeners(&[proxy::ListenerSpec {
//!         bind,
//!         port: 80,
//!         protocol: l7::ListenerProtocol::Http,
//!     }])
//!     .await;
//! # let _ = bound;
//! # Ok(())
//! # }
//! ```

mod access;
mod alarm;
mod answer;
mod attempt;
mod buffer;
mod clients;
mod connect;
mod counted;
mod downstream;
mod egress;
mod event;
mod exchange;
mod forward;
mod front;
mod gathered;
mod guard;
mod h2stream;
mod hedge;
mod hpack;
mod http1;
mod http2;
mod http3;
mod io;
mod layer4;
mod listener;
mod load;
mod message;
mod metrics;
mod mirror;
mod offers;
mod pipe;
mod places;
mod quic;
mod refusals;
mod relay;
mod seats;
mod snapshot;
mod spans;
mod splice;
pub mod tasks;
mod traffic;
mod transit;
mod turns;
mod udp;
mod upstream;
mod websocket;
mod worker;

pub use access::{AccessLog, AccessTarget, Spans};
pub use clients::{ClientTrust, Clients};
pub use event::{FailureKind, ProxyEvent};
pub use io::{BoxDuplex, Duplex};
pub use l7::RecordFields;
pub use listener::{ListenerFailed, ListenerSpec};
pub use snapshot::{Certificates, Snapshot};
pub use upstream::connect::{
    Accepting, Ask, Dial, DialError, Dialing, Incoming, NoTunnels, Passage, StreamRequest,
};
pub use upstream::tunnels::TunnelStream;
pub use worker::{Config, StartError, Workers};

#[cfg(test)]
mod tests;
