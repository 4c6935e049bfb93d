//! QUIC (RFC 9000) under links: one connection carries all of one, each stream of which is on its
//! own, so that a packet that is lost holds up one of them.
//!
//! The dialler opens the first stream and says on it what the connection is (`preface`); nothing
//! follows there. Every other stream begins with a head, whoever opens it (`stream`). Pings and
//! packets are datagrams (RFC 9221): no reader that stands still holds them up.
//! Beside it a link over TLS is kept: UDP may be blocked at any time, and where nothing is lost TLS
//! costs less.

mod link;
mod stream;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    RecvStream, SendStream, ServerConfig, TransportConfig, VarInt,
    congestion::BbrConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use runtime::{
    Tasks,
    net::{Share, Source},
    quic::On,
    tls::{self, Credentials, TlsError},
};
use rustls_pki_types::CertificateDer;

pub(crate) use link::run;
pub(crate) use stream::{Asked, Opener, QuicStream, open};

use crate::{
    packets::{self, UNSENT},
    preface::Role,
};

/// The first stream of a connection.
pub(crate) type First = (SendStream, RecvStream);

/// Streams one side may have open at once, the first included: until half as many have come, and
/// from then on. Room is made for every one at once, and most links carry few.
const STREAMS: u32 = 256;
const MAX_STREAMS: u32 = 4096;
/// What one stream may send before we read it, and all of them: 512 readers that stand still do not
/// hold up the others. And what we send before it is acknowledged: a gigabit over 100 ms is 12 MiB.
const STREAM_WINDOW: u32 = 256 << 10;
const RECEIVE_WINDOW: u32 = 128 << 20;
const SEND_WINDOW: u64 = 16 << 20;
/// Octets of datagrams that wait to be sent: those of packets, and of pings beside them.
const DATAGRAMS: usize = UNSENT + packets::PINGS;
/// Octets of those that have come and were not looked at yet; newer ones take their place. What comes
/// in one go fits in: pings among them are not to be lost.
const DATAGRAMS_COME: usize = 1 << 20;
/// The most octets in a datagram of UDP that a path is probed for: what an Ethernet carries over IPv6.
/// (Over IPv4 it is 20 more, but what begins over one may go on over the other. There is nothing to gain
/// from more: other sites are reached over the Internet.)
const MOST_MTU: u16 = 1500 - 40 - 8;
/// The search ends when it knows so exactly.
const MTU_EXACT: u16 = 8;
/// A path is probed for more so often (RFC 8899 §5.3: 600 s, for what has no better reason; a link
/// goes over another path when an uplink does, and one to which a smaller path was told is slow): some
/// dozen datagrams where it takes less than the most, none where it takes that.
const MTU_INTERVAL: Duration = Duration::from_secs(30);
/// And so long after large datagrams did not pass. Or seemed not to: where much is lost `quinn` errs, and
/// until it has searched again the path takes 1,200 octets.
const MTU_AGAIN: Duration = Duration::from_millis(100);
/// The link is given up long before by its own pings.
const IDLE: Duration = Duration::from_secs(10);
/// Connections whose handshake has not begun, and octets that wait with each and with all.
const WAITING: usize = 256;
const WAITING_OCTETS: u64 = 16 << 10;
const ALL_WAITING_OCTETS: u64 = 1 << 20;

/// What both sides of every connection are made with.
#[derive(Clone, Debug)]
pub(crate) struct Configs {
    server: ServerConfig,
    client: ClientConfig,
}

impl Configs {
    /// # Errors
    /// See [`TlsError`].
    pub(crate) fn new(
        credentials: &Credentials,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, TlsError> {
        let alpn: &[&[u8]] = &[Role::Quic.alpn()];
        let transport = Arc::new(transport());
        let tls = tls::fabric_server(credentials, roots, alpn)?;
        let tls = QuicServerConfig::try_from(tls).map_err(|_| TlsError::Quic)?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(Arc::clone(&transport))
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_OCTETS)
            .incoming_buffer_size_total(ALL_WAITING_OCTETS);
        let tls = tls::fabric_client(credentials, roots, alpn)?;
        let tls = QuicClientConfig::try_from(tls).map_err(|_| TlsError::Quic)?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(transport);
        Ok(Configs { server, client })
    }

    /// Takes connections at an address.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn listen(&self, tasks: &Tasks, address: SocketAddr) -> io::Result<Endpoint> {
        let socket = runtime::net::udp_bound(address, Share::Exclusive)?;
        endpoint(tasks, Some(self.server.clone()), socket)
    }

    /// Connections that come from now on are made so.
    pub(crate) fn renew(&self, endpoint: &Endpoint) {
        endpoint.set_server_config(Some(self.server.clone()));
    }

    /// Connects to a node, over one of several uplinks or as the system's routes say.
    ///
    /// # Errors
    /// What the system said, or the other side.
    pub(crate) async fn connect(
        &self,
        tasks: &Tasks,
        address: SocketAddr,
        source: Option<&Source>,
    ) -> io::Result<Connection> {
        let socket = runtime::net::udp_toward(address, source)?;
        let endpoint = endpoint(tasks, None, socket)?;
        let name = address.ip().to_string();
        let connecting = endpoint
            .connect_with(self.client.clone(), address, &name)
            .map_err(io::Error::other)?;
        Ok(connecting.await?)
    }
}

fn endpoint(
    tasks: &Tasks,
    server: Option<ServerConfig>,
    socket: std::net::UdpSocket,
) -> io::Result<Endpoint> {
    let on = Arc::new(On::new(tasks.clone()));
    Endpoint::new(EndpointConfig::default(), server, socket, on)
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MOST_MTU)
        .minimum_change(MTU_EXACT)
        .interval(MTU_INTERVAL)
        .black_hole_cooldown(MTU_AGAIN);
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS_COME))
        .datagram_send_buffer_size(DATAGRAMS)
        .mtu_discovery_config(Some(mtu));
    transport
}

/// The certificates that the other side has shown.
pub(crate) fn certificates(connection: &Connection) -> Option<Vec<CertificateDer<'static>>> {
    let identity = connection.peer_identity()?;
    Some(*identity.downcast::<Vec<CertificateDer<'static>>>().ok()?)
}
