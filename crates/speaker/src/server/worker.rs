//! One thread: its shard, its neighbours, its mail.

use std::{cell::RefCell, collections::BTreeMap, ops::Range, rc::Rc};

use base::Instant;
use bgp::{
    table::{Notice, PeerConfig, PeerIndex, PeerSet, Poll, Shard, shard_of},
    wire::{Decoded, Family, Section, encode},
};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    neighbor::{Door, Word},
    outbox::{Level, Outbox},
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
    /// Octets for neighbours whose sessions live on this thread.
    Octets(Vec<PeerIndex>, Bytes),
    /// What a shard noticed, for the thread where the neighbour's session lives.
    Notice(Notice),
    /// For the task of a neighbour.
    Neighbor(PeerIndex, Word),
    /// Routes of this shard, for people.
    Query(RouteQuery, oneshot::Sender<Routes>),
    /// Neighbours of this thread, and this shard's counts of all, for people.
    Neighbors(oneshot::Sender<NeighborView>),
}

/// What happens to a session, as a shard sees it.
#[derive(Clone, Debug)]
pub(super) enum Session {
    Up(Box<PeerConfig>),
    /// Routes of these families stay, stale.
    Down(Vec<Family>),
    /// End-of-RIB, or a refresh is complete.
    End(Family),
    /// A refresh begins.
    Begin(Family),
    /// The neighbour asks for everything.
    Refresh(Family),
    /// Nothing it has said of this family counts any more.
    Forget(Family),
    /// Its queue of octets.
    Level(Level),
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

/// What the tasks of a thread share.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shard: RefCell<Shard>,
    /// What every neighbour is configured to speak about.
    pub(super) families: BTreeMap<PeerIndex, Vec<Family>>,
    /// Where the sessions of all neighbours live.
    pub(super) homes: Vec<usize>,
    /// Queues of octets of the neighbours whose sessions live here.
    pub(super) outboxes: RefCell<BTreeMap<PeerIndex, Rc<Outbox>>>,
    pub(super) doors: RefCell<BTreeMap<PeerIndex, Door>>,
    pub(super) threads: Vec<mpsc::Sender<Mail>>,
    /// One buffer to read into for all: nothing stays in it.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// Levels that the other threads have not heard of.
    pub(super) levels: RefCell<BTreeMap<PeerIndex, Level>>,
    pub(super) levels_changed: Notify,
    /// The shard has something to do.
    pub(super) work: Notify,
    pub(super) clock: fn() -> Instant,
}

impl Worker {
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
            Session::Up(config) => shard.peer_up(peer, *config),
            Session::Down(keep) => shard.peer_down(peer, &keep),
            Session::End(family) => shard.end_of_rib(peer, family),
            Session::Begin(family) => shard.refresh_begins(peer, family),
            Session::Refresh(family) => shard.refresh(peer, family),
            Session::Forget(family) => shard.forget(peer, family),
            Session::Level(Level::Ready) => shard.resume(peer),
            Session::Level(Level::Busy) => shard.set_ready(peer, false),
            Session::Level(Level::Full) => shard.pause(peer),
        }
        self.work.notify_one();
    }

    /// A neighbour's queue of octets changed its level: known here at once, elsewhere when
    /// [`Worker::tell_levels`] has told it.
    pub(super) fn level(&self, peer: PeerIndex, level: Level) {
        self.session(peer, Session::Level(level));
        if self.threads.len() > 1 {
            self.levels.borrow_mut().insert(peer, level);
            self.levels_changed.notify_one();
        }
    }

    /// Tell the other threads how long the queues of octets here are; only the newest counts.
    pub(super) async fn tell_levels(self: Rc<Self>) {
        loop {
            self.levels_changed.notified().await;
            while let Some((peer, level)) = { self.levels.borrow_mut().pop_first() } {
                for (at, thread) in self.threads.iter().enumerate() {
                    if at != self.index {
                        let what = Session::Level(level);
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

    fn open(&self, letter: Mail) {
        match letter {
            Mail::Session(peer, what) => self.session(peer, what),
            Mail::Routes(batch) => self.take(&batch),
            Mail::Octets(peers, octets) => {
                for peer in peers {
                    self.push(peer, octets.clone());
                }
            }
            Mail::Notice(notice) => self.pass_on(peer_of(notice), Word::Notice(notice)),
            Mail::Neighbor(peer, word) => self.pass_on(peer, word),
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

    fn pass_on(&self, peer: PeerIndex, word: Word) {
        if let Some(door) = self.doors.borrow().get(&peer) {
            door.tell(word);
        }
    }

    async fn notice(&self, notice: Notice) {
        let peer = peer_of(notice);
        if self.is_home_of(peer) {
            self.pass_on(peer, Word::Notice(notice));
        } else if let Some(home) = self.homes.get(usize::from(peer.0)) {
            let _ = self.threads[*home].send(Mail::Notice(notice)).await;
        }
    }

    /// Queue octets for a neighbour whose session lives here.
    pub(super) fn push(&self, peer: PeerIndex, octets: Bytes) {
        let outbox = self.outboxes.borrow().get(&peer).cloned();
        if let Some(level) = outbox.and_then(|outbox| outbox.push(octets)) {
            self.level(peer, level);
        }
    }

    /// Turn what the shard has to say into octets, as long as there is something; between two
    /// turns the neighbours' tasks run.
    pub(super) async fn pump(self: Rc<Self>) {
        let mut turns = 0;
        loop {
            let mut out: Vec<(PeerSet, Bytes)> = Vec::new();
            let poll = {
                let mut shard = self.shard.borrow_mut();
                shard.poll((self.clock)(), &mut |to, octets| {
                    out.push((to.clone(), octets))
                })
            };
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
                self.push(peer, octets.clone());
            } else if let Some(home) = self.homes.get(usize::from(peer.0)) {
                elsewhere.entry(*home).or_default().push(peer);
            }
        }
        for (home, peers) in elsewhere {
            let _ = self.threads[home]
                .send(Mail::Octets(peers, octets.clone()))
                .await;
        }
    }
}

const fn peer_of(notice: Notice) -> PeerIndex {
    match notice {
        Notice::TableSent(peer, _) | Notice::TooMany(peer, _) => peer,
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
        | Mail::Notice(_)
        | Mail::Neighbor(..)
        | Mail::Query(..)
        | Mail::Neighbors(_) => unreachable!("the position of a batch"),
    }
}
