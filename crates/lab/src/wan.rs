//! The Internet between namespaces: packets taken at one end of a line and given at the other,
//! later, or not at all.
//!
//! Each place is a network namespace with an interface whose other end (of a veth pair) is here.
//! A packet read at one is for the place that has its destination address; the line between the
//! two says when it arrives. Nothing is routed, answered or translated: that the places do. ARP is
//! off on both ends, and offloads are off at the places', so that what is read is what a wire
//! would carry.

mod config;
mod conntrack;
mod control;
mod line;
mod port;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base::Instant;
use tokio::sync::Notify;

pub use config::{Config, Line as LineConfig, Place};
pub use control::{Change, Command, LineStatus, Reply, command};
pub use line::{Counts, Shape, ShapeError};
pub use port::offloads_off;

use self::{line::Line, port::Port};
use crate::{
    control::Listening,
    netns::{aside, enter_path},
    tasks::Crew,
    timer::Timer,
};

/// An Ethernet header.
const ETHER: usize = 14;
/// Frames read from one port before the others have their turn.
const READS: usize = 64;
/// Octets on their way, of all lines; what is more is dropped.
const IN_FLIGHT: usize = 256 << 20;

/// Why there is no Internet.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// The configuration file could not be read.
    #[error("could not read the configuration {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// Two places share a name or an address.
    #[error("two places have {0}")]
    Twice(String),
    /// A line leads to a place that is none.
    #[error("there is no place {0:?}")]
    NoPlace(String),
    /// There is no such line.
    #[error("there is no line {name:?}; there are {known}")]
    NoLine {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// No router stands before it.
    #[error("there is no router before {name:?}; there is one before {known}")]
    NoRouter {
        /// The place.
        name: String,
        /// Those that have one.
        known: String,
    },
    /// A router's connections could not be forgotten.
    #[error("the router before {place:?} forgets nothing")]
    Flush {
        /// The place.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line cannot be so.
    #[error("line {line}")]
    Shape {
        /// The line.
        line: String,
        /// What is wrong.
        #[source]
        source: ShapeError,
    },
    /// An interface could not be used.
    #[error("interface {interface:?}")]
    Port {
        /// The interface.
        interface: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The control socket could not be made or used.
    #[error("the control socket {path}")]
    Control {
        /// The socket.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A frame on its way. The order is that of its arrival, and of its sending if that is the same.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Frame {
    at: Instant,
    nth: u64,
    to: usize,
    octets: Box<[u8]>,
}

/// A line between two places, both directions.
#[derive(Debug)]
struct Both {
    shape: Shape,
    /// What it is when it is healed.
    whole: Shape,
    there: Line,
    back: Line,
}

/// What is known, and what is on its way.
#[derive(Debug)]
struct State {
    by_address: BTreeMap<Ipv4Addr, usize>,
    macs: Vec<[u8; 6]>,
    /// By the places' numbers, the lower one first.
    lines: BTreeMap<(usize, usize), Both>,
    names: BTreeMap<String, (usize, usize)>,
    on_their_way: BinaryHeap<Reverse<Frame>>,
    octets: usize,
    nth: u64,
    /// The namespaces of the routers that translate, by place.
    routers: BTreeMap<String, PathBuf>,
}

/// The state, and what wakes who delivers.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    sooner: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A frame comes from a place; true: it arrives before all others. One to nobody is gone.
    fn take(&mut self, now: Instant, from: usize, frame: &[u8]) -> bool {
        let target = destination(frame).and_then(|address| self.by_address.get(&address));
        let Some(&to) = target.filter(|to| **to != from) else {
            return false;
        };
        let (length, udp) = (frame.len() - ETHER, is_udp(frame));
        let at = match self.lines.get_mut(&(from.min(to), from.max(to))) {
            Some(both) if from < to => both.there.carry(now, length, udp),
            Some(both) => both.back.carry(now, length, udp),
            None => Some(now),
        };
        let Some(at) = at.filter(|_| self.octets + frame.len() <= IN_FLIGHT) else {
            return false;
        };
        let mut octets: Box<[u8]> = frame.into();
        if let (Some(place), Some(mac)) = (octets.get_mut(..6), self.macs.get(to)) {
            place.copy_from_slice(mac);
        }
        self.octets += octets.len();
        self.nth += 1;
        let sooner = self.next().is_none_or(|next| at < next);
        let nth = self.nth;
        self.on_their_way.push(Reverse(Frame {
            at,
            nth,
            to,
            octets,
        }));
        sooner
    }

    /// When the next frame arrives.
    fn next(&self) -> Option<Instant> {
        self.on_their_way.peek().map(|Reverse(frame)| frame.at)
    }

    /// A frame whose time has come.
    fn due(&mut self, now: Instant) -> Option<Frame> {
        self.next().filter(|at| *at <= now)?;
        let Reverse(frame) = self.on_their_way.pop()?;
        self.octets -= frame.octets.len();
        Some(frame)
    }

    fn line(&mut self, name: &str) -> Result<&mut Both, WanError> {
        let at = self.names.get(name).and_then(|at| self.lines.get_mut(at));
        at.ok_or_else(|| WanError::NoLine {
            name: name.to_owned(),
            known: self.names.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    fn reshape(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Shape, &Shape),
    ) -> Result<(), WanError> {
        let line = self.line(name)?;
        let mut shape = line.shape;
        change(&mut shape, &line.whole);
        let wrong = |source| WanError::Shape {
            line: name.to_owned(),
            source,
        };
        line.there.reshape(&shape).map_err(wrong)?;
        line.back.reshape(&shape).map_err(wrong)?;
        line.shape = shape;
        Ok(())
    }
}

impl State {
    fn flush_nat(&self, place: &str) -> Result<(), WanError> {
        let Some(router) = self.routers.get(place) else {
            return Err(WanError::NoRouter {
                name: place.to_owned(),
                known: self.routers.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        };
        let flushed = aside(|| enter_path(router).and_then(|()| conntrack::flush()));
        flushed.map_err(|source| WanError::Flush {
            place: place.to_owned(),
            source,
        })
    }
}

/// Whom a frame with IPv4 in it is for.
fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = frame.get(ETHER + 16..ETHER + 20)?.try_into().ok()?;
    (frame.get(12..14)? == [8, 0] && frame.get(ETHER)? >> 4 == 4).then_some(address.into())
}

/// Is the packet one of UDP (RFC 791 §3.1: its protocol)?
fn is_udp(frame: &[u8]) -> bool {
    frame.get(ETHER + 9) == Some(&17)
}

/// The Internet, its interfaces open.
#[derive(Debug)]
pub struct Wan {
    shared: Arc<Shared>,
    ports: Vec<Arc<Port>>,
    control: Option<Listening<control::Obedient>>,
}

impl Wan {
    /// Opens the interfaces, which are in this process's network namespace.
    ///
    /// # Errors
    /// See [`WanError`].
    pub fn open(config: Config) -> Result<Self, WanError> {
        let state = config.state()?;
        let mut ports = Vec::new();
        for place in &config.places {
            let port = Port::open(&place.interface).map_err(|source| WanError::Port {
                interface: place.interface.clone(),
                source,
            })?;
            ports.push(Arc::new(port));
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            sooner: Notify::new(),
        });
        let control = match config.control {
            None => None,
            Some(path) => {
                let name = path.display().to_string();
                let bound = Listening::bind(path, control::Obedient(Arc::clone(&shared)));
                Some(bound.map_err(|source| WanError::Control { path: name, source })?)
            }
        };
        Ok(Wan {
            shared,
            ports,
            control,
        })
    }

    /// Carries until dropped.
    ///
    /// # Errors
    /// The system has no timer left.
    pub async fn run(self) -> io::Result<()> {
        let crew = Crew::new("wan", self.ports.len() + 1);
        for (from, port) in self.ports.iter().enumerate() {
            let (port, shared) = (Arc::clone(port), Arc::clone(&self.shared));
            let taking = async move { take(&shared, from, &port).await };
            crew.start("port", crew.place().await, taking);
        }
        if let Some(control) = self.control {
            crew.start("control", crew.place().await, control.run());
        }
        give(&self.shared, &self.ports, Timer::new()?).await;
        Ok(())
    }
}

/// What comes from one place.
async fn take(shared: &Shared, from: usize, port: &Port) {
    let mut space = vec![0; 1 << 16];
    loop {
        let mut ready = port.readable().await;
        let mut sooner = false;
        for _ in 0..READS {
            let Some(length) = ready.read(&mut space) else {
                break;
            };
            let frame = space.get(..length).unwrap_or_default();
            sooner |= shared.lock().take(runtime::now(), from, frame);
        }
        if sooner {
            shared.sooner.notify_one();
        }
        tokio::task::yield_now().await;
    }
}

/// To whom it may concern, in time.
async fn give(shared: &Shared, ports: &[Arc<Port>], mut timer: Timer) {
    loop {
        let now = runtime::now();
        loop {
            let due = shared.lock().due(now);
            let Some(frame) = due else { break };
            if let Some(port) = ports.get(frame.to) {
                port.write(&frame.octets);
            }
        }
        let next = shared.lock().next();
        let until = next.map(|next| tokio::time::Instant::now() + next.since(runtime::now()));
        tokio::select! {
            () = timer.until(until) => {}
            () = shared.sooner.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A frame of IPv4 to an address, with an octet that tells it from others.
    fn frame(to: [u8; 4], mark: u8) -> Vec<u8> {
        let mut frame = vec![0; ETHER + 20];
        frame[12] = 8;
        frame[ETHER] = 0x45;
        frame[ETHER + 1] = mark;
        frame[ETHER + 16..].copy_from_slice(&to);
        frame
    }

    fn place(name: &str, host: u8) -> Place {
        Place {
            name: name.to_owned(),
            interface: format!("p{host}"),
            mac: [2, 0, 0, 0, 0, host],
            address: Ipv4Addr::new(203, 0, 113, host),
            nat: None,
        }
    }

    fn config(lines: Vec<LineConfig>) -> Config {
        Config {
            control: None,
            seed: 1,
            places: vec![place("a", 1), place("b", 2), place("c", 3)],
            lines,
        }
    }

    fn line(a: &str, b: &str, delay_us: u64) -> LineConfig {
        LineConfig {
            a: a.to_owned(),
            b: b.to_owned(),
            shape: Shape::distance(Duration::from_micros(delay_us)),
        }
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    #[test]
    fn frames_arrive_by_the_distance_of_their_line() {
        let lines = vec![line("b", "a", 500), line("a", "c", 100)];
        let mut state = config(lines).state().expect("a state");
        assert!(state.take(at(0), 0, &frame([203, 0, 113, 2], 1)));
        assert!(state.take(at(0), 0, &frame([203, 0, 113, 3], 2)), "sooner");
        // Without a line there is no distance; nobody has the last address, nor is this IPv4.
        assert!(state.take(at(50), 1, &frame([203, 0, 113, 3], 3)));
        assert!(!state.take(at(50), 1, &frame([203, 0, 113, 9], 4)));
        assert!(!state.take(at(50), 1, &[0; 40]));
        let mut came = Vec::new();
        for now in [50, 99, 100, 499, 500] {
            while let Some(frame) = state.due(at(now)) {
                let place = Ipv4Addr::from([203, 0, 113, frame.octets[5]]);
                assert_eq!(destination(&frame.octets), Some(place), "its MAC");
                came.push((now, frame.octets[ETHER + 1]));
            }
        }
        assert_eq!(came, [(50, 3), (100, 2), (500, 1)]);
        assert_eq!(state.octets, 0);
    }

    #[test]
    fn a_line_is_changed_cut_and_healed_by_its_name() {
        let mut state = config(vec![line("a", "b", 500)]).state().expect("a state");
        let sent = |state: &mut State| state.take(at(0), 0, &frame([203, 0, 113, 2], 1));
        state
            .reshape("a-b", |shape, _| shape.cut = true)
            .expect("cut");
        assert!(!sent(&mut state));
        state
            .reshape("a-b", |shape, whole| *shape = *whole)
            .expect("healed");
        assert!(sent(&mut state));
        let wrong = state.reshape("a-b", |shape, _| shape.mtu = Some(1));
        assert!(wrong.is_err() && state.line("a-b").expect("there").shape.mtu.is_none());
        let unknown = state.reshape("b-a", |_, _| {}).expect_err("unknown");
        assert!(unknown.to_string().contains("there are a-b"), "{unknown}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |lines| config(lines).state().expect_err("refused").to_string();
        assert!(refused(vec![line("a", "x", 1)]).contains("\"x\""));
        let twice = vec![line("a", "b", 1), line("b", "a", 1)];
        assert!(refused(twice).contains("b-a"));
        assert!(refused(vec![line("a", "a", 1)]).contains("a-a"));
        assert!(refused(vec![line("a", "b", 60_000_000)]).contains("a-b"));
        let mut twins = config(Vec::new());
        twins.places.push(place("d", 1));
        assert!(twins.state().is_err());
    }
}
