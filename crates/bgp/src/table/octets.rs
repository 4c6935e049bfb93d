//! Short strings of octets without an allocation of their own.

use std::{fmt, ops::Deref};

/// At most `N` octets in place, more on the heap.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Octets<const N: usize> {
    /// Length and octets.
    Inline(u8, [u8; N]),
    /// Boxed twice, so that the pointer is a thin one.
    Heap(Box<Box<[u8]>>),
}

impl<const N: usize> Octets<N> {
    pub(super) fn new(octets: &[u8]) -> Self {
        match u8::try_from(octets.len()) {
            Ok(length) if octets.len() <= N => {
                let mut inline = [0; N];
                inline[..octets.len()].copy_from_slice(octets);
                Octets::Inline(length, inline)
            }
            Ok(_) | Err(_) => Octets::Heap(Box::new(octets.into())),
        }
    }
}

impl<const N: usize> Deref for Octets<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Octets::Inline(length, octets) => &octets[..usize::from(*length)],
            Octets::Heap(octets) => octets,
        }
    }
}

impl<const N: usize> fmt::Debug for Octets<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}
