//! Plain TCP.

use std::{future::Future, net::SocketAddr, pin::Pin};

use anyhow::Result;
use runtime::Tasks;
use tokio::net::TcpListener;

use super::{ANYWHERE, Serving, connect, start};
use crate::work::{Open, Stream};

pub(super) async fn serve(tasks: Tasks) -> Result<Serving> {
    let listener = TcpListener::bind(ANYWHERE).await?;
    let at = listener.local_addr()?;
    let group = tasks.clone();
    tasks.spawn_local("accept", async move {
        while let Ok((tcp, _)) = listener.accept().await {
            runtime::net::tune_tunnel(&tcp);
            start(&group, Box::new(tcp), None);
        }
    });
    let end = Box::new(());
    Ok(Serving { at, end })
}

pub(super) struct Client(pub(super) SocketAddr);

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let at = self.0;
        Box::pin(async move { Ok(Box::new(connect(at).await?) as Stream) })
    }
}
