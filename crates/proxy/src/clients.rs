//! Clients by the certificates that they show: who is asked, and how one stands now.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt, io,
    rc::Rc,
    sync::Arc,
};

use base::WallTime;
use l7::{ClientCertificates, ClientName, Identity, NameKind, TrustId, host_of};
use quinn::crypto::rustls::QuicServerConfig;
use runtime::{
    metrics::{CounterBy, Metrics},
    tls::{self, TlsError},
};
use rustls::{
    AlertDescription, CertificateError, ProtocolVersion, server::danger::ClientCertVerifier,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    downstream::ConnInfo,
    front::Front,
    gathered::Gathered,
    quic,
    snapshot::{Certificates, Snapshot},
    worker::Worker,
};

/// By whom clients are known, by the digests with which hosts refer to them.
pub type Clients = BTreeMap<TrustId, Arc<ClientTrust>>;

/// By whom clients of some hosts are known, and the TLS in which they are asked. Its sessions are
/// never resumed: every connection is verified against the issuers of its day, and no ticket is
/// worth anything under others.
pub struct ClientTrust {
    verifier: Arc<dyn ClientCertVerifier>,
    tls: tls::Front,
    quic: Arc<QuicServerConfig>,
    required: bool,
}

impl fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let required = &self.required;
        f.debug_struct("ClientTrust")
            .field("required", required)
            .finish_non_exhaustive()
    }
}

impl ClientTrust {
    /// Clients with certificates of these issuers; `required`: others have no connection. The
    /// hosts themselves show `certificates`.
    ///
    /// # Errors
    /// The issuers make no verifier.
    pub fn new(
        certificates: Arc<Certificates>,
        issuers: &pki::ClientIssuers,
        required: bool,
    ) -> Result<Self, TlsError> {
        let verifier = tls::client_verifier(&issuers.anchors, issuers.crls.clone())?;
        let asking = match required {
            true => Arc::clone(&verifier),
            false => tls::lenient(Arc::clone(&verifier)),
        };
        let over_quic = tls::asking_quic_server(
            Arc::clone(&certificates) as _,
            quic::ALPN,
            Arc::clone(&asking),
        )?;
        let tls = tls::asking_server(certificates, &[b"h2", b"http/1.1"], asking)?;
        let quic = QuicServerConfig::try_from(over_quic).map_err(|_| TlsError::Quic)?;
        Ok(ClientTrust {
            verifier,
            tls,
            quic: Arc::new(quic),
            required,
        })
    }

    /// The TLS in which they are asked inside QUIC.
    pub(crate) fn quic(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.quic)
    }

    /// Whose chain this is and until when, if it is to be believed.
    fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        is_verified: bool,
        now: WallTime,
    ) -> Result<(Identity, WallTime), Cause> {
        let [leaf, between @ ..] = chain else {
            return Err(Cause::Missing);
        };
        if !is_verified {
            let now = UnixTime::since_unix_epoch(now.since(WallTime::from_unix_seconds(0)));
            let verified = self.verifier.verify_client_cert(leaf, between, now);
            verified.map_err(|error| Cause::of(&error).unwrap_or(Cause::Bad))?;
        }
        let names = pki::client_names(leaf).map_err(|_| Cause::Bad)?;
        let kinds = |kind, values: Vec<String>| {
            values
                .into_iter()
                .map(move |value| ClientName { kind, value })
        };
        let digest = names
            .sha256
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let all = kinds(NameKind::Uri, names.uris)
            .chain(kinds(NameKind::Dns, names.dns))
            .chain(kinds(
                NameKind::CommonName,
                names.common_name.into_iter().collect(),
            ))
            .chain(kinds(NameKind::Sha256, vec![digest]));
        Ok((Identity(all.collect()), names.not_after))
    }
}

/// How the client of a connection stands under some issuers.
#[derive(Debug)]
pub(crate) struct Standing {
    trust: TrustId,
    /// May it be served at all?
    served: bool,
    pub(crate) identity: Option<Identity>,
    /// The last moment at which it has this identity.
    ends: Option<WallTime>,
}

impl Standing {
    fn new(trust: TrustId, required: bool, judged: Result<(Identity, WallTime), Cause>) -> Self {
        let (identity, ends) = judged.ok().unzip();
        Standing {
            trust,
            served: identity.is_some() || !required,
            identity,
            ends,
        }
    }

    pub(crate) fn trust(&self) -> Option<&TrustId> {
        self.served.then_some(&self.trust)
    }
}

/// What a client has shown when it was asked.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    standing: RefCell<Rc<Standing>>,
}

impl Certificate {
    /// How its client stands now: the issuers that its host knows may be others than in the
    /// handshake, and its time may be over.
    pub(crate) fn standing(
        &self,
        info: &ConnInfo,
        snapshot: &Snapshot,
        now: WallTime,
    ) -> Option<Rc<Standing>> {
        let name = info.sni.as_deref()?;
        let asked = snapshot.table.clients(info.port, name)?;
        let mut standing = self.standing.borrow_mut();
        let over = standing.ends.is_some_and(|ends| ends < now);
        if standing.trust != asked.trust || over {
            *standing = self.judged(asked, snapshot, now)?;
        }
        Some(Rc::clone(&standing))
    }

    /// How a client that stood so when its request `came` stands at a host that asks like this now.
    /// Its time counts as it did then, and nothing is kept for other requests.
    pub(crate) fn standing_still(
        &self,
        host: &ClientCertificates,
        snapshot: &Snapshot,
        (stood, came): (Option<&Rc<Standing>>, WallTime),
    ) -> Option<Rc<Standing>> {
        match stood {
            Some(stood) if stood.trust == host.trust => Some(Rc::clone(stood)),
            Some(_) | None => self.judged(host, snapshot, came),
        }
    }

    fn judged(
        &self,
        asked: &ClientCertificates,
        snapshot: &Snapshot,
        now: WallTime,
    ) -> Option<Rc<Standing>> {
        let trust = snapshot.clients.get(&asked.trust)?;
        let judged = trust.judge(&self.chain, false, now);
        Some(Rc::new(Standing::new(asked.trust, asked.required, judged)))
    }
}

/// By whom a client was asked.
pub(crate) type Asking = (TrustId, Arc<ClientTrust>);

/// A handshake, in which the server name says whether the client is asked.
pub(crate) async fn handshake(
    worker: &Worker,
    front: Front,
    port: u16,
) -> io::Result<(TlsStream<Gathered>, Option<Asking>)> {
    let acceptor = rustls::server::Acceptor::default();
    let start = LazyConfigAcceptor::new(acceptor, Gathered::new(front)).await?;
    let hello = start.client_hello();
    let asking = {
        let snapshot = worker.snapshot();
        let name = hello.server_name().and_then(host_of);
        let asked = name.and_then(|name| snapshot.table.clients(port, &name));
        match asked {
            None => None,
            Some(asked) => match snapshot.clients.get(&asked.trust) {
                Some(trust) => Some((asked.trust, Arc::clone(trust))),
                None => return Err(io::Error::other("the host's issuers cannot be used")),
            },
        }
    };
    let tls = match &asking {
        Some((_, trust)) => &trust.tls,
        None => &worker.tls,
    };
    let config = tls.config(hello.cipher_suites());
    let mut stream = start.into_stream(config).await?;
    let (gathered, session) = stream.get_mut();
    // Before TLS 1.3 it waits for the server's Finished.
    gathered.pass(session.protocol_version() != Some(ProtocolVersion::TLSv1_3));
    Ok((stream, asking))
}

/// What a client has shown who was asked.
///
/// # Errors
/// It may not be served.
pub(crate) fn shown(
    (id, trust): &Asking,
    chain: &[CertificateDer<'_>],
    refusals: &Refusals,
) -> Result<Rc<Certificate>, Cause> {
    // Where one is required the handshake has verified it.
    let judged = trust.judge(chain, trust.required, runtime::wall());
    if let Err(cause) = &judged {
        if trust.required {
            return Err(*cause);
        }
        if *cause != Cause::Missing {
            refusals.count(*cause);
        }
    }
    let standing = Standing::new(*id, trust.required, judged);
    Ok(Rc::new(Certificate {
        chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        standing: RefCell::new(Rc::new(standing)),
    }))
}

/// Why a client's certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Missing,
    UnknownIssuer,
    Expired,
    Revoked,
    /// Malformed, for another purpose, with a bad signature.
    Bad,
}

impl Cause {
    const fn word(self) -> &'static str {
        match self {
            Cause::Missing => "missing",
            Cause::UnknownIssuer => "unknown-issuer",
            Cause::Expired => "expired",
            Cause::Revoked => "revoked",
            Cause::Bad => "bad",
        }
    }

    /// What an alert of ours says, which shows its own certificates and verifies nobody else's; if it
    /// is about one at all.
    fn told(alert: AlertDescription) -> Option<Self> {
        let causes = [
            (AlertDescription::CertificateRequired, Cause::Missing),
            (AlertDescription::UnknownCA, Cause::UnknownIssuer),
            (AlertDescription::CertificateExpired, Cause::Expired),
            (AlertDescription::CertificateRevoked, Cause::Revoked),
            (AlertDescription::BadCertificate, Cause::Bad),
            (AlertDescription::UnsupportedCertificate, Cause::Bad),
            (AlertDescription::CertificateUnknown, Cause::Bad),
        ];
        let found = causes.into_iter().find(|(one, _)| *one == alert);
        found.map(|(_, cause)| cause)
    }

    /// If it is about a client's certificate at all.
    fn of(error: &rustls::Error) -> Option<Self> {
        if *error == rustls::Error::NoCertificatesPresented {
            return Some(Cause::Missing);
        }
        let rustls::Error::InvalidCertificate(error) = error else {
            return None;
        };
        // Others of somebody else's, and those to come, are bad.
        let is = |one: CertificateError| *error == one;
        Some(if is(CertificateError::UnknownIssuer) {
            Cause::UnknownIssuer
        } else if is(CertificateError::Revoked) {
            Cause::Revoked
        } else if matches!(
            error,
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        ) {
            Cause::Expired
        } else {
            Cause::Bad
        })
    }
}

/// Certificates that were not accepted, by cause.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    by_cause: CounterBy,
    /// Of which causes this worker has told.
    told: Cell<u8>,
}

impl Refusals {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let help = "Client certificates that were not accepted, or missing where one is required";
        Refusals {
            by_cause: metrics.counter_by("proxy_client_certificates_refused", help, "cause"),
            told: Cell::default(),
        }
    }

    pub(crate) fn count(&self, cause: Cause) {
        let word = cause.word();
        self.by_cause.inc(word);
        let bit = 1 << cause as u8;
        if self.told.get() & bit == 0 {
            self.told.set(self.told.get() | bit);
            tracing::warn!(
                cause = word,
                "a client certificate is not accepted; \
                 sealane_proxy_client_certificates_refused_total counts on"
            );
        }
    }

    /// Count a handshake inside QUIC that ended with this error of ours, if it is an alert (RFC
    /// 9001 §4.8) that is about a client's certificate.
    pub(crate) fn alerted(&self, code: u64) {
        let alert = code
            .checked_sub(0x100)
            .and_then(|code| u8::try_from(code).ok());
        if let Some(cause) = alert.and_then(|alert| Cause::told(alert.into())) {
            self.count(cause);
        }
    }

    /// Count a handshake that failed, if it failed for that.
    pub(crate) fn failed(&self, error: &io::Error) {
        let inner = error.get_ref();
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(cause) = inner.and_then(Cause::of) {
            self.count(cause);
        }
    }
}
