//! Places of clients' connections at a worker, and how tenants share them.
//!
//! A worker has so many places and takes whoever comes; whose a connection is shows with its
//! server name or its first request. While more than half of the places are taken, a tenant has no
//! more than its share, which is all places by the number of tenants that have any: it gets no new
//! one beyond that, and of those it has beyond, connections on which nothing runs are asked to go,
//! the oldest first. So a tenant that is alone may have all places, and one that is not leaves half
//! of them to the others, whatever its clients do. Connections of which nobody knows yet whose they
//! are have a share like a tenant's, beyond which they have to say it soon.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use base::TenantId;
use runtime::metrics::{Counter, Family, Gauge, Metrics};

/// A share is never less than such a part of all places, however many tenants there are.
const LEAST: usize = 32;
/// Series of a process; what comes beyond is counted together.
const MAX_SERIES: usize = 10_000;

/// The places of one worker.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Cell<usize>,
    /// Of these, how many are known to be a tenant's.
    claimed: Cell<usize>,
    tenants: RefCell<BTreeMap<TenantId, Holding>>,
    /// Counts connections and requests, so that both have an order.
    order: Cell<u64>,
}

/// What a tenant has.
#[derive(Debug)]
struct Holding {
    name: String,
    seats: BTreeMap<u64, Weak<Seat>>,
    /// Since this was last counted.
    refused: u64,
    ended: u64,
}

/// A connection's place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Rc<Seats>,
    id: u64,
    tenant: Cell<Option<TenantId>>,
    /// Requests that run.
    running: Cell<usize>,
    /// When the last one ended, or it was taken.
    rests: Cell<u64>,
    leaves: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    open: Gauge,
}

/// Something that runs on a connection; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Running<'s>(&'s Seat);

impl Seats {
    pub(crate) fn taken(&self) -> usize {
        self.taken.get()
    }

    /// One more. Whether there is room is asked before.
    pub(crate) fn take(self: &Rc<Self>, open: &Gauge) -> Rc<Seat> {
        self.taken.set(self.taken.get() + 1);
        open.inc();
        let id = self.next();
        Rc::new(Seat {
            seats: Rc::clone(self),
            id,
            tenant: Cell::default(),
            running: Cell::default(),
            rests: Cell::new(id),
            leaves: Cell::default(),
            waker: RefCell::default(),
            open: open.clone(),
        })
    }

    fn next(&self) -> u64 {
        let next = self.order.get() + 1;
        self.order.set(next);
        next
    }

    /// Have those of which nobody knows whose they are more than their share of `most` places?
    pub(crate) fn many_unclaimed(&self, most: usize) -> bool {
        let unclaimed = self.taken.get() - self.claimed.get();
        let sharers = || self.tenants.borrow().len() + 1;
        self.taken.get() > most / 2 && unclaimed > share(most, sharers())
    }

    fn claim(&self, seat: &Rc<Seat>, tenant: TenantId, name: &str, most: usize) -> bool {
        let tenants = &mut *self.tenants.borrow_mut();
        let sharers = tenants.len() + usize::from(!tenants.contains_key(&tenant));
        let holding = tenants.entry(tenant).or_insert_with(|| Holding {
            name: name.to_owned(),
            seats: BTreeMap::new(),
            refused: 0,
            ended: 0,
        });
        if self.taken.get() > most / 2 && holding.seats.len() >= share(most, sharers) {
            return false;
        }
        holding.seats.insert(seat.id, Rc::downgrade(seat));
        match seat.tenant.replace(Some(tenant)) {
            None => self.claimed.set(self.claimed.get() + 1),
            Some(before) => forget(tenants, before, seat.id),
        }
        true
    }

    fn refused(&self, tenant: TenantId) {
        if let Some(holding) = self.tenants.borrow_mut().get_mut(&tenant) {
            holding.refused += 1;
        }
    }

    /// Ask connections on which nothing runs to go, of tenants that have more than their share of
    /// `most` places, as many as are beyond that and beyond half of all.
    pub(crate) fn thin(&self, most: usize) {
        let many = self.taken.get().saturating_sub(most / 2);
        if many == 0 {
            return;
        }
        let tenants = &mut *self.tenants.borrow_mut();
        let share = share(most, tenants.len());
        for holding in tenants.values_mut() {
            let beyond = holding.seats.len().saturating_sub(share).min(many);
            if beyond == 0 {
                continue;
            }
            let seats = holding.seats.values().filter_map(Weak::upgrade);
            let mut resting: Vec<_> = seats.filter(|seat| seat.running.get() == 0).collect();
            if let Some(last) = beyond.checked_sub(1).filter(|last| *last < resting.len()) {
                resting.select_nth_unstable_by_key(last, |seat| seat.rests.get());
            }
            for seat in resting.iter().take(beyond) {
                // One that was asked before, and is still there, is among the oldest.
                holding.ended += u64::from(seat.leave());
            }
        }
    }

    /// Add up what was done since the last time.
    pub(crate) fn count(&self, shed: &Shed) {
        self.tenants.borrow_mut().retain(|_, holding| {
            shed.add(
                &holding.name,
                "refused",
                std::mem::take(&mut holding.refused),
            );
            shed.add(&holding.name, "ended", std::mem::take(&mut holding.ended));
            !holding.seats.is_empty()
        });
    }
}

/// All places by those who have any.
fn share(most: usize, sharers: usize) -> usize {
    (most / sharers.max(1)).max(most / LEAST).max(1)
}

/// A tenant that has nothing left is nobody to share with, but for what is to be counted.
fn forget(tenants: &mut BTreeMap<TenantId, Holding>, tenant: TenantId, id: u64) {
    if let Some(holding) = tenants.get_mut(&tenant) {
        holding.seats.remove(&id);
        if holding.seats.is_empty() && holding.refused + holding.ended == 0 {
            tenants.remove(&tenant);
        }
    }
}

impl Seat {
    /// The connection is that tenant's, as shows now. False, and nothing has changed: the tenant
    /// has its share of `most` places.
    pub(crate) fn claim(self: &Rc<Self>, tenant: TenantId, name: &str, most: usize) -> bool {
        self.is_claimed_by(tenant) || self.seats.claim(self, tenant, name, most)
    }

    /// Each request asks, and it is a comparison.
    pub(crate) fn is_claimed_by(&self, tenant: TenantId) -> bool {
        self.tenant.get() == Some(tenant)
    }

    /// The tenant did not get it.
    pub(crate) fn refused(&self, tenant: TenantId) {
        self.seats.refused(tenant);
    }

    /// Is it not known yet whose it is?
    pub(crate) fn is_unclaimed(&self) -> bool {
        self.tenant.get().is_none()
    }

    /// Something begins on it.
    pub(crate) fn run(&self) -> Running<'_> {
        self.running.set(self.running.get() + 1);
        Running(self)
    }

    /// Have it end when nothing runs on it; false if that was said before.
    pub(crate) fn leave(&self) -> bool {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        !self.leaves.replace(true)
    }

    pub(crate) fn leaves(&self) -> bool {
        self.leaves.get()
    }

    /// Ready when it has to go.
    pub(crate) fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.leaves.get() {
            return Poll::Ready(());
        }
        let waker = &mut *self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let seat = self.0;
        seat.running.set(seat.running.get() - 1);
        seat.rests.set(seat.seats.next());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = &self.seats;
        seats.taken.set(seats.taken.get() - 1);
        self.open.dec();
        if let Some(tenant) = self.tenant.get() {
            seats.claimed.set(seats.claimed.get() - 1);
            forget(&mut seats.tenants.borrow_mut(), tenant, self.id);
        }
    }
}

/// `sealane_proxy_connections_shed_total`: whose connections had to go.
#[derive(Clone, Debug)]
pub(crate) struct Shed {
    family: Family<[(&'static str, String); 2], Counter>,
    series: Arc<AtomicUsize>,
}

impl Shed {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let family = Family::default();
        let help = "Connections of tenants that had more than their share of the places";
        metrics.register("proxy_connections_shed", help, family.clone());
        Shed {
            family,
            series: Arc::default(),
        }
    }

    fn add(&self, tenant: &str, how: &'static str, many: u64) {
        if many == 0 {
            return;
        }
        let labels = |tenant: &str| [("tenant", tenant.to_owned()), ("how", how.to_owned())];
        let mut wanted = labels(tenant);
        let known = self.family.get(&wanted).is_some();
        if !known && self.series.fetch_add(1, Relaxed) >= MAX_SERIES {
            wanted = labels("(other)");
        }
        self.family.get_or_create(&wanted).inc_by(many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 64;
    const ACME: TenantId = TenantId(1);
    const BLUE: TenantId = TenantId(2);

    fn sit(seats: &Rc<Seats>, tenant: TenantId) -> Result<Rc<Seat>, Rc<Seat>> {
        let seat = seats.take(&Gauge::default());
        let name = if tenant == ACME { "acme" } else { "blue" };
        if seat.claim(tenant, name, MOST) {
            Ok(seat)
        } else {
            Err(seat)
        }
    }

    fn many(seats: &Rc<Seats>, tenant: TenantId, count: usize) -> Vec<Rc<Seat>> {
        let all = (0..count).map(|_| sit(seats, tenant).expect("a place"));
        all.collect()
    }

    #[test]
    fn a_tenant_alone_may_have_all_places() {
        let seats = Rc::new(Seats::default());
        let all = many(&seats, BLUE, MOST - 2);
        seats.thin(MOST);
        assert!(!all.iter().any(|seat| seat.leaves()));
        // Who is on his way and has not said to whom makes nobody a sharer.
        let unknown = seats.take(&Gauge::default());
        assert!(unknown.is_unclaimed());
        assert!(sit(&seats, BLUE).is_ok());
    }

    #[test]
    fn a_tenant_leaves_half_of_the_places_to_others() {
        let seats = Rc::new(Seats::default());
        let acme = many(&seats, ACME, 1);
        let blue = many(&seats, BLUE, MOST / 2);
        // Its share is half, too.
        let refused = sit(&seats, BLUE).expect_err("it has its share");
        assert!(refused.is_unclaimed() && seats.taken() == MOST / 2 + 2);
        let others: Vec<_> = (3..6)
            .flat_map(|tenant| many(&seats, TenantId(tenant), 7))
            .collect();
        assert!(sit(&seats, TenantId(6)).is_ok());
        drop((refused, others));
        // There is room again, but for whoever has half of it.
        assert!(sit(&seats, BLUE).is_err());
        assert!(sit(&seats, ACME).is_ok());
        drop(acme);
        assert!(sit(&seats, BLUE).is_ok(), "alone again");
        drop(blue);
        assert_eq!((seats.taken(), seats.claimed.get()), (0, 0));
    }

    #[test]
    fn what_rests_longest_goes_first() {
        let seats = Rc::new(Seats::default());
        let mut blue = many(&seats, BLUE, MOST / 2 + 8);
        // The first has rested least, the second does not.
        drop(blue[0].run());
        let running = blue[1].run();
        let acme = many(&seats, ACME, 1);
        // Beyond its share there are eight.
        seats.thin(MOST);
        seats.thin(MOST);
        let gone: Vec<usize> = (0..blue.len()).filter(|at| blue[*at].leaves()).collect();
        assert_eq!(gone, (2..10).collect::<Vec<_>>());
        assert!(!acme[0].leaves());
        drop(running);
        blue.retain(|seat| !seat.leaves());
        seats.thin(MOST);
        assert!(!blue.iter().any(|seat| seat.leaves()));
    }

    #[test]
    fn a_share_has_a_least_size_and_nothing_happens_with_room() {
        let seats = Rc::new(Seats::default());
        let crowd: Vec<_> = (10..42)
            .flat_map(|tenant| many(&seats, TenantId(tenant), 1))
            .collect();
        // Half is taken by 32 others: one more makes it crowded, and two are the least.
        let blue = [sit(&seats, BLUE), sit(&seats, BLUE)];
        assert!(blue.iter().all(Result::is_ok) && sit(&seats, BLUE).is_err());
        drop(crowd);
        assert!(
            many(&seats, BLUE, MOST / 2 - 2)
                .iter()
                .all(|seat| !seat.leaves())
        );
        let few = many(&seats, ACME, MOST / 4);
        seats.thin(MOST);
        assert!(!few.iter().any(|seat| seat.leaves()));
    }

    #[test]
    fn a_connection_may_turn_out_to_be_anothers() {
        let seats = Rc::new(Seats::default());
        let one = sit(&seats, BLUE).expect("a place");
        assert!(one.claim(ACME, "acme", MOST) && one.claim(ACME, "acme", MOST));
        assert_eq!(seats.tenants.borrow().len(), 1);
        drop(one);
        assert!(seats.tenants.borrow().is_empty());
    }

    #[test]
    fn those_that_do_not_say_whose_they_are_have_a_share_as_well() {
        let seats = Rc::new(Seats::default());
        let _acme = many(&seats, ACME, 1);
        let mut unknown = Vec::new();
        while !seats.many_unclaimed(MOST) {
            unknown.push(seats.take(&Gauge::default()));
        }
        assert_eq!(unknown.len(), MOST / 2 + 1);
        let _blue = many(&seats, BLUE, 1);
        unknown.truncate(MOST / 3);
        assert!(!seats.many_unclaimed(MOST));
    }

    #[test]
    fn whoever_waits_is_woken() {
        let seats = Rc::new(Seats::default());
        let seat = seats.take(&Gauge::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(seat.poll_leave(&mut cx).is_pending());
        assert!(seat.leave() && !seat.leave());
        assert!(seat.poll_leave(&mut cx).is_ready());
    }

    #[test]
    fn what_was_done_is_counted_by_tenant() {
        let metrics = Metrics::default();
        let (seats, shed) = (Rc::new(Seats::default()), Shed::new(&metrics));
        let _acme = many(&seats, ACME, 1);
        let blue = many(&seats, BLUE, MOST / 2);
        sit(&seats, BLUE)
            .expect_err("it has its share")
            .refused(BLUE);
        drop(blue);
        seats.count(&shed);
        seats.count(&shed);
        let text = metrics.render();
        let line = r#"sealane_proxy_connections_shed_total{tenant="blue",how="refused"} 1"#;
        assert!(text.contains(line), "{text}");
        assert_eq!(seats.tenants.borrow().len(), 1);
    }
}
