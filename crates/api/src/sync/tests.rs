use super::*;

fn object(name: &str, host: &str) -> Object {
    let value = serde_json::json!({ "kind": "Tenant", "metadata": { "name": name },
        "spec": { "publicHosts": [host] } });
    Object::from_value(value).expect("an object")
}

fn update(base: Option<u64>, revision: u64) -> Update {
    Update {
        planet: "earth.example".to_owned(),
        site: "par.fabric".parse().expect("a site"),
        base: base.map(Revision),
        revision: Revision(revision),
        issued: WallTime::from_unix_seconds(1_800_000_000),
        put: Vec::new(),
        delete: Vec::new(),
        sites: None,
    }
}

#[test]
fn a_chain_adds_up() {
    let full = Update {
        put: vec![object("a", "a.example"), object("b", "b.example")],
        sites: Some(Vec::new()),
        ..update(None, 5)
    };
    let delta = Update {
        put: vec![object("a", "c.example")],
        delete: vec![
            object("b", "b.example").key(),
            object("x", "x.example").key(),
        ],
        ..update(Some(5), 9)
    };
    let first = Bundle::default().with(full).expect("fits");
    let second = first.with(delta).expect("fits");
    assert_eq!((first.resources.len(), first.revision), (2, Revision(5)));
    assert_eq!(
        second.resources.into_values().collect::<Vec<_>>(),
        [Arc::new(object("a", "c.example"))]
    );
    let anew = Update {
        put: vec![object("z", "z.example")],
        ..update(None, 12)
    };
    let third = first.with(anew).expect("fits");
    assert_eq!(
        third.resources.len(),
        1,
        "a full update replaces everything"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let bundle = Bundle::default().with(update(None, 5)).expect("fits");
    for (base, revision, expect) in [
        (None, 5, "replay"),
        (None, 4, "replay"),
        (Some(5), 5, "replay"),
        (Some(3), 4, "replay"),
        (Some(4), 6, "gap"),
        (Some(6), 7, "gap"),
        (Some(5), 6, "fits"),
        (None, 6, "fits"),
    ] {
        let found = match bundle.with(update(base, revision)) {
            Ok(_) => "fits",
            Err(FitError::Gap { .. }) => "gap",
            Err(FitError::Replay { .. }) => "replay",
        };
        assert_eq!(found, expect, "{base:?} {revision}");
    }
    assert_eq!(
        Bundle::default().with(update(Some(3), 4)).err(),
        Some(FitError::Gap {
            base: Revision(3),
            have: Revision(0),
        })
    );
}

#[test]
fn the_words_on_the_wire_do_not_change() {
    let hello = Hello {
        site: "aws.acme".parse().expect("a site"),
        node: "n0".parse().expect("a name"),
        have: Some(Revision(7)),
        time: WallTime::from_unix_millis(1_800_000_000_000),
    };
    let refused = JoinReply::Refused {
        code: "clock".to_owned(),
        reason: "set it".to_owned(),
        time: WallTime::from_unix_millis(1),
    };
    for (text, expect) in [
        (
            serde_json::to_string(&Up::Hello(hello)),
            r#"{"hello":{"site":{"tenant":"acme","site":"aws"},"node":"n0","have":7,"time":1800000000000}}"#,
        ),
        (serde_json::to_string(&Up::Ack(Revision(7))), r#"{"ack":7}"#),
        (
            serde_json::to_string(&Up::Reject {
                revision: Revision(0),
                reason: "x".to_owned(),
            }),
            r#"{"reject":{"revision":0,"reason":"x"}}"#,
        ),
        (
            serde_json::to_string(&Up::Renew {
                csr: "AA".to_owned(),
            }),
            r#"{"renew":{"csr":"AA"}}"#,
        ),
        (
            serde_json::to_string(&Down::Time(WallTime::from_unix_millis(3))),
            r#"{"time":3}"#,
        ),
        (
            serde_json::to_string(&Down::Refused {
                reason: "no".to_owned(),
            }),
            r#"{"refused":{"reason":"no"}}"#,
        ),
        (
            serde_json::to_string(&refused),
            r#"{"refused":{"code":"clock","reason":"set it","time":1}}"#,
        ),
    ] {
        assert_eq!(text.expect("JSON"), expect);
    }
    let unknown = r#"{"planet":"p","site":{"tenant":"a","site":"b"},"base":null,"revision":1,
        "issued":1,"put":[],"delete":[],"sites":null,"more":1}"#;
    assert!(
        serde_json::from_str::<Update>(unknown).is_err(),
        "an update is strict"
    );
}

#[test]
fn envelopes_carry_bytes() {
    let signed = Signed::new("{}".to_owned(), &[1, 2, 3], &[vec![4, 5], vec![6]]);
    assert_eq!(signed.signature_bytes().expect("base64"), [1, 2, 3]);
    assert_eq!(signed.chain_der().expect("base64"), [vec![4, 5], vec![6]]);
    let damaged = Signed {
        signature: "*".to_owned(),
        ..signed.clone()
    };
    assert!(damaged.signature_bytes().is_err());
    let damaged = Signed {
        chain: vec!["*".to_owned()],
        ..signed
    };
    assert!(damaged.chain_der().is_err());
}

#[test]
fn what_a_data_half_says_is_read_as_it_was_meant() {
    let link = Link {
        peer: "nyc.fabric".parse().expect("a site"),
        rtt_us: Some(40_000),
        jitter_us: 12,
        loss: 655,
        load: 90,
        capacity_kbit_s: 100_000,
    };
    let one = Running {
        tenant: TenantId(7),
        service: base::ServiceId(9),
        requests: 12,
    };
    let vip: IpAddr = "192.0.2.80".parse().expect("an address");
    for up in [
        Up::Links(vec![link]),
        Up::Links(Vec::new()),
        Up::Running(vec![one]),
        Up::Running(Vec::new()),
        Up::Vips(BTreeSet::from([vip])),
    ] {
        let line = serde_json::to_string(&up).expect("JSON");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Up>(&line).ok(), Some(up));
    }
}
