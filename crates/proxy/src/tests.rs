//! The proxy through its door: client → ingress → (streams in memory) → egress → endpoint.

mod faults;
mod front;
mod tunnel_policy;
mod world;
