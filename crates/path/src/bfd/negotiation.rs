//! Intervals: what we say, what holds, and the Poll Sequence between the two (RFC 5880 §6.5,
//! §6.8.2 to §6.8.4). All in microseconds.

use std::time::Duration;

use super::{Packet, State, Timers};

/// The least interval to offer while the session is not up (RFC 5880 §6.8.3).
const SLOW_US: u32 = 1_000_000;
/// The least interval we offer or ask for at all: a mistyped 0 must not keep a core busy.
const LEAST_US: u32 = 1_000;

/// Our two intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    /// Desired Min TX Interval.
    tx: u32,
    /// Required Min RX Interval.
    rx: u32,
}

/// How far a Poll Sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// There is none.
    Idle,
    /// Packets carry P until F comes.
    Active,
    /// Something changed again meanwhile: the next F begins another one.
    Again,
}

/// What the neighbour said last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub(super) desired_min_tx: u32,
    /// 1 before anything was heard (RFC 5880 §6.8.1).
    pub(super) required_min_rx: u32,
    pub(super) detect_multiplier: u8,
}

/// The intervals of one session.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    advertised: Pair,
    in_force: Pair,
    poll: Poll,
    remote: Remote,
}

impl Negotiation {
    pub(super) fn new(timers: &Timers, state: State) -> Self {
        let pair = Pair::of(timers, state);
        Negotiation {
            advertised: pair,
            in_force: pair,
            poll: Poll::Idle,
            remote: Remote {
                desired_min_tx: 0,
                required_min_rx: 1,
                detect_multiplier: 1,
            },
        }
    }

    /// The neighbour's packet, which may be the F that ends our Poll Sequence.
    pub(super) fn handle_packet(&mut self, packet: &Packet) {
        self.remote = Remote {
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            detect_multiplier: packet.detect_multiplier,
        };
        if !packet.final_ {
            return;
        }
        match self.poll {
            Poll::Idle => {}
            Poll::Active => {
                self.poll = Poll::Idle;
                self.in_force = self.advertised;
            }
            Poll::Again => self.poll = Poll::Active,
        }
    }

    /// Adopts the timers that hold in `state`, with a Poll Sequence for what changed if the
    /// neighbour is `known`. While the session is up, slower sending and faster receiving hold
    /// only once the neighbour has confirmed them (RFC 5880 §6.8.3). Was something to be polled?
    pub(super) fn adopt(&mut self, timers: &Timers, state: State, known: bool) -> bool {
        let pair = Pair::of(timers, state);
        if !known {
            self.poll = Poll::Idle;
        }
        let changed = pair != self.advertised;
        self.advertised = pair;
        if changed && known {
            self.poll = match self.poll {
                Poll::Idle => Poll::Active,
                Poll::Active | Poll::Again => Poll::Again,
            };
        }
        let confirmed = state != State::Up || self.poll == Poll::Idle;
        if confirmed || pair.tx < self.in_force.tx {
            self.in_force.tx = pair.tx;
        }
        if confirmed || pair.rx > self.in_force.rx {
            self.in_force.rx = pair.rx;
        }
        changed && known
    }

    /// Do our packets carry P?
    pub(super) fn polling(&self) -> bool {
        self.poll != Poll::Idle
    }

    /// What our packets say: Desired Min TX and Required Min RX.
    pub(super) const fn advertised(&self) -> (u32, u32) {
        (self.advertised.tx, self.advertised.rx)
    }

    /// Does the neighbour take periodic packets?
    pub(super) const fn wanted(&self) -> bool {
        self.remote.required_min_rx != 0
    }

    /// The interval of our packets, before jitter (RFC 5880 §6.8.2).
    pub(super) fn transmit_interval(&self) -> Duration {
        micros(self.in_force.tx.max(self.remote.required_min_rx))
    }

    /// The longest interval of the neighbour's packets.
    pub(super) fn receive_interval(&self) -> Duration {
        micros(self.in_force.rx.max(self.remote.desired_min_tx))
    }

    /// The silence that means death (RFC 5880 §6.8.4).
    pub(super) fn detection_time(&self) -> Duration {
        self.receive_interval() * u32::from(self.remote.detect_multiplier)
    }
}

impl Pair {
    fn of(timers: &Timers, state: State) -> Self {
        let us = |duration: Duration| {
            u32::try_from(duration.as_micros())
                .unwrap_or(u32::MAX)
                .max(LEAST_US)
        };
        let tx = us(timers.desired_min_tx);
        Pair {
            tx: if state == State::Up {
                tx
            } else {
                tx.max(SLOW_US)
            },
            rx: us(timers.required_min_rx),
        }
    }
}

fn micros(us: u32) -> Duration {
    Duration::from_micros(us.into())
}
