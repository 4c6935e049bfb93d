//! From header blocks to fields.

use std::collections::VecDeque;

use super::{Malformed, huffman, integer, tables::STATIC};

/// The most a table takes (RFC 9113 §6.5.2: what it is if nobody says otherwise).
const TABLE: usize = 4096;
/// What an entry costs beside its octets (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// One side's table, and the blocks that build on it. After an error it is of no use.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
    /// A name and a value that do not stand in a block or table as they are.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    octets: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.octets.split_at_checked(self.name).unwrap_or_default()
    }
}

/// Where a string is.
enum Text<'b> {
    Block(&'b [u8]),
    /// In the scratch, from and to.
    Scratch(usize, usize),
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Decoder {
            entries: VecDeque::new(),
            size: 0,
            most: TABLE,
            scratch: Vec::new(),
        }
    }

    /// Give `take` every name and value of a whole block, in order. What it wants no more it may
    /// ignore: the block still is read to its end.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let block = &mut block;
        // RFC 7541 §4.2: a change of size comes before the first field.
        let mut begun = false;
        while let Some(first) = block.first().copied() {
            if first & 0xe0 == 0x20 {
                let most = integer::take(block, 5)?;
                if begun || most > TABLE {
                    return Err(Malformed);
                }
                self.most = most;
                self.fit(0);
                continue;
            }
            begun = true;
            if first & 0x80 != 0 {
                let index = integer::take(block, 7)?;
                let (name, value) = self.entry(index)?;
                take(name, value);
                continue;
            }
            let (kept, bits) = match first {
                0x40.. => (true, 6),
                _ => (false, 4),
            };
            self.scratch.clear();
            let index = integer::take(block, bits)?;
            let named = match index {
                0 => Some(self.string(block)?),
                _ => None,
            };
            let value = self.string(block)?;
            self.literal(index, named.as_ref(), &value, kept, &mut take)?;
        }
        if self.scratch.capacity() > TABLE {
            // It was a long one.
            self.scratch = Vec::new();
        }
        Ok(())
    }

    fn literal(
        &mut self,
        index: usize,
        named: Option<&Text<'_>>,
        value: &Text<'_>,
        kept: bool,
        take: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        let entry = {
            let name = match named {
                Some(name) => self.text(name),
                None => self.entry(index)?.0,
            };
            let value = self.text(value);
            take(name, value);
            kept.then(|| Entry {
                octets: [name, value].concat().into(),
                name: name.len(),
            })
        };
        if let Some(entry) = entry {
            self.keep(entry);
        }
        Ok(())
    }

    fn text<'t>(&'t self, text: &'t Text<'_>) -> &'t [u8] {
        match *text {
            Text::Block(octets) => octets,
            Text::Scratch(from, to) => self.scratch.get(from..to).unwrap_or_default(),
        }
    }

    /// What an index stands for: first the static table, then ours (RFC 7541 §2.3.3).
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let at = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(at - STATIC.len()).ok_or(Malformed)?;
        Ok(entry.parts())
    }

    fn string<'b>(&mut self, block: &mut &'b [u8]) -> Result<Text<'b>, Malformed> {
        let coded = block.first().is_some_and(|octet| octet & 0x80 != 0);
        let length = integer::take(block, 7)?;
        let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
        *block = rest;
        if !coded {
            return Ok(Text::Block(text));
        }
        let from = self.scratch.len();
        huffman::decode(text, &mut self.scratch)?;
        Ok(Text::Scratch(from, self.scratch.len()))
    }

    /// RFC 7541 §4.4: what is larger than the table empties it.
    fn keep(&mut self, entry: Entry) {
        let size = entry.octets.len() + OVERHEAD;
        self.fit(size);
        if size <= self.most {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Make room for so much.
    fn fit(&mut self, more: usize) {
        while self.size + more > self.most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.octets.len() + OVERHEAD;
        }
    }
}
