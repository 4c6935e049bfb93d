//! Blocking clients: each owns a small runtime of its own, which runs only while it is asked.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::Request;
use runtime::Tasks;

use crate::connection::{Connection, Reply, said};

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A runtime on the caller's thread.
#[derive(Debug)]
pub(crate) struct Blocking {
    /// `None` while it is dropped only.
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) tasks: Tasks,
}

impl Blocking {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs only an epoll");
        Blocking {
            runtime: Some(runtime),
            tasks: Tasks::new("kit"),
        }
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is not dropped")
    }

    /// Does `work` within the bound; from inside of another runtime on a thread of its own.
    pub(crate) fn wait<T: Send>(
        &self,
        work: impl Future<Output = Result<T, String>> + Send,
    ) -> Result<T, String> {
        let bounded = async {
            let late = || Err(format!("nothing within {} s", PATIENCE.as_secs()));
            tokio::time::timeout(PATIENCE, work)
                .await
                .unwrap_or_else(|_| late())
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return self.runtime().block_on(bounded);
        }
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| self.runtime().block_on(bounded));
            waiting.join().expect("waiting does not panic")
        })
    }
}

impl Blocking {
    /// Without a bound of its own.
    pub(crate) fn wait_long<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(work)
    }
}

impl Drop for Blocking {
    /// Waits for nothing: it may be dropped inside of another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An HTTP/1.1 client without TLS; keeps one connection to each address.
#[derive(Debug)]
pub struct Client {
    blocking: Blocking,
    connections: BTreeMap<SocketAddr, Connection>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client without connections.
    #[must_use]
    pub fn new() -> Self {
        Client {
            blocking: Blocking::new(),
            connections: BTreeMap::new(),
        }
    }

    /// `GET path` for `host`.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s.
    pub fn get(&mut self, address: SocketAddr, host: &str, path: &str) -> Result<Reply, String> {
        let request = Request::get(path).header("host", host);
        self.send(address, request.body(Bytes::new()).map_err(said)?)
    }

    /// Sends any request; it should have a `host`.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s. The connection is not used again.
    pub fn send(&mut self, address: SocketAddr, request: Request<Bytes>) -> Result<Reply, String> {
        let kept = self
            .connections
            .remove(&address)
            .filter(Connection::is_open);
        let tasks = &self.blocking.tasks;
        let (reply, connection) = self.blocking.wait(async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::plain(tasks, None, address).await?,
            };
            let reply = connection.send(request).await?;
            Ok((reply, connection))
        })?;
        self.connections.insert(address, connection);
        Ok(reply)
    }
}

/// An HTTP/2 connection over TLS.
#[derive(Debug)]
pub struct Http2 {
    blocking: Blocking,
    connection: Connection,
    host: String,
}

impl Http2 {
    /// Connects with `host` as server name and authority.
    ///
    /// # Errors
    /// A sentence.
    pub fn connect(address: SocketAddr, host: &str) -> Result<Self, String> {
        let blocking = Blocking::new();
        let connection = blocking.wait(Connection::http2(&blocking.tasks, address, host))?;
        Ok(Http2 {
            blocking,
            connection,
            host: host.to_owned(),
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s.
    pub fn get(&mut self, path: &str) -> Result<Reply, String> {
        let uri = format!("https://{}{path}", self.host);
        let request = Request::get(uri).body(Bytes::new()).map_err(said)?;
        self.send(request)
    }

    /// Sends any request; its URI should be whole.
    ///
    /// # Errors
    /// A sentence, when no whole answer came within 15 s.
    pub fn send(&mut self, request: Request<Bytes>) -> Result<Reply, String> {
        self.blocking.wait(self.connection.send(request))
    }
}
