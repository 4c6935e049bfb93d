//! Glushkov's automaton: one state for each letter of the expression and no empty moves.
//!
//! The ends of the path are symbols too, so `^` and `$` are letters like others, and a match
//! anywhere is a match of the expression inside `start path end`.

use super::parse::{Letter, Tree};

/// What the automaton reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol<'a> {
    /// The near end.
    Start,
    /// An AS, or the members of a set.
    As(&'a [[u8; 4]]),
    /// The far end.
    End,
}

impl Letter {
    fn takes(&self, symbol: Symbol<'_>) -> bool {
        match (self, symbol) {
            (Letter::Start, Symbol::Start) | (Letter::End, Symbol::End) => true,
            (Letter::As { asns, negated }, Symbol::As(members)) => members
                .iter()
                .any(|asn| asns.contains(u32::from_be_bytes(*asn)) != *negated),
            (Letter::Start | Letter::End | Letter::As { .. }, _) => false,
        }
    }
}

/// A set of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct States([u64; Automaton::MAX / 64]);

impl States {
    const NONE: States = States([0; Automaton::MAX / 64]);

    fn one(state: usize) -> Self {
        let mut states = Self::NONE;
        states.insert(state);
        states
    }

    fn insert(&mut self, state: usize) {
        if let Some(word) = self.0.get_mut(state / 64) {
            *word |= 1 << (state % 64);
        }
    }

    fn with(mut self, other: &States) -> Self {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
        self
    }

    fn meets(&self, other: &States) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(index, word)| {
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|word| *word != 0)
                .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }
}

/// A compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Automaton {
    letters: Vec<Letter>,
    /// Which letters may come after each.
    follow: Vec<States>,
    /// Which may come first, and which end a match.
    whole: Part,
}

/// A part of the expression while it is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// Does it match nothing at all?
    empty: bool,
    first: States,
    last: States,
}

impl Part {
    const EMPTY: Part = Part {
        empty: true,
        first: States::NONE,
        last: States::NONE,
    };
}

impl Automaton {
    /// Bound on letters; a multiple of 64.
    pub(super) const MAX: usize = 512;
    /// Bound on the parts put together, for repetitions of what has no letters.
    const MAX_PARTS: usize = 16 * Self::MAX;

    /// `None`: more than [`MAX`](Self::MAX) letters.
    pub(super) fn new(tree: &Tree) -> Option<Self> {
        let mut automaton = Automaton {
            letters: vec![],
            follow: vec![],
            whole: Part::EMPTY,
        };
        automaton.whole = automaton.build(tree, &mut 0)?;
        Some(automaton)
    }

    /// Is there a match anywhere?
    pub(super) fn finds<'a>(&self, symbols: impl Iterator<Item = Symbol<'a>>) -> bool {
        if self.whole.empty {
            return true;
        }
        let mut states = States::NONE;
        for symbol in symbols {
            let mut candidates = self.whole.first;
            for state in states.iter() {
                if let Some(follow) = self.follow.get(state) {
                    candidates = candidates.with(follow);
                }
            }
            states = States::NONE;
            for state in candidates.iter() {
                if self
                    .letters
                    .get(state)
                    .is_some_and(|letter| letter.takes(symbol))
                {
                    states.insert(state);
                }
            }
            if states.meets(&self.whole.last) {
                return true;
            }
        }
        false
    }

    fn build(&mut self, tree: &Tree, parts: &mut usize) -> Option<Part> {
        *parts += 1;
        if *parts > Self::MAX_PARTS {
            return None;
        }
        match tree {
            Tree::Letter(letter) => {
                let state = self.letters.len();
                if state == Self::MAX {
                    return None;
                }
                self.letters.push(letter.clone());
                self.follow.push(States::NONE);
                Some(Part {
                    empty: false,
                    first: States::one(state),
                    last: States::one(state),
                })
            }
            Tree::Sequence(trees) => {
                let mut whole = Part::EMPTY;
                for tree in trees {
                    let part = self.build(tree, parts)?;
                    whole = self.join(&whole, &part);
                }
                Some(whole)
            }
            Tree::Either(trees) => {
                let mut whole = Part {
                    empty: false,
                    ..Part::EMPTY
                };
                for tree in trees {
                    let part = self.build(tree, parts)?;
                    whole = Part {
                        empty: whole.empty || part.empty,
                        first: whole.first.with(&part.first),
                        last: whole.last.with(&part.last),
                    };
                }
                Some(whole)
            }
            Tree::Repeat { tree, min, max } => self.repeat(tree, *min, *max, parts),
        }
    }

    /// `min` times, then as often as it may.
    fn repeat(
        &mut self,
        tree: &Tree,
        min: usize,
        max: Option<usize>,
        parts: &mut usize,
    ) -> Option<Part> {
        let mut whole = Part::EMPTY;
        for _ in 0..min {
            let part = self.build(tree, parts)?;
            whole = self.join(&whole, &part);
        }
        let Some(max) = max else {
            let mut part = self.build(tree, parts)?;
            self.lead(&part.last, &part.first);
            part.empty = true;
            return Some(self.join(&whole, &part));
        };
        for _ in min..max {
            let mut part = self.build(tree, parts)?;
            part.empty = true;
            whole = self.join(&whole, &part);
        }
        Some(whole)
    }

    /// `a`, then `b`.
    fn join(&mut self, a: &Part, b: &Part) -> Part {
        self.lead(&a.last, &b.first);
        let also = |yes: bool, states: &States| if yes { *states } else { States::NONE };
        Part {
            empty: a.empty && b.empty,
            first: a.first.with(&also(a.empty, &b.first)),
            last: b.last.with(&also(b.empty, &a.last)),
        }
    }

    /// After each of `from` each of `to` may come.
    fn lead(&mut self, from: &States, to: &States) {
        for state in from.iter() {
            if let Some(follow) = self.follow.get_mut(state) {
                *follow = follow.with(to);
            }
        }
    }
}
