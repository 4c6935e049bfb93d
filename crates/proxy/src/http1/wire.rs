//! A stream with a read and a write buffer.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{BodyDecoder, BodyError, Piece};
use crate::io::Io;

/// Above this many unsent bytes no more are taken.
const HIGH_WATER: usize = 64 << 10;
const SMALLEST_READ: usize = 8 << 10;
const LARGEST_READ: usize = 128 << 10;

/// A buffered stream. Holds at most a read of 128 KiB and 64 KiB plus one piece to write.
#[derive(Debug)]
pub(crate) struct Wire {
    io: Io,
    pub(crate) input: BytesMut,
    pub(crate) output: BytesMut,
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
            seen: 0,
            read_size: SMALLEST_READ,
            flushed: true,
        }
    }

    /// Read more; false at the end of the stream. Reads grow while they come back full.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.reserve(self.read_size);
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

    /// Ready when everything is sent.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            self.flushed = false;
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(count);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when there is room for another piece.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.len() < HIGH_WATER {
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

    /// For a connection at rest: ready when it is of no more use (closed, broken, or sending
    /// what nobody asked for).
    pub(crate) fn poll_unusable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() {
            return Poll::Ready(());
        }
        // At rest nothing is kept in memory but a small read.
        self.read_size = SMALLEST_READ;
        self.poll_fill(cx).map(|_| ())
    }

    /// Say goodbye in order: what was sent arrives even if the peer still sends.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
