//! Streams of QUIC, by the quinn crate.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::{Context, Result};
use quinn::{
    ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use runtime::{Tasks, tls};

use super::{ALPN, ANYWHERE, Serving, Trust, start};
use crate::work::{Open, Stream};

const STREAMS: u32 = 4096;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW));
    Arc::new(transport)
}

pub(super) fn serve(trust: &Trust, tasks: &Tasks) -> Result<Serving> {
    let config = tls::fabric_server(&trust.server, &trust.roots, &[ALPN])?;
    let crypto = QuicServerConfig::try_from(config)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    let endpoint = Endpoint::server(config, ANYWHERE)?;
    let (at, group, kept) = (endpoint.local_addr()?, tasks.clone(), endpoint.clone());
    tasks.spawn_local("accept", async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            let tasks = group.clone();
            group.spawn_local("connection", async move {
                while let Ok((send, receive)) = connection.accept_bi().await {
                    start(&tasks, Box::new(tokio::io::join(receive, send)), None);
                }
            });
        }
    });
    let end = Box::new(kept);
    Ok(Serving { at, end })
}

pub(super) struct Client {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Client {
    pub(super) async fn dial(trust: &Trust, at: SocketAddr) -> Result<Client> {
        let config = tls::fabric_client(&trust.client, &trust.roots, &[ALPN])?;
        let crypto = QuicClientConfig::try_from(config)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport());
        let endpoint = Endpoint::client(ANYWHERE)?;
        let connecting = endpoint.connect_with(config, at, &at.ip().to_string());
        let connection = connecting?.await.context("QUIC")?;
        Ok(Client {
            connection,
            _endpoint: endpoint,
        })
    }
}

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let connection = self.connection.clone();
        Box::pin(async move {
            let (send, receive) = connection.open_bi().await?;
            Ok(Box::new(tokio::io::join(receive, send)) as Stream)
        })
    }
}
