//! The compiled configuration of an ingress: listeners, hosts, routes, clusters.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use balance::{Cell, Circuit, RetryBudget};
use base::{LbId, QualifiedService, Rng, ServiceId, TenantId};
use http::{HeaderName, Method, StatusCode};

use crate::{
    ClientCertificates, DirectResponse, Fields, Filters, HashOn, Layer4, Limits, Pattern,
    ProxyVersion, Redirect, RequestHead, policy::Guard, query::parameter,
};

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 from the first octet.
    Http2,
    /// Something over TCP that is nobody's business here.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A service as an ingress or egress forwards to it; its endpoints change without the table.
#[derive(Debug)]
pub struct Cluster {
    /// The application address.
    pub service: QualifiedService,
    /// The owner, as a number.
    pub tenant: TenantId,
    /// The service, as a number inside its tenant.
    pub id: ServiceId,
    /// The port of the application address (not of an endpoint).
    pub port: u16,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// How its endpoints are told whose a connection is.
    pub proxy: Option<ProxyVersion>,
    /// What of a request says where it belongs.
    pub hash_on: Vec<HashOn>,
    /// After how many bad answers in a row an endpoint is to be taken out.
    pub outlier: Option<u32>,
    /// How much of it this node uses at a time.
    pub circuit: Circuit,
    /// How many of its tries may repeat others.
    pub retries: RetryBudget,
    /// Who may use it.
    pub guard: Guard,
    /// Its endpoints now.
    pub cell: Cell,
}

/// One share of a route's traffic.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it goes.
    pub cluster: Arc<Cluster>,
    /// Relative share; 0 receives nothing.
    pub weight: u32,
}

/// How a path is compared (Gateway API `HTTPPathMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path, byte by byte.
    Exact(String),
    /// Whole leading segments: `/a` matches `/a` and `/a/b`, not `/ab`. A final `/` says nothing.
    Prefix(String),
    /// The whole path, by a regular expression.
    Regex(Pattern),
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Octet by octet.
    Exact(Vec<u8>),
    /// The whole value, by a regular expression.
    Regex(Pattern),
}

/// A header that must be there with this value (of several lines, any one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: ValueMatch,
}

/// A parameter of the query that must be there with this value (of several, the first).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name, decoded.
    pub name: String,
    /// Its value, decoded.
    pub value: ValueMatch,
}

/// One way to match a route; all parts must hold (Gateway API `HTTPRouteMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The path; `Prefix("/")` is every path.
    pub path: PathMatch,
    /// The method, if it matters.
    pub method: Option<Method>,
    /// Headers, all of them.
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query, all of them.
    pub query: Vec<QueryMatch>,
}

impl Default for Match {
    /// Matches every request.
    fn default() -> Self {
        Match {
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }
}

/// Times of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From request head to response head, all tries together; `None`: the host's limit.
    pub request: Option<Duration>,
    /// The same for one try; `None`: no limit of its own.
    pub backend_request: Option<Duration>,
}

/// Whether a try is repeated on another endpoint (Gateway API `HTTPRouteRetry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first included: 3 by default; 0 counts as 1.
    pub tries: u8,
    /// Answers that count as failures, if the method is idempotent.
    pub codes: Vec<StatusCode>,
    /// How long to wait after such an answer, or after a try that took too long; twice as long the
    /// next time, and in truth anything up to that.
    pub backoff: Duration,
    /// After how long without an answer a safe request is asked of another endpoint as well.
    pub hedge: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            tries: 3,
            codes: Vec::new(),
            backoff: Duration::from_millis(25),
            hedge: None,
        }
    }
}

impl Retry {
    /// How long to wait before try number `next` (2 and more).
    #[must_use]
    pub fn pause(&self, next: u8, rng: &mut Rng) -> Duration {
        let most = self
            .backoff
            .saturating_mul(1 << next.saturating_sub(2).min(10));
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.below(micros.saturating_add(1)))
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// One of these gets it, by weight.
    Forward(Vec<Backend>),
    /// The client is to ask elsewhere.
    Redirect(Redirect),
    /// It is answered here.
    Respond(DirectResponse),
}

impl Default for Action {
    fn default() -> Self {
        Action::Forward(Vec::new())
    }
}

/// One route of a host. Without matches it matches every request.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Its name in logs; last resort of precedence (alphabetical).
    pub name: String,
    /// Any of these.
    pub matches: Vec<Match>,
    /// What becomes of its requests.
    pub action: Action,
    /// What is done with them on the way.
    pub filters: Filters,
    /// Its times.
    pub timeouts: Timeouts,
    /// Its retries.
    pub retry: Retry,
    /// Octets of a request's body, if it is to be taken whole before an endpoint is picked.
    pub buffer: Option<usize>,
}

/// What one load balancer serves on its hosts.
#[derive(Debug)]
pub struct VirtualHost {
    /// The load balancer.
    pub lb: LbId,
    /// Its name, `namespace/name`.
    pub lb_name: String,
    /// Its owner.
    pub tenant: TenantId,
    /// Its owner's name.
    pub tenant_name: String,
    /// What its clients may use.
    pub limits: Limits,
    /// Which requests it takes.
    pub guard: Guard,
    /// Is it offered over HTTP/3 where TLS ends, too?
    pub http3: bool,
    /// What its clients are asked for in TLS.
    pub clients: Option<ClientCertificates>,
    routes: Vec<Route>,
    /// (match, index of its route) in the order they are tried.
    order: Vec<(Match, usize)>,
}

impl VirtualHost {
    /// Without a guard and HTTP/3, for clients without certificates. Sort the routes by Gateway API precedence: exact path, regular expression, prefix, of two
    /// the longer one; then a method, most headers, most parameters, the order given.
    #[must_use]
    pub fn build(
        lb: LbId,
        lb_name: String,
        tenant: TenantId,
        tenant_name: String,
        limits: Limits,
        routes: Vec<Route>,
    ) -> Self {
        let mut order: Vec<(Match, usize)> = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            if route.matches.is_empty() {
                order.push((normal(&Match::default()), at));
            }
            order.extend(route.matches.iter().map(|m| (normal(m), at)));
        }
        order.sort_by_key(|(m, at)| (Reverse(specificity(m)), *at));
        VirtualHost {
            lb,
            lb_name,
            tenant,
            tenant_name,
            limits,
            guard: Guard::default(),
            http3: false,
            clients: None,
            routes,
            order,
        }
    }

    /// The routes as they were given.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The service with this number, if one of the routes leads to it.
    #[must_use]
    pub fn cluster(&self, id: ServiceId) -> Option<&Cluster> {
        let actions = self.routes.iter().map(|route| &route.action);
        let backends = actions.flat_map(|action| match action {
            Action::Forward(backends) => backends.as_slice(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        });
        let mut clusters = backends.map(|backend| &*backend.cluster);
        clusters.find(|cluster| cluster.id == id)
    }

    /// The routes of a request up to the one that it gets, by precedence, and what of it does not
    /// fit the others: for people who ask.
    pub fn tried<'t>(
        &'t self,
        head: &RequestHead<'_>,
    ) -> impl Iterator<Item = (&'t Route, Option<Miss<'t>>)> {
        let mut over = false;
        self.order.iter().map_while(move |(m, at)| {
            if over {
                return None;
            }
            let miss = m.miss(head);
            over = miss.is_none();
            Some((self.routes.get(*at)?, miss))
        })
    }

    /// The route of a request, by precedence, and how many octets of the path its prefix has
    /// (without one: all).
    #[must_use]
    pub fn route(&self, head: &RequestHead<'_>) -> Option<(&Route, usize)> {
        let (m, at) = self.order.iter().find(|(m, _)| m.holds(head))?;
        let matched = match &m.path {
            PathMatch::Prefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) => head.path.len(),
        };
        Some((self.routes.get(*at)?, matched))
    }
}

/// A prefix without its final `/`, so that the empty prefix is every path.
fn normal(m: &Match) -> Match {
    let mut m = m.clone();
    if let PathMatch::Prefix(prefix) = &mut m.path {
        prefix.truncate(prefix.trim_end_matches('/').len());
    }
    m
}

fn specificity(m: &Match) -> (u8, usize, bool, usize, usize) {
    let (class, length) = match &m.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(pattern) => (1, pattern.as_str().len()),
        PathMatch::Prefix(prefix) => (0, prefix.len()),
    };
    let (headers, query) = (m.headers.len(), m.query.len());
    (class, length, m.method.is_some(), headers, query)
}

/// The first part of a match that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss<'m> {
    /// The path.
    Path,
    /// The method.
    Method,
    /// This header.
    Header(&'m HeaderName),
    /// This parameter.
    Query(&'m str),
}

impl Match {
    fn holds(&self, head: &RequestHead<'_>) -> bool {
        self.miss(head).is_none()
    }

    fn miss(&self, head: &RequestHead<'_>) -> Option<Miss<'_>> {
        let path = match &self.path {
            PathMatch::Exact(path) => head.path == path,
            PathMatch::Prefix(prefix) => head
                .path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty()),
            PathMatch::Regex(pattern) => pattern.is_match(head.path.as_bytes()),
        };
        if !path {
            return Some(Miss::Path);
        }
        if self.method.as_ref().is_some_and(|m| m != head.method) {
            return Some(Miss::Method);
        }
        let header = self.headers.iter().find(|h| !h.holds(head.fields));
        if let Some(header) = header {
            return Some(Miss::Header(&header.name));
        }
        let query = self.query.iter().find(|q| !q.holds(head.query))?;
        Some(Miss::Query(&query.name))
    }
}

impl ValueMatch {
    /// Is it this value?
    #[must_use]
    pub fn holds(&self, value: &[u8]) -> bool {
        match self {
            ValueMatch::Exact(exact) => value == exact,
            ValueMatch::Regex(pattern) => pattern.is_match(value),
        }
    }
}

impl HeaderMatch {
    fn holds(&self, fields: &Fields) -> bool {
        let mut lines = fields.get_all(&self.name);
        lines.any(|line| self.value.holds(line))
    }
}

impl QueryMatch {
    fn holds(&self, query: Option<&str>) -> bool {
        let first = parameter(query, &self.name);
        first.is_some_and(|value| self.value.holds(value.as_bytes()))
    }
}

/// A virtual host offered on a logical port under some hosts.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The logical port (80, 443), not the bound one.
    pub port: u16,
    /// Is TLS terminated in front of it?
    pub tls: bool,
    /// Host names, exact or `*.suffix`, any case.
    pub hosts: Vec<String>,
    /// What is served there.
    pub host: Arc<VirtualHost>,
}

/// Why offers do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A host has one owner.
    #[error("host {host:?} is offered twice on port {port}")]
    HostTaken {
        /// The host.
        host: String,
        /// The logical port.
        port: u16,
    },
    /// Neither a host name nor `*.` before one.
    #[error("{0:?} is not a host name or a '*.' before one")]
    BadHost(String),
}

/// TLS that is ended by others, shared by server name with what is ended here.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The logical port.
    pub port: u16,
    /// Server names, exact or `*.suffix`, any case.
    pub hosts: Vec<String>,
    /// Who gets the connections.
    pub to: Arc<Layer4>,
}

/// Whose a host is.
#[derive(Clone, Debug)]
enum Owner {
    Http(Arc<VirtualHost>),
    Passed(Arc<Layer4>),
}

#[derive(Debug, Default)]
struct Hosts {
    exact: BTreeMap<String, Owner>,
    /// By suffix, without `*.`.
    wildcard: BTreeMap<String, Owner>,
    /// Is any of them passed on?
    passes: bool,
}

/// Everything an ingress serves: (logical port, tls) → host → routes.
#[derive(Debug, Default)]
pub struct Table {
    listeners: BTreeMap<(u16, bool), Hosts>,
    layer4: BTreeMap<LbId, Arc<Layer4>>,
}

impl Table {
    /// Put offers together.
    ///
    /// # Errors
    /// A host that is offered twice on one (port, tls), or that is no host name.
    pub fn build(offers: Vec<Offered>) -> Result<Self, TableError> {
        let mut table = Table::default();
        for offer in offers {
            let owner = Owner::Http(offer.host);
            table.claim((offer.port, offer.tls), offer.hosts, &owner)?;
        }
        Ok(table)
    }

    /// With TLS that is ended by others.
    ///
    /// # Errors
    /// A host that is offered twice, or that is no host name.
    pub fn with_passed(mut self, all: Vec<Passed>) -> Result<Self, TableError> {
        for passed in all {
            let owner = Owner::Passed(passed.to);
            self.claim((passed.port, true), passed.hosts, &owner)?;
        }
        Ok(self)
    }

    fn claim(
        &mut self,
        listener: (u16, bool),
        names: Vec<String>,
        owner: &Owner,
    ) -> Result<(), TableError> {
        let hosts = self.listeners.entry(listener).or_default();
        hosts.passes |= matches!(owner, Owner::Passed(_));
        for name in names {
            let (map, key) = match name.strip_prefix("*.") {
                Some(suffix) => (&mut hosts.wildcard, suffix),
                None => (&mut hosts.exact, name.as_str()),
            };
            let Some(key) = crate::host_of(key).map(|host| host.into_owned()) else {
                return Err(TableError::BadHost(name));
            };
            if map.insert(key, owner.clone()).is_some() {
                return Err(TableError::HostTaken {
                    host: name,
                    port: listener.0,
                });
            }
        }
        Ok(())
    }

    /// With these load balancers that have ports of their own; of two with one id the last stays.
    #[must_use]
    pub fn with_layer4(mut self, all: Vec<Arc<Layer4>>) -> Self {
        self.layer4 = all.into_iter().map(|one| (one.lb, one)).collect();
        self
    }

    /// A load balancer that has ports of its own.
    #[must_use]
    pub fn layer4(&self, lb: LbId) -> Option<&Arc<Layer4>> {
        self.layer4.get(&lb)
    }

    /// Who serves `host` (lower case, without port) on this logical port: exact before wildcard,
    /// the longest wildcard first. A wildcard stands for one or more labels.
    #[must_use]
    pub fn host(&self, port: u16, tls: bool, host: &str) -> Option<&VirtualHost> {
        match self.owner(port, tls, host)? {
            Owner::Http(host) => Some(host),
            Owner::Passed(_) => None,
        }
    }

    /// Is a server name, in lower case, offered over HTTP/3 on any port?
    #[must_use]
    pub fn offers_http3(&self, name: &str) -> bool {
        let mut ports = self.ports().filter(|(_, tls)| *tls);
        ports.any(|(port, tls)| self.host(port, tls, name).is_some_and(|host| host.http3))
    }

    /// Who gets the TLS connections for this server name, as they are.
    #[must_use]
    pub fn passed(&self, port: u16, name: &str) -> Option<&Arc<Layer4>> {
        match self.owner(port, true, name)? {
            Owner::Http(_) => None,
            Owner::Passed(to) => Some(to),
        }
    }

    /// Does it depend on the server name who speaks TLS on this logical port?
    #[must_use]
    pub fn passes(&self, port: u16) -> bool {
        let hosts = self.listeners.get(&(port, true));
        hosts.is_some_and(|hosts| hosts.passes)
    }

    /// What clients are asked for that come for this server name.
    #[must_use]
    pub fn clients(&self, port: u16, name: &str) -> Option<&ClientCertificates> {
        self.host(port, true, name)?.clients.as_ref()
    }

    fn owner(&self, port: u16, tls: bool, host: &str) -> Option<&Owner> {
        let hosts = self.listeners.get(&(port, tls))?;
        if let Some(found) = hosts.exact.get(host) {
            return Some(found);
        }
        if hosts.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(found) = hosts.wildcard.get(suffix) {
                return Some(found);
            }
            rest = suffix;
        }
        None
    }

    /// The logical ports served, in order.
    pub fn ports(&self) -> impl Iterator<Item = (u16, bool)> {
        self.listeners.keys().copied()
    }
}
