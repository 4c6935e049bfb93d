//! One link over QUIC: its streams, pings on the first of them, and its end.
//!
//! On the first stream each side says `kind (1) number (8) loss (2)`: a ping (0), or the answer to
//! the ping with that number (1), and what part it loses of what it sends ([`path::Loss`]).

use std::{io, sync::Arc, time::Duration};

use base::Instant;
use path::{Liveness, Loss};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use runtime::Task;
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};

use super::{First, stream::Asked};
use crate::{
    event::DownReason,
    hub::Note,
    incoming::{self, Source},
    link::{Ground, LOOKS, Pulse, Seed},
    links::{Link, Opener, Transport},
    preface::Role,
};

/// How long whoever opened a stream may take to say what it is for.
const HEAD: Duration = Duration::from_secs(5);
/// What is said on the first stream waits so long for room at the most.
const SAY: Duration = Duration::from_secs(1);
/// How long a link that ends is kept for its goodbye.
const GOODBYE: Duration = Duration::from_millis(20);
/// Words of the first stream that wait to be heard.
const WORDS: usize = 4;

/// Brings the link up, serves it, and returns why it ended.
pub(crate) async fn run(
    ground: &Ground,
    connection: Connection,
    (send, recv): First,
    seed: Seed,
) -> DownReason {
    let origin = seed.origin;
    let opener = Opener::Quic(connection.clone());
    let link = Arc::new(seed.link(Transport::Quic, opener.clone(), opener));
    let (close, closing) = watch::channel(None);
    let up = Note::Up {
        link: Arc::clone(&link),
        origin,
        close,
    };
    if ground.notes.send(up).await.is_err() {
        return DownReason::Draining;
    }
    let accepting = accept(ground.clone(), Arc::clone(&link), connection.clone());
    let accepting = Ended(ground.tasks.spawn_local("tunnel-quic", accepting));
    let (words, heard) = mpsc::channel(WORDS);
    let reading = Ended(
        ground
            .tasks
            .spawn_local("tunnel-quic-words", read(recv, words)),
    );
    let mut running = Running {
        ground,
        link: &link,
        connection: &connection,
        pulse: Pulse::new(ground.interval),
        send,
        pings: 0,
        sent: None,
        datagrams: 0,
        heard: runtime::now(),
    };
    let reason = running.watch_over(closing, heard).await;
    link.state.set_down(reason);
    drop((accepting, reading));
    connection.close(VarInt::from_u32(0), reason.as_str().as_bytes());
    // An error means that the hub is gone, and its table with it.
    let _ = ground
        .notes
        .send(Note::Down {
            link: link.id,
            reason,
        })
        .await;
    tokio::time::sleep(GOODBYE).await;
    reason
}

/// A task that ends with its link.
struct Ended(Task);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Pong,
}

/// What is said on the first stream.
#[derive(Clone, Copy)]
struct Word {
    kind: Kind,
    number: u64,
    loss: Loss,
}

impl Word {
    fn octets(self) -> [u8; 11] {
        let mut octets = [0; 11];
        octets[0] = self.kind as u8;
        octets[1..9].copy_from_slice(&self.number.to_be_bytes());
        octets[9..].copy_from_slice(&self.loss.0.to_be_bytes());
        octets
    }

    async fn read(recv: &mut RecvStream) -> io::Result<Word> {
        let kind = match recv.read_u8().await? {
            0 => Kind::Ping,
            1 => Kind::Pong,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Word {
            kind,
            number: recv.read_u64().await?,
            loss: Loss(recv.read_u16().await?),
        })
    }
}

async fn read(mut recv: RecvStream, words: mpsc::Sender<Word>) {
    while let Ok(word) = Word::read(&mut recv).await {
        if words.send(word).await.is_err() {
            return;
        }
    }
}

/// The state of a link in use.
struct Running<'a> {
    ground: &'a Ground,
    link: &'a Arc<Link>,
    connection: &'a Connection,
    pulse: Pulse,
    send: SendStream,
    pings: u64,
    /// The ping under way, and when it was sent.
    sent: Option<(u64, Instant)>,
    /// How many datagrams have come, and when that changed last.
    datagrams: u64,
    heard: Instant,
}

impl Running<'_> {
    /// Pings every interval and waits for the first reason to end.
    async fn watch_over(
        &mut self,
        mut closing: watch::Receiver<Option<DownReason>>,
        mut words: mpsc::Receiver<Word>,
    ) -> DownReason {
        if self.ping().await.is_err() {
            return DownReason::Closed;
        }
        loop {
            let wait = self.pulse.detector.poll_timeout().since(runtime::now());
            // What carries requests is looked at more often.
            let pause = match self.link.requests() > 0 {
                true => wait.min(self.ground.interval / LOOKS),
                false => wait,
            };
            tokio::select! {
                biased;
                reason = closing.wait_for(Option::is_some) => {
                    return reason.ok().and_then(|reason| *reason).unwrap_or(DownReason::Draining);
                }
                _ = self.connection.closed() => return DownReason::Closed,
                word = words.recv() => {
                    let answered = match word {
                        Some(word) => self.hear(word).await,
                        None => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                    if answered.is_err() {
                        return DownReason::Closed;
                    }
                }
                () = tokio::time::sleep(pause) => {
                    if self.look() == Liveness::Dead {
                        return DownReason::Silent;
                    }
                    if self.ping().await.is_err() {
                        return DownReason::Closed;
                    }
                }
            }
        }
    }

    async fn hear(&mut self, word: Word) -> io::Result<()> {
        self.pulse.estimator.handle_their_loss(word.loss);
        match word.kind {
            Kind::Ping => self.say(Kind::Pong, word.number).await,
            Kind::Pong => {
                if let Some((_, at)) = self.sent.take_if(|(sent, _)| *sent == word.number) {
                    let news = self.link.state.doubt(false);
                    let now = runtime::now();
                    self.pulse.estimator.handle_sample(now, now.since(at));
                    self.pulse.measured(self.ground, self.link, news);
                }
                Ok(())
            }
        }
    }

    /// Looks whether anything came, and what was lost.
    fn look(&mut self) -> Liveness {
        let now = runtime::now();
        let stats = self.connection.stats();
        if stats.udp_rx.datagrams != self.datagrams {
            self.datagrams = stats.udp_rx.datagrams;
            self.heard = now;
        }
        let pulse = &mut self.pulse;
        pulse.detector.handle_heard(self.heard);
        let (sent, lost) = (stats.path.sent_packets, stats.path.lost_packets);
        pulse.estimator.handle_counts(now, sent, lost);
        pulse.measured(self.ground, self.link, false);
        // The other side's QUIC acknowledges at once, whatever else its process does.
        if let (Some((_, at)), Some(patience)) = (self.sent, pulse.patience(self.ground.interval))
            && self.heard < at
            && now.since(at) > patience
        {
            pulse.doubt(self.ground, self.link);
        }
        if pulse.detector.poll_timeout() > now {
            return Liveness::Alive;
        }
        let stalls = pulse.detector.stalls();
        let liveness = pulse.detector.handle_timeout(now);
        let new = pulse.detector.stalls() - stalls;
        self.ground.sink.metrics.stalls.inc_by(new);
        liveness
    }

    /// Pings, if no ping is under way.
    async fn ping(&mut self) -> io::Result<()> {
        if self.sent.is_some() {
            return Ok(());
        }
        self.pings += 1;
        self.sent = Some((self.pings, runtime::now()));
        self.say(Kind::Ping, self.pings).await
    }

    async fn say(&mut self, kind: Kind, number: u64) -> io::Result<()> {
        let loss = self.pulse.estimator.own_loss();
        let octets = Word { kind, number, loss }.octets();
        // There is room, unless the other side reads nothing.
        match tokio::time::timeout(SAY, self.send.write_all(&octets)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Takes the streams that the other side opens.
async fn accept(ground: Ground, link: Arc<Link>, connection: Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (sink, link) = (Arc::clone(&ground.sink), Arc::clone(&link));
        ground.tasks.spawn_local("tunnel-quic-stream", async move {
            let hearing = tokio::time::timeout(HEAD, Asked::hear(send, recv));
            // One that breaks or says nothing is gone.
            let Ok(Ok(heard)) = hearing.await else { return };
            let source = Source {
                peer: &link.peer,
                link: link.id,
                role: Role::Quic,
            };
            match heard {
                Ok((head, asked)) => {
                    let asked = incoming::Asked::Quic(asked);
                    sink.deliver(&source, &link.state, head, asked);
                }
                Err(_) => sink.refused(&link.peer, "malformed"),
            }
        });
    }
}
