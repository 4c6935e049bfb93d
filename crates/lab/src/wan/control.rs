//! What the Internet can be told while it runs.

use std::{io, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Counts, Shape, Shared};
use crate::control::{Obeys, ask};

/// What it can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Change a line; what is on its way stays as it was.
    Change {
        /// The line.
        line: String,
        /// What is other than before.
        change: Change,
    },
    /// Nothing arrives, until healed.
    Cut {
        /// The line.
        line: String,
    },
    /// Make a line what it was at the start.
    Heal {
        /// The line.
        line: String,
    },
    /// Have the router before a place forget its connections.
    FlushNat {
        /// The place.
        place: String,
    },
    /// Say how every line is.
    List {},
}

/// What is other than before on a line; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// [`Shape::delay_us`].
    pub delay_us: Option<u64>,
    /// [`Shape::jitter_us`].
    pub jitter_us: Option<u64>,
    /// [`Shape::loss_ppm`].
    pub loss_ppm: Option<u32>,
    /// [`Shape::rate_kbit`].
    pub rate_kbit: Option<u64>,
    /// [`Shape::mtu`].
    pub mtu: Option<usize>,
    /// [`Shape::no_udp`].
    #[serde(default)]
    pub no_udp: bool,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Done; it holds from now on.
    Ok {},
    /// Nothing was changed, and why.
    Error(String),
    /// The answer to [`Command::List`], by name.
    Lines(Vec<LineStatus>),
}

/// How a line is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// The line.
    pub name: String,
    /// What it does to packets.
    pub shape: Shape,
    /// What became of those from the first place of its name to the second.
    pub there: Counts,
    /// And back.
    pub back: Counts,
}

/// Sends one command and waits for its reply, at most 5 s a step. It blocks the thread.
///
/// # Errors
/// The socket is not there or does not answer.
pub fn command(socket: &Path, command: &Command) -> io::Result<Reply> {
    ask(socket, command)
}

/// Who does what is said.
#[derive(Debug)]
pub(super) struct Obedient(pub(super) Arc<Shared>);

impl Obeys for Obedient {
    type Command = Command;
    type Reply = Reply;

    fn obey(&self, command: Command) -> Reply {
        let mut state = self.0.lock();
        let done = match command {
            Command::Change { line, change } => state.reshape(&line, |shape, _| {
                shape.delay_us = change.delay_us.unwrap_or(shape.delay_us);
                shape.jitter_us = change.jitter_us.unwrap_or(shape.jitter_us);
                shape.loss_ppm = change.loss_ppm.unwrap_or(shape.loss_ppm);
                shape.rate_kbit = change.rate_kbit.or(shape.rate_kbit);
                shape.mtu = change.mtu.or(shape.mtu);
                shape.no_udp |= change.no_udp;
            }),
            Command::Cut { line } => state.reshape(&line, |shape, _| shape.cut = true),
            Command::Heal { line } => state.reshape(&line, |shape, whole| *shape = *whole),
            Command::FlushNat { place } => state.flush_nat(&place),
            Command::List {} => {
                let lines = state.names.iter().filter_map(|(name, at)| {
                    let line = state.lines.get(at)?;
                    Some(LineStatus {
                        name: name.clone(),
                        shape: line.shape,
                        there: line.there.counts,
                        back: line.back.counts,
                    })
                });
                return Reply::Lines(lines.collect());
            }
        };
        match done {
            Ok(()) => Reply::Ok {},
            Err(error) => Reply::Error(base::Chain(&error).to_string()),
        }
    }

    fn refuse(why: String) -> Reply {
        Reply::Error(why)
    }
}
