//! Who may run beside whom.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURNS: RwLock<()> = RwLock::new(());

/// The right to run a planet. Take it first and hold it to the end of the test; take one only.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
pub struct Turn(Kind);

#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
enum Kind {
    Alone(RwLockWriteGuard<'static, ()>),
    Beside(RwLockReadGuard<'static, ()>),
}

impl Turn {
    /// For tests that measure time: no other planet of this process runs meanwhile.
    #[must_use]
    pub fn alone() -> Self {
        Turn(Kind::Alone(
            TURNS.write().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// For all other tests.
    #[must_use]
    pub fn beside() -> Self {
        Turn(Kind::Beside(
            TURNS.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}
