//! The loop of one neighbour over one stream.

use std::{pin::pin, time::Duration};

use bgp::{Close, Notification, PeerConfig, Session, SessionConfig, SessionEvent, SessionState};
use bytes::{Buf, Bytes};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
    time::sleep,
};

use crate::{
    Handle,
    actor::{Command, Outgoing, SessionLane},
    tasks::OUTBOX,
};

/// Octets read at once.
const READ: usize = 16 * 1024;
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Run the session to its end and tell the actor what happens in it.
pub(crate) async fn run<S>(handle: Handle, number: u64, peer: PeerConfig, stream: S) -> Close
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let clock = handle.config.clock;
    let rib = &handle.config.rib;
    let config = SessionConfig {
        asn: rib.asn,
        node: rib.node,
        peer: Some(peer.node),
        hold_time: handle.config.hold_time,
        family: rib.family,
    };
    let (outbox, updates) = mpsc::channel(OUTBOX);
    let (stop, stopped) = oneshot::channel();
    let (reader, writer) = io::split(stream);
    let driver = Driver {
        session: Session::new(config, clock()),
        handle,
        number,
        peer,
        lane: Some(SessionLane { outbox, stop }),
        updates,
        writing: Bytes::new(),
        unflushed: false,
        blocked_since: None,
    };
    driver.run(reader, writer, stopped).await
}

struct Driver {
    session: Session,
    handle: Handle,
    number: u64,
    peer: PeerConfig,
    /// Given to the actor once the session is established.
    lane: Option<SessionLane>,
    updates: mpsc::Receiver<Outgoing>,
    writing: Bytes,
    unflushed: bool,
    blocked_since: Option<base::Instant>,
}

impl Driver {
    async fn run<S>(
        mut self,
        mut reader: ReadHalf<S>,
        mut writer: WriteHalf<S>,
        mut stopped: oneshot::Receiver<Notification>,
    ) -> Close
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let clock = self.handle.config.clock;
        let mut input = vec![0; READ];
        let (mut stoppable, mut served) = (true, true);
        loop {
            if let Some(close) = self.report().await {
                self.farewell(&mut writer).await;
                return close;
            }
            self.next_message();
            let now = clock();
            let timer = self.deadline().map(|at| at.since(now));
            let idle = self.writing.is_empty() && !self.unflushed;
            tokio::select! {
                read = reader.read(&mut input) => match read {
                    Ok(0) | Err(_) => self.session.handle_end_of_stream(),
                    Ok(n) => self.session.handle_bytes(clock(), &input[..n]),
                },
                step = write(&mut writer, &self.writing), if !idle => match step {
                    Ok(Some(0)) | Err(_) => self.session.handle_end_of_stream(),
                    Ok(Some(n)) => {
                        self.writing.advance(n);
                        self.unflushed = true;
                        self.blocked_since = Some(clock());
                    }
                    Ok(None) => self.unflushed = false,
                },
                update = self.updates.recv(), if idle && served && self.lane.is_none() => {
                    match update {
                        Some(Outgoing::Update(message)) => self.session.send(message),
                        Some(Outgoing::Refresh) => { self.session.request_refresh(); }
                        // The actor has let go; `stopped` says why.
                        None => served = false,
                    }
                    self.handle.room.notify_one();
                }
                reason = &mut stopped, if stoppable => {
                    stoppable = false;
                    let reason = reason.unwrap_or_else(|_| Notification::SHUTDOWN.into());
                    self.session.close(reason);
                }
                () = sleep(timer.unwrap_or_default()), if timer.is_some() => {
                    self.handle_timeout(clock());
                }
            }
        }
    }

    /// The session's own timers, and the send hold timer (RFC 9687): a neighbour that takes
    /// nothing for twice the hold time is cut.
    fn deadline(&self) -> Option<base::Instant> {
        let send_hold = self
            .blocked_since
            .map(|since| since + self.session.hold_time() * 2);
        [self.session.poll_timeout(), send_hold]
            .into_iter()
            .flatten()
            .min()
    }

    fn handle_timeout(&mut self, now: base::Instant) {
        self.session.handle_timeout(now);
        let limit = self.session.hold_time() * 2;
        if self.blocked_since.is_some_and(|since| now >= since + limit) {
            self.session.close(Notification::SEND_HOLD_TIMER.into());
        }
    }

    fn next_message(&mut self) {
        if self.writing.is_empty() {
            match self.session.poll_transmit() {
                Some(message) => {
                    self.writing = message;
                    self.blocked_since = Some((self.handle.config.clock)());
                }
                None if !self.unflushed => self.blocked_since = None,
                None => {}
            }
        }
    }

    /// Pass the session's events on; the last one is returned. Waiting here is what slows a
    /// neighbour down that says more than we can take.
    async fn report(&mut self) -> Option<Close> {
        while let Some(event) = self.session.poll_event() {
            let number = self.number;
            let close = match &event {
                SessionEvent::Closed(close) => Some(close.clone()),
                SessionEvent::Established { .. }
                | SessionEvent::Update(_)
                | SessionEvent::EndOfRib
                | SessionEvent::RefreshRequested
                | SessionEvent::FamilyDisabled => None,
            };
            let command = match (&event, self.lane.take()) {
                (SessionEvent::Established { .. }, Some(lane)) => Some(Command::Up {
                    number,
                    peer: self.peer.clone(),
                    lane,
                }),
                (SessionEvent::Closed(close), Some(lane)) => {
                    drop(lane);
                    tracing::debug!(peer = %self.peer.id, reason = %close, "BGP session failed to open");
                    None
                }
                (_, lane) => {
                    self.lane = lane;
                    Some(Command::Session {
                        number,
                        peer: self.peer.id,
                        event,
                    })
                }
            };
            if let Some(command) = command
                && self.handle.send(command).await.is_err()
            {
                self.session.close(Notification::SHUTDOWN.into());
            }
            if close.is_some() {
                return close;
            }
        }
        None
    }

    /// Write out the NOTIFICATION if there is one, after what is begun; within a second.
    async fn farewell<S>(&mut self, writer: &mut WriteHalf<S>)
    where
        S: AsyncRead + AsyncWrite,
    {
        debug_assert_eq!(self.session.state(), SessionState::Idle);
        let mut rest = self.writing.to_vec();
        while let Some(message) = self.session.poll_transmit() {
            rest.extend_from_slice(&message);
        }
        let write = pin!(async {
            // The neighbour may be gone; there is nobody to tell.
            if writer.write_all(&rest).await.is_ok() {
                drop(writer.shutdown().await);
            }
        });
        drop(tokio::time::timeout(FAREWELL, write).await);
    }
}

impl Drop for Driver {
    /// Wakes the actor, which then finds the queue closed, even if the task was aborted.
    fn drop(&mut self) {
        self.updates.close();
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
