//! Sealane's BGP speaker against the stock daemons of the field.
//!
//! What it is: [`Lab`] makes network namespaces joined by veth pairs and takes everything down
//! again; a [`Daemon`] is BIRD, FRR, GoBGP, OpenBGPD or Sealane itself, each started from the same
//! [`Setup`] and asked for what it has [`Seen`]; a [`Talker`] is a peer whose every octet the test
//! decides and keeps; [`pcap`] hands kept octets to Wireshark's dissector; [`Matrix`] gathers what
//! works with whom into the table of `docs/interop.md`.
//!
//! What it is not: nothing here uses the `bgp` room. What one library wrote and read would agree
//! with itself.
//!
//! `SEALANE_INTEROP_SPEAKER=gobgp` lets a stock daemon play Sealane's part, to tell a fault of ours
//! from one of the harness; `SEALANE_BIN` names another binary.
//!
//! ```no_run
//! let lab = interop::Lab::new(&["here", "there"], &[("here", "there")]).expect("namespaces");
//! assert!(lab.node("here").ask("ip", ["link"]).is_ok());
//! ```

mod daemon;
mod lab;
mod matrix;
pub mod pcap;
mod setup;
mod talker;
pub mod wire;

pub use daemon::{Daemon, Instance, Kind};
pub use lab::{Lab, Link, Node, Process, program};
pub use matrix::{Matrix, Outcome, Row, Support, require};
pub use setup::{Counters, Family, Flow, Neighbor, Route, Seen, Setup};
pub use talker::{Talker, Update};
