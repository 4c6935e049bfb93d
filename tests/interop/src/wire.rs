//! A second hand at BGP's octets: enough to say anything and to read what comes back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::setup::Family;

/// The longest message without RFC 8654.
pub const USUAL: usize = 4096;
const HEADER: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

/// What a talker says of itself.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its autonomous system.
    pub asn: u32,
    /// Its identifier.
    pub id: Ipv4Addr,
    /// Its families, RFC 4760.
    pub families: Vec<Family>,
}

/// A path attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its flags; the extended length is chosen when it is written.
    pub flags: u8,
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

impl Attribute {
    /// An attribute.
    #[must_use]
    pub fn new(flags: u8, code: u8, value: impl Into<Vec<u8>>) -> Self {
        Attribute {
            flags,
            code,
            value: value.into(),
        }
    }

    /// The three that every route has: ORIGIN IGP, an AS_PATH of one sequence, and for iBGP (an
    /// empty path) LOCAL_PREF 100.
    #[must_use]
    pub fn usual(path: &[u32]) -> Vec<Attribute> {
        let mut value = Vec::new();
        if !path.is_empty() {
            value.extend([2, short(path.len())]);
            value.extend(path.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        let mut all = vec![Attribute::new(0x40, 1, [0]), Attribute::new(0x40, 2, value)];
        if path.is_empty() {
            all.push(Attribute::new(0x40, 5, 100_u32.to_be_bytes()));
        }
        all
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.value.len() > 255 {
            out.extend([self.flags | 0x10, self.code]);
            out.extend(long(self.value.len()));
        } else {
            out.extend([self.flags, self.code, short(self.value.len())]);
        }
        out.extend(&self.value);
    }
}

fn short(length: usize) -> u8 {
    length.try_into().expect("a length of one octet")
}

fn long(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("a length of two octets")
        .to_be_bytes()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![0xff; 16];
    all.extend(long(HEADER + body.len()));
    all.push(kind);
    all.extend(body);
    all
}

/// A KEEPALIVE.
#[must_use]
pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// An OPEN with multiprotocol, route refresh, four octets and extended messages.
#[must_use]
pub fn open(open: &Open) -> Vec<u8> {
    let mut capabilities = vec![2, 0, 6, 0, 65, 4];
    capabilities.extend(open.asn.to_be_bytes());
    for family in &open.families {
        let (afi, safi) = family.numbers();
        let [high, low] = afi.to_be_bytes();
        capabilities.extend([1, 4, high, low, 0, safi]);
    }
    let two = u16::try_from(open.asn).unwrap_or(23456).to_be_bytes();
    let mut body = vec![4, two[0], two[1], 0, 90];
    body.extend(open.id.octets());
    body.extend([short(capabilities.len() + 2), 2, short(capabilities.len())]);
    body.extend(capabilities);
    message(OPEN, &body)
}

fn update(withdrawn: &[u8], attributes: &[Attribute], nlri: &[u8]) -> Vec<u8> {
    let mut section = Vec::new();
    for attribute in attributes {
        attribute.write(&mut section);
    }
    let mut body = long(withdrawn.len()).to_vec();
    body.extend(withdrawn);
    body.extend(long(section.len()));
    body.extend(section);
    body.extend(nlri);
    message(UPDATE, &body)
}

/// An UPDATE that announces one route; `next_hop` without RD, absent for FlowSpec.
#[must_use]
pub fn announce(
    family: Family,
    nlri: &[u8],
    next_hop: Option<IpAddr>,
    attributes: &[Attribute],
) -> Vec<u8> {
    let mut all = attributes.to_vec();
    let hop = match next_hop {
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(address)) => address.octets().to_vec(),
        None => Vec::new(),
    };
    if family == Family::Ipv4 {
        all.push(Attribute::new(0x40, 3, hop));
        all.sort_by_key(|one| one.code);
        return update(&[], &all, nlri);
    }
    let vpn = matches!(family, Family::Vpnv4 | Family::Vpnv6);
    let hop = if vpn { [vec![0; 8], hop].concat() } else { hop };
    let mut value = subject(family).to_vec();
    value.push(short(hop.len()));
    value.extend(hop);
    value.push(0);
    value.extend(nlri);
    all.push(Attribute::new(0x80, 14, value));
    all.sort_by_key(|one| one.code);
    update(&[], &all, &[])
}

/// An UPDATE that withdraws one route.
#[must_use]
pub fn withdraw(family: Family, nlri: &[u8]) -> Vec<u8> {
    if family == Family::Ipv4 {
        return update(nlri, &[], &[]);
    }
    let value = [&subject(family), nlri].concat();
    update(&[], &[Attribute::new(0x80, 15, value)], &[])
}

/// The end of a family's routes, RFC 4724.
#[must_use]
pub fn end_of_rib(family: Family) -> Vec<u8> {
    withdraw(family, &[])
}

fn subject(family: Family) -> [u8; 3] {
    let (afi, safi) = family.numbers();
    let [high, low] = afi.to_be_bytes();
    [high, low, safi]
}

/// The bits and the significant octets of a prefix.
fn parts(text: &str) -> (u8, Vec<u8>) {
    let (address, bits) = text.split_once('/').expect("a prefix");
    let bits: u8 = bits.parse().expect("a length");
    let octets = match address.parse().expect("an address") {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    (bits, octets[..usize::from(bits.div_ceil(8))].to_vec())
}

/// The NLRI of a unicast prefix.
#[must_use]
pub fn prefix(text: &str) -> Vec<u8> {
    let (bits, octets) = parts(text);
    [vec![bits], octets].concat()
}

/// The NLRI of a VPN prefix with a distinguisher such as `65000:1`.
#[must_use]
pub fn vpn(rd: &str, text: &str, label: u32) -> Vec<u8> {
    let (bits, octets) = parts(text);
    let label = (label << 4 | 1).to_be_bytes();
    [vec![bits + 88], label[1..].to_vec(), pair(0, rd), octets].concat()
}

/// A type, two octets of AS and four of number: a distinguisher or a community's beginning.
fn pair(kind: u16, text: &str) -> Vec<u8> {
    let (asn, number) = text.split_once(':').expect("a pair");
    let asn: u16 = asn.parse().expect("an AS of two octets");
    let number: u32 = number.parse().expect("a number");
    [
        &kind.to_be_bytes()[..],
        &asn.to_be_bytes(),
        &number.to_be_bytes(),
    ]
    .concat()
}

/// The attribute of route targets such as `65000:1`.
#[must_use]
pub fn targets(all: &[&str]) -> Attribute {
    let value: Vec<u8> = all.iter().flat_map(|one| pair(2, one)).collect();
    Attribute::new(0xc0, 16, value)
}

/// The NLRI of the membership in a route target, RFC 4684 §4.
#[must_use]
pub fn membership(asn: u32, target: &str) -> Vec<u8> {
    [vec![96], asn.to_be_bytes().to_vec(), pair(2, target)].concat()
}

/// The NLRI of a FlowSpec rule, RFC 8955 §4.2 and RFC 8956 §3.1.
#[must_use]
pub fn flow(destination: &str, protocol: u8, port: u16) -> Vec<u8> {
    let (bits, octets) = parts(destination);
    let mut all = vec![1, bits];
    if destination.contains(':') {
        all.push(0);
    }
    all.extend(octets);
    all.extend([3, 0x81, protocol, 5]);
    match u8::try_from(port) {
        Ok(port) => all.extend([0x81, port]),
        Err(_) => all.extend([&[0x91][..], &port.to_be_bytes()].concat()),
    }
    [vec![short(all.len())], all].concat()
}

/// An UPDATE as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// What is announced, by family and name.
    pub announced: Vec<(Family, String)>,
    /// What is withdrawn.
    pub withdrawn: Vec<(Family, String)>,
    /// All attributes, MP_REACH_NLRI and MP_UNREACH_NLRI included.
    pub attributes: Vec<Attribute>,
    /// Whose routes have all been sent.
    pub end_of_rib: Option<Family>,
}

impl Update {
    /// The value of an attribute.
    #[must_use]
    pub fn value(&self, code: u8) -> Option<&[u8]> {
        let found = self.attributes.iter().find(|one| one.code == code);
        found.map(|one| one.value.as_slice())
    }

    /// The AS numbers of the path.
    #[must_use]
    pub fn as_path(&self) -> Vec<u32> {
        let mut rest = self.value(2).unwrap_or_default();
        let mut all = Vec::new();
        while let [_, count, after @ ..] = rest {
            let (asns, next) = after
                .split_at_checked(usize::from(*count) * 4)
                .unwrap_or((after, &[]));
            all.extend(
                asns.chunks_exact(4)
                    .map(|asn| u32::from_be_bytes(asn.try_into().expect("4"))),
            );
            rest = next;
        }
        all
    }

    /// The next hop, without a distinguisher.
    #[must_use]
    pub fn next_hop(&self) -> Option<IpAddr> {
        let octets = match (self.value(3), self.value(14)) {
            (Some(octets), _) => octets,
            (None, Some([_, _, safi, length, rest @ ..])) => {
                let skip = if *safi == 128 { 8 } else { 0 };
                rest.get(skip..usize::from(*length))?
            }
            (None, _) => return None,
        };
        match octets.len() {
            4 => <[u8; 4]>::try_from(octets)
                .ok()
                .map(|octets| Ipv4Addr::from(octets).into()),
            _ => <[u8; 16]>::try_from(octets.get(..16)?)
                .ok()
                .map(|octets| Ipv6Addr::from(octets).into()),
        }
    }

    /// Reads the body of an UPDATE with AS numbers of four octets and no path identifiers.
    ///
    /// # Errors
    /// Where it does not add up.
    pub fn read(body: &[u8]) -> Result<Update, String> {
        let mut update = Update::default();
        let (withdrawn, rest) = counted(body)?;
        let (mut section, nlri) = counted(rest)?;
        if withdrawn.is_empty() && section.is_empty() && nlri.is_empty() {
            update.end_of_rib = Some(Family::Ipv4);
        }
        update.withdrawn = names(Family::Ipv4, withdrawn)?;
        update.announced = names(Family::Ipv4, nlri)?;
        while let [flags, code, rest @ ..] = section {
            let (value, after) = match (flags & 0x10, rest) {
                (0, [length, rest @ ..]) => split(rest, usize::from(*length))?,
                _ => counted(rest)?,
            };
            update.multiprotocol(*code, value)?;
            update
                .attributes
                .push(Attribute::new(flags & !0x10, *code, value));
            section = after;
        }
        if section.is_empty() {
            Ok(update)
        } else {
            Err("half an attribute".to_owned())
        }
    }

    fn multiprotocol(&mut self, code: u8, value: &[u8]) -> Result<(), String> {
        let (14 | 15, [high, low, safi, rest @ ..]) = (code, value) else {
            return Ok(());
        };
        let family = family(u16::from_be_bytes([*high, *low]), *safi)?;
        if code == 15 {
            self.withdrawn.extend(names(family, rest)?);
            if rest.is_empty() {
                self.end_of_rib = Some(family);
            }
            return Ok(());
        }
        let (length, rest) = rest.split_first().ok_or("no next hop")?;
        let (_, rest) = split(rest, usize::from(*length) + 1)?;
        self.announced.extend(names(family, rest)?);
        Ok(())
    }
}

fn family(afi: u16, safi: u8) -> Result<Family, String> {
    let all = [
        Family::Ipv4,
        Family::Ipv6,
        Family::Vpnv4,
        Family::Vpnv6,
        Family::Rtc,
        Family::Flow4,
        Family::Flow6,
    ];
    let found = all
        .into_iter()
        .find(|family| family.numbers() == (afi, safi));
    found.ok_or_else(|| format!("family {afi}/{safi}"))
}

fn split(octets: &[u8], at: usize) -> Result<(&[u8], &[u8]), String> {
    octets
        .split_at_checked(at)
        .ok_or_else(|| format!("{at} octets of {}", octets.len()))
}

fn counted(octets: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (length, rest) = split(octets, 2)?;
    split(
        rest,
        usize::from(u16::from_be_bytes([length[0], length[1]])),
    )
}

/// The names of all NLRI of a section, as [`crate::Route::name`] gives them.
fn names(family: Family, mut octets: &[u8]) -> Result<Vec<(Family, String)>, String> {
    let mut all = Vec::new();
    while let [first, rest @ ..] = octets {
        let bits = *first;
        let length = match family {
            Family::Flow4 | Family::Flow6 => usize::from(bits),
            Family::Ipv4 | Family::Ipv6 | Family::Vpnv4 | Family::Vpnv6 | Family::Rtc => {
                usize::from(bits.div_ceil(8))
            }
        };
        let (nlri, after) = split(rest, length)?;
        all.push((family, name(family, bits, nlri)?));
        octets = after;
    }
    Ok(all)
}

fn name(family: Family, bits: u8, nlri: &[u8]) -> Result<String, String> {
    let two = |rd: &[u8]| format!("{}:{}", number(&rd[2..4]), number(&rd[4..8]));
    Ok(match family {
        Family::Ipv4 | Family::Ipv6 => address(family, bits, nlri),
        Family::Vpnv4 | Family::Vpnv6 => {
            let (labelled, rest) = split(nlri, 11)?;
            let bits = bits.checked_sub(88).ok_or("a VPN prefix too short")?;
            format!("{} {}", two(&labelled[3..]), address(family, bits, rest))
        }
        Family::Rtc if nlri.len() < 12 => format!("{bits} bits"),
        Family::Rtc => format!("{}:{}", number(&nlri[..4]), two(&nlri[4..])),
        Family::Flow4 | Family::Flow6 => rule(family, nlri)?,
    })
}

fn number(octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(0, |all, octet| all << 8 | u64::from(*octet))
}

fn address(family: Family, bits: u8, octets: &[u8]) -> String {
    let mut all = octets.to_vec();
    all.resize(if family.is_v6() { 16 } else { 4 }, 0);
    let address: IpAddr = match <[u8; 16]>::try_from(all.as_slice()) {
        Ok(octets) => Ipv6Addr::from(octets).into(),
        Err(_) => <[u8; 4]>::try_from(&all[..4])
            .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
            .into(),
    };
    format!("{address}/{bits}")
}

/// The rule [`flow`] writes, or its octets.
fn rule(family: Family, nlri: &[u8]) -> Result<String, String> {
    let offset = usize::from(family.is_v6());
    let (head, rest) = split(nlri, 2 + offset)?;
    let bits = head[1];
    let (destination, rest) = split(rest, usize::from(bits.div_ceil(8)))?;
    let destination = address(family, bits, destination);
    match rest {
        [3, _, protocol, 5, _, port @ ..] if head[0] == 1 => Ok(format!(
            "{destination} protocol {protocol} port {}",
            number(port)
        )),
        _ => Ok(format!("{nlri:02x?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(family: Family, nlri: &[u8], name: &str) {
        let hop = if family.is_v6() {
            "fd00::1"
        } else {
            "10.0.0.1"
        };
        let hop = hop.parse().expect("an address");
        let octets = announce(family, nlri, Some(hop), &Attribute::usual(&[65001]));
        let update = Update::read(&octets[HEADER..]).expect("readable");
        assert_eq!(update.announced, [(family, name.to_owned())]);
        assert_eq!(update.as_path(), [65001]);
        assert_eq!(update.next_hop(), Some(hop));
        let octets = withdraw(family, nlri);
        let update = Update::read(&octets[HEADER..]).expect("readable");
        assert_eq!(update.withdrawn, [(family, name.to_owned())]);
        let octets = end_of_rib(family);
        let update = Update::read(&octets[HEADER..]).expect("readable");
        assert_eq!(update.end_of_rib, Some(family));
    }

    #[test]
    fn what_is_written_is_read() {
        check(Family::Ipv4, &prefix("10.66.0.0/15"), "10.66.0.0/15");
        check(Family::Ipv6, &prefix("2001:db8::/33"), "2001:db8::/33");
        check(
            Family::Vpnv4,
            &vpn("65000:7", "10.1.2.0/24", 99),
            "65000:7 10.1.2.0/24",
        );
        check(
            Family::Vpnv6,
            &vpn("65000:7", "2001:db8::/32", 99),
            "65000:7 2001:db8::/32",
        );
        check(Family::Rtc, &membership(65000, "65000:5"), "65000:65000:5");
        let name = "10.66.1.0/24 protocol 6 port 80";
        check(Family::Flow4, &flow("10.66.1.0/24", 6, 80), name);
        let name = "2001:db8::/32 protocol 17 port 8080";
        check(Family::Flow6, &flow("2001:db8::/32", 17, 8080), name);
    }

    #[test]
    fn an_open_adds_up() {
        let families = vec![Family::Ipv4, Family::Flow6];
        let octets = open(&Open {
            asn: 65000,
            id: Ipv4Addr::LOCALHOST,
            families,
        });
        assert_eq!(octets.len(), usize::from(octets[17]));
        assert_eq!(usize::from(octets[28]), octets.len() - 29);
    }
}
