//! A route's attributes with what was changed so far.

/// Codes of the attributes a policy reads or writes.
pub(super) mod code {
    pub(in crate::policy) const ORIGIN: u8 = 1;
    pub(in crate::policy) const AS_PATH: u8 = 2;
    pub(in crate::policy) const MED: u8 = 4;
    pub(in crate::policy) const LOCAL_PREF: u8 = 5;
    pub(in crate::policy) const COMMUNITIES: u8 = 8;
    /// Where canonical attributes keep the next hop.
    pub(in crate::policy) const NEXT_HOP: u8 = 14;
    pub(in crate::policy) const EXTENDED_COMMUNITIES: u8 = 16;
    pub(in crate::policy) const LARGE_COMMUNITIES: u8 = 32;
}

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED_LENGTH: u8 = 0x10;

/// Canonical attributes and the changes to them; nothing is copied before the first change.
#[derive(Debug)]
pub(super) struct Working<'a> {
    base: &'a [u8],
    /// In order of code; `None`: the attribute is gone.
    changes: Vec<(u8, Option<Vec<u8>>)>,
}

impl<'a> Working<'a> {
    pub(super) const fn new(attributes: &'a [u8]) -> Self {
        Working {
            base: attributes,
            changes: Vec::new(),
        }
    }

    /// The value of an attribute as it is by now.
    pub(super) fn get(&self, code: u8) -> Option<&[u8]> {
        let at = self.changes.binary_search_by_key(&code, |(code, _)| *code);
        match at.ok().and_then(|at| self.changes.get(at)) {
            Some((_, value)) => value.as_deref(),
            None => read(self.base)
                .find(|attribute| attribute.code == code)
                .map(|attribute| attribute.value),
        }
    }

    /// The same for one of four octets.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        let octets = self.get(code)?.first_chunk()?;
        Some(u32::from_be_bytes(*octets))
    }

    /// Gives an attribute another value, or takes it away.
    pub(super) fn set(&mut self, code: u8, value: Option<Vec<u8>>) {
        match self.changes.binary_search_by_key(&code, |(code, _)| *code) {
            Ok(at) => self.changes[at].1 = value,
            Err(at) => self.changes.insert(at, (code, value)),
        }
    }

    /// Was anything set?
    pub(super) const fn is_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Writes the canonical attributes as they are by now behind `out`. `None`: a value is longer
    /// than an attribute can be.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Option<()> {
        let mut changes = self.changes.iter().peekable();
        for attribute in read(self.base) {
            while let Some((code, value)) = changes.next_if(|(code, _)| *code < attribute.code) {
                push(out, default_flags(*code), *code, value.as_deref())?;
            }
            let (flags, code) = (attribute.flags & !EXTENDED_LENGTH, attribute.code);
            match changes.next_if(|(changed, _)| *changed == code) {
                Some((_, value)) => push(out, flags, code, value.as_deref())?,
                None => push(out, flags, code, Some(attribute.value))?,
            }
        }
        changes
            .try_for_each(|(code, value)| push(out, default_flags(*code), *code, value.as_deref()))
    }
}

struct Attribute<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
}

/// Canonical attributes one by one; stops where the octets are none.
fn read(mut rest: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let (&[flags, code], tail) = rest.split_first_chunk()?;
        let (length, tail) = if flags & EXTENDED_LENGTH == 0 {
            let (&length, tail) = tail.split_first()?;
            (usize::from(length), tail)
        } else {
            let (length, tail) = tail.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), tail)
        };
        let (value, tail) = tail.split_at_checked(length)?;
        rest = tail;
        Some(Attribute { flags, code, value })
    })
}

/// The flags of an attribute that was not there before.
const fn default_flags(code: u8) -> u8 {
    match code {
        code::ORIGIN | code::AS_PATH | code::LOCAL_PREF => TRANSITIVE,
        code::MED | code::NEXT_HOP => OPTIONAL,
        _ => OPTIONAL | TRANSITIVE,
    }
}

fn push(out: &mut Vec<u8>, flags: u8, code: u8, value: Option<&[u8]>) -> Option<()> {
    let Some(value) = value else {
        return Some(());
    };
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, code, length]),
        Err(_) => {
            let [high, low] = u16::try_from(value.len()).ok()?.to_be_bytes();
            out.extend([flags | EXTENDED_LENGTH, code, high, low]);
        }
    }
    out.extend_from_slice(value);
    Some(())
}
