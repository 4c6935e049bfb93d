//! Two processes of one node, while one takes the other's place.
//!
//! ```text
//! the next one:  stands by ──▶ serves
//! the old one:                 serves ──▶ leaves
//! ```
//! Each side of a link says how its process stands: in its first preface ([`crate::preface`]), and
//! from then on where it says what it loses, by a value that no measurement has. Who stands by or
//! leaves is not asked for anything new while somebody else of its site serves.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use path::Loss;

/// What is said in the place of a loss by a process that leaves, or that stands by.
const LEAVES: Loss = Loss(u16::MAX - 1);
const STANDS_BY: Loss = Loss(u16::MAX - 2);
/// The most that is measured.
const MOST: Loss = Loss(u16::MAX - 3);
/// Said of a link that is not to be used, however its process stands.
const NOT_THIS: Loss = Loss(u16::MAX);

/// How a process stands to what begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It takes what comes.
    #[default]
    Serves,
    /// It is about to take another's place.
    StandsBy,
    /// Another takes its place; what runs goes on.
    Leaves,
}

impl Standing {
    /// What it is when the other side said this of its loss.
    #[must_use]
    pub(crate) fn after(self, said: Loss) -> Self {
        match said {
            LEAVES => Standing::Leaves,
            STANDS_BY => Standing::StandsBy,
            NOT_THIS => self,
            _ => Standing::Serves,
        }
    }

    /// What is said of what is lost.
    #[must_use]
    pub(crate) fn word(self, measured: Loss) -> Loss {
        match self {
            Standing::Serves => measured.min(MOST),
            Standing::StandsBy => STANDS_BY,
            Standing::Leaves => LEAVES,
        }
    }

    /// As a preface begins: does it stand by?
    pub(crate) const fn first(stands_by: bool) -> Self {
        match stands_by {
            true => Standing::StandsBy,
            false => Standing::Serves,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Standing::Serves => 0,
            Standing::StandsBy => 1,
            Standing::Leaves => 2,
        }
    }

    const fn of(code: u8) -> Self {
        match code {
            1 => Standing::StandsBy,
            2 => Standing::Leaves,
            _ => Standing::Serves,
        }
    }
}

/// Is `now` to be said, after `before` was? Standing is always news.
pub(crate) fn is_news(now: Loss, before: Loss) -> bool {
    let word = |loss: Loss| loss > MOST;
    now.is_news(before) || ((word(now) || word(before)) && now != before)
}

/// A standing that any thread may read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stand(Arc<AtomicU8>);

impl Stand {
    pub(crate) fn new(standing: Standing) -> Self {
        Stand(Arc::new(AtomicU8::new(standing.code())))
    }

    pub(crate) fn now(&self) -> Standing {
        Standing::of(self.0.load(Ordering::Acquire))
    }

    /// True if it is another one than before.
    pub(crate) fn turn(&self, to: Standing) -> bool {
        self.0.swap(to.code(), Ordering::AcqRel) != to.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_goes_over_as_a_loss_that_nobody_measures() {
        let (none, all) = (Loss(0), Loss(u16::MAX));
        let hears = |from: Standing, said: Loss| from.after(said);
        for standing in [Standing::StandsBy, Standing::Leaves] {
            assert_eq!(hears(Standing::Serves, standing.word(all)), standing);
            assert_eq!(
                hears(standing, Standing::Serves.word(all)),
                Standing::Serves
            );
            assert!(is_news(Standing::Serves.word(all), standing.word(all)));
            assert!(is_news(standing.word(none), Standing::Serves.word(all)));
            assert!(!is_news(standing.word(none), standing.word(all)));
        }
        // What was not heard in between does no harm.
        assert_eq!(hears(Standing::StandsBy, LEAVES), Standing::Leaves);
        assert_eq!(hears(Standing::Leaves, STANDS_BY), Standing::StandsBy);
        // That a link is not to be used says nothing of its process.
        assert_eq!(hears(Standing::Leaves, all), Standing::Leaves);
        assert_eq!(hears(Standing::Serves, all), Standing::Serves);
        assert!(is_news(all, LEAVES) && is_news(LEAVES, all) && is_news(LEAVES, STANDS_BY));
    }
}
