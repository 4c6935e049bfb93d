//! HTTP/3: the proxy's codec, whose files are read here as they are, as those of [`crate::http1`].

use bytes::Bytes;

#[path = "../../crates/proxy/src/http3/code.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod code;
#[path = "../../crates/proxy/src/http3/control.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod control;
#[path = "../../crates/proxy/src/http3/frame.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod frame;
#[path = "../../crates/proxy/src/http3/qpack.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod qpack;
#[path = "../../crates/proxy/src/http3/tables.rs"]
mod tables;

use code::Code;
use control::{Control, Decoder};
use frame::{Frames, Part, Wrong};
use qpack::{Encoder, Section};

use crate::{http2, message::Draft};

const MOST: usize = 256;

/// Parts with their number, data that follows data as one; then how it ended.
type Read = (Vec<(u8, Vec<u8>)>, Result<(), Wrong>);

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut frames, mut parts) = (Frames::new(MOST), Vec::<(u8, Vec<u8>)>::new());
    for piece in pieces {
        frames.push(Bytes::copy_from_slice(piece));
        loop {
            match frames.next() {
                Ok(None) => break,
                Err(wrong) => return (parts, Err(wrong)),
                Ok(Some(Part::Head(octets))) => parts.push((0, octets.to_vec())),
                Ok(Some(Part::Trailers(octets))) => parts.push((2, octets.to_vec())),
                Ok(Some(Part::Data(octets))) => match parts.last_mut() {
                    Some((1, data)) => data.extend_from_slice(&octets),
                    _ => parts.push((1, octets.to_vec())),
                },
            }
        }
    }
    let ended = frames.end();
    (parts, ended)
}

/// In one piece, octet by octet, and cut at one place: the same each time.
pub(crate) fn request(octets: &[u8]) {
    let Some((cut, octets)) = octets.split_first() else {
        return;
    };
    let whole = read(std::iter::once(octets));
    let (one, two) = octets.split_at(usize::from(*cut).min(octets.len()));
    assert_eq!(whole, read(octets.chunks(1)), "octet by octet");
    assert_eq!(whole, read([one, two].into_iter()), "cut at {cut}");
    for (kind, part) in &whole.0 {
        assert!(*kind == 1 || part.len() <= MOST, "a section over the limit");
    }
}

/// The first octet says which stream it is.
pub(crate) fn control(octets: &[u8]) {
    let Some((which, octets)) = octets.split_first() else {
        return;
    };
    let read = |mut pieces: std::slice::Chunks<'_, u8>| -> Result<(), Code> {
        let (mut control, mut decoder) = (Control::new(), Decoder::default());
        pieces.try_for_each(|piece| match which % 3 {
            0 => control.read(piece),
            1 => decoder.read(piece),
            _ => control::encoder(piece),
        })
    };
    let whole = read(octets.chunks(octets.len().max(1)));
    assert_eq!(whole, read(octets.chunks(1)), "octet by octet");
    assert_eq!(whole, read(octets.chunks(7)), "by seven");
}

pub(crate) fn section(octets: &[u8]) {
    let Ok(section) = Section::decode(octets, MOST, 8) else {
        return;
    };
    let fields: Vec<_> = section.iter().collect();
    let size: usize = fields.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
    assert!(size <= MOST && fields.len() <= 8, "over the limits");
    let mut encoder = Encoder::new();
    fields
        .iter()
        .for_each(|(name, value)| encoder.field(name, value));
    let again = Section::decode(&encoder.finish(), MOST, 8).expect("what was read");
    assert_eq!(again.iter().collect::<Vec<_>>(), fields);
    let mut draft = Draft::new(&http2::limits());
    fields
        .iter()
        .for_each(|(name, value)| draft.take(name, value));
    if let Ok(head) = draft.finish(true) {
        http2::plain(&head);
    }
}
