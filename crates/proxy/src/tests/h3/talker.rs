//! A client that says what it is told to.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use bytes::BytesMut;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, ReadToEndError,
    RecvStream, SendStream, TokioRuntime, VarInt, crypto::rustls::QuicClientConfig,
};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use crate::{
    http3::{
        frame::{self, put_varint},
        qpack::{Encoder, Section},
    },
    tests::world::{PATIENCE, World},
};

pub(super) const HOST: &str = "cart.acme.example";
/// A control stream with settings that say nothing.
pub(super) const SETTINGS: &[u8] = &[0x00, 0x04, 0x00];

/// A client of QUIC, anywhere.
pub(super) fn endpoint() -> Endpoint {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), None, socket, runtime).expect("an endpoint")
}

pub(super) fn config(root: &CertificateDer<'static>) -> ClientConfig {
    let tls = runtime::tls::client(std::slice::from_ref(root), &[b"h3"]).expect("a client");
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")))
}

/// A connection with its control stream.
pub(super) struct Talker {
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
    _control: SendStream,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) trailers: Vec<(String, String)>,
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A field section of these, as they are.
pub(super) fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes());
    }
    encoder.finish()
}

/// A frame of any type.
pub(super) fn raw(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_varint(&mut out, kind);
    put_varint(&mut out, payload.len() as u64);
    out.extend_from_slice(payload);
    out.to_vec()
}

/// The head of a request of this method, with more fields.
pub(super) fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", method),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", path),
    ];
    raw(1, &section(&[&own[..], more].concat()))
}

impl Talker {
    pub(super) async fn new(world: &World, to: SocketAddr) -> Self {
        Talker::with(endpoint(), &config(&world.root), to, SETTINGS).await
    }

    pub(super) async fn with(
        endpoint: Endpoint,
        config: &ClientConfig,
        to: SocketAddr,
        opening: &[u8],
    ) -> Self {
        let opened = Talker::open(endpoint, config, to, opening).await;
        opened.expect("connected")
    }

    /// The same, if the server lets it.
    pub(super) async fn open(
        endpoint: Endpoint,
        config: &ClientConfig,
        to: SocketAddr,
        opening: &[u8],
    ) -> Result<Self, ConnectionError> {
        let connecting = endpoint.connect_with(config.clone(), to, HOST);
        let connecting = timeout(PATIENCE, connecting.expect("an address"));
        let connection = connecting.await.expect("in time")?;
        let mut control = connection.open_uni().await?;
        if control.write_all(opening).await.is_err() {
            return Err(connection.closed().await);
        }
        Ok(Talker {
            endpoint,
            connection,
            _control: control,
        })
    }

    /// Say this on a new stream.
    pub(super) async fn say(&self, octets: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
        send.write_all(octets).await.expect("written");
        (send, recv)
    }

    /// A whole request, and what comes of it.
    pub(super) async fn ask(&self, octets: &[u8]) -> Result<Reply, ReadToEndError> {
        let (mut send, recv) = self.say(octets).await;
        send.finish().expect("not over");
        reply(recv).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(&head("GET", path, &[])).await.expect("a reply")
    }

    /// The code with which a stream that says this is reset.
    pub(super) async fn reset(&self, octets: &[u8]) -> u64 {
        match self.ask(octets).await {
            Err(ReadToEndError::Read(quinn::ReadError::Reset(code))) => code.into_inner(),
            other => panic!("not reset but {other:?}"),
        }
    }

    /// The code with which the server closes the connection.
    pub(super) async fn closed(&self) -> u64 {
        let closed = timeout(PATIENCE, self.connection.closed()).await;
        let closed = closed.expect("in time");
        let ConnectionError::ApplicationClosed(close) = closed else {
            panic!("not closed but {closed}");
        };
        close.error_code.into_inner()
    }

    /// The first frames of the server's control stream: its settings, and what comes later.
    pub(super) async fn control(&self) -> RecvStream {
        let stream = timeout(PATIENCE, self.connection.accept_uni()).await;
        let mut stream = stream.expect("in time").expect("a stream");
        let mut kind = [0; 2];
        stream.read_exact(&mut kind).await.expect("a frame");
        assert_eq!(kind, [0, 4], "a control stream begins with settings");
        let mut length = [0; 1];
        stream.read_exact(&mut length).await.expect("a length");
        let mut settings = vec![0; usize::from(length[0])];
        stream.read_exact(&mut settings).await.expect("settings");
        stream
    }
}

/// The ID of a GOAWAY frame that comes next.
pub(super) async fn goaway(control: &mut RecvStream) -> u64 {
    let mut head = [0; 2];
    let read = timeout(PATIENCE, control.read_exact(&mut head)).await;
    read.expect("in time").expect("a frame");
    assert_eq!(head[0], 7);
    let mut id = vec![0; usize::from(head[1])];
    control.read_exact(&mut id).await.expect("an ID");
    frame::varint(&id).expect("an integer").0
}

/// All of a response.
pub(super) async fn reply(mut recv: RecvStream) -> Result<Reply, ReadToEndError> {
    let octets = timeout(PATIENCE, recv.read_to_end(16 << 20)).await;
    let octets = octets.expect("in time")?;
    let mut rest = &octets[..];
    let (mut sections, mut body) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (kind, first) = frame::varint(rest).expect("a type");
        let (length, second) = frame::varint(&rest[first..]).expect("a length");
        let length = usize::try_from(length).expect("a length");
        let (payload, after) = rest[first + second..].split_at(length);
        match kind {
            0 => body.extend_from_slice(payload),
            1 => sections.push(fields(payload)),
            _ => panic!("frame {kind}"),
        }
        rest = after;
    }
    // Informational ones are not kept.
    sections.retain(|fields| {
        !fields
            .iter()
            .any(|(n, v)| n == ":status" && v.starts_with('1'))
    });
    let mut sections = sections.into_iter();
    let mut fields = sections.next().expect("a head");
    let (name, status) = fields.remove(0);
    assert_eq!(name, ":status");
    Ok(Reply {
        status,
        fields,
        body: String::from_utf8(body).expect("text"),
        trailers: sections.next().unwrap_or_default(),
    })
}

fn fields(block: &[u8]) -> Vec<(String, String)> {
    let section = Section::decode(block, 1 << 20, 1000).expect("a section");
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).expect("text");
    section.iter().map(|(n, v)| (text(n), text(v))).collect()
}

pub(super) const CANCELLED: VarInt = VarInt::from_u32(0x10c);
