//! A control socket: one JSON line a command, one JSON line a reply.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use crate::tasks::Crew;

/// The longest command line, newline included.
const LINE_LIMIT: u64 = 4096;
/// The longest reply that [`ask`] reads.
const REPLY_LIMIT: u64 = 1 << 20;
/// The most clients at a time; more wait in the kernel's backlog.
const CLIENT_LIMIT: usize = 16;
/// How long [`ask`] waits for each step.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can be told something over a socket.
pub(crate) trait Obeys: Send + Sync + 'static {
    type Command: DeserializeOwned;
    type Reply: Serialize + Send;

    fn obey(&self, command: Self::Command) -> Self::Reply;
    /// The reply to what is no command.
    fn refuse(why: String) -> Self::Reply;
}

/// Sends one command and waits for its reply, at most 5 s a step. It blocks the thread.
pub(crate) fn ask<R: DeserializeOwned>(socket: &Path, command: &impl Serialize) -> io::Result<R> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&line(command))?;
    let mut answer = String::new();
    BufReader::new(io::Read::take(stream, REPLY_LIMIT)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Our own types always have a JSON form; an empty line would be answered as an error.
fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The control socket, bound (mode 0600); its file is removed on drop.
#[derive(Debug)]
pub(crate) struct Listening<T> {
    listener: UnixListener,
    path: PathBuf,
    obeys: Arc<T>,
}

impl<T: Obeys> Listening<T> {
    pub(crate) fn bind(path: PathBuf, obeys: T) -> io::Result<Self> {
        Ok(Listening {
            listener: runtime::net::unix_listener(&path)?,
            path,
            obeys: Arc::new(obeys),
        })
    }

    /// Serves until dropped.
    pub(crate) async fn run(self) {
        let crew = Crew::new("control", CLIENT_LIMIT);
        loop {
            let place = crew.place().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let obeys = Arc::clone(&self.obeys);
                    crew.start("client", place, async move {
                        if let Err(error) = converse(stream, &*obeys).await {
                            tracing::debug!(%error, "a control client went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket could not accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

impl<T> Drop for Listening<T> {
    fn drop(&mut self) {
        // Already gone is as good.
        fs::remove_file(&self.path).ok();
    }
}

async fn converse<T: Obeys>(mut stream: UnixStream, obeys: &T) -> io::Result<()> {
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
            match serde_json::from_slice(&text) {
                Ok(command) => obeys.obey(command),
                Err(error) => T::refuse(format!("not a command: {error}")),
            }
        } else {
            T::refuse(format!(
                "a command is one line of at most {LINE_LIMIT} bytes"
            ))
        };
        write.write_all(&line(&reply)).await?;
        if !whole {
            return Ok(());
        }
    }
}
