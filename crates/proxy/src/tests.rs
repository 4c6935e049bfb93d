//! The proxy through its door: client → ingress → (streams in memory) → egress → endpoint.

mod faults;
mod filters;
mod front;
mod http2;
mod policy;
mod recorder;
mod rfc9113;
mod smuggling;
mod tunnel_policy;
mod upgrade;
mod websocket;
mod world;
