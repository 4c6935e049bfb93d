use std::{sync::Arc, time::Duration};

use api::Object;
use base::Revision;
use pki::{Authority, NodeKey};
use plan::World;
use serde_json::json;

use super::*;

const NOW: WallTime = WallTime::from_unix_seconds(1_800_000_000);
const SECRET: [u8; 32] = [7; 32];

fn issuer() -> Issuer {
    let planet: pki::Planet = "earth.example".parse().expect("a planet");
    Issuer {
        authority: Arc::new(Authority::create(&planet, NOW).expect("an authority")),
        planet,
        addresses: vec!["127.0.0.1:7000".to_owned()],
        lifetime: Duration::from_secs(90 * 86_400),
    }
}

/// A tenant's gateway `aws` with node `n0`, and a Token for it that is good for an hour.
fn state() -> State {
    let objects = [
        json!({ "kind": "Site", "metadata": { "tenant": "acme", "name": "aws" },
            "spec": { "role": "gateway", "nodes": [{ "name": "n0" }] } }),
        json!({ "kind": "Token", "metadata": { "tenant": "acme", "name": "t" },
            "spec": { "site": "aws" } }),
    ];
    let objects = objects.map(|value| Object::from_value(value).expect("an object"));
    let record = TokenRecord {
        secret_hash: pki::sha256(&SECRET),
        expires_at: NOW + Duration::from_secs(3600),
        node: "n0".parse().expect("a name"),
        spent: None,
    };
    let mut state = State {
        world: World::new(objects),
        ..State::default()
    };
    let key = "tenants/acme/tokens/t".parse().expect("a key");
    state.tokens.insert(key, (record, Revision(1)));
    state
}

fn request(key: &NodeKey, time: WallTime) -> JoinRequest {
    JoinRequest {
        token: "tenants/acme/tokens/t".to_owned(),
        secret: URL_SAFE_NO_PAD.encode(SECRET),
        csr: api::sync::encode(&key.csr_der().expect("a request")),
        time,
    }
}

fn outcome(decision: &Result<Admission, Refusal>) -> &str {
    match decision {
        Ok(Admission::New { .. }) => "new",
        Ok(Admission::Repeat { .. }) => "repeat",
        Err(refusal) => refusal.code,
    }
}

#[test]
fn time_decides() {
    let (state, issuer) = (state(), issuer());
    let key = NodeKey::generate().expect("a key");
    let minutes = |n: u64| Duration::from_secs(60 * n);
    for (what, at, clock, expect) in [
        ("in time", NOW, NOW, "new"),
        (
            "the last moment",
            NOW + minutes(59),
            NOW + minutes(59),
            "new",
        ),
        (
            "too late",
            NOW + minutes(60),
            NOW + minutes(60),
            "token-expired",
        ),
        ("a clock ten minutes off", NOW, NOW - minutes(10), "new"),
        ("a clock an hour off", NOW, NOW + minutes(60), "new"),
        (
            "a clock more than an hour ahead",
            NOW,
            NOW + minutes(61),
            "clock",
        ),
        ("a clock a day behind", NOW, NOW - minutes(1440), "clock"),
    ] {
        let decision = decide(&state, &issuer, &request(&key, clock), at);
        assert_eq!(outcome(&decision), expect, "{what}");
    }
}

#[test]
fn a_repeat_is_for_ten_minutes_and_one_key() {
    let (mut state, issuer) = (state(), issuer());
    let key = NodeKey::generate().expect("a key");
    let Ok(Admission::New {
        key: path, record, ..
    }) = decide(&state, &issuer, &request(&key, NOW), NOW)
    else {
        panic!("not admitted");
    };
    state.tokens.insert(path, (*record, Revision(2)));
    let other = NodeKey::generate().expect("a key");
    for (who, after, expect) in [
        (&key, 0, "repeat"),
        (&key, 600, "repeat"),
        (&key, 601, "token-spent"),
        (&key, 7200, "token-spent"),
        (&other, 1, "token-spent"),
    ] {
        let at = NOW + Duration::from_secs(after);
        assert_eq!(
            outcome(&decide(&state, &issuer, &request(who, at), at)),
            expect,
            "{after}"
        );
    }
}

#[test]
fn only_the_secret_opens() {
    let (mut state, issuer) = (state(), issuer());
    let key = NodeKey::generate().expect("a key");
    let good = request(&key, NOW);
    for (token, secret, expect) in [
        ("tenants/acme/tokens/t", good.secret.as_str(), "new"),
        ("tenants/acme/tokens/t", "", "token-unknown"),
        ("tenants/acme/tokens/t", "not base64!", "token-unknown"),
        ("tenants/acme/tokens/u", &good.secret, "token-unknown"),
        ("tenants/blue/tokens/t", &good.secret, "token-unknown"),
        ("tenants/acme", &good.secret, "token-unknown"),
        ("", &good.secret, "token-unknown"),
    ] {
        let (token, secret) = (token.to_owned(), secret.to_owned());
        let asked = JoinRequest {
            token: token.clone(),
            secret,
            ..good.clone()
        };
        assert_eq!(
            outcome(&decide(&state, &issuer, &asked, NOW)),
            expect,
            "{token}"
        );
    }
    let padded = JoinRequest {
        secret: api::sync::encode(&SECRET),
        ..good.clone()
    };
    assert_eq!(
        outcome(&decide(&state, &issuer, &padded, NOW)),
        "new",
        "padding is no matter"
    );
    let site = state
        .world
        .objects()
        .keys()
        .find(|key| key.kind == Kind::Site)
        .cloned();
    state.world.remove(&site.expect("the site"));
    assert_eq!(
        outcome(&decide(&state, &issuer, &good, NOW)),
        "bad-request",
        "no such site"
    );
}
