//! What is taken from and told to a neighbour: everything, nothing, or what a policy says.

use super::{AttributesId, PeerIndex, Shard, emit::own_next_hop, peer_mut, peers::NextHop};
use crate::{
    policy::{self, Context, Policy, Subject},
    wire::{AttributesView, Family, Section},
};

/// What is taken from, or told to, a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Everything.
    Accept,
    /// Nothing (RFC 8212: what holds for external neighbours where nobody says otherwise).
    Reject,
    /// What a policy says, route by route.
    Policy(Policy),
}

impl From<Policy> for Filter {
    /// A policy that need not be asked becomes [`Filter::Accept`] or [`Filter::Reject`].
    fn from(policy: Policy) -> Self {
        if policy.accepts_everything() {
            Filter::Accept
        } else if policy == Policy::REJECT {
            Filter::Reject
        } else {
            Filter::Policy(policy)
        }
    }
}

/// What a policy has decided, so that nothing usual happens to it on the way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    /// The next hop.
    pub(super) next_hop: bool,
    /// MULTI_EXIT_DISC.
    pub(super) med: bool,
}

/// What a filter makes of a route.
pub(super) enum Outcome {
    Reject,
    /// It passes as it is.
    Accept(Chosen),
    /// It passes with the attributes written.
    Edited(Chosen),
}

/// Who asks a filter: our AS, and what is told as our next hop.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) asn: u32,
    pub(super) next_hop: &'a NextHop,
}

impl Filter {
    /// Asks about one route; `out` has the attributes if they were edited.
    pub(super) fn apply(
        &self,
        asking: Asking<'_>,
        family: Family,
        key: &[u8],
        attributes: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let policy = match self {
            Filter::Accept => return Outcome::Accept(Chosen::default()),
            Filter::Reject => return Outcome::Reject,
            Filter::Policy(policy) => policy,
        };
        let told = AttributesView(attributes).next_hop();
        let own = asking.next_hop.addresses();
        let own = own.and_then(|own| own_next_hop(own, family, told));
        let context = Context {
            own_asn: asking.asn,
            own_next_hop: own.unwrap_or_default(),
        };
        let subject = Subject {
            family,
            key,
            attributes,
        };
        let decision = policy.evaluate(&subject, &context, out);
        let chosen = Chosen {
            next_hop: match decision.next_hop {
                None => false,
                // Without an address of ours there is nothing to keep: the usual happens.
                Some(policy::NextHop::Own) => own.is_some(),
                Some(policy::NextHop::Unchanged | policy::NextHop::Address(_)) => true,
            },
            med: decision.med,
        };
        match decision.outcome {
            policy::Outcome::Reject => Outcome::Reject,
            policy::Outcome::Accept => Outcome::Accept(chosen),
            policy::Outcome::AcceptEdited => Outcome::Edited(chosen),
        }
    }
}

impl Shard {
    /// Take what the neighbour's import filter takes; what it said before of the rest is gone.
    pub(super) fn import(
        &mut self,
        at: usize,
        index: PeerIndex,
        section: &Section<'_>,
        attributes: &[u8],
        mine: impl Fn(&[u8]) -> bool,
    ) {
        let Some(peer) = peer_mut(&mut self.peers, index) else {
            return;
        };
        let filter = peer.config.import.clone();
        if *filter == Filter::Reject {
            if peer.routes[at] > 0 {
                self.withdraw(index, section, mine);
            }
            return;
        }
        let plain = self.acquire(attributes);
        if *filter == Filter::Accept {
            section.for_each(true, |nlri| {
                if mine(nlri.key) {
                    self.put(at, index, &nlri, plain);
                }
            });
        } else {
            let asn = self.config.asn;
            let next_hop = peer_mut(&mut self.peers, index)
                .map_or(NextHop::Unchanged, |peer| peer.config.next_hop.clone());
            let asking = Asking {
                asn,
                next_hop: &next_hop,
            };
            let mut out = Vec::new();
            // The routes of one message mostly come out alike.
            let mut last = (Vec::new(), AttributesId::NONE);
            section.for_each(true, |nlri| {
                if !mine(nlri.key) {
                    return;
                }
                match filter.apply(asking, section.family, nlri.key, attributes, &mut out) {
                    Outcome::Reject => self.take(at, index, nlri.key, nlri.path_id),
                    Outcome::Accept(_) => self.put(at, index, &nlri, plain),
                    Outcome::Edited(_) => {
                        if last.1 == AttributesId::NONE || last.0 != out {
                            let id = self.acquire(&out);
                            self.release(std::mem::replace(&mut last.1, id));
                            std::mem::swap(&mut last.0, &mut out);
                        }
                        self.put(at, index, &nlri, last.1);
                    }
                }
            });
            self.release(last.1);
        }
        self.release(plain);
    }

    /// The number of these attributes, with one use more.
    pub(super) fn acquire(&mut self, attributes: &[u8]) -> AttributesId {
        let interest = &mut self.interest;
        self.attributes
            .acquire(attributes, |view| interest.acquire(view))
    }
}
