//! Many streams on one connection: a machine without sockets and without time.
//!
//! [`Mux::receive`] takes in what the connection read; streams are read and written by their
//! handles; what is to be sent gathers in `out`, for the connection's driver to write. Each side
//! opens streams of its own parity. A stream and the connection as a whole may each carry no more
//! than the other side gave credit for, so a reader that is slow holds up its own stream, and what
//! is buffered is bounded.

mod aside;
mod inbox;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::StatusCode;
use path::{Load, Loss};
use tokio::io::ReadBuf;

use super::frame::{HEADER, Header, Kind, MAX_PAYLOAD};
use crate::{head::MAX_HEAD_BYTES, link::Side};
use aside::{Aside, Spares};
#[cfg(test)]
pub(super) use aside::{BULK, IDLE, MOST};
pub(super) use aside::{Reading, Turn};
use inbox::Inbox;

/// Streams one side may have open at once.
pub(super) const MAX_STREAMS: usize = 4096;
/// What one stream may send before it is read, at first; and if its reader keeps up. So a thousand
/// readers that stand still do not hold up the others, and one that is fast is not held up by the
/// way to it.
pub(super) const FIRST_WINDOW: u32 = 64 << 10;
pub(super) const LAST_WINDOW: u32 = 1 << 20;
/// What all streams may send before they are read, and how much of it they may get beyond their
/// first windows.
pub(super) const CONNECTION_WINDOW: u32 = 128 << 20;
const EXTRA: u32 = 32 << 20;
/// Streams write no more while so much waits to be sent.
const OUT_FULL: usize = 256 << 10;
/// So many answers wait only if the other side asks and does not read.
const ANSWERS_MOST: usize = 1 << 20;
/// Ids beyond this are not begun any more.
const LAST_ID: u32 = u32::MAX - 16;
/// The longest reason that is sent or kept.
const MAX_REASON: usize = 256;
/// What the other side did that no peer of ours does. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("a frame is too long")]
    TooLong,
    #[error("a frame has the wrong size for its kind")]
    Size,
    #[error("a stream has an id that it cannot have")]
    Id,
    #[error("more was sent than was allowed")]
    Window,
    #[error("a stream went on after its end")]
    Ended,
    #[error("a stream goes over a spare connection that it cannot have")]
    Aside,
    #[error("it asks and does not read the answers")]
    Unread,
}

/// What the other side says to a stream that we opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No(StatusCode, String),
}

/// A stream that the other side opened, and its head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) id: u32,
    pub(super) head: Bytes,
}

/// Where a stream stands that has something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// In the queue for room.
    Queued,
    /// It has come to its turn, and may write a frame.
    Turn,
}

#[derive(Debug)]
struct Stream {
    answer: Option<Answer>,
    inbox: Inbox,
    /// What we may still send.
    credit: u32,
    /// What the other side may still send, and what it may have sent at most without being read.
    window: u32,
    limit: u32,
    /// We have said that nothing more comes.
    ended: bool,
    /// The other side has.
    finished: bool,
    /// The other side neither sends nor reads any more.
    reset: bool,
    /// The other side says that it had better be begun anew.
    moves: bool,
    /// What was written last waits for an answer; it is not waited for any more.
    waits: bool,
    lost: bool,
    /// Something of it is lost, on a spare connection.
    torn: bool,
    /// What was sent in pieces of bulk since it rested, or heard something.
    run: usize,
    /// The spare connections over which it goes and comes, if it does.
    spare: Option<u16>,
    aside: Option<Aside>,
    place: Place,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Stream {
    fn new(answer: Option<Answer>) -> Self {
        Stream {
            answer,
            inbox: Inbox::default(),
            credit: FIRST_WINDOW,
            window: FIRST_WINDOW,
            limit: FIRST_WINDOW,
            ended: false,
            finished: false,
            reset: false,
            moves: false,
            waits: true,
            lost: false,
            torn: false,
            run: 0,
            spare: None,
            aside: None,
            place: Place::Nowhere,
            reader: None,
            writer: None,
        }
    }

    /// How much more the other side may send, if that is worth saying. What a stream gets beyond
    /// its first window is taken from `extra`.
    fn more(&mut self, extra: &mut u32) -> Option<u32> {
        // All is read, and most of the window was used: it was the window that held up the stream.
        let held_up = self.inbox.is_empty() && self.window < self.limit / 2;
        if held_up && self.limit < LAST_WINDOW && self.limit <= *extra {
            *extra -= self.limit;
            self.limit *= 2;
        }
        let unread = u32::try_from(self.inbox.len()).unwrap_or(LAST_WINDOW);
        let more = self.limit.saturating_sub(self.window + unread);
        (more >= self.limit / 2).then_some(more)
    }

    /// Something has come of it.
    fn hear(&mut self) {
        // Whether it was waited for or not: here it is.
        (self.waits, self.lost) = (false, false);
        // Who asks and is answered is no bulk, unless there is more to be sent than goes.
        if self.writer.is_none() {
            self.run = 0;
        }
    }

    fn wake(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// How what a stream writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// So much was taken.
    Here(usize),
    /// Over the spare connection of this number.
    Aside(u16),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mux {
    side: Side,
    /// The id of the next stream we open, and the highest that the other side has.
    next: u32,
    highest: u32,
    streams: BTreeMap<u32, Stream>,
    /// How many of `streams` the other side has opened.
    theirs: usize,
    /// Of all streams together: see [`Stream`]; and what was read, and not yet told.
    credit: u32,
    window: u32,
    owed: u32,
    /// What streams may get beyond their first windows.
    extra: u32,
    spares: Spares,
    out: BytesMut,
    /// How much of `out` answers what the other side asks, at most.
    answers: usize,
    /// The stream whose payload is under way, and how much of it is to come.
    rest: Option<(u32, usize)>,
    arrived: VecDeque<Opened>,
    /// Streams that wait until there is room in `out`, or credit.
    queue: VecDeque<u32>,
    driver: Option<Waker>,
    /// What the other side said last of what it loses.
    their_loss: Option<Loss>,
    their_load: Option<Load>,
    leaving: bool,
    /// The line is silent: nothing begins.
    lingers: bool,
    /// Nothing can be sent any more; what has come is still to be read.
    mute: Option<io::ErrorKind>,
    over: Option<io::ErrorKind>,
    /// It is over since the other side has left: what it said aside is still to be read.
    ebbs: bool,
}

impl Mux {
    pub(super) fn new(side: Side) -> Self {
        let next = match side {
            Side::Dialler => 1,
            Side::Acceptor => 2,
        };
        Mux {
            side,
            next,
            highest: 0,
            streams: BTreeMap::new(),
            theirs: 0,
            credit: CONNECTION_WINDOW,
            window: CONNECTION_WINDOW,
            owed: 0,
            extra: EXTRA,
            spares: Spares::default(),
            out: BytesMut::new(),
            answers: 0,
            rest: None,
            arrived: VecDeque::new(),
            queue: VecDeque::new(),
            driver: None,
            their_loss: None,
            their_load: None,
            leaving: false,
            lingers: false,
            mute: None,
            over: None,
            ebbs: false,
        }
    }

    /// Streams with a handle.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    fn is_ours(&self, id: u32) -> bool {
        let odd = id % 2 == 1;
        odd == (self.side == Side::Dialler)
    }

    /// Takes frames out of `octets`, and leaves of the last what is of no use yet.
    pub(super) fn receive(&mut self, octets: &mut BytesMut) -> Result<(), Violation> {
        loop {
            // A large payload is of use before all of it is there.
            if let Some((id, left)) = self.rest {
                let count = left.min(octets.len());
                self.take_data(id, count, octets)?;
                self.rest = (left > count).then_some((id, left - count));
            }
            let header = Header::read(octets).map_err(|_| Violation::TooLong)?;
            let Some(header) = header.filter(|_| self.rest.is_none()) else {
                break;
            };
            let whole = HEADER + header.length;
            if header.kind == Some(Kind::Data) {
                octets.advance(HEADER);
                self.rest = Some((header.stream, header.length));
            } else if octets.len() < whole {
                octets.reserve(whole - octets.len());
                break;
            } else {
                octets.advance(HEADER);
                if let Some(kind) = header.kind {
                    let payload = octets.get(..header.length).unwrap_or_default();
                    self.take(kind, header.stream, payload)?;
                }
                octets.advance(header.length);
            }
        }
        if self.answers > ANSWERS_MOST {
            return Err(Violation::Unread);
        }
        Ok(())
    }

    /// Takes a frame that is whole.
    fn take(&mut self, kind: Kind, id: u32, payload: &[u8]) -> Result<(), Violation> {
        match kind {
            Kind::Open => self.take_open(id, payload),
            Kind::Accept => self.take_answer(id, Answer::Yes),
            Kind::Refuse => {
                let (status, reason) = payload.split_first_chunk().ok_or(Violation::Size)?;
                let status = StatusCode::from_u16(u16::from_be_bytes(*status));
                let status = status.map_err(|_| Violation::Size)?;
                let reason = reason.get(..MAX_REASON).unwrap_or(reason);
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.take_answer(id, Answer::No(status, reason))
            }
            Kind::End => {
                self.check_known(id)?;
                // What was reset has not come whole, whatever is said after it.
                if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.reset) {
                    stream.finished = true;
                    stream.wake();
                }
                Ok(())
            }
            Kind::Reset => self.take_reset(id),
            Kind::Credit => self.take_credit(id, payload),
            Kind::Ping => {
                self.frame(Kind::Pong, 0, &[]);
                Ok(())
            }
            Kind::Loss => {
                let loss = payload.try_into().map_err(|_| Violation::Size)?;
                self.their_loss = Some(Loss(u16::from_be_bytes(loss)));
                Ok(())
            }
            Kind::Load => {
                let [percent, ..] = payload else {
                    return Err(Violation::Size);
                };
                self.their_load = Some(Load::of(*percent));
                Ok(())
            }
            Kind::Move => {
                self.check_known(id)?;
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.moves = true;
                    // Whoever keeps it for the next request lets it go.
                    stream.wake();
                }
                Ok(())
            }
            Kind::Spares => self.take_spares(payload),
            Kind::Have => self.take_have(payload),
            Kind::Aside => self.take_aside(id, payload),
            Kind::Home => self.take_home(payload),
            Kind::Drop => self.take_drop(payload),
            // Taken as its octets come.
            Kind::Data | Kind::Pong => Ok(()),
        }
    }

    fn take_reset(&mut self, id: u32) -> Result<(), Violation> {
        self.check_known(id)?;
        let (mut unread, mut aside) = (0, None);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.reset = true;
            if !stream.finished {
                unread = stream.inbox.len();
                stream.inbox = Inbox::default();
                aside = stream.aside.take();
            }
            stream.wake();
        }
        self.waste(aside);
        self.go_home(id);
        self.leave_queue(id);
        self.give_back(unread);
        Ok(())
    }

    fn take_open(&mut self, id: u32, head: &[u8]) -> Result<(), Violation> {
        if id == 0 || self.is_ours(id) || id <= self.highest {
            return Err(Violation::Id);
        }
        if head.len() > MAX_HEAD_BYTES as usize {
            return Err(Violation::Size);
        }
        self.highest = id;
        if self.theirs >= MAX_STREAMS {
            self.say_no(id, StatusCode::SERVICE_UNAVAILABLE, "too many streams");
            return Ok(());
        }
        self.theirs += 1;
        self.streams.insert(id, Stream::new(Some(Answer::Yes)));
        let head = Bytes::copy_from_slice(head);
        self.arrived.push_back(Opened { id, head });
        Ok(())
    }

    fn take_answer(&mut self, id: u32, answer: Answer) -> Result<(), Violation> {
        if !self.is_ours(id) || id >= self.next {
            return Err(Violation::Id);
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.answer.is_none()
        {
            stream.answer = Some(answer);
            stream.wake();
        }
        Ok(())
    }

    /// Takes the first `count` octets for a stream.
    fn take_data(&mut self, id: u32, count: usize, octets: &mut BytesMut) -> Result<(), Violation> {
        self.check_known(id)?;
        let length = u32::try_from(count).map_err(|_| Violation::TooLong)?;
        self.window = self.window.checked_sub(length).ok_or(Violation::Window)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            // It was given up here, and the other side did not know it yet.
            octets.advance(count);
            self.give_back(count);
            return Ok(());
        };
        if stream.finished || stream.reset {
            return Err(Violation::Ended);
        }
        stream.window = stream.window.checked_sub(length).ok_or(Violation::Window)?;
        if stream.torn {
            octets.advance(count);
            self.give_back(count);
            return Ok(());
        }
        stream.hear();
        stream.inbox.take(count, octets);
        if let Some(reader) = stream.reader.take() {
            reader.wake();
        }
        self.tell();
        Ok(())
    }

    fn take_credit(&mut self, id: u32, payload: &[u8]) -> Result<(), Violation> {
        let more = payload.try_into().map_err(|_| Violation::Size)?;
        let more = u32::from_be_bytes(more);
        if id == 0 {
            self.credit = self.credit.checked_add(more).ok_or(Violation::Window)?;
            self.admit();
            return Ok(());
        }
        self.check_known(id)?;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.credit = stream.credit.checked_add(more).ok_or(Violation::Window)?;
            if let Some(writer) = stream.writer.take() {
                writer.wake();
            }
        }
        Ok(())
    }

    /// Was there ever such a stream?
    fn check_known(&self, id: u32) -> Result<(), Violation> {
        let begun = if self.is_ours(id) {
            id < self.next
        } else {
            id <= self.highest
        };
        (id != 0 && begun).then_some(()).ok_or(Violation::Id)
    }

    fn frame(&mut self, kind: Kind, id: u32, payload: &[u8]) {
        if self.over.is_some() || self.mute.is_some() {
            return;
        }
        Header::write(kind, id, payload.len(), &mut self.out);
        self.out.put_slice(payload);
        if matches!(
            kind,
            Kind::Pong | Kind::Accept | Kind::Refuse | Kind::Reset | Kind::Credit | Kind::Home
        ) {
            self.answers += HEADER + payload.len();
        }
        self.wake_driver();
    }

    fn say_no(&mut self, id: u32, status: StatusCode, reason: &str) {
        let visible = |c: &u8| c.is_ascii_graphic() || *c == b' ';
        let reason = reason.bytes().filter(visible).take(MAX_REASON);
        let status = status.as_u16().to_be_bytes();
        let payload: Vec<u8> = status.into_iter().chain(reason).collect();
        self.frame(Kind::Refuse, id, &payload);
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Octets that the other side sent are gone from here.
    fn give_back(&mut self, octets: usize) {
        self.owed += u32::try_from(octets).unwrap_or(CONNECTION_WINDOW);
        self.tell();
    }

    /// Says what was read of all streams, if that is much or the other side has little left.
    fn tell(&mut self) {
        if self.owed > 0 && self.owed >= self.window.min(CONNECTION_WINDOW / 2) {
            let more = std::mem::take(&mut self.owed);
            self.window += more;
            self.frame(Kind::Credit, 0, &more.to_be_bytes());
        }
    }

    /// There is room: whoever waits for it may write, a frame each before anybody's second, as far
    /// as it lasts.
    fn admit(&mut self) {
        let room = OUT_FULL.saturating_sub(self.out.len());
        for _ in 0..room.div_ceil(MAX_PAYLOAD) {
            let Some(id) = self.queue.pop_front() else {
                return;
            };
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.place = Place::Turn;
                if let Some(writer) = stream.writer.take() {
                    writer.wake();
                }
            }
        }
    }

    /// A stream waits for room no more; if it was its turn, it is that of the next.
    fn leave_queue(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut stream.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Queued => self.queue.retain(|queued| *queued != id),
            Place::Turn => self.admit(),
        }
    }

    /// Why nothing can be sent, if so.
    fn gone(&self) -> Option<io::ErrorKind> {
        self.over.or(self.mute)
    }

    // What the driver does.

    /// The next stream that the other side has opened; its handle is the taker's.
    pub(super) fn arrived(&mut self) -> Option<Opened> {
        self.arrived.pop_front()
    }

    pub(super) fn ping(&mut self) {
        // One that still waits says as much as two.
        if self.out.is_empty() {
            self.frame(Kind::Ping, 0, &[]);
        }
    }

    /// What is to be sent.
    pub(super) fn out(&self) -> &[u8] {
        &self.out
    }

    /// So much of it was sent.
    pub(super) fn sent(&mut self, octets: usize) {
        self.out.advance(octets);
        self.answers = self.answers.saturating_sub(octets);
        if self.out.len() <= OUT_FULL / 2 && self.credit > 0 {
            self.admit();
        }
    }

    /// Wake `driver` when there is something to send.
    pub(super) fn watch(&mut self, driver: &Waker) {
        if self.driver.as_ref().is_none_or(|d| !d.will_wake(driver)) {
            self.driver = Some(driver.clone());
        }
    }

    /// The driver is to end when all is sent.
    pub(super) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.all_home();
            self.wake_driver();
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The line is silent. What we asked for and was not answered is lost, so that it can be asked
    /// for elsewhere; what was being received or answered goes on if the line does.
    pub(super) fn linger(&mut self) {
        self.lingers = true;
        let parity = self.next % 2;
        for (id, stream) in &mut self.streams {
            if id % 2 == parity {
                stream.lost |= stream.waits && !stream.finished;
                stream.wake();
            }
        }
    }

    /// Nothing can be sent any more; what comes is still read.
    pub(super) fn mute(&mut self, kind: io::ErrorKind) {
        self.mute = Some(kind);
        self.out = BytesMut::new();
        self.streams.values_mut().for_each(Stream::wake);
    }

    /// The other side has left. What it has sent aside is there, or on its way.
    pub(super) fn ebb(&mut self, kind: io::ErrorKind) {
        self.ebbs = true;
        self.close(kind);
    }

    /// The connection is gone.
    pub(super) fn close(&mut self, kind: io::ErrorKind) {
        self.over = Some(kind);
        self.out = BytesMut::new();
        self.arrived.clear();
        self.streams.values_mut().for_each(Stream::wake);
        self.wake_spares();
        self.wake_driver();
    }

    /// What the other side has said of what it loses, once.
    pub(super) fn take_their_loss(&mut self) -> Option<Loss> {
        self.their_loss.take()
    }

    /// Says what this side loses.
    pub(super) fn say_loss(&mut self, loss: Loss) {
        if self.gone().is_none() {
            self.frame(Kind::Loss, 0, &loss.0.to_be_bytes());
        }
    }

    /// How full the link is for the other side, as it has said, once.
    pub(super) fn take_their_load(&mut self) -> Option<Load> {
        self.their_load.take()
    }

    /// Says how full it is for this side.
    pub(super) fn say_load(&mut self, load: Load) {
        if self.gone().is_none() {
            self.frame(Kind::Load, 0, &[load.percent()]);
        }
    }

    /// Says that a stream the other side opened had better be begun anew.
    pub(super) fn say_move(&mut self, id: u32) {
        if self.gone().is_none() && self.streams.contains_key(&id) {
            self.frame(Kind::Move, id, &[]);
        }
    }

    /// Should a stream be begun anew, as the other side says?
    pub(super) fn moves(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.moves)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Are all ids used up? What runs may end; nothing begins.
    pub(super) fn is_spent(&self) -> bool {
        self.next > LAST_ID || self.highest > LAST_ID
    }

    // What handles do.

    /// Opens a stream; `None`: the connection is over, or has as many as it may.
    pub(super) fn open(&mut self, head: &[u8]) -> Option<u32> {
        let ours = self.streams.len() - self.theirs;
        let may = ours < MAX_STREAMS && head.len() <= MAX_HEAD_BYTES as usize;
        if !may || self.lingers || self.gone().is_some() || self.is_spent() {
            return None;
        }
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, Stream::new(None));
        self.frame(Kind::Open, id, head);
        Some(id)
    }

    pub(super) fn poll_answer(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Answer>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Some(answer) = &stream.answer {
            return Poll::Ready(Ok(answer.clone()));
        }
        if stream.reset || stream.lost || stream.torn || stream.finished {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(kind) = self.over {
            return Poll::Ready(Err(kind.into()));
        }
        wait(&mut stream.reader, cx)
    }

    /// Says yes to a stream that arrived.
    pub(super) fn accept(&mut self, id: u32) -> io::Result<()> {
        if let Some(kind) = self.gone() {
            return Err(kind.into());
        }
        match self.streams.get(&id) {
            Some(stream) if !stream.reset && !stream.torn => {
                self.frame(Kind::Accept, id, &[]);
                Ok(())
            }
            Some(_) | None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Says no to a stream that arrived; its handle is to be released all the same.
    pub(super) fn refuse(&mut self, id: u32, status: StatusCode, reason: &str) {
        if self.over.is_some() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            (stream.ended, stream.finished) = (true, true);
            self.say_no(id, status, reason);
        }
    }

    /// Reads what is there; if that is on a spare connection, which.
    pub(super) fn poll_read(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<u16>>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let aside = stream.aside.filter(|aside| aside.before == 0);
        if stream.inbox.is_empty() || aside.is_some() {
            if stream.finished && aside.is_none() && !stream.torn {
                return Poll::Ready(Ok(None));
            }
            if stream.torn || stream.lost || stream.reset && !stream.finished {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if let Some(kind) = self.over
                && !(self.ebbs && aside.is_some())
            {
                return Poll::Ready(Err(kind.into()));
            }
            return match aside {
                Some(aside) => Poll::Ready(Ok(Some(aside.spare))),
                None => wait(&mut stream.reader, cx),
            };
        }
        let count = match &mut stream.aside {
            Some(aside) => {
                let count = stream.inbox.read(buf, aside.before);
                aside.before -= count;
                count
            }
            None => stream.inbox.read(buf, usize::MAX),
        };
        if self.over.is_some() {
            return Poll::Ready(Ok(None));
        }
        let goes_on = !stream.finished && !stream.reset;
        if goes_on && let Some(more) = stream.more(&mut self.extra) {
            stream.window += more;
            self.frame(Kind::Credit, id, &more.to_be_bytes());
        }
        self.give_back(count);
        Poll::Ready(Ok(None))
    }

    /// Takes as much as may be sent of `bufs` in one frame; how much that was, or where it goes.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<Way>> {
        if let Some(kind) = self.gone() {
            return Poll::Ready(Err(kind.into()));
        }
        let ours = self.is_ours(id);
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if stream.ended || stream.reset && stream.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // What begins now had better begin elsewhere, and whoever waits here should know.
        if self.lingers && ours {
            stream.lost = true;
            stream.wake();
        }
        if stream.reset || stream.lost || stream.torn {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(Way::Here(0)));
        }
        if let Some(number) = stream.spare {
            stream.waits = true;
            return Poll::Ready(Ok(Way::Aside(number)));
        }
        if stream.run >= aside::BULK
            && wanted >= aside::PIECE
            && let Some(number) = self.go_aside(id)
        {
            return Poll::Ready(Ok(Way::Aside(number)));
        }
        self.poll_frame(id, cx, bufs, wanted)
    }

    fn poll_frame(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
        wanted: usize,
    ) -> Poll<io::Result<Way>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let waits = self.out.len();
        let room = match stream.place {
            Place::Nowhere => waits < OUT_FULL && self.queue.is_empty(),
            Place::Queued => false,
            // Others may have had theirs meanwhile.
            Place::Turn => waits < 2 * OUT_FULL,
        };
        if stream.credit == 0 {
            // If it had a turn, that is somebody else's.
            let waiting = wait(&mut stream.writer, cx);
            self.leave_queue(id);
            return waiting;
        }
        if self.credit == 0 || !room {
            if stream.place != Place::Queued {
                stream.place = Place::Queued;
                self.queue.push_back(id);
            }
            return wait(&mut stream.writer, cx);
        }
        stream.place = Place::Nowhere;
        stream.waits = true;
        let piece = if wanted >= aside::PIECE { wanted } else { 0 };
        let allowed = stream.credit.min(self.credit);
        let most = MAX_PAYLOAD.min(usize::try_from(allowed).unwrap_or(MAX_PAYLOAD));
        let count = wanted.min(most);
        stream.run += piece.min(count);
        let cost = u32::try_from(count).unwrap_or(allowed);
        stream.credit -= cost;
        self.credit -= cost;
        Header::write(Kind::Data, id, count, &mut self.out);
        let mut left = count;
        for buf in bufs {
            let piece = buf.get(..left).unwrap_or(buf);
            self.out.put_slice(piece);
            left -= piece.len();
        }
        self.wake_driver();
        Poll::Ready(Ok(Way::Here(count)))
    }

    /// Could something be written?
    pub(super) fn check_open(&self, id: u32) -> io::Result<()> {
        match self.gone() {
            Some(kind) => Err(kind.into()),
            None if self.lingers && self.is_ours(id) => Err(io::ErrorKind::ConnectionReset.into()),
            None => self.check_whole(id),
        }
    }

    /// Was nothing of it lost on a spare connection?
    pub(super) fn check_whole(&self, id: u32) -> io::Result<()> {
        match self.streams.get(&id).is_some_and(|stream| stream.torn) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Nothing more comes from here.
    pub(super) fn end(&mut self, id: u32) {
        if self.over.is_none()
            && let Some(stream) = self.streams.get_mut(&id)
            && !stream.ended
            && !stream.reset
            && !stream.torn
        {
            stream.ended = true;
            self.go_home(id);
            self.frame(Kind::End, id, &[]);
        }
    }

    /// The handle is gone: what is unread is thrown away, and a stream that did not end is reset.
    pub(super) fn release(&mut self, id: u32) {
        self.leave_queue(id);
        self.go_home(id);
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        if !self.is_ours(id) {
            self.theirs -= 1;
        }
        self.extra += stream.limit - FIRST_WINDOW;
        self.waste(stream.aside);
        if self.over.is_some() {
            return;
        }
        let refused = matches!(stream.answer, Some(Answer::No(..)));
        let over = stream.ended && stream.finished || stream.reset || stream.torn || refused;
        if !over {
            self.frame(Kind::Reset, id, &[]);
        }
        self.give_back(stream.inbox.len());
        if self.is_spent() {
            // The driver waits for the last.
            self.wake_driver();
        }
    }
}

fn wait<T>(place: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    if place.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
    Poll::Pending
}
