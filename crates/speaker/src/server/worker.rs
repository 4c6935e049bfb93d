//! One thread: its shard, its neighbours, its mail.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    ops::Range,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use base::Instant;
use bgp::{
    table::{Notice, PeerConfig, PeerIndex, PeerSet, Poll, Shard, shard_of},
    wire::{Decoded, Family, Section, encode},
};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::bfd::Bfd;

use super::{
    NeighborConfig, StaticRoute,
    neighbor::{Door, Word},
    outbox::{Level, Outbox},
    restart::Restart,
    tasks::TURNS,
    view::{NeighborView, RouteQuery, Routes},
};

/// What one thread tells another.
#[derive(Debug)]
pub(super) enum Mail {
    /// Something about a session, for every shard.
    Session(PeerIndex, Session),
    /// Routes of a neighbour that fall to this shard.
    Routes(Box<Batch>),
    /// Octets of a thread's shard, for neighbours whose sessions live on this one.
    Octets(usize, Vec<PeerIndex>, Bytes),
    /// What a thread's shard noticed, for the thread where the neighbour's session lives.
    Notice(usize, Notice),
    /// What comes from now on from this thread is for the neighbour's session of this number.
    Joined(usize, PeerIndex, u32),
    /// For the task of a neighbour.
    Neighbor(PeerIndex, Word),
    /// Tell what is so: our restart is over.
    Release,
    /// Say this ourselves.
    Originate(Box<StaticRoute>),
    /// Say this no more.
    Retract(Family, Vec<u8>),
    /// Routes of this shard, for people.
    Query(RouteQuery, oneshot::Sender<Routes>),
    /// Neighbours of this thread, and this shard's counts of all, for people.
    Neighbors(oneshot::Sender<NeighborView>),
}

/// What happens to a session, as a shard sees it.
#[derive(Clone, Debug)]
pub(super) enum Session {
    /// With the number of the session.
    Up(Box<PeerConfig>, u32),
    /// Routes of these families stay, stale.
    Down(Vec<Family>),
    /// End-of-RIB, or a refresh is complete.
    End(Family),
    /// Stale routes become long-lived stale.
    Outlive(Family),
    /// A refresh begins.
    Begin(Family),
    /// The neighbour asks for everything.
    Refresh(Family),
    /// Nothing it has said of this family counts any more.
    Forget(Family),
    /// It has had the time to say what it wants to hear.
    Subscribed,
    /// The queue of octets of the session of this number.
    Level(Level, u32),
}

/// Mail on its way to other threads, in order.
pub(super) type Outgoing = Vec<(usize, Mail)>;

/// Routes of a neighbour as they came, for another thread's shard: many messages in one letter.
#[derive(Debug)]
pub(super) struct Batch {
    peer: PeerIndex,
    octets: Vec<u8>,
    parts: Vec<Part>,
}

/// Routes of one message, as ranges of a batch's octets.
#[derive(Debug)]
struct Part {
    family: Family,
    add_path: bool,
    routes: Range<usize>,
    /// `None`: withdrawn.
    attributes: Option<Range<usize>>,
}

/// A neighbour's session as a shard's thread knows it. Levels and ups come on different ways.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    number: u32,
    level: Option<(Level, u32)>,
}

/// What the tasks of a thread share.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shard: RefCell<Shard>,
    /// What every neighbour is configured to speak about.
    pub(super) families: BTreeMap<PeerIndex, Vec<Family>>,
    /// Where the sessions of all neighbours live.
    homes: Vec<usize>,
    /// Queues of octets of the neighbours whose sessions live here, and the sessions' numbers.
    pub(super) outboxes: RefCell<BTreeMap<PeerIndex, (u32, Rc<Outbox>)>>,
    /// For which session of a neighbour a thread's octets are.
    pub(super) sources: RefCell<BTreeMap<(usize, PeerIndex), u32>>,
    /// Sessions of which this thread's shard knows, and what was last heard of their queues.
    pub(super) sessions: RefCell<BTreeMap<PeerIndex, Known>>,
    /// Of them, those whose home has not heard yet that they are known here.
    pub(super) joined: RefCell<VecDeque<(PeerIndex, u32)>>,
    pub(super) doors: RefCell<BTreeMap<PeerIndex, Door>>,
    pub(super) threads: Vec<mpsc::Sender<Mail>>,
    /// One buffer to read into for all: nothing stays in it.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// Levels that the other threads have not heard of.
    pub(super) levels: RefCell<BTreeMap<PeerIndex, (Level, u32)>>,
    pub(super) levels_changed: Notify,
    pub(super) restart: Arc<Restart>,
    pub(super) bfd: Option<Bfd>,
    /// The shard has something to do.
    pub(super) work: Notify,
    /// The shard asks about next hops.
    pub(super) fresh_hops: Notify,
    pub(super) clock: fn() -> Instant,
}

impl Worker {
    /// The thread of this number, whose shard is `shard`.
    pub(super) fn new(
        index: usize,
        shard: Shard,
        neighbors: &[NeighborConfig],
        threads: Vec<mpsc::Sender<Mail>>,
        restart: Arc<Restart>,
        bfd: Option<Bfd>,
    ) -> Self {
        let spoken = (1..).map(PeerIndex).zip(neighbors).map(|(peer, neighbor)| {
            let families = neighbor.families.iter().map(|family| family.family);
            (peer, families.collect())
        });
        let homes = (0..=neighbors.len()).map(|at| at % threads.len());
        Worker {
            index,
            shard: RefCell::new(shard),
            families: spoken.collect(),
            homes: homes.collect(),
            outboxes: RefCell::default(),
            sources: RefCell::default(),
            sessions: RefCell::default(),
            joined: RefCell::default(),
            doors: RefCell::default(),
            threads,
            buffer: RefCell::default(),
            levels: RefCell::default(),
            levels_changed: Notify::new(),
            restart,
            bfd,
            work: Notify::new(),
            fresh_hops: Notify::new(),
            clock: runtime::now,
        }
    }

    fn is_home_of(&self, peer: PeerIndex) -> bool {
        self.homes.get(usize::from(peer.0)) == Some(&self.index)
    }

    /// Tell every shard: this one at once, the others by mail, which is added to `mail`.
    pub(super) fn tell(&self, peer: PeerIndex, what: Session, mail: &mut Outgoing) {
        for at in 0..self.threads.len() {
            if at != self.index {
                mail.push((at, Mail::Session(peer, what.clone())));
            }
        }
        self.session(peer, what);
    }

    /// Send what was added; waits while another thread's mail is full.
    pub(super) async fn post(&self, mail: &mut Outgoing) {
        for (at, letter) in mail.drain(..) {
            // A thread that is gone needs to know nothing.
            let _ = self.threads[at].send(letter).await;
        }
    }

    fn session(&self, peer: PeerIndex, what: Session) {
        let mut shard = self.shard.borrow_mut();
        match what {
            Session::Up(config, number) => {
                shard.peer_up(peer, *config);
                let mut sessions = self.sessions.borrow_mut();
                let known = sessions.entry(peer).or_default();
                known.number = number;
                if let Some((level, of)) = known.level
                    && of == number
                {
                    set_level(&mut shard, peer, level);
                }
                self.joined.borrow_mut().push_back((peer, number));
            }
            Session::Down(keep) => shard.peer_down(peer, &keep),
            Session::End(family) => shard.end_of_rib(peer, family),
            Session::Outlive(family) => shard.outlive(peer, family),
            Session::Begin(family) => shard.refresh_begins(peer, family),
            Session::Refresh(family) => shard.refresh(peer, family),
            Session::Forget(family) => shard.forget(peer, family),
            Session::Subscribed => shard.subscribed(peer),
            Session::Level(level, number) => {
                let mut sessions = self.sessions.borrow_mut();
                let known = sessions.entry(peer).or_default();
                known.level = Some((level, number));
                if known.number == number {
                    set_level(&mut shard, peer, level);
                }
            }
        }
        self.work.notify_one();
    }

    /// A neighbour's queue of octets changed its level: known here at once, elsewhere when
    /// [`Worker::tell_levels`] has told it.
    pub(super) fn level(&self, peer: PeerIndex, level: Level) {
        let number = self.outboxes.borrow().get(&peer).map(|(number, _)| *number);
        let Some(number) = number else {
            return;
        };
        self.session(peer, Session::Level(level, number));
        if self.threads.len() > 1 {
            self.levels.borrow_mut().insert(peer, (level, number));
            self.levels_changed.notify_one();
        }
    }

    /// Tell the other threads how long the queues of octets here are; only the newest counts.
    pub(super) async fn tell_levels(self: Rc<Self>) {
        loop {
            self.levels_changed.notified().await;
            while let Some((peer, (level, number))) = { self.levels.borrow_mut().pop_first() } {
                for (at, thread) in self.threads.iter().enumerate() {
                    if at != self.index {
                        let what = Session::Level(level, number);
                        let _ = thread.send(Mail::Session(peer, what)).await;
                    }
                }
            }
        }
    }

    /// An UPDATE of a neighbour: what falls to this thread's shard goes into it at once, the rest
    /// is added to `mail`.
    pub(super) fn routes(&self, peer: PeerIndex, update: &Decoded<'_>, mail: &mut Outgoing) {
        for section in update.withdrawn.iter().flatten() {
            self.section(peer, section, None, mail);
        }
        for (section, attributes) in update.announced.iter().zip(update.attributes) {
            if let Some(section) = section {
                self.section(peer, section, attributes, mail);
            }
        }
        self.work.notify_one();
    }

    fn section(
        &self,
        peer: PeerIndex,
        section: &Section<'_>,
        attributes: Option<&[u8]>,
        mail: &mut Outgoing,
    ) {
        let (count, family) = (self.threads.len(), section.family);
        let mut shard = self.shard.borrow_mut();
        let falls_to = |key: &[u8], at| {
            count == 1 || family == Family::RTC || shard_of(family, key, count) == at
        };
        let mine = |key: &[u8]| falls_to(key, self.index);
        match attributes {
            Some(attributes) => {
                if let Err(ignored) = shard.announce(peer, section, attributes, mine) {
                    tracing::debug!(peer = peer.0, ?ignored, "routes are ignored");
                }
            }
            None => shard.withdraw(peer, section, mine),
        }
        drop(shard);
        if count == 1 {
            return;
        }
        for at in (0..count).filter(|at| *at != self.index) {
            let batch = batch_for(at, peer, mail);
            let start = batch.octets.len();
            section.for_each(attributes.is_some(), |nlri| {
                if falls_to(nlri.key, at) {
                    let path_id = section.add_path.then_some(nlri.path_id);
                    encode(family, path_id, nlri.key, nlri.value, &mut batch.octets);
                }
            });
            let end = batch.octets.len();
            if end == start {
                continue;
            }
            let attributes = attributes.map(|attributes| {
                batch.octets.extend_from_slice(attributes);
                end..batch.octets.len()
            });
            batch.parts.push(Part {
                family,
                add_path: section.add_path,
                routes: start..end,
                attributes,
            });
        }
    }

    /// Read the thread's mail until nobody can write any more.
    pub(super) async fn read_mail(self: Rc<Self>, mut mail: mpsc::Receiver<Mail>) {
        while let Some(letter) = mail.recv().await {
            self.open(letter);
        }
    }

    pub(super) fn open(&self, letter: Mail) {
        match letter {
            Mail::Session(peer, what) => self.session(peer, what),
            Mail::Routes(batch) => self.take(&batch),
            Mail::Octets(thread, peers, octets) => {
                for peer in peers {
                    self.push_from(thread, peer, octets.clone());
                }
            }
            Mail::Notice(thread, notice) => self.notice_from(thread, notice),
            Mail::Joined(thread, peer, number) => {
                self.sources.borrow_mut().insert((thread, peer), number);
            }
            Mail::Neighbor(peer, word) => {
                if let Some(door) = self.doors.borrow().get(&peer) {
                    door.tell(word);
                }
            }
            Mail::Release => {
                self.shard.borrow_mut().begin_telling();
                self.work.notify_one();
            }
            Mail::Originate(route) => {
                let attributes = route.attributes();
                let mut shard = self.shard.borrow_mut();
                shard.originate(route.family, &route.key, &[], &attributes);
                self.work.notify_one();
            }
            Mail::Retract(family, key) => {
                self.shard.borrow_mut().retract(family, &key);
                self.work.notify_one();
            }
            Mail::Query(query, reply) => {
                drop(reply.send(super::view::routes(&self.shard.borrow(), &query)));
            }
            Mail::Neighbors(reply) => drop(reply.send(super::view::neighbors(self))),
        }
    }

    /// Routes that another thread's neighbour said.
    fn take(&self, batch: &Batch) {
        let mut shard = self.shard.borrow_mut();
        for part in &batch.parts {
            let section = Section {
                family: part.family,
                add_path: part.add_path,
                octets: &batch.octets[part.routes.clone()],
            };
            match &part.attributes {
                Some(attributes) => {
                    let attributes = &batch.octets[attributes.clone()];
                    // The thread where it came has told why.
                    let _ = shard.announce(batch.peer, &section, attributes, |_| true);
                }
                None => shard.withdraw(batch.peer, &section, |_| true),
            }
        }
        self.work.notify_one();
    }

    /// Is what this thread's shard says for the neighbour's session of now?
    fn is_current(&self, thread: usize, peer: PeerIndex) -> bool {
        let outboxes = self.outboxes.borrow();
        let current = outboxes.get(&peer).map(|(number, _)| number);
        let sources = self.sources.borrow();
        current.is_some() && sources.get(&(thread, peer)) == current
    }

    fn notice_from(&self, thread: usize, notice: Notice) {
        let peer = peer_of(notice);
        if self.is_current(thread, peer)
            && let Some(door) = self.doors.borrow().get(&peer)
        {
            door.notice(notice);
        }
    }

    async fn notice(&self, notice: Notice) {
        let peer = peer_of(notice);
        if self.is_home_of(peer) {
            self.notice_from(self.index, notice);
        } else if let Some(home) = self.homes.get(usize::from(peer.0)) {
            let letter = Mail::Notice(self.index, notice);
            let _ = self.threads[*home].send(letter).await;
        }
    }

    /// Tell the homes of neighbours that came up that what follows is for their new sessions:
    /// what this shard said before may still be on its way. When it returns, there is nobody
    /// more to tell.
    async fn tell_joined(&self) {
        while let Some((peer, number)) = { self.joined.borrow_mut().pop_front() } {
            if self.is_home_of(peer) {
                self.sources.borrow_mut().insert((self.index, peer), number);
            } else if let Some(home) = self.homes.get(usize::from(peer.0)) {
                let letter = Mail::Joined(self.index, peer, number);
                let _ = self.threads[*home].send(letter).await;
            }
        }
    }

    fn push_from(&self, thread: usize, peer: PeerIndex, octets: Bytes) {
        if self.is_current(thread, peer) {
            self.push(peer, octets);
        }
    }

    /// Tell all threads when our restart is over.
    pub(super) async fn end_restart(self: Rc<Self>, time: Duration) {
        self.restart.end(time).await;
        for thread in &self.threads {
            let _ = thread.send(Mail::Release).await;
        }
    }

    /// Queue octets for a neighbour whose session lives here.
    pub(super) fn push(&self, peer: PeerIndex, octets: Bytes) {
        let outbox = self.outboxes.borrow().get(&peer).cloned();
        if let Some(level) = outbox.and_then(|(_, outbox)| outbox.push(octets)) {
            self.level(peer, level);
        }
    }

    /// Turn what the shard has to say into octets, as long as there is something; between two
    /// turns the neighbours' tasks run.
    pub(super) async fn pump(self: Rc<Self>) {
        let mut turns = 0;
        loop {
            self.tell_joined().await;
            let mut out: Vec<(PeerSet, Bytes)> = Vec::new();
            let poll = {
                let mut shard = self.shard.borrow_mut();
                shard.poll((self.clock)(), &mut |to, octets| {
                    out.push((to.clone(), octets))
                })
            };
            if self.shard.borrow().has_fresh_next_hops() {
                self.fresh_hops.notify_one();
            }
            for (to, octets) in out {
                self.hand_out(&to, &octets).await;
            }
            while let Some(notice) = { self.shard.borrow_mut().poll_notice() } {
                self.notice(notice).await;
            }
            turns = if poll == Poll::More { turns + 1 } else { 0 };
            match poll {
                Poll::More if turns < TURNS => {}
                Poll::More => {
                    turns = 0;
                    tokio::task::yield_now().await;
                }
                Poll::Idle => self.work.notified().await,
                Poll::Wait(until) => {
                    let wait = until.since((self.clock)());
                    tokio::select! {
                        () = self.work.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    async fn hand_out(&self, to: &PeerSet, octets: &Bytes) {
        let mut elsewhere: BTreeMap<usize, Vec<PeerIndex>> = BTreeMap::new();
        for peer in to.iter() {
            if self.is_home_of(peer) {
                self.push_from(self.index, peer, octets.clone());
            } else if let Some(home) = self.homes.get(usize::from(peer.0)) {
                elsewhere.entry(*home).or_default().push(peer);
            }
        }
        for (home, peers) in elsewhere {
            let _ = self.threads[home]
                .send(Mail::Octets(self.index, peers, octets.clone()))
                .await;
        }
    }
}

fn set_level(shard: &mut Shard, peer: PeerIndex, level: Level) {
    match level {
        Level::Ready => shard.resume(peer),
        Level::Busy => shard.set_ready(peer, false),
        Level::Full => shard.pause(peer),
    }
}

const fn peer_of(notice: Notice) -> PeerIndex {
    match notice {
        Notice::TableSent(peer, _) | Notice::TooMany(peer, _) | Notice::AskAgain(peer, _) => peer,
    }
}

/// The letter to a thread that still takes routes: the last one for it, if it holds routes.
fn batch_for(at: usize, peer: PeerIndex, mail: &mut Outgoing) -> &mut Batch {
    let last = mail.iter().rposition(|(thread, _)| *thread == at);
    let open = last.filter(|last| matches!(mail[*last].1, Mail::Routes(_)));
    let position = open.unwrap_or_else(|| {
        let batch = Batch {
            peer,
            octets: Vec::new(),
            parts: Vec::new(),
        };
        mail.push((at, Mail::Routes(Box::new(batch))));
        mail.len() - 1
    });
    match &mut mail[position].1 {
        Mail::Routes(batch) => batch,
        Mail::Session(..)
        | Mail::Octets(..)
        | Mail::Notice(..)
        | Mail::Joined(..)
        | Mail::Neighbor(..)
        | Mail::Release
        | Mail::Originate(_)
        | Mail::Retract(..)
        | Mail::Query(..)
        | Mail::Neighbors(_) => unreachable!("the position of a batch"),
    }
}
