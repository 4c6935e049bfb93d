//! What a load can be told and asked while it runs.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};

use super::{
    LoadError,
    book::{Book, Figures, lock},
};
use crate::control::{Obeys, ask};

/// What it can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Begin a new stretch.
    Mark {},
    /// Say what became of the requests of some stretches.
    Figures {
        /// The first; the load's own beginning is the stretch 0.
        since: usize,
        /// The first that is not meant any more; up to now without.
        until: Option<usize>,
    },
    /// Begin no more requests.
    Stop {},
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Done.
    Ok {},
    /// The number of the stretch that has begun.
    Marked(usize),
    /// What became of them.
    Figures(Box<Figures>),
    /// Nothing was done, and why.
    Error(String),
}

/// Sends one command and waits for its reply, at most 5 s a step. It blocks the thread.
///
/// # Errors
/// The socket is not there or does not answer.
pub fn command(socket: &Path, command: &Command) -> Result<Reply, LoadError> {
    ask(socket, command).map_err(|error| LoadError::Control(socket.display().to_string(), error))
}

/// Who does what is said.
#[derive(Debug)]
pub(super) struct Obedient(pub(super) Arc<Mutex<Book>>);

impl Obeys for Obedient {
    type Command = Command;
    type Reply = Reply;

    fn obey(&self, command: Command) -> Reply {
        let now = runtime::now();
        let mut book = lock(&self.0);
        match command {
            Command::Mark {} => match book.mark(now) {
                Some(stretch) => Reply::Marked(stretch),
                None => Reply::Error("there are too many stretches already".to_owned()),
            },
            Command::Figures { since, until } => {
                Reply::Figures(Box::new(book.figures(now, since, until)))
            }
            Command::Stop {} => {
                book.stop();
                Reply::Ok {}
            }
        }
    }

    fn refuse(why: String) -> Reply {
        Reply::Error(why)
    }
}
