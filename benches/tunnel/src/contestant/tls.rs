//! A connection of TLS for each stream.

use std::{future::Future, net::SocketAddr, pin::Pin};

use anyhow::Result;
use runtime::{Tasks, tls};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{ALPN, ANYWHERE, Serving, Trust, connect, start};
use crate::work::{Open, Opener, Stream};

pub(super) async fn serve(trust: &Trust, tasks: Tasks, next: Option<Opener>) -> Result<Serving> {
    let config = tls::fabric_server(&trust.server, &trust.roots, &[ALPN])?;
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind(ANYWHERE).await?;
    let at = listener.local_addr()?;
    let group = tasks.clone();
    tasks.spawn_local("accept", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            runtime::net::tune_tunnel(&tcp);
            if let Ok(tls) = acceptor.accept(tcp).await {
                start(&group, Box::new(tls), next.clone());
            }
        }
    });
    let end = Box::new(());
    Ok(Serving { at, end })
}

pub(super) struct Client {
    connector: TlsConnector,
    at: SocketAddr,
}

impl Client {
    pub(super) fn new(trust: &Trust, at: SocketAddr) -> Result<Client> {
        let config = tls::fabric_client(&trust.client, &trust.roots, &[ALPN])?;
        let connector = TlsConnector::from(config);
        Ok(Client { connector, at })
    }
}

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let (connector, at) = (self.connector.clone(), self.at);
        Box::pin(async move {
            let tcp = connect(at).await?;
            let tls = connector.connect(Trust::name(), tcp).await?;
            Ok(Box::new(tls) as Stream)
        })
    }
}
