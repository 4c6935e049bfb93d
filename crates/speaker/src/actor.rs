//! The one owner of a node's table.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};

use base::Instant;
use bgp::{
    Fabric, Key, LocalRoute, Notification, PeerConfig, PeerId, SiteTable, StreamId, peer::Close,
};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    Event, Handle, Neighbor, Snapshot, SpeakerConfig,
    tasks::{COMMANDS, EVENTS, TURN},
};

/// What the actor is told.
#[derive(Debug)]
pub(crate) enum Command {
    Originate(LocalRoute),
    Withdraw(Key),
    SiteTable(SiteTable),
    Reset(PeerId),
    Remove(PeerId),
    Snapshot {
        limit: usize,
        reply: oneshot::Sender<Snapshot>,
    },
    /// A stream to a neighbour.
    Connected {
        number: u64,
        peer: PeerConfig,
        lane: Lane,
    },
    /// What came off it; `None`: it ended.
    Octets {
        number: u64,
        octets: Option<Bytes>,
    },
    /// It has not taken octets for a while (`blocked`), or takes them again.
    Flow {
        number: u64,
        blocked: bool,
    },
}

/// What the actor holds of a stream.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) outbox: mpsc::Sender<Bytes>,
    pub(crate) last: oneshot::Sender<Last>,
}

/// How a stream ends.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) close: Close,
    pub(crate) octets: Vec<Bytes>,
}

/// When a neighbour's session came up or went down, and why it ended last.
#[derive(Debug)]
struct History {
    since: Instant,
    last_close: Option<Close>,
}

/// Ups and downs of one neighbour that the node has not heard yet: the last down, then whether it
/// is up, so that an up after a down is never mistaken for no change.
#[derive(Debug, Default)]
struct News {
    down: Option<Close>,
    up: bool,
    synced: bool,
}

/// The actor that owns the table. Its loop is [`Speaker::run`].
#[derive(Debug)]
pub struct Speaker {
    fabric: Fabric,
    clock: fn() -> Instant,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    room: Arc<Notify>,
    lanes: BTreeMap<StreamId, Lane>,
    histories: BTreeMap<PeerId, History>,
    news: BTreeMap<PeerId, News>,
    /// A change that the node has no room for.
    change: Option<bgp::Change>,
}

impl Speaker {
    /// A speaker, the handle to it, and what it tells this node.
    #[must_use]
    pub fn new(config: SpeakerConfig) -> (Speaker, Handle, mpsc::Receiver<Event>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, told) = mpsc::channel(EVENTS);
        let room = Arc::new(Notify::new());
        let clock = config.clock;
        let speaker = Speaker {
            fabric: Fabric::new(config.fabric, clock()),
            clock,
            commands: inbox,
            events,
            room: room.clone(),
            lanes: BTreeMap::new(),
            histories: BTreeMap::new(),
            news: BTreeMap::new(),
            change: None,
        };
        let handle = Handle {
            commands,
            room,
            sessions: Arc::new(AtomicU64::new(1)),
        };
        (speaker, handle, told)
    }

    /// The loop; ends when every handle and every session is gone. Spawn it.
    pub async fn run(mut self) {
        let events = self.events.clone();
        let room = self.room.clone();
        let mut listened = true;
        loop {
            self.bury_streams();
            self.fabric.handle_timeout((self.clock)());
            let more = self.fabric.drive((self.clock)());
            self.feed_streams();
            self.hear();
            self.change = self.change.take().or_else(|| self.fabric.poll_change());
            let pending = listened && (self.change.is_some() || !self.news.is_empty());
            let now = (self.clock)();
            let timer = self.fabric.poll_timeout().map(|at| at.since(now));
            tokio::select! {
                heard = async { events.reserve().await.is_ok() }, if pending => {
                    listened = heard;
                    self.tell(&events);
                }
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.take(command);
                    self.take_more();
                }
                () = room.notified() => {}
                () = tokio::task::yield_now(), if more => {}
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {}
            }
            if !listened {
                // Nobody will ever hear them.
                self.news.clear();
                self.change = None;
                while self.fabric.poll_change().is_some() {}
            }
        }
    }

    fn take_more(&mut self) {
        for _ in 1..TURN {
            let Ok(command) = self.commands.try_recv() else {
                return;
            };
            self.take(command);
        }
    }

    /// Ups and downs first, then changes, as long as there is room.
    fn tell(&mut self, events: &mpsc::Sender<Event>) {
        while let Ok(permit) = events.try_reserve() {
            if let Some(event) = self.next_news() {
                permit.send(event);
                continue;
            }
            let change = self.change.take().or_else(|| self.fabric.poll_change());
            let Some(change) = change else { return };
            permit.send(Event::Change(change));
        }
    }

    fn next_news(&mut self) -> Option<Event> {
        let mut first = self.news.first_entry()?;
        let id = *first.key();
        let news = first.get_mut();
        let event = if let Some(close) = news.down.take() {
            Event::Down(id, close)
        } else if std::mem::take(&mut news.up) {
            Event::Up(id)
        } else {
            news.synced = false;
            Event::Synced(id)
        };
        if news.down.is_none() && !news.up && !news.synced {
            first.remove();
        }
        Some(event)
    }

    /// A session loop that was dropped without a word counts as a stream that ended. Its last
    /// word, if there is one, was queued before its outbox closed: hear that first.
    fn bury_streams(&mut self) {
        if !self.commands.is_empty() {
            return;
        }
        let gone = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.outbox.is_closed());
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fabric.handle_closed((self.clock)(), id);
        }
        self.hear();
    }

    /// Give every stream that has room the octets it is owed.
    fn feed_streams(&mut self) {
        for (id, lane) in &self.lanes {
            while let Ok(permit) = lane.outbox.try_reserve() {
                let Some(octets) = self.fabric.transmit(*id) else {
                    break;
                };
                permit.send(octets);
            }
        }
    }

    /// What the machine has to say of sessions and streams.
    fn hear(&mut self) {
        while let Some(event) = self.fabric.poll_event() {
            let now = (self.clock)();
            match event {
                bgp::Event::Up(id) => {
                    tracing::info!(peer = %id, "BGP session is up");
                    let history = self.histories.entry(id).or_insert(History {
                        since: now,
                        last_close: None,
                    });
                    history.since = now;
                    self.news.entry(id).or_default().up = true;
                }
                bgp::Event::Synced(id) => self.news.entry(id).or_default().synced = true,
                bgp::Event::Down(id, close) => {
                    tracing::info!(peer = %id, reason = %close, "BGP session is down");
                    let last_close = Some(close.clone());
                    let since = now;
                    self.histories.insert(id, History { since, last_close });
                    let down = Some(close);
                    self.news.insert(
                        id,
                        News {
                            down,
                            ..News::default()
                        },
                    );
                }
                bgp::Event::Closed(id, close, octets) => {
                    if let Some(lane) = self.lanes.remove(&id) {
                        // The loop may be gone.
                        drop(lane.last.send(Last { close, octets }));
                    }
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        let now = (self.clock)();
        match command {
            Command::Originate(route) => self.fabric.originate(&route),
            Command::Withdraw(key) => self.fabric.withdraw(&key),
            Command::SiteTable(table) => self.fabric.set_site_table(now, table),
            Command::Reset(peer) => {
                self.fabric.close(now, peer, &Notification::RESET.into());
            }
            Command::Remove(peer) => {
                let shutdown = Notification::SHUTDOWN.into();
                self.fabric.remove(now, peer, &shutdown);
                self.hear();
                self.histories.remove(&peer);
            }
            Command::Snapshot { limit, reply } => {
                // Whoever asked may be gone.
                drop(reply.send(self.snapshot(limit)));
            }
            Command::Connected { number, peer, lane } => {
                let id = StreamId(number);
                self.lanes.insert(id, lane);
                self.fabric.connected(now, id, peer);
            }
            Command::Octets {
                number,
                octets: Some(octets),
            } => self.fabric.handle_bytes(now, StreamId(number), &octets),
            Command::Octets {
                number,
                octets: None,
            } => self.fabric.handle_closed(now, StreamId(number)),
            Command::Flow { number, blocked } => {
                let id = StreamId(number);
                if blocked {
                    self.fabric.handle_blocked(now, id);
                } else {
                    self.fabric.handle_sent(now, id);
                }
            }
        }
    }

    fn snapshot(&self, limit: usize) -> Snapshot {
        let neighbors = self.fabric.neighbors().into_iter();
        let neighbors = neighbors.filter_map(|view| {
            let history = self.histories.get(&view.config.id)?;
            Some(Neighbor {
                view,
                since: history.since,
                last_close: history.last_close.clone(),
            })
        });
        Snapshot {
            neighbors: neighbors.collect(),
            routes: self.fabric.routes(limit),
            total: self.fabric.len(),
        }
    }
}
