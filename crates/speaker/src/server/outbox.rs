//! Octets on their way to one neighbour: shared with the others of its update groups, so that a
//! long queue costs a pointer for each 64 KiB and not a copy.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf, Bytes};
use tokio::{net::TcpStream, sync::Notify};

use super::tasks::{HIGH_WATER, LIMIT, LOW_WATER};

/// What a queue's length means for what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Bulk may follow.
    Ready,
    /// Only changes may follow.
    Busy,
    /// Nothing may follow.
    Full,
}

#[derive(Debug)]
pub(super) struct Outbox {
    queue: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    level: Cell<Level>,
    /// Some octets of the first are written, and it is one that can wait.
    begun: Cell<bool>,
    /// Messages that do not wait, behind that one.
    ahead: Cell<usize>,
    pub(super) wake: Notify,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Outbox {
            queue: RefCell::new(VecDeque::new()),
            bytes: Cell::new(0),
            level: Cell::new(Level::Ready),
            begun: Cell::new(false),
            ahead: Cell::new(0),
            wake: Notify::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.get() == 0
    }

    /// Queue whole messages; returns the new level if it changed.
    pub(super) fn push(&self, octets: Bytes) -> Option<Level> {
        if self.is_empty() {
            self.wake.notify_one();
        }
        self.bytes.set(self.bytes.get() + octets.len());
        self.queue.borrow_mut().push_back(octets);
        let bytes = self.bytes.get();
        let level = match self.level.get() {
            Level::Ready | Level::Busy if bytes > LIMIT => Level::Full,
            Level::Ready if bytes > HIGH_WATER => Level::Busy,
            level @ (Level::Ready | Level::Busy | Level::Full) => level,
        };
        self.change(level)
    }

    /// Queue a message that is not to wait: behind what is begun and what did not wait either.
    pub(super) fn push_first(&self, octets: Bytes) {
        self.wake.notify_one();
        self.bytes.set(self.bytes.get() + octets.len());
        let at = usize::from(self.begun.get()) + self.ahead.get();
        self.queue.borrow_mut().insert(at, octets);
        self.ahead.set(self.ahead.get() + 1);
    }

    /// Forget all that can wait and is not begun.
    pub(super) fn keep_first(&self) {
        let mut queue = self.queue.borrow_mut();
        queue.truncate(usize::from(self.begun.get()) + self.ahead.get());
        self.bytes.set(queue.iter().map(Bytes::len).sum());
    }

    fn change(&self, level: Level) -> Option<Level> {
        (self.level.replace(level) != level).then_some(level)
    }

    /// Write what the socket takes now; `Ok(None)`: nothing; the new level if it changed.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn write(&self, stream: &TcpStream) -> io::Result<(usize, Option<Level>)> {
        let mut written = 0;
        let mut queue = self.queue.borrow_mut();
        while !queue.is_empty() {
            let slices: Vec<IoSlice<'_>> = queue.iter().take(16).map(|b| IoSlice::new(b)).collect();
            let mut count = match stream.try_write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            written += count;
            while let Some(first) = queue.front_mut() {
                if first.len() > count {
                    first.advance(count);
                    let waits = self.ahead.get() == 0;
                    self.begun.set(self.begun.get() || (waits && count > 0));
                    break;
                }
                if !self.begun.replace(false) {
                    self.ahead.set(self.ahead.get().saturating_sub(1));
                }
                count -= first.len();
                queue.pop_front();
            }
        }
        drop(queue);
        let bytes = self.bytes.get() - written;
        self.bytes.set(bytes);
        let level = if bytes < LOW_WATER {
            Level::Ready
        } else {
            self.level.get()
        };
        Ok((written, self.change(level)))
    }
}
