//! What others hold of a speaker.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bgp::{Key, LocalRoute, PeerConfig, PeerId, SiteTable, peer::Close};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc, oneshot},
};

use crate::{Snapshot, actor::Command, session};

/// A way to talk to a speaker from anywhere. Each call waits while the speaker's queue is full.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    /// A session has room for more octets, or is gone.
    pub(crate) room: Arc<Notify>,
    pub(crate) sessions: Arc<AtomicU64>,
}

/// The speaker's loop has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the BGP speaker is gone")]
pub struct SpeakerGone;

impl Handle {
    /// The loop of one neighbour over one connected stream; returns when the session is over.
    /// A neighbour that comes again replaces its older session. Spawn it.
    pub fn session<S>(&self, peer: PeerConfig, stream: S) -> impl Future<Output = Close> + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        session::run(self.clone(), number, peer, stream)
    }

    /// Say something ourselves, or say it anew.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn originate(&self, route: LocalRoute) -> Result<(), SpeakerGone> {
        self.send(Command::Originate(route)).await
    }

    /// Take back what we said: it exists no more.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn withdraw(&self, key: Key) -> Result<(), SpeakerGone> {
        self.send(Command::Withdraw(key)).await
    }

    /// The site table arrived or changed.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn set_site_table(&self, table: SiteTable) -> Result<(), SpeakerGone> {
        self.send(Command::SiteTable(table)).await
    }

    /// End the neighbour's session (Cease, administrative reset); its routes become stale.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn reset(&self, peer: PeerId) -> Result<(), SpeakerGone> {
        self.send(Command::Reset(peer)).await
    }

    /// End the neighbour's session for good and forget its routes.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn remove(&self, peer: PeerId) -> Result<(), SpeakerGone> {
        self.send(Command::Remove(peer)).await
    }

    /// Neighbours, and at most `limit` routes.
    ///
    /// # Errors
    /// The speaker is gone.
    pub async fn snapshot(&self, limit: usize) -> Result<Snapshot, SpeakerGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot { limit, reply }).await?;
        answer.await.map_err(|_| SpeakerGone)
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), SpeakerGone> {
        self.commands.send(command).await.map_err(|_| SpeakerGone)
    }
}
