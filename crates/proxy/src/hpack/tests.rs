//! RFC 7541's own examples, and what is none.

use super::{Decoder, encoder, huffman, tables::STATIC};

fn fields(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let take = |name: &[u8], value: &[u8]| {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        fields.push(format!("{name}: {value}"));
    };
    decoder.decode(block, take).ok()?;
    Some(fields)
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(pair, 16).expect("an octet")
    };
    digits.chunks(2).map(octet).collect()
}

#[test]
fn rfc7541_c_3_and_c_4_requests() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let expected = [
        vec![
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
        ],
        vec![
            ":method: GET",
            ":scheme: http",
            ":path: /",
            ":authority: www.example.com",
            "cache-control: no-cache",
        ],
        vec![
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ],
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        for (block, expected) in blocks.iter().zip(&expected) {
            let found = fields(&mut decoder, &octets(block)).expect("a block");
            assert_eq!(&found, expected);
        }
    }
}

/// C.5 with a table of 256 octets: what does not fit any more is forgotten.
#[test]
fn rfc7541_c_5_responses_with_evictions() {
    let mut decoder = Decoder::new();
    assert_eq!(fields(&mut decoder, &octets("3f e1 01")), Some(vec![]));
    let first = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
        2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63
        6f6d";
    let found = fields(&mut decoder, &octets(first)).expect("a block");
    assert_eq!(found[0], ":status: 302");
    assert_eq!(found[3], "location: https://www.example.com");
    let found = fields(&mut decoder, &octets("4803 3330 37c1 c0bf")).expect("a block");
    assert_eq!(
        found,
        [
            ":status: 307",
            "cache-control: private",
            "date: Mon, 21 Oct 2013 20:13:21 GMT",
            "location: https://www.example.com"
        ]
    );
    // The status of the first is gone: the fifth entry.
    assert_eq!(fields(&mut decoder, &[0xc2]), None);
}

#[test]
fn what_is_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new();
    let small = [0x40, 1, b'a', 1, b'b'];
    assert!(fields(&mut decoder, &small).is_some());
    assert_eq!(fields(&mut decoder, &[0xbe]), Some(vec!["a: b".into()]));
    let mut large = vec![0x40, 1, b'a', 0x7f, 0xa1, 0x1f];
    large.extend([b'x'; 4128]);
    assert!(fields(&mut decoder, &large).is_some());
    assert_eq!(fields(&mut decoder, &[0xbe]), None);
}

#[test]
fn what_is_no_block() {
    for block in [
        &[0x80][..],
        &[0xbe],
        &[0x7f, 0x00, 1, b'a'],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // A larger table than allowed, and a change behind a field.
        &[0x3f, 0xe2, 0x1f],
        &[0x82, 0x20],
        // Cut off.
        &[0x10],
        &[0x10, 1, b'a'],
        &[0x10, 5, b'a', 1],
        &[0x3f],
    ] {
        assert_eq!(fields(&mut Decoder::new(), block), None, "{block:x?}");
    }
}

#[test]
fn huffmans_code() {
    for (octets, text) in [
        (
            &[
                0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
            ][..],
            "www.example.com",
        ),
        (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
        (
            &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
            "custom-value",
        ),
        (&[], ""),
    ] {
        let mut out = Vec::new();
        assert_eq!(huffman::decode(octets, &mut out), Ok(()));
        assert_eq!(out, text.as_bytes());
    }
    // Padding of eight bits or more, or of other bits than ones; EOS itself (RFC 7541 §5.2).
    for octets in [
        &[0xff][..],
        &[0xf8, 0xff],
        &[0x00],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfc],
    ] {
        assert!(
            huffman::decode(octets, &mut Vec::new()).is_err(),
            "{octets:?}"
        );
    }
}

/// Each octet, alone and among others, coded by the lengths of the words bit by bit.
#[test]
fn huffmans_code_of_every_octet() {
    // Canonical: words of one length follow each other, in the order of what they stand for.
    let lengths = super::tables::WORD_LENGTHS;
    let mut words = [(0u32, 0u8); 257];
    let mut word = 0;
    for length in 1..=30 {
        for (symbol, bits) in lengths.iter().enumerate() {
            if *bits == length {
                words[symbol] = (word, length);
                word += 1;
            }
        }
        word <<= 1;
    }
    let coded = |text: &[u8]| {
        let mut bits = Vec::new();
        for octet in text {
            let (word, length) = words[usize::from(*octet)];
            bits.extend((0..length).rev().map(|at| word >> at & 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(1);
        }
        let octet = |bits: &[u32]| {
            bits.iter()
                .fold(0u8, |sum, bit| sum << 1 | u8::from(*bit == 1))
        };
        bits.chunks(8).map(octet).collect::<Vec<u8>>()
    };
    let all: Vec<u8> = (0..=255).collect();
    for text in all.chunks(1).chain([&all[..], &all[7..200]]) {
        let mut out = Vec::new();
        assert_eq!(huffman::decode(&coded(text), &mut out), Ok(()), "{text:?}");
        assert_eq!(out, text);
    }
}

#[test]
fn what_is_encoded_is_decoded() {
    let mut block = Vec::new();
    encoder::table_size_zero(&mut block);
    encoder::status(&mut block, http::StatusCode::OK);
    encoder::status(&mut block, http::StatusCode::IM_A_TEAPOT);
    let long = "v".repeat(20_000);
    let mut expected = vec![":status: 200".to_owned(), ":status: 418".to_owned()];
    let mut put = |name: &str, value: &str| {
        encoder::field(&mut block, name.as_bytes(), value.as_bytes());
        expected.push(format!("{name}: {value}"));
    };
    for (name, _) in STATIC.iter().filter(|(name, _)| !name.starts_with(':')) {
        put(name, "x");
    }
    put("x-long", &long);
    put("x-empty", "");
    assert_eq!(fields(&mut Decoder::new(), &block), Some(expected));
}
