use std::io;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::CipherSuite;
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn issue(&self) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["api.example".to_owned()]).expect("a name");
        let leaf = params.signed_by(&key, &self.0).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        Credentials {
            chain: vec![leaf.der().clone(), self.root()],
            key,
        }
    }
}

/// Shakes hands over memory; the protocol both chose.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &'static str,
) -> io::Result<Option<Vec<u8>>> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name).expect("a name");
    let connector = TlsConnector::from(client);
    let acceptor = TlsAcceptor::from(server);
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (_client, server) = (client?, server?);
    Ok(server.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

const ALPN: &[&[u8]] = &[b"sealane/1"];

#[tokio::test]
async fn fabric_peers_trust_the_ca_and_no_name() {
    let (ca, foreign) = (Authority::new("ours"), Authority::new("theirs"));
    let roots = [ca.root()];
    let server = fabric_server(&ca.issue(), &roots, ALPN).expect("a server");
    let client = |credentials: &Credentials, root| {
        fabric_client(credentials, &[root], ALPN).expect("a client")
    };
    let good = client(&ca.issue(), ca.root());
    let chosen = handshake(Arc::clone(&server), good, "other.example").await;
    assert_eq!(chosen.expect("trusted"), Some(b"sealane/1".to_vec()));
    let stranger = client(&foreign.issue(), ca.root());
    assert!(
        handshake(Arc::clone(&server), stranger, "api.example")
            .await
            .is_err()
    );
    let distrustful = client(&ca.issue(), foreign.root());
    assert!(
        handshake(Arc::clone(&server), distrustful, "api.example")
            .await
            .is_err()
    );
    let anonymous = super::client(&roots, ALPN).expect("a client");
    assert!(handshake(server, anonymous, "api.example").await.is_err());
}

#[tokio::test]
async fn the_api_is_checked_by_name() {
    let ca = Authority::new("ours");
    let server = server(&ca.issue(), &[b"h2"]).expect("a server");
    let client = client(&[ca.root()], &[b"h2"]).expect("a client");
    let right = handshake(Arc::clone(&server), Arc::clone(&client), "api.example").await;
    assert_eq!(right.expect("trusted"), Some(b"h2".to_vec()));
    assert!(handshake(server, client, "other.example").await.is_err());
}

#[tokio::test]
async fn a_pin_names_the_ca_by_its_key() {
    let (ca, foreign) = (Authority::new("ours"), Authority::new("theirs"));
    let pin = spki_sha256(&ca.root()).expect("a certificate");
    let client = pinned_client(pin, ALPN).expect("a client");
    let shows = |credentials: &Credentials| server(credentials, ALPN).expect("a server");
    let right = handshake(shows(&ca.issue()), Arc::clone(&client), "x.example").await;
    assert!(right.is_ok(), "{right:?}");
    // A foreign chain that merely carries the pinned CA along.
    let mut forged = foreign.issue();
    forged.chain.push(ca.root());
    assert!(
        handshake(shows(&forged), Arc::clone(&client), "x.example")
            .await
            .is_err()
    );
    let mut silent = ca.issue();
    silent.chain.truncate(1);
    assert!(
        handshake(shows(&silent), client, "x.example")
            .await
            .is_err()
    );
    assert_eq!(spki_sha256(&CertificateDer::from(vec![1, 2, 3])), None);
}

#[test]
fn a_foreign_key_is_not_credentials() {
    let ca = Authority::new("ours");
    let mixed = Credentials {
        key: ca.issue().key,
        ..ca.issue()
    };
    assert!(matches!(
        certified_key(&mixed),
        Err(TlsError::Credentials(_))
    ));
    assert!(matches!(client(&[], ALPN), Err(TlsError::NoRoots)));
    let broken = [CertificateDer::from(vec![0; 8])];
    assert!(matches!(
        client(&broken, ALPN),
        Err(TlsError::Root { index: 0, .. })
    ));
}

#[test]
fn pem_files_are_read_whole() {
    let ca = Authority::new("ours");
    let text = ca.0.pem();
    let twice = format!("{text}{text}");
    assert_eq!(pem::certificates(twice.as_bytes()).expect("two").len(), 2);
    assert!(matches!(
        pem::certificates(b"nothing"),
        Err(pem::PemError::NoCertificate)
    ));
    assert!(matches!(
        pem::private_key(text.as_bytes()),
        Err(pem::PemError::NoKey(_))
    ));
    let key = KeyPair::generate().expect("a key").serialize_pem();
    assert!(pem::private_key(key.as_bytes()).is_ok());
    let many = text.repeat(65);
    assert!(matches!(
        pem::certificates(many.as_bytes()),
        Err(pem::PemError::TooMany)
    ));
}

/// A client of TLS 1.3 that offers these suites, its favourite first.
fn offering(roots: &[CertificateDer<'static>], suites: &[CipherSuite]) -> Arc<ClientConfig> {
    let mut theirs = rustls::crypto::aws_lc_rs::default_provider();
    let place = |suite: CipherSuite| suites.iter().position(|one| *one == suite);
    theirs
        .cipher_suites
        .retain(|suite| place(suite.suite()).is_some());
    theirs
        .cipher_suites
        .sort_by_key(|suite| place(suite.suite()));
    let config = ClientConfig::builder_with_provider(Arc::new(theirs))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store(roots).expect("roots"))
        .with_no_client_auth();
    Arc::new(config)
}

#[tokio::test]
async fn a_front_takes_the_short_key_of_aes_and_the_clients_word_for_chacha() {
    use CipherSuite as Suite;
    let ca = Authority::new("ours");
    let resolver = single(&ca.issue()).expect("credentials");
    let front = front_server(resolver, ALPN).expect("a front");
    let (short, long) = (
        Suite::TLS13_AES_128_GCM_SHA256,
        Suite::TLS13_AES_256_GCM_SHA384,
    );
    let chacha = Suite::TLS13_CHACHA20_POLY1305_SHA256;
    let (short12, long12, chacha12) = (
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    );
    for (offered, taken) in [
        (&[long, short, chacha][..], short),
        (&[short, long, chacha], short),
        (&[chacha, long, short], chacha),
        (&[long, chacha], long),
        (&[chacha], chacha),
        (&[long12, chacha12, short12], short12),
        (&[chacha12, short12], chacha12),
        (&[long12, long, short12], long),
    ] {
        let client = TlsConnector::from(offering(&[ca.root()], offered));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("api.example").expect("a name");
        let serve = async {
            let acceptor = rustls::server::Acceptor::default();
            let start = tokio_rustls::LazyConfigAcceptor::new(acceptor, far).await?;
            let config = front.config(start.client_hello().cipher_suites());
            start.into_stream(config).await
        };
        let (_, server) = tokio::join!(client.connect(name, near), serve);
        let server = server.expect("a handshake");
        let suite = server.get_ref().1.negotiated_cipher_suite();
        assert_eq!(suite.expect("one").suite(), taken, "{offered:?}");
    }
}
