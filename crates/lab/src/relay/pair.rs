//! One pair: its listener, its state, its connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtime::net::{self, Share};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Pair, RelayError, connection};
use crate::tasks::Crew;

/// The most connections of one pair; the next is reset.
const CONNECTION_LIMIT: usize = 1024;

/// How long to wait after a failed accept (no descriptor left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a pair does with its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Carries.
    Open,
    /// Resets what there is and whatever comes.
    Cut,
    /// Silence: takes and gives nothing, closes nothing.
    Stall,
}

/// What a pair's connections follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) one_way: Duration,
    pub(super) mode: Mode,
}

/// What control and the connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) target: SocketAddr,
    pub(super) state: watch::Sender<State>,
    pub(super) connections: AtomicUsize,
}

/// A pair with its address bound.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) shared: Arc<Shared>,
    listener: TcpListener,
}

impl Listening {
    pub(super) fn bind(pair: Pair) -> Result<Self, RelayError> {
        let bound = net::tcp_listener(pair.listen, Share::Exclusive);
        let bound = bound.and_then(|l| l.local_addr().map(|address| (l, address)));
        let (listener, address) = match bound {
            Ok(bound) => bound,
            Err(source) => {
                let Pair {
                    name: pair, listen, ..
                } = pair;
                return Err(RelayError::Listen {
                    pair,
                    listen,
                    source,
                });
            }
        };
        let state = State {
            one_way: pair.one_way,
            mode: Mode::Open,
        };
        let shared = Arc::new(Shared {
            name: pair.name,
            listen: address,
            target: pair.target,
            state: watch::Sender::new(state),
            connections: AtomicUsize::new(0),
        });
        Ok(Listening { shared, listener })
    }

    /// Accepts and carries until dropped.
    pub(super) async fn run(self) {
        let Listening { shared, listener } = self;
        let mut state = shared.state.subscribe();
        let crew = Crew::new("pair", CONNECTION_LIMIT);
        loop {
            let mode = state.borrow_and_update().mode;
            tokio::select! {
                // The sender lives in `shared`: this cannot fail before we end.
                _ = state.changed() => {}
                accepted = listener.accept(), if mode != Mode::Stall => match accepted {
                    Ok((stream, _)) if mode == Mode::Cut => abort(stream),
                    Ok((stream, _)) => match crew.try_place() {
                        Some(place) => {
                            let counted = Counted::new(&shared);
                            let (target, state) = (shared.target, shared.state.subscribe());
                            crew.start("connection", place, async move {
                                let _counted = counted;
                                connection::carry(stream, target, state).await;
                            });
                        }
                        None => abort(stream),
                    },
                    Err(error) => {
                        tracing::warn!(pair = shared.name, %error, "a relay pair could not accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

/// Ends a connection with an RST.
pub(super) fn abort(stream: TcpStream) {
    // Only a socket that is gone refuses; then there is nothing left to reset.
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .ok();
    drop(stream);
}

/// Counts one connection for as long as it lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
