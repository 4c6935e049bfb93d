//! The streams of a connection (RFC 9113 §5.1).

use std::{collections::VecDeque, task::Waker};

use bytes::BytesMut;
use http::HeaderMap;

use super::frame::Code;

/// How many streams are remembered after they were reset or ended.
const REMEMBERED: usize = 256;

/// Why a stream carries nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The client reset it, with this code.
    Reset(u32),
    /// It was reset here.
    Ours(Code),
    /// Its connection is over.
    Connection,
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Both sides ended it: nobody can have sent anything since.
    Ended,
    /// The client reset it.
    Reset,
    /// It was reset here, which the client may not know yet.
    Ours,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Awaited,
    Begun,
    Ended,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// Octets of the body that nobody took.
    pub(super) body: BytesMut,
    pub(super) trailers: Option<HeaderMap>,
    /// The client has ended it.
    pub(super) ended: bool,
    /// What its content-length says is still to come.
    pub(super) left: Option<u64>,
    /// Octets that the client may still send, and those taken since it was told.
    pub(super) receive: i64,
    pub(super) taken: u32,
    /// Octets that may be sent.
    pub(super) send: i64,
    pub(super) answer: Answer,
    pub(super) gone: Option<Gone>,
    /// Who waits for more of the body, for its end before its time, and for room to send.
    pub(super) for_body: Option<Waker>,
    pub(super) for_end: Option<Waker>,
    pub(super) for_room: Option<Waker>,
    /// It stands in the queue of those that wait for room.
    pub(super) queued: bool,
    /// The round in which it sent last.
    pub(super) round: u32,
}

impl Stream {
    /// Nobody sends on it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.gone.is_some() || (self.ended && self.answer == Answer::Ended)
    }

    pub(super) fn wake(&mut self) {
        [&mut self.for_body, &mut self.for_end, &mut self.for_room]
            .into_iter()
            .for_each(wake);
    }
}

/// Wake who waits there, if somebody does.
pub(super) fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}

/// Keep who is to be woken.
pub(super) fn await_with(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(there) if there.will_wake(waker) => {}
        _ => *place = Some(waker.clone()),
    }
}

/// Streams by their place, which their handles know, and by their number, which frames say.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Vec<Option<Stream>>,
    free: Vec<usize>,
    /// Those on which somebody still may send, by number: clients count up.
    open: VecDeque<(u32, usize)>,
    past: VecDeque<(u32, Past)>,
}

impl Streams {
    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Nobody holds any.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    pub(super) fn add(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        if let Some(there) = self.places.get_mut(place) {
            *there = Some(stream);
        }
        self.open.push_back((id, place));
        place
    }

    pub(super) fn get(&mut self, place: usize) -> Option<&mut Stream> {
        self.places.get_mut(place)?.as_mut()
    }

    /// Where the open stream of this number is.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        let at = self.open.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.open.get(at).map(|(_, place)| *place)
    }

    /// Nobody sends on it any more; `past`: how that came.
    pub(super) fn close(&mut self, id: u32, past: Past) {
        if let Ok(at) = self.open.binary_search_by_key(&id, |(id, _)| *id) {
            self.open.remove(at);
            self.remember(id, past);
        }
    }

    /// It is over, if it ever was.
    pub(super) fn remember(&mut self, id: u32, past: Past) {
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back((id, past));
    }

    /// Are there more that ended than are remembered?
    pub(super) fn forgets(&self) -> bool {
        self.past.len() == REMEMBERED
    }

    /// How a stream of this number ended that is not open, if that is remembered.
    pub(super) fn past(&self, id: u32) -> Option<Past> {
        let found = self.past.iter().rev().find(|(past, _)| *past == id);
        found.map(|(_, past)| *past)
    }

    /// Its handle is gone, and it is closed.
    pub(super) fn remove(&mut self, place: usize) {
        if let Some(there) = self.places.get_mut(place)
            && there.take().is_some()
        {
            self.free.push(place);
        }
        // What stays is for what one client has at a time.
        if self.free.len() == self.places.len() && self.places.len() > 8 {
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().flatten()
    }
}
