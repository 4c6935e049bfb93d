//! The access log: JSON lines through a bounded queue to a thread of its own; and spans, which go
//! the same way to whoever sends them on.

use std::{
    cell::RefCell,
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use l7::{AccessRecord, RecordFields};
use runtime::metrics::Counter;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

/// Batches waiting to be written; the records of more are dropped and counted.
const QUEUE: usize = 256;
/// A batch goes to the writer when it has so many octets …
const BATCH: usize = 48 << 10;
/// … or is so old.
const OLD: Duration = Duration::from_millis(100);

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
    queue: Queue,
    fields: RecordFields,
}

/// To whoever writes batches or sends them on: the octets, and how many records are in them.
type Queue = mpsc::Sender<(Bytes, u64)>;

impl AccessLog {
    /// Open the log, whose records are to have these fields, and start its writer.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(target: &AccessTarget, fields: RecordFields) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            AccessTarget::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
            AccessTarget::Stderr => Box::new(io::stderr()),
        };
        let (queue, lines) = mpsc::channel(QUEUE);
        runtime::thread("access-log", |_| write(BufWriter::new(out), lines))?;
        Ok(AccessLog { queue, fields })
    }
}

/// Where spans go; clones go to the same place.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: Queue,
    ratio: u64,
}

impl Spans {
    /// Spans of requests whose traces say that they are to be told, and of as many of the others
    /// as `ratio` (0 to 1) says. Batches of them come out as JSON, each span with a comma behind
    /// it, with their number; 256 batches wait at most, more are dropped and counted.
    #[must_use]
    pub fn new(ratio: f64) -> (Self, mpsc::Receiver<(Bytes, u64)>) {
        let (queue, batches) = mpsc::channel(QUEUE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^32"
        )]
        let ratio = (ratio.clamp(0.0, 1.0) * f64::from(u32::MAX)).ceil() as u64;
        (Spans { queue, ratio }, batches)
    }
}

/// One worker's spans.
#[derive(Debug)]
pub(crate) struct Told {
    /// Of 2^32.
    pub(crate) ratio: u64,
    pub(crate) batches: Batches,
}

impl Told {
    pub(crate) fn new(spans: Spans, dropped: Counter) -> Self {
        Told {
            ratio: spans.ratio,
            batches: Batches::new(spans.queue, dropped),
        }
    }
}

/// One worker's records.
#[derive(Debug)]
pub(crate) struct Records {
    fields: RecordFields,
    pub(crate) batches: Batches,
}

impl Records {
    pub(crate) fn new(log: AccessLog, dropped: Counter) -> Self {
        Records {
            fields: log.fields,
            batches: Batches::new(log.queue, dropped),
        }
    }

    pub(crate) fn add(&self, record: &AccessRecord<'_>) {
        self.batches.add(|out| record.write(self.fields, out));
    }
}

/// One worker's end: what comes is gathered, so that the other end is woken once for many.
#[derive(Debug)]
pub(crate) struct Batches {
    queue: Queue,
    batch: RefCell<Batch>,
    begun: Notify,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Batch {
    octets: Vec<u8>,
    records: u64,
}

impl Batches {
    fn new(queue: Queue, dropped: Counter) -> Self {
        Batches {
            queue,
            batch: RefCell::default(),
            begun: Notify::new(),
            dropped,
        }
    }

    pub(crate) fn add(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut batch = self.batch.borrow_mut();
        let before = batch.octets.len();
        write(&mut batch.octets);
        batch.records += 1;
        if before == 0 {
            self.begun.notify_one();
        }
        let full = batch.octets.len() >= BATCH;
        drop(batch);
        if full {
            self.flush();
        }
    }

    /// Hand over what there is.
    pub(crate) fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.records == 0 {
            return;
        }
        let room = batch.octets.capacity();
        let Batch { octets, records } = std::mem::take(&mut *batch);
        batch.octets.reserve(room.min(2 * BATCH));
        if self.queue.try_send((octets.into(), records)).is_err() {
            self.dropped.inc_by(records);
        }
    }

    /// Hand over what has waited long enough, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.begun.notified().await;
            sleep(OLD).await;
            self.flush();
        }
    }
}

async fn write(mut out: BufWriter<Box<dyn Write + Send>>, mut lines: mpsc::Receiver<(Bytes, u64)>) {
    let mut failing = false;
    while let Some((line, _)) = lines.recv().await {
        let mut result = out.write_all(&line);
        while let (Ok(()), Ok((line, _))) = (&result, lines.try_recv()) {
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
