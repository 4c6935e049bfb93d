//! Streams between other sites: passed on as they come.
//!
//! Whoever began the stream has chosen its whole way and written it into the head. Here its next
//! stretch is opened, and what comes is carried on unread. It is accepted when it is accepted
//! further on, so that whoever began it may try elsewhere until then.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use base::{Name, SiteName};
use http::StatusCode;
use l7::{Refusal, pass};
use tokio::time::timeout;

use crate::{
    alarm::Alarm,
    attempt::{Failure, Kind},
    egress::count,
    http1::Wire,
    io::Io,
    pipe::{End, Moved, pipe},
    upstream::{
        connect::{DialError, Incoming, StreamRequest},
        tunnels,
    },
    worker::Worker,
};

/// Streams of one tenant that one worker passes on at once: others share the links with it, and
/// whoever does not read holds what one stream may send.
const MOST: usize = 512;

/// How many streams of each tenant are passed on.
#[derive(Debug, Default)]
pub(crate) struct Passing(RefCell<BTreeMap<Name, usize>>);

/// One of them, until it is dropped.
struct Seat<'p> {
    passing: &'p Passing,
    tenant: Name,
}

impl Passing {
    fn enter(&self, tenant: Name) -> Option<Seat<'_>> {
        let mut all = self.0.borrow_mut();
        let taken = all.entry(tenant.clone()).or_default();
        if *taken >= MOST {
            return None;
        }
        *taken += 1;
        Some(Seat {
            passing: self,
            tenant,
        })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut all = self.passing.0.borrow_mut();
        if let Some(taken) = all.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.tenant);
            }
        }
    }
}

/// Pass a stream on.
pub(crate) async fn carry(
    worker: &Rc<Worker>,
    incoming: Box<dyn Incoming>,
    mut request: StreamRequest,
) {
    let (relays, limits) = {
        let snapshot = worker.snapshot();
        (snapshot.relays, snapshot.limits)
    };
    let ingress = request.ingress(incoming.peer()).clone();
    let allowed = match relays {
        true => pass(&ingress, &request.authority, &request.via),
        false => Err(Refusal::NoTransit),
    };
    let tenant = match allowed {
        Ok(tenant) => tenant,
        Err(refusal) => {
            count(worker, incoming.peer(), &request, refusal);
            return incoming.refuse(refusal.status(), refusal.code());
        }
    };
    let Some(_seat) = worker.passing.enter(tenant) else {
        worker.metrics.transit_full.inc();
        let full = Failure::unsent(Kind::Full);
        return incoming.refuse(full.status(), full.kind.code());
    };
    let next: SiteName = request.via.remove(0);
    request.origin = Some(ingress);
    // The way further on takes as long as the rest of it.
    let opened = timeout(
        limits.connect_timeout * 2,
        tunnels::open(worker, &next, &request),
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
    let mut far = End::new(Wire::new(Io::Other(far)));
    let mut near = End::new(Wire::new(Io::Other(near)));
    let idle = limits.upgrade_idle_timeout;
    let (alarm, moved) = (&mut Alarm::new(idle), &mut Moved::default());
    // However it ends, both ends learn it from the other.
    let _ = pipe(&mut near, &mut far, alarm, idle, moved).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_alone_takes_all_places() {
        let passing = Passing::default();
        let name = |name: &str| name.parse::<Name>().expect("a name");
        let acme: Vec<_> = (0..MOST)
            .map(|_| passing.enter(name("acme")).expect("a place"))
            .collect();
        assert!(passing.enter(name("acme")).is_none());
        assert!(passing.enter(name("blue")).is_some());
        drop(acme);
        assert!(passing.0.borrow().is_empty());
    }
}
