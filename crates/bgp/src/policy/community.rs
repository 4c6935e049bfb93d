//! Communities of the three sizes: names, text, patterns (RFC 1997, RFC 4360, RFC 5668, RFC 8092).

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A community of 4 octets (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Traffic may leave this way only in need: a session is about to close (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xFFFF_0000);
    /// A long-lived stale route (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xFFFF_0006);
    /// Not to be kept as long-lived stale (RFC 9494).
    pub const NO_LLGR: Community = Community(0xFFFF_0007);
    /// Discard traffic to this prefix (RFC 7999).
    pub const BLACKHOLE: Community = Community(0xFFFF_029A);
    /// Not outside this AS or confederation (RFC 1997).
    pub const NO_EXPORT: Community = Community(0xFFFF_FF01);
    /// To nobody (RFC 1997).
    pub const NO_ADVERTISE: Community = Community(0xFFFF_FF02);
    /// Not outside this AS or member AS (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xFFFF_FF03);
    /// Not to bilateral peers (RFC 3765).
    pub const NOPEER: Community = Community(0xFFFF_FF04);

    const NAMES: [(&'static str, Community); 8] = [
        ("GRACEFUL_SHUTDOWN", Self::GRACEFUL_SHUTDOWN),
        ("LLGR_STALE", Self::LLGR_STALE),
        ("NO_LLGR", Self::NO_LLGR),
        ("BLACKHOLE", Self::BLACKHOLE),
        ("NO_EXPORT", Self::NO_EXPORT),
        ("NO_ADVERTISE", Self::NO_ADVERTISE),
        ("NO_EXPORT_SUBCONFED", Self::NO_EXPORT_SUBCONFED),
        ("NOPEER", Self::NOPEER),
    ];

    /// The name of a well-known one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let known = Self::NAMES.iter().find(|(_, community)| *community == self);
        known.map(|(name, _)| *name)
    }

    /// May a route with this COMMUNITIES value be advertised (RFC 1997)? To a neighbour in our own
    /// AS only NO_ADVERTISE forbids it. We form no confederation, so the two others are one.
    #[must_use]
    pub fn allow_advertising(communities: &[u8], ebgp: bool) -> bool {
        chunks(communities).all(|octets| match Community(u32::from_be_bytes(octets)) {
            Self::NO_ADVERTISE => false,
            Self::NO_EXPORT | Self::NO_EXPORT_SUBCONFED => !ebgp,
            _ => true,
        })
    }
}

impl fmt::Display for Community {
    /// Its name, or `65000:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xFFFF),
        }
    }
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == text);
        if let Some((_, community)) = known {
            return Ok(*community);
        }
        let halves = text
            .split_once(':')
            .and_then(|(high, low)| Some((high.parse::<u16>().ok()?, low.parse::<u16>().ok()?)));
        let (high, low) = halves.ok_or_else(|| CommunityError::new(text))?;
        Ok(Community(u32::from(high) << 16 | u32::from(low)))
    }
}

/// A large community: global administrator and two numbers (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub [u32; 3]);

impl LargeCommunity {
    /// As on the wire.
    #[must_use]
    pub fn octets(self) -> [u8; 12] {
        let mut octets = [0; 12];
        for (to, word) in octets.chunks_exact_mut(4).zip(self.0) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

impl fmt::Display for LargeCommunity {
    /// `65000:1:2` (RFC 8092 §4).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [global, first, second] = self.0;
        write!(f, "{global}:{first}:{second}")
    }
}

impl FromStr for LargeCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parts(text)
            .and_then(|[a, b, c]| Some(LargeCommunity([a?, b?, c?])))
            .ok_or_else(|| CommunityError::new(text))
    }
}

/// An extended community as on the wire (RFC 4360).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// Types with an administrator: 2-octet AS, IPv4 address, 4-octet AS.
const AS2: u8 = 0;
const IPV4: u8 = 1;
const AS4: u8 = 2;

impl fmt::Display for ExtendedCommunity {
    /// `rt:65000:1`, `ro:192.0.2.1:1`, or the 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = match subtype {
            2 => "rt",
            3 => "ro",
            _ => "",
        };
        let high = u32::from_be_bytes([a, b, c, d]);
        let low = u16::from_be_bytes([e, g]);
        match kind {
            AS2 if !name.is_empty() => write!(
                f,
                "{name}:{}:{}",
                u16::from_be_bytes([a, b]),
                u32::from_be_bytes([c, d, e, g])
            ),
            IPV4 if !name.is_empty() => write!(f, "{name}:{}:{low}", Ipv4Addr::from(high)),
            // An AS number that fits in two octets says that it has four.
            AS4 if !name.is_empty() && high <= 0xFFFF => write!(f, "{name}:{high}L:{low}"),
            AS4 if !name.is_empty() => write!(f, "{name}:{high}:{low}"),
            _ => write!(f, "{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pattern: ExtendedPattern = text.parse()?;
        let exact = pattern
            .0
            .first()
            .filter(|masked| masked.mask == u64::MAX.into());
        let value = exact.and_then(|masked| u64::try_from(masked.value).ok());
        let value = value.ok_or_else(|| CommunityError::new(text))?;
        Ok(ExtendedCommunity(value.to_be_bytes()))
    }
}

/// Text that is no community of the size asked for, or no pattern of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no community of this size")]
pub struct CommunityError(String);

impl CommunityError {
    fn new(text: &str) -> Self {
        CommunityError(text.to_owned())
    }
}

/// Values whose bits under `mask` are those of `value`; any size, at the low end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masked {
    value: u128,
    mask: u128,
}

impl Masked {
    const fn matches(self, value: u128) -> bool {
        (value ^ self.value) & self.mask == 0
    }

    /// Fields of (width in bits, value or anything), the first at the high end.
    fn fields(fields: &[(u32, Option<u32>)]) -> Self {
        let mut masked = Masked { value: 0, mask: 0 };
        for (width, field) in fields {
            masked.value = masked.value << width | u128::from(field.unwrap_or(0));
            let ones = if field.is_some() { (1 << width) - 1 } else { 0 };
            masked.mask = masked.mask << width | ones;
        }
        masked
    }
}

/// Communities of 4 octets: a name, `65000:1`, and `*` for either half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommunityPattern(Masked);

/// Large communities: `65000:1:2`, and `*` for any of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargePattern(Masked);

/// Extended communities: `rt:65000:1` (route target), `ro:192.0.2.1:1` (route origin), `*` for
/// either half, or 16 hexadecimal digits, `xx` for any octet. An AS number stands for both of its
/// encodings (RFC 4360 and RFC 5668), with `L` behind it for that of four octets only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedPattern(Vec<Masked>);

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        CommunityPattern(Masked::fields(&[(32, Some(community.0))]))
    }
}

impl FromStr for CommunityPattern {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(community) = text.parse::<Community>() {
            return Ok(community.into());
        }
        match parts(text) {
            Some([high, low]) if [high, low].iter().flatten().all(|half| *half <= 0xFFFF) => {
                Ok(CommunityPattern(Masked::fields(&[(16, high), (16, low)])))
            }
            _ => Err(CommunityError::new(text)),
        }
    }
}

impl FromStr for LargePattern {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: [Option<u32>; 3] = parts(text).ok_or_else(|| CommunityError::new(text))?;
        Ok(LargePattern(Masked::fields(&words.map(|word| (32, word)))))
    }
}

impl FromStr for ExtendedPattern {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let masks = match text.split_once(':') {
            Some(("rt", rest)) => administered(2, rest),
            Some(("ro", rest)) => administered(3, rest),
            Some(_) => None,
            None => octets(text).map(|masked| vec![masked]),
        };
        masks
            .filter(|masks| !masks.is_empty())
            .map(ExtendedPattern)
            .ok_or_else(|| CommunityError::new(text))
    }
}

/// `N` numbers or stars between colons.
fn parts<const N: usize>(text: &str) -> Option<[Option<u32>; N]> {
    let mut parts = [None; N];
    let mut words = text.split(':');
    for part in &mut parts {
        *part = number(words.next()?)?;
    }
    words.next().is_none().then_some(parts)
}

/// A number (`Some(Some)`), a star (`Some(None)`), or neither.
fn number(word: &str) -> Option<Option<u32>> {
    if word == "*" {
        return Some(None);
    }
    // `parse` takes a plus sign, we do not.
    let digits = word.bytes().all(|octet| octet.is_ascii_digit());
    word.parse().ok().filter(|_| digits).map(Some)
}

/// The encodings of `administrator:number`.
fn administered(subtype: u32, text: &str) -> Option<Vec<Masked>> {
    let (global, local) = text.split_once(':')?;
    let local = number(local)?;
    let head = |kind: u8| [(8, Some(u32::from(kind))), (8, Some(subtype))];
    let wide = |kind, global| {
        let fits = local.is_none_or(|local| local <= 0xFFFF);
        let [kind, subtype] = head(kind);
        fits.then(|| Masked::fields(&[kind, subtype, (32, global), (16, local)]))
    };
    let narrow = |global: Option<u32>| {
        let fits = global.is_none_or(|global| global <= 0xFFFF);
        let [kind, subtype] = head(AS2);
        fits.then(|| Masked::fields(&[kind, subtype, (16, global), (32, local)]))
    };
    let encodings = if let Ok(address) = global.parse::<Ipv4Addr>() {
        [wide(IPV4, Some(address.to_bits())), None, None]
    } else if let Some(four) = global.strip_suffix('L') {
        [wide(AS4, Some(number(four)??)), None, None]
    } else {
        let global = number(global)?;
        let address = if global.is_none() {
            wide(IPV4, None)
        } else {
            None
        };
        [narrow(global), wide(AS4, global), address]
    };
    Some(encodings.into_iter().flatten().collect())
}

/// 16 hexadecimal digits, `xx` for any octet.
fn octets(text: &str) -> Option<Masked> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let mut fields = [(8, None); 8];
    for (at, (_, field)) in fields.iter_mut().enumerate() {
        let digits = &text[2 * at..2 * at + 2];
        if digits == "xx" {
            continue;
        }
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *field = Some(u32::from_str_radix(digits, 16).ok()?);
    }
    Some(Masked::fields(&fields))
}

/// How many of the patterns, and of the route's communities, must find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// The route has a community that matches one of the patterns.
    AnyOf,
    /// Each pattern matches a community of the route; it may have others.
    AllOf,
    /// As `AllOf`, and each community of the route matches a pattern.
    Exactly,
}

/// Patterns for one size of communities, ready to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommunitySet {
    /// Octets of a community.
    size: usize,
    /// For each pattern its alternatives.
    patterns: Vec<Vec<Masked>>,
    /// All alternatives without wildcards, sorted; and those with.
    exact: Vec<u128>,
    wild: Vec<Masked>,
}

impl CommunitySet {
    /// For communities of 4 octets.
    pub fn standard(patterns: impl IntoIterator<Item = CommunityPattern>) -> Self {
        let patterns = patterns.into_iter().map(|pattern| vec![pattern.0]);
        Self::new(4, patterns.collect())
    }

    /// For extended communities.
    pub fn extended(patterns: impl IntoIterator<Item = ExtendedPattern>) -> Self {
        Self::new(8, patterns.into_iter().map(|pattern| pattern.0).collect())
    }

    /// For large communities.
    pub fn large(patterns: impl IntoIterator<Item = LargePattern>) -> Self {
        let patterns = patterns.into_iter().map(|pattern| vec![pattern.0]);
        Self::new(12, patterns.collect())
    }

    fn new(size: usize, patterns: Vec<Vec<Masked>>) -> Self {
        let whole = u128::MAX >> (128 - 8 * size);
        let (exact, wild): (Vec<Masked>, Vec<Masked>) = patterns
            .iter()
            .flatten()
            .partition(|masked| masked.mask == whole);
        let mut exact: Vec<_> = exact.into_iter().map(|masked| masked.value).collect();
        exact.sort_unstable();
        CommunitySet {
            size,
            patterns,
            exact,
            wild,
        }
    }

    /// The type code of the attribute these are in.
    pub(super) const fn code(&self) -> u8 {
        match self.size {
            4 => 8,
            8 => 16,
            _ => 32,
        }
    }

    /// Octets of one community.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Does one of the patterns match this community?
    pub(super) fn contains(&self, community: &[u8]) -> bool {
        let value = big_endian(community);
        self.exact.binary_search(&value).is_ok() || self.wild.iter().any(|m| m.matches(value))
    }

    /// Do the communities of an attribute's value match? No patterns: `AnyOf` never does, `AllOf`
    /// always, `Exactly` a route without communities.
    pub(super) fn matches(&self, quantifier: Quantifier, communities: &[u8]) -> bool {
        let mut each = communities.chunks_exact(self.size);
        match quantifier {
            Quantifier::AnyOf => each.any(|community| self.contains(community)),
            Quantifier::AllOf => self.all_found(communities),
            Quantifier::Exactly => {
                each.all(|community| self.contains(community)) && self.all_found(communities)
            }
        }
    }

    fn all_found(&self, communities: &[u8]) -> bool {
        self.patterns.iter().all(|alternatives| {
            let mut each = communities.chunks_exact(self.size).map(big_endian);
            each.any(|value| alternatives.iter().any(|masked| masked.matches(value)))
        })
    }
}

fn big_endian(octets: &[u8]) -> u128 {
    octets
        .iter()
        .fold(0, |value, octet| value << 8 | u128::from(*octet))
}

/// `octets` in pieces of `N`; a shorter rest is left out.
fn chunks<const N: usize>(octets: &[u8]) -> impl Iterator<Item = [u8; N]> {
    octets.as_chunks::<N>().0.iter().copied()
}
