//! The access log: JSON lines through a bounded queue to a thread of its own.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use bytes::Bytes;
use l7::AccessRecord;
use tokio::sync::mpsc;

/// Records waiting to be written; more are dropped and counted.
const QUEUE: usize = 8192;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Appended to this file.
    File(PathBuf),
    /// Standard error.
    Stderr,
}

/// The workers' end of the access log; clones write to the same place. The writer ends with the
/// last of them.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: mpsc::Sender<Bytes>,
}

impl AccessLog {
    /// Open the log and start its writer.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(target: &AccessTarget) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            AccessTarget::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
            AccessTarget::Stderr => Box::new(io::stderr()),
        };
        let (queue, lines) = mpsc::channel(QUEUE);
        runtime::thread("access-log", |_| write(BufWriter::new(out), lines))?;
        Ok(AccessLog { queue })
    }

    /// False if the queue is full or the writer gone.
    pub(crate) fn record(&self, record: &AccessRecord<'_>) -> bool {
        let Ok(mut line) = serde_json::to_vec(record) else {
            return false;
        };
        line.push(b'\n');
        self.queue.try_send(line.into()).is_ok()
    }
}

async fn write(mut out: BufWriter<Box<dyn Write + Send>>, mut lines: mpsc::Receiver<Bytes>) {
    let mut failing = false;
    while let Some(line) = lines.recv().await {
        let mut result = out.write_all(&line);
        while let (Ok(()), Ok(line)) = (&result, lines.try_recv()) {
            result = out.write_all(&line);
        }
        let result = result.and_then(|()| out.flush());
        if let Err(error) = &result
            && !failing
        {
            tracing::error!(%error, "access log cannot be written");
        }
        failing = result.is_err();
    }
}
