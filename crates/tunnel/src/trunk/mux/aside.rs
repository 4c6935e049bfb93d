//! Streams that go over spare connections: who takes which, and when it comes back.
//!
//! A stream that sends much goes *aside*: what follows of it comes over a spare connection, which it
//! has for itself, until its sender says there that it is *home* again, and the other side says here
//! that it has read so far. Each direction of a spare connection is lent by the side that sends on
//! it, so nobody has to be asked. There is no credit on them: a reader who stands still holds up its
//! own stream, by what TCP lets be sent.
//!
//! What is here knows spare connections by their numbers. Each has a task, which asks by
//! [`Mux::spare_turn`] what it is to do.

use std::{
    collections::VecDeque,
    task::{Context, Waker},
};

use super::{Inbox, Mux, Stream, Violation, wait};
use crate::{link::Side, trunk::frame::Kind};

/// Spare connections of one data connection at the most.
pub(in crate::trunk) const MOST: usize = 16;
/// What a stream has sent since it rested, or heard something, when it goes aside …
pub(in crate::trunk) const BULK: usize = 256 << 10;
/// … in pieces of at least so much: smaller ones cost less in frames, where they go out together.
pub(in crate::trunk) const PIECE: usize = 4 << 10;
/// So many looks ([`Mux::tick`]) a connection may be idle, if that many are not wanted; and so many
/// after the last bulk none is wanted. A minute.
pub(in crate::trunk) const IDLE: u32 = 200;
/// After so many its acceptor closes one that is still there.
const FORGOTTEN: u32 = 4 * IDLE;
/// Idle ones that an acceptor takes beyond those that are wanted: what it said may be under way.
const UNASKED: usize = 2;
/// Between two that are dialled in vain pass at most two to the power of so many looks.
const LONGEST_WAIT: u32 = 7;

/// What we send on a spare connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Nothing,
    /// This stream.
    Lent(u32),
    /// It has come home, and that is to be said there.
    Ending(u32),
    /// That was said, and not yet heard.
    Unread(u32),
}

impl Out {
    const fn stream(self) -> Option<u32> {
        match self {
            Out::Nothing => None,
            Out::Lent(id) | Out::Ending(id) | Out::Unread(id) => Some(id),
        }
    }
}

/// What the other side sends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Nothing,
    /// This stream.
    Lent(u32),
    /// One that nobody reads.
    Waste,
}

/// A spare connection.
#[derive(Debug)]
struct Spare {
    number: u16,
    /// The other side has it as well.
    theirs: bool,
    out: Out,
    inn: In,
    /// A piece of bulk was written since the last look.
    moved: bool,
    /// Looks since there was something on it.
    idle: u32,
    /// The other side is to close it, if it is not about to use it.
    retires: bool,
    task: Option<Waker>,
}

impl Spare {
    fn is_idle(&self) -> bool {
        (self.out, self.inn) == (Out::Nothing, In::Nothing)
    }

    fn may_be_lent(&self) -> bool {
        self.theirs && !self.retires && self.out == Out::Nothing
    }

    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// The other side knows what they are.
    known: bool,
    all: Vec<Spare>,
    /// Numbers of those that the other side has, and that are not here yet.
    early: VecDeque<u16>,
    /// How many idle ones are wanted, here and there.
    wanted: u8,
    theirs: u8,
    /// Looks since the last bulk.
    quiet: u32,
    /// Looks, and when one may be dialled again that is wanted.
    ticks: u32,
    next: u32,
    /// Dialled, without one that came up since.
    vain: u32,
    /// How often a stream went aside.
    taken: u64,
}

impl Spares {
    fn find(&mut self, number: u16) -> Option<&mut Spare> {
        self.all.iter_mut().find(|spare| spare.number == number)
    }
}

/// From where a stream is read that comes aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    pub(super) spare: u16,
    /// Octets in its inbox that come before.
    pub(super) before: usize,
}

/// What the task of a spare connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::trunk) struct Turn {
    /// The data connection is gone: what was sent before is still heard, here and there.
    pub(in crate::trunk) ebbs: bool,
    /// Say that the stream has gone home ([`Mux::spare_ended`]).
    pub(in crate::trunk) ends: bool,
    pub(in crate::trunk) reading: Reading,
}

/// What is to be read on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::trunk) enum Reading {
    /// Nothing.
    Nothing,
    /// What its stream reads.
    Stream {
        /// Somebody waits for it.
        awaited: bool,
    },
    /// What nobody reads, until the stream is home.
    Waste,
}

/// What the connection's driver and the tasks of spare ones do.
impl Mux {
    /// Says that we know what spare connections are.
    pub(in crate::trunk) fn greet(&mut self) {
        self.frame(Kind::Spares, 0, &[0]);
    }

    /// Is one to be dialled? Then [`Mux::dials_spare`] says that it is.
    pub(in crate::trunk) fn wants_spare(&self) -> bool {
        let spares = &self.spares;
        // Asked whenever something was sent or heard, and seldom so.
        if self.side == Side::Acceptor || (spares.wanted, spares.theirs) == (0, 0) {
            return false;
        }
        let free = |is_free: fn(&Spare) -> bool| {
            let all = spares.all.iter().filter(|spare| !spare.retires);
            all.filter(|spare| is_free(spare)).count()
        };
        let few = free(|spare| spare.out == Out::Nothing) < spares.wanted.into()
            || free(|spare| spare.inn == In::Nothing) < spares.theirs.into();
        few && spares.known
            && spares.all.len() < MOST
            && spares.ticks >= spares.next
            && !self.lingers
            && !self.leaving
            && self.gone().is_none()
    }

    pub(in crate::trunk) fn dials_spare(&mut self) {
        let spares = &mut self.spares;
        spares.vain += 1;
        spares.next = spares.ticks + (1 << spares.vain.min(LONGEST_WAIT));
    }

    /// One has come; `false`: it is of no use.
    pub(in crate::trunk) fn spare_comes(&mut self, number: u16) -> bool {
        let spares = &mut self.spares;
        let known = spares.find(number).is_some();
        let idle = spares.all.iter().filter(|spare| spare.is_idle()).count();
        let enough = usize::from(spares.wanted.max(spares.theirs)) + UNASKED;
        let many = self.side == Side::Acceptor && idle >= enough;
        if known || many || spares.all.len() >= MOST || self.leaving || self.gone().is_some() {
            return false;
        }
        let spares = &mut self.spares;
        let theirs = spares.early.contains(&number);
        spares.early.retain(|early| *early != number);
        spares.all.push(Spare {
            number,
            theirs,
            out: Out::Nothing,
            inn: In::Nothing,
            moved: false,
            idle: 0,
            retires: false,
            task: None,
        });
        if theirs {
            (spares.vain, spares.next) = (0, spares.ticks);
        }
        self.frame(Kind::Have, 0, &number.to_be_bytes());
        true
    }

    /// One is gone, and what was on it is lost.
    pub(in crate::trunk) fn spare_gone(&mut self, number: u16) {
        let all = &mut self.spares.all;
        let Some(at) = all.iter().position(|spare| spare.number == number) else {
            return;
        };
        let mut spare = all.swap_remove(at);
        spare.wake();
        if let Some(id) = spare.out.stream() {
            self.tear(id);
        }
        if let In::Lent(id) = spare.inn {
            self.tear(id);
        }
        self.wake_driver();
    }

    /// What its task is to do, which is woken by `task` when there is something else; `None`: it is
    /// to end.
    pub(in crate::trunk) fn spare_turn(&mut self, number: u16, task: &Waker) -> Option<Turn> {
        let ebbs = self.over.is_some();
        let spare = self.spares.find(number)?;
        let heard = matches!(spare.out, Out::Nothing | Out::Lent(_) | Out::Ending(_));
        if ebbs && (!self.ebbs || heard && !matches!(spare.inn, In::Lent(_))) {
            return None;
        }
        if spare.task.as_ref().is_none_or(|old| !old.will_wake(task)) {
            spare.task = Some(task.clone());
        }
        let ends = matches!(spare.out, Out::Ending(_));
        let reading = match spare.inn {
            In::Nothing => Reading::Nothing,
            In::Waste => Reading::Waste,
            In::Lent(id) => Reading::Stream {
                awaited: self.streams.get(&id).is_some_and(|s| s.reader.is_some()),
            },
        };
        Some(Turn {
            ebbs,
            ends,
            reading,
        })
    }

    /// Whoever writes to it may go on.
    pub(in crate::trunk) fn spare_has_room(&mut self, number: u16) {
        if let Some(Out::Lent(id)) = self.spares.find(number).map(|spare| spare.out)
            && let Some(stream) = self.streams.get_mut(&id)
            && let Some(writer) = stream.writer.take()
        {
            writer.wake();
        }
    }

    /// Whoever reads it may go on.
    pub(in crate::trunk) fn spare_has_octets(&mut self, number: u16) {
        if let Some(In::Lent(id)) = self.spares.find(number).map(|spare| spare.inn)
            && let Some(stream) = self.streams.get_mut(&id)
            && let Some(reader) = stream.reader.take()
        {
            reader.wake();
        }
    }

    /// All of the stream was sent, and that it has gone home.
    pub(in crate::trunk) fn spare_ended(&mut self, number: u16) {
        if let Some(spare) = self.spares.find(number)
            && let Out::Ending(id) = spare.out
        {
            spare.out = Out::Unread(id);
            // It may be all that a goodbye waits for.
            self.wake_driver();
        }
    }

    /// All was read, until it was said that the stream has gone home.
    pub(in crate::trunk) fn came_home(&mut self, number: u16) {
        let Some(spare) = self.spares.find(number) else {
            return;
        };
        let was = std::mem::replace(&mut spare.inn, In::Nothing);
        if let In::Lent(id) = was
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.aside = None;
            if let Some(reader) = stream.reader.take() {
                reader.wake();
            }
        }
        // Its task waits for the socket again, and for what the other side does with it next.
        spare.wake();
        if self.over.is_some() {
            // It may be all that it is there for.
            self.wake_spares();
        }
        self.frame(Kind::Home, 0, &number.to_be_bytes());
    }

    /// An interval has passed: streams that are bulk no more come home, and what is idle is closed.
    pub(in crate::trunk) fn tick(&mut self) {
        let mut home = Vec::new();
        for spare in &mut self.spares.all {
            if let Out::Lent(id) = spare.out {
                let stream = self.streams.get(&id);
                let stands = stream.is_some_and(|stream| stream.writer.is_some());
                if !std::mem::take(&mut spare.moved) && !stands {
                    home.push(id);
                }
            }
            spare.idle = match spare.is_idle() {
                true => spare.idle.saturating_add(1),
                false => 0,
            };
        }
        home.into_iter().for_each(|id| self.go_home(id));
        let spares = &mut self.spares;
        spares.ticks = spares.ticks.saturating_add(1);
        spares.quiet = spares.quiet.saturating_add(1);
        if spares.quiet >= IDLE && spares.wanted > 0 {
            spares.wanted = 0;
            self.frame(Kind::Spares, 0, &[0]);
        }
        match self.side {
            Side::Dialler => self.retire_idle(),
            Side::Acceptor => self.close_forgotten(),
        }
    }

    /// Closes one that the other side should have let go long ago.
    fn close_forgotten(&mut self) {
        let mut all = self.spares.all.iter();
        let forgotten = all.find(|spare| spare.idle >= FORGOTTEN);
        if let Some(number) = forgotten.map(|spare| spare.number) {
            self.spare_gone(number);
        }
    }

    /// Closes the one that was idle longest, if there are more than are wanted.
    fn retire_idle(&mut self) {
        let spares = &mut self.spares;
        let wanted = usize::from(spares.wanted.max(spares.theirs));
        let idle = |spare: &&mut Spare| spare.is_idle() && !spare.retires;
        if spares.all.iter_mut().filter(idle).count() <= wanted {
            return;
        }
        let oldest = spares.all.iter_mut().filter(idle);
        if let Some(spare) = oldest.max_by_key(|spare| spare.idle)
            && spare.idle >= IDLE
        {
            spare.retires = true;
            let number = spare.number;
            self.frame(Kind::Drop, 0, &number.to_be_bytes());
        }
    }

    /// How often a stream went aside since this was asked.
    pub(in crate::trunk) fn take_asides(&mut self) -> u64 {
        std::mem::take(&mut self.spares.taken)
    }

    /// Is something of ours to be sent on spare connections?
    pub(in crate::trunk) fn sends_aside(&self) -> bool {
        let mut all = self.spares.all.iter();
        all.any(|spare| matches!(spare.out, Out::Lent(_) | Out::Ending(_)))
    }

    /// Does what we send of a stream go over a spare connection?
    #[cfg(test)]
    pub(in crate::trunk) fn is_lent(&self, id: u32) -> bool {
        let mut all = self.spares.all.iter();
        all.any(|spare| spare.out == Out::Lent(id))
    }

    /// All streams are to come home.
    pub(super) fn all_home(&mut self) {
        let lent = self.spares.all.iter().filter_map(|spare| match spare.out {
            Out::Lent(id) => Some(id),
            Out::Nothing | Out::Ending(_) | Out::Unread(_) => None,
        });
        let lent: Vec<u32> = lent.collect();
        lent.into_iter().for_each(|id| self.go_home(id));
    }

    pub(super) fn wake_spares(&mut self) {
        self.spares.all.iter_mut().for_each(Spare::wake);
    }
}

/// What handles do.
impl Mux {
    /// So much of a stream was written to the spare connection.
    pub(in crate::trunk) fn wrote_aside(&mut self, number: u16, octets: usize) {
        if let Some(spare) = self.spares.find(number) {
            spare.moved |= octets >= PIECE;
        }
    }

    /// Something of a stream was read there.
    pub(in crate::trunk) fn heard_aside(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.hear();
        }
    }

    /// Wakes who reads when [`Mux::spare_has_octets`], or the stream breaks.
    pub(in crate::trunk) fn wait_to_read(&mut self, id: u32, cx: &Context<'_>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let _ = wait::<()>(&mut stream.reader, cx);
        }
    }

    /// Wakes who writes when [`Mux::spare_has_room`], or the stream breaks.
    pub(in crate::trunk) fn wait_to_write(&mut self, id: u32, cx: &Context<'_>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let _ = wait::<()>(&mut stream.writer, cx);
        }
    }

    /// A stream is bulk: the spare connection over which it goes on, if there is one.
    pub(super) fn go_aside(&mut self, id: u32) -> Option<u16> {
        if !self.spares.known || self.leaving || self.lingers {
            return None;
        }
        let spares = &mut self.spares;
        let mut outs = spares.all.iter().map(|spare| spare.out);
        if outs.any(|out| out.stream() == Some(id)) {
            // The last time is not over yet.
            return None;
        }
        spares.quiet = 0;
        let news = spares.wanted == 0;
        spares.wanted = 1;
        let of_others = |spare: &Spare| !matches!(spare.inn, In::Lent(other) if other == id);
        let free = spares.all.iter_mut().filter(|spare| spare.may_be_lent());
        let number = free.min_by_key(|spare| of_others(spare)).map(|spare| {
            (spare.out, spare.moved) = (Out::Lent(id), true);
            spare.number
        });
        spares.taken += u64::from(number.is_some());
        if news {
            self.frame(Kind::Spares, 0, &[1]);
        }
        let number = number?;
        self.leave_queue(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.spare = Some(number);
        }
        self.frame(Kind::Aside, id, &number.to_be_bytes());
        // Another may be dialled.
        self.wake_driver();
        Some(number)
    }

    /// What we send of a stream goes on here.
    pub(super) fn go_home(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.run = 0;
        if let Some(number) = stream.spare.take()
            && let Some(spare) = self.spares.find(number)
            && spare.out == Out::Lent(id)
        {
            spare.out = Out::Ending(id);
            spare.wake();
            // Whoever waits for room there may find it here.
            if let Some(writer) = stream.writer.take() {
                writer.wake();
            }
        }
    }

    /// What comes of a stream is read no more.
    pub(super) fn waste(&mut self, aside: Option<Aside>) {
        if let Some(aside) = aside
            && let Some(spare) = self.spares.find(aside.spare)
        {
            spare.inn = In::Waste;
            spare.wake();
        }
    }

    /// Something of a stream is lost: neither side goes on with it.
    fn tear(&mut self, id: u32) {
        self.go_home(id);
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.torn) else {
            return;
        };
        stream.torn = true;
        let unread = std::mem::take::<Inbox>(&mut stream.inbox).len();
        let aside = stream.aside.take();
        stream.wake();
        self.waste(aside);
        self.leave_queue(id);
        self.give_back(unread);
        self.frame(Kind::Reset, id, &[]);
    }
}

/// What the other side says.
impl Mux {
    pub(super) fn take_spares(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let [wanted] = payload.try_into().map_err(|_| Violation::Size)?;
        let most = u8::try_from(MOST).unwrap_or(u8::MAX);
        (self.spares.known, self.spares.theirs) = (true, u8::min(wanted, most));
        Ok(())
    }

    pub(super) fn take_have(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let number = number(payload)?;
        let spares = &mut self.spares;
        if let Some(spare) = spares.find(number) {
            spare.theirs = true;
            (spares.vain, spares.next) = (0, spares.ticks);
        } else {
            if spares.early.len() >= MOST {
                spares.early.pop_front();
            }
            spares.early.push_back(number);
        }
        Ok(())
    }

    pub(super) fn take_aside(&mut self, id: u32, payload: &[u8]) -> Result<(), Violation> {
        let number = number(payload)?;
        self.check_known(id)?;
        let stream = self.streams.get_mut(&id);
        if stream.as_ref().is_some_and(|stream| stream.aside.is_some()) {
            return Err(Violation::Aside);
        }
        let is_over = |stream: &&mut Stream| stream.finished || stream.reset;
        if stream.as_ref().is_some_and(is_over) {
            return Err(Violation::Ended);
        }
        let Some(spare) = self.spares.find(number) else {
            // It broke here, and the other side did not know it yet.
            self.tear(id);
            return Ok(());
        };
        if spare.inn != In::Nothing {
            return Err(Violation::Aside);
        }
        spare.retires = false;
        let stream = stream.filter(|stream| !stream.torn);
        spare.inn = match &stream {
            Some(_) => In::Lent(id),
            None => In::Waste,
        };
        spare.wake();
        if let Some(stream) = stream {
            stream.aside = Some(Aside {
                spare: number,
                before: stream.inbox.len(),
            });
        }
        // Another may be dialled.
        self.wake_driver();
        Ok(())
    }

    pub(super) fn take_home(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let number = number(payload)?;
        // One that is gone here may not be there yet.
        let Some(spare) = self.spares.find(number) else {
            return Ok(());
        };
        let Out::Unread(_) = spare.out else {
            return Err(Violation::Aside);
        };
        spare.out = Out::Nothing;
        // It may be all that is waited for.
        self.wake_driver();
        Ok(())
    }

    pub(super) fn take_drop(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let number = number(payload)?;
        if let Some(spare) = self.spares.find(number)
            && spare.is_idle()
        {
            self.spare_gone(number);
        }
        Ok(())
    }
}

fn number(payload: &[u8]) -> Result<u16, Violation> {
    let number = payload.try_into().map_err(|_| Violation::Size)?;
    Ok(u16::from_be_bytes(number))
}
