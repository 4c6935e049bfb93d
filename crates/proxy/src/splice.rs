//! Long bodies between sockets in plain text: the octets stay in the kernel.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, ready},
};

use runtime::splice::Pipe;

use crate::{
    downstream::{Client, ClientError},
    http1::{BodyError, wire::ReadError},
    relay::RelayError,
    upstream::UpConn,
    worker::Worker,
};

/// Of less than this a copy is as cheap.
const LEAST: u64 = 128 << 10;
/// Pipes of one worker; more bodies at once are copied. Each takes two descriptors.
const MOST: usize = 64;
/// Of these, how many are kept while nothing needs them.
const KEPT: usize = 16;

/// The pipes of a worker.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    taken: Cell<usize>,
}

impl Pipes {
    /// An empty pipe, if there may be one more.
    fn take(&self) -> Option<Pipe> {
        if self.taken.get() >= MOST {
            return None;
        }
        let idle = self.idle.borrow_mut().pop();
        let pipe = idle.or_else(|| Pipe::new().ok())?;
        self.taken.set(self.taken.get() + 1);
        Some(pipe)
    }

    fn put(&self, pipe: Pipe) {
        self.taken.set(self.taken.get().saturating_sub(1));
        let mut idle = self.idle.borrow_mut();
        // What is left inside belongs to nobody else.
        if pipe.is_empty() && idle.len() < KEPT {
            idle.push(pipe);
        }
    }
}

/// The way of one body.
pub(crate) struct Splice<'w> {
    worker: &'w Worker,
    pipe: Option<Pipe>,
}

impl<'w> Splice<'w> {
    pub(crate) const fn new(worker: &'w Worker) -> Self {
        Splice { worker, pipe: None }
    }

    /// Move what may go this way; ready when nothing more of it may.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        up: &mut UpConn,
        bytes: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            let Some(to) = client.splices() else {
                return Poll::Ready(Ok(()));
            };
            if let Some(pipe) = &mut self.pipe {
                let gone = |error| RelayError::Client(ClientError::Gone(error));
                ready!(pipe.poll_drain(cx, to)).map_err(gone)?;
            }
            let Some((from, left)) = up.splices() else {
                self.put();
                return Poll::Ready(Ok(()));
            };
            if self.pipe.is_none() {
                if left < LEAST {
                    return Poll::Ready(Ok(()));
                }
                // The head and what was read already come first.
                ready!(client.poll_flush(cx)).map_err(RelayError::Client)?;
                self.pipe = self.worker.pipes.take();
            }
            let Some(pipe) = &mut self.pipe else {
                return Poll::Ready(Ok(()));
            };
            if self.worker.turns.is_long(cx) {
                return Poll::Pending;
            }
            let count = match ready!(pipe.poll_fill(cx, from, left)) {
                Ok(0) => Err(ReadError::Body(BodyError::Truncated)),
                Ok(count) => Ok(count as u64),
                Err(error) => Err(ReadError::Io(error)),
            };
            let count = count.map_err(RelayError::Upstream)?;
            *bytes += count;
            self.worker.metrics.spliced.inc_by(count);
            up.spliced(count);
        }
    }

    fn put(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.worker.pipes.put(pipe);
        }
    }
}

impl Drop for Splice<'_> {
    fn drop(&mut self) {
        self.put();
    }
}
