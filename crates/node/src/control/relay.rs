//! The way of intent through a control half: from upstream (the controller, or PoPs) to downstream
//! (the own data half, and at a PoP the gateways attached to it), and of status back.
//!
//! Every downstream has its own upstream streams, opened in its name. What passes is not changed:
//! it is signed. A PoP keeps the chain of each gateway on disk and serves it at once to one that
//! comes back, also when the controller is away.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use api::sync::{self, Down, Hello, Signed, Up, Update};
use base::{Backoff, Name, Revision, Rng, SiteName};
use runtime::{
    Tasks,
    log::Limiter,
    metrics::{Counter, Metrics},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};
use tunnel::{Links, StreamHead};

use crate::{
    lines::{Lines, send},
    state::State,
};

/// Lines under way in each direction of one relayed stream; full: the sender waits.
const LINES: usize = 64;

/// An upstream that cannot be reached is tried again after 50 ms to 2 s.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

/// The longest line that a gateway may send: a status with every endpoint it knows.
const MAX_UP_BYTES: usize = 8 << 20;

/// A refusal is logged again after this.
const QUIET: Duration = Duration::from_secs(60);

/// How long the first line of a stream may take.
const HELLO: Duration = Duration::from_secs(10);

/// What all relayed streams of a node share.
pub(crate) struct Relay {
    pub(crate) me: SiteName,
    pub(crate) links: Links,
    pub(crate) state: State,
    pub(crate) verifier: pki::Verifier,
    pub(crate) tasks: Tasks,
    /// Whom to ask: authorities of upstream streams, in reach of the data half.
    pub(crate) upstreams: watch::Receiver<Vec<String>>,
    /// What the own data half and upstreams say, for the own brain.
    pub(crate) tap: mpsc::Sender<Tap>,
    pub(crate) refusals: Refusals,
}

/// Who asked for what is not its own: counted, and logged once a minute for each site.
pub(crate) struct Refusals {
    streams: Counter,
    updates: Counter,
    quiet: Limiter<(SiteName, &'static str)>,
}

impl Refusals {
    pub(crate) fn declare(metrics: &Metrics) -> Self {
        Refusals {
            streams: metrics.counter(
                "sync_streams_refused",
                "Site-sync asked for in another's name",
            ),
            updates: metrics.counter("sync_updates_refused", "Updates that were not passed on"),
            quiet: Limiter::new(QUIET),
        }
    }

    fn stream(&self, peer: &SiteName, reason: &str) {
        self.streams.inc();
        let now = runtime::now();
        if let Some(suppressed) = self.quiet.allow(now, (peer.clone(), "stream")) {
            tracing::warn!(%peer, reason, suppressed, "site-sync is refused");
        }
    }

    fn update(&self, site: &SiteName, error: &plan::OpenError) {
        self.updates.inc();
        let now = runtime::now();
        if let Some(suppressed) = self.quiet.allow(now, (site.clone(), "update")) {
            let error = base::Chain(error);
            tracing::warn!(%site, %error, suppressed, "refused a relayed update");
        }
    }
}

/// What a control half hears on the own site's stream.
pub(crate) enum Tap {
    /// A signed update, from disk or from upstream.
    Signed(Signed),
    /// What the proxy saw.
    Trouble(sync::Trouble),
    /// The VIPs that have a healthy endpoint.
    Vips(BTreeSet<IpAddr>),
    /// The links that are up.
    Links(Vec<sync::Link>),
    /// What runs at the site's own endpoints.
    Running(Vec<sync::Running>),
}

/// The upstream streams of one downstream, by authority; dropping one ends it.
#[derive(Default)]
struct Uplinks(BTreeMap<String, (mpsc::Sender<Up>, AbortOnDrop)>);

struct AbortOnDrop(runtime::Task);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The chain of one site as a PoP keeps it.
struct Cache {
    site: SiteName,
    file: String,
    chain: Vec<(Revision, Signed)>,
}

impl Relay {
    /// Serve one downstream stream of `node` of `peer` until it ends.
    pub(crate) async fn serve<S>(
        self: Rc<Self>,
        peer: SiteName,
        node: Name,
        stream: S,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (reader, mut writer) = tokio::io::split(stream);
        // The own data half sends the envelopes it has on disk, everybody else status at most.
        let own = peer == self.me;
        let most = if own {
            sync::MAX_LINE_BYTES
        } else {
            MAX_UP_BYTES
        };
        let mut lines = Lines::new(reader, most);
        let first = tokio::time::timeout(HELLO, lines.next()).await??;
        let Some(Up::Hello(hello)) = first else {
            return Err(wrong("the first line is not a hello"));
        };
        if hello.site != peer || hello.node != node {
            let reason = format!(
                "the certificate is {node}.{peer}'s, not {}.{}'s",
                hello.node, hello.site
            );
            self.refusals.stream(&peer, &reason);
            send(
                &mut writer,
                &Down::Refused {
                    reason: reason.clone(),
                },
            )
            .await?;
            // Dropped without an end, the stream would be reset and the reason lost.
            tokio::io::AsyncWriteExt::shutdown(&mut writer).await?;
            return Err(wrong(&reason));
        }
        let mut cache = (!own).then(|| self.cache(&peer));
        let mut have = hello.have;
        if let Some(cache) = &cache {
            send(&mut writer, &Down::Time(runtime::wall())).await?;
            for signed in cache.after(hello.have.unwrap_or_default()) {
                send(&mut writer, &Down::Signed(signed)).await?;
            }
            have = cache.latest();
        }
        let (down, mut from_upstreams) = mpsc::channel::<Down>(LINES);
        let position = Rc::new(Cell::new(have));
        let mut uplinks = Uplinks::default();
        let mut upstreams = self.upstreams.clone();
        upstreams.mark_changed();
        loop {
            tokio::select! {
                changed = upstreams.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted = upstreams.borrow_and_update().clone();
                    uplinks.0.retain(|authority, _| wanted.contains(authority));
                    for authority in wanted {
                        uplinks.0.entry(authority.clone()).or_insert_with(|| {
                            self.uplink(authority, hello.clone(), &position, down.clone())
                        });
                    }
                }
                line = lines.next::<Up>() => match line? {
                    None => return Ok(()),
                    Some(up) => {
                        if let (true, Up::Ack(revision)) = (own, &up) {
                            position.set(Some(*revision));
                        }
                        self.upward(own, up, &uplinks).await;
                    }
                },
                Some(line) = from_upstreams.recv() => {
                    if let Down::Signed(signed) = &line {
                        match &mut cache {
                            Some(cache) => {
                                if !cache.take(&self, signed) {
                                    continue;
                                }
                                position.set(cache.latest());
                            }
                            // A full tap means the own brain is behind: wait for it.
                            None => drop(self.tap.send(Tap::Signed(signed.clone())).await),
                        }
                    }
                    send(&mut writer, &line).await?;
                }
            }
        }
    }

    async fn upward(&self, own: bool, up: Up, uplinks: &Uplinks) {
        match up {
            Up::Stored(signed) if own => {
                let _ = self.tap.send(Tap::Signed(signed)).await;
            }
            Up::Trouble(trouble) if own => {
                let _ = self.tap.send(Tap::Trouble(trouble)).await;
            }
            Up::Vips(up) if own => {
                let _ = self.tap.send(Tap::Vips(up)).await;
            }
            Up::Links(up) if own => {
                let _ = self.tap.send(Tap::Links(up)).await;
            }
            Up::Running(running) if own => {
                let _ = self.tap.send(Tap::Running(running)).await;
            }
            // From anybody else these mean nothing.
            Up::Hello(_)
            | Up::Stored(_)
            | Up::Trouble(_)
            | Up::Vips(_)
            | Up::Links(_)
            | Up::Running(_) => {}
            up @ (Up::Ack(_) | Up::Reject { .. } | Up::Status(_) | Up::Renew { .. }) => {
                for (sender, _) in uplinks.0.values() {
                    // Full: the upstream is away or slow. Status and acks are said again.
                    let _ = sender.try_send(up.clone());
                }
            }
        }
    }

    /// A task that keeps one upstream stream open.
    fn uplink(
        self: &Rc<Self>,
        authority: String,
        hello: Hello,
        position: &Rc<Cell<Option<Revision>>>,
        down: mpsc::Sender<Down>,
    ) -> (mpsc::Sender<Up>, AbortOnDrop) {
        let (sender, mut ups) = mpsc::channel(LINES);
        let relay = Rc::clone(self);
        let position = Rc::clone(position);
        let task = self.tasks.spawn_local("sync-uplink", async move {
            let mut backoff = Backoff::new(FIRST, MOST);
            let mut rng = Rng::new(runtime::now().as_nanos());
            while !down.is_closed() {
                let hello = Hello {
                    have: position.get(),
                    time: runtime::wall(),
                    ..hello.clone()
                };
                let started = runtime::now();
                let end = relay.pipe(&authority, hello, &mut ups, &down).await;
                if let Err(error) = end {
                    tracing::debug!(authority, %error, "site-sync upstream ended");
                }
                if runtime::now().since(started) > MOST {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.next_wait(&mut rng)).await;
            }
        });
        (sender, AbortOnDrop(task))
    }

    async fn pipe(
        &self,
        authority: &str,
        hello: Hello,
        ups: &mut mpsc::Receiver<Up>,
        down: &mpsc::Sender<Down>,
    ) -> io::Result<()> {
        let head = StreamHead::to(authority);
        let stream = self
            .links
            .open_control(&self.me, &head)
            .await
            .map_err(io::Error::other)?;
        let (reader, mut writer) = tokio::io::split(stream);
        send(&mut writer, &Up::Hello(hello)).await?;
        let mut lines = Lines::new(reader, sync::MAX_LINE_BYTES);
        loop {
            tokio::select! {
                line = lines.next::<Down>() => match line? {
                    None => return Ok(()),
                    Some(Down::Refused { reason }) => {
                        tracing::warn!(authority, reason, "site-sync was refused upstream");
                        return Ok(());
                    }
                    Some(line) => {
                        if down.send(line).await.is_err() {
                            return Ok(());
                        }
                    }
                },
                up = ups.recv() => match up {
                    None => return Ok(()),
                    Some(up) => send(&mut writer, &up).await?,
                },
            }
        }
    }

    fn cache(&self, site: &SiteName) -> Cache {
        let file = format!("cache/{site}.ndjson");
        let stored = self.state.chain(&file);
        let mut cache = Cache {
            site: site.clone(),
            file,
            chain: Vec::new(),
        };
        for signed in &stored {
            cache.add(self, signed);
        }
        cache
    }
}

impl Cache {
    fn latest(&self) -> Option<Revision> {
        self.chain.last().map(|(revision, _)| *revision)
    }

    /// What leads from `have` to the latest; all of it if `have` is not on the way.
    fn after(&self, have: Revision) -> Vec<Signed> {
        if self.latest().is_none_or(|latest| latest <= have) {
            return Vec::new();
        }
        let at = self
            .chain
            .iter()
            .position(|(revision, _)| *revision == have);
        let rest = self.chain.iter().skip(at.map_or(0, |at| at + 1));
        rest.map(|(_, signed)| signed.clone()).collect()
    }

    /// Take in what upstream sent; false if it is forged: then it goes no further.
    fn take(&mut self, relay: &Relay, signed: &Signed) -> bool {
        let before = self.latest();
        let good = self.add(relay, signed);
        if self.latest() != before {
            let chain: Vec<&Signed> = self.chain.iter().map(|(_, signed)| signed).collect();
            if let Err(e) = relay.state.save_signed(&self.file, &chain) {
                tracing::warn!(site = %self.site, error = %base::Chain(&e), "cache cannot be written");
            }
        }
        good
    }

    /// Keep it if it goes on where the chain ends, or begins a newer one; false if it is forged.
    fn add(&mut self, relay: &Relay, signed: &Signed) -> bool {
        let update: Update = match plan::open(&relay.verifier, &self.site, signed, runtime::wall())
        {
            Ok(update) => update,
            Err(e) => {
                relay.refusals.update(&self.site, &e);
                return false;
            }
        };
        if Some(update.revision) <= self.latest() {
            return true;
        }
        if update.base.is_none() {
            self.chain.clear();
        } else if update.base != self.latest() {
            return true;
        }
        self.chain.push((update.revision, signed.clone()));
        true
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
