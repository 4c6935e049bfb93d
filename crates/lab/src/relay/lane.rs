//! One direction of a connection: bytes on their way, each with the time it came.
//!
//! A machine without socket or clock. Delivery is `arrival + one_way` with the delay asked for
//! now, so a changed delay holds for what is under way too; order is kept whatever the delay.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The most bytes that one direction holds (4 MiB, each chunk charged 64 bytes extra); then the
/// relay stops reading. The last chunk may exceed it by one read of 64 KiB.
pub const QUEUE_BOUND: usize = 4 << 20;

/// The most bytes of one read.
pub(super) const CHUNK: usize = 64 << 10;

/// What a queued chunk costs beside its bytes.
const OVERHEAD: usize = 64;

#[derive(Debug)]
struct Chunk {
    came: Instant,
    bytes: Vec<u8>,
    /// Bytes of the front that are written already.
    written: usize,
}

/// What to do with the far side of a lane now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Nothing is under way.
    Idle,
    /// Nothing to do before this time.
    Wait(Instant),
    /// Write these bytes and report with [`Lane::wrote`].
    Write(&'a [u8]),
    /// Half-close, once: the FIN has arrived.
    Finish,
    /// Abort: the RST has arrived.
    Reset,
    /// The FIN was delivered; this lane is over.
    Over,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    chunks: VecDeque<Chunk>,
    held: usize,
    fin: Option<Instant>,
    rst: Option<Instant>,
    over: bool,
}

impl Lane {
    /// May the relay read more from the near side?
    pub(super) fn wants_more(&self) -> bool {
        self.held < QUEUE_BOUND && !self.ended()
    }

    /// Has the near side said its last word?
    pub(super) fn ended(&self) -> bool {
        self.fin.is_some() || self.rst.is_some()
    }

    /// Has the near side aborted?
    pub(super) fn was_reset(&self) -> bool {
        self.rst.is_some()
    }

    /// Bytes came from the near side.
    pub(super) fn push(&mut self, came: Instant, bytes: Vec<u8>) {
        debug_assert!(!self.ended(), "nothing follows FIN or RST");
        self.held += bytes.len() + OVERHEAD;
        self.chunks.push_back(Chunk {
            came,
            bytes,
            written: 0,
        });
    }

    /// The near side half-closed.
    pub(super) fn finish(&mut self, came: Instant) {
        self.fin.get_or_insert(came);
    }

    /// The near side aborted. An RST does not wait for a full window, so it overtakes bytes
    /// that could not be written when its time has come.
    pub(super) fn reset(&mut self, came: Instant) {
        self.rst.get_or_insert(came);
    }

    /// What to do now.
    pub(super) fn step(&self, now: Instant, one_way: Duration) -> Step<'_> {
        if self.rst.is_some_and(|came| came + one_way <= now) {
            return Step::Reset;
        }
        if self.over {
            return self
                .rst
                .map_or(Step::Over, |came| Step::Wait(came + one_way));
        }
        let due = |came: Instant, step| {
            if came + one_way <= now {
                step
            } else {
                Step::Wait(came + one_way)
            }
        };
        match (self.chunks.front(), self.fin, self.rst) {
            (Some(chunk), _, _) => due(
                chunk.came,
                Step::Write(chunk.bytes.get(chunk.written..).unwrap_or_default()),
            ),
            (None, Some(came), _) => due(came, Step::Finish),
            (None, None, Some(came)) => Step::Wait(came + one_way),
            (None, None, None) => Step::Idle,
        }
    }

    /// When the RST under way arrives, if there is one.
    pub(super) fn reset_due(&self, one_way: Duration) -> Option<Instant> {
        self.rst.map(|came| came + one_way)
    }

    /// The far side took `n` bytes of the last [`Step::Write`].
    pub(super) fn wrote(&mut self, n: usize) {
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        chunk.written += n;
        if chunk.written >= chunk.bytes.len() {
            self.held -= chunk.bytes.len() + OVERHEAD;
            self.chunks.pop_front();
        }
    }

    /// The last [`Step::Finish`] was done.
    pub(super) fn finished(&mut self) {
        self.over = true;
    }

    /// The far side is gone: what is under way and what may come is lost.
    pub(super) fn discard(&mut self, now: Instant) {
        self.chunks.clear();
        self.held = 0;
        self.fin.get_or_insert(now);
        self.over = true;
    }

    /// Bytes held now, overhead included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests;
