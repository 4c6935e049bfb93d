//! Two machines on a virtual clock, and one machine against octets.

mod capabilities;
mod chaos;
mod close;
mod collision;
mod connection;
mod errors;
mod fsm;
mod mutation;
mod net;

use std::{sync::Arc, time::Duration};

use base::{Instant, NodeId};
use bytes::Bytes;

use super::{
    Close, Connection, ConnectionConfig, ConnectionEvent, FamilyConfig, Incoming, Negotiated,
    PeerAs, PeerConfig,
};
use crate::wire::{self, Family, Notification, OpenMessage};

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// Node `n` in AS 65000 + `n`, for any external neighbour, IPv4 and IPv6, hold time 90 s.
fn config(n: u32) -> ConnectionConfig {
    ConnectionConfig::new(
        NodeId(n),
        65000 + n,
        PeerAs::External,
        &[Family::IPV4, Family::IPV6],
    )
}

fn peer_config(connection: ConnectionConfig) -> PeerConfig {
    PeerConfig::new(Arc::new(connection))
}

fn family(family: Family) -> FamilyConfig {
    FamilyConfig::new(family)
}

/// What a sink heard.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Established,
    Update(Vec<u8>),
    Refresh(Family, wire::RefreshKind),
}

fn heard(incoming: Incoming<'_>) -> Heard {
    match incoming {
        Incoming::Established => Heard::Established,
        Incoming::Update(body) => Heard::Update(body.to_vec()),
        Incoming::Refresh { family, kind } => Heard::Refresh(family, kind),
    }
}

/// An empty UPDATE: the End-of-RIB of IPv4 unicast.
fn update() -> Bytes {
    wire::message(wire::MessageKind::Update, &[0; 4])
}

/// Feed octets, return what the sink heard.
fn feed(connection: &mut Connection, now: Instant, octets: &[u8]) -> Vec<Heard> {
    let mut list = Vec::new();
    connection.handle_bytes(now, octets, &mut |_, incoming| {
        list.push(heard(incoming));
        Ok(())
    });
    list
}

fn output(connection: &mut Connection) -> Vec<u8> {
    std::iter::from_fn(|| connection.poll_transmit())
        .flat_map(|message| message.to_vec())
        .collect()
}

fn events(connection: &mut Connection) -> Vec<ConnectionEvent> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// How it ended.
fn end(connection: &mut Connection) -> Option<Close> {
    events(connection)
        .into_iter()
        .rev()
        .find_map(|event| match event {
            ConnectionEvent::Closed(close) => Some(close),
            ConnectionEvent::Opened(_) | ConnectionEvent::Established(_) => None,
        })
}

/// A connection of `ours` that got this OPEN and, `established`, a KEEPALIVE.
fn opened(ours: ConnectionConfig, theirs: &OpenMessage, established: bool) -> Connection {
    let mut connection = Connection::new(Arc::new(ours), 1, at(0));
    feed(&mut connection, at(0), &theirs.encode());
    if established {
        feed(&mut connection, at(0), &wire::keepalive());
    }
    connection
}

fn negotiated(ours: &ConnectionConfig, theirs: &ConnectionConfig) -> Negotiated {
    super::negotiate(ours, &ours.open(), &theirs.open()).expect("they fit")
}

fn refused(ours: &ConnectionConfig, theirs: &ConnectionConfig) -> Notification {
    super::negotiate(ours, &ours.open(), &theirs.open()).expect_err("they do not fit")
}
