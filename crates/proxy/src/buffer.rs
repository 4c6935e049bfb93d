//! Request bodies that are taken whole before an endpoint is picked.
//!
//! They are copied into blocks of their own: a client that sends octet by octet would otherwise
//! hold a connection's buffer for each. What all of a worker's hold together is bounded.

use std::{cell::Cell, future::poll_fn, rc::Rc, task::Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use l7::{Fault, Limits};

use crate::{
    alarm::Alarm,
    answer::Answer,
    downstream::{Client, ClientError},
    forward::{client_fault, slow_client},
    http1::{Framing, Piece},
    relay::Upload,
    worker::Worker,
};

/// Octets of a block, and of the first of a body of unknown length.
const BLOCK: usize = 64 << 10;
const FIRST: usize = 4 << 10;

/// A part of what a worker may hold; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Held {
    all: Rc<Cell<usize>>,
    most: usize,
    mine: usize,
}

impl Held {
    fn take(&mut self, octets: usize) -> bool {
        let all = self.all.get() + octets;
        let fits = all <= self.most;
        if fits {
            self.all.set(all);
            self.mine += octets;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.mine);
    }
}

/// A body that is here, and for how long its room is taken.
pub(crate) struct Whole {
    pub(crate) upload: Upload,
    pub(crate) framing: Framing,
    pub(crate) held: Held,
}

/// Take the body of a request. `Err(None)`: the client is gone.
pub(crate) async fn whole(
    worker: &Worker,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    framing: Framing,
    most: usize,
    limits: &Limits,
) -> Result<Whole, Option<Answer>> {
    let said = match framing {
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Framing::None | Framing::Chunked | Framing::Close => 0,
    };
    let bound = limits.body_bytes.map(usize::try_from);
    let most = bound.and_then(Result::ok).map_or(most, |own| own.min(most));
    if said > most {
        return Err(client_fault(&ClientError::TooLarge));
    }
    let mut held = Held {
        all: Rc::clone(&worker.buffered),
        most: worker.snapshot().limits.buffered_bytes,
        mine: 0,
    };
    let (mut blocks, mut block) = (Vec::<Bytes>::new(), BytesMut::new());
    let mut taken = 0;
    alarm.set(limits.idle_timeout);
    let trailers = loop {
        let piece = poll_fn(|cx| {
            let polled = client.poll_body(cx).map_err(|e| client_fault(&e));
            if polled.is_pending() && alarm.poll(cx).is_ready() {
                return Poll::Ready(Err(Some(slow_client())));
            }
            polled
        });
        let mut piece = match piece.await? {
            Piece::Data(piece) => piece,
            Piece::End(trailers) => break trailers,
        };
        alarm.set(limits.idle_timeout);
        taken += piece.len();
        if taken > most {
            return Err(client_fault(&ClientError::TooLarge));
        }
        while !piece.is_empty() {
            let room = block.capacity() - block.len();
            if room == 0 {
                let stored = taken - piece.len();
                let usual = if said > 0 || stored > 0 { BLOCK } else { FIRST };
                let expected = if said > stored { said } else { most };
                let wanted = (expected - stored).clamp(1, usual);
                if !held.take(wanted) {
                    return Err(Some(full(worker, held.most)));
                }
                let next = BytesMut::with_capacity(wanted);
                blocks.push(std::mem::replace(&mut block, next).freeze());
                continue;
            }
            block.extend_from_slice(&piece.split_to(room.min(piece.len())));
        }
    };
    blocks.push(block.freeze());
    blocks.retain(|block| !block.is_empty());
    // Its length is known now; trailers need chunks.
    let framing = match &trailers {
        None => Framing::Length(taken as u64),
        Some(_) => framing,
    };
    Ok(Whole {
        upload: Upload::taken_whole(blocks, trailers),
        framing,
        held,
    })
}

/// There is no room at the moment.
fn full(worker: &Worker, most: usize) -> Answer {
    worker.metrics.buffers_full.inc();
    if worker.may_say() {
        tracing::warn!(
            most,
            "requests are refused: bodies that are taken whole fill what this worker may hold; \
             lower maxBytes, or add nodes"
        );
    }
    Answer::refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "buffers-full",
        "there is no room for the body at the moment: try again",
        Fault::Us,
    )
}
