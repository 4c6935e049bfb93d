//! A network of two peers: streams with a latency, in order, on a virtual clock.

use std::{collections::BTreeMap, time::Duration};

use base::{Instant, Rng};
use bytes::Bytes;

use super::{Heard, heard};
use crate::peer::{Close, ConnectionId, Effect, Graceful, Peer, PeerConfig, PeerState};

struct Stream {
    dialler: usize,
    latency: Duration,
    open: [bool; 2],
}

enum Packet {
    Accept,
    Connected,
    Refused,
    Data(usize, Bytes),
    End(usize),
}

/// The world: `peers[0]` and `peers[1]`.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) peers: [Peer; 2],
    /// All effects of both.
    pub(super) effects: [Vec<(Instant, Effect)>; 2],
    /// All their sinks heard.
    pub(super) heard: [Vec<Heard>; 2],
    /// Does the host answer dials?
    pub(super) listens: [bool; 2],
    /// Nothing gets through, silently.
    pub(super) cut: bool,
    /// Nobody answers for streams of a host that has forgotten them.
    pub(super) mute: bool,
    pub(super) latency: fn(&mut Rng) -> Duration,
    rng: Rng,
    streams: Vec<Stream>,
    dials: [Option<usize>; 2],
    flight: BTreeMap<(Instant, u64), (usize, Packet)>,
    sequence: u64,
}

impl Net {
    pub(super) fn new(configs: [PeerConfig; 2], seed: u64) -> Self {
        let [a, b] = configs;
        Net {
            now: Instant::ZERO,
            peers: [Peer::new(a, seed), Peer::new(b, seed ^ 0xB)],
            effects: [vec![], vec![]],
            heard: [vec![], vec![]],
            listens: [true; 2],
            cut: false,
            mute: false,
            latency: |_| Duration::from_millis(10),
            rng: Rng::new(seed),
            streams: vec![],
            dials: [None; 2],
            flight: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn start(&mut self) {
        for side in 0..2 {
            self.act(side, Peer::start);
        }
    }

    /// Do something with one peer and carry out what it wants.
    pub(super) fn act(&mut self, side: usize, action: impl FnOnce(&mut Peer, Instant)) {
        action(&mut self.peers[side], self.now);
        self.drain(side);
    }

    /// The host forgets everything, and comes back with this peer.
    pub(super) fn reboot(&mut self, side: usize, config: PeerConfig, seed: u64) {
        self.peers[side] = Peer::new(config, seed);
        self.dials[side] = None;
        for stream in &mut self.streams {
            stream.open[side] = false;
        }
    }

    pub(super) fn states(&self) -> [PeerState; 2] {
        [self.peers[0].state(), self.peers[1].state()]
    }

    /// The stream both are established on.
    pub(super) fn common(&self) -> Option<ConnectionId> {
        let [a, b] = [0, 1].map(|side: usize| self.peers[side].established().map(|(id, _)| id));
        a.filter(|_| a == b)
    }

    /// Streams still open at either end.
    pub(super) fn open_streams(&self) -> usize {
        self.streams
            .iter()
            .filter(|stream| stream.open.contains(&true))
            .count()
    }

    pub(super) fn count(&self, side: usize, is: impl Fn(&Effect) -> bool) -> usize {
        self.effects[side]
            .iter()
            .filter(|(_, effect)| is(effect))
            .count()
    }

    /// How sessions of one peer ended.
    pub(super) fn downs(&self, side: usize) -> Vec<(Close, Option<Graceful>)> {
        let ends = self.effects[side].iter();
        ends.filter_map(|(_, effect)| match effect {
            Effect::Down {
                reason, graceful, ..
            } => Some((reason.clone(), graceful.clone())),
            Effect::Dial
            | Effect::CancelDial
            | Effect::Close(_)
            | Effect::Established { .. }
            | Effect::Failed { .. } => None,
        })
        .collect()
    }

    /// Why connections of one peer ended.
    pub(super) fn reasons(&self, side: usize) -> Vec<Close> {
        let ends = self.effects[side].iter();
        ends.filter_map(|(_, effect)| match effect {
            Effect::Down { reason, .. } | Effect::Failed { reason, .. } => Some(reason.clone()),
            Effect::Dial | Effect::CancelDial | Effect::Close(_) | Effect::Established { .. } => {
                None
            }
        })
        .collect()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            assert!(turn < 1_000_000, "it does not come to rest");
            let timer = (0..2)
                .filter_map(|side: usize| self.peers[side].poll_timeout().map(|at| (at, side)))
                .min();
            let packet = self.flight.keys().next().copied();
            match (packet, timer) {
                (Some((at, sequence)), timer)
                    if at <= end && timer.is_none_or(|(t, _)| at <= t) =>
                {
                    self.now = self.now.max(at);
                    let (stream, packet) = self.flight.remove(&(at, sequence)).unwrap();
                    self.deliver(stream, packet);
                }
                (_, Some((at, side))) if at <= end => {
                    self.now = self.now.max(at);
                    self.act(side, Peer::handle_timeout);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn send(&mut self, stream: usize, packet: Packet) {
        if self.cut {
            return;
        }
        self.sequence += 1;
        let at = self.now + self.streams[stream].latency;
        self.flight.insert((at, self.sequence), (stream, packet));
    }

    fn deliver(&mut self, stream: usize, packet: Packet) {
        let id = ConnectionId(stream as u64);
        let dialler = self.streams[stream].dialler;
        let now = self.now;
        match packet {
            Packet::Accept if !self.listens[1 - dialler] => self.send(stream, Packet::Refused),
            Packet::Accept => {
                self.streams[stream].open[1 - dialler] = true;
                self.send(stream, Packet::Connected);
                self.act(1 - dialler, |peer, now| {
                    peer.handle_connected(now, id, true);
                });
            }
            Packet::Connected if self.dials[dialler] == Some(stream) => {
                self.dials[dialler] = None;
                self.streams[stream].open[dialler] = true;
                self.act(dialler, |peer, now| peer.handle_connected(now, id, false));
            }
            Packet::Connected => self.send(stream, Packet::End(1 - dialler)),
            Packet::Refused => {
                if self.dials[dialler] == Some(stream) {
                    self.dials[dialler] = None;
                    self.act(dialler, Peer::handle_connect_failed);
                }
            }
            Packet::Data(to, octets) => {
                if self.streams[stream].open[to] {
                    let size = 1 + usize::try_from(self.rng.below(60)).unwrap();
                    let list = &mut self.heard[to];
                    for part in octets.chunks(size) {
                        self.peers[to].handle_bytes(now, id, part, &mut |_, incoming| {
                            list.push(heard(incoming));
                            Ok(())
                        });
                    }
                    self.drain(to);
                } else if !self.mute {
                    self.send(stream, Packet::End(1 - to));
                }
            }
            Packet::End(to) => {
                if std::mem::take(&mut self.streams[stream].open[to]) {
                    self.act(to, |peer, now| peer.handle_closed(now, id));
                    self.send(stream, Packet::End(1 - to));
                }
            }
        }
    }

    fn drain(&mut self, side: usize) {
        while let Some((ConnectionId(id), octets)) = self.peers[side].poll_transmit() {
            let stream = usize::try_from(id).unwrap();
            assert!(self.streams[stream].open[side], "a word on a closed stream");
            self.send(stream, Packet::Data(1 - side, octets));
        }
        while let Some(effect) = self.peers[side].poll_effect() {
            match &effect {
                Effect::Dial => {
                    let latency = (self.latency)(&mut self.rng);
                    self.dials[side] = Some(self.streams.len());
                    self.streams.push(Stream {
                        dialler: side,
                        latency,
                        open: [false; 2],
                    });
                    self.send(self.streams.len() - 1, Packet::Accept);
                }
                Effect::CancelDial => self.dials[side] = None,
                Effect::Close(ConnectionId(id)) => {
                    let stream = usize::try_from(*id).unwrap();
                    if std::mem::take(&mut self.streams[stream].open[side]) {
                        self.send(stream, Packet::End(1 - side));
                    }
                }
                Effect::Established { .. } | Effect::Down { .. } | Effect::Failed { .. } => {}
            }
            self.effects[side].push((self.now, effect));
        }
    }
}
