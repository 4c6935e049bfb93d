//! The distance between two sites: a TCP relay with a delay, a switch and a control socket.
//!
//! One process carries any number of *pairs*, each a listening address, a target and a one-way
//! delay. On every connection, bytes, FIN and RST are delivered one delay later in both
//! directions, in order. The set-up takes its time too: the target is dialled one delay after
//! the accept, and the dialler's first byte is taken one round trip after it, as a SYN and its
//! answer would have needed (the dialler's own `connect` returns early: its kernel shakes hands
//! with ours).

mod config;
mod connection;
mod control;
mod lane;
mod pair;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc};

pub use config::{Config, Pair};
pub use control::{Command, PairStatus, Reply, command};
pub use lane::QUEUE_BOUND;
pub use pair::Mode;

use crate::{control::Listening, tasks::Crew};

/// Why a relay could not start or a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The configuration file could not be read.
    #[error("could not read the relay's configuration {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The configuration file is not what it should be.
    #[error("the relay's configuration {path} is not valid")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// Two pairs share a name.
    #[error("two relay pairs are called {0:?}; give each its own name")]
    Duplicate(String),
    /// A delay is over the limit.
    #[error("pair {0:?}: a one-way delay may be 10 s at most")]
    Delay(String),
    /// A pair's address could not be listened on.
    #[error("pair {pair:?} could not listen on {listen}")]
    Listen {
        /// The pair.
        pair: String,
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The control socket could not be made or used.
    #[error("the relay's control socket {path} could not be used")]
    Control {
        /// The socket.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The relay refused a command.
    #[error("the relay refused the command: {0}")]
    Refused(String),
}

/// A relay whose sockets are bound and that carries nothing until [`Relay::run`].
#[derive(Debug)]
pub struct Relay {
    pairs: Vec<pair::Listening>,
    control: Option<Listening<control::Pairs>>,
}

impl Relay {
    /// Binds every pair's address and the control socket (mode 0600).
    ///
    /// # Errors
    /// Names twice, delays over 10 s, and addresses that cannot be bound. Nothing stays bound
    /// after an error.
    pub fn bind(config: Config) -> Result<Self, RelayError> {
        config.check()?;
        let pairs = config
            .pairs
            .into_iter()
            .map(pair::Listening::bind)
            .collect::<Result<Vec<_>, _>>()?;
        let handles: control::Pairs = pairs
            .iter()
            .map(|pair| (pair.shared.name.clone(), Arc::clone(&pair.shared)))
            .collect();
        let control = match config.control {
            None => None,
            Some(path) => {
                let name = path.display().to_string();
                let bound = Listening::bind(path, handles);
                Some(bound.map_err(|source| RelayError::Control { path: name, source })?)
            }
        };
        Ok(Relay { pairs, control })
    }

    /// The bound address of every pair, in the order of the configuration.
    pub fn listening(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.pairs
            .iter()
            .map(|pair| (pair.shared.name.as_str(), pair.shared.listen))
    }

    /// Carries bytes until dropped; then every connection is closed.
    pub async fn run(self) {
        let crew = Crew::new("relay", self.pairs.len() + 1);
        for pair in self.pairs {
            crew.start("pair", crew.place().await, pair.run());
        }
        if let Some(control) = self.control {
            crew.start("control", crew.place().await, control.run());
        }
        std::future::pending().await
    }
}
