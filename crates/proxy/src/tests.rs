//! The proxy through its door: client → ingress → (streams in memory) → egress → endpoint.

mod buffer;
mod clients;
mod connect;
mod faults;
mod filters;
mod front;
mod h3;
mod hedge;
mod http2;
mod layer4;
mod load;
mod passthrough;
mod policy;
mod proxy_protocol;
mod recorder;
mod rfc9113;
mod seats;
mod smuggling;
mod spans;
mod splice;
mod transit;
mod tunnel_policy;
mod udp;
mod upgrade;
mod websocket;
mod world;
