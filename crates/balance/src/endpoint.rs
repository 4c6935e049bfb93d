//! One endpoint: its identity, its state, its counters.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base::{Instant, NetworkId, SiteId, SiteName};

use crate::load::{LoadPolicy, LoadReport, Reported};

/// What makes two endpoints the same one: the site it stands in, the network inside that site, and
/// the address inside that network. Islands may overlap, so an address alone says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The site the endpoint stands in.
    pub site: SiteId,
    /// The network inside the site's tenant.
    pub network: NetworkId,
    /// Address and port inside that network.
    pub address: SocketAddr,
}

impl fmt::Display for EndpointKey {
    /// `SITE/NETWORK/ADDRESS:PORT`, both ids as numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.site, self.network, self.address)
    }
}

/// The state of an endpoint as announced by its site, the worse of announced and observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// No probe has answered yet: used only if nothing is healthy or degraded.
    Unknown,
    /// Selectable at full weight.
    Healthy,
    /// Selectable at half weight.
    Degraded,
    /// Existing sticky sessions only: never picked.
    Draining,
    /// Taken out by an operator: never picked.
    Maintenance,
    /// Fails its probes: picked only in panic, if the policy allows it.
    Unhealthy,
    /// Exists no more: never picked.
    Withdrawn,
}

impl Health {
    /// May a request that waits on this endpoint go on waiting? False once the endpoint is known
    /// to be sick or gone.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        match self {
            Health::Unknown
            | Health::Healthy
            | Health::Degraded
            | Health::Draining
            | Health::Maintenance => true,
            Health::Unhealthy | Health::Withdrawn => false,
        }
    }
}

/// Counters of one endpoint, shared by every worker and by successive sets. Relaxed: each is
/// exact, no order between them is promised.
#[derive(Debug, Default)]
pub struct EndpointStats {
    in_flight: AtomicU32,
    connections: AtomicU32,
    connecting: AtomicU32,
    requests: AtomicU64,
    failures: AtomicU64,
    failures_in_row: AtomicU32,
    /// How long answers take, in nanoseconds, and when that was said.
    latency: AtomicU64,
    measured: AtomicU64,
    reported: Reported,
}

/// A part in e of a latency is left after so long.
const MEMORY: Duration = Duration::from_secs(10);

impl EndpointStats {
    /// Requests running now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests (tries) started since the counters were made.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Tries that the endpoint or the way to it failed.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Count one failed try.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// Connections open to it, those of a pool included.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Connections that are being opened.
    #[must_use]
    pub fn connecting(&self) -> u32 {
        self.connecting.load(Relaxed)
    }

    /// An answer, good or bad: how many in a row were bad now.
    pub fn judged(&self, good: bool) -> u32 {
        if !good {
            return self.failures_in_row.fetch_add(1, Relaxed).saturating_add(1);
        }
        // Seldom anything else than 0, and reading is cheaper than writing.
        if self.failures_in_row.load(Relaxed) != 0 {
            self.failures_in_row.store(0, Relaxed);
        }
        0
    }

    /// An answer came after `took`. What is longer than the average becomes the average at once;
    /// what is shorter moves it the more the longer nothing was said (peak EWMA, as in Finagle).
    /// Of two at the same moment one may be lost.
    pub fn answered(&self, now: Instant, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let before = self.latency.load(Relaxed);
        let after = if took >= before {
            took
        } else {
            took + faded(before - took, self.age(now))
        };
        self.latency.store(after, Relaxed);
        self.measured.store(now.as_nanos(), Relaxed);
    }

    /// How long answers take, by what was seen up to `now`; what is long ago fades to zero, so
    /// that a slow one is asked again some day.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Duration {
        Duration::from_nanos(faded(self.latency.load(Relaxed), self.age(now)))
    }

    /// It has said how loaded it is.
    pub fn reported(&self, now: Instant, report: LoadReport, policy: &LoadPolicy) {
        self.reported.add(now, report, policy);
    }

    /// Its weight by what it has said of its load: requests a second that it would answer if all
    /// of it were in use. `None`: it says nothing, or not long enough, or not any more.
    #[must_use]
    pub fn load(&self, now: Instant, policy: &LoadPolicy) -> Option<f64> {
        self.reported.weight(now, policy)
    }

    fn age(&self, now: Instant) -> Duration {
        now.since(Instant::from_nanos(self.measured.load(Relaxed)))
    }
}

/// What is left of `latency` after `age`.
fn faded(latency: u64, age: Duration) -> u64 {
    let part = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between zero and what it was, and nobody counts the nanoseconds"
    )]
    let left = (latency as f64 * part) as u64;
    left
}

/// A connection to an endpoint: counted until it is dropped.
#[derive(Debug)]
pub struct Connection(Arc<EndpointStats>);

impl Connection {
    /// One more connection is open.
    #[must_use]
    pub fn open(stats: &Arc<EndpointStats>) -> Self {
        stats.connections.fetch_add(1, Relaxed);
        Connection(Arc::clone(stats))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A connection that is being opened: counted until it is dropped.
#[derive(Debug)]
pub struct Connecting<'s>(&'s EndpointStats);

impl<'s> Connecting<'s> {
    /// One more is being opened.
    #[must_use]
    pub fn start(stats: &'s EndpointStats) -> Self {
        stats.connecting.fetch_add(1, Relaxed);
        Connecting(stats)
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.fetch_sub(1, Relaxed);
    }
}

/// A running try on an endpoint: counted from [`InFlight::start`] until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointStats>);

impl InFlight {
    /// Count one more request, running now.
    #[must_use]
    pub fn start(stats: &Arc<EndpointStats>) -> Self {
        stats.in_flight.fetch_add(1, Relaxed);
        stats.requests.fetch_add(1, Relaxed);
        InFlight(Arc::clone(stats))
    }

    /// The counters this guard counts on.
    #[must_use]
    pub fn stats(&self) -> &Arc<EndpointStats> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// One endpoint as a set holds it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its identity.
    pub key: EndpointKey,
    /// The name of the site `key.site`.
    pub site: SiteName,
    /// Its state.
    pub health: Health,
    /// Its share among endpoints of one tier, relative; 0 receives nothing.
    pub weight: u16,
    /// Measured round trip to its site. `None` is the own site and counts as zero; a remote site
    /// not measured yet should carry a long guess, not `None`.
    pub distance: Option<Duration>,
    /// Is there a living way to its site? Always true for the own site.
    pub reachable: bool,
    /// Taken out for a while because of what it answered (outlier ejection).
    pub ejected: bool,
    /// What its site is given of the requests that it would get, in thousandths
    /// ([`Admission`](crate::Admission)): [`WHOLE`](crate::WHOLE) unless it is loaded.
    pub share: u16,
    /// When it became selectable; `None`: long ago.
    pub since: Option<Instant>,
    /// Its counters; the maker of sets hands the same ones to each successive set.
    pub stats: Arc<EndpointStats>,
}
