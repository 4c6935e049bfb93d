//! The demo application: an HTTP/1.1 server that says who it is.
//!
//! | request | answer |
//! |---|---|
//! | any path | [`Identity`], the request's method, path and headers as JSON |
//! | `/healthz` | 200 `ok`; 503 `sick` when told so; never delayed |
//! | `POST /control` | `{"sick":bool,"failing":bool,"delay_ms":N}`, each may be absent; 204 |
//! | anything but `/healthz` | 503 when told to be failing |
//! | `GET /download?bytes=N&rate=R` | N bytes with a Content-Length, at R bytes a second |
//! | `POST /echo` | `{"length":N,"sum":S}` of the body, S its FNV-1a (64 bits) |
//!
//! Bodies stream both ways in constant memory; connections (1,024), heads (64 KiB) and times
//! are limited.

mod body;
mod handler;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::tasks::Crew;

/// The most connections; more wait in the kernel's backlog.
const CONNECTION_LIMIT: usize = 1024;

/// The longest request head, and hyper's read buffer.
const HEAD_LIMIT: usize = 64 << 10;

/// How long a client may take for a request's head, idle time between requests included.
const HEAD_PATIENCE: Duration = Duration::from_secs(300);

/// Who a demo endpoint is: it answers with these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The tenant.
    pub tenant: String,
    /// The site.
    pub site: String,
    /// The endpoint, such as `cart-1`.
    pub endpoint: String,
}

/// Why a demo application could not start.
#[derive(Debug, thiserror::Error)]
#[error("the demo application could not listen on {address}")]
pub struct DemoError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A demo application whose address is bound and that answers nothing until [`Demo::run`].
#[derive(Debug)]
pub struct Demo {
    listener: TcpListener,
    state: Arc<handler::State>,
}

impl Demo {
    /// Binds the address; port 0 takes any. Call it inside a runtime.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(identity: Identity, address: SocketAddr) -> Result<Self, DemoError> {
        let bound = runtime::net::tcp_listener(address, runtime::net::Share::Exclusive)
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((address, listener)) => Ok(Demo {
                listener,
                state: Arc::new(handler::State::new(identity, address)),
            }),
            Err(source) => Err(DemoError { address, source }),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.state.address()
    }

    /// Answers until dropped; then every connection is closed.
    pub async fn run(self) {
        let Demo { listener, state } = self;
        let crew = Crew::new("demo", CONNECTION_LIMIT);
        loop {
            let place = crew.place().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    crew.start("connection", place, serve(stream, Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the demo application could not accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<handler::State>) {
    if stream.set_nodelay(true).is_err() {
        return; // the client has gone already
    }
    let service = service_fn(move |request| handler::answer(Arc::clone(&state), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .half_close(true)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the demo application failed");
    }
}
