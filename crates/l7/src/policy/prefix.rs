//! Sets of addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Addresses with the same first bits. Prints and parses as `10.0.0.0/8`; an address alone is
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither `IP` nor `IP/LENGTH`.
    #[error("neither an address nor ADDRESS/LENGTH, for example 10.0.0.0/8 or 2001:db8::/32")]
    Syntax,
    /// Bits are set behind the length.
    #[error("has bits set behind its length: {0} is meant, or a longer length")]
    HostBits(IpAddr),
    /// An IPv4 address written as an IPv6 one, which no client has.
    #[error("is an IPv4 address in IPv6 notation: write it as IPv4")]
    Mapped,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Syntax)?;
        let most: u32 = if address.is_ipv4() { 32 } else { 128 };
        let digits = |text: &&str| text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
        let length: u32 = match length {
            None => most,
            Some(length) => Some(length)
                .filter(digits)
                .and_then(|length| length.parse().ok())
                .filter(|length| *length <= most)
                .ok_or(PrefixError::Syntax)?,
        };
        let (first, last) = match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(length).unwrap_or(0);
                let bits = v4.to_bits();
                (
                    Ipv4Addr::from_bits(bits & !host).into(),
                    Ipv4Addr::from_bits(bits | host).into(),
                )
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(length).unwrap_or(0);
                let bits = v6.to_bits();
                (
                    Ipv6Addr::from_bits(bits & !host).into(),
                    Ipv6Addr::from_bits(bits | host).into(),
                )
            }
        };
        if first != address {
            return Err(PrefixError::HostBits(first));
        }
        if first.to_canonical() != first {
            return Err(PrefixError::Mapped);
        }
        Ok(Prefix { first, last })
    }
}

/// Addresses of some prefixes: ranges that do not touch, in order, so that one look takes
/// logarithmic time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl PrefixSet {
    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Is the address in it? An IPv4 address in IPv6 notation is not.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let next = self.ranges.partition_point(|(first, _)| *first <= address);
        let before = next.checked_sub(1).and_then(|at| self.ranges.get(at));
        before.is_some_and(|(_, last)| address <= *last)
    }
}

impl FromIterator<Prefix> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = Prefix>>(iter: I) -> Self {
        let mut all: Vec<_> = iter.into_iter().map(|p| (p.first, p.last)).collect();
        // Every IPv4 address is less than every IPv6 address.
        all.sort_unstable();
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
        for (first, last) in all {
            match ranges.last_mut() {
                // Of two prefixes that touch one holds the other.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                Some(_) | None => ranges.push((first, last)),
            }
        }
        PrefixSet { ranges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_parse() {
        for (text, expect) in [
            ("10.0.0.0/8", None),
            ("10.0.0.1", None),
            ("0.0.0.0/0", None),
            ("::/0", None),
            ("2001:db8::/32", None),
            ("10.0.0.1/8", Some("bits set")),
            ("2001:db8::1/64", Some("bits set")),
            ("::ffff:10.0.0.0/104", Some("IPv4")),
            ("::ffff:10.0.0.1", Some("IPv4")),
            ("10.0.0.0/33", Some("neither")),
            ("10.0.0.0/+8", Some("neither")),
            ("10.0.0.0/", Some("neither")),
            ("10.0.0.0/0008", Some("neither")),
            ("10.0.0/8", Some("neither")),
            ("", Some("neither")),
        ] {
            let error = text.parse::<Prefix>().err().map(|error| error.to_string());
            let fits = match (&error, expect) {
                (None, None) => true,
                (Some(error), Some(part)) => error.contains(part),
                (None, Some(_)) | (Some(_), None) => false,
            };
            assert!(fits, "{text}: {error:?}");
        }
    }

    #[test]
    fn sets_hold_what_their_prefixes_hold() {
        let texts = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "11.0.0.0/8",
            "2001:db8::/32",
        ];
        let prefixes = texts.map(|text| text.parse::<Prefix>().expect(text));
        let set: PrefixSet = prefixes.into_iter().collect();
        for (address, inside) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.200.1.1", true),
            ("11.255.255.255", true),
            ("12.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db7:ffff::1", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db9::", false),
            ("::ffff:10.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().expect(address);
            assert_eq!(set.contains(address), inside, "{address}");
        }
        let all: PrefixSet = ["::/0".parse().expect("a prefix")].into_iter().collect();
        let v4: IpAddr = "10.0.0.1".parse().expect("an address");
        assert!(!all.contains(v4), "IPv6 is not IPv4");
        assert!(PrefixSet::default().is_empty() && !PrefixSet::default().contains(v4));
    }
}
