//! What was read, written again and read again: it is to be the same.

use crate::wire::{
    Encoding, Family, HEADER, MAX_EXTENDED_MESSAGE, Scratch, UpdateBuilder, UpdateContext,
    UpdateError, UpdateFindings, decode, frame,
};

/// One route as it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Route {
    pub(super) family: Family,
    pub(super) path_id: u32,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// An UPDATE as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// With their canonical attributes; `None`: to be treated as withdrawn.
    pub(super) announced: Vec<(Route, Option<Vec<u8>>)>,
    pub(super) withdrawn: Vec<Route>,
    pub(super) end_of_rib: Option<Family>,
}

/// Of all families, four-octet AS numbers, without path ids.
pub(super) fn context(ebgp: bool) -> UpdateContext {
    UpdateContext {
        four_octet_as: true,
        ebgp,
        families: Family::ALL.to_vec(),
        add_path: vec![],
        extended_next_hop: vec![Family::IPV4, Family::VPNV4],
    }
}

/// Read the body of an UPDATE.
pub(super) fn read(
    body: &[u8],
    context: &UpdateContext,
) -> (Result<Routes, UpdateError>, UpdateFindings) {
    let (mut scratch, mut findings) = (Scratch::default(), UpdateFindings::default());
    let decoded = match decode(body, context, &mut scratch, &mut findings) {
        Ok(decoded) => decoded,
        Err(error) => return (Err(error), findings),
    };
    let mut routes = Routes {
        end_of_rib: decoded.end_of_rib,
        ..Routes::default()
    };
    for (section, attributes) in decoded.announced.iter().zip(decoded.attributes) {
        if let Some(section) = section {
            section.for_each(true, |nlri| {
                let route = Route {
                    family: section.family,
                    path_id: nlri.path_id,
                    key: nlri.key.to_vec(),
                    value: nlri.value.to_vec(),
                };
                routes
                    .announced
                    .push((route, attributes.map(<[u8]>::to_vec)));
            });
        }
    }
    for section in decoded.withdrawn.iter().flatten() {
        section.for_each(false, |nlri| {
            routes.withdrawn.push(Route {
                family: section.family,
                path_id: nlri.path_id,
                key: nlri.key.to_vec(),
                value: nlri.value.to_vec(),
            });
        });
    }
    (Ok(routes), findings)
}

/// Write what was read, one message a route.
pub(super) fn write(routes: &Routes, context: &UpdateContext) -> Vec<u8> {
    let mut out = Vec::new();
    let encoding = |family: Family| Encoding {
        max_message: MAX_EXTENDED_MESSAGE,
        four_octet_as: context.four_octet_as,
        add_path: context.add_path.contains(&family),
    };
    for route in &routes.withdrawn {
        let mut builder = UpdateBuilder::withdraw(&mut out, route.family, &encoding(route.family));
        assert!(builder.push(route.path_id, &route.key, &route.value));
        builder.finish();
    }
    for (route, attributes) in &routes.announced {
        let Some(attributes) = attributes else {
            continue;
        };
        let encoding = encoding(route.family);
        let builder = UpdateBuilder::announce(&mut out, route.family, &encoding, attributes);
        let Some(mut builder) = builder else { continue };
        if builder.push(route.path_id, &route.key, &route.value) {
            builder.finish();
        } else {
            // One that came in a full message may need the octets of another form.
            builder.finish();
        }
    }
    out
}

/// Read whole messages one behind the other.
pub(super) fn read_all(mut octets: &[u8], context: &UpdateContext) -> Routes {
    let mut all = Routes::default();
    while !octets.is_empty() {
        let (_, length) = frame(octets, MAX_EXTENDED_MESSAGE)
            .expect("good")
            .expect("whole");
        let (routes, findings) = read(&octets[HEADER..length], context);
        let routes = routes.expect("we read what we write");
        assert_eq!(
            (findings.discarded_attributes, findings.treated_as_withdrawn),
            (0, 0)
        );
        all.announced.extend(routes.announced);
        all.withdrawn.extend(routes.withdrawn);
        octets = &octets[length..];
    }
    all
}

/// `decode(encode(decode(x))) == decode(x)`, and the second encoding equals the first. A message
/// that was read without 4-octet AS numbers is written with them, as it is kept.
pub(super) fn check(body: &[u8], context: &UpdateContext) {
    let Ok(mut first) = read(body, context).0 else {
        return;
    };
    first
        .announced
        .retain(|(_, attributes)| attributes.is_some());
    first.end_of_rib = None;
    let wide = UpdateContext {
        four_octet_as: true,
        ..context.clone()
    };
    let octets = write(&first, &wide);
    let second = read_all(&octets, &wide);
    assert_eq!(second, first);
    assert_eq!(write(&second, &wide), octets);
}
