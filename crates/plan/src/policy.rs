//! Policies toward routers as people write them, and what they become in `bgp`. One language for
//! a `BGPPeer` and for the file of `sealane bgp`.

use std::{collections::BTreeMap, fmt, net::IpAddr, num::NonZeroU32, str::FromStr, sync::Arc};

use bgp::{
    Family, Origin,
    policy::{
        Action, AsPathRegex, AsnSet, Communities, Community, CommunityPattern, CommunitySet,
        Condition, ExtendedCommunity, ExtendedPattern, LargeCommunity, LargePattern, Med, NextHop,
        Policy, PrefixRange, Prepended, Quantifier, Statement, Then, Verdict,
    },
    table::Filter,
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// Filters by name.
pub type Filters = BTreeMap<String, Arc<Filter>>;

/// A policy: the first statement that accepts or rejects a route decides.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PolicyFile {
    #[serde(default)]
    statements: Vec<StatementFile>,
    #[serde(default)]
    default: DefaultFile,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum DefaultFile {
    Accept,
    #[default]
    Reject,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ThenFile {
    Accept,
    Reject,
    Next,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StatementFile {
    name: String,
    #[serde(default)]
    r#match: MatchFile,
    #[serde(default)]
    set: SetFile,
    then: ThenFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct MatchFile {
    prefixes: Option<Vec<Text<PrefixRange>>>,
    communities: MatchCommunities,
    as_path: MatchPath,
    #[serde(deserialize_with = "some_families")]
    families: Option<Vec<Family>>,
    next_hop: Option<Vec<Text<PrefixRange>>>,
    origin: Option<OriginFile>,
    med: Option<Range>,
    local_pref: Option<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct MatchCommunities {
    any: Option<Vec<Text<Pattern>>>,
    all: Option<Vec<Text<Pattern>>>,
    none: Option<Vec<Text<Pattern>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct MatchPath {
    regex: Option<Text<AsPathRegex>>,
    originates: Option<Vec<Asns>>,
    contains: Option<Vec<Asns>>,
    neighbor: Option<Vec<Asns>>,
    length: Option<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct SetFile {
    local_pref: Option<u32>,
    #[serde(deserialize_with = "med")]
    med: Option<Med>,
    communities: SetCommunities,
    #[serde(deserialize_with = "prepend")]
    prepend: Option<Action>,
    next_hop: Option<Text<Hop>>,
    origin: Option<OriginFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
struct SetCommunities {
    replace: Vec<Text<AnyCommunity>>,
    remove: Vec<Text<Pattern>>,
    add: Vec<Text<AnyCommunity>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum OriginFile {
    Igp,
    Egp,
    Incomplete,
}

impl PolicyFile {
    /// As a table wants it.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let statements = self.statements.iter().map(|statement| Statement {
            name: statement.name.clone(),
            conditions: statement.r#match.conditions(),
            actions: statement.set.actions(),
            then: match statement.then {
                ThenFile::Accept => Then::Accept,
                ThenFile::Reject => Then::Reject,
                ThenFile::Next => Then::Next,
            },
        });
        Filter::from(Policy {
            statements: statements.collect(),
            default: match self.default {
                DefaultFile::Accept => Verdict::Accept,
                DefaultFile::Reject => Verdict::Reject,
            },
        })
    }
}

impl MatchFile {
    fn conditions(&self) -> Vec<Condition> {
        let prefixes =
            |ranges: &[Text<PrefixRange>]| Arc::new(ranges.iter().map(|range| range.0).collect());
        let asns = |all: &[Asns]| all.iter().map(|asns| asns.0..=asns.1).collect::<AsnSet>();
        let path = &self.as_path;
        let some = [
            self.families.clone().map(Condition::Family),
            self.prefixes
                .as_deref()
                .map(|p| Condition::Prefix(prefixes(p))),
            path.regex
                .as_ref()
                .map(|regex| Condition::Path(Arc::new(regex.0.clone()))),
            path.originates
                .as_deref()
                .map(|a| Condition::OriginAs(asns(a))),
            path.contains
                .as_deref()
                .map(|a| Condition::PathContains(asns(a))),
            path.neighbor
                .as_deref()
                .map(|a| Condition::NeighborAs(asns(a))),
            path.length
                .map(|range| Condition::PathLength(range.min as usize..=range.max as usize)),
            self.next_hop
                .as_deref()
                .map(|p| Condition::NextHop(prefixes(p))),
            self.origin.map(|origin| Condition::Origin(origin.into())),
            self.med.map(|range| Condition::Med(range.min..=range.max)),
            self.local_pref
                .map(|range| Condition::LocalPref(range.min..=range.max)),
        ];
        let mut conditions: Vec<Condition> = some.into_iter().flatten().collect();
        let communities = &self.communities;
        let any = |patterns: &[Text<Pattern>]| {
            let sets = sets(patterns).into_iter();
            let each = sets.map(|set| Condition::Communities(Quantifier::AnyOf, set));
            Condition::AnyOf(each.collect())
        };
        conditions.extend(communities.any.as_deref().map(any));
        let all = sets(communities.all.as_deref().unwrap_or_default()).into_iter();
        conditions.extend(all.map(|set| Condition::Communities(Quantifier::AllOf, set)));
        let none = communities.none.as_deref().map(any);
        conditions.extend(none.map(|any| Condition::Not(Box::new(any))));
        conditions
    }
}

impl SetFile {
    fn actions(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        actions.extend(self.local_pref.map(Action::LocalPref));
        actions.extend(self.med.map(Action::Med));
        actions.extend(self.origin.map(|origin| Action::Origin(origin.into())));
        let communities = &self.communities;
        actions.extend(
            lists(&communities.replace)
                .into_iter()
                .map(Action::ReplaceCommunities),
        );
        actions.extend(
            sets(&communities.remove)
                .into_iter()
                .map(Action::RemoveCommunities),
        );
        actions.extend(
            lists(&communities.add)
                .into_iter()
                .map(Action::AddCommunities),
        );
        actions.extend(self.prepend.clone());
        actions.extend(self.next_hop.as_ref().map(|hop| Action::NextHop(hop.0.0)));
        actions
    }
}

impl From<OriginFile> for Origin {
    fn from(origin: OriginFile) -> Self {
        match origin {
            OriginFile::Igp => Origin::Igp,
            OriginFile::Egp => Origin::Egp,
            OriginFile::Incomplete => Origin::Incomplete,
        }
    }
}

/// Something written as a text, read while the field's path is known.
#[derive(Clone, Debug)]
struct Text<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |error| D::Error::custom(format!("{text:?}: {error}"));
        text.parse().map(Text).map_err(wrong)
    }
}

/// A community of any size.
#[derive(Clone, Copy, Debug)]
enum AnyCommunity {
    Standard(Community),
    Extended(ExtendedCommunity),
    Large(LargeCommunity),
}

/// A pattern for communities of any size.
#[derive(Clone, Debug)]
enum Pattern {
    Standard(CommunityPattern),
    Extended(ExtendedPattern),
    Large(LargePattern),
}

const COMMUNITY: &str = "a community such as 65000:1, 65000:1:2 (large), rt:65000:1 or \
    ro:192.0.2.1:1 (extended), or a name such as NO_EXPORT or BLACKHOLE";

impl FromStr for AnyCommunity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let standard = || text.parse().map(AnyCommunity::Standard);
        let large = || text.parse().map(AnyCommunity::Large);
        let extended = || text.parse().map(AnyCommunity::Extended);
        let any = standard().or_else(|_| large()).or_else(|_| extended());
        any.map_err(|_| COMMUNITY)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let standard = || text.parse().map(Pattern::Standard);
        let large = || text.parse().map(Pattern::Large);
        let extended = || text.parse().map(Pattern::Extended);
        let any = standard().or_else(|_| large()).or_else(|_| extended());
        any.map_err(|_| format!("{COMMUNITY}; `*` stands for any number"))
    }
}

/// One set for each size that is there.
fn sets(patterns: &[Text<Pattern>]) -> Vec<Arc<CommunitySet>> {
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for Text(pattern) in patterns {
        match pattern.clone() {
            Pattern::Standard(pattern) => standard.push(pattern),
            Pattern::Extended(pattern) => extended.push(pattern),
            Pattern::Large(pattern) => large.push(pattern),
        }
    }
    let sets = [
        (!standard.is_empty()).then(|| CommunitySet::standard(standard)),
        (!extended.is_empty()).then(|| CommunitySet::extended(extended)),
        (!large.is_empty()).then(|| CommunitySet::large(large)),
    ];
    sets.into_iter().flatten().map(Arc::new).collect()
}

fn lists(communities: &[Text<AnyCommunity>]) -> Vec<Communities> {
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for Text(community) in communities {
        match *community {
            AnyCommunity::Standard(community) => standard.push(community),
            AnyCommunity::Extended(community) => extended.push(community),
            AnyCommunity::Large(community) => large.push(community),
        }
    }
    let lists = [
        (!standard.is_empty()).then_some(Communities::Standard(standard)),
        (!extended.is_empty()).then_some(Communities::Extended(extended)),
        (!large.is_empty()).then_some(Communities::Large(large)),
    ];
    lists.into_iter().flatten().collect()
}

/// `self`, `unchanged` or an address.
#[derive(Clone, Copy, Debug)]
struct Hop(NextHop);

impl FromStr for Hop {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "self" => Ok(Hop(NextHop::Own)),
            "unchanged" => Ok(Hop(NextHop::Unchanged)),
            address => match address.parse::<IpAddr>() {
                Ok(address) => Ok(Hop(NextHop::Address(address))),
                Err(_) => Err("self, unchanged, or an address such as 192.0.2.1"),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u32),
    Text(String),
}

/// AS numbers from one to another.
#[derive(Clone, Copy, Debug)]
struct Asns(u32, u32);

impl<'de> Deserialize<'de> for Asns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("an AS number such as 65001, or a range 65100-65199");
        match NumberOrText::deserialize(deserializer).map_err(|_| wrong())? {
            NumberOrText::Number(asn) => Ok(Asns(asn, asn)),
            NumberOrText::Text(text) => {
                let (low, high) = text.split_once('-').unwrap_or((&text, &text));
                match (low.trim().parse(), high.trim().parse()) {
                    (Ok(low), Ok(high)) if low <= high => Ok(Asns(low, high)),
                    _ => Err(wrong()),
                }
            }
        }
    }
}

/// Numbers from one to another, both in.
#[derive(Clone, Copy, Debug)]
struct Range {
    min: u32,
    max: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    min: Option<u32>,
    max: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrBounds {
    Number(u32),
    Bounds(Bounds),
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("a number, or { min: 10, max: 20 } with one or both");
        let (min, max) = match NumberOrBounds::deserialize(deserializer).map_err(|_| wrong())? {
            NumberOrBounds::Number(number) => (number, number),
            NumberOrBounds::Bounds(Bounds {
                min: None,
                max: None,
            }) => return Err(wrong()),
            NumberOrBounds::Bounds(bounds) => {
                (bounds.min.unwrap_or(0), bounds.max.unwrap_or(u32::MAX))
            }
        };
        if min > max {
            return Err(D::Error::custom("min is more than max"));
        }
        Ok(Range { min, max })
    }
}

fn some_families<'de, D: Deserializer<'de>>(of: D) -> Result<Option<Vec<Family>>, D::Error> {
    families(of).map(Some)
}

/// A number, `remove`, `+10` or `-10`.
fn med<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Med>, D::Error> {
    let wrong = || D::Error::custom("a number, \"+10\" or \"-10\" to change it, or `remove`");
    match NumberOrText::deserialize(deserializer).map_err(|_| wrong())? {
        NumberOrText::Number(number) => Ok(Some(Med::Set(number))),
        NumberOrText::Text(text) if text == "remove" => Ok(Some(Med::Remove)),
        NumberOrText::Text(text) if text.starts_with(['+', '-']) => text
            .parse()
            .map(|by| Some(Med::Add(by)))
            .map_err(|_| wrong()),
        NumberOrText::Text(_) => Err(wrong()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrependOther {
    asn: NonZeroU32,
    times: u8,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PrependFile {
    Times(u8),
    Other(PrependOther),
}

/// The most times an AS is put before a path: more is most likely an error.
const MAX_PREPEND: u8 = 32;

fn prepend<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Action>, D::Error> {
    let wrong = || {
        D::Error::custom(
            "how often our AS is put before the path, 1 to 32, or { asn: 65001, times: 2 }",
        )
    };
    let (asn, times) = match PrependFile::deserialize(deserializer).map_err(|_| wrong())? {
        PrependFile::Times(times) => (Prepended::Own, times),
        PrependFile::Other(PrependOther { asn, times }) => (Prepended::Asn(asn), times),
    };
    if !(1..=MAX_PREPEND).contains(&times) {
        return Err(wrong());
    }
    Ok(Some(Action::Prepend { asn, times }))
}

/// All policies of a file.
///
/// # Errors
/// The name that none may have.
pub fn filters(policies: &BTreeMap<String, PolicyFile>) -> Result<Filters, &str> {
    let mut filters = Filters::new();
    for (name, policy) in policies {
        if matches!(name.as_str(), "accept" | "reject") {
            return Err(name);
        }
        filters.insert(name.clone(), Arc::new(policy.filter()));
    }
    filters.insert("accept".to_owned(), Arc::new(Filter::Accept));
    filters.insert("reject".to_owned(), Arc::new(Filter::Reject));
    Ok(filters)
}

/// The policy of these statements, which rejects what none decides.
///
/// # Errors
/// Where in the statements (`/0/match/prefixes/1`) something is wrong, and what would be right.
pub(crate) fn of_statements(
    statements: &[api::PolicyStatement],
) -> Result<PolicyFile, (String, String)> {
    let each = statements.iter().enumerate().map(|(at, statement)| {
        let value = serde_json::Value::Object(statement.0.clone());
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inner = api::path_pointer(error.path());
            (format!("/{at}{inner}"), error.inner().to_string())
        })
    });
    Ok(PolicyFile {
        statements: each.collect::<Result<_, _>>()?,
        default: DefaultFile::Reject,
    })
}

/// Families by their names.
///
/// # Errors
/// A name that no family has.
pub fn families<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Family>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let family = |name: &String| {
        name.parse().map_err(|_| {
            D::Error::custom(format!(
                "{name:?} is no family: ipv4, ipv6, vpnv4, vpnv6, rtc, flow4, flow6, flowvpn4, \
                 flowvpn6 or mesh"
            ))
        })
    };
    names.iter().map(family).collect()
}
