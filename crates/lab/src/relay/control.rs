//! What the relay can be told while it runs.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    Mode, RelayError,
    config::DELAY_LIMIT,
    pair::{Shared, State},
};
use crate::control::{Obeys, ask};

/// What the relay can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Change a pair's round trip; live connections follow, in both directions.
    Set {
        /// The pair.
        pair: String,
        /// The new round trip in milliseconds, fractions allowed, 0 to 20,000.
        rtt_ms: f64,
    },
    /// Reset the pair's connections and whatever comes, until healed.
    Cut {
        /// The pair.
        pair: String,
    },
    /// Hold everything and close nothing, until healed.
    Stall {
        /// The pair.
        pair: String,
    },
    /// Carry again; held bytes whose time has come arrive at once.
    Heal {
        /// The pair.
        pair: String,
    },
    /// Say how every pair is.
    List {},
}

/// What the relay answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Done; it holds from now on.
    Ok {},
    /// Nothing was changed, and why.
    Error(String),
    /// The answer to [`Command::List`], by name.
    Pairs(Vec<PairStatus>),
}

/// How a pair is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairStatus {
    /// The pair.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub target: SocketAddr,
    /// The round trip in milliseconds.
    pub rtt_ms: f64,
    /// What it does with its connections.
    pub mode: Mode,
    /// Connections it carries.
    pub connections: usize,
}

/// Sends one command and waits for its reply, at most 5 s a step. It blocks the thread.
///
/// # Errors
/// The socket is not there or does not answer, or the relay refused.
pub fn command(socket: &Path, command: &Command) -> Result<Reply, RelayError> {
    let answer = ask(socket, command).map_err(|source| RelayError::Control {
        path: socket.display().to_string(),
        source,
    })?;
    match answer {
        Reply::Error(why) => Err(RelayError::Refused(why)),
        reply @ (Reply::Ok {} | Reply::Pairs(_)) => Ok(reply),
    }
}

pub(super) type Pairs = BTreeMap<String, Arc<Shared>>;

impl Obeys for Pairs {
    type Command = Command;
    type Reply = Reply;

    fn obey(&self, command: Command) -> Reply {
        match command {
            Command::Set { pair, rtt_ms } => {
                // Not a number and negative numbers are refused here too.
                match Duration::try_from_secs_f64(rtt_ms / 2_000.0) {
                    Ok(one_way) if one_way <= DELAY_LIMIT => {
                        change(self, &pair, |state| state.one_way = one_way)
                    }
                    Ok(_) | Err(_) => Reply::Error("rtt_ms is a number from 0 to 20000".to_owned()),
                }
            }
            Command::Cut { pair } => change(self, &pair, |state| state.mode = Mode::Cut),
            Command::Stall { pair } => change(self, &pair, |state| state.mode = Mode::Stall),
            Command::Heal { pair } => change(self, &pair, |state| state.mode = Mode::Open),
            Command::List {} => Reply::Pairs(self.values().map(|pair| status(pair)).collect()),
        }
    }

    fn refuse(why: String) -> Reply {
        Reply::Error(why)
    }
}

fn change(pairs: &Pairs, name: &str, how: impl FnOnce(&mut State)) -> Reply {
    let Some(pair) = pairs.get(name) else {
        let known: Vec<&str> = pairs.keys().map(String::as_str).collect();
        return Reply::Error(format!(
            "there is no pair {name:?}; there are {}",
            known.join(", ")
        ));
    };
    pair.state.send_modify(how);
    Reply::Ok {}
}

fn status(pair: &Shared) -> PairStatus {
    let State { one_way, mode } = *pair.state.borrow();
    PairStatus {
        name: pair.name.clone(),
        listen: pair.listen,
        target: pair.target,
        rtt_ms: one_way.as_secs_f64() * 2_000.0,
        mode,
        connections: pair.connections.load(Ordering::Relaxed),
    }
}
