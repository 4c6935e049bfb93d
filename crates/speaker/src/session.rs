//! The loop of one neighbour over one stream: octets in, octets out. What they say is the
//! machine's business.

use std::{pin::pin, time::Duration};

use bgp::{Notification, PeerConfig, peer::Close};
use bytes::{Buf, Bytes};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    Handle,
    actor::{Command, Lane, Last},
    tasks::OUTBOX,
};

/// Octets read at once.
const READ: usize = 16 * 1024;
/// A stream that takes nothing for so long is held against its neighbour (RFC 9687).
const STUCK: Duration = Duration::from_secs(1);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Carry octets until the machine says that it is over, or the actor is gone.
pub(crate) async fn run<S>(handle: Handle, number: u64, peer: PeerConfig, stream: S) -> Close
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (outbox, octets) = mpsc::channel(OUTBOX);
    let (last, over) = oneshot::channel();
    let lane = Lane { outbox, last };
    let connected = Command::Connected { number, peer, lane };
    let (reader, writer) = io::split(stream);
    let mut carrier = Carrier {
        handle,
        number,
        octets,
        writing: Bytes::new(),
        unflushed: false,
        stuck: None,
    };
    if carrier.handle.send(connected).await.is_err() {
        return shutdown();
    }
    carrier.run(reader, writer, over).await
}

fn shutdown() -> Close {
    Close::Sent(Notification::SHUTDOWN.into())
}

struct Carrier {
    handle: Handle,
    number: u64,
    octets: mpsc::Receiver<Bytes>,
    writing: Bytes,
    unflushed: bool,
    /// Since when the stream takes nothing, and whether the machine knows.
    stuck: Option<(Instant, bool)>,
}

impl Carrier {
    async fn run<S>(
        &mut self,
        mut reader: ReadHalf<S>,
        mut writer: WriteHalf<S>,
        mut over: oneshot::Receiver<Last>,
    ) -> Close
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut input = vec![0; READ];
        let (mut reads, mut serves) = (true, true);
        loop {
            let idle = self.writing.is_empty() && !self.unflushed;
            let number = self.number;
            let (since, known) = self.stuck.unwrap_or((Instant::now(), false));
            let (stuck, unknown) = (since + STUCK, !known);
            tokio::select! {
                read = reader.read(&mut input), if reads => {
                    let octets = match read {
                        Ok(count) if count > 0 => Some(Bytes::copy_from_slice(&input[..count])),
                        Ok(_) | Err(_) => None,
                    };
                    // Waiting here is what slows a neighbour down that says more than we take.
                    reads = octets.is_some();
                    self.tell(Command::Octets { number, octets }).await;
                }
                step = write(&mut writer, &self.writing), if !idle => match step {
                    Ok(Some(0)) | Err(_) => {
                        // What it said before it went may still lie there.
                        self.writing.clear();
                        self.unflushed = false;
                        serves = false;
                        if !reads {
                            self.tell(Command::Octets { number, octets: None }).await;
                        }
                    }
                    Ok(step) => {
                        self.writing.advance(step.unwrap_or(0));
                        self.unflushed = step.is_some();
                        self.moved().await;
                    }
                },
                () = sleep_until(stuck), if !idle && unknown => {
                    self.stuck = Some((Instant::now(), true));
                    self.tell(Command::Flow { number, blocked: true }).await;
                }
                octets = self.octets.recv(), if idle && serves => {
                    match octets {
                        Some(octets) => {
                            self.writing = octets;
                            self.stuck = Some((Instant::now(), false));
                        }
                        // `over` says why.
                        None => serves = false,
                    }
                    self.handle.room.notify_one();
                }
                last = &mut over => {
                    let Ok(Last { close, octets }) = last else {
                        return shutdown();
                    };
                    self.farewell(&mut writer, octets).await;
                    return close;
                }
            }
        }
    }

    /// The stream took something.
    async fn moved(&mut self) {
        let number = self.number;
        if self.stuck.is_some_and(|(_, known)| known) {
            self.tell(Command::Flow {
                number,
                blocked: false,
            })
            .await;
        }
        let waits = self.unflushed || !self.writing.is_empty();
        self.stuck = waits.then(|| (Instant::now(), false));
    }

    async fn tell(&self, command: Command) {
        // If the actor is gone, `over` says so.
        let _ = self.handle.send(command).await;
    }

    /// Write out the last words, after what is begun; within a second.
    async fn farewell<S>(&mut self, writer: &mut WriteHalf<S>, last: Vec<Bytes>)
    where
        S: AsyncRead + AsyncWrite,
    {
        let mut rest = self.writing.to_vec();
        rest.extend(last.iter().flatten());
        let write = pin!(async {
            // The neighbour may be gone; there is nobody to tell.
            if writer.write_all(&rest).await.is_ok() {
                drop(writer.shutdown().await);
            }
        });
        drop(tokio::time::timeout(FAREWELL, write).await);
    }
}

impl Drop for Carrier {
    /// Wakes the actor, which then finds the queue closed, even if the task was aborted.
    fn drop(&mut self) {
        self.octets.close();
        self.handle.room.notify_one();
    }
}

/// Write some of `octets`, or flush if there are none (`None`). Nothing is lost by dropping it.
async fn write<W: AsyncWrite + Unpin>(writer: &mut W, octets: &[u8]) -> io::Result<Option<usize>> {
    if octets.is_empty() {
        writer.flush().await?;
        return Ok(None);
    }
    writer.write(octets).await.map(Some)
}
