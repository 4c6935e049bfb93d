//! Frames of a data connection.
//!
//! ```text
//! 0        3      4            8
//! length   kind   stream id    payload: length octets        (network byte order)
//! ```
//! | kind | payload |
//! |---|---|
//! | 0 OPEN | the head, as text ([`crate::StreamHead`]) |
//! | 1 ACCEPT | none |
//! | 2 REFUSE | an HTTP status (2 octets), a few words |
//! | 3 DATA | octets of the stream |
//! | 4 END | none: no DATA follows from this side |
//! | 5 RESET | none: this side sends nothing more, and reads nothing more |
//! | 6 CREDIT | octets more that may be sent (4); stream 0: on all streams together |
//! | 7 PING, 8 PONG | none |
//! | 9 LOSS | what part of what this side sends on the link is lost, in 1/65535 (2) |
//! | 10 MOVE | none: the stream would be better off if it were begun anew |
//! | 11 SPARES | how many idle spare connections this side wants (1); it knows what they are |
//! | 12 HAVE | the number of a spare connection (2): this side has it, and it may be used |
//! | 13 ASIDE | such a number (2): what follows of the stream from this side comes over that, until it says otherwise |
//! | 14 HOME | such a number (2): what came over it is read to its end |
//! | 15 DROP | such a number (2): whoever is not about to use it closes it |
//! | 16 LOAD | how full the link is for what this side sends, in percent (1; more is passed over) |
//!
//! Frames of other kinds are passed over, so that a later version may have more.
//!
//! On a spare connection there are no frames but chunks: four octets of length, at most
//! [`MAX_CHUNK`], and so many of the stream that goes over it. A length of 0 says that the stream goes
//! on where it came from. Each direction of the connection carries a stream of its own, or none.

use bytes::{Buf, BufMut, BytesMut};

/// Octets before a payload.
pub(super) const HEADER: usize = 8;
/// The longest payload. Longer frames cost less and delay other streams' frames more.
pub(super) const MAX_PAYLOAD: usize = 32 << 10;
/// Octets before those of a chunk, and so many of these at the most.
pub(super) const CHUNK_HEADER: usize = 4;
pub(super) const MAX_CHUNK: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Open,
    Accept,
    Refuse,
    Data,
    End,
    Reset,
    Credit,
    Ping,
    Pong,
    Loss,
    Move,
    Spares,
    Have,
    Aside,
    Home,
    Drop,
    Load,
}

impl Kind {
    const ALL: [Kind; 17] = [
        Kind::Open,
        Kind::Accept,
        Kind::Refuse,
        Kind::Data,
        Kind::End,
        Kind::Reset,
        Kind::Credit,
        Kind::Ping,
        Kind::Pong,
        Kind::Loss,
        Kind::Move,
        Kind::Spares,
        Kind::Have,
        Kind::Aside,
        Kind::Home,
        Kind::Drop,
        Kind::Load,
    ];
}

/// What stands before a payload. `kind` is `None` for one that is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: Option<Kind>,
    pub(super) stream: u32,
}

/// A payload is longer than any may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Header {
    /// Look at the header at the beginning of `octets`; `None`: it is not all there yet.
    pub(super) fn read(mut octets: &[u8]) -> Result<Option<Header>, TooLong> {
        if octets.len() < HEADER {
            return Ok(None);
        }
        let first = octets.get_u32();
        let stream = octets.get_u32();
        let [kind, length @ ..] = first.rotate_left(24).to_be_bytes();
        let length = length
            .into_iter()
            .fold(0, |sum, b| sum << 8 | usize::from(b));
        if length > MAX_PAYLOAD {
            return Err(TooLong);
        }
        let kind = Kind::ALL.get(usize::from(kind)).copied();
        Ok(Some(Header {
            length,
            kind,
            stream,
        }))
    }

    /// Write a header; at most [`MAX_PAYLOAD`] octets are to follow.
    pub(super) fn write(kind: Kind, stream: u32, length: usize, out: &mut BytesMut) {
        debug_assert!(length <= MAX_PAYLOAD);
        let length = u32::try_from(length).unwrap_or_default();
        out.put_u32(length << 8 | u32::from(kind as u8));
        out.put_u32(stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_are_written() {
        for (at, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(kind as u8, at);
            let mut out = BytesMut::new();
            Header::write(kind, 0x0102_0304, 0x4567, &mut out);
            let expected = [0, 0x45, 0x67, at, 1, 2, 3, 4];
            assert_eq!(out[..], expected);
            let header = Header {
                length: 0x4567,
                kind: Some(kind),
                stream: 0x0102_0304,
            };
            assert_eq!(Header::read(&out), Ok(Some(header)));
            assert_eq!(Header::read(&out[..7]), Ok(None));
        }
        let other = Header::read(&[0, 0, 1, 17, 0, 0, 0, 0]).expect("short");
        assert_eq!(other.expect("whole").kind, None);
        assert_eq!(Header::read(&[0, 0x80, 1, 0, 0, 0, 0, 0]), Err(TooLong));
    }
}
