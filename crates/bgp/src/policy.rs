//! Route policy: which routes pass between us and a neighbour, and what is changed on them.
//!
//! What it is: a [`Policy`] is a list of statements. Each has conditions, all of which must hold,
//! actions, and what then follows: accept, reject, or on to the next statement. It reads and
//! writes canonical attributes (see [`wire`](crate::wire)) and keeps nothing between two routes.
//! Everything costly (prefix sets, community sets, expressions over AS paths) is prepared when it
//! is made and shared by `Arc`; a policy that only accepts costs a look at its first statement.
//!
//! What it is not: it does not decide between routes, does not look for loops, and does not obey
//! NO_EXPORT and its kin ([`Community::allow_advertising`] says what they say; the table asks it
//! whatever the policy is). Its text form belongs to whoever reads configuration; the leaves
//! ([`PrefixRange`], patterns, [`AsPathRegex`]) parse themselves.
//!
//! # No policy
//! RFC 8212: to and from an external neighbour nothing passes until somebody says what may:
//! [`Policy::without_configuration`].
//!
//! ```
//! use bgp::Family;
//! use bgp::policy::{
//!     Action, Condition, Context, Outcome, Policy, PrefixSet, Statement, Subject, Then, Verdict,
//! };
//!
//! let ours: PrefixSet = ["10.0.0.0/8 le 24".parse().expect("a range")].into_iter().collect();
//! let policy = Policy {
//!     statements: vec![Statement {
//!         name: "ours".to_owned(),
//!         conditions: vec![Condition::Prefix(ours.into())],
//!         actions: vec![Action::LocalPref(200)],
//!         then: Then::Accept,
//!     }],
//!     default: Verdict::Reject,
//! };
//! let subject = Subject { family: Family { afi: 1, safi: 1 }, key: &[16, 10, 7], attributes: &[0x40, 1, 1, 0] };
//! let mut out = Vec::new();
//! let decision = policy.evaluate(&subject, &Context::default(), &mut out);
//! assert_eq!((decision.outcome, decision.statement), (Outcome::AcceptEdited, Some("ours")));
//! assert_eq!(out, [0x40, 1, 1, 0, 0x40, 5, 4, 0, 0, 0, 200]);
//! ```

mod apply;
mod community;
mod path;
mod prefix;
#[cfg(test)]
mod tests;
mod working;

use std::{net::IpAddr, num::NonZeroU32, ops::RangeInclusive, sync::Arc};

use crate::{Origin, wire::Family};

pub(crate) use apply::add_community;
pub use community::{
    Community, CommunityError, CommunityPattern, CommunitySet, ExtendedCommunity, ExtendedPattern,
    LargeCommunity, LargePattern, Quantifier,
};
pub use path::{AsPathRegex, AsPathRegexError, AsnSet};
pub use prefix::{PrefixRange, PrefixRangeError, PrefixSet};

use working::{Working, code};

/// What is done with routes in one direction with one group of neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Asked in order until one accepts or rejects.
    pub statements: Vec<Statement>,
    /// If none does.
    pub default: Verdict,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What operators call it; a decision names it.
    pub name: String,
    /// All must hold; none: it concerns every route.
    pub conditions: Vec<Condition>,
    /// Done in order. Later conditions, here and in later statements, see their effect.
    pub actions: Vec<Action>,
    /// What follows.
    pub then: Then,
}

/// Does the route pass?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, with all changes made so far.
    Accept,
    /// No.
    Reject,
}

/// What follows a statement whose conditions hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The route passes, with all changes made so far.
    Accept,
    /// It does not.
    Reject,
    /// The next statement is asked.
    Next,
}

/// Something that is true of a route or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is of one of these families.
    Family(Vec<Family>),
    /// Its prefix (behind the route distinguisher, if it has one) is in the set. A route of a
    /// family without prefixes never is.
    Prefix(Arc<PrefixSet>),
    /// Its communities of the set's size are as the quantifier says.
    Communities(Quantifier, Arc<CommunitySet>),
    /// One of these is in its AS path, outside confederation segments.
    PathContains(AsnSet),
    /// The last AS of its path is one of these; an AS_SET there is none, nor is an empty path.
    OriginAs(AsnSet),
    /// The first AS of its path is one of these, in the same way.
    NeighborAs(AsnSet),
    /// The length of its path as the decision counts it (RFC 4271 §9.1.2.2): a set is 1.
    PathLength(RangeInclusive<usize>),
    /// Its path matches.
    Path(Arc<AsPathRegex>),
    /// Its next hop, as a prefix of full length, is in the set: all of a subnet are
    /// `192.0.2.0/24 le 32`. Of two IPv6 next hops the global one counts.
    NextHop(Arc<PrefixSet>),
    /// Its ORIGIN.
    Origin(Origin),
    /// Its LOCAL_PREF; a route without one is in no range.
    LocalPref(RangeInclusive<u32>),
    /// Its MULTI_EXIT_DISC; a route without one is in no range.
    Med(RangeInclusive<u32>),
    /// One of these holds.
    AnyOf(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
}

/// Something done to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Changes MULTI_EXIT_DISC.
    Med(Med),
    /// Sets ORIGIN.
    Origin(Origin),
    /// Adds communities that are not there.
    AddCommunities(Communities),
    /// Removes all that match one of the patterns.
    RemoveCommunities(Arc<CommunitySet>),
    /// Removes all of that size, then adds these.
    ReplaceCommunities(Communities),
    /// Puts an AS before the path, so that others like it less.
    Prepend {
        /// Which.
        asn: Prepended,
        /// How often.
        times: u8,
    },
    /// Decides about the next hop.
    NextHop(NextHop),
}

/// Changes of MULTI_EXIT_DISC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Med {
    /// To this.
    Set(u32),
    /// By this, never below 0 or above 2³² − 1; a missing one counts as 0 (RFC 4271 §9.1.2.2).
    Add(i64),
    /// There is none.
    Remove,
}

/// Communities of one size, for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Communities {
    /// COMMUNITIES.
    Standard(Vec<Community>),
    /// EXTENDED_COMMUNITIES.
    Extended(Vec<ExtendedCommunity>),
    /// LARGE_COMMUNITY.
    Large(Vec<LargeCommunity>),
}

/// Which AS to put before a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepended {
    /// Ours: [`Context::own_asn`].
    Own,
    /// This one; never 0 (RFC 7607).
    Asn(NonZeroU32),
}

/// What the next hop becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// We ourselves: [`Context::own_next_hop`].
    Own,
    /// As it was received, even to an external neighbour (RFC 4271 §5.1.3, a third party).
    Unchanged,
    /// This address. For FlowSpec, which has no next hop, nothing happens.
    Address(IpAddr),
}

/// The route a policy is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its family.
    pub family: Family,
    /// Its canonical key.
    pub key: &'a [u8],
    /// Its canonical attributes.
    pub attributes: &'a [u8],
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// Our AS number toward this neighbour.
    pub own_asn: u32,
    /// Our next hop for this family and neighbour, as canonical attributes have it. Empty: it is
    /// not known yet; then [`NextHop::Own`] writes nothing, and [`Decision::next_hop`] says so.
    pub own_next_hop: &'a [u8],
}

/// What becomes of the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passes as it is; `out` is empty.
    Accept,
    /// It passes with the attributes in `out`.
    AcceptEdited,
    /// It does not pass; `out` is empty.
    Reject,
}

/// A policy's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// What becomes of the route.
    pub outcome: Outcome,
    /// The statement that decided; `None`: the policy's default.
    pub statement: Option<&'p str>,
    /// What the last action about the next hop said; `None`: do what is usual.
    pub next_hop: Option<NextHop>,
    /// An action decided about MULTI_EXIT_DISC, even if it came out as it was: it is ours now.
    pub med: bool,
}

impl Policy {
    /// A policy that lets everything pass unchanged.
    pub const ACCEPT: Policy = Policy {
        statements: Vec::new(),
        default: Verdict::Accept,
    };
    /// A policy that lets nothing pass.
    pub const REJECT: Policy = Policy {
        statements: Vec::new(),
        default: Verdict::Reject,
    };

    /// What holds where nobody configured a policy: nothing passes to or from an external
    /// neighbour (RFC 8212 §2), everything inside our AS.
    #[must_use]
    pub const fn without_configuration(ebgp: bool) -> Policy {
        if ebgp { Self::REJECT } else { Self::ACCEPT }
    }

    /// Does everything pass unchanged, whatever it is? Then it need not be asked.
    #[must_use]
    pub fn accepts_everything(&self) -> bool {
        match self.statements.first() {
            Some(first) => {
                first.conditions.is_empty()
                    && first.actions.is_empty()
                    && first.then == Then::Accept
            }
            None => self.default == Verdict::Accept,
        }
    }

    /// Does some action make us the next hop? Then our addresses have to be known.
    #[must_use]
    pub fn names_own_next_hop(&self) -> bool {
        let mut actions = self.statements.iter().flat_map(|s| &s.actions);
        actions.any(|action| matches!(action, Action::NextHop(NextHop::Own)))
    }

    /// Asks about one route. `out` is emptied, and filled with whole canonical attributes if some
    /// changed. A route that cannot be written as asked, because a value is longer than an
    /// attribute can be (65,535 octets), is rejected.
    pub fn evaluate<'p>(
        &'p self,
        subject: &Subject<'_>,
        context: &Context<'_>,
        out: &mut Vec<u8>,
    ) -> Decision<'p> {
        out.clear();
        let mut working = Working::new(subject.attributes);
        let mut next_hop = None;
        let mut med = false;
        let mut verdict = self.default;
        let mut decided = None;
        for statement in &self.statements {
            let mut conditions = statement.conditions.iter();
            if !conditions.all(|condition| condition.holds(subject, &working)) {
                continue;
            }
            if statement.then != Then::Reject {
                for action in &statement.actions {
                    action.apply(subject.family, context, &mut working);
                    if let Action::NextHop(chosen) = action {
                        next_hop = Some(*chosen);
                    }
                    med |= matches!(action, Action::Med(_));
                }
            }
            verdict = match statement.then {
                Then::Accept => Verdict::Accept,
                Then::Reject => Verdict::Reject,
                Then::Next => continue,
            };
            decided = Some(statement.name.as_str());
            break;
        }
        let outcome = match verdict {
            Verdict::Reject => Outcome::Reject,
            Verdict::Accept if !working.is_changed() => Outcome::Accept,
            Verdict::Accept => write(&working, subject.attributes, out),
        };
        Decision {
            outcome,
            statement: decided,
            next_hop,
            med,
        }
    }
}

/// Writes the changed attributes, unless they came out as they were.
fn write(working: &Working<'_>, before: &[u8], out: &mut Vec<u8>) -> Outcome {
    let written = working.write(out);
    if written.is_some() && out != before {
        return Outcome::AcceptEdited;
    }
    out.clear();
    match written {
        Some(()) => Outcome::Accept,
        None => Outcome::Reject,
    }
}

impl Condition {
    fn holds(&self, subject: &Subject<'_>, working: &Working<'_>) -> bool {
        let value = |code| working.get(code).unwrap_or_default();
        match self {
            Condition::Family(families) => families.contains(&subject.family),
            Condition::Prefix(set) => set.contains_key(subject.family, subject.key),
            Condition::Communities(quantifier, set) => set.matches(*quantifier, value(set.code())),
            Condition::PathContains(asns) => path::contains(value(code::AS_PATH), asns),
            Condition::OriginAs(asns) => {
                path::origin(value(code::AS_PATH)).is_some_and(|asn| asns.contains(asn))
            }
            Condition::NeighborAs(asns) => {
                path::neighbor(value(code::AS_PATH)).is_some_and(|asn| asns.contains(asn))
            }
            Condition::PathLength(range) => range.contains(&path::length(value(code::AS_PATH))),
            Condition::Path(regex) => regex.matches(value(code::AS_PATH)),
            Condition::NextHop(set) => {
                address(value(code::NEXT_HOP)).is_some_and(|address| set.contains_address(address))
            }
            Condition::Origin(origin) => value(code::ORIGIN) == [*origin as u8],
            Condition::LocalPref(range) => working
                .number(code::LOCAL_PREF)
                .is_some_and(|number| range.contains(&number)),
            Condition::Med(range) => working
                .number(code::MED)
                .is_some_and(|number| range.contains(&number)),
            Condition::AnyOf(conditions) => conditions
                .iter()
                .any(|condition| condition.holds(subject, working)),
            Condition::Not(condition) => !condition.holds(subject, working),
        }
    }
}

/// The address in a canonical next hop: the global one of two, without a route distinguisher.
fn address(next_hop: &[u8]) -> Option<IpAddr> {
    let octets = match next_hop.len() {
        12 | 24 | 48 => next_hop.get(8..)?,
        _ => next_hop,
    };
    match octets.first_chunk::<16>() {
        Some(octets) => Some(IpAddr::from(*octets)),
        None => Some(IpAddr::from(*octets.first_chunk::<4>()?)),
    }
}
