//! The Huffman code of field sections (RFC 7541 §5.2, Appendix B). It is canonical, so the lengths
//! of its words say all.

use super::tables::WORD_LENGTHS;

const LONGEST: usize = 30;
/// The end of a string, of which only a beginning may be there.
const EOS: u16 = 256;

/// For each length: its first word, how many have it, and how many shorter ones there are.
struct Canon {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    before: [u32; LONGEST + 1],
    /// By length, then by value.
    symbols: [u16; 257],
}

static CANON: Canon = canon();

const fn canon() -> Canon {
    let mut canon = Canon {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        before: [0; LONGEST + 1],
        symbols: [0; 257],
    };
    let (mut length, mut word, mut placed) = (1, 0, 0);
    while length <= LONGEST {
        canon.first[length] = word;
        canon.before[length] = placed;
        let mut symbol = 0;
        while symbol <= EOS {
            if WORD_LENGTHS[symbol as usize] as usize == length {
                canon.symbols[placed as usize] = symbol;
                canon.count[length] += 1;
                placed += 1;
                word += 1;
            }
            symbol += 1;
        }
        word <<= 1;
        length += 1;
    }
    canon
}

/// What is not this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotHuffman;

/// Append what `octets` stand for; at most eight fifths of their number.
pub(super) fn decode(octets: &[u8], out: &mut Vec<u8>) -> Result<(), NotHuffman> {
    let (mut word, mut length) = (0u32, 0usize);
    for octet in octets {
        for at in (0..8).rev() {
            word = word << 1 | u32::from(octet >> at & 1);
            length += 1;
            let (Some(first), Some(count), Some(before)) = (
                CANON.first.get(length),
                CANON.count.get(length),
                CANON.before.get(length),
            ) else {
                return Err(NotHuffman);
            };
            let Some(place) = word.checked_sub(*first).filter(|place| place < count) else {
                continue;
            };
            let symbol = CANON.symbols.get((before + place) as usize).copied();
            let octet = symbol.and_then(|symbol| u8::try_from(symbol).ok());
            out.push(octet.ok_or(NotHuffman)?);
            (word, length) = (0, 0);
        }
    }
    // What is left is the beginning of EOS: ones, fewer than an octet.
    let padding = length < 8 && word == (1 << length) - 1;
    padding.then_some(()).ok_or(NotHuffman)
}
