//! The six route types as octets, as types, and as octets read in place.

use base::Rng;

use crate::{
    Facts, Host, Key, KeyError, PathKind, PathMatch, PathText, RouteTarget, State, Value,
    ValueError,
    mesh::bytes,
    tests::{golden, hex},
    wire::{Family, Scratch, UpdateContext, UpdateFindings, decode, encoded_len, put_attribute},
};

/// The key as the octet-wise functions want it.
fn as_bytes(key: &Key) -> Vec<u8> {
    let mut out = vec![key.kind()];
    key.encode(&mut out);
    out
}

#[test]
fn golden_octets() {
    for route in golden::routes() {
        let golden = hex(&route.nlri);
        let ours = super::encoded(&route.key, Some(&route.value));
        assert_eq!(
            format!("{ours:02x?}"),
            format!("{golden:02x?}"),
            "{}",
            route.key
        );
        let length = encoded_len(
            Family::MESH,
            false,
            &as_bytes(&route.key),
            route.value.as_bytes(),
        );
        assert_eq!(ours.len(), length);
        assert_eq!(super::encoded(&route.key, None), route.withdrawal());

        let key_len = usize::from(u16::from_be_bytes([golden[1], golden[2]]));
        let (key, value) = golden[4..].split_at(key_len);
        assert_eq!(Key::decode(golden[0], key).as_ref(), Ok(&route.key));
        assert_eq!(
            Value::decode(&route.key, value).as_ref(),
            Ok(&route.value),
            "{}",
            route.key
        );
    }
}

#[test]
fn values_read_as_they_were_written() {
    for route in golden::routes() {
        let v = &route.value;
        let again = match &route.key {
            Key::Site { .. } => v.as_site().map(|v| Value::site(&v)),
            Key::Service { .. } => v.as_service().map(|v| Value::service(&v)),
            Key::Endpoint { .. } => v.as_endpoint().map(|v| Value::endpoint(&v)),
            Key::HttpRoute { .. } => v.as_http_route().map(|v| Value::http_route(&v)),
            Key::Policy { .. } => v.as_policy().map(|v| Value::policy(&v)),
            Key::Link { .. } => v.as_link().map(|v| Value::link(&v)),
            Key::Unknown { .. } => None,
        };
        assert_eq!(again.as_ref(), Some(v), "{}", route.key);
    }
}

#[test]
fn a_link_whose_sort_or_load_is_cut_off_has_none() {
    let loaded = golden::routes().pop().expect("the last is a link");
    let grade = loaded.value.as_link().and_then(|link| link.grade);
    assert_eq!(grade.map(|grade| (grade.class, grade.cost)), Some((0, 1)));
    for missing in 0..=6 {
        let octets = loaded.value.as_bytes();
        let short = Value::decode(&loaded.key, &octets[..octets.len() - missing]);
        let link = short
            .ok()
            .and_then(|short| short.as_link())
            .expect("a link");
        assert_eq!(link.seq, crate::Seq(0x0102_0309));
        assert_eq!(link.grade, grade.filter(|_| missing <= 2));
        assert_eq!(link.load, if missing == 0 { 58_982 } else { 0 });
    }
    // A load alone stands behind what a link is of which nobody speaks.
    let link = loaded.value.as_link().expect("a link");
    let unsaid = crate::LinkHealth {
        grade: None,
        ..link
    };
    assert_eq!(Value::link(&unsaid), loaded.value);
}

#[test]
fn keys_read_well() {
    let shown: Vec<String> = golden::routes().iter().map(|r| r.key.to_string()).collect();
    assert_eq!(
        shown,
        [
            "site 11 rd 11:0",
            "service 0102030405060708 site 11 rd 11:0",
            "endpoint 10.0.0.9 port 8080/6 network 3 site 11 service 0102030405060708 rd 11:0",
            "endpoint 2001:db8::1 port 8080/6 network 3 site 11 service 0102030405060708 rd 11:0",
            "http shop.example prefix /api lb 1112131415161718 rd 11:0",
            &format!(
                "http * digest {} lb 1112131415161718 rd 11:0",
                "d1".repeat(32)
            ),
            "policy 00112233445566778899aabbccddeeff rd 11:0",
            "link 11→12 tunnel 3 rd 11:0",
            "link 11→12 tunnel 4 rd 11:0",
            "link 11→12 tunnel 5 rd 11:0",
        ]
    );
    assert!(size_of::<Key>() <= 48, "a key has {}", size_of::<Key>());
}

#[test]
fn bad_keys() {
    let rd = "0001 0000000b 0000";
    let check = |kind, body: &str, want| {
        let octets = hex(&format!("{rd} {body}"));
        assert_eq!(Key::decode(kind, &octets), Err(want), "{body}");
        assert!(
            !bytes::is_well_formed(&[&[kind], &octets[..]].concat()),
            "{body}"
        );
    };
    check(2, "0102030405060708 0000", KeyError::Short);
    check(2, "0102030405060708 0000000b 00", KeyError::Long);
    check(5, &"00".repeat(15), KeyError::Short);
    check(5, &"00".repeat(17), KeyError::Long);
    check(6, &"00".repeat(11), KeyError::Short);
    check(6, &"00".repeat(13), KeyError::Long);
    let http = |rest: &str, want| check(4, &format!("1112131415161718 {rest}"), want);
    http("03 614062", KeyError::Short);
    http("04 612e62", KeyError::Short);
    http("03 612e42 01 0001 2f", KeyError::Host);
    http("02 612e 01 0001 2f", KeyError::Host);
    http("02 6120 01 0001 2f", KeyError::Host);
    http("02 c3a4 01 0001 2f", KeyError::Host);
    http("01 ff 01 0001 2f", KeyError::Host);
    http("01 61 00 0001 2f", KeyError::PathKind(0));
    http("01 61 05 0001 2f", KeyError::PathKind(5));
    http("01 61 01 0001 0a", KeyError::Path);
    http("01 61 02 0001 ff", KeyError::Path);
    http("01 61 03 0001 2f 2f", KeyError::Long);
    http("01 61 03 0002 2f", KeyError::Short);
    http(
        &format!("01 61 01 00c9 {}", "2f".repeat(201)),
        KeyError::Path,
    );
    http(
        &format!("01 61 04 001f {}", "d1".repeat(31)),
        KeyError::Path,
    );
    http(
        &format!("01 61 04 0021 {}", "d1".repeat(33)),
        KeyError::Path,
    );
}

#[test]
fn hosts_and_paths_have_limits() {
    assert!(Host::new(&"h".repeat(255)).is_ok());
    assert_eq!(Host::new(&"h".repeat(256)), Err(KeyError::Host));
    assert_eq!(Host::new("Shop.example"), Err(KeyError::Host));
    assert_eq!(Host::new("shop.example."), Err(KeyError::Host));
    assert!(PathText::new(&"p".repeat(200)).is_ok());
    assert_eq!(PathText::new(&"p".repeat(201)), Err(KeyError::Path));
    let sum = |octets: &[u8]| {
        let mut digest = [0; 32];
        digest[0] = octets[0];
        digest[1] = u8::try_from(octets.len()).unwrap();
        digest
    };
    let short = PathMatch::new(PathKind::Regex, &"p".repeat(200), sum);
    assert!(matches!(short, Ok(PathMatch::Regex(_))));
    let Ok(PathMatch::Digest(long)) = PathMatch::new(PathKind::Regex, &"p".repeat(201), sum) else {
        panic!("201 octets go as their digest");
    };
    assert_eq!(long[..2], [3, 202], "the kind is part of what is digested");
    let control = PathMatch::new(PathKind::Exact, &"\n".repeat(201), sum);
    assert_eq!(control, Err(KeyError::Path));
}

#[test]
fn short_values_and_states_without_a_name() {
    for route in golden::routes() {
        let octets = route.value.as_bytes();
        let short = &octets[..octets.len() - route.optional() - 1];
        let want = Err(ValueError::Length(short.len()));
        assert_eq!(Value::decode(&route.key, short), want, "{}", route.key);
        let mut wrong = octets.to_vec();
        wrong[0] = 0x07;
        let want = Err(ValueError::State(7));
        assert_eq!(Value::decode(&route.key, &wrong), want, "{}", route.key);
        let mut newer = octets.to_vec();
        newer[0] |= 0xF0;
        newer.extend([0xEE; 9]);
        let newer = Value::decode(&route.key, &newer).expect("a later version, a longer value");
        assert_eq!(newer.state(), route.value.state(), "{}", route.key);
        assert_eq!(newer.seq(&route.key), route.value.seq(&route.key));
        assert_eq!(newer.version(), Some(15));
        assert!(route.value.seq(&route.key).is_some());
    }
}

#[test]
fn bad_routes_are_ignored_or_withdrawn() {
    let mut nlri = Vec::new();
    for route in golden::routes() {
        let good = hex(&route.nlri);
        // The value's last octet that has to be there is missing; then the key has an octet too many (but not where
        // that is part of its form), which leaves the frame as good as it was.
        let missing = 1 + route.optional();
        let mut short = good[..good.len() - missing].to_vec();
        short[3] -= u8::try_from(missing).expect("a few");
        nlri.extend(short);
        let mut long = good.clone();
        let key_end = 4 + usize::from(good[2]);
        long.insert(key_end, 0);
        long[2] += 1;
        nlri.extend(long);
        nlri.extend(good);
    }
    let mut findings = UpdateFindings::default();
    let mut value = hex("400d f4 04 00000001 00");
    value.extend(nlri);
    let mut attributes = hex("400101 00 400200 400504 00000064");
    put_attribute(&mut attributes, 0x80, 14, &value);
    let length = u16::try_from(attributes.len()).expect("short");
    let body = [&[0, 0][..], &length.to_be_bytes(), &attributes].concat();
    let context = UpdateContext {
        four_octet_as: true,
        ebgp: false,
        families: vec![Family::MESH],
        add_path: Vec::new(),
        extended_next_hop: Vec::new(),
    };
    let mut scratch = Scratch::default();
    let update = decode(&body, &context, &mut scratch, &mut findings).expect("well framed");
    assert_eq!((findings.bad_keys, findings.bad_values), (10, 10));
    let read = |reach: bool| {
        let mut all = Vec::new();
        let sections = if reach {
            &update.announced
        } else {
            &update.withdrawn
        };
        for section in sections.iter().flatten() {
            section.for_each(reach, |route| {
                all.push((route.key.to_vec(), route.value.to_vec()))
            });
        }
        all
    };
    let all = golden::routes();
    let wanted = all
        .iter()
        .map(|r| (as_bytes(&r.key), r.value.as_bytes().to_vec()));
    let announced = read(true);
    assert!(wanted.clone().all(|route| announced.contains(&route)));
}

/// Octets and types say the same of `key` and `value`.
fn agree(key: &[u8], value: &[u8]) {
    let what = format!("{key:02x?} {value:02x?}");
    let typed = match key.split_first() {
        Some((kind, octets)) => Key::decode(*kind, octets).ok(),
        None => None,
    };
    assert_eq!(bytes::is_well_formed(key), typed.is_some(), "{what}");
    let _never_panics = (bytes::rd(key), bytes::site(key));
    let Some(typed) = typed else { return };
    let kind = key[0];
    assert_eq!(as_bytes(&typed), key);
    assert_eq!(bytes::rd(key), Some(typed.rd()), "{what}");
    assert_eq!(bytes::site(key), typed.site(), "{what}");
    let known = !matches!(typed, Key::Unknown { .. });
    let read = Value::decode(&typed, value).ok();
    assert_eq!(bytes::value_fits(kind, value), read.is_some(), "{what}");
    let state = read.as_ref().and_then(Value::state).filter(|_| known);
    assert_eq!(bytes::state(kind, value), state, "{what}");
    let seq = read.as_ref().and_then(|v| v.seq(&typed));
    assert_eq!(bytes::seq(kind, value), seq, "{what}");
}

#[test]
fn octets_and_types_agree() {
    let mut rng = Rng::new(3);
    let mut pick = |n: usize| usize::try_from(rng.below(n as u64)).unwrap();
    let mut shapes: Vec<(Vec<u8>, Vec<u8>)> = golden::routes()
        .iter()
        .map(|r| (as_bytes(&r.key), r.value.as_bytes().to_vec()))
        .collect();
    shapes.push((
        hex("c8 0001 0000000b 0000 deadbeef"),
        vec![State::Healthy.number(); 30],
    ));
    for (key, value) in &shapes {
        agree(key, value);
        for cut in 0..key.len() {
            agree(&key[..cut], value);
        }
        for len in [0, 1, 11, 12, 15, 16, 23, 24, 39, 40, 47, 48, 255, 256] {
            agree(
                key,
                &value.iter().copied().cycle().take(len).collect::<Vec<_>>(),
            );
        }
        for _ in 0..20_000 {
            let (mut key, mut value) = (key.clone(), value.clone());
            for octets in [&mut key, &mut value] {
                let at = pick(octets.len());
                match pick(6) {
                    0 => octets[at] ^= 1 << pick(8),
                    1 => octets[at] = u8::try_from(pick(256)).unwrap(),
                    2 => octets.insert(at, u8::try_from(pick(256)).unwrap()),
                    3 => drop(octets.remove(at)),
                    4 => octets[0] = u8::try_from(pick(9)).unwrap(),
                    _ => {}
                }
            }
            agree(&key, &value);
        }
    }
    let longest = [&hex("c8 0001 0000000b 0000")[..], &[7; 504]].concat();
    agree(&longest, &[]);
    agree(&[&longest[..], &[7]].concat(), &[]);
}

#[test]
fn selectors_by_type() {
    let rows = [
        (Key::SITE, RouteTarget::SITE),
        (Key::SERVICE, RouteTarget::SERVICE),
        (Key::ENDPOINT, RouteTarget::SERVICE),
        (Key::HTTP_ROUTE, RouteTarget::SERVICE),
        (Key::POLICY, RouteTarget::POLICY),
        (Key::LINK, RouteTarget::SITE),
    ];
    for (kind, selector) in rows {
        for other in [0, 1, 2, 3, 4, 0x8001] {
            let fits = bytes::selector_fits(kind, other);
            assert_eq!(fits, other == selector, "type {kind} selector {other}");
        }
    }
    assert!(bytes::selector_fits(200, 9) && !bytes::selector_fits(200, 0));
}

#[test]
fn facts_round_trip() {
    let facts = Facts {
        zone: Some("eu-1a".to_owned()),
        protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        identity: Some([0xD3; 32]),
    };
    let golden = hex(&format!(
        "01 0005 65752d3161  02 000c 02 6832 08 687474702f312e31  03 0020 {}",
        "d3".repeat(32)
    ));
    assert_eq!(facts.encode(), golden);
    assert_eq!(Facts::decode(&golden), Some(facts));
    assert_eq!(Facts::decode(&[]), Some(Facts::default()));
    let decode = |text: &str| Facts::decode(&hex(text));
    let zone = |zone: &str| Facts {
        zone: Some(zone.to_owned()),
        ..Facts::default()
    };
    assert_eq!(decode("09 0001 00  01 0001 61"), Some(zone("a")));
    assert_eq!(decode("01 0001 61  01 0001 62"), Some(zone("a")));
    for bad in [
        "01",
        "01 00",
        "01 0002 61",
        "01 0001 0a",
        "01 0001 ff",
        "02 0001 00",
        "02 0002 0261",
        "03 0001 00",
    ] {
        assert_eq!(decode(bad), None, "{bad}");
    }
    assert_eq!(decode(&format!("01 0040 {}", "61".repeat(64))), None);
    assert_eq!(decode(&format!("02 0022 {}", "0161".repeat(17))), None);
    let over = Facts {
        zone: Some("z".repeat(64)),
        protocols: vec![String::new(), "p".repeat(256)],
        identity: None,
    };
    assert!(over.encode().is_empty());
}

#[test]
fn the_paper_has_these_octets() {
    let paper = include_str!("../../../../../docs/protocol/mesh.md");
    let plain = |text: &str| text.replace('|', "").split_whitespace().collect::<String>();
    let paper = plain(paper);
    for route in golden::routes() {
        assert!(
            paper.contains(&plain(&route.nlri)),
            "docs/protocol/mesh.md lacks {}",
            route.nlri
        );
    }
}
