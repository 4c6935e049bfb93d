//! Reading foreign octets without a way to read past their end, and writing our own.

/// A position in a slice; every read checks what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Cursor(octets)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// A length as the one octet it takes on the wire; what we write is never longer.
pub(crate) fn len8(n: usize) -> u8 {
    debug_assert!(n <= 0xFF, "{n} does not fit one octet");
    u8::try_from(n).unwrap_or(u8::MAX)
}

/// A length as the two octets it takes on the wire; what we write is never longer.
pub(crate) fn len16(n: usize) -> u16 {
    debug_assert!(n <= 0xFFFF, "{n} does not fit two octets");
    u16::try_from(n).unwrap_or(u16::MAX)
}
