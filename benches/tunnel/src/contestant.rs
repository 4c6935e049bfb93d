//! What carries the streams: a server's end on a thread of its own, a client's end on this one.

mod haproxy;
mod http2;
mod quic;
pub(crate) mod sealane;
mod tcp;
mod tls;

use std::{
    fmt, fs,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use pki::{Authority, Identity, NodeKey, Planet};
use runtime::{Tasks, tls::Credentials};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
    task::LocalSet,
};

use crate::{
    scenario::Figures,
    work::{self, Opener, Stream},
};

/// Who can take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contestant {
    /// A connection of plain TCP for each stream: what it costs without a tunnel.
    Tcp,
    /// One stream on a connection of TLS 1.3.
    Tls,
    /// HTTP/2 CONNECT in one connection of TLS 1.3, by the h2 crate.
    Http2,
    /// Streams of one connection of QUIC, by the quinn crate.
    Quic,
    /// HAProxy, which ends TLS on one side and begins it on the other.
    Haproxy,
    /// A data connection of a link.
    Sealane,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Contestant::Tcp => "tcp",
            Contestant::Tls => "tls",
            Contestant::Http2 => "http2",
            Contestant::Quic => "quic",
            Contestant::Haproxy => "haproxy",
            Contestant::Sealane => "sealane",
        })
    }
}

/// Certificates of both ends.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    planet: Planet,
    roots: Vec<CertificateDer<'static>>,
    pub(crate) server: Credentials,
    client: Credentials,
    relay: Credentials,
    /// Those of the relay, and whom it trusts, as programs read them.
    relay_pem: String,
    roots_pem: String,
}

impl Trust {
    pub(crate) fn new() -> Result<Trust> {
        let planet: Planet = "bench".parse()?;
        let authority = Authority::create(&planet, runtime::wall())?;
        let node = |site: &str| {
            let key = NodeKey::generate()?;
            let identity = Identity::node(planet.clone(), site.parse()?, "n1".parse()?);
            let (from, life) = (runtime::wall(), Duration::from_secs(86_400));
            let chain = authority.issue(&key.csr_der()?, &identity, from, life)?;
            let pem = pki::chain_pem(&chain) + &key.to_pem();
            let key = PrivateKeyDer::try_from(key.pkcs8_der().to_vec())
                .map_err(|error| anyhow!("the key: {error}"))?;
            anyhow::Ok((Credentials { chain, key }, pem))
        };
        let (relay, relay_pem) = node(RELAY)?;
        Ok(Trust {
            roots: vec![authority.certificate_der().clone()],
            server: node(SERVER)?.0,
            client: node(CLIENT)?.0,
            relay,
            relay_pem,
            roots_pem: authority.certificate_pem(),
            planet,
        })
    }

    fn name() -> ServerName<'static> {
        ServerName::IpAddress(ANYWHERE.ip().into())
    }
}

/// The sites of both ends.
pub(crate) const SERVER: &str = "par.fabric";
const CLIENT: &str = "aws.acme";
/// And that of whoever stands between them.
const RELAY: &str = "lon.fabric";
pub(crate) const ANYWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ALPN: &[u8] = b"bench";

/// Has the work done between two ends.
pub(crate) fn between<F>(contestant: Contestant, work: impl FnOnce(Opener) -> F) -> Result<Figures>
where
    F: Future<Output = Result<Figures>>,
{
    let trust = Trust::new()?;
    let (tell, told) = sync_channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let theirs = trust.clone();
    let server = thread::spawn(move || {
        on_this_thread(async |tasks| {
            let serving = serve(contestant, &theirs, tasks.clone(), None).await?;
            tell.send(serving.at)?;
            // It is dropped, and never used.
            let _ = stopped.await;
            drop(serving.end);
            anyhow::Ok(())
        })
    });
    let outcome = match told.recv() {
        Ok(at) => on_this_thread(async |tasks| {
            let opener = dial(contestant, &trust, (at, SERVER), tasks.clone()).await?;
            work(opener).await
        }),
        Err(_) => Err(anyhow!("the server's end did not start")),
    };
    drop(stop);
    let served = server
        .join()
        .map_err(|_| anyhow!("the server's end panicked"))?;
    served.context("the server's end")?;
    outcome
}

/// The same with a third one between them, in a thread or process of its own: where the system says
/// how long that ran is told to `work`.
pub(crate) fn over_relay<F>(
    contestant: Contestant,
    work: impl FnOnce(Opener, PathBuf) -> F,
) -> Result<Figures>
where
    F: Future<Output = Result<Figures>>,
{
    let trust = Trust::new()?;
    let (stop, stopped) = watch::channel(());
    let thread = |to: Option<SocketAddr>| {
        let (tell, told) = sync_channel(1);
        let (theirs, mut stopped) = (trust.clone(), stopped.clone());
        let thread = thread::spawn(move || {
            on_this_thread(async |tasks| {
                let next = match to {
                    Some(at) => Some(dial(contestant, &theirs, (at, SERVER), tasks.clone()).await?),
                    None => None,
                };
                let serving = serve(contestant, &theirs, tasks.clone(), next).await?;
                tell.send((serving.at, fs::read_link("/proc/thread-self")?))?;
                // It is dropped, and never used.
                let _ = stopped.changed().await;
                drop(serving.end);
                anyhow::Ok(())
            })
        });
        (thread, told)
    };
    let (server, told) = thread(None);
    let (at, _) = told.recv().context("the server's end did not start")?;
    let mut threads = vec![("the server's end", server)];
    let hop;
    let (at, place) = if contestant == Contestant::Haproxy {
        hop = haproxy::Hop::start(&trust, at)?;
        (hop.at, hop.place())
    } else {
        let (relay, told) = thread(Some(at));
        threads.push(("the relay", relay));
        told.recv().context("the relay did not start")?
    };
    let ran = Path::new("/proc").join(place).join("schedstat");
    let outcome = on_this_thread(async |tasks| {
        let opener = dial(contestant, &trust, (at, RELAY), tasks.clone()).await?;
        work(opener, ran).await
    });
    drop(stop);
    for (name, thread) in threads {
        let ended = thread.join().map_err(|_| anyhow!("{name} panicked"))?;
        ended.context(name)?;
    }
    outcome
}

/// What listens, and where.
struct Serving {
    at: SocketAddr,
    /// Kept as long as it is to serve.
    end: Box<dyn std::any::Any>,
}

/// Serves streams, or passes them on to `next` (TLS and ours).
async fn serve(
    contestant: Contestant,
    trust: &Trust,
    tasks: Tasks,
    next: Option<Opener>,
) -> Result<Serving> {
    match contestant {
        Contestant::Tcp => tcp::serve(tasks).await,
        Contestant::Tls | Contestant::Haproxy => tls::serve(trust, tasks, next).await,
        Contestant::Http2 => http2::serve(trust, tasks).await,
        Contestant::Quic => quic::serve(trust, &tasks),
        Contestant::Sealane => sealane::serve(trust, tasks, next).await,
    }
}

async fn dial(
    contestant: Contestant,
    trust: &Trust,
    (at, site): (SocketAddr, &'static str),
    tasks: Tasks,
) -> Result<Opener> {
    Ok(match contestant {
        Contestant::Tcp => Rc::new(tcp::Client(at)),
        Contestant::Tls | Contestant::Haproxy => Rc::new(tls::Client::new(trust, at)?),
        Contestant::Http2 => Rc::new(http2::Client::dial(trust, at, &tasks).await?),
        Contestant::Quic => Rc::new(quic::Client::dial(trust, at).await?),
        Contestant::Sealane => Rc::new(sealane::Client::dial(trust, (at, site), tasks).await?),
    })
}

/// Runs it, with tasks, until it is done.
pub(crate) fn on_this_thread<T>(work: impl AsyncFnOnce(&Tasks) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = Tasks::new("bench");
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let done = work(&tasks).await;
        tasks.drain(Duration::ZERO).await;
        done
    }))
}

/// Do the server's part on a stream, or pass it on.
fn start(tasks: &Tasks, stream: Stream, next: Option<Opener>) {
    tasks.spawn_local("stream", async move {
        // Clients leave when the time is over.
        let _ = match next {
            Some(next) => work::pass(stream, &next).await,
            None => work::serve(stream).await,
        };
    });
}

async fn connect(at: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(at).await?;
    runtime::net::tune_tunnel(&tcp);
    Ok(tcp)
}
