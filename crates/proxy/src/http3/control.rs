//! A client's unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2), read to the letter and not
//! kept.

use bytes::{Bytes, BytesMut};

use super::{
    Code,
    frame::{head, kind, put_varint, varint},
};

/// Settings (RFC 9114 §7.2.4.1, RFC 9220 §5).
mod setting {
    pub(super) const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
    pub(super) const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
    /// Those of HTTP/2 that are none here.
    pub(super) const RESERVED: [u64; 4] = [0x2, 0x3, 0x4, 0x5];
}

/// Octets of a frame that is looked at; more is more than anybody has to say.
const PAYLOAD: u64 = 1024;
/// Frames that a control stream may have for nothing, and so many more for each request.
const FRAMES: u32 = 200;

/// What a stream is for (RFC 9114 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Control,
    Encoder,
    Decoder,
    /// Nobody knows; it is not read.
    Unknown,
}

impl Purpose {
    /// By its type.
    pub(crate) fn of(kind: u64) -> Result<Self, Code> {
        match kind {
            0x0 => Ok(Purpose::Control),
            // RFC 9114 §6.2.2: only servers push.
            0x1 => Err(Code::StreamCreationError),
            0x2 => Ok(Purpose::Encoder),
            0x3 => Ok(Purpose::Decoder),
            _ => Ok(Purpose::Unknown),
        }
    }
}

/// What our control stream begins with: its type, and our settings.
pub(crate) fn opening(section: usize) -> Bytes {
    let (mut settings, mut out) = (BytesMut::new(), BytesMut::new());
    for (id, value) in [
        (setting::MAX_FIELD_SECTION_SIZE, section as u64),
        (setting::ENABLE_CONNECT_PROTOCOL, 1),
    ] {
        put_varint(&mut settings, id);
        put_varint(&mut settings, value);
    }
    put_varint(&mut out, 0);
    put_varint(&mut out, kind::SETTINGS);
    put_varint(&mut out, settings.len() as u64);
    out.extend_from_slice(&settings);
    out.freeze()
}

/// A client's control stream.
#[derive(Debug)]
pub(crate) struct Control {
    held: BytesMut,
    /// Of a frame that nobody knows.
    skip: u64,
    settings: bool,
    goaway: Option<u64>,
    push: Option<u64>,
    frames: u32,
}

impl Control {
    pub(crate) fn new() -> Self {
        Control {
            held: BytesMut::new(),
            skip: 0,
            settings: false,
            goaway: None,
            push: None,
            frames: FRAMES,
        }
    }

    /// A request came: the client may have some more to say.
    pub(crate) const fn earn(&mut self) {
        if self.frames < FRAMES {
            self.frames += 2;
        }
    }

    /// More came of it.
    pub(crate) fn read(&mut self, mut octets: &[u8]) -> Result<(), Code> {
        while !octets.is_empty() {
            if self.skip > 0 {
                let here = usize::try_from(self.skip).unwrap_or(usize::MAX);
                let here = here.min(octets.len());
                self.skip -= here as u64;
                octets = octets.get(here..).unwrap_or_default();
                continue;
            }
            // A head, or the whole of a short frame: no more is held than `wanted`.
            let wanted = self.wanted()?;
            let more = octets.len().min(wanted.saturating_sub(self.held.len()));
            let (more, rest) = octets.split_at(more);
            self.held.extend_from_slice(more);
            octets = rest;
            self.frame()?;
        }
        Ok(())
    }

    /// Octets to be held before the next look.
    fn wanted(&self) -> Result<usize, Code> {
        match head(&self.held) {
            // One more; a head is short.
            None => Ok(self.held.len() + 1),
            Some((_, length, octets)) => {
                let length = usize::try_from(length).map_err(|_| Code::ExcessiveLoad)?;
                Ok(octets + length)
            }
        }
    }

    fn frame(&mut self) -> Result<(), Code> {
        let Some((kind, length, octets)) = head(&self.held) else {
            return Ok(());
        };
        if !self.settings && kind != kind::SETTINGS {
            return Err(Code::MissingSettings);
        }
        match kind {
            kind::SETTINGS | kind::CANCEL_PUSH | kind::GOAWAY | kind::MAX_PUSH_ID => {}
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => return Err(Code::FrameUnexpected),
            kind if kind::RESERVED.contains(&kind) => return Err(Code::FrameUnexpected),
            _ => {
                self.spend()?;
                self.held.clear();
                self.skip = length;
                return Ok(());
            }
        }
        if length > PAYLOAD {
            return Err(Code::ExcessiveLoad);
        }
        let whole = usize::try_from(length).is_ok_and(|length| self.held.len() == octets + length);
        if !whole {
            return Ok(());
        }
        self.spend()?;
        let held = self.held.split();
        let payload = held.get(octets..).unwrap_or_default();
        self.known(kind, payload)
    }

    fn known(&mut self, kind: u64, payload: &[u8]) -> Result<(), Code> {
        if kind == kind::SETTINGS {
            if std::mem::replace(&mut self.settings, true) {
                return Err(Code::FrameUnexpected);
            }
            return settings(payload);
        }
        let Some((id, octets)) = varint(payload) else {
            return Err(Code::FrameError);
        };
        if octets != payload.len() {
            return Err(Code::FrameError);
        }
        match kind {
            // RFC 9114 §5.2: push IDs, which only go down.
            kind::GOAWAY => {
                let good = self.goaway.is_none_or(|before| id <= before);
                self.goaway = Some(id);
                good.then_some(()).ok_or(Code::IdError)
            }
            // RFC 9114 §7.2.7: these only go up.
            kind::MAX_PUSH_ID => {
                let good = self.push.is_none_or(|before| id >= before);
                self.push = Some(id);
                good.then_some(()).ok_or(Code::IdError)
            }
            // RFC 9114 §7.2.3: nothing was promised.
            _ => Err(Code::IdError),
        }
    }

    fn spend(&mut self) -> Result<(), Code> {
        self.frames = self.frames.checked_sub(1).ok_or(Code::ExcessiveLoad)?;
        Ok(())
    }
}

fn settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (id, value, octets) = head(payload).ok_or(Code::FrameError)?;
        let bad = setting::RESERVED.contains(&id)
            || seen.contains(&id)
            || (id == setting::ENABLE_CONNECT_PROTOCOL && value > 1);
        if bad {
            return Err(Code::SettingsError);
        }
        seen.push(id);
        payload = payload.get(octets..).unwrap_or_default();
    }
    Ok(())
}

/// A client's encoder stream: nothing can be inserted into a table of no size (RFC 9204 §4.3).
pub(crate) fn encoder(octets: &[u8]) -> Result<(), Code> {
    const CAPACITY_ZERO: u8 = 0x20;
    let good = octets.iter().all(|octet| *octet == CAPACITY_ZERO);
    good.then_some(()).ok_or(Code::EncoderStreamError)
}

/// A client's decoder stream: it may cancel streams, and has nothing to acknowledge (RFC 9204
/// §4.4).
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Octets of an integer that goes on.
    going: u8,
}

impl Decoder {
    pub(crate) fn read(&mut self, octets: &[u8]) -> Result<(), Code> {
        for octet in octets {
            self.going = match (self.going, octet) {
                (0, 0x40..0x7f) => 0,
                (0, 0x7f) => 1,
                (1..10, 0x80..) => self.going + 1,
                (1..10, _) => 0,
                _ => return Err(Code::DecoderStreamError),
            };
        }
        Ok(())
    }
}
