//! The control socket: one JSON line a command, one JSON line a reply.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{
    Mode, RelayError,
    config::DELAY_LIMIT,
    pair::{Shared, State},
};
use crate::tasks::Crew;

/// The longest command line, newline included.
const LINE_LIMIT: u64 = 4096;

/// The longest reply that [`command`] reads.
const REPLY_LIMIT: u64 = 1 << 20;

/// The most clients at a time; more wait in the kernel's backlog.
const CLIENT_LIMIT: usize = 16;

/// How long [`command`] waits for each step.
const PATIENCE: Duration = Duration::from_secs(5);

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
    match serde_json::from_str(&answer).map_err(RelayError::Answer)? {
        Reply::Error(why) => Err(RelayError::Refused(why)),
        reply @ (Reply::Ok {} | Reply::Pairs(_)) => Ok(reply),
    }
}

fn ask(socket: &Path, command: &Command) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&line(command))?;
    let mut answer = String::new();
    BufReader::new(io::Read::take(stream, REPLY_LIMIT)).read_line(&mut answer)?;
    Ok(answer)
}

/// Our own types always have a JSON form; an empty line would be answered as an error.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

type Pairs = BTreeMap<String, Arc<Shared>>;

/// The control socket, bound; its file is removed on drop.
#[derive(Debug)]
pub(super) struct Listening {
    listener: UnixListener,
    path: PathBuf,
    pairs: Arc<Pairs>,
}

impl Listening {
    pub(super) fn bind(path: PathBuf, pairs: Arc<Pairs>) -> Result<Self, RelayError> {
        match runtime::net::unix_listener(&path) {
            Ok(listener) => Ok(Listening {
                listener,
                path,
                pairs,
            }),
            Err(source) => Err(RelayError::Control {
                path: path.display().to_string(),
                source,
            }),
        }
    }

    /// Serves until dropped.
    pub(super) async fn run(self) {
        let crew = Crew::new("control", CLIENT_LIMIT);
        loop {
            let place = crew.place().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let pairs = Arc::clone(&self.pairs);
                    crew.start("client", place, async move {
                        if let Err(error) = converse(stream, &pairs).await {
                            tracing::debug!(%error, "a control client of the relay went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the relay's control could not accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Already gone is as good.
        fs::remove_file(&self.path).ok();
    }
}

async fn converse(mut stream: UnixStream, pairs: &Pairs) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = tokio::io::BufReader::new(read);
    loop {
        let mut text = Vec::new();
        let n = (&mut read)
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut text)
            .await?;
        if n == 0 {
            return Ok(());
        }
        let whole = text.ends_with(b"\n");
        let reply = if whole {
            obey(&text, pairs)
        } else {
            Reply::Error(format!(
                "a command is one line of at most {LINE_LIMIT} bytes"
            ))
        };
        write.write_all(&line(&reply)).await?;
        if !whole {
            return Ok(());
        }
    }
}

/// Does what one line says.
fn obey(text: &[u8], pairs: &Pairs) -> Reply {
    let command = match serde_json::from_slice(text) {
        Ok(command) => command,
        Err(error) => return Reply::Error(format!("not a command: {error}")),
    };
    match command {
        Command::Set { pair, rtt_ms } => {
            // Not a number and negative numbers are refused here too.
            match Duration::try_from_secs_f64(rtt_ms / 2_000.0) {
                Ok(one_way) if one_way <= DELAY_LIMIT => {
                    change(pairs, &pair, |state| state.one_way = one_way)
                }
                Ok(_) | Err(_) => Reply::Error("rtt_ms is a number from 0 to 20000".to_owned()),
            }
        }
        Command::Cut { pair } => change(pairs, &pair, |state| state.mode = Mode::Cut),
        Command::Stall { pair } => change(pairs, &pair, |state| state.mode = Mode::Stall),
        Command::Heal { pair } => change(pairs, &pair, |state| state.mode = Mode::Open),
        Command::List {} => Reply::Pairs(pairs.values().map(|pair| status(pair)).collect()),
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
