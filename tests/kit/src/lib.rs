//! What tests need that look at Sealane from outside: a whole planet, clients and load.
//!
//! What it is: [`Planet`] starts the binary's `up --json` as a child process and takes everything
//! down again, whatever way the test ends; [`Client`], [`Http2`], [`Api`] and [`admin`] speak to
//! it; [`Load`] asks at a steady rate whether or not answers come, and keeps a record of each
//! request; [`AccessLog`] reads what a PoP says it did; [`process`] looks at processes and signals
//! them; [`scan`] tries every port of an address; [`bulk`] is one connection at full speed; [`wait_until`] waits for a condition with a bound
//! and says what was last seen.
//!
//! What it is not: no assertions about Sealane live here, and nothing here retries a request.
//!
//! Tests of one binary run beside each other. A test that measures time takes [`Turn::alone`], all
//! others [`Turn::beside`]: while one is alone, no other planet runs.
//!
//! ```no_run
//! let turn = kit::Turn::alone();
//! let mut planet = kit::Planet::start(&turn, kit::Options::new("target/release/sealane"));
//! let par = planet.pop("par").http;
//! let mut client = kit::Client::new();
//! let reply = client.get(par, "cart.acme.example", "/").expect("an answer");
//! assert_eq!(reply.status, 200);
//! planet.stop();
//! ```

mod access;
pub mod admin;
mod api;
pub mod bulk;
mod client;
mod connection;
mod load;
pub mod member;
mod planet;
pub mod process;
mod report;
mod role;
pub mod scan;
mod turn;
mod wait;

pub use access::{Access, AccessLog, since_ms};
pub use api::Api;
pub use client::{Client, Http2};
pub use connection::{Connection, Reply, Story};
pub use lab::topology::Subnet;
pub use load::{Load, Record, Target};
pub use planet::{Options, Planet, Ran};
pub use report::{App, Controller, Endpoint, Gateway, Pop, Relay, Report};
pub use role::{LoneController, Role};
pub use turn::Turn;
pub use wait::{figure, wait_until};
/// The rooms whose words a test speaks when it plays a node itself.
pub use {::api as words, bgp, http, pki, plan, runtime, speaker, store, tunnel};
