//! What is done to a daemon, and what is measured meanwhile.

mod chain;
mod latency;
mod tables;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bench_kit::{
    clock::Deadline, namespace::Subnet, process::Family as Processes, program::Program,
};
use clap::ValueEnum;

use crate::{
    daemon::{self, Found, Neighbour, Peer, Topology},
    session::{Session, Spec},
    wire::{self, ASN, Family, Origin},
};

/// What was measured: name and value; the name ends with its unit.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// How long daemons get to start, and sessions to be established.
const START: Duration = Duration::from_secs(20);

/// One way to load a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// 500 k IPv4 routes from one session to another, then all withdrawn.
    #[value(alias = "withdraw")]
    Load,
    /// Ten sessions announce 100 k each; these and one more receive.
    Sessions11,
    /// 200 k routes to 50 receivers.
    Fanout50,
    /// 500 k VPN-IPv4 routes between two clients of a reflector.
    Vpnv4,
    /// One route changes 1,000 times: alone, then beside 50 k updates a second.
    Latency,
    /// One endpoint changes 1,000 times at the first of four reflectors in a row, beside 5 k
    /// updates a second (ours only).
    Chain,
    /// One million endpoint routes of MESH between two clients of a reflector (ours only).
    Mesh,
}

impl Scenario {
    pub(crate) fn suits(self, peer: Peer) -> bool {
        match self {
            Scenario::Load
            | Scenario::Sessions11
            | Scenario::Fanout50
            | Scenario::Vpnv4
            | Scenario::Latency => true,
            Scenario::Chain | Scenario::Mesh => peer == Peer::Sealane,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scenario::Load => "load",
            Scenario::Sessions11 => "sessions11",
            Scenario::Fanout50 => "fanout50",
            Scenario::Vpnv4 => "vpnv4",
            Scenario::Latency => "latency",
            Scenario::Chain => "chain",
            Scenario::Mesh => "mesh",
        })
    }
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) peer: &'a Found,
    pub(crate) folder: PathBuf,
    pub(crate) addresses: Subnet,
    pub(crate) divide: u32,
    pub(crate) limit: Duration,
}

impl Setting<'_> {
    /// So many routes of so many.
    fn routes(&self, whole: u32) -> u32 {
        (whole / self.divide).max(10)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.limit)
    }
}

/// Runs one scenario on one daemon.
pub(crate) fn run(setting: &Setting<'_>) -> Result<Figures> {
    match setting.scenario {
        Scenario::Load => tables::load(setting),
        Scenario::Sessions11 => tables::sessions11(setting),
        Scenario::Fanout50 => tables::fanout50(setting),
        Scenario::Vpnv4 => tables::reflected(setting, Family::Vpnv4, 500_000),
        Scenario::Latency => latency::latency(setting),
        Scenario::Chain => chain::chain(setting),
        Scenario::Mesh => tables::reflected(setting, Family::Mesh, 1_000_000),
    }
}

/// Who takes part in a run, and with which table.
#[derive(Clone, Copy, Debug)]
struct Cast {
    family: Family,
    sessions: u8,
    /// All routes there are.
    routes: u32,
    /// What each of the first sessions announces.
    each: u32,
    watched: Option<u32>,
}

impl Cast {
    /// All readers together wake up some 4,000 times a second; whoever watches does not sleep.
    fn nap(&self) -> Option<Duration> {
        let nap = Duration::from_micros(250) * u32::from(self.sessions.max(4));
        self.watched.is_none().then_some(nap)
    }

    fn own(&self, session: u32) -> Range<u32> {
        let routes = |number: u32| number.saturating_mul(self.each).min(self.routes);
        routes(session)..routes(session + 1)
    }
}

/// What some work took.
#[derive(Clone, Copy, Debug)]
struct Cost {
    s: f64,
    /// CPU time of the daemon until it was at rest again.
    cpu_s: f64,
    /// CPU time of the bench itself, which a daemon with many threads misses.
    bench_cpu_s: f64,
}

impl Cost {
    fn figures(self) -> Figures {
        Figures::from([
            ("s", self.s),
            ("cpu_s", self.cpu_s),
            ("bench_cpu_s", self.bench_cpu_s),
        ])
    }
}

/// A daemon with established sessions, which it outlives.
struct Stage {
    sessions: Vec<Session>,
    origins: Vec<Origin>,
    daemon: Program,
}

impl Stage {
    /// Starts the daemon and the sessions.
    ///
    /// With IPv4 each session is an AS of its own; with the others all are clients of a reflector.
    fn set(setting: &Setting<'_>, cast: &Cast) -> Result<Stage> {
        let family = cast.family;
        let port = if setting.peer.peer == Peer::Openbgpd {
            179
        } else {
            1790
        };
        let address = SocketAddr::from((setting.addresses.host(1), port));
        let families = match family {
            Family::Ipv4 | Family::Vpnv4 => vec![family],
            Family::Mesh | Family::Rtc => vec![Family::Mesh, Family::Rtc],
        };
        let external = family == Family::Ipv4;
        let origins: Vec<Origin> = (10..10 + cast.sessions)
            .map(|host| Origin {
                asn: if external { ASN + u32::from(host) } else { ASN },
                address: setting.addresses.host(host),
            })
            .collect();
        let neighbour = |origin: &Origin| Neighbour {
            address: origin.address,
            asn: origin.asn,
            families: families.clone(),
            dialled: false,
        };
        let topology = Topology {
            address,
            neighbours: origins.iter().map(neighbour).collect(),
        };
        let mut daemon = daemon::start(setting.peer, &topology, &setting.folder)?;
        let deadline = Deadline::after(START);
        let mut establish = |(number, &origin): (u32, &Origin)| {
            let spec = Spec {
                origin,
                daemon: address,
                families: &families,
                counted: (family, cast.routes),
                watched: cast.watched,
                nap: cast.nap(),
                own: cast.own(number),
            };
            Session::establish(&spec, || !deadline.passed() && daemon.check().is_ok())
        };
        let sessions = (0..)
            .zip(&origins)
            .map(&mut establish)
            .collect::<Result<Vec<_>>>();
        daemon.check()?;
        let sessions = sessions.with_context(|| daemon.last_words())?;
        let stage = Stage {
            sessions,
            origins,
            daemon,
        };
        stage.subscribe(&families)?;
        stage.daemon.family().settle()?;
        Ok(stage)
    }

    /// Everybody wants every route target, and has no routes yet.
    fn subscribe(&self, families: &[Family]) -> Result<()> {
        if !families.contains(&Family::Rtc) {
            return Ok(());
        }
        for (session, &origin) in self.sessions.iter().zip(&self.origins) {
            let mut messages = wire::announce(origin, Family::Rtc, 0..1, 0);
            wire::end_of_rib(Family::Rtc, &mut messages);
            session.send(&messages)?;
        }
        Ok(())
    }

    /// Runs `work`; its two times are the start and the end.
    fn measure(&mut self, work: impl FnOnce(&Stage) -> Result<(Instant, Instant)>) -> Result<Cost> {
        let (daemon, bench) = (self.daemon.family(), Processes::this());
        let before = (daemon.cpu_s()?, bench.alone_cpu_s()?);
        let outcome = work(self);
        let bench_cpu_s = bench.alone_cpu_s()? - before.1;
        self.daemon.check()?;
        let (start, end) = outcome.with_context(|| self.daemon.last_words())?;
        daemon.settle()?;
        Ok(Cost {
            s: end.saturating_duration_since(start).as_secs_f64(),
            cpu_s: daemon.cpu_s()? - before.0,
            bench_cpu_s,
        })
    }

    /// Each of the first sessions writes its messages at the same time; the earliest start counts.
    fn send_all(&self, messages: &[Vec<u8>]) -> Result<Instant> {
        let starts = thread::scope(|scope| {
            let writers: Vec<_> = self
                .sessions
                .iter()
                .zip(messages)
                .map(|(session, messages)| scope.spawn(|| session.send(messages)))
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().expect("a writer does not panic"))
                .collect::<Result<Vec<_>>>()
        })?;
        starts.into_iter().min().context("nobody wrote")
    }

    fn pss(&self) -> Result<f64> {
        self.daemon.family().pss()
    }
}

/// The latest time at which one of the sessions had what it expected.
fn wait(sessions: &[Session], deadline: Deadline) -> Result<Instant> {
    let ends = sessions.iter().map(|session| session.wait(deadline));
    let ends = ends.collect::<Result<Vec<_>>>()?;
    ends.into_iter().max().context("nobody waits")
}
