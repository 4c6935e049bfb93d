//! A link's data connection, dialled and admitted as between two nodes.

use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};

use anyhow::{Context, Result, bail};
use bench_kit::clock::Deadline;
use runtime::{Tasks, metrics::Metrics};
use tunnel::{Admit, Config, DialTarget, OpenError, StreamHead, Trunks, Tunnel};

use super::{ANYWHERE, SERVER, Serving, Trust, start};
use crate::work::{Open, Stream};

/// How long the link may take to come up.
const START: Duration = Duration::from_secs(10);

fn config(trust: &Trust) -> Config {
    Config {
        planet: trust.planet.clone(),
        credentials: trust.client.clone(),
        roots: trust.roots.clone(),
        listen: Vec::new(),
        dial: Vec::new(),
        admit: Admit::all(),
        hear: Admit::all(),
        joins: false,
        prefer: tunnel::Prefer::Tls,
        trunks: 1,
    }
}

/// Serve the data connections that a tunnel has, and what comes on them.
fn carry(tasks: Tasks, tunnel: Tunnel) -> Trunks {
    let trunks = Trunks::default();
    let (serving, group) = (trunks.clone(), tasks.clone());
    tasks.spawn_local("trunks", async move {
        // All of it: its links end when it is dropped.
        let mut tunnel = tunnel;
        while let Some(trunk) = tunnel.trunks.recv().await {
            let (serving, tasks) = (serving.clone(), group.clone());
            group.spawn_local("trunk", async move {
                let on_stream = |incoming: tunnel::TrunkIncoming| {
                    if let Ok(stream) = incoming.accept() {
                        start(&tasks, Box::new(stream));
                    }
                };
                serving.serve(trunk, on_stream).await;
            });
        }
    });
    trunks
}

pub(super) async fn serve(trust: &Trust, tasks: Tasks) -> Result<Serving> {
    let tunnel = tunnel::start(&Metrics::default())?;
    let config = Config {
        credentials: trust.server.clone(),
        listen: vec![ANYWHERE],
        ..config(trust)
    };
    let listening = tunnel.control.configure(config).await?;
    let (_, at) = listening.bound.first().context("it does not listen")?;
    let at = *at;
    carry(tasks, tunnel);
    let end = Box::new(());
    Ok(Serving { at, end })
}

pub(super) struct Client(Trunks);

impl Client {
    pub(super) async fn dial(trust: &Trust, at: SocketAddr, tasks: Tasks) -> Result<Client> {
        let tunnel = tunnel::start(&Metrics::default())?;
        let config = Config {
            dial: vec![DialTarget {
                expected: None,
                addresses: vec![at],
                uplink: None,
            }],
            ..config(trust)
        };
        tunnel.control.configure(config).await?;
        let client = Client(carry(tasks, tunnel));
        let deadline = Deadline::after(START);
        while !deadline.passed() {
            match open(&client.0).await {
                Ok(_) => return Ok(client),
                Err(OpenError::NoLink(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no link came up")
    }
}

async fn open(trunks: &Trunks) -> Result<tunnel::TrunkStream, OpenError> {
    let head = StreamHead {
        endpoint: "7/0/10.0.0.1:80".parse().ok(),
        lb: Some("shop/cart".to_owned()),
        ..StreamHead::to("cart.shop.acme:80")
    };
    let site = SERVER.parse().expect("a site");
    trunks.open(&site, &head).await
}

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let trunks = self.0.clone();
        Box::pin(async move { Ok(Box::new(open(&trunks).await?) as Stream) })
    }
}
