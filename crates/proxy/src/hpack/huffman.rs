//! The Huffman code of field sections (RFC 7541 §5.2, Appendix B). It is canonical, so the lengths
//! of its words say all.

use super::{Malformed, tables::WORD_LENGTHS};

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

/// For what the next eight bits begin with: the octet of the word that is whole in them, and its
/// length; 0 where it is longer.
static SHORT: [(u8, u8); 256] = short();

#[expect(
    clippy::cast_possible_truncation,
    reason = "eight bits, and octets that have so few"
)]
const fn short() -> [(u8, u8); 256] {
    let mut short = [(0, 0); 256];
    let mut bits = 0;
    while bits < 256 {
        let mut length = 1;
        while length <= 8 {
            let word = (bits >> (8 - length)) as u32;
            if let Some(place) = word.checked_sub(CANON.first[length])
                && place < CANON.count[length]
            {
                let symbol = CANON.symbols[(CANON.before[length] + place) as usize];
                short[bits] = (symbol as u8, length as u8);
                break;
            }
            length += 1;
        }
        bits += 1;
    }
    short
}

/// Append what `octets` stand for; at most eight fifths of their number.
pub(crate) fn decode(octets: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut octets = octets.iter();
    // The next bits, from the top.
    let (mut bits, mut have) = (0u64, 0usize);
    loop {
        while have <= 56
            && let Some(octet) = octets.next()
        {
            bits |= u64::from(*octet) << (56 - have);
            have += 8;
        }
        let (octet, length) = SHORT[(bits >> 56) as usize];
        let (octet, length) = match usize::from(length) {
            0 => long(bits)?,
            length => (octet, length),
        };
        if length > have {
            break;
        }
        out.push(octet);
        bits <<= length;
        have -= length;
    }
    // What is left is the beginning of EOS: ones, fewer than an octet.
    let padding = have < 8 && bits == !(u64::MAX >> have);
    padding.then_some(()).ok_or(Malformed)
}

/// The octet whose word these bits begin with, and its length, if that is more than eight.
fn long(bits: u64) -> Result<(u8, usize), Malformed> {
    for length in 9..=LONGEST {
        let word = u32::try_from(bits >> (64 - length)).map_err(|_| Malformed)?;
        let (Some(first), Some(count), Some(before)) = (
            CANON.first.get(length),
            CANON.count.get(length),
            CANON.before.get(length),
        ) else {
            return Err(Malformed);
        };
        let Some(place) = word.checked_sub(*first).filter(|place| place < count) else {
            continue;
        };
        let symbol = CANON.symbols.get((before + place) as usize).copied();
        // The end of a string is never said whole.
        let octet = symbol.and_then(|symbol| u8::try_from(symbol).ok());
        return Ok((octet.ok_or(Malformed)?, length));
    }
    Err(Malformed)
}
