//! HTTP/2 CONNECT in one connection of TLS, by the h2 crate with windows as large as ours.

use std::{future::Future, net::SocketAddr, pin::Pin};

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, Response, StatusCode};
use runtime::{Tasks, h2io::H2Stream, tls};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpListener};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ALPN, ANYWHERE, Serving, Trust, connect, start};
use crate::work::{Open, Stream};

const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 32 << 10;
const MAX_STREAMS: u32 = 4096;

pub(super) async fn serve(trust: &Trust, tasks: Tasks) -> Result<Serving> {
    let config = tls::fabric_server(&trust.server, &trust.roots, &[ALPN])?;
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind(ANYWHERE).await?;
    let at = listener.local_addr()?;
    let group = tasks.clone();
    tasks.spawn_local("accept", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            runtime::net::tune_tunnel(&tcp);
            if let Ok(tls) = acceptor.accept(tcp).await {
                let tasks = group.clone();
                group.spawn_local("connection", async move {
                    // It ends with its client.
                    let _ = connection(tls, &tasks).await;
                });
            }
        }
    });
    let end = Box::new(());
    Ok(Serving { at, end })
}

async fn connection(io: impl AsyncRead + AsyncWrite + Unpin, tasks: &Tasks) -> Result<()> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .data_frame_budget(usize::MAX)
        .handshake::<_, Bytes>(io)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let send = respond.send_response(Response::new(()), false)?;
        start(
            tasks,
            Box::new(H2Stream::new(send, request.into_body())),
            None,
        );
    }
    Ok(())
}

pub(super) struct Client(SendRequest<Bytes>);

impl Client {
    pub(super) async fn dial(trust: &Trust, at: SocketAddr, tasks: &Tasks) -> Result<Client> {
        let config = tls::fabric_client(&trust.client, &trust.roots, &[ALPN])?;
        let tcp = connect(at).await?;
        let tls = TlsConnector::from(config)
            .connect(Trust::name(), tcp)
            .await?;
        let (opener, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .initial_max_send_streams(MAX_STREAMS as usize)
            .data_frame_budget(usize::MAX)
            .handshake(tls)
            .await?;
        tasks.spawn_local("connection", async move {
            // It ends when this is dropped.
            let _ = connection.await;
        });
        Ok(Client(opener))
    }
}

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let opener = self.0.clone();
        Box::pin(async move {
            let mut request = Request::new(());
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = "cart.shop.acme:80".parse()?;
            let (response, send) = opener.ready().await?.send_request(request, false)?;
            let response = response.await?;
            ensure!(response.status() == StatusCode::OK, "{}", response.status());
            Ok(Box::new(H2Stream::new(send, response.into_body())) as Stream)
        })
    }
}
