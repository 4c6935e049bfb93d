//! Frames of a request stream (RFC 9114 §4.1, §7).

use bytes::{BufMut, Bytes, BytesMut};

use super::Code;

/// Frame types (RFC 9114 §7.2, §11.2.1).
pub(super) mod kind {
    pub(in crate::http3) const DATA: u64 = 0x0;
    pub(in crate::http3) const HEADERS: u64 = 0x1;
    pub(in crate::http3) const CANCEL_PUSH: u64 = 0x3;
    pub(in crate::http3) const SETTINGS: u64 = 0x4;
    pub(in crate::http3) const PUSH_PROMISE: u64 = 0x5;
    pub(in crate::http3) const GOAWAY: u64 = 0x7;
    pub(in crate::http3) const MAX_PUSH_ID: u64 = 0xd;
    /// Those of HTTP/2 that are none here.
    pub(in crate::http3) const RESERVED: [u64; 4] = [0x2, 0x6, 0x8, 0x9];
}

/// The longest head of a frame: two integers.
const HEAD: usize = 16;
/// Frames that say nothing which a stream may have between such that do.
const IDLE_FRAMES: u32 = 100;

/// A variable-length integer (RFC 9000 §16) that begins these octets, and its length; `None`: more
/// is needed.
pub(crate) fn varint(octets: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (octets.first()? >> 6);
    let octets = octets.get(..length)?;
    let value = octets.iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
    // The first two bits are the length.
    Some((value & (u64::MAX >> (66 - 8 * length)), length))
}

/// Append one, as short as can be.
pub(crate) fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..0x40 => out.put_uint(value, 1),
        0x40..0x4000 => out.put_uint(value | 0x4000, 2),
        0x4000..0x4000_0000 => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

/// The head of a DATA frame.
pub(crate) fn data_head(length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD);
    put_varint(&mut out, kind::DATA);
    put_varint(&mut out, length as u64);
    out.freeze()
}

/// A HEADERS frame around a field section.
pub(crate) fn headers(section: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + section.len());
    put_varint(&mut out, kind::HEADERS);
    put_varint(&mut out, section.len() as u64);
    out.extend_from_slice(section);
    out.freeze()
}

/// A GOAWAY frame: requests from this stream on are not served.
pub(crate) fn goaway(stream: u64) -> Bytes {
    let (mut id, mut out) = (BytesMut::new(), BytesMut::new());
    put_varint(&mut id, stream);
    put_varint(&mut out, kind::GOAWAY);
    put_varint(&mut out, id.len() as u64);
    out.extend_from_slice(&id);
    out.freeze()
}

/// What of a request came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The field section of its head.
    Head(Bytes),
    /// A piece of its body.
    Data(Bytes),
    /// The field section of its trailers.
    Trailers(Bytes),
}

/// Why a request stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The connection ends.
    Connection(Code),
    /// The stream ends.
    Stream(Code),
    /// The head is longer than it may be; more of it is not read.
    TooLarge,
}

const UNEXPECTED: Wrong = Wrong::Connection(Code::FrameUnexpected);

/// Where the octets of a request stream stand.
#[derive(Debug)]
enum At {
    /// Before or in the head of a frame.
    Head,
    Data(u64),
    Section(usize),
    /// In a frame that nobody knows.
    Skip(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Body,
    After,
}

/// Takes a request apart as it comes.
#[derive(Debug)]
pub(crate) struct Frames {
    at: At,
    phase: Phase,
    /// What came and was not taken.
    piece: Bytes,
    /// The head of a frame, or a field section, that came in several pieces.
    held: BytesMut,
    /// Octets that a field section may have.
    most: usize,
    idle: u32,
}

impl Frames {
    pub(crate) fn new(most: usize) -> Self {
        Frames {
            at: At::Head,
            phase: Phase::Before,
            piece: Bytes::new(),
            held: BytesMut::new(),
            most,
            idle: 0,
        }
    }

    /// More came; only when [`Frames::next`] had nothing left.
    pub(crate) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty(), "all was taken");
        self.piece = piece;
    }

    /// The next part; `None`: more has to come.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, Wrong> {
        loop {
            match &mut self.at {
                At::Head => {
                    let Some((kind, length)) = self.head() else {
                        return Ok(None);
                    };
                    self.at = self.enter(kind, length)?;
                }
                At::Data(0) | At::Skip(0) => self.at = At::Head,
                At::Data(left) => {
                    if self.piece.is_empty() {
                        return Ok(None);
                    }
                    let here = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = self.piece.split_to(here.min(self.piece.len()));
                    *left -= data.len() as u64;
                    self.idle = 0;
                    return Ok(Some(Part::Data(data)));
                }
                At::Skip(left) => {
                    if self.piece.is_empty() {
                        return Ok(None);
                    }
                    let here = usize::try_from(*left).unwrap_or(usize::MAX);
                    let skipped = self.piece.split_to(here.min(self.piece.len()));
                    *left -= skipped.len() as u64;
                }
                At::Section(length) => {
                    let length = *length;
                    let Some(section) = self.section(length) else {
                        return Ok(None);
                    };
                    self.at = At::Head;
                    return Ok(Some(match self.phase {
                        Phase::Before => {
                            self.phase = Phase::Body;
                            Part::Head(section)
                        }
                        Phase::Body | Phase::After => {
                            self.phase = Phase::After;
                            Part::Trailers(section)
                        }
                    }));
                }
            }
        }
    }

    /// Is nothing begun, and all taken?
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.at, At::Head) && self.held.is_empty() && self.piece.is_empty()
    }

    /// The stream has ended, and [`Frames::next`] has nothing left (RFC 9114 §7.1, §4.1).
    pub(crate) fn end(&self) -> Result<(), Wrong> {
        let between = matches!(self.at, At::Head | At::Data(0) | At::Skip(0));
        if !between || !self.held.is_empty() {
            return Err(Wrong::Connection(Code::FrameError));
        }
        match self.phase {
            Phase::Before => Err(Wrong::Stream(Code::RequestIncomplete)),
            Phase::Body | Phase::After => Ok(()),
        }
    }

    /// Type and length of the next frame, if they are there.
    fn head(&mut self) -> Option<(u64, u64)> {
        if self.held.is_empty() {
            if let Some((kind, length, octets)) = head(&self.piece) {
                let _ = self.piece.split_to(octets);
                return Some((kind, length));
            }
            // At most one octet less than a head has.
            self.held.extend_from_slice(&self.piece);
            self.piece.clear();
            return None;
        }
        let before = self.held.len();
        let more = self.piece.len().min(HEAD);
        self.held
            .extend_from_slice(self.piece.get(..more).unwrap_or_default());
        let Some((kind, length, octets)) = head(&self.held) else {
            self.piece.clear();
            return None;
        };
        let _ = self.piece.split_to(octets - before);
        self.held.clear();
        Some((kind, length))
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<At, Wrong> {
        match (kind, self.phase) {
            (kind::HEADERS, Phase::Before | Phase::Body) => {
                let length = usize::try_from(length).ok();
                let length = length.filter(|length| *length <= self.most);
                length.map(At::Section).ok_or(Wrong::TooLarge)
            }
            (kind::DATA, Phase::Body) => {
                if length == 0 {
                    self.idle()?;
                }
                Ok(At::Data(length))
            }
            (kind::HEADERS | kind::DATA, _) => Err(UNEXPECTED),
            (
                kind::CANCEL_PUSH
                | kind::SETTINGS
                | kind::PUSH_PROMISE
                | kind::GOAWAY
                | kind::MAX_PUSH_ID,
                _,
            ) => Err(UNEXPECTED),
            (kind, _) if kind::RESERVED.contains(&kind) => Err(UNEXPECTED),
            // RFC 9114 §9: what is not known is passed over.
            _ => {
                self.idle()?;
                Ok(At::Skip(length))
            }
        }
    }

    /// One more frame that says nothing (RFC 9114 §10.5).
    fn idle(&mut self) -> Result<(), Wrong> {
        self.idle += 1;
        let good = self.idle <= IDLE_FRAMES;
        good.then_some(())
            .ok_or(Wrong::Connection(Code::ExcessiveLoad))
    }

    /// A whole field section, copied only if it came in pieces.
    fn section(&mut self, length: usize) -> Option<Bytes> {
        if self.held.is_empty() && self.piece.len() >= length {
            return Some(self.piece.split_to(length));
        }
        let missing = (length - self.held.len()).min(self.piece.len());
        self.held.extend_from_slice(&self.piece.split_to(missing));
        (self.held.len() == length).then(|| self.held.split().freeze())
    }
}

/// Type, length, and how many octets say so.
pub(super) fn head(octets: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = varint(octets)?;
    let (length, second) = varint(octets.get(first..)?)?;
    Some((kind, length, first + second))
}
