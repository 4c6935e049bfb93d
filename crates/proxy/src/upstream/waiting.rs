//! Tries that wait for an endpoint, so that news about it reach them at once.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    task::{Context, Poll, Waker},
};

use balance::EndpointKey;
use base::{ServiceId, TenantId};

/// One endpoint of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) tenant: TenantId,
    pub(crate) service: ServiceId,
    pub(crate) endpoint: EndpointKey,
}

#[derive(Debug, Default)]
struct Entry {
    look: bool,
    waker: Option<Waker>,
}

/// The tries of one worker by target. News only say "look again": the try itself looks into its
/// cell, so a lost or doubled message does no harm.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    tries: RefCell<BTreeMap<(Target, u64), Entry>>,
    next: Cell<u64>,
}

/// One registered try; dropping it leaves.
#[derive(Debug)]
pub(crate) struct WaitGuard<'a> {
    waiting: &'a Waiting,
    key: (Target, u64),
}

impl Waiting {
    pub(crate) fn register(&self, target: Target) -> WaitGuard<'_> {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let key = (target, number);
        self.tries.borrow_mut().insert(key, Entry::default());
        WaitGuard { waiting: self, key }
    }

    /// Have the tries on `target` look again.
    pub(crate) fn look(&self, target: Target) {
        let mut tries = self.tries.borrow_mut();
        for (_, entry) in tries.range_mut((target, 0)..=(target, u64::MAX)) {
            entry.stir();
        }
    }

    /// Have every try look again.
    pub(crate) fn look_all(&self) {
        for entry in self.tries.borrow_mut().values_mut() {
            entry.stir();
        }
    }
}

impl Entry {
    fn stir(&mut self) {
        self.look = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl WaitGuard<'_> {
    /// Ready when there is reason to look again.
    pub(crate) fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut tries = self.waiting.tries.borrow_mut();
        let Some(entry) = tries.get_mut(&self.key) else {
            return Poll::Pending;
        };
        if std::mem::take(&mut entry.look) {
            return Poll::Ready(());
        }
        if !entry
            .waker
            .as_ref()
            .is_some_and(|w| w.will_wake(cx.waker()))
        {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.waiting.tries.borrow_mut().remove(&self.key);
    }
}
