//! Numbered places that never move, and bits by the same numbers.

/// Entries of a chunk. A table that grows by chunks never copies itself and never holds twice
/// what it needs.
const CHUNK: usize = 1024;

/// A growing list in chunks; places are used again, lowest cost first.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    length: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            chunks: Vec::new(),
            free: Vec::new(),
            length: 0,
        }
    }
}

impl<T> Slab<T> {
    /// One more than the highest place ever used.
    pub(super) const fn end(&self) -> u32 {
        self.length
    }

    pub(super) fn get(&self, at: u32) -> &T {
        &self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    pub(super) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.chunks[at as usize / CHUNK][at as usize % CHUNK]
    }

    /// Put `value` somewhere.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            *self.get_mut(at) = value;
            return at;
        }
        let at = self.length;
        if (at as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(value);
        }
        self.length += 1;
        at
    }

    /// Give a place back; `empty` stays in it.
    pub(super) fn remove(&mut self, at: u32, empty: T) -> T {
        self.free.push(at);
        std::mem::replace(self.get_mut(at), empty)
    }

    /// Places in use.
    pub(super) fn len(&self) -> usize {
        self.length as usize - self.free.len()
    }
}

/// A column beside a [`Slab`]: one small value a place, made when first written.
#[derive(Debug)]
pub(super) struct Column<T> {
    chunks: Vec<Box<[T]>>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Column { chunks: Vec::new() }
    }
}

impl<T: Copy + Default> Column<T> {
    pub(super) fn get(&self, at: u32) -> T {
        self.chunks
            .get(at as usize / CHUNK)
            .map_or_else(T::default, |chunk| chunk[at as usize % CHUNK])
    }

    pub(super) fn set(&mut self, at: u32, value: T) {
        let chunk = at as usize / CHUNK;
        while self.chunks.len() <= chunk {
            self.chunks.push(vec![T::default(); CHUNK].into());
        }
        self.chunks[chunk][at as usize % CHUNK] = value;
    }
}

/// One bit a place.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    pub(super) fn contains(&self, at: u32) -> bool {
        self.words
            .get(at as usize / 64)
            .is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    /// Set a bit; was it clear?
    pub(super) fn insert(&mut self, at: u32) -> bool {
        let word = at as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (at % 64);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += usize::from(fresh);
        fresh
    }

    /// Clear a bit; was it set?
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let Some(word) = self.words.get_mut(at as usize / 64) else {
            return false;
        };
        let bit = 1 << (at % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(was);
        was
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Everything that is in `other` too.
    pub(super) fn extend(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.count = 0;
        for (i, word) in self.words.iter_mut().enumerate() {
            *word |= other.words.get(i).copied().unwrap_or(0);
            self.count += word.count_ones() as usize;
        }
    }

    /// The first set bit from `from` on.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let mut index = from as usize / 64;
        let mut word = self.words.get(index)? & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = *self.words.get(index)?;
        }
        u32::try_from(index * 64)
            .ok()
            .map(|base| base + word.trailing_zeros())
    }
}
