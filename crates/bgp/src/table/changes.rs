//! Routes that changed and of which somebody is still to hear, each once.

use std::collections::VecDeque;

use super::{group::WINDOW, slab::Bits};

/// A change that overtakes others, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Gone, or not to be chosen.
    Down = 0,
    Live = 1,
}

/// Down first, then all other changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pending: Bits,
    queue: [Queue; 2],
}

/// Routes in the order of their changes, each once.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<u32>,
    waiting: Bits,
}

impl Changes {
    /// A route changed.
    pub(super) fn push(&mut self, at: u32, lane: Lane) {
        let fresh = self.pending.insert(at);
        if fresh || lane == Lane::Down {
            self.queue[lane as usize].push(at);
        }
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        for lane in &mut self.queue {
            while let Some(at) = lane.pop() {
                if self.pending.remove(at) {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Does somebody wait for this one?
    pub(super) fn contains(&self, at: u32) -> bool {
        self.pending.contains(at)
    }

    /// Routes waiting.
    pub(super) const fn len(&self) -> usize {
        self.pending.len()
    }

    /// Nothing waits, not even what was told already.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.iter().all(|queue| queue.order.is_empty())
    }

    /// Entries of the queues.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.iter().map(|queue| queue.order.len()).sum()
    }
}

impl Queue {
    fn push(&mut self, at: u32) {
        if self.waiting.insert(at) {
            self.order.push_back(at);
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let at = self.order.pop_front();
        match at {
            Some(at) => {
                self.waiting.remove(at);
            }
            // A burst's room is given back.
            None if self.order.capacity() > 16 * WINDOW => self.order.shrink_to(WINDOW),
            None => {}
        }
        at
    }
}
