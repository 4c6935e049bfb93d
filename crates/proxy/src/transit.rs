//! Streams between other sites: passed on as they come.
//!
//! Whoever began the stream has chosen its whole way and written it into the head. Here its next
//! stretch is opened, and what comes is carried on unread. It is accepted when it is accepted
//! further on, so that whoever began it may try elsewhere until then.

use std::rc::Rc;

use base::SiteName;
use http::StatusCode;
use l7::{Refusal, pass};
use tokio::time::timeout;
use tunnel::Staleness;

use crate::{
    alarm::Alarm,
    attempt::{Failure, Kind},
    egress::count,
    http1::Wire,
    io::Io,
    pipe::{End, Moved, pipe},
    upstream::{
        connect::{Ask, DialError, Incoming, Passage},
        tunnels,
    },
    worker::Worker,
};

/// Streams of one tenant that one worker passes on at once: others share the links with it, and
/// whoever does not read holds what one stream may send.
const MOST: usize = 512;

/// Pass a stream on.
pub(crate) async fn carry(worker: &Rc<Worker>, incoming: Box<dyn Incoming>, mut passage: Passage) {
    let (relays, limits) = {
        let snapshot = worker.snapshot();
        (snapshot.relays, snapshot.limits)
    };
    let ingress = passage.ingress(incoming.peer()).clone();
    let allowed = match relays {
        true => pass(&ingress, &passage.tenant, &passage.via),
        false => Err(Refusal::NoTransit),
    };
    if let Err(refusal) = allowed {
        count(worker, incoming.peer(), passage.tenant.as_str(), refusal);
        return incoming.refuse(refusal.status(), refusal.code());
    }
    let Some(_seat) = worker.passing.take(passage.tenant.clone(), MOST) else {
        worker.metrics.transit_full.inc();
        let full = Failure::unsent(Kind::Full);
        return incoming.refuse(full.status(), full.kind.code());
    };
    let next: SiteName = passage.via.remove(0);
    passage.origin = Some(ingress);
    // The way further on takes as long as the rest of it.
    let opened = timeout(
        limits.connect_timeout * 2,
        tunnels::stretch(worker, &next, Ask::Sealed(passage)),
    );
    let far = match opened.await {
        Ok(Ok(far)) => far,
        Ok(Err(DialError::Refused { status, reason })) => return incoming.refuse(status, &reason),
        Ok(Err(DialError::NoLink | DialError::Broken(_))) | Err(_) => {
            worker.metrics.transit_failed.inc();
            return incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, Kind::Link.code());
        }
    };
    let accepted = timeout(limits.handshake_timeout, incoming.accept()).await;
    let Ok(Ok(near)) = accepted else {
        return;
    };
    worker.metrics.transit.inc();
    // A stream lives long, request after request: whoever keeps it learns when there is a better
    // way, and when this one is about to end.
    let (stale, mover, drain) = (far.staleness(), near.mover(), worker.drain());
    let hint = async {
        if let Some(mover) = mover {
            tokio::select! {
                () = begins(stale) => {}
                () = drain.draining() => {}
            }
            mover.say();
        }
        std::future::pending::<()>().await;
    };
    let mut far = End::new(Wire::new(Io::Other(far)));
    let mut near = End::new(Wire::new(Io::Other(near)));
    let idle = limits.upgrade_idle_timeout;
    let (alarm, moved) = (&mut Alarm::new(idle), &mut Moved::default());
    // However it ends, both ends learn it from the other.
    tokio::select! {
        biased;
        _ = pipe(&mut near, &mut far, alarm, idle, moved) => {}
        () = hint => {}
    }
}

async fn begins(stale: Option<Staleness>) {
    match stale {
        Some(stale) => stale.begins().await,
        None => std::future::pending().await,
    }
}
