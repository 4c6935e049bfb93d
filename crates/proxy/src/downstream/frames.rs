//! A client's frames, looked at before `h2` sees them.
//!
//! What `h2` leaves to us: it takes any frame for the first (RFC 9113 §3.4), calls every malformed
//! frame a PROTOCOL_ERROR (§4.2 and §6 have other words for some), does not decode the header block
//! of a stream that depends on itself, after which the tables of both sides differ (§4.3), and
//! answers frames that cost work and ask for nothing as long as they come (§10.5).

use std::time::Duration;

use base::Instant;
use h2::Reason;

/// What frames that ask for nothing may cost, beyond what was earned, in a span of [`SPAN`].
const ALLOWANCE: u32 = 1_000;
const SPAN: Duration = Duration::from_secs(10);
/// So many octets that the client is sent earn one: who gets much has windows to open.
const OCTETS: usize = 16;

const HEAD: usize = 9;
const PREFACE: usize = 24;
const MAX_WINDOW: u32 = (1 << 31) - 1;
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Frame types (RFC 9113 §6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

/// Settings whose values have bounds (RFC 9113 §6.5.2, RFC 8441 §3).
mod setting {
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Where a client's octets stand.
#[derive(Debug)]
pub(super) struct Frames {
    preface: usize,
    head: [u8; HEAD],
    have: usize,
    /// Of the frame whose head is there: octets of its payload that were read, and that are left.
    read: usize,
    left: usize,
    /// What of a payload is looked at: a setting, or on which stream another depends.
    piece: [u8; 6],
    begun: bool,
    balance: u32,
    /// When the allowance was last given.
    given: Instant,
}

/// Why a connection has to end, and how many octets may be read before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) before: usize,
}

impl Frames {
    /// The preface comes first.
    pub(super) const fn new(now: Instant) -> Self {
        Frames {
            preface: PREFACE,
            head: [0; HEAD],
            have: 0,
            read: 0,
            left: 0,
            piece: [0; 6],
            begun: false,
            balance: ALLOWANCE,
            given: now,
        }
    }

    /// So many octets go to the client.
    pub(super) fn sent(&mut self, octets: usize) {
        let earned = u32::try_from(octets / OCTETS).unwrap_or(u32::MAX);
        self.earn(earned);
    }

    /// Look at what came. The clock is read only when the allowance is used up.
    pub(super) fn look(&mut self, octets: &[u8], now: impl Fn() -> Instant) -> Result<(), Refused> {
        let preface = self.preface.min(octets.len());
        self.preface -= preface;
        let mut rest = octets.get(preface..).unwrap_or_default();
        while !rest.is_empty() {
            let before = octets.len() - rest.len();
            let refused = |reason| Refused { reason, before };
            if self.have < HEAD {
                let missing = rest.len().min(HEAD - self.have);
                let (head, more) = rest.split_at(missing);
                for (place, octet) in self.head.iter_mut().skip(self.have).zip(head) {
                    *place = *octet;
                }
                self.have += missing;
                rest = more;
                if self.have == HEAD {
                    let head = Head::of(self.head);
                    self.read = 0;
                    self.left = head.length;
                    self.first(head).map_err(refused)?;
                    head.sized().map_err(refused)?;
                    self.charge(head, &now).map_err(refused)?;
                }
            } else {
                let here = rest.len().min(self.left);
                let (payload, more) = rest.split_at(here);
                self.payload(payload).map_err(refused)?;
                self.left -= here;
                rest = more;
            }
            if self.have == HEAD && self.left == 0 {
                self.have = 0;
            }
        }
        Ok(())
    }

    /// RFC 9113 §3.4: the preface ends with SETTINGS.
    fn first(&mut self, head: Head) -> Result<(), Reason> {
        let good = self.begun || (head.kind == kind::SETTINGS && head.flags & ACK == 0);
        self.begun = true;
        good.then_some(()).ok_or(Reason::PROTOCOL_ERROR)
    }

    fn payload(&mut self, payload: &[u8]) -> Result<(), Reason> {
        let head = Head::of(self.head);
        match head.kind {
            kind::SETTINGS => {
                for octet in payload {
                    let at = self.read % 6;
                    if let Some(place) = self.piece.get_mut(at) {
                        *place = *octet;
                    }
                    self.read += 1;
                    if at == 5 {
                        bounded(self.piece)?;
                    }
                }
                Ok(())
            }
            kind::HEADERS if head.flags & PRIORITY != 0 => {
                let from = usize::from(head.flags & PADDED != 0);
                for octet in payload.iter().take((from + 4).saturating_sub(self.read)) {
                    let place = self.read.checked_sub(from);
                    if let Some(place) = place.and_then(|at| self.piece.get_mut(at)) {
                        *place = *octet;
                    }
                    self.read += 1;
                    let [a, b, c, d, ..] = self.piece;
                    let depends = u32::from_be_bytes([a, b, c, d]) & MAX_WINDOW;
                    if self.read == from + 4 && depends == head.stream {
                        return Err(Reason::PROTOCOL_ERROR);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn earn(&mut self, much: u32) {
        self.balance = self.balance.saturating_add(much).min(ALLOWANCE);
    }

    /// A request earns; what asks for nothing costs, and most what has to be answered.
    fn charge(&mut self, head: Head, now: impl Fn() -> Instant) -> Result<(), Reason> {
        let cost = match head.kind {
            kind::HEADERS => {
                self.earn(1);
                return Ok(());
            }
            // Short ones are counted by `h2`.
            kind::DATA if head.length > 0 => return Ok(()),
            kind::PING => 3,
            kind::SETTINGS | kind::RST_STREAM => 2,
            _ => 1,
        };
        if self.balance < cost {
            let now = now();
            if now.since(self.given) < SPAN {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
            self.given = now;
            self.balance = ALLOWANCE;
        }
        self.balance -= cost;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    /// RFC 9113 §4.1.
    const fn of([a, b, c, kind, flags, d, e, f, g]: [u8; HEAD]) -> Self {
        Head {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & MAX_WINDOW,
        }
    }

    /// RFC 9113 §4.2: as long as its type says, and with room for what its flags say.
    fn sized(self) -> Result<(), Reason> {
        let pad = usize::from(self.flags & PADDED != 0);
        let good = match self.kind {
            kind::DATA => self.length >= pad,
            kind::HEADERS => {
                let depends = if self.flags & PRIORITY != 0 { 5 } else { 0 };
                self.length >= pad + depends
            }
            kind::PRIORITY => self.length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.length == 4,
            kind::SETTINGS if self.flags & ACK != 0 => self.length == 0,
            kind::SETTINGS => self.length.is_multiple_of(6),
            kind::PING => self.length == 8,
            kind::GOAWAY => self.length >= 8,
            _ => true,
        };
        good.then_some(()).ok_or(Reason::FRAME_SIZE_ERROR)
    }
}

fn bounded([a, b, c, d, e, f]: [u8; 6]) -> Result<(), Reason> {
    let value = u32::from_be_bytes([c, d, e, f]);
    match u16::from_be_bytes([a, b]) {
        setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => Err(Reason::FLOW_CONTROL_ERROR),
        setting::MAX_FRAME_SIZE if !FRAME_SIZES.contains(&value) => Err(Reason::PROTOCOL_ERROR),
        setting::ENABLE_PUSH | setting::ENABLE_CONNECT_PROTOCOL if value > 1 => {
            Err(Reason::PROTOCOL_ERROR)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [length[1], length[2], length[3], kind, flags];
        [&head[..], &stream.to_be_bytes(), payload].concat()
    }

    /// What comes of octets that come in pieces of so many, a second after the other.
    fn looked(octets: &[u8], step: usize) -> Result<(), (Reason, usize)> {
        let mut frames = Frames::new(Instant::ZERO);
        let mut before = 0;
        let whole = [&[0; PREFACE], &frame(4, 0, 0, &[])[..], octets].concat();
        for piece in whole.chunks(step) {
            let looked = frames.look(piece, || Instant::ZERO);
            looked.map_err(|refused| (refused.reason, before + refused.before))?;
            before += piece.len();
        }
        Ok(())
    }

    #[test]
    fn pieces_do_not_matter() {
        let window = frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0]);
        let depends = frame(1, PRIORITY | PADDED, 3, &[0, 0x80, 0, 0, 3, 9, 0x82]);
        let other = frame(1, PRIORITY | PADDED, 3, &[0, 0x80, 0, 0, 4, 9, 0x82]);
        let data = frame(0, 0, 3, &[7; 40]);
        for (octets, expect) in [
            (
                [&data[..], &window].concat(),
                Err(Reason::FLOW_CONTROL_ERROR),
            ),
            ([&data[..], &depends].concat(), Err(Reason::PROTOCOL_ERROR)),
            ([&other[..], &data].concat(), Ok(())),
            (frame(6, 0, 0, &[0; 7]), Err(Reason::FRAME_SIZE_ERROR)),
            (frame(6, 0, 0, &[0; 8]), Ok(())),
        ] {
            for step in 1..octets.len() + 40 {
                let looked = looked(&octets, step).map_err(|(reason, _)| reason);
                assert_eq!(looked, expect, "{octets:?} by {step}");
            }
        }
    }

    #[test]
    fn a_flood_is_what_brings_nothing_for_long() {
        let pings = |count: usize| frame(6, 0, 0, &[0; 8]).repeat(count);
        assert_eq!(looked(&pings(330), 4096), Ok(()));
        let flood = looked(&pings(340), 4096);
        assert_eq!(
            flood.map_err(|(reason, _)| reason),
            Err(Reason::ENHANCE_YOUR_CALM)
        );
        // Whoever takes ten seconds for it is only slow, and who is sent much may say much.
        let mut frames = Frames::new(Instant::ZERO);
        let later = Instant::ZERO + SPAN;
        frames.preface = 0;
        frames.begun = true;
        assert_eq!(frames.look(&pings(600), || later), Ok(()));
        for _ in 0..10 {
            frames.sent(100_000);
            assert_eq!(frames.look(&pings(330), || later), Ok(()));
        }
        assert!(frames.look(&pings(330), || later).is_err());
    }
}
