//! A link's data connection, dialled and admitted as between two nodes.

use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};

use anyhow::{Context, Result, bail};
use bench_kit::clock::Deadline;
use runtime::{Tasks, metrics::Metrics};
use tunnel::{Admit, Config, DialTarget, OpenError, StreamHead, Trunks, Tunnel};

use super::{ANYWHERE, Serving, Trust, start};
use crate::work::{Open, Opener, Stream};

/// How long the link may take to come up.
const START: Duration = Duration::from_secs(10);

pub(crate) fn config(trust: &Trust) -> Config {
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
fn carry(tasks: Tasks, tunnel: Tunnel, next: Option<Opener>) -> Trunks {
    let trunks = Trunks::default();
    let (serving, group) = (trunks.clone(), tasks.clone());
    tasks.spawn_local("trunks", async move {
        // All of it: its links end when it is dropped.
        let mut tunnel = tunnel;
        while let Some(trunk) = tunnel.trunks.recv().await {
            let (serving, tasks, next) = (serving.clone(), group.clone(), next.clone());
            group.spawn_local("trunk", async move {
                let on_stream = |incoming: tunnel::TrunkIncoming| {
                    if let Ok(stream) = incoming.accept() {
                        start(&tasks, Box::new(stream), next.clone());
                    }
                };
                serving.serve(trunk, on_stream).await;
            });
        }
    });
    trunks
}

pub(super) async fn serve(trust: &Trust, tasks: Tasks, next: Option<Opener>) -> Result<Serving> {
    let tunnel = tunnel::start(&Metrics::default())?;
    let config = Config {
        credentials: match next {
            Some(_) => trust.relay.clone(),
            None => trust.server.clone(),
        },
        listen: vec![ANYWHERE],
        ..config(trust)
    };
    let listening = tunnel.control.configure(config).await?;
    let (_, at) = listening.bound.first().context("it does not listen")?;
    let at = *at;
    carry(tasks, tunnel, next);
    let end = Box::new(());
    Ok(Serving { at, end })
}

pub(super) struct Client {
    trunks: Trunks,
    /// Who is at the other end.
    site: &'static str,
}

impl Client {
    pub(super) async fn dial(
        trust: &Trust,
        (at, site): (SocketAddr, &'static str),
        tasks: Tasks,
    ) -> Result<Client> {
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
        let trunks = carry(tasks, tunnel, None);
        let deadline = Deadline::after(START);
        while !deadline.passed() {
            match open(&trunks, site).await {
                Ok(_) => return Ok(Client { trunks, site }),
                Err(OpenError::NoLink(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no link came up")
    }
}

async fn open(trunks: &Trunks, site: &str) -> Result<tunnel::TrunkStream, OpenError> {
    let head = StreamHead {
        endpoint: "7/0/10.0.0.1:80".parse().ok(),
        lb: Some("shop/cart".to_owned()),
        ..StreamHead::to("cart.shop.acme:80")
    };
    let site = site.parse().expect("a site");
    trunks.open(&site, &head).await
}

impl Open for Client {
    fn open(&self) -> Pin<Box<dyn Future<Output = Result<Stream>>>> {
        let (trunks, site) = (self.trunks.clone(), self.site);
        Box::pin(async move { Ok(Box::new(open(&trunks, site).await?) as Stream) })
    }
}
