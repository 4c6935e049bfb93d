//! A request stream: a request and its response.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use l7::{Fields, Known};
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt};
use tokio::time::timeout;

use super::{Shared, error};
use crate::{
    downstream::{ClientError, Request, h2},
    http1::{Framing, Piece},
    http3::{
        Code,
        frame::{Frames, Part, Wrong, data_head, headers},
        qpack::{Encoder, Section, SectionError},
    },
    message::{Draft, Head, Refusal, Trailers},
};

/// How a record calls it, and an extended CONNECT on it (RFC 9220).
pub(super) const PLAIN: &str = "h3";
const EXTENDED: &str = "h3 connect";
/// Pseudo-header fields beside the header fields that are counted.
const PSEUDO: usize = 5;

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>>>>;

/// One stream.
pub(crate) struct H3 {
    shared: Rc<Shared>,
    recv: RecvStream,
    frames: Frames,
    /// All of the request came.
    done: bool,
    /// What its content-length says is still to come.
    left: Option<u64>,
    send: SendStream,
    /// Frames that are not with QUIC yet.
    out: VecDeque<Bytes>,
    ending: bool,
    /// Nothing more may be written: it ended, or was reset.
    closed: bool,
    stopped: Option<Stopped>,
    /// The client gave it up, or it was malformed.
    wasted: bool,
    /// It asked to speak something else.
    connects: bool,
    expects_continue: bool,
    /// Of the request, until its end.
    trailers: Option<HeaderMap>,
}

impl fmt::Debug for H3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "H3({})", self.send.id())
    }
}

/// Not served, and safe to ask again elsewhere (RFC 9114 §4.1.1).
pub(super) fn reject(mut send: SendStream, mut recv: RecvStream) {
    let code = error(Code::RequestRejected);
    // Either may be over already.
    let _ = (send.reset(code), recv.stop(code));
}

/// What a head is: good, or the status with which it is answered.
type Checked = Result<Head, StatusCode>;

impl H3 {
    pub(super) fn new(shared: Rc<Shared>, send: SendStream, recv: RecvStream, most: usize) -> Self {
        H3 {
            shared,
            recv,
            frames: Frames::new(most),
            done: false,
            left: None,
            send,
            out: VecDeque::new(),
            ending: false,
            closed: false,
            stopped: None,
            wasted: false,
            connects: false,
            expects_continue: false,
            trailers: None,
        }
    }

    /// The head of the request; `None`: there will be none, and nobody is to be answered.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<Checked>> {
        let part = match ready!(self.poll_part(cx)) {
            Ok(part) => part,
            Err(Failed::TooLarge) => {
                return Poll::Ready(Some(Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
            }
            Err(Failed::Over(_)) => return Poll::Ready(None),
        };
        // The first part of a stream is its head, or the stream is refused.
        let Some(Part::Head(block)) = part else {
            return Poll::Ready(None);
        };
        let limits = self.shared.worker.snapshot().limits;
        let most = limits.header_count + PSEUDO + 1;
        let section = match Section::decode(&block, limits.header_bytes, most) {
            Ok(section) => section,
            Err(SectionError::TooLarge) => {
                return Poll::Ready(Some(Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
            }
            Err(SectionError::Malformed) => {
                self.wrong(Wrong::Connection(Code::DecompressionFailed));
                return Poll::Ready(None);
            }
        };
        let mut draft = Draft::new(&limits);
        section
            .iter()
            .for_each(|(name, value)| draft.take(name, value));
        // Is that all?
        if let Poll::Ready(Err(Failed::Over(_))) = self.poll_ahead(cx) {
            return Poll::Ready(None);
        }
        match draft.finish(self.done) {
            Ok(head) => {
                self.left = head.length;
                Poll::Ready(Some(Ok(head)))
            }
            Err(Refusal::Status(status)) => Poll::Ready(Some(Err(status))),
            Err(Refusal::Malformed) => {
                self.wrong(Wrong::Stream(Code::MessageError));
                Poll::Ready(None)
            }
        }
    }

    /// Has all of the request come?
    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// What of a checked request is this stream's; how a record calls it.
    pub(super) fn begin(&mut self, request: &Request) -> &'static str {
        self.connects = request.protocol == h2::EXTENDED;
        let expects = request.fields.first(Known::Expect);
        self.expects_continue =
            !self.done && expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        if self.connects { EXTENDED } else { PLAIN }
    }

    /// End it for what the client did.
    pub(super) fn refuse(&mut self, code: Code) {
        self.wrong(Wrong::Stream(code));
    }

    /// Answer a head that is none, without a body.
    pub(super) async fn answer(&mut self, status: StatusCode) {
        let mut fields = Fields::default();
        fields.append(&header::CONTENT_LENGTH, &0.into());
        self.wasted = true;
        // The client may be gone: then there is nobody to tell.
        if self.head(status, &fields, Framing::None).is_ok() {
            self.finish().await;
        }
    }

    /// Wait until the client has all of the response, or is gone: until then it may be sent again.
    pub(super) async fn finish(&mut self) {
        let patience = self.shared.worker.snapshot().limits.idle_timeout;
        let told = poll_fn(|cx| {
            if ready!(self.poll_flush(cx)).is_err() || !self.ending {
                return Poll::Ready(());
            }
            ready!(self.poll_stopped(cx));
            Poll::Ready(())
        });
        // Whether the client has it or not, the request is over.
        let _ = timeout(patience, told).await;
    }

    /// Look whether the end of the stream is here already.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        if self.frames.is_between() {
            let ended = ready!(self.poll_more(cx))?;
            if ended {
                self.ended()?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next part; `None`: the request is whole.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Failed>> {
        loop {
            match self.frames.next() {
                Ok(Some(part)) => return Poll::Ready(Ok(Some(part))),
                Ok(None) => {}
                Err(wrong) => return Poll::Ready(Err(self.wrong(wrong))),
            }
            if ready!(self.poll_more(cx))? {
                return Poll::Ready(self.ended().map(|()| None));
            }
        }
    }

    /// More octets; true: there are none.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failed>> {
        let chunk = ready!(pin!(self.recv.read_chunk(usize::MAX, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => {
                self.frames.push(chunk.bytes);
                Ok(false)
            }
            Ok(None) => Ok(true),
            Err(error) => {
                self.wasted |= matches!(error, ReadError::Reset(_));
                Err(Failed::Over(error.into()))
            }
        })
    }

    /// The stream has ended.
    fn ended(&mut self) -> Result<(), Failed> {
        if let Err(wrong) = self.frames.end() {
            return Err(self.wrong(wrong));
        }
        self.done = true;
        Ok(())
    }

    /// What the client did was wrong: end what has to end.
    fn wrong(&mut self, wrong: Wrong) -> Failed {
        self.wasted = true;
        match wrong {
            Wrong::Connection(code) => {
                self.closed = true;
                self.shared.refuse(code);
            }
            Wrong::Stream(code) => {
                self.shared.worker.metrics.malformed.inc();
                self.reset(code);
                // It may have ended.
                let _ = self.recv.stop(error(code));
            }
            Wrong::TooLarge => return Failed::TooLarge,
        }
        Failed::Over(io::ErrorKind::InvalidData.into())
    }

    fn reset(&mut self, code: Code) {
        self.out.clear();
        self.ending = false;
        if !std::mem::replace(&mut self.closed, true) {
            // The client may have stopped it.
            let _ = self.send.reset(error(code));
        }
    }

    /// Ready when the client wants no more of the response, or has it all.
    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Option<ClientError>> {
        let send = &self.send;
        let stopping = || -> Stopped { Box::pin(send.stopped()) };
        let stopped = self.stopped.get_or_insert_with(stopping);
        let stopped = ready!(stopped.as_mut().poll(cx));
        // It is not to be asked again.
        self.stopped = Some(Box::pin(std::future::pending()));
        Poll::Ready(match stopped {
            Ok(None) => None,
            Ok(Some(_)) => {
                self.wasted = true;
                self.closed = true;
                Some(gone(io::ErrorKind::ConnectionReset))
            }
            Err(_) => {
                self.closed = true;
                Some(gone(io::ErrorKind::ConnectionAborted))
            }
        })
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        if std::mem::take(&mut self.expects_continue) {
            self.inform(StatusCode::CONTINUE, &Fields::default());
            let _ = self.poll_flush(cx);
        }
        if self.done {
            return Poll::Ready(Ok(Piece::End(None)));
        }
        loop {
            let part = ready!(self.poll_part(cx)).map_err(Failed::gone)?;
            match part {
                Some(Part::Data(data)) => {
                    if let Some(left) = &mut self.left {
                        let Some(less) = left.checked_sub(data.len() as u64) else {
                            return Poll::Ready(Err(self.malformed()));
                        };
                        *left = less;
                    }
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Some(Part::Trailers(block)) => {
                    let limits = self.shared.worker.snapshot().limits;
                    let (octets, count) = (limits.header_bytes, limits.header_count);
                    let section = Section::decode(&block, octets, count).map_err(|error| {
                        let wrong = match error {
                            SectionError::Malformed => Wrong::Connection(Code::DecompressionFailed),
                            SectionError::TooLarge => Wrong::Stream(Code::ExcessiveLoad),
                        };
                        self.wrong(wrong).gone()
                    })?;
                    let mut trailers = Trailers::new(&limits);
                    section
                        .iter()
                        .for_each(|(name, value)| trailers.take(name, value));
                    self.trailers = trailers.finish().map_err(|_| self.malformed())?;
                }
                // It was the first.
                Some(Part::Head(_)) => {}
                None if self.left.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Err(self.malformed()));
                }
                None => return Poll::Ready(Ok(Piece::End(self.trailers.take()))),
            }
        }
    }

    fn malformed(&mut self) -> ClientError {
        self.wrong(Wrong::Stream(Code::MessageError)).gone()
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        match ready!(self.poll_stopped(cx)) {
            Some(error) => Poll::Ready(error),
            None => Poll::Pending,
        }
    }

    pub(crate) fn inform(&mut self, status: StatusCode, fields: &Fields) {
        self.section(status, fields);
    }

    fn section(&mut self, status: StatusCode, fields: &Fields) {
        let mut encoder = Encoder::new();
        encoder.status(status);
        for (name, value) in fields.iter() {
            encoder.field(name, value);
        }
        self.out.push_back(headers(&encoder.finish()));
    }

    pub(crate) fn head(
        &mut self,
        status: StatusCode,
        fields: &Fields,
        framing: Framing,
    ) -> Result<(), ClientError> {
        if self.closed {
            return Err(gone(io::ErrorKind::BrokenPipe));
        }
        // A success would say that the stream speaks something else now (RFC 9220 §3).
        let refused = self.connects && status.is_success();
        let status = if refused {
            StatusCode::BAD_GATEWAY
        } else {
            status
        };
        self.section(status, fields);
        self.ending = framing == Framing::None;
        Ok(())
    }

    /// The stream speaks something else from now on.
    pub(crate) fn switch(&mut self, mut fields: Fields) -> Result<(), ClientError> {
        l7::headers::strip(&mut fields);
        fields.remove(&header::SEC_WEBSOCKET_ACCEPT);
        self.connects = false;
        self.head(StatusCode::OK, &fields, Framing::Close)
    }

    pub(crate) fn data(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.out.push_back(data_head(piece.len()));
            self.out.push_back(piece);
        }
    }

    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        if let Some(trailers) = trailers {
            let mut encoder = Encoder::new();
            for (name, value) in &trailers {
                encoder.field(name.as_str().as_bytes(), value.as_bytes());
            }
            self.out.push_back(headers(&encoder.finish()));
        }
        self.ending = true;
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.closed {
            let over = self.ending && self.out.is_empty();
            let gone = || gone(io::ErrorKind::BrokenPipe);
            return Poll::Ready(over.then_some(()).ok_or_else(gone));
        }
        while !self.out.is_empty() {
            let out = self.out.make_contiguous();
            let written = ready!(pin!(self.send.write_chunks(out)).poll(cx));
            match written {
                Ok(written) => drop(self.out.drain(..written.chunks)),
                Err(error) => {
                    self.closed = true;
                    self.wasted |= matches!(error, quinn::WriteError::Stopped(_));
                    return Poll::Ready(Err(ClientError::Gone(error.into())));
                }
            }
        }
        if self.ending {
            self.closed = true;
            // It fails only if the client stopped it, which shows otherwise.
            let _ = self.send.finish();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn abort(&mut self) {
        self.reset(Code::InternalError);
    }
}

impl Drop for H3 {
    /// What is not whole must not look like it: QUIC would end the stream in order.
    fn drop(&mut self) {
        self.reset(Code::InternalError);
        if !self.done {
            // RFC 9114 §4.1: the rest of the request is not wanted; it may have ended by now.
            let _ = self.recv.stop(error(Code::NoError));
        }
        if self.wasted {
            self.shared.charge();
        } else {
            self.shared.earn();
        }
    }
}

/// Why no more of a request comes.
enum Failed {
    TooLarge,
    Over(io::Error),
}

impl Failed {
    fn gone(self) -> ClientError {
        match self {
            Failed::TooLarge => ClientError::TooLarge,
            Failed::Over(error) => ClientError::Gone(error),
        }
    }
}

fn gone(kind: io::ErrorKind) -> ClientError {
    ClientError::Gone(kind.into())
}
