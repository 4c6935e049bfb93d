//! Integers with a prefix (RFC 7541 §5.1).

use super::Malformed;

/// Take one with a prefix of so many bits, of six octets at most.
pub(crate) fn take(block: &mut &[u8], bits: u8) -> Result<usize, Malformed> {
    let (first, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    let mask = u8::MAX >> (8 - bits);
    let mut value = u64::from(first & mask);
    if first & mask != mask {
        return usize::try_from(value).map_err(|_| Malformed);
    }
    for shift in (0..35).step_by(7) {
        let (next, rest) = block.split_first().ok_or(Malformed)?;
        *block = rest;
        value += u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return usize::try_from(value).map_err(|_| Malformed);
        }
    }
    Err(Malformed)
}

/// Append one behind these flags.
#[expect(clippy::cast_possible_truncation, reason = "masked to what fits")]
pub(crate) fn put(out: &mut Vec<u8>, flags: u8, bits: u8, value: usize) {
    let most = usize::from(u8::MAX >> (8 - bits));
    if value < most {
        return out.push(flags | value as u8);
    }
    out.push(flags | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
