//! Keys that come by themselves: fetched from whoever publishes them, at the speed of facts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use arc_swap::{ArcSwapOption, Guard};

use super::{KeySet, TokenError, token::Token};

/// Where the keys of a provider stand.
#[derive(Debug)]
pub enum Keys {
    /// In the configuration.
    Given(KeySet),
    /// Wherever they are published: what was fetched last.
    Fetched(Arc<KeyCell>),
}

/// The keys that were fetched last; replaced without the table that looks at them.
#[derive(Debug, Default)]
pub struct KeyCell {
    keys: ArcSwapOption<KeySet>,
    wanted: AtomicBool,
}

impl KeyCell {
    /// From now on these.
    pub fn store(&self, keys: Arc<KeySet>) {
        self.keys.store(Some(keys));
    }

    /// Has a token named a key that is not there, since this was asked last?
    pub fn take_wanted(&self) -> bool {
        self.wanted.load(Relaxed) && self.wanted.swap(false, Relaxed)
    }

    fn load(&self) -> Guard<Option<Arc<KeySet>>> {
        self.keys.load()
    }
}

impl Keys {
    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let cell = match self {
            Keys::Given(keys) => return keys.verify(token),
            Keys::Fetched(cell) => cell,
        };
        let verified = match &*cell.load() {
            Some(keys) => keys.verify(token),
            None => Err(TokenError::NoKeys),
        };
        if matches!(verified, Err(TokenError::Key | TokenError::NoKeys)) {
            cell.wanted.store(true, Relaxed);
        }
        verified
    }

    /// Another for any other keys, as far as they are not of the configuration.
    pub(super) fn version(&self) -> u64 {
        match self {
            Keys::Given(_) => 0,
            Keys::Fetched(cell) => cell.load().as_ref().map_or(0, |keys| keys.version()),
        }
    }
}
