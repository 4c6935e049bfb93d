//! Connections whose octets are carried as they are: from a client to an endpoint, and out of a
//! tunnel.

use std::{rc::Rc, sync::Arc, time::Duration};

use balance::{Connection, EndpointKey, InFlight};
use base::{Instant, LbId, QualifiedService, SiteName, WallTime};
use l7::{
    AccessRecord, Admitted, Cluster, Fault, Fields, Layer4, ListenerProtocol, Retry, headers,
};
use tokio::time::timeout;

use crate::{
    alarm::Alarm,
    attempt::{self, Failure, Kind, Place},
    downstream::ConnInfo,
    egress,
    forward::{To, choose, exclude, verdict},
    http1::Wire,
    io::Io,
    offers::WITHDRAWN,
    pipe::{Broken, End, Moved, pipe},
    upstream::{
        PoolKey,
        connect::{Incoming, StreamRequest},
    },
    worker::Worker,
};

/// What is told about a connection or a flow when it is over.
pub(crate) struct Story {
    started: Instant,
    time: WallTime,
    pub(crate) service: Option<QualifiedService>,
    endpoint: Option<(EndpointKey, SiteName)>,
    tries: u8,
    pub(crate) moved: Moved,
    pub(crate) error: Option<(&'static str, Fault)>,
}

/// How it came.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) status: u16,
}

impl<'a> Asked<'a> {
    /// Without a request.
    pub(crate) fn nothing(info: &'a ConnInfo, protocol: &'a str) -> Self {
        Asked {
            method: "",
            host: info.sni.as_deref().unwrap_or_default(),
            protocol,
            status: 0,
        }
    }
}

impl Story {
    pub(crate) fn begin() -> Self {
        Story {
            started: runtime::now(),
            time: runtime::wall(),
            service: None,
            endpoint: None,
            tries: 0,
            moved: Moved::default(),
            error: None,
        }
    }

    pub(crate) fn record(&self, worker: &Worker, info: &ConnInfo, to: &Layer4, asked: &Asked<'_>) {
        let Some(records) = &worker.records else {
            return;
        };
        let duration = runtime::now().since(self.started);
        let trace = headers::trace(&mut Fields::default(), &mut worker.rng.borrow_mut());
        let endpoint = self.endpoint.as_ref();
        records.add(&AccessRecord {
            time: self.time,
            trace,
            tenant: &to.tenant_name,
            lb: &to.lb_name,
            route: &to.route,
            service: self.service.as_ref(),
            endpoint: endpoint.map(|(key, site)| (key.address, site)),
            peer: info.peer,
            method: asked.method,
            path: "",
            host: asked.host,
            protocol: asked.protocol,
            status: asked.status,
            bytes_in: self.moved.there,
            bytes_out: self.moved.back,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            tries: self.tries,
            error: self.error,
            policy: None,
            shadow: None,
            identity: None,
        });
    }
}

/// Serve a client's connection, and record it.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: Wire,
    info: &ConnInfo,
    to: Arc<Layer4>,
    protocol: &'static str,
) {
    worker.metrics.layer4.inc();
    worker.turns.serve(to.tenant).await;
    let mut story = Story::begin();
    let near = End::new(client);
    if let Err(error) = carry(worker, near, info, &to, &mut story).await {
        story.error = Some(error);
    }
    story.record(worker, info, &to, &Asked::nothing(info, protocol));
}

async fn carry(
    worker: &Rc<Worker>,
    mut near: End,
    info: &ConnInfo,
    to: &Layer4,
    story: &mut Story,
) -> Result<(), (&'static str, Fault)> {
    let seat = worker.layer4.take(to.lb, to.limits.lb_connections);
    let Some(_seat) = seat.filter(|_| claims(worker, info, to)) else {
        worker.metrics.connections_refused.inc();
        return Err(("too-many", Fault::Us));
    };
    let _running = info.seat.as_ref().map(|seat| seat.run());
    let cluster = to.draw(&mut worker.rng.borrow_mut());
    let cluster = cluster.ok_or(("no-backend", Fault::Us))?;
    story.service = Some(cluster.service.clone());
    let dialling = async |place: &Place<'_>| dial(worker, place, to.limits.connect_timeout).await;
    let ((io, _counted), _in_flight) = reach(worker, to, cluster, info, story, dialling).await?;
    let mut far = End::new(Wire::new(io));
    let idle = to.limits.upgrade_idle_timeout;
    let alarm = &mut Alarm::new(idle);
    let offered = || is_offered(worker, info, to.lb);
    let ended = tokio::select! {
        biased;
        ended = pipe(&mut near, &mut far, alarm, idle, &mut story.moved) => ended,
        () = worker.offers.withdrawn(to.limits.drain_timeout, offered) => return Err(WITHDRAWN),
    };
    ended.map_err(|broken| match broken {
        Broken::Near => ("client-gone", Fault::Client),
        Broken::Far => ("reset", Fault::Upstream),
        Broken::Idle => ("idle", Fault::Client),
    })
}

/// The connection is its owner's, if that may have one more.
pub(crate) fn claims(worker: &Worker, info: &ConnInfo, to: &Layer4) -> bool {
    let seat = info.seat.as_ref();
    seat.is_none_or(|seat| worker.claim(seat, to.tenant, &to.tenant_name))
}

/// Is the load balancer still there where the client has come to?
fn is_offered(worker: &Worker, info: &ConnInfo, lb: LbId) -> bool {
    if !info.tls {
        return worker.offers.has(info.port, ListenerProtocol::Tcp(lb));
    }
    let name = info.sni.as_deref().unwrap_or_default();
    let snapshot = worker.snapshot();
    let passed = snapshot.table.passed(info.port, name);
    passed.is_some_and(|to| to.lb == lb)
}

/// Reach an endpoint; another if one does not answer, since nothing was sent yet.
pub(crate) async fn reach<T>(
    worker: &Rc<Worker>,
    to: &Layer4,
    cluster: &Cluster,
    info: &ConnInfo,
    story: &mut Story,
    dial: impl AsyncFn(&Place<'_>) -> Result<T, Failure>,
) -> Result<(T, InFlight), (&'static str, Fault)> {
    let retry = Retry::default();
    let way = To {
        cluster,
        lb: to.lb,
        lb_name: &to.lb_name,
        retry: &retry,
        patience: None,
        client: cluster.proxy.map(|_| info.addresses()),
        hash: cluster.belongs(info.peer.ip(), &mut worker.rng.borrow_mut()),
    };
    let mut tried: Vec<EndpointKey> = Vec::new();
    let mut last: Option<Failure> = None;
    loop {
        let set = cluster.cell.load_full();
        if !cluster.circuit.takes_request(&set) {
            worker.metrics.circuits_open.inc();
            return Err((Kind::Full.code(), Fault::Upstream));
        }
        let chosen = choose(worker, &set, way, runtime::now(), &tried, last);
        let Some((endpoint, remote)) = chosen else {
            let code = last.map_or("no-endpoint", |failure| failure.kind.code());
            return Err((code, Fault::Upstream));
        };
        let in_flight = InFlight::start(&endpoint.stats);
        let place = way.place(endpoint, remote);
        story.tries += 1;
        if story.tries > 1 {
            worker.metrics.retries.inc();
        }
        story.endpoint = Some((place.key.endpoint, endpoint.site.clone()));
        let reached = dial(&place).await;
        if let Some(most) = cluster.outlier {
            judge(worker, most, &place, reached.as_ref().err());
        }
        let failure = match reached {
            Ok(reached) => return Ok((reached, in_flight)),
            Err(failure) => failure,
        };
        worker.metrics.failures.inc();
        in_flight.stats().failed();
        exclude(&mut tried, &set, place.key.endpoint, failure.kind);
        last = Some(failure);
        // Whoever is slow is not to be asked more often than it bears.
        let slow = failure.kind == Kind::Timeout && way.repeats(&set).is_none();
        if slow {
            worker.metrics.retries_denied.inc();
        }
        if slow || story.tries >= retry.tries {
            return Err((failure.kind.code(), Fault::Upstream));
        }
    }
}

/// What reaching an endpoint, or not, says about it.
fn judge(worker: &Worker, most: u32, place: &Place<'_>, failure: Option<&Failure>) {
    match failure {
        None => verdict(worker, most, place, true),
        Some(failure) if failure.kind.blames_endpoint() => verdict(worker, most, place, false),
        Some(_) => {}
    }
}

/// A connection to an endpoint, or a stream to its site.
pub(crate) async fn dial(
    worker: &Worker,
    place: &Place<'_>,
    connect_timeout: Duration,
) -> Result<(Io, Connection), Failure> {
    // The other site says yes once its endpoint has.
    let patience = match place.remote {
        Some(_) => connect_timeout * 2,
        None => connect_timeout,
    };
    let opened = attempt::open(worker, place, patience).await;
    if let Err(failure) = &opened {
        attempt::tell(worker, place, failure.kind);
    }
    opened
}

/// Serve an admitted tunnel stream: it is accepted when the endpoint has accepted, so that the
/// ingress may try elsewhere until then.
pub(crate) async fn leave(
    worker: &Rc<Worker>,
    incoming: Box<dyn Incoming>,
    request: &StreamRequest,
    admitted: Admitted,
) {
    let limits = worker.snapshot().limits;
    let peer = incoming.peer().clone();
    let cluster = &admitted.cluster;
    if !cluster.circuit.takes_request(&cluster.cell.load()) {
        worker.metrics.circuits_open.inc();
        let failure = Failure::unsent(Kind::Full);
        return incoming.refuse(failure.status(), failure.kind.code());
    }
    let in_flight = InFlight::start(&admitted.stats);
    let place = Place {
        key: PoolKey {
            tenant: admitted.cluster.tenant,
            service: admitted.cluster.id,
            endpoint: admitted.endpoint,
            lb: LbId(0),
        },
        cell: None,
        cluster,
        stats: &admitted.stats,
        client: request.client,
        span: None,
        remote: None,
    };
    let (io, _counted) = match dial(worker, &place, limits.connect_timeout).await {
        Ok(reached) => reached,
        Err(failure) => {
            worker.metrics.failures.inc();
            in_flight.stats().failed();
            incoming.refuse(failure.status(), failure.kind.code());
            return;
        }
    };
    let mut far = End::new(Wire::new(io));
    let accepted = timeout(limits.handshake_timeout, incoming.accept()).await;
    let Ok(Ok(stream)) = accepted else {
        return;
    };
    let mut near = End::new(Wire::new(Io::Other(stream)));
    let idle = limits.upgrade_idle_timeout;
    let (alarm, moved) = (&mut Alarm::new(idle), &mut Moved::default());
    let offered = || egress::goes_on(worker, &peer, request);
    let ended = tokio::select! {
        biased;
        ended = pipe(&mut near, &mut far, alarm, idle, moved) => ended,
        () = worker.offers.withdrawn(limits.drain_timeout, offered) => return,
    };
    if ended == Err(Broken::Far) {
        in_flight.stats().failed();
    }
}
