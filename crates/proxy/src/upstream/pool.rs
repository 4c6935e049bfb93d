//! Idle connections of one worker.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
    time::Duration,
};

use balance::EndpointKey;
use base::{Instant, LbId, ServiceId, TenantId};
use tunnel::WayId;

use super::{UpConn, Via};

/// Idle connections a key and a worker may hold; more are closed.
const MAX_IDLE_PER_KEY: usize = 1024;
const MAX_IDLE: usize = 4096;
/// Shorter than what servers commonly allow, so that we close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Who may share a connection: one tenant's service, one endpoint, one load balancer (the egress
/// checked the stream for it). Tenants never share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolKey {
    pub(crate) tenant: TenantId,
    pub(crate) service: ServiceId,
    pub(crate) endpoint: EndpointKey,
    pub(crate) lb: LbId,
}

#[derive(Debug)]
struct Idle {
    conn: Box<UpConn>,
    since: Instant,
}

/// The pool. A reaper task waits in [`Pool::poll_reap`] so that a connection its peer closes is
/// noticed at once, not when somebody needs it.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<BTreeMap<PoolKey, VecDeque<Idle>>>,
    count: Cell<usize>,
    /// Nothing is kept any more.
    closed: Cell<bool>,
    reaper: RefCell<Option<Waker>>,
}

impl Pool {
    /// The most recently used connection that is still good; of streams to another site one that
    /// went the way that new ones go.
    pub(crate) fn take(&self, key: &PoolKey, way: Option<WayId>) -> Option<Box<UpConn>> {
        let mut idle = self.idle.borrow_mut();
        let queue = idle.get_mut(key)?;
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(mut entry) = queue.pop_back() {
            self.count.set(self.count.get() - 1);
            let detour = way.is_some_and(|way| entry.conn.via() != Via::Tunnel(way));
            if !detour && entry.conn.poll_unusable(&mut cx).is_pending() {
                return Some(entry.conn);
            }
        }
        None
    }

    /// Keep a connection that is at rest; the oldest of its key goes if there are too many.
    pub(crate) fn put(&self, key: PoolKey, mut conn: Box<UpConn>, now: Instant) {
        if self.closed.get() || self.count.get() >= MAX_IDLE {
            return;
        }
        conn.rest();
        if let Some(waker) = self.reaper.borrow().as_ref()
            && conn
                .poll_unusable(&mut Context::from_waker(waker))
                .is_ready()
        {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let queue = idle.entry(key).or_default();
        queue.push_back(Idle { conn, since: now });
        self.count.set(self.count.get() + 1);
        if queue.len() > MAX_IDLE_PER_KEY {
            queue.pop_front();
            self.count.set(self.count.get() - 1);
        }
    }

    /// Drop what is closed or idle too long; ready with the keys whose TCP connection its
    /// endpoint closed. Wakes whenever an idle connection stirs.
    pub(crate) fn poll_reap(&self, cx: &mut Context<'_>, now: Instant) -> Poll<Vec<PoolKey>> {
        *self.reaper.borrow_mut() = Some(cx.waker().clone());
        let mut closed = Vec::new();
        let mut left = 0;
        self.idle.borrow_mut().retain(|key, queue| {
            queue.retain_mut(|entry| {
                if entry.conn.poll_unusable(cx).is_ready() {
                    if entry.conn.via() == Via::Tcp && closed.last() != Some(key) {
                        closed.push(*key);
                    }
                    return false;
                }
                now.since(entry.since) < IDLE_TIMEOUT
            });
            left += queue.len();
            !queue.is_empty()
        });
        self.count.set(left);
        if closed.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(closed)
        }
    }

    /// Close everything idle, and keep nothing from now on.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.count.set(0);
    }
}
