//! Sets of prefixes with ranges of lengths.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::wire::Family;

/// A prefix and the lengths of the prefixes inside it that are meant:
/// `10.0.0.0/8` (itself), `10.0.0.0/8 le 24`, `10.0.0.0/8 ge 16 le 24`, `10.0.0.0/8 ge 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixRange {
    prefix: Prefix,
    ge: u8,
    le: u8,
}

/// Why something is no [`PrefixRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixRangeError {
    /// Not `ADDRESS/BITS`, then at most `ge N` and `le N`.
    #[error("{0:?} is not a prefix like 10.0.0.0/8 ge 16 le 24")]
    Syntax(String),
    /// More bits than an address has.
    #[error("/{bits} is longer than an address of {max} bits")]
    Bits {
        /// The bits given.
        bits: u8,
        /// 32 or 128.
        max: u8,
    },
    /// The address has bits behind its prefix: most likely a typing error.
    #[error("{address}/{bits} has bits set behind its prefix")]
    HostBits {
        /// The address given.
        address: IpAddr,
        /// The bits given.
        bits: u8,
    },
    /// Not `bits <= ge <= le <= 32` (128).
    #[error("lengths {ge} to {le} are not within {bits} to {max}")]
    Lengths {
        /// The least length given.
        ge: u8,
        /// The greatest length given.
        le: u8,
        /// The prefix's own length.
        bits: u8,
        /// 32 or 128.
        max: u8,
    },
}

impl PrefixRange {
    /// The prefixes inside `address/bits` whose length is `ge` to `le`.
    ///
    /// # Errors
    /// `address` has bits behind `bits`, or `bits <= ge <= le <= 32` (IPv6: 128) does not hold.
    pub fn new(address: IpAddr, bits: u8, ge: u8, le: u8) -> Result<Self, PrefixRangeError> {
        let max = if address.is_ipv6() { 128 } else { 32 };
        if bits > max {
            return Err(PrefixRangeError::Bits { bits, max });
        }
        let prefix = Prefix::of(address, bits);
        if prefix.first & !mask(bits) != 0 {
            return Err(PrefixRangeError::HostBits { address, bits });
        }
        if !(bits <= ge && ge <= le && le <= max) {
            return Err(PrefixRangeError::Lengths { ge, le, bits, max });
        }
        Ok(PrefixRange { prefix, ge, le })
    }
}

impl FromStr for PrefixRange {
    type Err = PrefixRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || PrefixRangeError::Syntax(text.to_owned());
        let mut words = text.split_ascii_whitespace();
        let (address, bits) = words
            .next()
            .and_then(|word| word.split_once('/'))
            .ok_or_else(syntax)?;
        let address: IpAddr = address.parse().map_err(|_| syntax())?;
        let bits: u8 = bits.parse().map_err(|_| syntax())?;
        let (mut ge, mut le) = (None, None);
        while let Some(word) = words.next() {
            let bound = match word {
                "ge" => &mut ge,
                "le" => &mut le,
                _ => return Err(syntax()),
            };
            let number = words.next().and_then(|word| word.parse().ok());
            if number.is_none() || bound.is_some() {
                return Err(syntax());
            }
            *bound = number;
        }
        let longest = if address.is_ipv6() { 128 } else { 32 };
        let to = le.unwrap_or(if ge.is_some() { longest } else { bits });
        Self::new(address, bits, ge.unwrap_or(bits), to)
    }
}

impl fmt::Display for PrefixRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prefix { first, bits, .. } = self.prefix;
        write!(f, "{}/{bits}", self.prefix.address(first))?;
        if self.ge != bits {
            write!(f, " ge {}", self.ge)?;
        }
        if self.le != self.ge || self.ge != bits {
            write!(f, " le {}", self.le)?;
        }
        Ok(())
    }
}

/// An IPv4 or IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    ipv6: bool,
    /// Its first address, from the most significant bit on; an IPv4 address has 96 zeros behind.
    first: u128,
    bits: u8,
}

impl Prefix {
    fn of(address: IpAddr, bits: u8) -> Self {
        let (ipv6, first) = match address {
            IpAddr::V4(ip) => (false, u128::from(ip.to_bits()) << 96),
            IpAddr::V6(ip) => (true, ip.to_bits()),
        };
        Prefix { ipv6, first, bits }
    }

    /// One address as a prefix.
    pub(super) fn host(address: IpAddr) -> Self {
        Self::of(address, if address.is_ipv6() { 128 } else { 32 })
    }

    /// The prefix in the canonical key of a route: plain, or behind a route distinguisher.
    /// `None`: this family has none.
    pub(super) fn of_key(family: Family, key: &[u8]) -> Option<Self> {
        let (&bits, rest) = key.split_first()?;
        let octets = match family.safi {
            1 | 2 => rest,
            128 => rest.get(8..)?,
            _ => return None,
        };
        let ipv6 = match family.afi {
            1 => false,
            2 => true,
            _ => return None,
        };
        if bits > if ipv6 { 128 } else { 32 } {
            return None;
        }
        let mut first = [0; 16];
        first.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(Prefix {
            ipv6,
            first: u128::from_be_bytes(first) & mask(bits),
            bits,
        })
    }

    fn address(&self, first: u128) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::from_bits(first).into()
        } else {
            Ipv4Addr::from_bits(u32::try_from(first >> 96).unwrap_or(u32::MAX)).into()
        }
    }
}

/// The `bits` most significant bits.
const fn mask(bits: u8) -> u128 {
    match bits {
        0 => 0,
        1..=127 => !(u128::MAX >> bits),
        128.. => u128::MAX,
    }
}

/// A set of [`PrefixRange`]s, sorted once; a look-up costs a binary search and a short climb,
/// however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    ipv4: Vec<Node>,
    ipv6: Vec<Node>,
}

/// A prefix with what is allowed inside it. Nodes are in order of (first, bits), so a covering
/// prefix comes before all it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    first: u128,
    bits: u8,
    /// The nearest node that covers this one; itself: there is none.
    parent: u32,
    /// Lengths allowed here, by this node's ranges or those of a node that covers it.
    lengths: Lengths,
}

impl Node {
    fn covers(&self, first: u128, bits: u8) -> bool {
        self.bits <= bits && (self.first ^ first) & mask(self.bits) == 0
    }
}

/// A set of prefix lengths, 0 to 128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lengths {
    /// Bit n is length n.
    below_128: u128,
    whole: bool,
}

impl Lengths {
    fn range(ge: u8, le: u8) -> Self {
        // The mask of n bits has the n *most* significant; turned round it has bits 0 to n-1.
        let below = |n: u8| mask(n).reverse_bits();
        Lengths {
            below_128: below(le.saturating_add(1).min(128)) & !below(ge.min(128)),
            whole: le >= 128,
        }
    }

    fn with(self, other: Self) -> Self {
        Lengths {
            below_128: self.below_128 | other.below_128,
            whole: self.whole || other.whole,
        }
    }

    fn contains(self, bits: u8) -> bool {
        if bits >= 128 {
            self.whole
        } else {
            self.below_128 >> bits & 1 == 1
        }
    }
}

impl PrefixSet {
    /// Is this family's prefix of this route in the set? A family without prefixes is in none.
    #[must_use]
    pub fn contains_key(&self, family: Family, key: &[u8]) -> bool {
        Prefix::of_key(family, key).is_some_and(|prefix| self.contains(prefix))
    }

    /// Is this address, as a prefix of full length, in the set?
    #[must_use]
    pub fn contains_address(&self, address: IpAddr) -> bool {
        self.contains(Prefix::host(address))
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }

    pub(super) fn contains(&self, prefix: Prefix) -> bool {
        let nodes = if prefix.ipv6 { &self.ipv6 } else { &self.ipv4 };
        let Prefix { first, bits, .. } = prefix;
        let after = nodes.partition_point(|node| (node.first, node.bits) <= (first, bits));
        // The nearest node that covers the prefix covers its predecessor too, or is it.
        let Some(mut at) = after.checked_sub(1) else {
            return false;
        };
        while let Some(node) = nodes.get(at) {
            if node.covers(first, bits) {
                return node.lengths.contains(bits);
            }
            let parent = node.parent as usize;
            if parent == at {
                return false;
            }
            at = parent;
        }
        false
    }

    /// Sorts, joins equal prefixes, links each to what covers it.
    fn nodes(mut ranges: Vec<PrefixRange>) -> Vec<Node> {
        ranges.sort_unstable();
        let mut nodes: Vec<Node> = Vec::with_capacity(ranges.len());
        for range in ranges {
            let Prefix { first, bits, .. } = range.prefix;
            let lengths = Lengths::range(range.ge, range.le);
            if let Some(last) = nodes.last_mut()
                && (last.first, last.bits) == (first, bits)
            {
                last.lengths = last.lengths.with(lengths);
                continue;
            }
            let own = nodes.len();
            let mut parent = own;
            let mut at = own.checked_sub(1);
            while let Some(node) = at.and_then(|at| nodes.get(at)) {
                if node.covers(first, bits) {
                    parent = at.unwrap_or(own);
                    break;
                }
                at = (Some(node.parent as usize) != at).then_some(node.parent as usize);
            }
            let inherited = nodes
                .get(parent)
                .map_or(Lengths::default(), |node| node.lengths);
            nodes.push(Node {
                first,
                bits,
                parent: u32::try_from(parent).expect("ranges are 40 bytes: fewer than 2^32 fit"),
                lengths: lengths.with(inherited),
            });
        }
        nodes
    }
}

impl FromIterator<PrefixRange> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixRange>>(ranges: I) -> Self {
        let (ipv6, ipv4) = ranges
            .into_iter()
            .partition(|range: &PrefixRange| range.prefix.ipv6);
        PrefixSet {
            ipv4: Self::nodes(ipv4),
            ipv6: Self::nodes(ipv6),
        }
    }
}
