//! A spare connection: what a stream that goes aside sends is written into TLS as it is, and read
//! out of it by whoever reads the stream.
//!
//! The handle of the stream does both itself ([`Spare::poll_write`], [`Spare::poll_read`]). The task
//! of the connection ([`Spare::run`]) is woken by the socket, whoever waits for it; it sends what
//! the handle left in TLS, wakes the handle, reads what nobody else does, and looks for the end.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use runtime::net::Segments;
use tokio::io::{AsyncBufRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::{
    LINGER,
    frame::{CHUNK_HEADER, MAX_CHUNK},
    mux::{Mux, Reading, Turn},
};
use crate::{
    flow::Flow,
    links::LinkState,
    socket::Socket,
    transport::{Keys, Pipe},
};

/// So much is written and read before the thread's other tasks, and its sockets, have their turn.
const TURN: usize = 64 << 10;
/// Buffers of a write that are taken at once.
const BUFS: usize = 8;
/// After so many looks at which the same is under way it is broken, as a data connection is that is
/// silent for so many intervals.
const STUCK: u32 = 12;

/// The spare connections of one data connection.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    all: RefCell<Vec<Rc<Spare>>>,
    /// Something was read on one of them.
    heard: Cell<bool>,
}

impl Shelf {
    /// The one of this number.
    pub(super) fn find(&self, number: u16) -> Option<Rc<Spare>> {
        let all = self.all.borrow();
        let found = all.iter().find(|spare| spare.number == number);
        found.cloned()
    }

    pub(super) fn put(&self, spare: &Rc<Spare>) {
        self.all.borrow_mut().push(Rc::clone(spare));
    }

    pub(super) fn take(&self, spare: &Rc<Spare>) {
        self.all.borrow_mut().retain(|one| !Rc::ptr_eq(one, spare));
    }

    /// Was something read since this was asked?
    pub(super) fn take_heard(&self) -> bool {
        self.heard.take()
    }

    /// An interval has passed; `lingers`: the line is silent, and may come back.
    pub(super) fn tick(&self, link: &LinkState, lingers: bool) {
        for spare in self.all.borrow().iter() {
            spare.tick(link, lingers);
        }
    }
}

/// See the module.
pub(super) struct Spare {
    number: u16,
    shelf: Rc<Shelf>,
    wire: RefCell<Wire>,
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spare({})", self.number)
    }
}

/// The connection itself.
struct Wire {
    tls: Box<TlsStream<Socket>>,
    keys: Keys,
    /// Of the task: whoever reads or writes, the socket wakes that.
    task: Waker,
    /// TLS has octets that the socket did not take.
    unsent: bool,
    /// Something was written since the last look.
    wrote: bool,
    /// What has come of the length of the next chunk, and what is to come of this one.
    header: [u8; CHUNK_HEADER],
    known: usize,
    left: usize,
    /// It was written that the stream has gone home.
    ended: bool,
    /// Octets that were written and read in this turn, and ever.
    spent: usize,
    total: usize,
    broken: Option<io::ErrorKind>,
    counted: Counted,
    /// What it carries.
    flow: Flow,
}

/// What TCP had counted at the last look, and for how many looks the same is under way.
#[derive(Debug, Default)]
struct Counted {
    segments: Segments,
    stuck: u32,
}

impl Counted {
    /// What was sent and lost since then.
    fn look(&mut self, now: Segments) -> (u32, u32) {
        let before = self.segments;
        let lost = now.lost.max(before.lost);
        // A reader who stands still leaves nothing under way, since its kernel has it, but for what
        // that had no room for.
        let reader = now.window_limited_us > before.window_limited_us;
        let stands = now.flying > 0 && now.acknowledged == before.acknowledged && !reader;
        self.stuck = if stands { self.stuck + 1 } else { 0 };
        self.segments = Segments { lost, ..now };
        (now.sent.wrapping_sub(before.sent), lost - before.lost)
    }

    const fn is_broken(&self) -> bool {
        self.stuck >= STUCK
    }
}

/// What follows a turn of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Another, when others had theirs.
    Turn,
    /// What was sent before the data connection went is still heard.
    Ebb,
    End,
}

impl Spare {
    pub(super) fn new(
        number: u16,
        shelf: Rc<Shelf>,
        mut tls: Box<TlsStream<Socket>>,
        keys: Keys,
        flow: Flow,
    ) -> Rc<Self> {
        tls.get_mut().0.carries_bulk();
        // What is written is taken whole: TLS is empty whenever something is.
        match &mut *tls {
            TlsStream::Client(tls) => tls.get_mut().1.set_buffer_limit(None),
            TlsStream::Server(tls) => tls.get_mut().1.set_buffer_limit(None),
        }
        let wire = Wire {
            counted: Counted {
                segments: tls.get_ref().0.segments().unwrap_or_default(),
                stuck: 0,
            },
            tls,
            keys,
            task: Waker::noop().clone(),
            unsent: false,
            wrote: false,
            header: [0; CHUNK_HEADER],
            known: 0,
            left: 0,
            ended: false,
            spent: 0,
            total: 0,
            broken: None,
            flow,
        };
        Rc::new(Spare {
            number,
            shelf,
            wire: RefCell::new(wire),
        })
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    /// Writes a chunk; how much of `bufs` that was. Whoever has to wait is woken by
    /// [`Mux::spare_has_room`].
    pub(super) fn poll_write(&self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.borrow_mut();
        let written = wire.poll_write(bufs);
        wire.fail(written)
    }

    /// Fills `buf` as far as there is something, and says whether the stream has gone home. Whoever
    /// has to wait is woken by [`Mux::spare_has_octets`].
    pub(super) fn poll_read(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let mut wire = self.wire.borrow_mut();
        let read = wire.poll_read(buf);
        if let Poll::Ready(Ok(_)) = read {
            self.shelf.heard.set(true);
        }
        wire.fail(read)
    }

    /// Does what is to be done until it is over.
    pub(super) async fn run(&self, mux: &RefCell<Mux>) -> io::Result<()> {
        self.serve(mux).await?;
        // Whether the goodbye arrives does not matter.
        poll_fn(|cx| {
            let mut wire = self.wire.borrow_mut();
            Poll::Ready(Pin::new(&mut wire.tls).poll_shutdown(cx).is_ready())
        })
        .await;
        Ok(())
    }

    async fn serve(&self, mux: &RefCell<Mux>) -> io::Result<()> {
        let mut after = After::Turn;
        while after != After::Ebb {
            after = poll_fn(|cx| self.poll_turn(mux, cx, false)).await?;
            match after {
                After::Turn => self.rest().await,
                After::Ebb => {}
                After::End => return Ok(()),
            }
        }
        // The data connection is gone, and nobody else looks whether this one lives.
        self.wire.borrow_mut().flow.stop();
        let mut before = self.wire.borrow().total;
        loop {
            let turn = poll_fn(|cx| self.poll_turn(mux, cx, true));
            match tokio::time::timeout(LINGER, turn).await {
                Ok(after) => match after? {
                    After::Turn | After::Ebb => self.rest().await,
                    After::End => return Ok(()),
                },
                Err(_) => {
                    let total = self.wire.borrow().total;
                    if std::mem::replace(&mut before, total) == total {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Lets the thread's other tasks, and its sockets, have their turn.
    async fn rest(&self) {
        tokio::task::yield_now().await;
        self.wire.borrow_mut().spent = 0;
    }

    /// What is to be done now.
    fn poll_turn(
        &self,
        mux: &RefCell<Mux>,
        cx: &mut Context<'_>,
        ebbing: bool,
    ) -> Poll<io::Result<After>> {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        if let Some(kind) = wire.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if !wire.task.will_wake(cx.waker()) {
            wire.task = cx.waker().clone();
        }
        let turn = mux.borrow_mut().spare_turn(self.number, cx.waker());
        let Some(Turn {
            ebbs,
            ends,
            reading,
        }) = turn
        else {
            return Poll::Ready(Ok(After::End));
        };
        if ebbs && !ebbing {
            return Poll::Ready(Ok(After::Ebb));
        }
        self.write_turn(wire, mux, ends)?;
        if ebbing && !wire.unsent {
            // Nothing more comes from here; who closes before the other side does loses what is
            // under way.
            let _ = Pin::new(&mut wire.tls).poll_shutdown(cx)?;
        }
        self.read_turn(wire, mux, reading)?;
        match wire.spent >= TURN {
            true => Poll::Ready(Ok(After::Turn)),
            false => Poll::Pending,
        }
    }

    /// Sends what is there, and that the stream has gone home when it has.
    fn write_turn(&self, wire: &mut Wire, mux: &RefCell<Mux>, ends: bool) -> io::Result<()> {
        if wire.poll_flush()?.is_pending() {
            return Ok(());
        }
        if ends && !wire.ended {
            let end = 0_u32.to_be_bytes();
            // It is taken whole.
            wire.ended = wire.poll_tls(&[IoSlice::new(&end)])?.is_ready();
            if wire.poll_flush()?.is_pending() {
                return Ok(());
            }
        }
        if std::mem::take(&mut wire.ended) {
            mux.borrow_mut().spare_ended(self.number);
        } else if wire.spent < TURN {
            mux.borrow_mut().spare_has_room(self.number);
        }
        Ok(())
    }

    /// Reads what nobody else does, and wakes who does.
    fn read_turn(&self, wire: &mut Wire, mux: &RefCell<Mux>, reading: Reading) -> io::Result<()> {
        match reading {
            Reading::Nothing => {
                // An end, or what comes before the word that it does: that waits.
                if wire.known == 0
                    && let Poll::Ready(octets) = wire.poll_octets()
                {
                    let _ = octets?;
                }
            }
            Reading::Stream { awaited } => {
                let begins = wire.left == 0 && wire.poll_header()?.is_ready();
                if begins && wire.left == 0 {
                    mux.borrow_mut().came_home(self.number);
                } else if awaited && wire.spent < TURN && wire.has_octets()? {
                    mux.borrow_mut().spare_has_octets(self.number);
                }
            }
            Reading::Waste => {
                while wire.spent < TURN {
                    if wire.left > 0 {
                        let Poll::Ready(count) = wire.poll_waste()? else {
                            break;
                        };
                        wire.spend(count);
                    } else if wire.poll_header()?.is_pending() {
                        break;
                    } else if wire.left == 0 {
                        mux.borrow_mut().came_home(self.number);
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn tick(&self, link: &LinkState, lingers: bool) {
        let mut wire = self.wire.borrow_mut();
        let Wire {
            tls, keys, wrote, ..
        } = &mut *wire;
        // Who gets new keys again and again and nothing by them takes that for an attack.
        if std::mem::take(wrote) {
            keys.look(|| tls.rekey());
        }
        let unsent = tls.get_ref().1.wants_write();
        let now = tls.get_ref().0.segments();
        wire.unsent = unsent;
        if let Some(now) = now {
            wire.flow.handle_counted(runtime::now(), &now);
            let (sent, lost) = wire.counted.look(now);
            link.count(sent, lost);
            if wire.counted.is_broken() && !lingers {
                wire.broken = Some(io::ErrorKind::TimedOut);
            }
        }
        if unsent || wire.broken.is_some() {
            wire.task.wake_by_ref();
        }
    }
}

impl Wire {
    /// Notes what broke; the task ends by it.
    fn fail<T>(&mut self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome {
            self.broken = Some(error.kind());
            self.task.wake_by_ref();
        }
        outcome
    }

    const fn spend(&mut self, octets: usize) {
        self.spent += octets;
        self.total = self.total.wrapping_add(octets);
    }

    fn check(&self) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        match self.spent < TURN {
            true => Poll::Ready(Ok(())),
            false => {
                self.task.wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.check())?;
        ready!(self.poll_flush())?;
        let mut chunk = [IoSlice::new(&[]); BUFS + 1];
        let mut count = 0;
        let bufs = bufs.iter().filter(|buf| !buf.is_empty());
        for (place, buf) in chunk.iter_mut().skip(1).zip(bufs) {
            let piece = buf.get(..MAX_CHUNK - count).unwrap_or(buf);
            *place = IoSlice::new(piece);
            count += piece.len();
        }
        let length = u32::try_from(count).unwrap_or_default().to_be_bytes();
        chunk[0] = IoSlice::new(&length);
        ready!(self.poll_tls(&chunk))?;
        self.spend(count);
        Poll::Ready(Ok(count))
    }

    /// Gives all of it to TLS, which has nothing yet.
    fn poll_tls(&mut self, bufs: &[IoSlice<'_>]) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.task);
        ready!(Pin::new(&mut self.tls).poll_write_vectored(&mut cx, bufs))?;
        self.unsent = self.tls.get_ref().1.wants_write();
        self.wrote = true;
        Poll::Ready(Ok(()))
    }

    /// Ready when TLS has nothing left to be sent.
    fn poll_flush(&mut self) -> Poll<io::Result<()>> {
        if self.unsent {
            let mut cx = Context::from_waker(&self.task);
            ready!(Pin::new(&mut self.tls).poll_flush(&mut cx))?;
            self.unsent = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        ready!(self.check())?;
        let before = buf.filled().len();
        let mut home = false;
        loop {
            // Also after the last octet that there is room for: that was all, perhaps.
            if self.left == 0 {
                match self.poll_header()? {
                    Poll::Ready(()) => home = self.left == 0,
                    Poll::Pending => break,
                }
            }
            let count = buf.filled().len() - before;
            if home || buf.remaining() == 0 || self.spent + count >= TURN {
                break;
            }
            let room = buf.remaining().min(self.left);
            let Poll::Ready(octets) = self.poll_octets()? else {
                break;
            };
            let octets = octets.get(..room).unwrap_or(octets);
            let count = octets.len();
            buf.put_slice(octets);
            self.consume(count);
            self.left -= count;
        }
        let count = buf.filled().len() - before;
        self.spend(count);
        match count > 0 || home {
            true => Poll::Ready(Ok(home)),
            false => Poll::Pending,
        }
    }

    /// What of a record is there; never none.
    fn poll_octets(&mut self) -> Poll<io::Result<&[u8]>> {
        let mut cx = Context::from_waker(&self.task);
        let octets = ready!(Pin::new(&mut self.tls).poll_fill_buf(&mut cx))?;
        match octets.is_empty() {
            true => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            false => Poll::Ready(Ok(octets)),
        }
    }

    fn has_octets(&mut self) -> io::Result<bool> {
        match self.poll_octets() {
            Poll::Ready(octets) => octets.map(|_| true),
            Poll::Pending => Ok(false),
        }
    }

    fn consume(&mut self, count: usize) {
        Pin::new(&mut self.tls).consume(count);
    }

    fn poll_waste(&mut self) -> Poll<io::Result<usize>> {
        let left = self.left;
        let count = ready!(self.poll_octets())?.len().min(left);
        self.consume(count);
        self.left -= count;
        Poll::Ready(Ok(count))
    }

    /// Ready when it is known how long the next chunk is.
    fn poll_header(&mut self) -> Poll<io::Result<()>> {
        while self.known < CHUNK_HEADER {
            let known = self.known;
            let mut header = self.header;
            let octets = ready!(self.poll_octets())?;
            let mut count = 0;
            for (place, octet) in header.iter_mut().skip(known).zip(octets) {
                *place = *octet;
                count += 1;
            }
            self.header = header;
            self.known += count;
            self.consume(count);
        }
        self.known = 0;
        let length = u32::from_be_bytes(self.header);
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        match self.left > MAX_CHUNK {
            true => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_under_way_is_broken_and_what_nobody_reads_is_not() {
        let at = |sent, flying, acknowledged| Segments {
            sent,
            flying,
            acknowledged,
            ..Segments::default()
        };
        let mut counted = Counted::default();
        assert_eq!(counted.look(at(5, 2, 100)), (5, 0));
        // All has come, and waits there to be read.
        for _ in 0..2 * STUCK {
            counted.look(at(7, 0, 200));
        }
        // More goes, slowly.
        for more in 1..u64::from(2 * STUCK) {
            counted.look(at(9, 1, 200 + more));
        }
        assert!(!counted.is_broken());
        // What has no room there is sent again and again.
        for held in 1..u64::from(2 * STUCK) {
            counted.look(Segments {
                window_limited_us: held,
                ..at(9, 1, 999)
            });
        }
        assert!(!counted.is_broken());
        counted.look(at(9, 1, 998));
        for _ in 0..STUCK {
            counted.look(at(9, 1, 999));
        }
        assert!(!counted.is_broken());
        counted.look(at(9, 1, 999));
        assert!(counted.is_broken());
        counted.look(at(9, 1, 1000));
        assert!(!counted.is_broken());
        // What was lost is not found again.
        let lost = |lost| Segments {
            lost,
            ..at(9, 0, 0)
        };
        assert_eq!((counted.look(lost(3)).1, counted.look(lost(2)).1), (3, 0));
    }
}
