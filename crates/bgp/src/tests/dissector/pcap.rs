//! A capture file as small as can be: one direction of one TCP connection from port 179.

const ETHERNET: u32 = 1;
const TCP: u8 = 6;
/// Push and acknowledge.
const FLAGS: u8 = 0x18;

/// Each of `segments` becomes one packet, a millisecond after the one before; at most 65,495
/// octets each.
pub(super) fn capture(segments: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    // Magic, version 2.4, time zone and its accuracy, longest packet, kind of link.
    out.extend(0xA1B2_C3D4u32.to_be_bytes());
    out.extend([0, 2, 0, 4]);
    out.extend([0; 8]);
    out.extend(0xFFFF_u32.to_be_bytes());
    out.extend(ETHERNET.to_be_bytes());
    let mut sequence = 1u32;
    for (n, payload) in (0u32..).zip(segments) {
        let frame = [&ethernet()[..], &ip(payload), &tcp(sequence), payload].concat();
        let length = u32::try_from(frame.len()).expect("a small packet");
        out.extend((1_800_000_000 + n / 1000).to_be_bytes());
        out.extend((n % 1000 * 1000).to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(frame);
        sequence += u32::try_from(payload.len()).expect("a small packet");
    }
    out
}

fn ethernet() -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 2][..], &[2, 0, 0, 0, 0, 1], &[0x08, 0x00]].concat()
}

fn ip(payload: &[u8]) -> [u8; 20] {
    let length = u16::try_from(40 + payload.len()).expect("a small packet");
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8] = 64;
    header[9] = TCP;
    header[12..16].copy_from_slice(&[10, 0, 0, 1]);
    header[16..20].copy_from_slice(&[10, 0, 0, 2]);
    let mut sum: u32 = header
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The checksum is left out: nobody verifies it in a capture, where cards fill it in later.
fn tcp(sequence: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&179u16.to_be_bytes());
    header[2..4].copy_from_slice(&40_000u16.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..12].copy_from_slice(&1u32.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = FLAGS;
    header[14..16].copy_from_slice(&0xFFFFu16.to_be_bytes());
    header
}
