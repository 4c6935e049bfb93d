//! Frames of WebSocket (RFC 6455 §5.2) as they go by: where one ends and the next begins, so that one
//! of ours may stand between them. What they mean is between client and endpoint.

use bytes::Bytes;

/// Codes of Close frames (§7.4.1).
pub(crate) const GOING_AWAY: u16 = 1001;
pub(crate) const POLICY_VIOLATION: u16 = 1008;

/// A Close frame with a code, as endpoints send it.
pub(crate) fn close(code: u16) -> Bytes {
    let [high, low] = code.to_be_bytes();
    Bytes::copy_from_slice(&[0x88, 0x02, high, low])
}

/// The same, as clients send it: masked, with a key of zeros.
pub(crate) fn close_masked(code: u16) -> Bytes {
    let [high, low] = code.to_be_bytes();
    Bytes::copy_from_slice(&[0x88, 0x82, 0, 0, 0, 0, high, low])
}

/// The opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// Octets of a head before the masking key, at most.
const HEAD: usize = 10;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// From the client.
    pub(crate) there: Frames,
    /// From the endpoint.
    pub(crate) back: Frames,
}

impl Talk {
    /// May both be told that it is over?
    pub(crate) const fn may_end(&self) -> bool {
        self.there.is_between() && self.back.is_between()
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Of a head that has begun.
    head: [u8; HEAD],
    seen: usize,
    /// What is still to come of a frame behind its head: the masking key and the payload.
    left: u64,
    closed: bool,
}

impl Frames {
    /// These octets have gone by.
    pub(crate) fn pass(&mut self, mut octets: &[u8]) {
        loop {
            let skipped = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(octets.len());
            self.left -= skipped as u64;
            let Some((octet, rest)) = octets.get(skipped..).and_then(<[u8]>::split_first) else {
                return;
            };
            octets = rest;
            if let Some(place) = self.head.get_mut(self.seen) {
                *place = *octet;
                self.seen += 1;
            }
            if let Some(left) = behind(self.head.get(..self.seen).unwrap_or_default()) {
                self.closed |= self.head.first().is_some_and(|first| first & 0xf == CLOSE);
                (self.left, self.seen) = (left, 0);
            }
        }
    }

    /// May a frame stand here? After a Close frame none does (§5.5.1).
    pub(crate) const fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0 && !self.closed
    }
}

/// How much follows a head; `None`: it is not whole.
fn behind(head: &[u8]) -> Option<u64> {
    let (second, extended) = head.get(1..)?.split_first()?;
    let key = u64::from(second >> 7) * 4;
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(extended.try_into().ok()?)),
        127 => u64::from_be_bytes(extended.try_into().ok()?),
        short => u64::from(short),
    };
    Some(length.saturating_add(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut out = vec![first];
        match length {
            0..=125 => out.push(mask | u8::try_from(length).expect("short")),
            126..=0xffff => {
                out.push(mask | 126);
                out.extend(u16::try_from(length).expect("middle").to_be_bytes());
            }
            _ => {
                out.push(mask | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        // Octets that look like heads.
        out.resize(out.len() + usize::from(mask >> 5) + length, 0x88);
        out
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
                let octets = frame(0x82, masked, length);
                for size in [1, 2, 3, 7, 4096, usize::MAX] {
                    let mut frames = Frames::default();
                    // Twice, since where one ends the next begins.
                    for _ in 0..2 {
                        let (last, before) = octets.split_last().expect("octets");
                        for piece in before.chunks(size) {
                            frames.pass(piece);
                            assert!(!frames.is_between(), "{length} in pieces of {size}");
                        }
                        frames.pass(&[*last]);
                        assert!(frames.is_between(), "{length} in pieces of {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn several_are_in_one_piece() {
        let mut frames = Frames::default();
        let all = [
            frame(0x01, true, 300),
            frame(0x89, true, 4),
            frame(0x80, true, 0),
        ]
        .concat();
        frames.pass(&all);
        assert!(frames.is_between());
        frames.pass(&all[..all.len() - 1]);
        assert!(!frames.is_between());
    }

    #[test]
    fn nothing_follows_a_close() {
        for ours in [close(GOING_AWAY), close_masked(GOING_AWAY)] {
            let mut frames = Frames::default();
            frames.pass(&ours);
            assert!(!frames.is_between());
            assert_eq!((frames.left, frames.seen), (0, 0));
            frames.pass(&frame(0x82, false, 1));
            assert!(!frames.is_between());
        }
    }

    #[test]
    fn any_length_is_borne() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.pass(&[0; 1000]);
        assert!(!frames.is_between());
    }
}
