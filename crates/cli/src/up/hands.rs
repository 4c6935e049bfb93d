//! What a script or the live view has done to the processes of a running planet.
//!
//! ```text
//! script, live view ── asked (16) ──▶ Planet::watch, the one owner of the processes
//! ```
//! Who asks waits for the answer; if 16 ask already, it waits to ask.

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};

use super::process::Spec;
use crate::error::Failure;

/// Questions that wait.
const ASKED: usize = 16;

/// What is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// Start something new.
    Start(Box<Spec>),
    /// Start a process that ended again.
    Again(String),
    /// Send a process a signal; the answer to one that ends it comes when it has ended.
    Signal(String, Signal),
}

/// A question, and where its answer goes: the number of the process.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) order: Order,
    pub(super) answer: oneshot::Sender<Result<u32, Failure>>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Hands(mpsc::Sender<Asked>);

impl Hands {
    /// Hands, and what they do.
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (asks, asked) = mpsc::channel(ASKED);
        (Hands(asks), asked)
    }

    /// Has something done; returns the process's number.
    pub(super) async fn ask(&self, order: Order) -> Result<u32, Failure> {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::refused("the planet ends");
        let sent = self.0.send(Asked { order, answer }).await;
        sent.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
