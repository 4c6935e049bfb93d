//! Tries that wait for an endpoint, so that news about it reach them at once.

use std::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};

use balance::EndpointKey;
use base::{ServiceId, TenantId};

/// One endpoint of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tenant: TenantId,
    pub(crate) service: ServiceId,
    pub(crate) endpoint: EndpointKey,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    look: bool,
    waker: Option<Waker>,
}

/// The tries of one worker, each in a place of its own. News only say "look again": the try itself
/// looks into its cell, so a lost or doubled message does no harm.
#[derive(Debug, Default)]
pub(crate) struct Waiting(RefCell<Places>);

#[derive(Debug, Default)]
struct Places {
    tries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

/// One registered try; dropping it leaves.
#[derive(Debug)]
pub(crate) struct WaitGuard<'a> {
    waiting: &'a Waiting,
    at: usize,
}

impl Waiting {
    pub(crate) fn register(&self, target: Target) -> WaitGuard<'_> {
        let entry = Some(Entry {
            target,
            look: false,
            waker: None,
        });
        let mut places = self.0.borrow_mut();
        let at = places.free.pop().unwrap_or(places.tries.len());
        match places.tries.get_mut(at) {
            Some(place) => *place = entry,
            None => places.tries.push(entry),
        }
        WaitGuard { waiting: self, at }
    }

    /// Have the tries on `target` look again.
    pub(crate) fn look(&self, target: Target) {
        self.stir(|entry| entry.target == target);
    }

    /// Have every try look again.
    pub(crate) fn look_all(&self) {
        self.stir(|_| true);
    }

    fn stir(&self, concerned: impl Fn(&Entry) -> bool) {
        let mut places = self.0.borrow_mut();
        let tries = places.tries.iter_mut().flatten();
        for entry in tries.filter(|entry| concerned(entry)) {
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
        let mut places = self.waiting.0.borrow_mut();
        let Some(entry) = places.tries.get_mut(self.at).and_then(Option::as_mut) else {
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
        let mut places = self.waiting.0.borrow_mut();
        if let Some(place) = places.tries.get_mut(self.at) {
            *place = None;
        }
        places.free.push(self.at);
    }
}
