//! Clients that show certificates, and those that should.

use std::{collections::BTreeMap, sync::Arc};

use balance::Health::Healthy;
use base::LbId;
use l7::{
    Action, Backend, ClientCertificates, Cluster, NameKind, NameMatch, NameValue, Offered, Route,
    Table, TrustId, VirtualHost,
    policy::{Algorithm, Guard, Policy, Rule, RuleAction, Undecided, When},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use runtime::tls::Credentials;
use rustls::{AlertDescription, HandshakeKind, client::Resumption};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    websocket,
    world::{Manner, PATIENCE, Spot, TENANT, World, message},
};
use crate::{Certificates, ClientTrust, Snapshot};

/// Who issues certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A client's certificate; its serial number says which.
    pub(super) fn client(&self, serial: u64, last_year: i32) -> Credentials {
        let mut params = CertificateParams::new(vec!["Till.acme.example".to_owned()]);
        let params = params.as_mut().expect("names");
        params.distinguished_name.push(DnType::CommonName, "till 7");
        let uri = "spiffe://acme.example/shop/till".try_into().expect("a URI");
        params.subject_alt_names.push(SanType::URI(uri));
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Credentials {
            chain: vec![made.der().clone()],
            key: rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    /// The certificate with this serial number holds no longer.
    pub(super) fn without(&self, serial: u64) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2025, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }
}

/// What a host asks for: issuers, revoked, required.
#[derive(Clone)]
pub(super) struct Asks(
    pub(super) String,
    pub(super) Option<String>,
    pub(super) bool,
);

impl Asks {
    pub(super) fn required(of: &Authority) -> Option<Self> {
        Some(Asks(of.pem.clone(), None, true))
    }

    fn issuers(&self) -> (TrustId, pki::ClientIssuers) {
        let issuers = pki::ClientIssuers::from_pem(&self.0, self.1.as_deref()).expect("issuers");
        let digest = [&issuers.digest()[..], &[u8::from(self.2)]].concat();
        (TrustId(pki::sha256(&digest)), issuers)
    }
}

pub(super) struct Front {
    pub(super) world: World,
    pub(super) spot: Spot,
    pub(super) root: rustls_pki_types::CertificateDer<'static>,
    certificates: Arc<Certificates>,
}

impl Front {
    pub(super) async fn new() -> Self {
        let world = World::new().await;
        let spot = Spot::new("one", Manner::Echo).await;
        world.endpoints(&[(spot.address, Healthy)]);
        let made = rcgen::generate_simple_self_signed(vec!["*.acme.example".to_owned()]);
        let made = made.expect("a certificate");
        let key = runtime::tls::certified_key(&Credentials {
            chain: vec![made.cert.der().clone()],
            key: rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
        });
        let mut certificates = Certificates::default();
        certificates.insert("*.acme.example", key.expect("a pair"));
        Front {
            world,
            spot,
            root: made.cert.der().clone(),
            certificates: Arc::new(certificates),
        }
    }

    /// Serve these hosts below acme.example, and what they ask for.
    pub(super) fn serve(&self, hosts: &[(&str, Option<Asks>)], guard: &Guard) {
        self.serve_by(hosts, guard, self.world.cluster());
    }

    /// The same, to this service.
    fn serve_by(&self, hosts: &[(&str, Option<Asks>)], guard: &Guard, cluster: Arc<Cluster>) {
        let mut clients = BTreeMap::new();
        let offers = (1..).zip(hosts).map(|(id, (name, asks))| {
            let cluster = Arc::clone(&cluster);
            let route = Route {
                name: "all".into(),
                action: Action::Forward(vec![Backend { cluster, weight: 1 }]),
                ..Route::default()
            };
            let limits = l7::Limits::default();
            let (lb, owner) = ("shop/web".to_owned(), "acme".to_owned());
            let mut host = VirtualHost::build(LbId(id), lb, TENANT, owner, limits, vec![route]);
            host.guard = guard.clone();
            host.http3 = true;
            if let Some(asks) = asks {
                let (trust, issuers) = asks.issuers();
                let certificates = Arc::clone(&self.certificates);
                let made = ClientTrust::new(certificates, &issuers, asks.2).expect("issuers");
                clients.insert(trust, Arc::new(made));
                host.clients = Some(ClientCertificates {
                    trust,
                    required: asks.2,
                    forward: true,
                });
            }
            Offered {
                port: 443,
                tls: true,
                hosts: vec![format!("{name}.acme.example")],
                host: Arc::new(host),
            }
        });
        let table = Table::build(offers.collect()).expect("no conflict");
        let now = self.world.pop.snapshot();
        self.world.pop.store(Arc::new(Snapshot {
            table: Arc::new(table),
            certificates: Arc::clone(&self.certificates),
            clients: Arc::new(clients),
            ..Snapshot::clone(&now)
        }));
    }

    /// A client that remembers its sessions.
    fn client(&self, shows: Option<&Credentials>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(runtime::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match shows.cloned() {
            None => config.with_no_client_auth(),
            Some(Credentials { chain, key }) => {
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        TlsConnector::from(Arc::new(config))
    }

    async fn connect(&self, client: &TlsConnector, host: &str) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.world.https)
            .await
            .expect("connected");
        let name = format!("{host}.acme.example").try_into().expect("a name");
        client
            .connect(name, tcp)
            .await
            .expect("TLS 1.3 does not wait")
    }

    /// What a new connection for `sni` says to one request for each of `hosts`.
    async fn asked(&self, shows: Option<&Credentials>, sni: &str, hosts: &[&str]) -> Vec<String> {
        let mut stream = self.connect(&self.client(shows), sni).await;
        let mut said = Vec::new();
        for host in hosts {
            said.push(ask(&mut stream, host).await);
        }
        said
    }

    pub(super) fn refused(&self, cause: &str) -> u64 {
        let text = self.world.metrics.render();
        let name = format!("proxy_client_certificates_refused_total{{cause=\"{cause}\"}} ");
        let line = text.lines().find_map(|line| line.split(&name).nth(1));
        line.map_or(0, |count| count.parse().expect("a number"))
    }
}

/// The status and what the endpoint has seen, or the alert.
async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}.acme.example\r\nX-Forwarded-Client-Cert: Hash=forged\r\n\
         Sealane-Identity: uri=spiffe://acme.example/shop/till\r\n\r\n"
    );
    let mut buf = Vec::new();
    // Whoever is refused may hear of it first.
    let _ = stream.write_all(request.as_bytes()).await;
    let first = timeout(PATIENCE, stream.read_buf(&mut buf)).await;
    match first.expect("in time") {
        Ok(0) => "closed".to_owned(),
        Ok(_) => message(stream, &mut buf).await.expect("a response"),
        Err(error) => {
            let inner = error
                .get_ref()
                .and_then(|e| e.downcast_ref::<rustls::Error>());
            match inner {
                Some(rustls::Error::AlertReceived(alert)) => format!("{alert:?}"),
                _ => format!("{error}"),
            }
        }
    }
}

fn status(response: &str) -> &str {
    let (line, _) = response.split_once("\r\n").unwrap_or((response, ""));
    line.strip_prefix("HTTP/1.1 ")
        .map_or(line, |line| &line[..3])
}

#[tokio::test]
async fn who_shows_none_that_is_valid_has_no_connection() {
    let front = Front::new().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let required = Asks(ours.pem.clone(), Some(ours.without(13)), true);
    front.serve(&[("cart", Some(required))], &Guard::default());
    let (good, revoked) = (ours.client(7, 4000), ours.client(13, 4000));
    let (over, foreign) = (ours.client(7, 2021), theirs.client(7, 4000));
    for (shows, expect, cause) in [
        (
            None,
            format!("{:?}", AlertDescription::CertificateRequired),
            "missing",
        ),
        (
            Some(&over),
            format!("{:?}", AlertDescription::CertificateExpired),
            "expired",
        ),
        (
            Some(&revoked),
            format!("{:?}", AlertDescription::CertificateRevoked),
            "revoked",
        ),
        (
            Some(&foreign),
            format!("{:?}", AlertDescription::UnknownCA),
            "unknown-issuer",
        ),
    ] {
        let said = front.asked(shows, "cart", &["cart"]).await;
        assert_eq!(said, [expect], "{cause}");
        // The client may hear of it first.
        let counted = async {
            while front.refused(cause) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, counted).await.expect(cause);
        assert_eq!(front.refused(cause), 1, "{cause}");
    }
    assert_eq!(front.spot.served(), 0);
    let said = front.asked(Some(&good), "cart", &["cart"]).await;
    assert_eq!(status(&said[0]), "200", "{said:?}");
    // What the endpoint is told is ours alone.
    for there in [
        "x-forwarded-client-cert: Hash=",
        ";Subject=\"CN=till 7\";URI=spiffe://acme.example/shop/till;DNS=till.acme.example\r\n",
    ] {
        assert!(said[0].contains(there), "{there} in {said:?}");
    }
    assert!(
        !said[0].contains("forged") && !said[0].contains("sealane-"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_connection_for_another_host_does_not_do() {
    let front = Front::new().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let hosts = [
        ("open", None),
        ("cart", Asks::required(&ours)),
        ("till", Asks::required(&ours)),
        ("vault", Asks::required(&theirs)),
        ("soft", Some(Asks(ours.pem.clone(), None, false))),
    ];
    front.serve(&hosts, &Guard::default());
    let good = ours.client(7, 4000);
    let statuses = async |shows, sni: &str, hosts: &[&str]| -> Vec<String> {
        let said = front.asked(shows, sni, hosts).await;
        said.iter().map(|one| status(one).to_owned()).collect()
    };
    let all = ["open", "cart", "till", "vault", "soft"];
    for (shows, sni, expect) in [
        (None, "open", ["200", "421", "421", "421", "421"]),
        (Some(&good), "open", ["200", "421", "421", "421", "421"]),
        // Of the same issuers.
        (Some(&good), "cart", ["200", "200", "200", "421", "421"]),
        (None, "soft", ["200", "421", "421", "421", "200"]),
        (Some(&good), "soft", ["200", "421", "421", "421", "200"]),
    ] {
        assert_eq!(statuses(shows, sni, &all).await, expect, "{sni}");
    }
    // Nor do policies say anything of a client that nobody knows.
    let bank = NameValue::Exact("spiffe://acme.example/bank".into());
    front.serve(&hosts, &only(NameKind::Uri, bank));
    assert_eq!(
        statuses(Some(&good), "open", &["cart", "open"]).await,
        ["421", "403"]
    );
    front.serve(&hosts, &Guard::default());
    // Whose certificate does not count is nobody.
    let foreign = theirs.client(7, 4000);
    for (shows, told) in [(Some(&good), true), (Some(&foreign), false), (None, false)] {
        let said = front.asked(shows, "soft", &["soft"]).await;
        assert_eq!(status(&said[0]), "200");
        let is_told = said[0].contains("x-forwarded-client-cert:");
        assert_eq!(is_told, told, "{said:?}");
    }
    assert_eq!(front.refused("unknown-issuer"), 1);
    assert_eq!(front.refused("missing"), 0);
}

#[tokio::test]
async fn an_open_connection_goes_by_the_issuers_of_the_day() {
    let front = Front::new().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let serve = |asks| front.serve(&[("cart", asks)], &Guard::default());
    serve(Asks::required(&ours));
    let client = front.client(Some(&ours.client(7, 4000)));
    let mut stream = front.connect(&client, "cart").await;
    let both = Asks(ours.pem.clone() + &theirs.pem, None, true);
    let revoked = Asks(ours.pem.clone(), Some(ours.without(7)), true);
    for (asks, expect) in [
        (Asks::required(&ours), "200"),
        (Asks::required(&theirs), "421"),
        (Some(both), "200"),
        (Some(revoked), "421"),
        (None, "200"),
        (Asks::required(&ours), "200"),
    ] {
        serve(asks);
        let said = ask(&mut stream, "cart").await;
        assert_eq!(status(&said), expect, "{said}");
    }
    // One that was opened before anybody asked has shown nothing.
    serve(None);
    let mut stream = front.connect(&client, "cart").await;
    assert_eq!(status(&ask(&mut stream, "cart").await), "200");
    serve(Asks::required(&ours));
    assert_eq!(status(&ask(&mut stream, "cart").await), "421");
}

#[tokio::test]
async fn what_a_client_has_opened_ends_with_its_certificate() {
    let front = Front::new().await;
    let mut endpoint = websocket::Endpoint::new().await;
    front.world.endpoints(&[(endpoint.address, Healthy)]);
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    front.serve(&[("cart", Asks::required(&ours))], &Guard::default());
    let client = front.client(Some(&ours.client(7, 4000)));
    let stream = front.connect(&client, "cart").await;
    let opened = websocket::handed_over_to(&mut endpoint, stream, websocket::ASK);
    let (mut stream, mut far) = opened.await;
    let serve = async |asks| {
        front.serve(&[("cart", Some(asks))], &Guard::default());
        front.world.pop.set_listeners(&[]).await;
    };
    serve(Asks(ours.pem.clone() + &theirs.pem, None, true)).await;
    let frame = [0x81, 0x80, 0, 0, 0, 0];
    stream.write_all(&frame).await.expect("written");
    assert_eq!(websocket::read(&mut far, 6).await, frame);
    serve(Asks(ours.pem.clone(), Some(ours.without(7)), true)).await;
    assert_eq!(websocket::read(&mut stream, 4).await, websocket::DENIED);
}

#[tokio::test]
async fn no_session_is_resumed_past_the_verifier() {
    let front = Front::new().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let serve = |asks| {
        let hosts = [("open", None), ("cart", asks)];
        front.serve(&hosts, &Guard::default());
    };
    let client = front.client(Some(&ours.client(7, 4000)));
    let again = async |host: &str| {
        let mut stream = front.connect(&client, host).await;
        let said = ask(&mut stream, host).await;
        (
            status(&said).to_owned(),
            stream.get_ref().1.handshake_kind(),
        )
    };
    let full = |said: &str| (said.to_owned(), Some(HandshakeKind::Full));
    serve(Asks::required(&ours));
    assert_eq!(again("cart").await, full("200"));
    assert_eq!(again("cart").await, full("200"));
    // Its issuers are others now: nothing from before helps.
    serve(Asks::required(&theirs));
    assert_eq!(again("cart").await, full("UnknownCA"));
    // A ticket from when nobody asked is worth nothing either.
    serve(None);
    assert_eq!(again("cart").await, full("200"));
    let resumed = ("200".to_owned(), Some(HandshakeKind::Resumed));
    assert_eq!(again("cart").await, resumed);
    serve(Asks::required(&theirs));
    assert_eq!(again("cart").await, full("UnknownCA"));
    // Those of hosts that do not ask are resumed all the while.
    assert_eq!(again("open").await, full("200"));
    assert_eq!(again("open").await, resumed);
}

pub(super) fn only(kind: NameKind, value: NameValue) -> Guard {
    let rule = Rule {
        name: "tills".to_owned(),
        when: When {
            identities: vec![NameMatch { kind, value }],
            ..When::default()
        },
        action: RuleAction::Allow,
        expires_at: None,
    };
    let name = "shop/known".to_owned();
    let policy = Policy::build("acme", name, false, Algorithm::FirstMatch, vec![rule]);
    Guard {
        policies: vec![Arc::new(policy)],
        undecided: Undecided::Deny,
        tokens: None,
    }
}

#[tokio::test]
async fn rules_go_by_identity_at_both_ends() {
    let front = Front::new().await;
    let ours = Authority::new("ours");
    let hosts = [
        ("open", None),
        ("soft", Some(Asks(ours.pem.clone(), None, false))),
    ];
    let good = ours.client(7, 4000);
    let shop = || {
        only(
            NameKind::Uri,
            NameValue::Prefix("spiffe://acme.example/shop".into()),
        )
    };
    let other = || {
        only(
            NameKind::Uri,
            NameValue::Exact("spiffe://acme.example/bank".into()),
        )
    };
    // The load balancer's.
    for (guard, shows, expect) in [
        (shop(), Some(&good), "200"),
        (shop(), None, "403"),
        (other(), Some(&good), "403"),
        (
            only(NameKind::CommonName, NameValue::Exact("till 7".into())),
            Some(&good),
            "200",
        ),
        (
            only(NameKind::Dns, NameValue::Exact("till.acme.example".into())),
            Some(&good),
            "200",
        ),
    ] {
        front.serve(&hosts, &guard);
        let said = front.asked(shows, "soft", &["soft"]).await;
        assert_eq!(status(&said[0]), expect, "{said:?}");
    }
    // The service's, at the ingress and where its endpoint is.
    let served = front.spot.served();
    front.world.guard_egress(shop());
    for (service, shows, expect) in [
        (shop(), Some(&good), "200"),
        (shop(), None, "403"),
        // The ingress has not heard of the policy: it tells nothing, and nobody is allowed.
        (Guard::default(), Some(&good), "403"),
    ] {
        let cluster = front.world.other_cluster(service);
        front.serve_by(&hosts, &Guard::default(), cluster);
        let said = front.asked(shows, "soft", &["soft"]).await;
        assert_eq!(status(&said[0]), expect, "{said:?}");
        assert!(!said[0].contains("sealane-"), "{said:?}");
    }
    assert_eq!(front.spot.served(), served + 1);
}
