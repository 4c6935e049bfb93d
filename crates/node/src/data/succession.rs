//! When a process that takes another's place may serve: it has what that one had.

use std::time::Duration;

use base::Instant;
use pki::Identity;

/// A link that is not there by then is not waited for: its node may be gone, or linked to others.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is waited for.
pub(super) struct Succession {
    linked: Vec<Identity>,
    until: Instant,
}

impl Succession {
    /// The process before had links to these nodes.
    pub(super) fn new(now: Instant, linked: Vec<Identity>) -> Self {
        Succession {
            linked,
            until: now + PATIENCE,
        }
    }

    /// May this process serve, if its links to these nodes are settled?
    pub(super) fn is_over(&self, now: Instant, settled: impl Fn(&Identity) -> bool) -> bool {
        now >= self.until || self.linked.iter().all(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_over_serves_with_every_link_or_after_a_while() {
        let peer = |site: &str| -> Identity {
            let id = format!("spiffe://earth/tenant/fabric/site/{site}/node/n0");
            id.parse().expect("an identity")
        };
        let (par, lon) = (peer("par"), peer("lon"));
        let begin = Instant::ZERO;
        let succession = Succession::new(begin, vec![par.clone(), lon.clone()]);
        let late = begin + PATIENCE;
        for (now, settled, over) in [
            (begin, vec![], false),
            (begin, vec![&par], false),
            (begin, vec![&par, &lon], true),
            (late, vec![&lon], true),
        ] {
            let is_over = succession.is_over(now, |peer| settled.contains(&peer));
            assert_eq!(is_over, over, "{now:?} {}", settled.len());
        }
        assert!(Succession::new(begin, Vec::new()).is_over(begin, |_| false));
    }
}
