//! The machine of a connection.

use std::collections::VecDeque;

use base::Instant;
use bytes::BytesMut;
use http::StatusCode;
use l7::{Fields, Limits};

use super::{
    frame::{
        ACK, Code, END_HEADERS, END_STREAM, Head, LONGEST, MOST, PREFACE, PRIORITY, kind, put,
        put_words, setting, unpadded, word,
    },
    streams::{Answer, Gone, Past, Stream, Streams, wake},
    thrift::Thrift,
};
use crate::{
    hpack::Decoder,
    message::{self, Draft, Refusal, Trailers},
};

/// Receive windows: one stream, and all streams of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// A window before anybody has said another (RFC 9113 §6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// Octets that wait to be written before streams have to.
pub(super) const SEND_BUFFER: usize = 64 << 10;
/// Resets by the peer of requests that nobody has begun with (CVE-2023-44487); one more ends the
/// connection.
const PENDING_RESETS: u32 = 20;
/// What a stream costs that is refused for the client's fault (CVE-2025-8671); see [`Thrift`].
const FAULT: u32 = 7;
/// So many octets of fields that are decoded for nothing cost one.
const VAIN: usize = 1024;
/// What is in the PING whose answer says that the client has seen our GOAWAY.
const FAREWELL: [u8; 8] = *b"sealane!";

/// A request that came.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The place of its stream.
    pub(crate) place: usize,
    pub(crate) head: message::Head,
    /// It has no body.
    pub(crate) is_whole: bool,
}

/// A header block that is not whole yet.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends_stream: bool,
    depends_on_itself: bool,
    octets: Vec<u8>,
}

/// How far the connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// GOAWAY was said for whatever comes next, and a PING behind it.
    Asked,
    /// GOAWAY was said for what came.
    Told,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    limits: Limits,
    /// Octets of the preface that came.
    preface: usize,
    /// The beginning of a frame.
    rest: Vec<u8>,
    begun: bool,
    decoder: Decoder,
    block: Option<Block>,
    pub(super) streams: Streams,
    /// The highest number of a stream that the client has opened.
    last: u32,
    opened: VecDeque<Opened>,
    thrift: Thrift,
    pending_resets: u32,
    /// What the client's faults in the frame under way cost.
    fines: u32,
    /// Octets that the client may still send, and those taken since it was told.
    receive: i64,
    taken: u32,
    /// Octets that may be sent, on all streams together and on a new one.
    pub(super) send: i64,
    first_send: i64,
    /// Places of streams that wait for the connection's window or for room, and whether those that
    /// were woken last are more than one. In a round each of them may send a frame.
    pub(super) queue: VecDeque<usize>,
    pub(super) contended: bool,
    pub(super) round: u32,
    /// The next block has to say the size of our table.
    pub(super) table_said: bool,
    pub(super) out: Vec<u8>,
    /// Octets of it that are written.
    pub(super) sent: usize,
    leaving: Leaving,
    /// The last stream that is served, as it was said.
    told: Option<u32>,
    client_leaves: bool,
    ended: Option<Code>,
}

impl Connection {
    /// A connection of which nothing came; our preface is to go out.
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        let mut out = Vec::with_capacity(256);
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limits.concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (
                setting::MAX_HEADER_LIST_SIZE,
                u32::try_from(limits.header_bytes).unwrap_or(u32::MAX),
            ),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ];
        put(&mut out, 6 * settings.len(), kind::SETTINGS, 0, 0);
        for (id, value) in settings {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        let more = CONNECTION_WINDOW - FIRST_WINDOW;
        put_words(&mut out, kind::WINDOW_UPDATE, 0, &[more]);
        Connection {
            limits: *limits,
            preface: 0,
            rest: Vec::new(),
            begun: false,
            decoder: Decoder::new(),
            block: None,
            streams: Streams::default(),
            last: 0,
            opened: VecDeque::new(),
            thrift: Thrift::new(now),
            pending_resets: 0,
            fines: 0,
            receive: i64::from(CONNECTION_WINDOW),
            taken: 0,
            send: i64::from(FIRST_WINDOW),
            first_send: i64::from(FIRST_WINDOW),
            queue: VecDeque::new(),
            contended: false,
            round: 0,
            table_said: false,
            out,
            sent: 0,
            leaving: Leaving::No,
            told: None,
            client_leaves: false,
            ended: None,
        }
    }

    /// The client's preface and settings are here.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// The connection is over: with which code.
    pub(crate) const fn ended(&self) -> Option<Code> {
        self.ended
    }

    /// No stream has anybody who serves it.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.streams.is_empty() && self.opened.is_empty()
    }

    /// Nothing more comes that would be served: both sides know it.
    pub(crate) fn is_leaving(&self) -> bool {
        self.client_leaves || self.leaving == Leaving::Told
    }

    /// Octets that are to be written.
    pub(crate) fn out(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Octets that are kept for what is to be written.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.out.capacity()
    }

    /// So much waits to be written that nothing more is to be read.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() - self.sent >= SEND_BUFFER
    }

    /// So many octets were written, or there was nothing to write: who waits for room is woken.
    pub(crate) fn written(&mut self, octets: usize) {
        self.sent += octets;
        self.thrift.sent(octets);
        if self.sent >= self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.streams.is_empty() {
                // What is at rest holds nothing.
                self.out = Vec::new();
            }
        } else if self.sent >= SEND_BUFFER {
            // Who takes less than there is would have all that ever was sent kept otherwise.
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        self.wake_queue();
    }

    /// The next request.
    pub(crate) fn next(&mut self) -> Option<Opened> {
        let opened = self.opened.pop_front();
        if opened.is_none() {
            self.pending_resets = 0;
        }
        opened
    }

    /// Take what came. False: that is no HTTP/2 at all.
    pub(crate) fn receive(&mut self, mut came: &[u8], now: impl Fn() -> Instant) -> bool {
        let missing = PREFACE.get(self.preface..).unwrap_or_default();
        if !missing.is_empty() {
            let count = came.len().min(missing.len());
            if came.get(..count) != missing.get(..count) {
                return false;
            }
            self.preface += count;
            came = came.get(count..).unwrap_or_default();
        }
        // Mostly all frames are whole.
        if self.rest.is_empty() {
            let used = self.frames(came, &now);
            self.rest = came.get(used..).unwrap_or_default().to_vec();
            return true;
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(came);
        let used = self.frames(&rest, &now);
        if used < rest.len() {
            rest.drain(..used);
            self.rest = rest;
        }
        true
    }

    /// Take every whole frame; how many octets these are.
    fn frames(&mut self, octets: &[u8], now: &impl Fn() -> Instant) -> usize {
        let mut rest = octets;
        while self.ended.is_none()
            && let Some((head, more)) = rest.split_first_chunk()
        {
            let head = Head::of(*head);
            if let Err(code) = self.expected(head) {
                self.fail(code);
                break;
            }
            let Some((payload, more)) = more.split_at_checked(head.length) else {
                break;
            };
            if let Err(code) = self.frame(head, payload, now) {
                self.fail(code);
            }
            rest = more;
        }
        octets.len() - rest.len()
    }

    /// May a frame with this head come now? It is asked again for a frame that comes in pieces.
    fn expected(&self, head: Head) -> Result<(), Code> {
        // RFC 9113 §3.4: the preface ends with SETTINGS.
        if !self.begun && (head.kind != kind::SETTINGS || head.has(ACK)) {
            return Err(Code::ProtocolError);
        }
        // RFC 9113 §6.10: nothing comes between the pieces of a block.
        let within = self.block.as_ref().map(|block| block.stream);
        let goes_on = head.kind == kind::CONTINUATION;
        if within.is_some() != goes_on || within.is_some_and(|stream| stream != head.stream) {
            return Err(Code::ProtocolError);
        }
        head.sized()
    }

    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        now: &impl Fn() -> Instant,
    ) -> Result<(), Code> {
        self.begun = true;
        self.thrift.charge(head, now)?;
        let of_stream = match head.kind {
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION => {
                true
            }
            kind::SETTINGS | kind::PING | kind::GOAWAY => false,
            // Either.
            kind::WINDOW_UPDATE => head.stream != 0,
            // A client pushes nothing (RFC 9113 §8.4).
            kind::PUSH_PROMISE => return Err(Code::ProtocolError),
            // RFC 9113 §5.5.
            _ => return Ok(()),
        };
        if of_stream != (head.stream != 0) {
            return Err(Code::ProtocolError);
        }
        self.take(head, payload, now)?;
        match std::mem::take(&mut self.fines) {
            0 => Ok(()),
            fines => self.thrift.pay(fines, now),
        }
    }

    fn take(&mut self, head: Head, payload: &[u8], now: &impl Fn() -> Instant) -> Result<(), Code> {
        match head.kind {
            kind::DATA => self.data(head, payload, now),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload),
            kind::RST_STREAM => self.rst_stream(head.stream, word(payload)),
            kind::SETTINGS if head.has(ACK) => Ok(()),
            kind::SETTINGS => self.settings(payload),
            kind::PING => {
                self.ping(head, payload);
                Ok(())
            }
            kind::GOAWAY => {
                self.client_leaves = true;
                Ok(())
            }
            _ => self.window_update(head.stream, word(payload) & MOST),
        }
    }

    /// RFC 9113 §5.1: a stream that the client has not opened yet, or that it cannot open.
    fn is_idle(&self, stream: u32) -> bool {
        stream > self.last || stream.is_multiple_of(2)
    }

    fn data(&mut self, head: Head, payload: &[u8], now: &impl Fn() -> Instant) -> Result<(), Code> {
        if self.is_idle(head.stream) {
            return Err(Code::ProtocolError);
        }
        let piece = unpadded(head, payload)?;
        let ends = head.has(END_STREAM);
        if piece.is_empty() && !ends {
            self.thrift.pay(1, now)?;
        }
        // RFC 9113 §6.9: padding counts, and what nobody will read too.
        let octets = i64::try_from(payload.len()).unwrap_or(i64::MAX);
        self.receive -= octets;
        if self.receive < 0 {
            return Err(Code::FlowControlError);
        }
        let Some(place) = self.streams.find(head.stream) else {
            self.taken(payload.len());
            match self.streams.past(head.stream) {
                Some(Past::Ended) => return Err(Code::StreamClosed),
                Some(Past::Ours) => {}
                Some(Past::Reset) | None => self.refuse(head.stream, Code::StreamClosed),
            }
            return Ok(());
        };
        let Some(stream) = self.streams.get(place) else {
            return Ok(());
        };
        stream.receive -= octets;
        let left = stream.left.map(|left| left.checked_sub(piece.len() as u64));
        let code = if stream.ended {
            Some(Code::StreamClosed)
        } else if stream.receive < 0 {
            Some(Code::FlowControlError)
        } else if left == Some(None) || (ends && left.flatten().is_some_and(|left| left > 0)) {
            // RFC 9113 §8.1.1: longer or shorter than it says.
            Some(Code::ProtocolError)
        } else {
            None
        };
        if let Some(code) = code {
            self.taken(payload.len());
            self.refuse(head.stream, code);
            return Ok(());
        }
        stream.left = left.flatten();
        stream.body.extend_from_slice(piece);
        stream.ended = ends;
        wake(&mut stream.for_body);
        let padding = payload.len() - piece.len();
        if padding > 0 {
            self.taken_of(place, padding);
        }
        self.settle(place);
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        if head.stream.is_multiple_of(2) {
            return Err(Code::ProtocolError);
        }
        let mut fragment = unpadded(head, payload)?;
        let mut depends_on_itself = false;
        if head.has(PRIORITY) {
            let (depends, rest) = fragment.split_at_checked(5).ok_or(Code::ProtocolError)?;
            depends_on_itself = word(depends) & MOST == head.stream;
            fragment = rest;
        }
        let mut block = Block {
            stream: head.stream,
            ends_stream: head.has(END_STREAM),
            depends_on_itself,
            octets: Vec::new(),
        };
        if head.has(END_HEADERS) {
            return self.block(&block, fragment);
        }
        block.octets.extend_from_slice(fragment);
        self.block = Some(block);
        Ok(())
    }

    fn continuation(&mut self, head: Head, fragment: &[u8]) -> Result<(), Code> {
        let Some(mut block) = self.block.take() else {
            return Err(Code::ProtocolError);
        };
        block.octets.extend_from_slice(fragment);
        if head.has(END_HEADERS) {
            let octets = std::mem::take(&mut block.octets);
            return self.block(&block, &octets);
        }
        // What is still not whole with half as much again as is allowed in plain words.
        if block.octets.len() > self.limits.header_bytes.max(LONGEST) * 3 / 2 {
            return Err(Code::EnhanceYourCalm);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole header block: of a new stream, of trailers, or of nobody; it is decoded in any case,
    /// since the next ones build on it.
    fn block(&mut self, block: &Block, octets: &[u8]) -> Result<(), Code> {
        let id = block.stream;
        if id > self.last {
            return self.open(block, octets);
        }
        let mut trailers = Trailers::new(&self.limits);
        let decoded = self
            .decoder
            .decode(octets, |name, value| trailers.take(name, value));
        decoded.map_err(|_| Code::CompressionError)?;
        let Some(place) = self.streams.find(id) else {
            match self.streams.past(id) {
                Some(Past::Ended) => return Err(Code::StreamClosed),
                Some(Past::Ours) => {}
                Some(Past::Reset) => self.refuse(id, Code::StreamClosed),
                None if self.streams.forgets() => self.refuse(id, Code::StreamClosed),
                // RFC 9113 §5.1.1: numbers count up.
                None => return Err(Code::ProtocolError),
            }
            return Ok(());
        };
        let Some(stream) = self.streams.get(place) else {
            return Ok(());
        };
        if stream.ended {
            self.refuse(id, Code::StreamClosed);
            return Ok(());
        }
        let whole = block.ends_stream && stream.left.unwrap_or(0) == 0;
        let trailers = match trailers.finish() {
            Ok(trailers) if whole && !block.depends_on_itself => trailers,
            _ => {
                self.refuse(id, Code::ProtocolError);
                return Ok(());
            }
        };
        stream.trailers = trailers;
        stream.ended = true;
        wake(&mut stream.for_body);
        self.settle(place);
        Ok(())
    }

    fn open(&mut self, block: &Block, octets: &[u8]) -> Result<(), Code> {
        let id = block.stream;
        let mut draft = Draft::new(&self.limits);
        let decoded = self
            .decoder
            .decode(octets, |name, value| draft.take(name, value));
        decoded.map_err(|_| Code::CompressionError)?;
        self.last = id;
        self.fine(u32::try_from(draft.in_vain() / VAIN).unwrap_or(u32::MAX));
        let most = usize::try_from(self.limits.concurrent_streams).unwrap_or(usize::MAX);
        if self.leaving == Leaving::Told || self.streams.open() >= most {
            // Nothing was done, and it may be asked for again (RFC 9113 §8.7).
            self.streams.remember(id, Past::Ours);
            self.say_reset(id, Code::RefusedStream);
            return Ok(());
        }
        let checked = match draft.finish(block.ends_stream) {
            _ if block.depends_on_itself => Err(Refusal::Malformed),
            checked => checked,
        };
        let head = match checked {
            Ok(head) => head,
            Err(Refusal::Malformed) => {
                self.streams.remember(id, Past::Ours);
                self.refuse(id, Code::ProtocolError);
                return Ok(());
            }
            Err(Refusal::Status(status)) => {
                self.dismiss(id, status, block.ends_stream);
                return Ok(());
            }
        };
        let place = self.streams.add(Stream {
            id,
            body: BytesMut::new(),
            trailers: None,
            ended: block.ends_stream,
            left: head.length,
            receive: i64::from(STREAM_WINDOW),
            taken: 0,
            send: self.first_send,
            answer: Answer::Awaited,
            gone: None,
            for_body: None,
            for_end: None,
            for_room: None,
            queued: false,
            round: self.round.wrapping_sub(1),
        });
        self.opened.push_back(Opened {
            place,
            head,
            is_whole: block.ends_stream,
        });
        Ok(())
    }

    /// Answer a request that nobody serves, and want no more of it.
    fn dismiss(&mut self, id: u32, status: StatusCode, is_whole: bool) {
        self.answer(id, status, &Fields::default(), END_STREAM);
        if !is_whole {
            self.say_reset(id, Code::NoError);
        }
        self.streams.remember(id, Past::Ours);
        self.fine(FAULT);
    }

    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Code> {
        // RFC 7540 §5.3.1; there are no priorities any more (RFC 9113 §5.3.2).
        if word(payload) & MOST != head.stream {
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Code::ProtocolError);
        }
        self.refuse(head.stream, Code::ProtocolError);
        Ok(())
    }

    fn rst_stream(&mut self, id: u32, code: u32) -> Result<(), Code> {
        if self.is_idle(id) {
            return Err(Code::ProtocolError);
        }
        let Some(place) = self.streams.find(id) else {
            return Ok(());
        };
        let begun = self.lose(place, id, Past::Reset, Gone::Reset(code));
        if !begun {
            self.pending_resets += 1;
            if self.pending_resets > PENDING_RESETS {
                return Err(Code::EnhanceYourCalm);
            }
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), Code> {
        for entry in payload.chunks_exact(6) {
            let [a, b, value @ ..] = entry else { continue };
            let value = word(value);
            match u16::from_be_bytes([*a, *b]) {
                setting::HEADER_TABLE_SIZE => self.table_said = false,
                setting::ENABLE_PUSH | setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err(Code::ProtocolError);
                }
                setting::INITIAL_WINDOW_SIZE => self.first_window(value)?,
                setting::MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Code::ProtocolError);
                }
                _ => {}
            }
        }
        put(&mut self.out, 0, kind::SETTINGS, ACK, 0);
        Ok(())
    }

    /// RFC 9113 §6.9.2: what a new stream may be sent; the others may be sent more or less by the
    /// difference.
    fn first_window(&mut self, value: u32) -> Result<(), Code> {
        if value > MOST {
            return Err(Code::FlowControlError);
        }
        let more = i64::from(value) - self.first_send;
        self.first_send = i64::from(value);
        for stream in self.streams.iter_mut().filter(|stream| !stream.is_closed()) {
            stream.send += more;
            if stream.send > i64::from(MOST) {
                return Err(Code::FlowControlError);
            }
            if stream.send > 0 {
                wake(&mut stream.for_room);
            }
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) {
        if !head.has(ACK) {
            put(&mut self.out, payload.len(), kind::PING, ACK, 0);
            self.out.extend_from_slice(payload);
        } else if self.leaving == Leaving::Asked && payload == FAREWELL {
            self.tell();
        }
    }

    fn window_update(&mut self, id: u32, more: u32) -> Result<(), Code> {
        if id == 0 {
            self.send += i64::from(more);
            if more == 0 {
                return Err(Code::ProtocolError);
            }
            if self.send > i64::from(MOST) {
                return Err(Code::FlowControlError);
            }
            self.wake_queue();
            return Ok(());
        }
        if self.is_idle(id) {
            return Err(Code::ProtocolError);
        }
        let place = self.streams.find(id);
        let Some(stream) = place.and_then(|place| self.streams.get(place)) else {
            return Ok(());
        };
        stream.send += i64::from(more);
        if more == 0 {
            self.refuse(id, Code::ProtocolError);
        } else if stream.send > i64::from(MOST) {
            self.refuse(id, Code::FlowControlError);
        } else if stream.send > 0 {
            wake(&mut stream.for_room);
        }
        Ok(())
    }

    /// Reset a stream for what the client did.
    fn refuse(&mut self, id: u32, code: Code) {
        self.say_reset(id, code);
        if let Some(place) = self.streams.find(id) {
            self.lose(place, id, Past::Ours, Gone::Ours(code));
        }
        self.fine(FAULT);
    }

    fn fine(&mut self, cost: u32) {
        self.fines = self.fines.saturating_add(cost);
    }

    pub(super) fn say_reset(&mut self, id: u32, code: Code) {
        put_words(&mut self.out, kind::RST_STREAM, id, &[code as u32]);
    }

    /// An open stream is over before its time: whoever serves it is told, and what came of it is
    /// thrown away. False if nobody had begun with it.
    pub(super) fn lose(&mut self, place: usize, id: u32, past: Past, gone: Gone) -> bool {
        self.streams.close(id, past);
        let Some(stream) = self.streams.get(place) else {
            return true;
        };
        stream.gone = Some(gone);
        let rest = std::mem::take(&mut stream.body).len();
        stream.wake();
        if std::mem::take(&mut stream.queued) {
            self.queue.retain(|other| *other != place);
        }
        self.taken(rest);
        let before = self.opened.len();
        self.opened.retain(|opened| opened.place != place);
        let begun = self.opened.len() == before;
        if !begun {
            self.streams.remove(place);
        }
        begun
    }

    /// Close a stream that both sides have ended.
    pub(super) fn settle(&mut self, place: usize) {
        if let Some(stream) = self.streams.get(place)
            && stream.gone.is_none()
            && stream.is_closed()
        {
            let id = stream.id;
            self.streams.close(id, Past::Ended);
        }
    }

    /// The client may send so much more on the connection. It is told when half is taken.
    pub(super) fn taken(&mut self, octets: usize) {
        self.taken += u32::try_from(octets).unwrap_or(u32::MAX);
        // Or when what is left is no more: streams that nobody reads may have the rest.
        if self.taken >= CONNECTION_WINDOW / 2 || i64::from(self.taken) >= self.receive {
            let taken = std::mem::take(&mut self.taken);
            self.receive += i64::from(taken);
            put_words(&mut self.out, kind::WINDOW_UPDATE, 0, &[taken]);
        }
    }

    /// The same for a stream and the connection.
    pub(super) fn taken_of(&mut self, place: usize, octets: usize) {
        self.taken(octets);
        let Some(stream) = self.streams.get(place) else {
            return;
        };
        stream.taken += u32::try_from(octets).unwrap_or(u32::MAX);
        if stream.taken >= STREAM_WINDOW / 2 && !stream.ended && stream.gone.is_none() {
            let taken = std::mem::take(&mut stream.taken);
            stream.receive += i64::from(taken);
            let id = stream.id;
            put_words(&mut self.out, kind::WINDOW_UPDATE, id, &[taken]);
        }
    }

    /// End the connection for what the client did (RFC 9113 §5.4.1).
    fn fail(&mut self, code: Code) {
        // RFC 9113 §6.8: never more than was said.
        let last = self.told.unwrap_or(self.last);
        put_words(&mut self.out, kind::GOAWAY, 0, &[last, code as u32]);
        self.end(code);
    }

    /// The connection is over, by whatever.
    pub(crate) fn end(&mut self, code: Code) {
        self.ended.get_or_insert(code);
        // Nobody had begun with these.
        for opened in self.opened.drain(..) {
            self.streams.remove(opened.place);
        }
        for stream in self.streams.iter_mut() {
            stream.gone.get_or_insert(Gone::Connection);
            stream.wake();
        }
    }

    /// Ask the client to open no more streams: first for a while, since requests are on their way.
    pub(crate) fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Asked;
            let words = [MOST, Code::NoError as u32];
            put_words(&mut self.out, kind::GOAWAY, 0, &words);
            put(&mut self.out, FAREWELL.len(), kind::PING, 0, 0);
            self.out.extend_from_slice(&FAREWELL);
        }
    }

    /// What comes from now on is not served.
    pub(crate) fn tell(&mut self) {
        if self.leaving != Leaving::Told {
            self.leaving = Leaving::Told;
            self.told = Some(self.last);
            let words = [self.last, Code::NoError as u32];
            put_words(&mut self.out, kind::GOAWAY, 0, &words);
        }
    }

    /// A new round: as many of those that wait are woken as there is room for, a frame each. Who
    /// has sent in it stands behind the others again.
    fn wake_queue(&mut self) {
        let room = SEND_BUFFER.saturating_sub(self.out.len() - self.sent);
        let room = room.min(usize::try_from(self.send).unwrap_or(0));
        if room == 0 {
            return;
        }
        self.round = self.round.wrapping_add(1);
        let mut woken = 0;
        while woken < room.div_ceil(LONGEST)
            && let Some(place) = self.queue.pop_front()
        {
            if let Some(stream) = self.streams.get(place)
                && std::mem::take(&mut stream.queued)
                && let Some(waker) = stream.for_room.take()
            {
                waker.wake();
                woken += 1;
            }
        }
        self.contended = woken > 1;
    }
}
