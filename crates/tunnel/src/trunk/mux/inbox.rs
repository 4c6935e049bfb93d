//! What waits to be read.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tokio::io::ReadBuf;

/// A payload of so much is not copied; smaller ones are copied together, up to so much.
const LARGE: usize = 8 << 10;
const SMALL: usize = 16 << 10;

/// What has come for a stream and was not read: small payloads copied together, large ones as they
/// are.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<BytesMut>,
    length: usize,
}

impl Inbox {
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn take(&mut self, count: usize, octets: &mut BytesMut) {
        self.length += count;
        if count >= LARGE {
            self.pieces.push_back(octets.split_to(count));
            return;
        }
        let payload = octets.get(..count).unwrap_or_default();
        match self.pieces.back_mut() {
            Some(last) if last.len() + count <= SMALL => last.extend_from_slice(payload),
            Some(_) | None => self.pieces.push_back(BytesMut::from(payload)),
        }
        octets.advance(count);
    }

    /// Fills `buf` as far as there is something, with at most so much; how much that was.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let mut left = most.min(buf.remaining());
        let room = left;
        while let Some(first) = self.pieces.front_mut()
            && left > 0
        {
            let count = first.len().min(left);
            buf.put_slice(first.get(..count).unwrap_or_default());
            first.advance(count);
            if first.is_empty() {
                self.pieces.pop_front();
            }
            left -= count;
        }
        let count = room - left;
        self.length -= count;
        count
    }
}
