//! Whose turn it is: tenants share a worker's time.
//!
//! A turn is what a worker does between two looks at its sockets. While several tenants ask, each
//! begins so many requests in a turn and no more; what comes beyond waits for the next turns, in
//! order. Handshakes, which are made before it is known for whom, are a tenant's by themselves. So a flood of one tenant makes the requests of another wait for a turn of bounded length
//! and not for the flood, no time is left unused, and a tenant that is alone is never held up.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use base::{Instant, TenantId};

/// What a tenant may begin in one turn beside others: a third of a millisecond or so.
const SHARE: usize = 16;
/// What a request costs of that, and a TLS handshake.
pub(crate) const REQUEST: usize = 1;
pub(crate) const HANDSHAKE: usize = 8;
/// Whose what is that is nobody's yet, or at all.
pub(crate) const NOBODY: TenantId = TenantId(0);
/// Requests of one tenant that may wait; one more is refused.
const WAITING: usize = 4096;
/// Who has asked for nothing for so long is nobody to be considerate of.
const BESIDE: Duration = Duration::from_secs(1);

/// The turns of one worker.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    tenants: RefCell<BTreeMap<TenantId, Share>>,
    /// Something was begun in this turn beside others: there is to be another one.
    begun: Cell<bool>,
    /// Nobody waits any more.
    over: Cell<bool>,
    turner: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Share {
    begun: usize,
    asked: Instant,
    waiting: VecDeque<Rc<Place>>,
}

/// A place in the queue.
#[derive(Debug)]
pub(crate) struct Place {
    cost: usize,
    may: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It begins.
    Now,
    /// It waits first.
    Later(Rc<Place>),
    /// Too many wait.
    Never,
}

impl Turns {
    /// One more thing of a tenant is to begin.
    pub(crate) fn take(&self, tenant: TenantId, cost: usize, now: Instant) -> Turn {
        let tenants = &mut *self.tenants.borrow_mut();
        let share = tenants.entry(tenant).or_insert_with(|| Share {
            begun: 0,
            asked: now,
            waiting: VecDeque::new(),
        });
        share.asked = now;
        share.begun += cost;
        let may = share.begun <= SHARE && share.waiting.is_empty();
        if tenants.len() == 1 || self.over.get() {
            return Turn::Now;
        }
        if !self.begun.replace(true)
            && let Some(turner) = self.turner.borrow_mut().take()
        {
            turner.wake();
        }
        if may {
            return Turn::Now;
        }
        let Some(share) = tenants.get_mut(&tenant) else {
            return Turn::Now;
        };
        if share.waiting.len() >= WAITING {
            return Turn::Never;
        }
        let place = Rc::new(Place {
            cost,
            may: Cell::default(),
            waker: RefCell::default(),
        });
        share.waiting.push_back(Rc::clone(&place));
        Turn::Later(place)
    }

    /// The next turn: everybody begins anew, those that wait first.
    fn next(&self, now: Instant) {
        let tenants = &mut *self.tenants.borrow_mut();
        self.begun.set(false);
        tenants.retain(|_, share| {
            share.begun = 0;
            while share.begun < SHARE
                && let Some(place) = share.waiting.pop_front()
            {
                share.begun += place.cost;
                place.grant();
                self.begun.set(true);
            }
            !share.waiting.is_empty() || share.begun > 0 || now.since(share.asked) < BESIDE
        });
        if tenants.len() == 1 {
            // Nobody else is left to wait for.
            let rest = tenants.values_mut().flat_map(|s| s.waiting.drain(..));
            rest.for_each(|place| place.grant());
        }
    }

    /// Turn after turn, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            poll_fn(|cx| self.poll_begun(cx)).await;
            // The worker looks at its sockets before it comes back here.
            tokio::task::yield_now().await;
            self.next(runtime::now());
        }
    }

    fn poll_begun(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.begun.get() {
            return Poll::Ready(());
        }
        *self.turner.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// From now on nobody waits.
    pub(crate) fn end(&self) {
        self.over.set(true);
        for share in self.tenants.borrow_mut().values_mut() {
            share.waiting.drain(..).for_each(|place| place.grant());
        }
    }
}

impl Place {
    fn grant(&self) {
        self.may.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Wait for one's turn.
    pub(crate) async fn turn(&self) {
        poll_fn(|cx| {
            if self.may.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: TenantId = TenantId(1);
    const BLUE: TenantId = TenantId(2);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn waits(turn: Turn) -> Option<Rc<Place>> {
        match turn {
            Turn::Now => None,
            Turn::Later(place) => Some(place),
            Turn::Never => panic!("refused"),
        }
    }

    #[test]
    fn a_tenant_alone_never_waits() {
        let turns = Turns::default();
        for _ in 0..10 * SHARE {
            assert!(matches!(turns.take(BLUE, REQUEST, at(0)), Turn::Now));
        }
    }

    #[test]
    fn a_flood_waits_and_the_other_tenant_does_not() {
        let turns = Turns::default();
        assert!(waits(turns.take(ACME, REQUEST, at(0))).is_none());
        let flood: Vec<_> = (0..3 * SHARE)
            .filter_map(|_| waits(turns.take(BLUE, REQUEST, at(0))))
            .collect();
        assert_eq!(flood.len(), 2 * SHARE);
        assert!(waits(turns.take(ACME, REQUEST, at(0))).is_none());
        turns.next(at(1));
        // In order; and who comes now stands behind them.
        assert!(flood.iter().take(SHARE).all(|place| place.may.get()));
        assert!(!flood.iter().skip(SHARE).any(|place| place.may.get()));
        let last = waits(turns.take(BLUE, REQUEST, at(1))).expect("a place");
        assert!(waits(turns.take(ACME, REQUEST, at(1))).is_none());
        turns.next(at(2));
        assert!(flood.iter().all(|place| place.may.get()) && !last.may.get());
        turns.next(at(3));
        assert!(last.may.get());
        assert!(waits(turns.take(BLUE, REQUEST, at(4))).is_none());
    }

    #[test]
    fn handshakes_are_a_tenant_by_themselves() {
        let turns = Turns::default();
        assert!(waits(turns.take(ACME, REQUEST, at(0))).is_none());
        let shakes: Vec<_> = (0..6)
            .filter_map(|_| waits(turns.take(NOBODY, HANDSHAKE, at(0))))
            .collect();
        assert_eq!(shakes.len(), 4);
        turns.next(at(1));
        assert_eq!(shakes.iter().filter(|place| place.may.get()).count(), 2);
        assert!(waits(turns.take(ACME, REQUEST, at(1))).is_none());
    }

    #[test]
    fn whoever_has_left_is_forgotten() {
        let turns = Turns::default();
        let _ = turns.take(ACME, REQUEST, at(0));
        let flood: Vec<_> = (0..10 * SHARE)
            .filter_map(|_| waits(turns.take(BLUE, REQUEST, at(900))))
            .collect();
        turns.next(at(950));
        assert!(!flood.iter().all(|place| place.may.get()));
        turns.next(at(1001));
        assert!(flood.iter().all(|place| place.may.get()));
        assert!(matches!(turns.take(BLUE, REQUEST, at(1002)), Turn::Now));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_in_the_end_nobody() {
        let turns = Turns::default();
        let _ = turns.take(ACME, REQUEST, at(0));
        let all: Vec<_> = (0..SHARE + WAITING + 1)
            .map(|_| turns.take(BLUE, REQUEST, at(0)))
            .collect();
        assert!(matches!(all.last(), Some(Turn::Never)));
        turns.end();
        let waiting = all.into_iter().filter(|turn| !matches!(turn, Turn::Never));
        assert!(waiting.filter_map(waits).all(|place| place.may.get()));
        assert!((0..10 * SHARE).all(|_| waits(turns.take(BLUE, REQUEST, at(0))).is_none()));
    }
}
