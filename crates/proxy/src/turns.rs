//! Whose turn it is: tenants share a worker's time.
//!
//! A turn is what a worker does between two looks at its sockets. Each poll of a connection is for
//! somebody: the tenant that it serves or served last, or nobody while that is not known (taking
//! connections, handshakes, their first heads). How long it took goes to an account of theirs.
//! While several have accounts, whoever has used up what a turn has for it waits, and what it used
//! beyond is missing from its next turns. Its clients are served one after the other, each in the
//! order of its connections, so that none of them holds up the others. So a flood of one tenant
//! holds up another by turns of bounded length and not by the flood, whether it is one of
//! connections, heads, bodies or answers; no time is left unused; and who is alone is never held up
//! nor timed. This is deficit round robin (Shreedhar and Varghese, 1995) over polls.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::{Future, poll_fn},
    net::IpAddr,
    ops::Bound::{Excluded, Unbounded},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use base::{Instant, TenantId};

use crate::worker::Worker;

/// What each has in one turn beside others: half a dozen requests, or a quarter of a handshake.
const QUANTUM: Duration = Duration::from_micros(100);
/// The most that one poll is charged: a handshake. What took longer was mostly not its doing: the
/// system gave the processor to somebody else meanwhile, and the clock does not tell.
const MOST: Duration = Duration::from_micros(500);
/// Whose what is that is nobody's yet, or at all.
pub(crate) const NOBODY: TenantId = TenantId(0);
/// Who has asked for nothing for so long is nobody to be considerate of.
const BESIDE: Duration = Duration::from_secs(1);

/// What serves a connection, in turns: those of `whose` at first, and then of whomever it says by
/// [`Turns::serve`].
pub(crate) struct InTurn<F> {
    worker: Rc<Worker>,
    whose: TenantId,
    line: Line,
    serving: Pin<Box<F>>,
    place: Option<Rc<Place>>,
}

impl<F> InTurn<F> {
    pub(crate) fn new(worker: &Rc<Worker>, (whose, line): (TenantId, Line), serving: F) -> Self {
        InTurn {
            worker: Rc::clone(worker),
            whose,
            line,
            serving: Box::pin(serving),
            place: None,
        }
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let InTurn {
            worker,
            whose,
            line,
            serving,
            place,
        } = &mut *self;
        let turns = &worker.turns;
        turns.whose.set(*whose);
        if turns.alone.get() == Some(*whose) && place.is_none() {
            let polled = serving.as_mut().poll(cx);
            *whose = turns.whose.get();
            return polled;
        }
        let began = runtime::now();
        if place.is_none() {
            *place = turns.enter((*whose, *line), began);
            if place.is_some() {
                worker.metrics.turns_waited.inc();
            }
        }
        if let Some(waits) = place {
            if !waits.may.get() {
                waits.waker.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            *place = None;
        }
        turns.until.set(Some(began + QUANTUM));
        let polled = serving.as_mut().poll(cx);
        turns.until.set(None);
        turns.used(*whose, runtime::now().since(began));
        *whose = turns.whose.get();
        polled
    }
}

/// The turns of one worker.
#[derive(Debug)]
pub(crate) struct Turns {
    accounts: RefCell<BTreeMap<TenantId, Account>>,
    /// The only one who has an account, if there is one only.
    alone: Cell<Option<TenantId>>,
    /// For whom the poll under way is.
    whose: Cell<TenantId>,
    /// When the poll under way is to be over, where others wait.
    until: Cell<Option<Instant>>,
    /// Somebody has used up a turn: there is to be another one.
    spent: Cell<bool>,
    /// Nobody waits any more.
    over: Cell<bool>,
    turner: RefCell<Option<Waker>>,
}

/// Of this turn, and what is missing from the next ones.
#[derive(Debug)]
struct Account {
    used: Duration,
    asked: Instant,
    waiting: Queue,
}

/// In which of 256 lines a client stands: that of its address, or of its network of 64 bits, which
/// is one site's in IPv6 (RFC 4291 §2.5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line(u8);

impl Line {
    pub(crate) fn of(client: IpAddr) -> Self {
        let mix = |octets: &[u8]| {
            let mixed = octets.iter().fold(0_u8, |mixed, octet| {
                mixed.wrapping_mul(31).wrapping_add(*octet)
            });
            Line(mixed)
        };
        match client.to_canonical() {
            IpAddr::V4(client) => mix(&client.octets()),
            IpAddr::V6(client) => mix(client.octets().first_chunk::<8>().unwrap_or(&[0; 8])),
        }
    }
}

/// Who waits: line after line, and in order in each.
#[derive(Debug, Default)]
struct Queue {
    lines: BTreeMap<Line, VecDeque<Rc<Place>>>,
    last: Line,
}

impl Queue {
    fn push(&mut self, line: Line, place: Rc<Place>) {
        self.lines.entry(line).or_default().push_back(place);
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn pop(&mut self) -> Option<Rc<Place>> {
        let after = self.lines.range((Excluded(self.last), Unbounded)).next();
        let (line, _) = after.or_else(|| self.lines.iter().next())?;
        self.last = *line;
        let places = self.lines.get_mut(&self.last)?;
        let place = places.pop_front();
        if places.is_empty() {
            self.lines.remove(&self.last);
        }
        place
    }

    fn grant_all(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        lines
            .into_values()
            .flatten()
            .for_each(|place| place.grant());
    }
}

/// A place in the queue.
#[derive(Debug, Default)]
struct Place {
    may: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns {
            accounts: RefCell::default(),
            alone: Cell::default(),
            whose: Cell::new(NOBODY),
            until: Cell::default(),
            spent: Cell::default(),
            over: Cell::default(),
            turner: RefCell::default(),
        }
    }
}

impl Turns {
    /// What the connection being polled does from now on is for this tenant, in its turns.
    pub(crate) async fn serve(&self, tenant: TenantId) {
        let another = self.whose.replace(tenant) != tenant;
        let mut waits = another && self.until.get().is_some();
        poll_fn(|cx| {
            if std::mem::take(&mut waits) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Has the poll under way taken a turn's time? Then what can wait is to wait for the next poll,
    /// which comes by itself.
    pub(crate) fn is_long(&self, cx: &Context<'_>) -> bool {
        let long = self.until.get().is_some_and(|at| runtime::now() >= at);
        if long {
            cx.waker().wake_by_ref();
        }
        long
    }

    /// Wait for the next poll if this one has taken a turn's time.
    pub(crate) fn poll_short(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_long(cx) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// May somebody be served now? A place in the queue if not.
    fn enter(&self, (whose, line): (TenantId, Line), now: Instant) -> Option<Rc<Place>> {
        let accounts = &mut *self.accounts.borrow_mut();
        if !accounts.contains_key(&whose) {
            accounts.retain(|_, account| account.is_of_use(now));
        }
        let account = accounts.entry(whose).or_insert_with(|| Account {
            used: Duration::ZERO,
            asked: now,
            waiting: Queue::default(),
        });
        account.asked = now;
        let waits =
            (account.used >= QUANTUM || !account.waiting.is_empty()).then(Rc::<Place>::default);
        let waits = waits.filter(|_| !self.over.get());
        if let Some(place) = &waits {
            account.waiting.push(line, Rc::clone(place));
        }
        let alone = accounts.len() == 1;
        if alone && waits.is_none() {
            self.alone.set(Some(whose));
        } else {
            self.alone.set(None);
            if waits.is_some() {
                self.again();
            }
        }
        waits
    }

    /// Somebody was served for so long. Who waits next follows, if there is time left.
    fn used(&self, whose: TenantId, took: Duration) {
        if let Some(account) = self.accounts.borrow_mut().get_mut(&whose) {
            account.used += took.min(MOST);
            if account.used >= QUANTUM {
                self.again();
            } else {
                account.next();
            }
        }
    }

    fn again(&self) {
        if !self.spent.replace(true)
            && let Some(turner) = self.turner.borrow_mut().take()
        {
            turner.wake();
        }
    }

    /// The next turn: everybody has time again.
    fn next(&self, now: Instant) {
        let accounts = &mut *self.accounts.borrow_mut();
        let mut spent = false;
        accounts.retain(|_, account| {
            account.used = account.used.saturating_sub(QUANTUM);
            if account.used < QUANTUM {
                account.next();
            }
            spent |= account.used >= QUANTUM || !account.waiting.is_empty();
            account.is_of_use(now)
        });
        self.spent.set(spent);
        let mut left = accounts.iter_mut();
        if let (Some((whose, account)), None) = (left.next(), left.next()) {
            // Nobody else is left to wait for.
            account.used = Duration::ZERO;
            account.waiting.grant_all();
            self.alone.set(Some(*whose));
            self.spent.set(false);
        }
    }

    /// Turn after turn, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            poll_fn(|cx| self.poll_spent(cx)).await;
            // The worker looks at its sockets before it comes back here.
            tokio::task::yield_now().await;
            self.next(runtime::now());
        }
    }

    fn poll_spent(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.spent.get() {
            return Poll::Ready(());
        }
        *self.turner.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// From now on nobody waits.
    pub(crate) fn end(&self) {
        self.over.set(true);
        for account in self.accounts.borrow_mut().values_mut() {
            account.waiting.grant_all();
        }
    }
}

impl Account {
    fn is_of_use(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || self.used > Duration::ZERO || now.since(self.asked) < BESIDE
    }

    /// Let the first of those that wait go on. One whose connection has ended meanwhile takes
    /// nobody's place for longer than a turn, since each turn begins here.
    fn next(&mut self) {
        if let Some(place) = self.waiting.pop() {
            place.grant();
        }
    }
}

impl Place {
    fn grant(&self) {
        self.may.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
