//! Bodies on their way: up to the endpoint, down to the client.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;

use crate::{
    alarm::Alarm,
    downstream::{Client, ClientError},
    exchange::Story,
    http1::{Framing, Piece, ResponseHead, wire::ReadError},
    mirror::Whole,
    splice::Splice,
    upstream::UpConn,
    websocket::{Frames, Talk, close, close_masked},
    worker::Worker,
};

/// A request body up to this long is kept until the response begins, so that a try can be
/// repeated.
const REPLAY_BYTES: usize = 64 << 10;

/// The request body, taken from the client once and given to one try after another.
#[derive(Debug)]
pub(crate) struct Upload {
    kept: Vec<Bytes>,
    kept_bytes: usize,
    /// What was taken is all in `kept`.
    whole: bool,
    /// Pieces of `kept` that the running try has got.
    given: usize,
    ended: bool,
    trailers: Option<HeaderMap>,
    finished: bool,
    taken: u64,
    most: Option<u64>,
    /// The last poll ended waiting for the client.
    on_client: bool,
    /// Somebody wants a copy of all of it.
    copied: bool,
}

/// Which side an upload failed on.
#[derive(Debug)]
pub(crate) enum UploadError {
    Client(ClientError),
    Upstream(#[expect(dead_code, reason = "shown by Debug")] io::Error),
}

impl Upload {
    pub(crate) fn new(framing: Framing, most: Option<u64>) -> Self {
        Upload {
            kept: Vec::new(),
            kept_bytes: 0,
            whole: true,
            given: 0,
            ended: framing == Framing::None,
            trailers: None,
            finished: false,
            taken: 0,
            most,
            on_client: false,
            copied: false,
        }
    }

    /// A body that is here already.
    pub(crate) fn of(kept: Vec<Bytes>, trailers: Option<HeaderMap>) -> Self {
        Upload {
            kept_bytes: kept.iter().map(Bytes::len).sum(),
            kept,
            ended: true,
            trailers,
            ..Upload::new(Framing::None, None)
        }
    }

    /// A client's body that was taken whole, of any length: each try can have it.
    pub(crate) fn taken_whole(kept: Vec<Bytes>, trailers: Option<HeaderMap>) -> Self {
        let upload = Upload::of(kept, trailers);
        Upload {
            taken: upload.kept_bytes as u64,
            ..upload
        }
    }

    /// Keep what is short enough beyond the beginning of a response.
    pub(crate) const fn keep_all(&mut self) {
        self.copied = true;
    }

    /// What was kept, if it is all.
    pub(crate) fn copied(&self) -> Whole {
        let whole = self.whole && self.ended;
        whole.then(|| (self.kept.clone(), self.trailers.clone()))
    }

    /// Bytes the client sent.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) const fn waits_for_client(&self) -> bool {
        self.on_client && !self.finished
    }

    /// Can another try have all of it?
    pub(crate) const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Begin again for another try; false if a part is gone.
    pub(crate) const fn rewind(&mut self) -> bool {
        self.given = 0;
        self.finished = false;
        self.whole
    }

    /// There will be no other try: keep nothing.
    fn commit(&mut self) {
        if self.given == self.kept.len() && !self.copied {
            self.kept.clear();
            self.given = 0;
            self.whole = false;
        }
    }

    /// Move what can be moved; ready when the body is with the endpoint.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client<'_>,
        up: &mut UpConn,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            self.on_client = false;
            if self.finished {
                return up.poll_flush(cx).map_err(UploadError::Upstream);
            }
            ready!(up.poll_room(cx)).map_err(UploadError::Upstream)?;
            if let Some(piece) = self.kept.get(self.given) {
                up.data(piece.clone());
                self.given += 1;
                continue;
            }
            if self.ended {
                up.end(self.trailers.as_ref());
                self.finished = true;
                continue;
            }
            match client.poll_body(cx).map_err(UploadError::Client)? {
                Poll::Ready(Piece::Data(piece)) => {
                    self.taken += piece.len() as u64;
                    if self.most.is_some_and(|most| self.taken > most) {
                        return Poll::Ready(Err(UploadError::Client(ClientError::TooLarge)));
                    }
                    up.data(piece.clone());
                    self.keep(piece);
                }
                Poll::Ready(Piece::End(trailers)) => {
                    self.ended = true;
                    self.trailers = trailers;
                }
                Poll::Pending => {
                    // What was given goes out while we wait for more.
                    if let Poll::Ready(Err(error)) = up.poll_flush(cx) {
                        return Poll::Ready(Err(UploadError::Upstream(error)));
                    }
                    self.on_client = true;
                    return Poll::Pending;
                }
            }
        }
    }

    fn keep(&mut self, piece: Bytes) {
        self.kept_bytes += piece.len();
        self.whole &= self.kept_bytes <= REPLAY_BYTES;
        if self.whole {
            self.kept.push(piece);
            self.given += 1;
        } else {
            self.kept.clear();
            self.given = 0;
        }
    }
}

/// Why a response did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the client is gone")]
    Client(#[source] ClientError),
    #[error("the response ended early")]
    Upstream(#[source] ReadError),
    #[error("nothing moved for too long")]
    Idle,
}

/// Give the response to the client, head and body, while the rest of the upload goes on. The body
/// bytes given are added to `bytes`.
pub(crate) async fn respond(
    worker: &Worker,
    client: &mut Client<'_>,
    (alarm, idle): (&mut Alarm, Duration),
    up: &mut UpConn,
    upload: &mut Upload,
    head: ResponseHead,
    bytes: &mut u64,
) -> Result<(), RelayError> {
    let bodiless = head.framing == Framing::None;
    client
        .head(head.status, &head.fields, head.framing)
        .map_err(RelayError::Client)?;
    let mut ended = bodiless;
    alarm.set(idle);
    let mut last = *bytes;
    let mut splice = Splice::new(worker);
    poll_fn(|cx| {
        if !ended && !upload.is_finished() {
            upload.commit();
            // A client that stops sending, or an endpoint that stops reading, may still have
            // a response to hand over.
            let _ = upload.poll(cx, client, up);
        }
        match pump(cx, client, up, Some(&mut splice), &mut ended, bytes, |_| {}) {
            Poll::Ready(done) => return Poll::Ready(done),
            Poll::Pending => {}
        }
        if !ended && let Poll::Ready(error) = client.poll_gone(cx) {
            return Poll::Ready(Err(RelayError::Client(error)));
        }
        let moved = *bytes + upload.taken();
        poll_idle(cx, alarm, idle, &mut last, moved).map(|()| Err(RelayError::Idle))
    })
    .await
}

/// Ready when nothing has moved for `idle`: all that has is what it was the last time.
pub(crate) fn poll_idle(
    cx: &mut Context<'_>,
    alarm: &mut Alarm,
    idle: Duration,
    last: &mut u64,
    moved: u64,
) -> Poll<()> {
    while alarm.poll(cx).is_ready() {
        if moved == *last {
            return Poll::Ready(());
        }
        *last = moved;
        alarm.set(idle);
    }
    Poll::Pending
}

/// What the endpoint says, to the client, until it has ended and is on its way.
fn pump(
    cx: &mut Context<'_>,
    client: &mut Client<'_>,
    up: &mut UpConn,
    mut splice: Option<&mut Splice<'_>>,
    ended: &mut bool,
    bytes: &mut u64,
    mut passes: impl FnMut(&[u8]),
) -> Poll<Result<(), RelayError>> {
    while !*ended {
        ready!(client.poll_room(cx)).map_err(RelayError::Client)?;
        if let Some(splice) = &mut splice {
            ready!(splice.poll(cx, client, up, bytes))?;
        }
        match up.poll_body(cx).map_err(RelayError::Upstream)? {
            Poll::Ready(Piece::Data(piece)) => {
                *bytes += piece.len() as u64;
                passes(&piece);
                client.data(piece);
                if up.is_at_end() {
                    // Said with the last piece, it needs no frame of its own.
                    client.end(None);
                    *ended = true;
                }
            }
            Poll::Ready(Piece::End(mut trailers)) => {
                if let Some(trailers) = &mut trailers {
                    up.trailed(trailers);
                }
                client.end(trailers.filter(|trailers| !trailers.is_empty()));
                *ended = true;
            }
            Poll::Pending => {
                if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                    return Poll::Ready(Err(RelayError::Client(error)));
                }
                return Poll::Pending;
            }
        }
    }
    client.poll_flush(cx).map_err(RelayError::Client)
}

/// Carry octets both ways until both sides have ended, or nothing has moved for `idle`. The end
/// of one side is passed on at once. Frames of WebSocket are followed by `talk`.
pub(crate) async fn tunnel(
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    up: &mut UpConn,
    idle: Duration,
    mut talk: Option<&mut Talk>,
    story: &mut Story,
) -> Result<(), RelayError> {
    alarm.set(idle);
    let (mut there, mut back) = (Way::Open, Way::Open);
    let mut last = 0;
    poll_fn(|cx| {
        let (asks, says) = talk
            .as_deref_mut()
            .map(|t| (&mut t.there, &mut t.back))
            .unzip();
        let sent = ascend(cx, client, up, (&mut there, asks), &mut story.bytes_in);
        let got = descend(cx, client, up, (&mut back, says), &mut story.bytes_out);
        let (sent, got) = (sent?, got?);
        if sent.is_ready() && got.is_ready() {
            return Poll::Ready(Ok(()));
        }
        let moved = story.bytes_in + story.bytes_out;
        poll_idle(cx, alarm, idle, &mut last, moved).map(|()| Err(RelayError::Idle))
    })
    .await
}

/// One direction of a connection that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Its source has ended, which is to be passed on.
    Ending,
    Closed,
}

impl Way {
    const fn poll(self) -> Poll<()> {
        match self {
            Way::Open | Way::Ending => Poll::Pending,
            Way::Closed => Poll::Ready(()),
        }
    }
}

/// From the client to the endpoint. One that takes nothing more may still have something to say.
fn ascend(
    cx: &mut Context<'_>,
    client: &mut Client<'_>,
    up: &mut UpConn,
    (way, mut frames): (&mut Way, Option<&mut Frames>),
    bytes: &mut u64,
) -> Result<Poll<()>, RelayError> {
    while *way == Way::Open {
        match up.poll_room(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => *way = Way::Closed,
            Poll::Pending => return Ok(Poll::Pending),
        }
        match client.poll_body(cx).map_err(RelayError::Client)? {
            Poll::Ready(Piece::Data(piece)) => {
                *bytes += piece.len() as u64;
                if let Some(frames) = &mut frames {
                    frames.pass(&piece);
                }
                up.data(piece);
            }
            Poll::Ready(Piece::End(_)) => *way = Way::Ending,
            Poll::Pending => {
                if let Poll::Ready(Err(_)) = up.poll_flush(cx) {
                    *way = Way::Closed;
                }
                return Ok(Poll::Pending);
            }
        }
    }
    if *way == Way::Ending && up.poll_shutdown(cx).is_ready() {
        *way = Way::Closed;
    }
    Ok(way.poll())
}

/// From the endpoint to the client.
fn descend(
    cx: &mut Context<'_>,
    client: &mut Client<'_>,
    up: &mut UpConn,
    (way, mut frames): (&mut Way, Option<&mut Frames>),
    bytes: &mut u64,
) -> Result<Poll<()>, RelayError> {
    if *way == Way::Open {
        let mut ended = false;
        let flushed = pump(cx, client, up, None, &mut ended, bytes, |piece| {
            if let Some(frames) = &mut frames {
                frames.pass(piece);
            }
        });
        if ended {
            *way = Way::Ending;
        }
        let _ = flushed?;
    }
    if *way == Way::Ending
        && client
            .poll_shutdown(cx)
            .map_err(RelayError::Client)?
            .is_ready()
    {
        *way = Way::Closed;
    }
    Ok(way.poll())
}

/// How far one side of a WebSocket is that is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// There was no room yet to tell it.
    Untold,
    Told,
    /// It has heard; what it still says is nobody's.
    Heard,
    Over,
}

/// Tell both sides of a WebSocket by this code that it is over, between two frames of each, and wait
/// until they have ended, too.
pub(crate) async fn part(client: &mut Client<'_>, up: &mut UpConn, code: u16) {
    let (mut near, mut far) = (Parting::Untold, Parting::Untold);
    poll_fn(|cx| {
        let one = part_client(cx, client, code, &mut near);
        let other = part_endpoint(cx, up, code, &mut far);
        if one.is_ready() && other.is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Ready when the client has ended.
fn part_client(
    cx: &mut Context<'_>,
    client: &mut Client<'_>,
    code: u16,
    parting: &mut Parting,
) -> Poll<()> {
    loop {
        *parting = match parting {
            Parting::Untold if ready!(client.poll_room(cx)).is_ok() => {
                client.data(close(code));
                client.end(None);
                Parting::Told
            }
            Parting::Told if ready!(client.poll_shutdown(cx)).is_ok() => Parting::Heard,
            Parting::Heard => match ready!(client.poll_body(cx)) {
                Ok(Piece::Data(_)) => Parting::Heard,
                Ok(Piece::End(_)) | Err(_) => Parting::Over,
            },
            Parting::Untold | Parting::Told => Parting::Over,
            Parting::Over => return Poll::Ready(()),
        };
    }
}

/// Ready when the endpoint has ended.
fn part_endpoint(
    cx: &mut Context<'_>,
    up: &mut UpConn,
    code: u16,
    parting: &mut Parting,
) -> Poll<()> {
    loop {
        *parting = match parting {
            Parting::Untold if ready!(up.poll_room(cx)).is_ok() => {
                up.data(close_masked(code));
                Parting::Told
            }
            Parting::Told if ready!(up.poll_shutdown(cx)).is_ok() => Parting::Heard,
            Parting::Heard => match ready!(up.poll_body(cx)) {
                Ok(Piece::Data(_)) => Parting::Heard,
                Ok(Piece::End(_)) | Err(_) => Parting::Over,
            },
            Parting::Untold | Parting::Told => Parting::Over,
            Parting::Over => return Poll::Ready(()),
        };
    }
}
