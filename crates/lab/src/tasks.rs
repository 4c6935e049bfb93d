//! The tasks of this room and their queues.
//!
//! ```text
//! relay process                                   demo process
//!   Relay::run ─┬─ pair × N ── connection × 1024    Demo::run ── connection × 1024
//!               └─ control ─── client × 16
//! wan process                                     publish process
//!   Wan::run ─┬─ port × N (reads) ──▶ heap of       Doors::run ── door × N ── connection × 1024
//!             ├─ control ── client × 16  frames       threads "inside", one a namespace: sockets
//!             └─ itself (writes) ◀─────┘
//! load process
//!   Load::run ─┬─ request × 8192
//!              ├─ connection × 16384 (idle ones: 64 a target)
//!              └─ control ── client × 16
//! ```
//!
//! Every task is owned by a [`Crew`] inside its parent, so dropping the root future ends them
//! all. Queues and what happens when full: a connection's two lanes hold at most
//! [`QUEUE_BOUND`](crate::relay::QUEUE_BOUND) bytes each, then reading stops and the sender's
//! window closes; a pair's 1,025th connection is reset; a 17th control client waits in the
//! kernel's backlog, as does the demo application's 1,025th connection, or a door's. Frames on their
//! way hold 256 MiB together at most, and what comes then is dropped, as is what waits longer than
//! its line's queue; sockets asked for and not made are 64 a namespace, and who asks then waits. A
//! load's request that is due while 8,192 wait for their answers counts as failed and is not sent.

use std::{future::Future, sync::Arc};

use runtime::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A bounded set of named tasks that end with their owner.
#[derive(Debug)]
pub(crate) struct Crew {
    tasks: Tasks,
    places: Arc<Semaphore>,
    /// Its tasks end when it is dropped.
    owner: watch::Sender<()>,
}

/// The right to start one task.
pub(crate) struct Place(OwnedSemaphorePermit);

impl Crew {
    /// An empty crew of at most `limit` tasks.
    pub(crate) fn new(name: &'static str, limit: usize) -> Self {
        Crew {
            tasks: Tasks::new(name),
            places: Arc::new(Semaphore::new(limit)),
            owner: watch::Sender::new(()),
        }
    }

    /// Waits for a place. Cancel safe.
    pub(crate) async fn place(&self) -> Place {
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = Arc::clone(&self.places).acquire_owned().await {
                return Place(permit);
            }
        }
    }

    /// A place, if there is one now.
    pub(crate) fn try_place(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(Place)
    }

    /// Starts a task in its place.
    pub(crate) fn start(
        &self,
        name: &'static str,
        place: Place,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut owner = self.owner.subscribe();
        self.tasks.spawn(name, async move {
            let _place = place.0;
            tokio::select! {
                _ = owner.changed() => {}
                () = task => {}
            }
        });
    }
}
