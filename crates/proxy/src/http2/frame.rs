//! Frames (RFC 9113 §4 and §6) and error codes (§7).

/// What every connection begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Octets before a payload.
pub(super) const HEAD: usize = 9;
/// The longest payload of either side: what it is if nobody says otherwise.
pub(super) const LONGEST: usize = 1 << 14;
/// The largest window, and the mask of a stream's number.
pub(super) const MOST: u32 = (1 << 31) - 1;

/// Flags. ACK and END_STREAM are the same bit.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// Frame types.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

/// Settings (RFC 9113 §6.5.2, RFC 8441 §3).
pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    pub(in super::super) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(in super::super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    NoError = 0,
    ProtocolError = 1,
    InternalError = 2,
    FlowControlError = 3,
    StreamClosed = 5,
    FrameSizeError = 6,
    RefusedStream = 7,
    Cancel = 8,
    CompressionError = 9,
    EnhanceYourCalm = 11,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    /// RFC 9113 §4.1.
    pub(super) const fn of([a, b, c, kind, flags, d, e, f, g]: [u8; HEAD]) -> Self {
        Head {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & MOST,
        }
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// RFC 9113 §4.2: as long as its type says, and with room for what its flags say.
    pub(super) fn sized(self) -> Result<(), Code> {
        let pad = usize::from(self.has(PADDED));
        let good = match self.kind {
            kind::DATA => self.length >= pad,
            kind::HEADERS => {
                let depends = if self.has(PRIORITY) { 5 } else { 0 };
                self.length >= pad + depends
            }
            kind::PRIORITY => self.length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.length == 4,
            kind::SETTINGS if self.has(ACK) => self.length == 0,
            kind::SETTINGS => self.length.is_multiple_of(6),
            kind::PING => self.length == 8,
            kind::GOAWAY => self.length >= 8,
            _ => true,
        };
        let good = good && self.length <= LONGEST;
        good.then_some(()).ok_or(Code::FrameSizeError)
    }
}

/// A payload of DATA or HEADERS without its padding (RFC 9113 §6.1).
pub(super) fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Code> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (pad, rest) = payload.split_first().ok_or(Code::FrameSizeError)?;
    let length = rest.len().checked_sub(usize::from(*pad));
    length
        .and_then(|length| rest.get(..length))
        .ok_or(Code::ProtocolError)
}

/// A number of four octets, of which the first bit says nothing.
pub(super) fn word(octets: &[u8]) -> u32 {
    match octets {
        [a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// The head of a frame with so many octets of payload.
#[expect(clippy::cast_possible_truncation, reason = "16 KiB at most")]
pub(super) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    debug_assert!(length <= LONGEST, "nobody has to take longer frames");
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    [a, b, c, kind, flags, d, e, f, g]
}

/// The same, put behind what is to go out.
pub(super) fn put(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&head(length, kind, flags, stream));
}

/// A frame whose payload is a number or two.
pub(super) fn put_words(out: &mut Vec<u8>, kind: u8, stream: u32, words: &[u32]) {
    put(out, 4 * words.len(), kind, 0, stream);
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}
