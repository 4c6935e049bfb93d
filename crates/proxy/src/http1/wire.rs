//! A stream with a read and a write buffer.

use std::{
    future::Future,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{BodyDecoder, BodyError, Piece};
use crate::io::Io;

/// Above this many unsent bytes no more are taken.
const HIGH_WATER: usize = 64 << 10;
/// Pieces this long are not copied.
const LONG: usize = 8 << 10;
const SMALLEST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 256 << 10;

/// A buffered stream. Holds at most a read of 256 KiB and 64 KiB plus one piece to write.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
    /// A long piece that goes out behind `output`, without being copied.
    tail: Bytes,
    /// Searched part of a head in `input`.
    pub(crate) seen: usize,
    read_size: usize,
    flushed: bool,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the body is malformed")]
    Body(#[source] BodyError),
}

impl Wire {
    pub(crate) fn new(io: Io) -> Self {
        Wire {
            io,
            input: BytesMut::new(),
            output: BytesMut::new(),
            tail: Bytes::new(),
            seen: 0,
            read_size: SMALLEST_READ,
            flushed: true,
        }
    }

    /// A stream of which some octets were read already.
    pub(crate) fn begun(io: Io, early: BytesMut) -> Self {
        Wire {
            input: early,
            ..Wire::new(io)
        }
    }

    /// Have the peer see that this is no orderly end, when the stream is dropped.
    pub(crate) fn abort(&self) {
        self.io.abort();
    }

    /// The socket itself, if its octets are ours as they come.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match &self.io {
            Io::Tcp(socket) => Some(socket),
            Io::Tls(_) | Io::Other(_) => None,
        }
    }

    /// The stream, and what was read of it.
    pub(crate) fn into_parts(self) -> (Io, BytesMut) {
        (self.io, self.input)
    }

    /// Read more; false at the end of the stream. Reads grow while they come back full.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.read_size == SMALLEST_READ {
            return self.poll_fill_small(cx);
        }
        if !self.input.try_reclaim(self.read_size) {
            if self.input.is_empty() {
                // To grow would copy what was there before.
                self.input = BytesMut::with_capacity(self.read_size);
            } else {
                self.input.reserve(self.read_size);
            }
        }
        let room = self.input.capacity() - self.input.len();
        // `read_buf` keeps no state between polls.
        let read = pin!(self.io.read_buf(&mut self.input));
        let count = ready!(read.poll(cx))?;
        if count >= room.min(self.read_size) {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        } else if count < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(SMALLEST_READ);
        }
        Poll::Ready(Ok(count > 0))
    }

    /// The same for what is mostly a head, or nothing for a long time: a connection that waits
    /// holds no memory for what may come.
    fn poll_fill_small(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); SMALLEST_READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if read.remaining() == 0 {
            self.read_size *= 2;
        }
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(!read.filled().is_empty()))
    }

    /// Ready when everything is sent.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_sent() {
            self.flushed = false;
            let io = Pin::new(&mut self.io);
            let written = match (self.output.is_empty(), self.tail.is_empty()) {
                (true, _) => io.poll_write(cx, &self.tail),
                (false, true) => io.poll_write(cx, &self.output),
                (false, false) => {
                    let both = [IoSlice::new(&self.output), IoSlice::new(&self.tail)];
                    io.poll_write_vectored(cx, &both)
                }
            };
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let first = count.min(self.output.len());
            self.output.advance(first);
            self.tail.advance(count - first);
        }
        if self.tail.is_empty() {
            // Its memory is wanted for the next read.
            self.tail = Bytes::new();
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Is nothing left to send?
    pub(crate) fn is_sent(&self) -> bool {
        self.output.is_empty() && self.tail.is_empty()
    }

    /// A piece of a body as it is; there has to be room ([`Wire::poll_room`]).
    pub(crate) fn piece(&mut self, piece: Bytes) {
        // There was no room: the order counts more than a copy.
        let before = std::mem::take(&mut self.tail);
        self.output.extend_from_slice(&before);
        if piece.len() < LONG {
            self.output.extend_from_slice(&piece);
        } else {
            self.tail = piece;
        }
    }

    /// Ready when there is room for another piece, or for what follows the last one.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.len() < HIGH_WATER && self.tail.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut BodyDecoder,
    ) -> Poll<Result<Piece, ReadError>> {
        loop {
            match decoder.decode(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(ReadError::Body(error))),
            }
            if !ready!(self.poll_fill(cx)).map_err(ReadError::Io)? {
                return Poll::Ready(decoder.eof().map_err(ReadError::Body));
            }
        }
    }

    /// Nothing runs: hold no more memory than the next head is likely to need.
    pub(crate) fn rest(&mut self) {
        self.read_size = SMALLEST_READ;
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && buffer.capacity() > SMALLEST_READ {
                *buffer = BytesMut::new();
            }
        }
    }

    /// For a connection at rest: ready when it is of no more use (closed, broken, sending what
    /// nobody asked for, or on a link that others are much better than).
    pub(crate) fn poll_unusable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What takes nothing more is of no use either, though nothing came.
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        let broken = matches!(flushed, Poll::Ready(Err(_)));
        if !self.input.is_empty() || broken || self.io.is_stale() {
            return Poll::Ready(());
        }
        self.poll_fill(cx).map(|_| ())
    }

    /// Say goodbye in order: what was sent arrives even if the peer still sends.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
