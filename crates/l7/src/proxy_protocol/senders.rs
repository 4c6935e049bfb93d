//! Whose word about clients' addresses is taken.

use std::net::IpAddr;

/// What comes first on a connection from a trusted sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A PROXY header, or the connection is closed.
    Header,
    /// A PROXY header, or none.
    Maybe,
}

/// The trusted senders of a node. From everybody else no header is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Senders(Vec<(Prefix, Expected)>);

/// Addresses that begin with the same bits, as one number for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    v4: bool,
    bits: u128,
    length: u32,
}

/// A text is neither `ADDRESS` nor `ADDRESS/LENGTH`, or has bits set behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ADDRESS or ADDRESS/LENGTH without bits behind the length, as 10.0.0.0/8")]
pub struct SenderError;

impl Senders {
    /// Take headers from these addresses too; of two prefixes the longer one counts.
    ///
    /// # Errors
    /// See [`SenderError`].
    pub fn trust(&mut self, prefix: &str, expected: Expected) -> Result<(), SenderError> {
        let prefix = parse(prefix).ok_or(SenderError)?;
        let at = self.0.partition_point(|(p, _)| p.length > prefix.length);
        self.0.insert(at, (prefix, expected));
        Ok(())
    }

    /// Is nobody trusted?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What comes first from this address; `None`: what the client says.
    #[must_use]
    pub fn expect(&self, sender: IpAddr) -> Option<Expected> {
        let sender = sender.to_canonical();
        let mut all = self.0.iter();
        let found = all.find(|(prefix, _)| prefix.holds(sender));
        found.map(|(_, expected)| *expected)
    }
}

fn number(ip: IpAddr) -> (bool, u128) {
    match ip {
        IpAddr::V4(v4) => (true, u128::from(v4.to_bits()) << 96),
        IpAddr::V6(v6) => (false, v6.to_bits()),
    }
}

fn parse(text: &str) -> Option<Prefix> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let (v4, bits) = number(address.parse().ok()?);
    let most: u32 = if v4 { 32 } else { 128 };
    let digits = |text: &&str| text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    let length = match length {
        None => most,
        Some(length) => Some(length).filter(digits)?.parse().ok()?,
    };
    let behind = u128::MAX.checked_shr(length).unwrap_or(0);
    (length <= most && bits & behind == 0).then_some(Prefix { v4, bits, length })
}

impl Prefix {
    fn holds(&self, ip: IpAddr) -> bool {
        let (v4, bits) = number(ip);
        let behind = u128::MAX.checked_shr(self.length).unwrap_or(0);
        v4 == self.v4 && bits & !behind == self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let mut senders = Senders::default();
        for (prefix, expected) in [
            ("10.0.0.0/8", Expected::Header),
            ("10.1.0.0/16", Expected::Maybe),
            ("10.1.2.3", Expected::Header),
            ("2001:db8::/32", Expected::Header),
        ] {
            senders.trust(prefix, expected).expect(prefix);
        }
        for (address, expected) in [
            ("10.9.9.9", Some(Expected::Header)),
            ("10.1.9.9", Some(Expected::Maybe)),
            ("10.1.2.3", Some(Expected::Header)),
            ("::ffff:10.1.2.4", Some(Expected::Maybe)),
            ("11.0.0.1", None),
            ("2001:db8::9", Some(Expected::Header)),
            ("2001:db9::9", None),
            ("::1", None),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(senders.expect(address), expected, "{address}");
        }
        let mut everybody = Senders::default();
        everybody.trust("0.0.0.0/0", Expected::Maybe).expect("all");
        let one = |text: &str| everybody.expect(text.parse().expect("an address"));
        assert_eq!((one("1.2.3.4"), one("::1")), (Some(Expected::Maybe), None));
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "a/8",
            "::/129",
        ] {
            assert!(everybody.trust(bad, Expected::Header).is_err(), "{bad}");
        }
    }
}
