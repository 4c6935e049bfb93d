//! Field sections without a dynamic table (RFC 9204).

use std::ops::Range;

use super::tables::STATIC;
use crate::hpack::{huffman, integer};

/// What a field costs beside its octets (RFC 9114 §4.2.2).
const OVERHEAD: usize = 32;

/// Why a section is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionError {
    /// It is none, or refers to a table that was not offered: both sides differ from now on.
    Malformed,
    /// It is longer, or has more fields, than it may.
    TooLarge,
}

const MALFORMED: SectionError = SectionError::Malformed;

/// Fields in the order in which they came; nothing about them was checked.
#[derive(Debug, Default)]
pub(crate) struct Section {
    octets: Vec<u8>,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Section {
    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |range: &Range<usize>| self.octets.get(range.clone()).unwrap_or_default();
        let fields = self.fields.iter();
        fields.map(move |(name, value)| (part(name), part(value)))
    }

    /// Decode a section of at most `octets` octets, counted as RFC 9114 §4.2.2 does, and `fields`
    /// fields.
    pub(crate) fn decode(
        mut block: &[u8],
        octets: usize,
        fields: usize,
    ) -> Result<Self, SectionError> {
        let block = &mut block;
        // RFC 9204 §4.5.1: no insert is needed; the base says nothing then.
        if integer(block, 8)? != 0 {
            return Err(MALFORMED);
        }
        integer(block, 7)?;
        let mut section = Section::default();
        let mut left = octets;
        while let Some(first) = block.first().copied() {
            let start = section.octets.len();
            let value;
            if first & 0x80 != 0 {
                let (name, text) = listed(first & 0x40, integer(block, 6)?)?;
                section.octets.extend_from_slice(name.as_bytes());
                value = section.octets.len();
                section.octets.extend_from_slice(text.as_bytes());
            } else {
                if first & 0x40 != 0 {
                    let (name, _) = listed(first & 0x10, integer(block, 4)?)?;
                    section.octets.extend_from_slice(name.as_bytes());
                } else if first & 0x20 != 0 {
                    section.string(block, 3, left)?;
                } else {
                    // Both refer to what comes after the base.
                    return Err(MALFORMED);
                }
                value = section.octets.len();
                section.string(block, 7, left)?;
            }
            let end = section.octets.len();
            let cost = end - start + OVERHEAD;
            left = left.checked_sub(cost).ok_or(SectionError::TooLarge)?;
            if section.fields.len() >= fields {
                return Err(SectionError::TooLarge);
            }
            section.fields.push((start..value, value..end));
        }
        Ok(section)
    }

    /// A string whose length has a prefix of so many bits, and the bit before them for Huffman.
    fn string(&mut self, block: &mut &[u8], bits: u8, most: usize) -> Result<(), SectionError> {
        let coded = block.first().is_some_and(|b| b >> bits & 1 == 1);
        let length = integer(block, bits)?;
        let (text, rest) = block.split_at_checked(length).ok_or(MALFORMED)?;
        *block = rest;
        // Nobody codes what is longer coded.
        if text.len() > most {
            return Err(SectionError::TooLarge);
        }
        if coded {
            huffman::decode(text, &mut self.octets).map_err(|_| MALFORMED)
        } else {
            self.octets.extend_from_slice(text);
            Ok(())
        }
    }
}

/// What stands in the static table; no other is there.
fn listed(is_static: u8, index: usize) -> Result<(&'static str, &'static str), SectionError> {
    let entry = STATIC.get(index).filter(|_| is_static != 0);
    entry.copied().ok_or(MALFORMED)
}

fn integer(block: &mut &[u8], bits: u8) -> Result<usize, SectionError> {
    integer::take(block, bits).map_err(|_| MALFORMED)
}

/// A section of ours.
#[derive(Debug)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    /// Nothing so far.
    pub(crate) fn new() -> Self {
        // No insert is needed, and the base is zero.
        Encoder(vec![0, 0])
    }

    /// A response's status.
    pub(crate) fn status(&mut self, status: http::StatusCode) {
        self.field(b":status", status.as_str().as_bytes());
    }

    /// One more field; its name is in lower case.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8]) {
        let out = &mut self.0;
        let mut named = None;
        for (index, (theirs, text)) in STATIC.iter().enumerate() {
            if theirs.as_bytes() == name {
                if text.as_bytes() == value {
                    return integer::put(out, 0xc0, 6, index);
                }
                named = named.or(Some(index));
            }
        }
        match named {
            Some(index) => integer::put(out, 0x50, 4, index),
            None => {
                integer::put(out, 0x20, 3, name.len());
                out.extend_from_slice(name);
            }
        }
        integer::put(out, 0, 7, value.len());
        out.extend_from_slice(value);
    }

    /// The section.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}
