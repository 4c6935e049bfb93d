//! What those do with a connection who serve its streams.

use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use l7::{Fields, Known};

use super::{
    connection::{Connection, SEND_BUFFER},
    frame::{self, Code, END_HEADERS, END_STREAM, HEAD, LONGEST, kind, put},
    streams::{Answer, Gone, Past, await_with},
};
use crate::{hpack, http1::Piece};

/// Names that say something about a connection of HTTP/1.1 (RFC 9113 §8.2.2).
const OF_CONNECTIONS: &[Known] = &[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
];

impl Connection {
    /// The next piece of its body.
    pub(crate) fn poll_piece(
        &mut self,
        place: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Piece, Gone>> {
        let Some(stream) = self.streams.get(place) else {
            return Poll::Ready(Err(Gone::Connection));
        };
        if let Some(gone) = stream.gone {
            return Poll::Ready(Err(gone));
        }
        if !stream.body.is_empty() {
            let piece = std::mem::take(&mut stream.body).freeze();
            self.taken_of(place, piece.len());
            return Poll::Ready(Ok(Piece::Data(piece)));
        }
        if stream.ended {
            return Poll::Ready(Ok(Piece::End(stream.trailers.take())));
        }
        await_with(&mut stream.for_body, cx.waker());
        Poll::Pending
    }

    /// Ready when the stream is over before its time.
    pub(crate) fn poll_gone(&mut self, place: usize, cx: &Context<'_>) -> Poll<Gone> {
        let Some(stream) = self.streams.get(place) else {
            return Poll::Ready(Gone::Connection);
        };
        if let Some(gone) = stream.gone {
            return Poll::Ready(gone);
        }
        await_with(&mut stream.for_end, cx.waker());
        Poll::Pending
    }

    /// An answer's head, an informational one's or a whole one's if it `ends`.
    pub(crate) fn head(
        &mut self,
        place: usize,
        status: StatusCode,
        fields: &Fields,
        ends: bool,
    ) -> Result<(), Gone> {
        let stream = self.streams.get(place).ok_or(Gone::Connection)?;
        if let Some(gone) = stream.gone {
            return Err(gone);
        }
        if stream.answer != Answer::Awaited {
            // A hint behind the answer.
            return Err(Gone::Ours(Code::InternalError));
        }
        if !status.is_informational() {
            stream.answer = if ends { Answer::Ended } else { Answer::Begun };
        }
        let id = stream.id;
        self.answer(id, status, fields, if ends { END_STREAM } else { 0 });
        self.settle(place);
        Ok(())
    }

    pub(super) fn answer(&mut self, id: u32, status: StatusCode, fields: &Fields, flags: u8) {
        let start = self.begin_block();
        hpack::status(&mut self.out, status);
        for (name, value) in fields.iter_but(OF_CONNECTIONS) {
            hpack::field(&mut self.out, name, value);
        }
        self.end_block(start, id, flags);
    }

    /// Where a block begins; its head is put there when its length is known.
    fn begin_block(&mut self) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEAD]);
        if !self.table_said {
            self.table_said = true;
            hpack::table_size_zero(&mut self.out);
        }
        start
    }

    fn end_block(&mut self, start: usize, id: u32, flags: u8) {
        let length = self.out.len() - start - HEAD;
        if length <= LONGEST {
            let head = frame::head(length, kind::HEADERS, flags | END_HEADERS, id);
            if let Some(place) = self.out.get_mut(start..start + HEAD) {
                place.copy_from_slice(&head);
            }
            return;
        }
        // As long as it is rare: in as many frames as it takes (RFC 9113 §6.10).
        let block = self.out.split_off(start);
        let block = block.get(HEAD..).unwrap_or_default();
        let mut pieces = block.chunks(LONGEST).peekable();
        let (mut sort, mut first) = (kind::HEADERS, flags);
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            put(&mut self.out, piece.len(), sort, first | last, id);
            self.out.extend_from_slice(piece);
            (sort, first) = (kind::CONTINUATION, 0);
        }
    }

    /// Send as much of `pending` as there is room for, and then the end, if it is known. Ready when
    /// nothing is left.
    pub(crate) fn poll_send(
        &mut self,
        place: usize,
        pending: &mut Bytes,
        end: &mut Option<Option<HeaderMap>>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        let Some(stream) = self.streams.get(place) else {
            return Poll::Ready(Err(Gone::Connection));
        };
        if let Some(gone) = stream.gone {
            return Poll::Ready(Err(gone));
        }
        let id = stream.id;
        while !pending.is_empty() {
            let room = stream.send.min(self.send);
            let room = usize::try_from(room).unwrap_or(0).min(LONGEST);
            // One frame in a round while others wait. What it has put there is written, and with
            // that the next round begins.
            let others = self.contended || !self.queue.is_empty();
            let waits = others && stream.round == self.round;
            if room == 0 || waits || self.out.len() - self.sent >= SEND_BUFFER {
                await_with(&mut stream.for_room, cx.waker());
                if stream.send > 0 && !std::mem::replace(&mut stream.queued, true) {
                    self.queue.push_back(place);
                }
                return Poll::Pending;
            }
            let count = pending.len().min(room);
            let last = count == pending.len() && matches!(end, Some(None));
            let flags = if last { END_STREAM } else { 0 };
            put(&mut self.out, count, kind::DATA, flags, id);
            self.out
                .extend_from_slice(pending.get(..count).unwrap_or_default());
            pending.advance(count);
            let octets = i64::try_from(count).unwrap_or(i64::MAX);
            stream.send -= octets;
            self.send -= octets;
            stream.round = self.round;
            if last {
                *end = None;
                stream.answer = Answer::Ended;
            }
        }
        let Some(trailers) = end.take() else {
            self.settle(place);
            return Poll::Ready(Ok(()));
        };
        stream.answer = Answer::Ended;
        match trailers {
            None => put(&mut self.out, 0, kind::DATA, END_STREAM, id),
            Some(trailers) => {
                let start = self.begin_block();
                for (name, value) in &trailers {
                    hpack::field(&mut self.out, name.as_str().as_bytes(), value.as_bytes());
                }
                self.end_block(start, id, END_STREAM);
            }
        }
        self.settle(place);
        Poll::Ready(Ok(()))
    }

    /// Give the stream up.
    pub(crate) fn reset(&mut self, place: usize, code: Code) {
        let Some(stream) = self.streams.get(place) else {
            return;
        };
        if stream.is_closed() {
            return;
        }
        let id = stream.id;
        self.say_reset(id, code);
        self.lose(place, id, Past::Ours, Gone::Ours(code));
    }

    /// Nobody serves the stream any more. What the client still wants to say is not wanted
    /// (RFC 9113 §8.1).
    pub(crate) fn release(&mut self, place: usize) {
        let Some(stream) = self.streams.get(place) else {
            return;
        };
        let code = match stream.answer {
            Answer::Ended => Code::NoError,
            Answer::Awaited | Answer::Begun => Code::Cancel,
        };
        self.reset(place, code);
        if let Some(stream) = self.streams.get(place) {
            // What came of its body and nobody took.
            let rest = std::mem::take(&mut stream.body).len();
            self.taken(rest);
        }
        self.streams.remove(place);
    }
}
