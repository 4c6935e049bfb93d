//! What a request may do: from a parsed head to a route, a service and a verdict.
//!
//! What it is: the pure engine of the application datapath. It owns the compiled configuration
//! that `proxy` serves by ([`Table`] at an ingress, [`Egress`] at a gateway), the decision
//! ([`decide`]), who may pass ([`policy`]), the second look at the other end of a tunnel
//! ([`admit`]), the hygiene of headers ([`headers`]), the limits ([`Limits`]) and the story of a
//! request ([`AccessRecord`]).
//!
//! What it is not: it reads no bytes off a wire, dials nobody, picks no endpoint (that is
//! `balance`), knows no clock, and its snapshots are not serialisable: `plan` compiles them.
//!
//! The way of data: the shell parses a head, normalises host and path with [`host_of`] and
//! [`normal_path`], calls [`decide`] on its current table and gets a closed [`Decision`]: forward to a [`Cluster`], or
//! answer now. What is not HTTP has no decision but a draw ([`Layer4`]). At the gateway the shell calls [`admit`] on the head of the tunnel stream before it
//! looks at any HTTP.
//!
//! ```
//! use std::sync::Arc;
//! use base::Rng;
//! use http::Method;
//! use l7::{Decision, Fields, RequestHead, Table, decide};
//! let table = Table::build(Vec::new()).expect("an empty table has no conflict");
//! let head = RequestHead {
//!     port: 80,
//!     tls: false,
//!     sni: None,
//!     trust: None,
//!     method: &Method::GET,
//!     host: "cart.example",
//!     authority: "cart.example",
//!     path: "/",
//!     query: None,
//!     fields: &Fields::default(),
//! };
//! let Decision::Respond(answer) = decide(&table, &head, &mut Rng::new(1)) else { panic!() };
//! assert_eq!(answer.status, 404);
//! ```

mod affinity;
mod decide;
mod egress;
mod fields;
mod filter;
pub mod headers;
mod hello;
mod host;
mod identity;
pub mod jwt;
mod layer4;
mod limits;
mod load_report;
mod path;
mod pattern;
pub mod policy;
mod proxy_protocol;
mod query;
mod record;
mod span;
mod table;

pub use affinity::{Affinity, HashOn, Session, affinity};
pub use decide::{Decision, Forward, RequestHead, Respond, decide};
pub use egress::{
    Admitted, Egress, EgressService, Offer, Refusal, StreamClaim, admit, pass, published,
};
pub use fields::{Fields, Known};
pub use filter::{
    Abort, Cors, Delay, DirectResponse, Filters, HeaderEdits, Mirror, NewPath, Origin, OriginError,
    Percent, Redirect, Rewrite,
};
pub use hello::{Hello, HelloError, HelloReader, MAX_HELLO};
pub use host::host_of;
pub use identity::{
    ClientCertificates, ClientName, Identity, NameKind, NameMatch, NameValue, Shown, TrustId,
};
pub use layer4::{Addresses, Layer4, ListenerProtocol};
pub use limits::Limits;
pub use load_report::{LOAD_METRICS, LOAD_METRICS_BIN, load_report, load_report_bin};
pub use path::normal_path;
pub use pattern::{Pattern, PatternError};
pub use proxy_protocol::{
    Expected, MAX_V1, MAX_V2, ProxyError, ProxyHeader, ProxyVersion, SenderError, Senders,
};
pub use record::{AccessRecord, Fault, RecordFields};
pub use span::{Attempt, Side};
pub use table::{
    Action, Backend, Cluster, HeaderMatch, Match, Miss, Offered, Passed, PathMatch, Protocol,
    QueryMatch, Retry, Route, Table, TableError, Timeouts, ValueMatch, VirtualHost,
};
