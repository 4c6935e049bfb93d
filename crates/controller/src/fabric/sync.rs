//! One site-sync stream: intent down, status up.
//!
//! The stream is level-triggered: at each change of the board it sends what its node lacks, and
//! it holds no queue of its own.

use std::{io, sync::Arc, time::Duration};

use api::sync::{Down, Hello, Up, decode, encode_chain};
use base::{Name, Revision, SiteName};
use pki::Identity;
use runtime::{Drain, h2io::H2Stream};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    Fabric, Peer, exists,
    lines::{self, Lines},
};
use crate::{
    ledger::SKEW,
    limit::{Bucket, Rate},
};

/// The longest line a node may send: a status with every endpoint it knows.
const MAX_UP_BYTES: usize = 8 << 20;
/// The most endpoints, links and failures kept of one status.
const MAX_ITEMS: usize = 20_000;
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The clock is sent again and again, so that both ends see a dead stream.
const CLOCK_EVERY: Duration = Duration::from_secs(30);
const RENEWALS: Rate = Rate {
    burst: 5,
    every: Duration::from_secs(10),
};

/// Serves the stream until either end is done with it.
pub(super) async fn serve(fabric: Arc<Fabric>, stream: H2Stream, peer: Arc<Peer>, drain: Drain) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut up = Lines::new(reader, MAX_UP_BYTES);
    let name = peer.name();
    let hello = match tokio::time::timeout(HELLO_TIMEOUT, up.next()).await {
        Ok(Ok(Some(Up::Hello(hello)))) => hello,
        Ok(Ok(_)) => return fabric.meters.refuse("sync-hello", &name, &"no hello"),
        Ok(Err(error)) => return fabric.meters.refuse("sync-hello", &name, &error),
        Err(late) => return fabric.meters.refuse("sync-hello", &name, &late),
    };
    if let Err(reason) = authorise(&fabric, &peer, &hello) {
        fabric.meters.refuse("sync-refused", &name, &reason);
        return refuse(&mut writer, reason).await;
    }
    let skew = hello.time.distance(runtime::wall());
    if skew > SKEW {
        let (site, node) = (hello.site.to_string(), hello.node.to_string());
        tracing::warn!(
            site,
            node,
            skew_s = skew.as_secs(),
            "the clock of a node is off"
        );
    }
    let Hello {
        site, node, have, ..
    } = hello;
    fabric.reports.connected(&site, &node, skew);
    fabric.meters.streams.inc();
    tracing::info!(%site, %node, via = %name, have = have.map(|r| r.0), "site-sync open");
    let session = Session {
        fabric,
        peer,
        site,
        node,
        have,
        renewals: Bucket::FULL,
    };
    session.run(up, writer, drain).await;
}

/// A PoP speaks for any gateway, and otherwise everybody for itself alone (a PoP's bundle holds
/// keys); the node must exist.
fn authorise(fabric: &Fabric, peer: &Peer, hello: &Hello) -> Result<(), String> {
    let own = peer.site == hello.site && peer.node == hello.node;
    if !own && (!peer.site.is_pop() || hello.site.is_pop()) {
        return Err(format!(
            "{} may not ask for the site {}",
            peer.name(),
            hello.site
        ));
    }
    if !exists(&fabric.ledger.state(), &hello.site, &hello.node) {
        return Err(format!(
            "there is no node {} of site {}",
            hello.node, hello.site
        ));
    }
    Ok(())
}

/// The last words on a stream; best effort, the peer may be gone.
async fn refuse(writer: &mut WriteHalf<H2Stream>, reason: String) {
    if lines::send(writer, &Down::Refused { reason }).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

struct Session {
    fabric: Arc<Fabric>,
    peer: Arc<Peer>,
    site: SiteName,
    node: Name,
    /// What the node has, once what is under way has arrived.
    have: Option<Revision>,
    renewals: Bucket,
}

/// Why a session ends.
enum End {
    /// The stream broke, or the peer closed it.
    Gone(io::Error),
    /// We end it, and say why.
    Refused(String),
    Drain,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Gone(error)
    }
}

impl Session {
    async fn run(
        mut self,
        mut up: Lines<ReadHalf<H2Stream>>,
        mut writer: WriteHalf<H2Stream>,
        drain: Drain,
    ) {
        let end = match self.exchange(&mut up, &mut writer, &drain).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        let Session {
            fabric,
            peer,
            site,
            node,
            ..
        } = self;
        match end {
            End::Gone(error) if error.kind() == io::ErrorKind::InvalidData => {
                fabric.meters.refuse("sync-message", &peer.name(), &error);
            }
            End::Gone(error) => tracing::info!(%site, %node, %error, "site-sync closed"),
            End::Refused(reason) => {
                fabric.meters.refuse("sync-refused", &peer.name(), &reason);
                refuse(&mut writer, reason).await;
            }
            // Dropping the stream resets it, and the node comes again.
            End::Drain => {}
        }
        fabric.reports.disconnected(&site, &node);
        fabric.meters.streams.dec();
    }

    async fn exchange(
        &mut self,
        up: &mut Lines<ReadHalf<H2Stream>>,
        writer: &mut WriteHalf<H2Stream>,
        drain: &Drain,
    ) -> Result<std::convert::Infallible, End> {
        let mut board = self.fabric.board.clone();
        let mut clock = tokio::time::interval(CLOCK_EVERY);
        clock.tick().await;
        lines::send(writer, &Down::Time(runtime::wall())).await?;
        board.mark_changed();
        loop {
            tokio::select! {
                message = up.next() => {
                    let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
                    let message = message?.ok_or_else(closed)?;
                    self.take(message, writer).await?;
                }
                changed = board.changed() => {
                    if changed.is_err() {
                        return Err(End::Drain);
                    }
                    let now = Arc::clone(&board.borrow_and_update());
                    self.check_alive()?;
                    // No chain yet: the planner will come to this site in its next turn.
                    let Some(chain) = now.chains.get(&self.site) else { continue };
                    let lines = chain.after(self.have, &self.fabric.author).map_err(End::Refused)?;
                    for line in lines {
                        lines::write(writer, &line).await?;
                    }
                    self.have = Some(chain.head());
                }
                _ = clock.tick() => lines::send(writer, &Down::Time(runtime::wall())).await?,
                () = drain.draining() => return Err(End::Drain),
            }
        }
    }

    /// A node, or the PoP that speaks for it, may be deleted at any time.
    fn check_alive(&self) -> Result<(), End> {
        let state = self.fabric.ledger.state();
        let alive = exists(&state, &self.site, &self.node)
            && exists(&state, &self.peer.site, &self.peer.node);
        let gone = || {
            End::Refused(format!(
                "{}.{} does not exist any more",
                self.node, self.site
            ))
        };
        if alive { Ok(()) } else { Err(gone()) }
    }

    async fn take(&mut self, message: Up, writer: &mut WriteHalf<H2Stream>) -> Result<(), End> {
        let reports = &self.fabric.reports;
        match message {
            Up::Hello(_)
            | Up::Stored(_)
            | Up::Trouble(_)
            | Up::Vips(_)
            | Up::Links(_)
            | Up::Running(_) => {
                let error = "a message that has no place on this stream";
                return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
            }
            Up::Ack(revision) => reports.applied(&self.site, &self.node, revision),
            Up::Reject { revision, reason } => {
                let reason: String = reason.chars().take(1000).collect();
                let site = self.site.to_string();
                self.fabric.meters.refuse("update-rejected", &site, &reason);
                reports.refused(&self.site, &self.node, revision, reason);
            }
            Up::Status(mut status) => {
                status
                    .endpoints
                    .retain(|view| self.may_speak_of(&view.service));
                status.endpoints.truncate(MAX_ITEMS);
                status.links.truncate(MAX_ITEMS);
                status.listener_failures.truncate(100);
                reports.status(&self.site, &self.node, *status);
            }
            Up::Renew { csr } => {
                let chain = self.renew(&csr).map_err(End::Refused)?;
                lines::send(writer, &Down::Certificate { chain }).await?;
            }
        }
        Ok(())
    }

    /// A gateway's word counts for its own tenant's services.
    fn may_speak_of(&self, service: &str) -> bool {
        self.site.is_pop()
            || service
                .rsplit_once('.')
                .is_some_and(|(_, tenant)| tenant == self.site.tenant.as_str())
    }

    fn renew(&mut self, csr: &str) -> Result<Vec<String>, String> {
        self.check_alive()
            .map_err(|_| "the node does not exist any more".to_owned())?;
        if !self.renewals.take(RENEWALS, runtime::now()) {
            return Err("too many renewals on one stream".to_owned());
        }
        let csr = decode(csr).ok_or("the certificate request is not base64")?;
        // Whoever relays for a node cannot get a certificate in its name: the key must be its own.
        let key_hash = pki::csr_key_sha256(&csr).map_err(|e| base::Chain(&e).to_string())?;
        let node = crate::ledger::node_name(&self.site, &self.node);
        if self.fabric.ledger.state().node_keys.get(&node) != Some(&key_hash) {
            return Err("the request is not for the key this node joined with".to_owned());
        }
        let authority = &self.fabric.authority;
        let identity = Identity::node(
            authority.planet().clone(),
            self.site.clone(),
            self.node.clone(),
        );
        let chain = authority
            .issue(&csr, &identity, runtime::wall(), self.fabric.lifetime)
            .map_err(|e| base::Chain(&e).to_string())?;
        self.fabric.meters.renewals.inc();
        tracing::info!(site = %self.site, node = %self.node, "certificate renewed");
        Ok(encode_chain(&chain))
    }
}
