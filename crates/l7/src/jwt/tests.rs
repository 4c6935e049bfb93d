//! Tokens by data, signed here.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::*;
use crate::{Pattern, ValueMatch};

const NOW: WallTime = WallTime::from_unix_seconds(1_800_000_000);

/// Somebody who issues tokens.
struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        Issuer {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"),
            ed: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    fn keys(&self) -> Value {
        let encoded = |octets: &[u8]| BASE64.encode(octets);
        let public = self.rsa.public_key();
        let n = public.modulus().big_endian_without_leading_zero();
        let e = public.exponent().big_endian_without_leading_zero();
        let (p256, p384) = (
            self.p256.public_key().as_ref(),
            self.p384.public_key().as_ref(),
        );
        json!({"keys": [
            {"kty": "oct", "kid": "secret", "k": "AAAA"},
            {"kty": "RSA", "kid": "rsa", "use": "sig", "n": encoded(n), "e": encoded(e)},
            {"kty": "EC", "kid": "p256", "crv": "P-256", "alg": "ES256",
             "x": encoded(&p256[1..33]), "y": encoded(&p256[33..])},
            {"kty": "EC", "kid": "p384", "crv": "P-384",
             "x": encoded(&p384[1..49]), "y": encoded(&p384[49..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519",
             "x": encoded(self.ed.public_key().as_ref())},
            {"kty": "OKP", "kid": "other", "crv": "X25519", "x": "AAAA"},
        ]})
    }

    fn sign(&self, algorithm: &str, text: &str) -> Vec<u8> {
        let rng = SystemRandom::new();
        let text = text.as_bytes();
        let rsa = |way: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(way, &rng, text, &mut signature)
                .expect("signed");
            signature
        };
        match algorithm {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "RS512" => rsa(&RSA_PKCS1_SHA512),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            "PS512" => rsa(&RSA_PSS_SHA512),
            "ES256" => self
                .p256
                .sign(&rng, text)
                .expect("signed")
                .as_ref()
                .to_vec(),
            "ES384" => self
                .p384
                .sign(&rng, text)
                .expect("signed")
                .as_ref()
                .to_vec(),
            "EdDSA" => self.ed.sign(text).as_ref().to_vec(),
            _ => Vec::new(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = self.sign(algorithm, &signed);
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": ["shop", "bank"], "sub": "ann",
           "exp": 1_800_000_100, "nbf": 1_799_999_900, "iat": 1_799_999_900.5})
}

fn provider(keys: &Value, from: &[Source]) -> Provider {
    Provider {
        issuer: "https://id.example".to_owned(),
        audiences: vec!["shop".to_owned()],
        keys: Keys::Given(KeySet::parse(&keys.to_string()).expect("keys")),
        from: from.to_vec(),
        forward: false,
        skew: Duration::from_secs(60),
    }
}

fn verifier(keys: &Value) -> Verifier {
    Verifier::new(vec![provider(keys, &[Source::Bearer])], 1)
}

fn bearer_of(token: &str) -> Fields {
    let value = HeaderValue::try_from(format!("bEARER {token}")).expect("a value");
    [(header::AUTHORIZATION, value)].into_iter().collect()
}

/// What is said of a token.
fn said(verifier: &Verifier, token: &str, now: WallTime) -> String {
    let read = verifier.read(&bearer_of(token), None, now, &mut Cache::default());
    match read {
        Ok(Some(told)) => told.claims.text("sub").unwrap_or_default().to_owned(),
        Ok(None) => "none".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn every_algorithm() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let verifier = verifier(&issuer.keys());
    for (algorithm, key) in [
        ("RS256", "rsa"),
        ("RS384", "rsa"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("PS384", "rsa"),
        ("PS512", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed"),
    ] {
        for header in [
            json!({"alg": algorithm, "kid": key}),
            json!({"alg": algorithm}),
        ] {
            let token = issuer.token(&header, &claims());
            assert_eq!(said(&verifier, &token, NOW), "ann", "{header}");
            // Another's signature, a changed one, none.
            let other = stranger.token(&header, &claims());
            assert_eq!(said(&verifier, &other, NOW), "Signature", "{header}");
            let (signed, signature) = token.rsplit_once('.').expect("three parts");
            assert_eq!(said(&verifier, &format!("{signed}."), NOW), "Signature");
            let mut wrong = BASE64.decode(signature).expect("octets");
            wrong[7] ^= 1;
            let wrong = format!("{signed}.{}", BASE64.encode(wrong));
            assert_eq!(said(&verifier, &wrong, NOW), "Signature", "{header}");
        }
    }
}

#[test]
fn headers_that_lie() {
    let issuer = Issuer::new();
    let verifier = verifier(&issuer.keys());
    for (header, expect) in [
        (json!({"alg": "none"}), "Algorithm"),
        (json!({"alg": "NONE"}), "Algorithm"),
        (json!({"alg": "HS256", "kid": "rsa"}), "Algorithm"),
        (json!({"alg": "HS256", "kid": "secret"}), "Algorithm"),
        (json!({"alg": "rs256"}), "Algorithm"),
        (json!({"kid": "rsa"}), "Syntax"),
        (json!({"alg": 1}), "Syntax"),
        (json!({"alg": "ES256", "kid": "rsa"}), "Key"),
        (json!({"alg": "RS256", "kid": "p256"}), "Key"),
        (json!({"alg": "RS256", "kid": "gone"}), "Key"),
        (json!({"alg": "RS256", "kid": 7}), "Syntax"),
        (
            json!({"alg": "RS256", "crit": ["b64"], "b64": false}),
            "Critical",
        ),
        (json!(["RS256"]), "Syntax"),
    ] {
        let token = issuer.token(&header, &claims());
        assert_eq!(said(&verifier, &token, NOW), expect, "{header}");
    }
    // The public key as a shared secret: the classic confusion has no algorithm to come by.
    let good = issuer.token(&json!({"alg": "RS256", "kid": "rsa"}), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for (token, expect) in [
        (format!("{}.{}", parts[0], parts[1]), "Syntax"),
        (format!("{good}.x"), "Syntax"),
        (format!("{good}="), "Syntax"),
        (format!("{}=.{}.{}", parts[0], parts[1], parts[2]), "Syntax"),
        (format!(".{}.{}", parts[1], parts[2]), "Syntax"),
        (String::new(), "Syntax"),
        ("..".to_owned(), "Syntax"),
        ("x".repeat(MAX_TOKEN + 1), "Long"),
    ] {
        assert_eq!(said(&verifier, &token, NOW), expect, "{token:.40}");
    }
}

#[test]
fn claims_are_checked() {
    let issuer = Issuer::new();
    let verifier = verifier(&issuer.keys());
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        said(&verifier, &issuer.token(&header, &claims), NOW)
    };
    for (name, value, expect) in [
        ("iss", json!("https://id.example/"), "Issuer"),
        ("iss", json!(["https://id.example"]), "Issuer"),
        ("iss", Value::Null, "Issuer"),
        ("aud", json!("shop"), "ann"),
        ("aud", json!("shops"), "Audience"),
        ("aud", json!([]), "Audience"),
        ("aud", Value::Null, "Audience"),
        ("exp", json!(1_799_999_941), "ann"),
        ("exp", json!(1_799_999_940), "Expired"),
        ("exp", json!(1.8e9), "ann"),
        ("exp", json!(-1), "Endless"),
        ("exp", json!("1800000100"), "Endless"),
        ("exp", Value::Null, "Endless"),
        ("nbf", json!(1_800_000_060), "ann"),
        ("nbf", json!(1_800_000_061), "Early"),
        ("nbf", json!("never"), "Early"),
        ("iat", json!(1_800_000_061), "Early"),
    ] {
        assert_eq!(with(name, value.clone()), expect, "{name} {value}");
    }
}

#[test]
fn where_tokens_stand() {
    let issuer = Issuer::new();
    let x_token = HeaderName::from_static("x-token");
    let sources = [
        Source::Header(x_token.clone()),
        Source::Cookie("id".to_owned()),
        Source::Query("token".to_owned()),
    ];
    let first = provider(&issuer.keys(), &sources);
    let second = Provider {
        issuer: "https://other.example".to_owned(),
        forward: true,
        ..provider(&issuer.keys(), &[Source::Bearer, sources[0].clone()])
    };
    let verifier = Verifier::new(vec![first, second], 1);
    let token = |issuer_name: &str| {
        let mut claims = claims();
        claims["iss"] = json!(issuer_name);
        issuer.token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims)
    };
    let (one, other) = (token("https://id.example"), token("https://other.example"));
    let read = |lines: &[(&str, String)], query: Option<&str>| {
        let lines = lines.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::try_from(value).expect("a value"))
        });
        let fields: Fields = lines.collect();
        let told = verifier.read(&fields, query, NOW, &mut Cache::default());
        match told {
            Ok(None) => "none".to_owned(),
            Ok(Some(told)) => format!("{:?}", told.hide.map(|name| name.to_string())),
            Err(error) => format!("{error:?}"),
        }
    };
    let query = format!("a=1&token={one}");
    for (lines, query, expect) in [
        (vec![], None, "none"),
        (
            vec![("authorization", "Basic YTpi".to_owned())],
            None,
            "none",
        ),
        (
            vec![("authorization", format!("Bearer {other}"))],
            None,
            "None",
        ),
        // Nobody who issued it looks for it there.
        (
            vec![("authorization", format!("Bearer {one}"))],
            None,
            "Issuer",
        ),
        (vec![("x-token", one.clone())], None, "Some(\"x-token\")"),
        (vec![("x-token", format!("Bearer {other}"))], None, "None"),
        (
            vec![("x-token", one.clone()), ("x-token", one.clone())],
            None,
            "Several",
        ),
        (vec![("cookie", format!("a=b; id={one}"))], None, "None"),
        (vec![], Some(query.as_str()), "None"),
        (vec![], Some("token=x&token=y"), "Several"),
        (
            vec![("x-token", "x".to_owned())],
            Some(query.as_str()),
            "Syntax",
        ),
    ] {
        assert_eq!(read(&lines, query), expect, "{lines:.60?}");
    }
}

#[test]
fn what_was_verified_is_remembered() {
    let issuer = Issuer::new();
    let verifier = verifier(&issuer.keys());
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    let token = issuer.token(&header, &claims());
    let cache = &mut Cache::default();
    let mut read = |verifier: &Verifier, token: &str, now: WallTime| {
        let told = verifier.read(&bearer_of(token), None, now, cache);
        told.map(|told| told.is_some())
    };
    assert_eq!(read(&verifier, &token, NOW), Ok(true));
    // A provider without that key believes it, as long as it takes itself for the same.
    let others = Issuer::new().keys();
    let same = Verifier::new(vec![provider(&others, &[Source::Bearer])], 1);
    assert_eq!(read(&same, &token, NOW), Ok(true));
    let another = Verifier::new(vec![provider(&others, &[Source::Bearer])], 2);
    assert_eq!(read(&another, &token, NOW), Err(TokenError::Signature));
    let later = NOW + Duration::from_secs(160);
    assert_eq!(read(&verifier, &token, later), Err(TokenError::Expired));
    // It holds a bounded number.
    for n in 0..2000 {
        let mut claims = claims();
        claims["jti"] = json!(n);
        let token = issuer.token(&header, &claims);
        assert_eq!(read(&verifier, &token, NOW), Ok(true));
    }
    assert!(cache.len() <= 1024, "{}", cache.len());
}

#[test]
fn claims_match() {
    let claims = json!({
        "sub": "ann", "admin": true, "level": 7, "groups": ["dev", "ops"],
        "scope": "read write", "name": "read write",
        "address": {"country": "de"}, "a.b": "c", "nothing": null,
    });
    let Value::Object(claims) = claims else {
        panic!("an object");
    };
    let claims = Claims(claims);
    for (name, value, expect) in [
        ("sub", "ann", true),
        ("sub", "an", false),
        ("sub", "~a.*", true),
        ("admin", "true", true),
        ("level", "7", true),
        ("groups", "ops", true),
        ("groups", "op", false),
        ("scope", "write", true),
        ("scope", "read write", false),
        ("name", "write", false),
        ("name", "read write", true),
        ("address.country", "de", true),
        ("address", "de", false),
        ("address.city", "de", false),
        ("a.b", "c", true),
        ("nothing", "null", false),
        ("gone", "", false),
    ] {
        let value = match value.strip_prefix('~') {
            Some(pattern) => ValueMatch::Regex(Pattern::new(pattern).expect("a pattern")),
            None => ValueMatch::Exact(value.into()),
        };
        let shown = format!("{name} {value:?}");
        let name = name.to_owned();
        assert_eq!(ClaimMatch { name, value }.holds(&claims), expect, "{shown}");
    }
}

#[test]
fn key_sets() {
    let parse = |value: &Value| KeySet::parse(&value.to_string()).err();
    assert_eq!(KeySet::parse("{").err(), Some(KeySetError::Syntax));
    assert_eq!(parse(&json!({})), Some(KeySetError::Syntax));
    assert_eq!(parse(&json!({"keys": []})), Some(KeySetError::None));
    let short = json!({"keys": [{"kty": "RSA", "n": BASE64.encode([0xFF; 128]), "e": "AQAB"}]});
    assert_eq!(parse(&short), Some(KeySetError::None));
    let off = json!({"keys": [{"kty": "EC", "crv": "P-256",
        "x": BASE64.encode([1; 32]), "y": BASE64.encode([1; 32])}]});
    assert_eq!(parse(&off), Some(KeySetError::None), "not on the curve");
    let mut keys = Issuer::new().keys();
    assert_eq!(parse(&keys), None);
    for (field, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("alg", json!("HS256")),
    ] {
        let mut key = keys["keys"][4].clone();
        key[field] = value;
        assert_eq!(
            parse(&json!({"keys": [key]})),
            Some(KeySetError::None),
            "{field}"
        );
    }
    let one = keys["keys"][4].clone();
    keys["keys"] = json!(vec![one; 65]);
    assert_eq!(parse(&keys), Some(KeySetError::Many));
    let long = format!("{}{}", " ".repeat(64 << 10), json!({"keys": []}));
    assert_eq!(KeySet::parse(&long).err(), Some(KeySetError::Long));
}

#[test]
fn keys_that_are_fetched_come_and_go() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let token =
        |issuer: &Issuer, kid: &str| issuer.token(&json!({"alg": "EdDSA", "kid": kid}), &claims());
    let set = |keys: &[(&Issuer, &str)]| {
        let keys = keys.iter().map(|(issuer, kid)| {
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid,
                   "x": BASE64.encode(issuer.ed.public_key().as_ref())})
        });
        let text = json!({"keys": keys.collect::<Vec<_>>()}).to_string();
        Arc::new(KeySet::parse(&text).expect("keys"))
    };
    let cell = Arc::new(KeyCell::default());
    let fetched = Provider {
        keys: Keys::Fetched(Arc::clone(&cell)),
        ..provider(&old.keys(), &[Source::Bearer])
    };
    let verifier = Verifier::new(vec![fetched], 1);
    let cache = &mut Cache::default();
    let mut read = |token: &str| {
        let read = verifier.read(&bearer_of(token), None, NOW, cache);
        (
            read.map(|told| told.is_some())
                .map_err(|error| format!("{error:?}")),
            cell.take_wanted(),
        )
    };
    let (one, two) = (token(&old, "one"), token(&new, "two"));
    let refused = |error: &str| Err(error.to_owned());
    assert_eq!(read(&one), (refused("NoKeys"), true));
    cell.store(set(&[(&old, "one")]));
    assert_eq!(read(&one), (Ok(true), false));
    assert_eq!(read(&two), (refused("Key"), true));
    // Somebody's own signature under a name that is known is no reason to ask.
    assert_eq!(read(&token(&new, "one")), (refused("Signature"), false));
    cell.store(set(&[(&old, "one"), (&new, "two")]));
    assert_eq!(read(&one), (Ok(true), false));
    assert_eq!(read(&two), (Ok(true), false));
    // What was remembered goes with the key.
    cell.store(set(&[(&new, "two")]));
    assert_eq!(read(&one), (refused("Key"), true));
    assert_eq!(read(&two), (Ok(true), false));
}
