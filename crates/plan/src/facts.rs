//! What was announced, as octets that a node keeps on disk.
//!
//! A head, then for each route its type (1), the length of its key (2, most significant first), the
//! key, the length of its value (1) and the value; keys and values are as MESH has them. What a load
//! was is left out: whoever reads this later does better without.

use bgp::{Key, Value};

/// What it begins with; another version has another one.
const HEAD: &[u8] = b"sealane facts 1\n";

/// Routes as octets.
#[must_use]
pub fn write<'r>(routes: impl Iterator<Item = (&'r Key, &'r Value)>) -> Vec<u8> {
    let mut octets = HEAD.to_vec();
    let mut body = Vec::new();
    for (key, value) in routes {
        if matches!(key, Key::Service { .. }) {
            continue;
        }
        body.clear();
        key.encode(&mut body);
        let value = value.as_bytes();
        let (Ok(keys), Ok(values)) = (u16::try_from(body.len()), u8::try_from(value.len())) else {
            continue;
        };
        octets.push(key.kind());
        octets.extend(keys.to_be_bytes());
        octets.extend_from_slice(&body);
        octets.push(values);
        octets.extend_from_slice(value);
    }
    octets
}

/// The routes that can be read, up to the first that cannot, and how many octets are left then; another
/// version cannot be read at all.
#[must_use]
pub fn read(octets: &[u8]) -> (Vec<(Key, Value)>, usize) {
    let mut routes = Vec::new();
    let Some(mut rest) = octets.strip_prefix(HEAD) else {
        return (routes, octets.len());
    };
    while let Some((key, value, after)) = one(rest) {
        routes.push((key, value));
        rest = after;
    }
    (routes, rest.len())
}

fn one(octets: &[u8]) -> Option<(Key, Value, &[u8])> {
    let ([kind, high, low], rest) = octets.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
    let ([length], rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked((*length).into())?;
    let key = Key::decode(*kind, key).ok()?;
    let value = Value::decode(&key, value).ok()?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use base::{SiteId, SlotId};
    use bgp::{LinkHealth, Measure, Rd, SiteHealth, State as Is, TunnelId};

    use super::*;

    fn routes() -> Vec<(Key, Value)> {
        let rd = Rd {
            site: SiteId(7),
            slot: SlotId(0),
        };
        let site = Key::Site {
            rd,
            site: SiteId(7),
        };
        let link = Key::Link {
            rd,
            from: SiteId(7),
            to: SiteId(8),
            tunnel: TunnelId(9),
        };
        let health = SiteHealth {
            state: Is::Healthy,
            ..SiteHealth::default()
        };
        let far = LinkHealth {
            state: Is::Healthy,
            rtt: Measure::new(40_000),
            ..LinkHealth::default()
        };
        vec![(site, Value::site(&health)), (link, Value::link(&far))]
    }

    #[test]
    fn what_is_written_is_read() {
        let routes = routes();
        let octets = write(routes.iter().map(|(key, value)| (key, value)));
        assert_eq!(read(&octets), (routes, 0));
        assert_eq!(read(HEAD), (vec![], 0));
    }

    #[test]
    fn what_is_damaged_ends_it() {
        let routes = routes();
        let octets = write(routes.iter().map(|(key, value)| (key, value)));
        for end in 0..octets.len() {
            let (some, _) = read(&octets[..end]);
            assert!(some.len() < 2 && routes.starts_with(&some), "{end}");
        }
        let mut other = octets;
        other[14] = b'2';
        assert_eq!(read(&other), (vec![], other.len()), "another version");
    }
}
