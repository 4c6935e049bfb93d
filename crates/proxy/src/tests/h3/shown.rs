//! Clients that show certificates, and those that should.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use l7::{NameKind, NameValue, policy::Guard};
use quinn::{ClientConfig, ConnectionError, crypto::rustls::QuicClientConfig};
use runtime::tls::Credentials;
use rustls::AlertDescription;
use tokio::time::timeout;

use super::talker::{Reply, SETTINGS, Talker, endpoint, raw, section};
use crate::tests::{
    clients::{Asks, Authority, Front, only},
    world::PATIENCE,
};

/// A client that remembers its sessions.
fn client(front: &Front, shows: Option<&Credentials>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(front.root.clone()).expect("a root");
    let tls = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots);
    let mut tls = match shows.cloned() {
        None => tls.with_no_client_auth(),
        Some(Credentials { chain, key }) => tls.with_client_auth_cert(chain, key).expect("a pair"),
    };
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).expect("QUIC");
    ClientConfig::new(Arc::new(tls))
}

/// What a connection for cart.acme.example says to a request for this host, or the alert.
async fn ask(talker: &Talker, host: &str) -> Result<Reply, AlertDescription> {
    let authority = format!("{host}.acme.example");
    let head = raw(
        1,
        &section(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", &authority),
            (":path", "/"),
            ("x-forwarded-client-cert", "Hash=forged"),
            ("sealane-identity", "uri=spiffe://acme.example/shop/till"),
        ]),
    );
    let asked = async {
        let (mut send, recv) = talker.connection.open_bi().await.ok()?;
        send.write_all(&head).await.ok()?;
        send.finish().ok()?;
        super::talker::reply(recv).await.ok()
    };
    match timeout(PATIENCE, asked).await.expect("in time") {
        Some(reply) => Ok(reply),
        None => Err(alert(talker.connection.closed().await)),
    }
}

/// How the server ended a handshake, which the client may hear of before or after its own end.
fn alert(error: ConnectionError) -> AlertDescription {
    let ConnectionError::ConnectionClosed(close) = error else {
        panic!("not refused but {error:?}");
    };
    let alert = u64::from(close.error_code).checked_sub(0x100);
    let alert = alert.and_then(|alert| u8::try_from(alert).ok());
    alert.expect("an alert").into()
}

async fn talker(config: &ClientConfig, to: SocketAddr) -> Result<Talker, AlertDescription> {
    let opened = Talker::open(endpoint(), config, to, SETTINGS).await;
    opened.map_err(alert)
}

/// What a new connection says to one request for cart.acme.example.
async fn asked(config: &ClientConfig, to: SocketAddr) -> Result<Reply, AlertDescription> {
    ask(&talker(config, to).await?, "cart").await
}

#[tokio::test]
async fn who_shows_none_that_is_valid_has_no_connection() {
    let front = Front::new().await;
    let to = front.world.quic().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let required = Asks(ours.pem.clone(), Some(ours.without(13)), true);
    front.serve(&[("cart", Some(required))], &Guard::default());
    let (good, revoked) = (ours.client(7, 4000), ours.client(13, 4000));
    let (over, foreign) = (ours.client(7, 2021), theirs.client(7, 4000));
    for (shows, expect, cause) in [
        (None, AlertDescription::CertificateRequired, "missing"),
        (Some(&over), AlertDescription::CertificateExpired, "expired"),
        (
            Some(&revoked),
            AlertDescription::CertificateRevoked,
            "revoked",
        ),
        (
            Some(&foreign),
            AlertDescription::UnknownCA,
            "unknown-issuer",
        ),
    ] {
        let said = asked(&client(&front, shows), to).await;
        assert_eq!(said, Err(expect), "{cause}");
        // The client may hear of it first.
        let counted = async {
            while front.refused(cause) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect(cause);
        assert_eq!(front.refused(cause), 1, "{cause}");
    }
    assert_eq!(front.spot.served(), 0);
    let talker = talker(&client(&front, Some(&good)), to).await;
    let talker = talker.expect("connected");
    let reply = ask(&talker, "cart").await.expect("a reply");
    assert_eq!(reply.status, "200", "{reply:?}");
    for there in [
        "x-forwarded-client-cert: Hash=",
        ";Subject=\"CN=till 7\";URI=spiffe://acme.example/shop/till;DNS=till.acme.example\r\n",
    ] {
        assert!(reply.body.contains(there), "{there} in {reply:?}");
    }
    assert!(
        !reply.body.contains("forged") && !reply.body.contains("sealane-"),
        "{reply:?}"
    );
    // At another address it is the same client (RFC 9000 §9).
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    talker.endpoint.rebind(socket).expect("moved");
    for _ in 0..2 {
        let reply = ask(&talker, "cart").await.expect("a reply");
        assert_eq!(reply.status, "200", "{reply:?}");
        assert!(reply.body.contains("URI=spiffe://acme.example/shop/till"));
    }
}

#[tokio::test]
async fn rules_go_by_identity_where_a_certificate_is_wanted() {
    let front = Front::new().await;
    let to = front.world.quic().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let hosts = [
        ("cart", Some(Asks(ours.pem.clone(), None, false))),
        ("open", None),
        ("till", Asks::required(&ours)),
    ];
    let shop = NameValue::Prefix("spiffe://acme.example/shop".into());
    let (good, foreign) = (ours.client(7, 4000), theirs.client(7, 4000));
    front.serve(&hosts, &Guard::default());
    for (shows, known) in [(Some(&good), true), (Some(&foreign), false), (None, false)] {
        let talker = talker(&client(&front, shows), to).await;
        let talker = talker.expect("connected");
        for (guard, expect) in [
            (Guard::default(), "200"),
            (
                only(NameKind::Uri, shop.clone()),
                if known { "200" } else { "403" },
            ),
        ] {
            front.serve(&hosts, &guard);
            let reply = ask(&talker, "cart").await.expect("a reply");
            assert_eq!(reply.status, expect, "{reply:?}");
            let told = reply.body.contains("x-forwarded-client-cert:");
            assert_eq!(told, known, "{reply:?}");
        }
        // A connection for one host is none for another that asks for more.
        let open = if known { "200" } else { "403" };
        for (host, expect) in [("open", open), ("till", "421")] {
            let reply = ask(&talker, host).await.expect("a reply");
            assert_eq!(reply.status, expect, "{host}: {reply:?}");
        }
    }
    assert_eq!(front.refused("unknown-issuer"), 1);
    assert_eq!(front.refused("missing"), 0);
}

#[tokio::test]
async fn what_was_before_a_host_asks_helps_nobody() {
    let front = Front::new().await;
    let to = front.world.quic().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let serve = |asks| front.serve(&[("cart", asks)], &Guard::default());
    let config = client(&front, Some(&ours.client(7, 4000)));
    serve(None);
    let before = talker(&config, to).await.expect("connected");
    let status = |reply: Result<Reply, _>| reply.map(|reply| reply.status);
    assert_eq!(status(ask(&before, "cart").await), Ok("200".to_owned()));
    // Neither an open connection nor a session of it that could be resumed.
    serve(Asks::required(&theirs));
    assert_eq!(status(ask(&before, "cart").await), Ok("421".to_owned()));
    let refused = asked(&config, to).await;
    assert_eq!(status(refused), Err(AlertDescription::UnknownCA));
    serve(Asks::required(&ours));
    let after = talker(&config, to).await.expect("connected");
    assert_eq!(status(ask(&after, "cart").await), Ok("200".to_owned()));
    // The issuers of the day count.
    serve(Asks::required(&theirs));
    assert_eq!(status(ask(&after, "cart").await), Ok("421".to_owned()));
}
