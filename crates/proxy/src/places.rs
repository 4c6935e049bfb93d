//! Places of one worker that many share, so that none takes them all.

use std::{cell::RefCell, collections::BTreeMap};

/// How many places each has taken: a load balancer of connections, a tenant of streams.
#[derive(Debug)]
pub(crate) struct Places<K: Ord>(RefCell<BTreeMap<K, usize>>);

/// One of them; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place<'p, K: Ord> {
    places: &'p Places<K>,
    whose: K,
}

impl<K: Ord> Default for Places<K> {
    fn default() -> Self {
        Places(RefCell::default())
    }
}

impl<K: Ord + Clone> Places<K> {
    /// One more place for `whose`, unless it has `most` already.
    pub(crate) fn take(&self, whose: K, most: usize) -> Option<Place<'_, K>> {
        let mut places = self.0.borrow_mut();
        let taken = places.entry(whose.clone()).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Place {
            places: self,
            whose,
        })
    }
}

impl<K: Ord> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let mut places = self.places.0.borrow_mut();
        if let Some(taken) = places.get_mut(&self.whose) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Name;

    use super::*;

    const MOST: usize = 512;

    #[test]
    fn nobody_alone_takes_all_places() {
        let passing = Places::default();
        let name = |name: &str| name.parse::<Name>().expect("a name");
        let acme: Vec<_> = (0..MOST)
            .map(|_| passing.take(name("acme"), MOST).expect("a place"))
            .collect();
        assert!(passing.take(name("acme"), MOST).is_none());
        assert!(passing.take(name("blue"), MOST).is_some());
        drop(acme);
        assert!(passing.0.borrow().is_empty());
    }
}
