//! Decoders.

use bgp::{
    Facts, Key, Value, mesh,
    policy::AsPathRegex,
    wire::{
        Encoding, Family, HEADER, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Notification, OpenMessage,
        Scratch, UpdateBuilder, UpdateContext, UpdateError, UpdateFindings, decode, describe,
        frame, put_attribute, read_route_refresh, route_refresh,
    },
};

use crate::Choices;

pub(crate) fn open(octets: &[u8]) {
    let Ok(open) = OpenMessage::decode(octets) else {
        return;
    };
    let again = open.encode();
    assert!(again.len() <= MAX_MESSAGE);
    assert_eq!(OpenMessage::decode(&again[HEADER..]), Ok(open));
}

/// A route as it was read: family, path id, key, value.
pub(crate) type Route = (Family, u32, Vec<u8>, Vec<u8>);

/// An UPDATE as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    /// With their canonical attributes.
    pub(crate) announced: Vec<(Route, Vec<u8>)>,
    pub(crate) withdrawn: Vec<Route>,
}

pub(crate) fn read(body: &[u8], context: &UpdateContext) -> Result<Update, UpdateError> {
    let (mut scratch, mut findings) = (Scratch::default(), UpdateFindings::default());
    let decoded = decode(body, context, &mut scratch, &mut findings)?;
    let mut update = Update::default();
    for (section, attributes) in decoded.announced.iter().zip(decoded.attributes) {
        let (Some(section), Some(attributes)) = (section, attributes) else {
            continue;
        };
        section.for_each(true, |route| {
            assert!(!describe(section.family, route.key).is_empty());
            let (key, value) = (route.key.to_vec(), route.value.to_vec());
            let route = (section.family, route.path_id, key, value);
            update.announced.push((route, attributes.to_vec()));
        });
    }
    for section in decoded.withdrawn.iter().flatten() {
        section.for_each(false, |route| {
            assert!(!describe(section.family, route.key).is_empty());
            let (key, value) = (route.key.to_vec(), route.value.to_vec());
            update
                .withdrawn
                .push((section.family, route.path_id, key, value));
        });
    }
    Ok(update)
}

/// One message a route.
fn write(update: &Update, context: &UpdateContext) -> Vec<u8> {
    let encoding = |family: Family| Encoding {
        max_message: MAX_EXTENDED_MESSAGE,
        four_octet_as: true,
        add_path: context.add_path.contains(&family),
    };
    let mut out = Vec::new();
    for (family, path_id, key, value) in &update.withdrawn {
        let mut one = UpdateBuilder::withdraw(&mut out, *family, &encoding(*family));
        assert!(one.push(*path_id, key, value));
        one.finish();
    }
    for ((family, path_id, key, value), attributes) in &update.announced {
        let one = UpdateBuilder::announce(&mut out, *family, &encoding(*family), attributes);
        let Some(mut one) = one else { continue };
        // One that came in a full message may need the octets of another form.
        let _ = one.push(*path_id, key, value);
        one.finish();
    }
    out
}

fn read_all(mut octets: &[u8], context: &UpdateContext) -> Update {
    let mut all = Update::default();
    while !octets.is_empty() {
        let whole = frame(octets, MAX_EXTENDED_MESSAGE).expect("our own header");
        let (_, length) = whole.expect("a whole message");
        let update = read(&octets[HEADER..length], context).expect("we read what we write");
        all.announced.extend(update.announced);
        all.withdrawn.extend(update.withdrawn);
        octets = &octets[length..];
    }
    all
}

pub(crate) fn context(choices: &mut Choices<'_>) -> UpdateContext {
    let bits = choices.octet();
    let families = match bits >> 4 & 3 {
        3 => vec![Family::ALL[usize::from(choices.octet()) % Family::ALL.len()]],
        _ => Family::ALL.to_vec(),
    };
    UpdateContext {
        four_octet_as: bits & 1 == 0,
        ebgp: bits & 2 != 0,
        add_path: if bits & 4 == 0 {
            Vec::new()
        } else {
            families.clone()
        },
        extended_next_hop: if bits & 8 == 0 {
            Vec::new()
        } else {
            vec![Family::IPV4, Family::VPNV4]
        },
        families,
    }
}

pub(crate) fn update(octets: &[u8]) {
    let mut choices = Choices(octets);
    let context = context(&mut choices);
    fixpoint(choices.0, &context);
}

/// What was read, written, and read again is the same; and so is the second writing.
fn fixpoint(body: &[u8], context: &UpdateContext) {
    if body.len() > MAX_EXTENDED_MESSAGE - HEADER {
        return;
    }
    let Ok(first) = read(body, context) else {
        return;
    };
    let wide = UpdateContext {
        four_octet_as: true,
        ..context.clone()
    };
    let octets = write(&first, &wide);
    let second = read_all(&octets, &wide);
    if body.len() < MAX_MESSAGE {
        assert_eq!(second, first);
    }
    assert_eq!(write(&second, &wide), octets);
}

/// NLRI of one family in an otherwise good UPDATE.
fn section(family: Family, reach: bool, nlri: &[u8]) -> Vec<u8> {
    let mut value = family.afi.to_be_bytes().to_vec();
    value.push(family.safi);
    let mut attributes = Vec::new();
    if reach {
        value.extend([0, 0]);
        attributes.extend([0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100]);
    }
    value.extend_from_slice(nlri);
    put_attribute(&mut attributes, 0x80, if reach { 14 } else { 15 }, &value);
    let length = u16::try_from(attributes.len()).unwrap_or(u16::MAX);
    [&[0, 0][..], &length.to_be_bytes(), &attributes].concat()
}

pub(crate) fn flowspec(octets: &[u8]) {
    const FAMILIES: [(u16, u8); 4] = [(1, 133), (2, 133), (1, 134), (2, 134)];
    let mut choices = Choices(octets);
    let bits = choices.octet();
    let (afi, safi) = FAMILIES[usize::from(bits & 3)];
    let family = Family { afi, safi };
    let nlri = choices.take(2048);
    let mut context = context(&mut Choices(&[0x10]));
    if bits & 4 != 0 {
        context.add_path = vec![family];
    }
    fixpoint(&section(family, bits & 8 == 0, nlri), &context);
}

pub(crate) fn mesh(octets: &[u8]) {
    let mut choices = Choices(octets);
    let length = usize::from(choices.octet());
    let key = choices.take(length);
    let value = choices.0;
    let typed = key
        .split_first()
        .and_then(|(kind, rest)| Key::decode(*kind, rest).ok());
    assert_eq!(mesh::bytes::is_well_formed(key), typed.is_some());
    if let Some(typed) = &typed {
        let mut again = vec![typed.kind()];
        typed.encode(&mut again);
        assert_eq!(again, key);
        assert_eq!(mesh::bytes::rd(key), Some(typed.rd()));
        assert_eq!(mesh::bytes::site(key), typed.site());
        let read = Value::decode(typed, value).ok();
        assert_eq!(mesh::bytes::value_fits(key[0], value), read.is_some());
        if let Some(read) = read {
            assert_eq!(read.as_bytes(), value);
            assert_eq!(mesh::bytes::seq(key[0], value), read.seq(typed));
            if let (Key::Link { .. }, Some(link)) = (typed, read.as_link()) {
                assert_eq!(Value::link(&link).as_link(), Some(link));
            }
        }
    }
    if let Some(facts) = Facts::decode(octets) {
        assert_eq!(Facts::decode(&facts.encode()), Some(facts));
    }
    let context = context(&mut Choices(&[0x10]));
    fixpoint(&section(Family::MESH, true, octets), &context);
}

pub(crate) fn messages(octets: &[u8]) {
    let notification = Notification::decode(octets);
    assert!(!notification.to_string().is_empty());
    let again = notification.encode();
    if octets.len() <= MAX_MESSAGE - HEADER {
        assert_eq!(Notification::decode(&again[HEADER..]), notification);
    }
    if let Some((family, kind)) = read_route_refresh(octets) {
        let again = route_refresh(family, kind);
        assert_eq!(read_route_refresh(&again[HEADER..]), Some((family, kind)));
    }
    // A frame does not depend on how much of what follows is there.
    let mut rest = octets;
    while let Ok(Some((kind, length))) = frame(rest, MAX_EXTENDED_MESSAGE) {
        assert!((HEADER..=rest.len()).contains(&length));
        assert_eq!(
            frame(&rest[..length], MAX_EXTENDED_MESSAGE),
            Ok(Some((kind, length)))
        );
        assert_eq!(frame(&rest[..length - 1], MAX_EXTENDED_MESSAGE), Ok(None));
        rest = &rest[length..];
    }
}

pub(crate) fn policy(octets: &[u8]) {
    let mut choices = Choices(octets);
    let length = usize::from(choices.octet());
    let Ok(text) = std::str::from_utf8(choices.take(length)) else {
        return;
    };
    let Ok(pattern) = text.parse::<AsPathRegex>() else {
        return;
    };
    let again: AsPathRegex = pattern.to_string().parse().expect("it was one");
    let mut path = Vec::new();
    while let Some(kind) = choices.next() {
        let numbers = choices.take(4 * usize::from(kind >> 4));
        let count = u8::try_from(numbers.len() / 4).unwrap_or(0);
        if count > 0 {
            path.extend([1 + (kind & 1), count]);
            path.extend_from_slice(&numbers[..4 * usize::from(count)]);
        }
    }
    assert_eq!(pattern.matches(&path), again.matches(&path));
}
