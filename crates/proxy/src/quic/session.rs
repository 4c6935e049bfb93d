//! TLS inside QUIC, in which the server name says whether the client is asked for a certificate.
//!
//! `quinn` begins a session with one configuration before anything of it was read. This one waits
//! for the whole ClientHello, of which `rustls` says the name as it does over TCP, and gives it to
//! a session of the configuration that is called for. So clients are asked as they are over TCP,
//! and where nobody is asked a session is the same as without this.

use std::{any::Any, io::Read, sync::Arc};

use arc_swap::ArcSwap;
use quinn::{
    ConnectionId, Side,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
        UnsupportedVersion,
        rustls::{HandshakeData, QuicServerConfig},
    },
};
use quinn_proto::{TransportError, TransportErrorCode, transport_parameters::TransportParameters};
use rustls::{AlertDescription, server::Acceptor};

use crate::{clients::Asking, snapshot::Snapshot};

/// What a handshake has told, as [`quinn::Connection::handshake_data`].
#[derive(Default)]
pub(super) struct Told {
    /// As the client wrote it.
    pub(super) name: Option<String>,
    /// Who was asked for a certificate.
    pub(super) asking: Option<Asking>,
}

/// Begins sessions on a logical port.
pub(super) struct Sessions {
    pub(super) store: Arc<ArcSwap<Snapshot>>,
    pub(super) port: u16,
    /// Where nobody is asked.
    pub(super) plain: Arc<QuicServerConfig>,
}

impl Sessions {
    /// Who is asked for a certificate that comes for this name.
    ///
    /// # Errors
    /// Nobody can say whom the host knows.
    fn asking(&self, name: Option<&str>) -> Result<Option<Asking>, TransportError> {
        let snapshot = self.store.load();
        let host = name
            .and_then(l7::host_of)
            .and_then(|name| snapshot.table.host(self.port, true, &name))
            .filter(|host| host.http3);
        let Some(asked) = host.and_then(|host| host.clients.as_ref()) else {
            return Ok(None);
        };
        match snapshot.clients.get(&asked.trust) {
            Some(trust) => Ok(Some((asked.trust, Arc::clone(trust)))),
            None => Err(TransportError {
                code: TransportErrorCode::crypto(AlertDescription::InternalError.into()),
                frame: None,
                reason: "the host's issuers cannot be used".to_owned(),
            }),
        }
    }
}

impl ServerConfig for Sessions {
    fn initial_keys(&self, version: u32, to: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.plain.initial_keys(version, to)
    }

    fn retry_tag(&self, version: u32, to: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.plain.retry_tag(version, to, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        Box::new(Session {
            inner: Arc::clone(&self.plain).start_session(version, params),
            asking: None,
            opening: Some(Opening {
                sessions: self,
                version,
                params: *params,
                hello: Vec::new(),
            }),
        })
    }
}

/// What is known until the ClientHello is whole.
struct Opening {
    sessions: Arc<Sessions>,
    version: u32,
    params: TransportParameters,
    hello: Vec<u8>,
}

/// One session.
struct Session {
    inner: Box<dyn crypto::Session>,
    asking: Option<Asking>,
    opening: Option<Opening>,
}

impl crypto::Session for Session {
    fn read_handshake(&mut self, octets: &[u8]) -> Result<bool, TransportError> {
        let Some(mut opening) = self.opening.take() else {
            return self.inner.read_handshake(octets);
        };
        opening.hello.extend_from_slice(octets);
        if !is_whole(&opening.hello) {
            self.opening = Some(opening);
            return Ok(false);
        }
        let name = server_name(&opening.hello);
        self.asking = opening.sessions.asking(name.as_deref())?;
        if let Some((_, trust)) = &self.asking {
            self.inner = trust.quic().start_session(opening.version, &opening.params);
        }
        self.inner.read_handshake(&opening.hello)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let data = self.inner.handshake_data()?;
        let data = data.downcast::<HandshakeData>().ok()?;
        Some(Box::new(Told {
            name: data.server_name,
            asking: self.asking.clone(),
        }))
    }

    fn initial_keys(&self, to: &ConnectionId, side: Side) -> Keys {
        self.inner.initial_keys(to, side)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.inner.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.inner.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.inner.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.inner.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.inner.transport_parameters()
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        self.inner.write_handshake(out)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.inner.next_1rtt_keys()
    }

    fn is_valid_retry(&self, to: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.inner.is_valid_retry(to, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.inner.export_keying_material(output, label, context)
    }
}

/// The type of a ClientHello (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
/// The longest message that `rustls` reads.
const LONGEST: usize = 0xffff;

/// Is there all that will be looked at? What is no ClientHello, or too long for one, is refused by
/// whoever is given it.
fn is_whole(message: &[u8]) -> bool {
    match message {
        [CLIENT_HELLO, a, b, c, rest @ ..] => {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            length > LONGEST || rest.len() >= length
        }
        [] | [CLIENT_HELLO, ..] => false,
        _ => true,
    }
}

/// The longest fragment of a record (RFC 8446 §5.1).
const FRAGMENT: usize = 1 << 14;

/// The server name of a ClientHello, as `rustls` reads it, which is here for records alone; if there
/// is none, or it is malformed, a session says so.
fn server_name(hello: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    for fragment in hello.chunks(FRAGMENT) {
        let [.., high, low] = fragment.len().to_be_bytes();
        let head = [22, 3, 1, high, low];
        let mut record = head.chain(fragment);
        // Once for the head, and once for the rest.
        acceptor.read_tls(&mut record).ok()?;
        acceptor.read_tls(&mut record).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_whole_when_all_of_it_is_there() {
        for (message, expect) in [
            (&[][..], false),
            (&[1, 0, 0], false),
            (&[1, 0, 0, 2, 7], false),
            (&[1, 0, 0, 2, 7, 7], true),
            (&[1, 0, 0, 2, 7, 7, 9], true),
            // None, and none that is read.
            (&[2], true),
            (&[1, 1, 0, 0], true),
        ] {
            assert_eq!(is_whole(message), expect, "{message:?}");
        }
    }

    #[test]
    fn what_is_no_hello_has_no_name() {
        for octets in [
            &[][..],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0],
            &[1, 0, 0, 2, 3, 3],
            &[0; 40_000],
        ] {
            assert_eq!(server_name(octets), None);
        }
    }
}
