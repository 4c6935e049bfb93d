//! Through the room's door: who is believed, and what is refused with which error.

use std::time::Duration;

use base::{SiteName, WallTime};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::*;

const DAY: Duration = Duration::from_secs(86_400);
const NOW: WallTime = WallTime::from_unix_seconds(1_800_000_000);

fn planet(name: &str) -> Planet {
    name.parse().expect("a planet")
}

fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

fn gateway() -> Identity {
    Identity::node(
        planet("earth.example"),
        site("aws.acme"),
        "n0".parse().expect("a name"),
    )
}

fn authority(name: &str) -> Authority {
    Authority::create(&planet(name), NOW).expect("a CA")
}

fn issue(ca: &Authority, identity: &Identity) -> Vec<CertificateDer<'static>> {
    let key = NodeKey::generate().expect("a key");
    ca.issue(&key.csr_der().expect("a request"), identity, NOW, 90 * DAY)
        .expect("a chain")
}

fn verifier(ca: &Authority) -> Verifier {
    Verifier::new(&[ca.certificate_der()]).expect("a verifier")
}

#[test]
fn identities_round_trip() {
    for text in [
        "spiffe://earth.example/tenant/acme/site/aws/node/n0",
        "spiffe://earth.example/tenant/fabric/site/par/node/0",
        "spiffe://earth/controller",
    ] {
        let identity: Identity = text.parse().expect(text);
        assert_eq!(identity.to_string(), text);
        let json = serde_json::to_string(&identity).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Identity>(&json).expect("identity"),
            identity
        );
    }
    assert_eq!(gateway().site(), Some(&site("aws.acme")));
    assert!(!gateway().is_pop() && !gateway().is_controller());
}

#[test]
fn malformed_identities_are_refused() {
    let long = format!("spiffe://earth/tenant/{}/site/s/node/n", "a".repeat(2000));
    for text in [
        "",
        "spiffe://",
        "spiffe://earth",
        "spiffe://earth/",
        "spiffe:///controller",
        "spiffe://earth/controller/",
        "spiffe://earth//controller",
        "spiffe://Earth/controller",
        "SPIFFE://earth/controller",
        "spiffe://earth:443/controller",
        "spiffe://a@earth/controller",
        "spiffe://earth/controller?x",
        "spiffe://earth/controller#x",
        "spiffe://earth/tenant/acme/site/aws",
        "spiffe://earth/tenant/acme/site/aws/node/",
        "spiffe://earth/tenant/acme/site/aws/node/n0/x",
        "spiffe://earth/tenant/../site/aws/node/n0",
        "spiffe://earth/tenant/ac%6de/site/aws/node/n0",
        "spiffe://earth/site/aws/tenant/acme/node/n0",
        "https://earth/controller",
        long.as_str(),
    ] {
        assert!(text.parse::<Identity>().is_err(), "{text}");
    }
}

#[test]
fn issued_certificates_prove_the_identity() {
    let ca = authority("earth.example");
    let chain = issue(&ca, &gateway());
    assert_eq!(chain.len(), 2);
    assert_eq!(&chain[1], ca.certificate_der());
    assert_eq!(
        verifier(&ca).identify(&chain, NOW).expect("identity"),
        gateway()
    );
    assert_eq!(
        Identity::from_certificate(&chain[0]).expect("identity"),
        gateway()
    );
    let pinned = Verifier::pinned(&chain, &ca.spki_sha256()).expect("pinned");
    assert_eq!(pinned.identify(&chain, NOW).expect("identity"), gateway());
    assert!(matches!(
        Verifier::pinned(&chain, &[7; 32]),
        Err(VerifyError::NotPinned)
    ));
    // Pinning a node's own key does not make the node an authority.
    let own = spki_sha256(&chain[0]).expect("hash");
    assert!(matches!(
        Verifier::pinned(&chain, &own),
        Err(VerifyError::AnchorName(_))
    ));
}

#[test]
fn names_in_the_request_are_ignored() {
    let ca = authority("earth.example");
    let key = KeyPair::generate().expect("a key");
    let mut params =
        rcgen::CertificateParams::new(vec!["victim.example".to_owned()]).expect("names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names.push(rcgen::SanType::URI(
        "spiffe://earth.example/controller"
            .try_into()
            .expect("ASCII"),
    ));
    let request = params.serialize_request(&key).expect("a request");
    let chain = ca
        .issue(request.der(), &gateway(), NOW, DAY)
        .expect("a chain");
    assert_eq!(
        verifier(&ca).identify(&chain, NOW).expect("identity"),
        gateway()
    );
    let names = crate::certificate::parse(&chain[0]).expect("a certificate");
    let names = names
        .subject_alternative_name()
        .expect("names")
        .expect("names");
    assert_eq!(names.value.general_names.len(), 1);
}

#[test]
fn bad_requests_are_refused() {
    let ca = authority("earth.example");
    let good = NodeKey::generate()
        .expect("a key")
        .csr_der()
        .expect("a request");
    let refuse = |csr: &[u8]| ca.issue(csr, &gateway(), NOW, DAY).expect_err("refused");
    let mut tampered = good.clone();
    *tampered.last_mut().expect("a byte") ^= 1;
    assert!(matches!(refuse(&tampered), IssueError::RequestSignature));
    assert!(matches!(
        refuse(&[good.as_slice(), &[0]].concat()),
        IssueError::RequestMalformed
    ));
    assert!(matches!(refuse(&[]), IssueError::RequestMalformed));
    assert!(matches!(
        refuse(&vec![0x30; MAX_CSR_BYTES + 1]),
        IssueError::RequestTooLarge(_)
    ));
    for cut in 0..good.len() {
        refuse(&good[..cut]);
    }
    for algorithm in [
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let request = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .expect("request");
        assert!(
            matches!(refuse(request.der()), IssueError::RequestKey(_)),
            "{algorithm:?}"
        );
    }
    let other = Identity::controller(planet("mars.example"));
    assert!(matches!(
        ca.issue(&good, &other, NOW, DAY),
        Err(IssueError::OtherPlanet { .. })
    ));
}

#[test]
fn strangers_are_refused() {
    let (earth, impostor) = (authority("earth.example"), authority("earth.example"));
    let mars = authority("mars.example");
    let verifier = verifier(&earth);
    let refused = |chain: &[CertificateDer<'static>], now| {
        verifier.identify(chain, now).expect_err("refused")
    };
    // Another CA of the same name, one of another planet, and its chain with our CA behind it.
    let mut chain = issue(&impostor, &gateway());
    assert!(matches!(
        refused(&chain, NOW),
        VerifyError::UnknownAuthority { .. }
    ));
    chain[1] = earth.certificate_der().clone();
    assert!(matches!(
        refused(&chain, NOW),
        VerifyError::UnknownAuthority { .. }
    ));
    let martian = issue(&mars, &Identity::controller(planet("mars.example")));
    assert!(matches!(
        refused(&martian, NOW),
        VerifyError::UnknownAuthority { .. }
    ));
    // The CA itself is nobody's identity.
    assert!(matches!(
        refused(&[earth.certificate_der().clone()], NOW),
        VerifyError::IsAuthority
    ));
    assert!(matches!(refused(&[], NOW), VerifyError::ChainLength(0)));
    assert!(matches!(
        refused(&vec![chain[1].clone(); 11], NOW),
        VerifyError::ChainLength(11)
    ));
    let garbage = [CertificateDer::from(vec![0x30, 3, 1, 2, 3])];
    assert!(matches!(
        refused(&garbage, NOW),
        VerifyError::Certificate(_)
    ));
    let both = Verifier::new(&[earth.certificate_der(), mars.certificate_der()]);
    assert!(matches!(both, Err(VerifyError::AnchorPlanets(..))));
    assert!(matches!(
        Verifier::new::<Vec<u8>>(&[]),
        Err(VerifyError::Anchors(0))
    ));
}

/// A CA that signs names it must not: only the check of the planet stops it.
#[test]
fn another_planets_name_is_refused() {
    let ca = authority("earth.example");
    let (certificate, key) = split(&ca.to_pem());
    let key = KeyPair::from_pem(&key).expect("a key");
    let der = chain_from_pem(&certificate).expect("a certificate");
    let issuer = rcgen::Issuer::from_ca_cert_der(&der[0], key).expect("an issuer");
    let sign = |uris: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| rcgen::SanType::URI((*uri).try_into().expect("ASCII")))
            .collect();
        let key = KeyPair::generate().expect("a key");
        [params
            .signed_by(&key, &issuer)
            .expect("a certificate")
            .der()
            .clone()]
    };
    let identify = |uris: &[&str]| verifier(&ca).identify(&sign(uris), NOW);
    let (earth, mars) = (
        "spiffe://earth.example/controller",
        "spiffe://mars.example/controller",
    );
    assert!(identify(&[earth]).is_ok());
    assert!(matches!(
        identify(&[mars]),
        Err(VerifyError::OtherPlanet { .. })
    ));
    for (uris, count) in [(&[][..], 0), (&[earth, mars], 2)] {
        assert!(matches!(
            identify(uris),
            Err(VerifyError::Identity(IdentityError::UriCount(n))) if n == count
        ));
    }
    assert!(matches!(
        identify(&["https://earth.example/"]),
        Err(VerifyError::Identity(IdentityError::Form(_)))
    ));
}

fn split(pem: &str) -> (String, String) {
    let (certificate, key) = pem.split_once("-----BEGIN PRIVATE").expect("two sections");
    (certificate.to_owned(), format!("-----BEGIN PRIVATE{key}"))
}

#[test]
fn certificates_have_their_time() {
    let ca = authority("earth.example");
    let chain = issue(&ca, &gateway());
    let verifier = verifier(&ca);
    let validity = Validity::from_certificate(&chain[0]).expect("validity");
    assert_eq!(validity.not_before, NOW - Duration::from_secs(300));
    assert_eq!(validity.not_after, NOW + 90 * DAY);
    assert!(verifier.identify(&chain, NOW + 90 * DAY).is_ok());
    assert!(matches!(
        verifier.identify(&chain, NOW + 91 * DAY),
        Err(VerifyError::Expired {
            what: "presented certificate",
            ..
        })
    ));
    assert!(matches!(
        verifier.identify(&chain, NOW - DAY),
        Err(VerifyError::NotYetValid { .. })
    ));
    assert!(!renewal_due(&chain[0], NOW + 29 * DAY));
    assert!(renewal_due(&chain[0], NOW + 30 * DAY));
    assert!(renewal_due(b"garbage", NOW));
    assert_eq!(remaining(&chain[0], NOW + 60 * DAY), 30 * DAY);
    assert_eq!(remaining(&chain[0], NOW + 100 * DAY), Duration::ZERO);
    // No certificate outlives its authority, and an expired authority is no authority.
    let key = NodeKey::generate().expect("a key");
    let csr = key.csr_der().expect("a request");
    let late = NOW + 7299 * DAY;
    let last = ca.issue(&csr, &gateway(), late, 90 * DAY).expect("a chain");
    let end = Validity::from_certificate(&last[0])
        .expect("validity")
        .not_after;
    assert_eq!(end, ca.validity().not_after);
    assert!(matches!(
        verifier.identify(&last, late + 3 * DAY),
        Err(VerifyError::Expired {
            what: "the fabric CA's certificate",
            ..
        })
    ));
    assert!(matches!(
        ca.issue(&csr, &gateway(), late + 3 * DAY, DAY),
        Err(IssueError::AuthorityExpired(_))
    ));
    assert!(ca.issue(&csr, &gateway(), NOW, Duration::MAX).is_ok());
}

#[test]
fn authority_round_trips_as_pem() {
    let ca = authority("earth.example");
    let again = Authority::from_pem(&ca.to_pem()).expect("the same CA");
    assert_eq!(again.certificate_der(), ca.certificate_der());
    assert_eq!(again.spki_sha256(), ca.spki_sha256());
    assert_eq!(
        ca.spki_sha256(),
        spki_sha256(ca.certificate_der()).expect("hash")
    );
    let chain = issue(&again, &gateway());
    assert_eq!(
        verifier(&ca).identify(&chain, NOW).expect("identity"),
        gateway()
    );
    let verifier = Verifier::from_pem(&ca.certificate_pem()).expect("a verifier");
    assert_eq!(verifier.to_pem(), ca.certificate_pem());

    let (certificate, _) = split(&ca.to_pem());
    let (_, other) = split(&authority("earth.example").to_pem());
    assert!(matches!(
        Authority::from_pem(&(certificate.clone() + &other)),
        Err(IssueError::AuthorityKey)
    ));
    assert!(matches!(
        Authority::from_pem(&certificate),
        Err(IssueError::Key(_))
    ));
    assert!(matches!(
        Authority::from_pem(""),
        Err(IssueError::AuthorityCertificate(_))
    ));
}

#[test]
fn node_keys_round_trip() {
    let key = NodeKey::generate().expect("a key");
    let der = NodeKey::from_pkcs8_der(key.pkcs8_der()).expect("from DER");
    let pem = NodeKey::from_pem(&key.to_pem()).expect("from PEM");
    assert_eq!(key.spki_sha256(), der.spki_sha256());
    assert_eq!(key.spki_sha256(), pem.spki_sha256());
    let csr = key.csr_der().expect("a request");
    assert_eq!(csr_key_sha256(&csr).expect("hash"), key.spki_sha256());
    assert!(NodeKey::from_pkcs8_der(b"garbage").is_err());
    assert!(NodeKey::from_pem("garbage").is_err());
    assert_eq!(format!("{key:?}"), "NodeKey(secret)");
}

#[test]
fn bundles_are_signed_by_the_controller_alone() {
    let ca = authority("earth.example");
    let key = NodeKey::generate().expect("a key");
    let signer = Signer::new(&key, ca.issue_signer(&key, NOW).expect("a chain")).expect("signer");
    let verifier = verifier(&ca);
    let signature = signer.sign(b"bundle").expect("a signature");
    let verify = |payload: &[u8], signature: &[u8], now| {
        verifier.verify(payload, signature, signer.chain(), now)
    };
    assert!(
        verify(b"bundle", &signature, NOW)
            .expect("controller")
            .is_controller()
    );
    assert!(verify(b"bundle", &signature, NOW + 3600 * DAY).is_ok());
    assert!(matches!(
        verify(b"bundle", &signature, NOW + 3700 * DAY),
        Err(VerifyError::Expired { .. })
    ));
    assert!(matches!(
        verify(b"bundlE", &signature, NOW),
        Err(VerifyError::Signature)
    ));
    for byte in 0..signature.len() {
        let mut tampered = signature.clone();
        tampered[byte] ^= 1;
        assert!(matches!(
            verify(b"bundle", &tampered, NOW),
            Err(VerifyError::Signature)
        ));
        assert!(verify(b"bundle", &signature[..byte], NOW).is_err());
    }
    // A node cannot sign, neither as itself nor behind the controller's chain.
    let node_key = NodeKey::generate().expect("a key");
    let csr = node_key.csr_der().expect("a request");
    let node = ca.issue(&csr, &gateway(), NOW, DAY).expect("a chain");
    assert!(matches!(
        Signer::new(&node_key, node.clone()),
        Err(VerifyError::NotController(_))
    ));
    assert!(matches!(
        Signer::new(&node_key, signer.chain().to_vec()),
        Err(VerifyError::SignerKey)
    ));
    assert!(matches!(
        verifier.verify(b"bundle", &signature, &node, NOW),
        Err(VerifyError::NotController(_))
    ));
    // The controller of another planet, and of an impostor.
    for name in ["mars.example", "earth.example"] {
        let other = authority(name);
        let signer =
            Signer::new(&key, other.issue_signer(&key, NOW).expect("chain")).expect("signer");
        let signature = signer.sign(b"bundle").expect("a signature");
        assert!(matches!(
            verifier.verify(b"bundle", &signature, signer.chain(), NOW),
            Err(VerifyError::UnknownAuthority { .. })
        ));
    }
}

fn new_token() -> NewToken {
    NewToken {
        id: "acme/aws".to_owned(),
        ca_sha256: [9; 32],
        addresses: vec![
            "127.9.1.0:7443".to_owned(),
            "pop.example:443".to_owned(),
            "[::1]:1".to_owned(),
        ],
        expires_at: NOW,
        site: site("aws.acme"),
        planet: planet("earth.example"),
    }
}

#[test]
fn tokens_round_trip() {
    let token = Token::generate(new_token()).expect("a token");
    let text = token.to_string();
    assert!(text.starts_with("sealane1.") && !text.contains('\n'));
    assert_eq!(text.parse::<Token>().expect("the token"), token);
    assert_eq!(
        format!(" {text}\n").parse::<Token>().expect("the token"),
        token
    );
    assert!(Token::secret_matches(&token.secret_hash(), &token.secret));
    assert!(!Token::secret_matches(&token.secret_hash(), &[0; 32]));
    assert!(!Token::secret_matches(&token.secret_hash(), b""));
    assert!(token.is_expired(NOW) && !token.is_expired(NOW - DAY));
    assert_ne!(
        Token::generate(new_token()).expect("a token").secret,
        token.secret
    );
    assert!(!format!("{token:?}").contains("secret"));
}

#[test]
fn garbage_is_no_token() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let text = Token::generate(new_token()).expect("a token").to_string();
    for cut in 0..text.len() {
        assert!(text[..cut].parse::<Token>().is_err(), "{cut}");
    }
    let json = |json: &str| format!("sealane1.{}", URL_SAFE_NO_PAD.encode(json));
    for garbage in [
        "",
        "sealane1",
        "sealane2.e30",
        "sealane1.***",
        &json("{}"),
        &json("[1]"),
    ] {
        assert!(garbage.parse::<Token>().is_err(), "{garbage}");
    }
    assert!(json(&"[".repeat(2500)).parse::<Token>().is_err());
    assert!(matches!(
        "x".repeat(5000).parse::<Token>(),
        Err(TokenError::TooLong(5000))
    ));
    let addresses = |list: &[&str]| {
        let addresses = list.iter().map(|a| (*a).to_owned()).collect();
        Token::generate(NewToken {
            addresses,
            ..new_token()
        })
    };
    for bad in [
        &[][..],
        &["host"],
        &["host:0"],
        &["host:99999"],
        &[":1"],
        &["a b:1"],
        &["x:1"; 17],
    ] {
        assert!(
            matches!(addresses(bad), Err(TokenError::Field("addresses"))),
            "{bad:?}"
        );
    }
    for id in [String::new(), "a b".to_owned(), "x".repeat(300)] {
        let token = Token::generate(NewToken { id, ..new_token() });
        assert!(matches!(token, Err(TokenError::Field("id"))));
    }
}

fn pem_of(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let params = rcgen::CertificateParams::new(vec!["Shop.example".to_owned()]).expect("names");
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn pairs_of_every_kind_are_accepted() {
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let (chain, key) = pem_of(algorithm);
        let pair = check_pair(&chain, &key, NOW).expect("a pair");
        assert_eq!(pair.hosts, ["shop.example"]);
        assert_eq!(pair.chain.len(), 1);
    }
    let hosts = ["cart.acme.example", "*.acme.example", "127.0.0.1"].map(str::to_owned);
    let (chain, key) = self_signed(&hosts, NOW, DAY).expect("a pair");
    let pair = check_pair(&chain, &key, NOW).expect("a pair");
    assert_eq!(pair.hosts, ["cart.acme.example", "*.acme.example"]);
    assert_eq!(pair.not_after, NOW + DAY);
}

#[test]
fn bad_pairs_are_refused() {
    let hosts = ["cart.acme.example".to_owned()];
    let (chain, key) = self_signed(&hosts, NOW, DAY).expect("a pair");
    let (_, other) = self_signed(&hosts, NOW, DAY).expect("a pair");
    let (_, rsa) = pem_of(&rcgen::PKCS_RSA_SHA256);
    let refused = |chain: &str, key: &str| check_pair(chain, key, NOW).expect_err("refused");
    assert!(matches!(refused("", &key), PairError::NoCertificate));
    assert!(matches!(refused(&key, &key), PairError::NoCertificate));
    assert!(matches!(refused(&chain, ""), PairError::NoKey));
    assert!(matches!(refused(&chain, &chain), PairError::NoKey));
    assert!(matches!(refused(&chain, &other), PairError::Mismatch));
    assert!(matches!(refused(&chain, &rsa), PairError::Mismatch));
    let broken = chain.replace("\nMII", "\n***");
    assert!(matches!(refused(&broken, &key), PairError::BadChain(_)));
    let empty = crate::certificate::pem("CERTIFICATE", b"garbage");
    assert!(matches!(refused(&empty, &key), PairError::BadChain(_)));
    assert!(matches!(
        refused(&chain.repeat(11), &key),
        PairError::BadChain(_)
    ));
    assert!(matches!(
        refused(&" ".repeat(300 << 10), &key),
        PairError::BadChain(_)
    ));
    let garbage = crate::certificate::pem("PRIVATE KEY", &[0x30, 0x82, 1, 2, 2, 1, 0]);
    assert!(matches!(refused(&chain, &garbage), PairError::BadKey(_)));
    assert!(matches!(
        refused(&chain, &" ".repeat(80 << 10)),
        PairError::KeyTooLarge(_)
    ));
    let at = |now| check_pair(&chain, &key, now).expect_err("refused");
    assert!(matches!(at(NOW + 2 * DAY), PairError::Expired(_)));
    assert!(matches!(at(NOW - DAY), PairError::NotYetValid(_)));
    assert!(parse_pair(&chain, &key).is_ok());
    for host in ["", "bad host", "a..b", "*", &"a".repeat(300)] {
        assert!(matches!(
            self_signed(&[host.to_owned()], NOW, DAY),
            Err(IssueError::Host(_))
        ));
    }
}

#[test]
fn hosts_go_beside_the_identity() {
    let ca = authority("earth.example");
    let controller = Identity::controller(planet("earth.example"));
    let csr = NodeKey::generate()
        .expect("a key")
        .csr_der()
        .expect("a request");
    let hosts = ["127.9.0.1".to_owned(), "localhost".to_owned()];
    let chain = ca
        .issue_with_hosts(&csr, &controller, &hosts, NOW, DAY)
        .expect("a chain");
    assert!(
        verifier(&ca)
            .identify(&chain, NOW)
            .expect("identity")
            .is_controller()
    );
}

#[test]
fn derived_numbers_are_fixed() {
    assert_eq!(sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    let name = |s: &str| s.parse::<base::Name>().expect("a name");
    let id = service_id(&name("shop"), &name("cart"));
    let hash = sha256(b"shop/cart");
    assert_eq!(id.0.to_be_bytes(), hash[..8]);
    assert_eq!(derive_u32("shop", "cart").to_be_bytes(), hash[..4]);
    assert_ne!(derive_u32("site", "aws"), derive_u32("tenant", "aws"));
}

#[test]
fn tampered_certificates_are_refused() {
    let ca = authority("earth.example");
    let verifier = verifier(&ca);
    let good = issue(&ca, &gateway())[0].to_vec();
    // The signed part, tag and length included; around it a lenient reader may ignore a bit.
    let body = 4..8 + usize::from(u16::from_be_bytes([good[6], good[7]]));
    for at in 0..good.len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= mask;
            if let Ok(identity) = verifier.identify(&[&bytes], NOW) {
                assert!(!body.contains(&at), "{at} {mask:#x}");
                assert_eq!(identity, gateway(), "{at} {mask:#x}");
            }
            // Whatever they say, reading them must not panic.
            let _ = Identity::from_certificate(&bytes);
            let _ = renewal_due(&bytes, NOW);
            let _ = check_pair(&certificate_pem(&bytes), "", NOW);
        }
        assert!(
            verifier.identify(&[&good[..at]], NOW).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn names_of_clients() {
    let made = |names: &[&str], common: &[&str]| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, *name);
        }
        for name in names {
            let name = match name.strip_prefix("uri=") {
                Some(uri) => rcgen::SanType::URI(uri.try_into().expect("ASCII")),
                None => rcgen::SanType::DnsName((*name).try_into().expect("ASCII")),
            };
            params.subject_alt_names.push(name);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        client_names(made.der())
    };
    let both = made(&["uri=spiffe://a/b", "B.example", "uri=c:d"], &["Käthe"]).expect("names");
    assert_eq!(both.uris, ["spiffe://a/b", "c:d"]);
    assert_eq!(both.dns, ["b.example"]);
    assert_eq!(both.common_name.as_deref(), Some("Käthe"));
    let none = made(&[], &[]).expect("no names");
    assert_eq!(
        (none.uris.len(), none.dns.len(), none.common_name),
        (0, 0, None)
    );
    assert_ne!(none.sha256, both.sha256);
    let many: Vec<String> = (0..17).map(|n| format!("h{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    made(&many[..16], &[]).expect("16 names");
    let long = format!("uri=spiffe://a/{}", "x".repeat(2048));
    let half = format!("uri=spiffe://a/{}", "x".repeat(1500));
    for (names, common) in [
        (&many[..], ""),
        (&[long.as_str()], ""),
        (&[half.as_str(), half.as_str(), half.as_str()], ""),
        (&["uri=spiffe://a/b c"], ""),
        (&["uri=spiffe://a/\nb"], ""),
        (&["uri="], ""),
        (&["a.example"], "a\rb"),
    ] {
        let common: &[&str] = if common.is_empty() { &[] } else { &[common] };
        let error = made(names, common).expect_err("no names");
        assert!(matches!(error, NamesError::Names), "{error}");
    }
    assert!(client_names(b"no certificate").is_err());
}
