//! Users: requests at a steady rate, and what became of them.
//!
//! Open loop: each request begins when it is due, whatever became of those before, so a slow answer
//! delays no other. It is a process of its own, inside the network where its users are, and is told
//! and asked over a control socket ([`command`]). What it remembers is cut into stretches: whoever
//! does something to the planet says [`Command::Mark`] before and asks for what began since.
//!
//! A request is a GET over HTTP/1.1; it is asked once and never again, on a connection that may have
//! been used before. It has failed if its status is another than wanted, if its answer does not end,
//! or if that takes too long.

mod ask;
mod book;
mod control;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use ask::{Answer, ask};
pub use book::Figures;
pub use control::{Command, Reply, command};

use self::{
    ask::Pool,
    book::{Book, lock},
    control::Obedient,
};
use crate::{control::Listening, tasks::Crew};

/// The highest rate, in requests a second.
pub const MAX_RATE: u32 = 5_000;
/// Requests that wait for their answers; what is due then has failed without being sent.
const IN_FLIGHT: usize = 8_192;
/// Connections, idle ones too.
const CONNECTIONS: usize = 2 * IN_FLIGHT;

/// What it is told at its start: a struct, or a JSON file of the same shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Path of the Unix control socket.
    pub control: PathBuf,
    /// Who is asked for what, in turn.
    pub targets: Vec<Target>,
    /// Requests a second, of all targets together: 1 to [`MAX_RATE`].
    pub rate: u32,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// The status that an answer has to have.
    pub status: u16,
}

/// Who is asked for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// The `Host`.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The configuration file could not be read, or has another shape.
    #[error("could not read the configuration {0}")]
    Read(String, #[source] io::Error),
    /// It makes no sense.
    #[error("a load needs targets and a rate of 1 to {MAX_RATE} requests a second")]
    Empty,
    /// The control socket could not be made or used.
    #[error("the control socket {0}")]
    Control(String, #[source] io::Error),
}

impl Config {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// The file cannot be read, or has another shape.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let read = std::fs::read(path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.map_err(|error| LoadError::Read(path.display().to_string(), error))
    }
}

/// A load that asks nothing until [`Load::run`].
#[derive(Debug)]
pub struct Load {
    pools: Vec<Arc<Pool>>,
    every: Duration,
    timeout: Duration,
    control: Listening<Obedient>,
    book: Arc<Mutex<Book>>,
}

impl Load {
    /// Binds the control socket. Call it inside a runtime.
    ///
    /// # Errors
    /// The configuration makes no sense, or the socket cannot be bound.
    pub fn bind(config: Config) -> Result<Self, LoadError> {
        let Config {
            control: path,
            targets,
            rate,
            timeout_ms,
            status,
        } = config;
        if targets.is_empty() || !(1..=MAX_RATE).contains(&rate) {
            return Err(LoadError::Empty);
        }
        let book = Arc::new(Mutex::new(Book::open(runtime::now())));
        let name = path.display().to_string();
        let control = Listening::bind(path, Obedient(Arc::clone(&book)))
            .map_err(|error| LoadError::Control(name, error))?;
        let crew = Arc::new(Crew::new("load-connections", CONNECTIONS));
        let pool = |target| Arc::new(Pool::new(target, status, Arc::clone(&crew)));
        Ok(Load {
            pools: targets.into_iter().map(pool).collect(),
            every: Duration::from_secs(1) / rate,
            timeout: Duration::from_millis(timeout_ms),
            control,
            book,
        })
    }

    /// Asks until told to stop, and answers at the control socket until dropped.
    pub async fn run(self) {
        let Load {
            pools,
            every,
            timeout,
            control,
            book,
        } = self;
        let crew = Crew::new("load", IN_FLIGHT);
        let asking = async {
            let mut tick = tokio::time::interval(every);
            for pool in pools.iter().cycle() {
                let late = tick.tick().await.elapsed();
                let now = runtime::now();
                let Some(id) = lock(&book).begin(now, late) else {
                    break;
                };
                let (pool, book) = (Arc::clone(pool), Arc::clone(&book));
                let Some(place) = crew.try_place() else {
                    let why = format!("not sent: {IN_FLIGHT} requests wait for their answers");
                    lock(&book).end(now, id, Err(why));
                    continue;
                };
                crew.start("request", place, async move {
                    let asked = tokio::time::timeout(timeout, pool.ask()).await;
                    let slow = || Err(format!("nothing within {} ms", timeout.as_millis()));
                    let outcome = asked.unwrap_or_else(|_| slow());
                    lock(&book).end(runtime::now(), id, outcome);
                });
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = asking => {}
            () = control.run() => {}
        }
    }
}
