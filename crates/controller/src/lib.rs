//! The management plane: the API, the store behind it, the fabric's certificate authority, and the
//! signed bundles that each site gets.
//!
//! What it is not: nothing that traffic needs. Nodes keep their last bundle and their certificates
//! and go on for two months without it. It does not know a node's inside either: the two meet in
//! `api` and on the wire.
//!
//! # Main types
//! - [`Config`] in, [`Ready`] out, [`run`] in between.
//! - `Ledger`: the one writer. It holds the world in memory, decides about a change with
//!   `plan::check_put`, commits it in one transaction, publishes the new state.
//! - `Planner`: projects the world for each site and signs what changed: a chain of updates.
//! - `Fabric`: site-sync streams and joins, over mutual TLS. `Rest`: the API.
//! - `Reports`: what nodes said last.
//!
//! # The way of a change
//! `PUT` → bearer token → shape (`api`) → the ledger's task: revision, meaning (`plan`), ids,
//! transaction → answer to the user, and at the same time: new state → planner: projection,
//! difference, signature → every stream of that site sends the line → the node acknowledges →
//! shown as the object's status. See `tasks.rs` for the queues.
//!
//! ```no_run
//! # async fn example() -> Result<(), controller::RunError> {
//! let tasks = runtime::Tasks::new("example");
//! let config = controller::Config::new("state".into(), "earth.example");
//! controller::run(config, tasks.token(), |ready| tracing::info!(url = ready.url, "up")).await
//! # }
//! ```

mod config;
mod fabric;
mod home;
mod ledger;
mod limit;
mod metrics;
mod planner;
mod redact;
mod reports;
mod rest;
mod tasks;

use std::{io, net::SocketAddr};

pub use config::{Config, Ready};
pub use home::HomeError;
pub use ledger::LoadError;
pub use tasks::run;

/// Why a controller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The planet's name is not one.
    #[error("the planet has no usable name")]
    Planet(#[source] pki::PlanetError),
    /// The state folder cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] store::OpenError),
    /// What is in the store cannot be read.
    #[error("the store cannot be read")]
    Load(#[from] LoadError),
    /// An address is not free, or not ours.
    #[error("the {what} listener cannot have {address}")]
    Listen {
        /// `API` or `fabric`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The controller's own key is not usable.
    #[error("the controller's key is not usable")]
    Key(#[source] pki::KeyError),
    /// The controller's own certificates cannot be issued.
    #[error("the controller's own certificate cannot be issued")]
    Issue(#[source] pki::IssueError),
    /// The signing key is not usable.
    #[error("the controller's signing key is not usable")]
    Signer(#[source] pki::VerifyError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] runtime::tls::TlsError),
    /// The system gave no thread.
    #[error("the planner's thread cannot be started")]
    Thread(#[source] io::Error),
    /// The announcement could not be written as JSON.
    #[error("the announcement cannot be written")]
    Announce(#[source] serde_json::Error),
    /// The process was told to stop while it started.
    #[error("interrupted while starting")]
    Interrupted,
}
