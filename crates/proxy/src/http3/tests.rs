//! Octets in any pieces.

use bytes::{Bytes, BytesMut};

use super::{
    Code,
    control::{Control, Decoder},
    frame::{Frames, Part, Wrong, headers, put_varint, varint},
    qpack::{Encoder, Section, SectionError},
};

#[test]
fn rfc9000_a_1_integers() {
    for (octets, value) in [
        (
            &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
            151_288_809_941_952_652,
        ),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
    ] {
        assert_eq!(varint(octets), Some((value, octets.len())));
        assert_eq!(varint(&octets[..octets.len() - 1]), None);
        let mut out = BytesMut::new();
        put_varint(&mut out, value);
        assert_eq!(&out[..], octets);
    }
    assert_eq!(varint(&[0x40, 0x25]), Some((37, 2)));
}

#[test]
fn rfc9204_b_1_a_literal_with_a_name_of_the_table() {
    let block = [
        0, 0, 0x51, 0x0b, 0x2f, 0x69, 0x6e, 0x64, 0x65, 0x78, 0x2e, 0x68, 0x74, 0x6d, 0x6c,
    ];
    let section = Section::decode(&block, 1000, 10).expect("a section");
    let fields: Vec<_> = section.iter().collect();
    assert_eq!(fields, [(&b":path"[..], &b"/index.html"[..])]);
}

#[test]
fn sections_are_what_was_put_into_them() {
    let long = "v".repeat(20_000);
    let fields = [
        (":status", "200"),
        (":status", "418"),
        ("content-type", "text/plain"),
        ("content-type", "text/other"),
        ("x-none-of-the-table", long.as_str()),
        ("alt-svc", "clear"),
        ("x", ""),
    ];
    let mut encoder = Encoder::new();
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes());
    }
    let block = encoder.finish();
    let section = Section::decode(&block, 30_000, 7).expect("a section");
    let read: Vec<_> = section.iter().collect();
    let put: Vec<_> = fields
        .iter()
        .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
        .collect();
    assert_eq!(read, put);
    for (octets, count) in [(20_000, 7), (30_000, 6)] {
        let error = Section::decode(&block, octets, count).expect_err("too large");
        assert_eq!(error, SectionError::TooLarge);
    }
    for end in 0..block.len() {
        // Cut off anywhere it is another section or none, and never more than that.
        let _ = Section::decode(&block[..end], 30_000, 7);
    }
}

/// All parts of a request that comes in pieces of so many octets.
fn parts(octets: &[u8], step: usize) -> Result<Vec<(u8, Vec<u8>)>, Wrong> {
    let mut frames = Frames::new(100);
    let mut parts: Vec<(u8, Vec<u8>)> = Vec::new();
    for piece in octets.chunks(step) {
        frames.push(Bytes::copy_from_slice(piece));
        while let Some(part) = frames.next()? {
            match part {
                Part::Head(octets) => parts.push((0, octets.to_vec())),
                Part::Trailers(octets) => parts.push((2, octets.to_vec())),
                Part::Data(octets) => match parts.last_mut() {
                    Some((1, data)) => data.extend_from_slice(&octets),
                    _ => parts.push((1, octets.to_vec())),
                },
            }
        }
    }
    frames.end().map(|()| parts)
}

#[test]
fn pieces_do_not_matter() {
    let unknown = [&[0x40, 0x21, 0x40, 0x41][..], &[7; 0x41]].concat();
    let whole = [
        &unknown[..],
        &headers(b"the head"),
        &[0, 0],
        &[0, 5],
        b"first",
        &unknown,
        &[0x40, 0, 0x80, 0, 0, 4],
        b"next",
        &headers(b"trailers"),
        &unknown,
    ]
    .concat();
    let expect = [
        (0, b"the head".to_vec()),
        (1, b"firstnext".to_vec()),
        (2, b"trailers".to_vec()),
    ];
    for step in 1..whole.len() + 1 {
        assert_eq!(parts(&whole, step).expect("a request"), expect, "by {step}");
        let cut = parts(&whole[..whole.len() - 1], step);
        assert_eq!(cut, Err(Wrong::Connection(Code::FrameError)), "by {step}");
        let large = parts(&headers(&[0; 101]), step);
        assert_eq!(large, Err(Wrong::TooLarge), "by {step}");
    }
}

#[test]
fn control_streams_in_pieces() {
    let mut out = BytesMut::new();
    for octets in [
        &[0x40, 4, 2, 6, 0][..],
        &[0x21, 3, 1, 2, 3],
        &[0xd, 1, 9],
        &[7, 1, 5],
        &[7, 1, 4],
    ] {
        out.extend_from_slice(octets);
    }
    for step in 1..out.len() + 1 {
        let mut control = Control::new();
        for piece in out.chunks(step) {
            assert_eq!(control.read(piece), Ok(()), "by {step}");
        }
        let mut later = [7, 1, 4, 7, 1, 5].chunks(step);
        let last = later.try_for_each(|piece| control.read(piece));
        assert_eq!(last, Err(Code::IdError), "by {step}");
        let mut decoder = Decoder::default();
        for piece in [0x44, 0x7f, 0xff, 0x01, 0x40].chunks(step) {
            assert_eq!(decoder.read(piece), Ok(()));
        }
    }
}
