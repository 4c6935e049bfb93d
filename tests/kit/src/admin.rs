//! A node's admin socket.

use std::path::Path;

use bytes::Bytes;
use http::{Method, Request};
use tokio::net::UnixStream;

use crate::{
    client::Blocking,
    connection::{Connection, Reply, said},
};

/// One request to `STATE/admin.sock`, such as `GET /neighbors`.
///
/// # Errors
/// A sentence, when no whole answer came within 15 s.
pub fn ask(socket: &Path, method: Method, path: &str) -> Result<Reply, String> {
    let blocking = Blocking::new();
    blocking.wait(async {
        let stream = UnixStream::connect(socket).await.map_err(said)?;
        let mut connection = Connection::http1(&blocking.tasks, stream).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "node");
        connection
            .send(request.body(Bytes::new()).map_err(said)?)
            .await
    })
}
