//! The one owner of the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU64},
};

use base::Instant;
use bgp::{Close, Key, LocalRoute, Notification, PeerConfig, PeerId, Rib, SessionEvent, SiteTable};
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
        after: Option<Key>,
        limit: usize,
        reply: oneshot::Sender<Snapshot>,
    },
    /// A session is established.
    Up {
        number: u64,
        peer: PeerConfig,
        lane: SessionLane,
    },
    /// What an established session says; its end included.
    Session {
        number: u64,
        peer: PeerId,
        event: SessionEvent,
    },
}

/// What the actor holds of a session.
#[derive(Debug)]
pub(crate) struct SessionLane {
    pub(crate) outbox: mpsc::Sender<Outgoing>,
    pub(crate) stop: oneshot::Sender<Notification>,
}

/// What a session is given to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Update(Bytes),
    Refresh,
}

#[derive(Debug)]
struct Neighbour {
    session: Option<(u64, SessionLane)>,
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
    rib: Rib,
    clock: fn() -> Instant,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    room: Arc<Notify>,
    neighbours: BTreeMap<PeerId, Neighbour>,
    news: BTreeMap<PeerId, News>,
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
            rib: Rib::new(config.rib.clone(), clock()),
            clock,
            commands: inbox,
            events,
            room: room.clone(),
            neighbours: BTreeMap::new(),
            news: BTreeMap::new(),
        };
        let sessions = Arc::new(AtomicU64::new(0));
        (
            speaker,
            Handle {
                commands,
                room,
                config: Arc::new(config),
                sessions,
            },
            told,
        )
    }

    /// The loop; ends when every handle and every session is gone. Spawn it.
    pub async fn run(mut self) {
        let events = self.events.clone();
        let room = self.room.clone();
        let mut listened = true;
        loop {
            self.bury_neighbours();
            self.feed_neighbours();
            let pending = listened && (self.rib.has_changes() || !self.news.is_empty());
            let now = (self.clock)();
            let timer = self.rib.poll_timeout(now).map(|at| at.since(now));
            tokio::select! {
                command = self.commands.recv() => {
                    let Some(command) = command else { return };
                    self.take(command);
                    self.take_more();
                }
                heard = async { events.reserve().await.is_ok() }, if pending => {
                    listened = heard;
                    self.tell(&events);
                }
                () = room.notified() => {}
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {
                    self.rib.handle_timeout((self.clock)());
                }
            }
            if !listened {
                // Nobody will ever hear them.
                self.news.clear();
                while self.rib.poll_change().is_some() {}
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
            } else if let Some(change) = self.rib.poll_change() {
                permit.send(Event::Change(change));
            } else {
                return;
            }
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
    fn bury_neighbours(&mut self) {
        if !self.commands.is_empty() {
            return;
        }
        let gone = |n: &Neighbour| {
            n.session
                .as_ref()
                .is_some_and(|(_, l)| l.outbox.is_closed())
        };
        let all = self.neighbours.iter();
        let gone: Vec<PeerId> = all.filter(|(_, n)| gone(n)).map(|(id, _)| *id).collect();
        for id in gone {
            self.down(id, Close::StreamEnded);
        }
    }

    /// Give every session that has room the UPDATEs it is owed.
    fn feed_neighbours(&mut self) {
        let now = (self.clock)();
        for (id, neighbour) in &self.neighbours {
            let Some((_, lane)) = &neighbour.session else {
                continue;
            };
            while let Ok(permit) = lane.outbox.try_reserve() {
                if self.rib.poll_refresh(*id) {
                    permit.send(Outgoing::Refresh);
                } else if let Some(update) = self.rib.poll_update(now, *id) {
                    permit.send(Outgoing::Update(update));
                } else {
                    break;
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Originate(route) => self.rib.originate(route),
            Command::Withdraw(key) => self.rib.withdraw(&key),
            Command::SiteTable(table) => self.rib.set_site_table(table),
            Command::Reset(peer) => self.stop(peer, Notification::RESET),
            Command::Remove(peer) => {
                self.stop(peer, Notification::SHUTDOWN);
                self.rib.remove_peer(peer);
                self.neighbours.remove(&peer);
            }
            Command::Snapshot {
                after,
                limit,
                reply,
            } => {
                // Whoever asked may be gone.
                drop(reply.send(self.snapshot(after.as_ref(), limit)));
            }
            Command::Up { number, peer, lane } => self.up(number, peer, lane),
            Command::Session {
                number,
                peer,
                event,
            } => self.session_says(number, peer, event),
        }
    }

    fn up(&mut self, number: u64, peer: PeerConfig, lane: SessionLane) {
        let (id, now) = (peer.id, (self.clock)());
        if let Some((older, _)) = self.neighbours.get(&id).and_then(|n| n.session.as_ref())
            && *older > number
        {
            // Two sessions came up in the wrong order: the newer stream stays.
            drop(lane.stop.send(Notification::new(6, 7)));
            return;
        }
        self.stop(id, (6, 7));
        tracing::info!(peer = %id, "BGP session is up");
        self.rib.peer_up(now, peer);
        let neighbour = self.neighbours.entry(id).or_insert(Neighbour {
            session: None,
            since: now,
            last_close: None,
        });
        neighbour.since = now;
        neighbour.session = Some((number, lane));
        self.news.entry(id).or_default().up = true;
    }

    fn session_says(&mut self, number: u64, id: PeerId, event: SessionEvent) {
        let Some(neighbour) = self.neighbours.get(&id) else {
            return;
        };
        if neighbour
            .session
            .as_ref()
            .is_none_or(|(current, _)| *current != number)
        {
            return;
        }
        match event {
            SessionEvent::Established { .. } => {}
            SessionEvent::Update(update) => self.rib.handle_update(id, update),
            SessionEvent::EndOfRib => {
                self.rib.handle_end_of_rib(id);
                self.news.entry(id).or_default().synced = true;
            }
            SessionEvent::RefreshRequested => self.rib.handle_refresh(id),
            SessionEvent::FamilyDisabled => {
                tracing::warn!(peer = %id, "BGP family is disabled: its routes overrun");
                self.rib.handle_family_disabled(id);
            }
            SessionEvent::Closed(close) => self.down(id, close),
        }
    }

    /// Tell the session to end; its routes are stale from now on.
    fn stop(&mut self, id: PeerId, code: (u8, u8)) {
        let lane = self
            .neighbours
            .get_mut(&id)
            .and_then(|neighbour| neighbour.session.take());
        if let Some((_, lane)) = lane {
            let notification = Notification::from(code);
            drop(lane.stop.send(notification.clone()));
            self.down(id, Close::Sent(notification));
        }
    }

    fn down(&mut self, id: PeerId, close: Close) {
        let now = (self.clock)();
        tracing::info!(peer = %id, reason = %close, "BGP session is down");
        self.rib.peer_down(now, id);
        if let Some(neighbour) = self.neighbours.get_mut(&id) {
            neighbour.session = None;
            neighbour.since = now;
            neighbour.last_close = Some(close.clone());
        }
        self.news.insert(
            id,
            News {
                down: Some(close),
                ..News::default()
            },
        );
    }

    fn snapshot(&self, after: Option<&Key>, limit: usize) -> Snapshot {
        let known: BTreeSet<PeerId> = self.neighbours.keys().copied().collect();
        let neighbors = self
            .rib
            .neighbors()
            .into_iter()
            .filter(|v| known.contains(&v.config.id));
        let neighbors = neighbors.filter_map(|view| {
            let neighbour = self.neighbours.get(&view.config.id)?;
            let (since, last_close) = (neighbour.since, neighbour.last_close.clone());
            Some(Neighbor {
                view,
                since,
                last_close,
            })
        });
        Snapshot {
            neighbors: neighbors.collect(),
            routes: self.rib.routes(after, limit),
            total: self.rib.len(),
        }
    }
}
