//! Octets both ways between two connections, as they come.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    alarm::Alarm,
    http1::Wire,
    relay::{Way, poll_idle},
};

/// One of the two. Unless both have ended in order, dropping it resets the connection: its peer
/// must not take what it got for all there was.
#[derive(Debug)]
pub(crate) struct End {
    wire: Wire,
    whole: bool,
}

impl End {
    pub(crate) const fn new(wire: Wire) -> Self {
        End { wire, whole: false }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.whole {
            self.wire.abort();
        }
    }
}

/// Octets that were carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) there: u64,
    pub(crate) back: u64,
}

/// Why it did not end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The near end broke.
    Near,
    /// The far end broke.
    Far,
    /// Nothing has moved for too long.
    Idle,
}

/// Carry octets both ways until both sides have ended, or nothing has moved for `idle`. The end
/// of one side is passed on at once, and the other goes on.
pub(crate) async fn pipe(
    near: &mut End,
    far: &mut End,
    alarm: &mut Alarm,
    idle: Duration,
    moved: &mut Moved,
) -> Result<(), Broken> {
    alarm.set(idle);
    let (mut there, mut back) = (Way::Open, Way::Open);
    let mut last = 0;
    poll_fn(|cx| {
        let (near, far) = (&mut near.wire, &mut far.wire);
        let sent = carry(cx, near, far, &mut there, &mut moved.there);
        let got = carry(cx, far, near, &mut back, &mut moved.back);
        match (sent, got) {
            (Poll::Ready(Err(_)), _) => return Poll::Ready(Err(Broken::Near)),
            (_, Poll::Ready(Err(_))) => return Poll::Ready(Err(Broken::Far)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        let sum = moved.there + moved.back;
        poll_idle(cx, alarm, idle, &mut last, sum).map(|()| Err(Broken::Idle))
    })
    .await?;
    (near.whole, far.whole) = (true, true);
    Ok(())
}

/// One way; ready when it has ended and its end is passed on. Fails if its source breaks. A sink
/// that takes nothing more ends it too, since that side may still have something to say.
fn carry(
    cx: &mut Context<'_>,
    from: &mut Wire,
    to: &mut Wire,
    way: &mut Way,
    bytes: &mut u64,
) -> Poll<io::Result<()>> {
    while *way == Way::Open {
        if ready!(to.poll_room(cx)).is_err() {
            *way = Way::Closed;
            break;
        }
        if from.input.is_empty() {
            match from.poll_fill(cx)? {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    *way = Way::Ending;
                    break;
                }
                Poll::Pending => {
                    // What was given goes out while we wait for more.
                    if let Poll::Ready(Err(_)) = to.poll_flush(cx) {
                        *way = Way::Closed;
                        break;
                    }
                    return Poll::Pending;
                }
            }
        }
        let piece = from.input.split().freeze();
        *bytes += piece.len() as u64;
        to.piece(piece);
    }
    if *way == Way::Ending {
        // One that does not take the end has ended by itself.
        let _ = ready!(to.poll_shutdown(cx));
        *way = Way::Closed;
    }
    Poll::Ready(Ok(()))
}
