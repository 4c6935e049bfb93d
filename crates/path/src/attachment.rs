//! To which PoPs a gateway is attached: the nearest, in several places, and as many as it should
//! be, whoever dies.

mod pick;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use base::{Instant, Name, Rng, SiteName};
use pick::Far;

/// How long the measurements of those that answer are waited for once there are enough.
const GATHER: Duration = Duration::from_millis(300);
/// How long the first of them are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A link may be down so long before another PoP stands in.
const LOST: Duration = Duration::from_secs(1);
/// A handshake may take so long: after it somebody else is tried.
const AWAY: Duration = Duration::from_secs(5);
/// So many more PoPs than wanted are dialled at the most.
const STAND_INS: usize = 2;
/// From one review to the next: so long, and up to half as much more, so that gateways that began
/// together do not go on together.
const REVIEW: Duration = Duration::from_secs(240);
const JITTER_MS: u64 = 120_000;
/// The soonest that a review begins of PoPs that are new.
const SOON: Duration = Duration::from_secs(5);
/// So many are measured in one review, those first that were not for the longest time.
const BUDGET: usize = 16;
/// So many measurements in a row speak for a PoP that takes another's place.
const IN_A_ROW: usize = 3;

/// A PoP that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The PoP.
    pub site: SiteName,
    /// Where it is; `None`: where nobody else is.
    pub region: Option<Name>,
}

/// Chooses PoPs by their distance and their places, and others for those to which there is no link
/// or that are not among the nearest any more.
///
/// It dials and measures nothing: its shell asks [`Attachment::take_due`] whom to measure, tells what
/// it found and which links are up, and dials whom [`Attachment::chosen`] names. A PoP takes the
/// place of another one only if it was clearly better several times in a row, one at a time and not
/// before there is a link to it; so nothing moves by noise.
#[derive(Debug)]
pub struct Attachment {
    count: usize,
    /// In the order in which they are taken where nothing is known of them.
    candidates: Vec<Candidate>,
    /// How far they are.
    far: BTreeMap<SiteName, Samples>,
    /// The chosen ones, and since when there is no link; `None`: there is one.
    chosen: BTreeMap<SiteName, Option<Instant>>,
    up: BTreeMap<SiteName, Up>,
    /// Whom to measure.
    due: BTreeSet<SiteName>,
    /// Of whom the review under way waits to hear.
    awaited: BTreeSet<SiteName>,
    swap: Option<Swap>,
    /// When the candidates were told.
    began: Option<Instant>,
    /// When it was chosen last.
    last: Instant,
    review_at: Option<Instant>,
    rng: Rng,
}

/// What was measured of one PoP last, at most [`IN_A_ROW`] times.
#[derive(Clone, Debug, Default)]
struct Samples {
    at: Instant,
    /// The newest last; `None`: it did not answer.
    rtts: VecDeque<Option<Duration>>,
}

impl Samples {
    fn push(&mut self, now: Instant, rtt: Option<Duration>) {
        self.at = now;
        self.rtts.push_back(rtt);
        if self.rtts.len() > IN_A_ROW {
            self.rtts.pop_front();
        }
    }

    fn last(&self) -> Option<Duration> {
        self.rtts.back().copied().flatten()
    }

    fn least(&self) -> Option<Duration> {
        self.rtts.iter().flatten().min().copied()
    }

    /// The worst of several in a row.
    fn worst(&self) -> Option<Duration> {
        let all: Option<Vec<Duration>> = self.rtts.iter().copied().collect();
        all.filter(|all| all.len() == IN_A_ROW)?.into_iter().max()
    }
}

/// A link to a PoP.
#[derive(Clone, Copy, Debug)]
struct Up {
    since: Instant,
    rtt: Option<Duration>,
}

/// One PoP is to take the place of another, once there is a link to it.
#[derive(Clone, Debug)]
struct Swap {
    to: SiteName,
    from: SiteName,
    since: Instant,
}

impl Attachment {
    /// Attached to nobody; `seed` spreads the reviews of many gateways.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Attachment {
            count: 0,
            candidates: Vec::new(),
            far: BTreeMap::new(),
            chosen: BTreeMap::new(),
            up: BTreeMap::new(),
            due: BTreeSet::new(),
            awaited: BTreeSet::new(),
            swap: None,
            began: None,
            last: Instant::ZERO,
            review_at: None,
            rng: Rng::new(seed),
        }
    }

    /// It should be attached to `count` of these.
    pub fn want(&mut self, now: Instant, count: usize, candidates: Vec<Candidate>) {
        if self.count == count && self.candidates == candidates {
            return;
        }
        let fewer = count < self.count;
        self.count = count;
        self.candidates = candidates;
        let candidates = &self.candidates;
        let is_one = |site: &SiteName| candidates.iter().any(|one| one.site == *site);
        self.far.retain(|site, _| is_one(site));
        self.chosen.retain(|site, _| is_one(site));
        self.due.retain(&is_one);
        self.awaited.retain(&is_one);
        self.began = Some(now);
        if self.is_few() {
            self.due.clear();
            self.review_at = None;
        } else {
            let unknown =
                |site: &&SiteName| !self.far.contains_key(*site) && !self.is_attached(site);
            let sites = self.candidates.iter().map(|one| &one.site);
            let unknown: Vec<SiteName> = sites.filter(unknown).cloned().collect();
            if !self.is_settled() {
                self.due.extend(unknown);
            } else if !unknown.is_empty() {
                self.hasten(now);
            }
            if self.review_at.is_none() {
                self.review_at = Some(now + REVIEW + self.jitter());
            }
        }
        if fewer {
            self.let_go();
        }
        self.forget_swap();
        self.choose(now);
    }

    /// What was measured of a candidate counts no more: its addresses are others.
    pub fn forget(&mut self, now: Instant, site: &SiteName) {
        let known = self.far.remove(site).is_some() && !self.is_few() && !self.is_attached(site);
        match known && self.is_settled() {
            true => self.hasten(now),
            false if known => drop(self.due.insert(site.clone())),
            false => {}
        }
    }

    /// The next review is soon, and not at once: all gateways hear of a new PoP together. It begins
    /// with those of whom nothing is known.
    fn hasten(&mut self, now: Instant) {
        let soon = now + SOON + self.jitter() / 2;
        self.review_at = Some(self.review_at.map_or(soon, |at| at.min(soon)));
    }

    fn jitter(&mut self) -> Duration {
        Duration::from_millis(self.rng.below(JITTER_MS))
    }

    /// Whom to measure now; each is named once. What comes of it is to be told in any case.
    pub fn take_due(&mut self) -> BTreeSet<SiteName> {
        std::mem::take(&mut self.due)
    }

    /// Is there somebody to be measured?
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// A round trip to a candidate took so long, or it did not answer.
    pub fn handle_measured(&mut self, now: Instant, site: &SiteName, rtt: Option<Duration>) {
        if self.candidates.iter().all(|one| one.site != *site) {
            return;
        }
        self.far.entry(site.clone()).or_default().push(now, rtt);
        self.choose(now);
        if self.awaited.remove(site) && self.awaited.is_empty() {
            self.compare(now);
        }
    }

    /// There is a link to a site now, so far away as it is known, or there is none.
    pub fn handle_link(&mut self, now: Instant, site: &SiteName, up: bool, rtt: Option<Duration>) {
        let was = self.up.get(site).map(|up| up.since);
        if up {
            let since = was.unwrap_or(now);
            self.up.insert(site.clone(), Up { since, rtt });
        } else {
            self.up.remove(site);
        }
        if was.is_some() == up {
            return;
        }
        if let Some(down) = self.chosen.get_mut(site) {
            *down = (!up).then_some(now);
            // Whose place was to be taken is gone: the other one stands in for it already.
            self.swap = self.swap.take().filter(|swap| up || swap.from != *site);
            if let Some(swap) = self.swap.take_if(|swap| up && swap.to == *site) {
                self.chosen.remove(&swap.from);
            }
            self.choose(now);
        }
    }

    /// Chooses again, since time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |swap: &mut Swap| now >= swap.since + AWAY;
        if let Some(swap) = self.swap.take_if(late) {
            self.chosen.remove(&swap.to);
            self.far.entry(swap.to).or_default().push(now, None);
        }
        self.choose(now);
        if self.review_at.is_some_and(|at| now >= at) {
            self.review(now);
        }
    }

    /// When [`Attachment::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let swap = self.swap.as_ref().map(|swap| swap.since + AWAY);
        let all = [self.choice_due(), swap, self.review_at];
        all.into_iter().flatten().min()
    }

    /// Whom to dial.
    #[must_use]
    pub const fn chosen(&self) -> &BTreeMap<SiteName, Option<Instant>> {
        &self.chosen
    }

    fn choice_due(&self) -> Option<Instant> {
        if !self.is_settled() {
            let wait = if self.answered() >= self.count {
                GATHER
            } else {
                PATIENCE
            };
            return self.began.map(|began| began + wait);
        }
        // Nobody else is left: nothing to wait for.
        let more = self
            .candidates
            .iter()
            .any(|one| !self.chosen.contains_key(&one.site));
        if !more || self.standing(None) >= self.count {
            return None;
        }
        let down = self.chosen.values().flatten();
        let due = down.flat_map(|since| [*since + LOST, *since + AWAY]);
        due.filter(|due| *due > self.last).min()
    }

    /// There is nothing to choose.
    fn is_few(&self) -> bool {
        self.candidates.len() <= self.count
    }

    /// Chosen, and linked: its link says how far it is.
    fn is_attached(&self, site: &SiteName) -> bool {
        self.chosen.contains_key(site) && self.up.contains_key(site)
    }

    fn answered(&self) -> usize {
        let answered = |samples: &&Samples| samples.last().is_some();
        self.far.values().filter(answered).count()
    }

    /// Was there a first choice?
    fn is_settled(&self) -> bool {
        !self.chosen.is_empty() || self.candidates.is_empty()
    }

    /// Chosen ones with a link, or, at `now`, on their way to one.
    fn standing(&self, now: Option<Instant>) -> usize {
        let stands = |down: &&Option<Instant>| match (down, now) {
            (None, _) => true,
            (Some(since), Some(now)) => now < *since + LOST,
            (Some(_), None) => false,
        };
        self.chosen.values().filter(stands).count()
    }

    /// Choose as many as there should be, for the first time or in the place of lost ones.
    fn choose(&mut self, now: Instant) {
        self.last = now;
        let few = self.is_few();
        let first = !self.is_settled();
        if !few && first {
            let passed = self.began.map_or(Duration::ZERO, |began| now.since(began));
            let all = self.far.len() == self.candidates.len();
            let enough = self.answered() >= self.count && passed >= GATHER;
            if !(all || enough || passed >= PATIENCE) {
                return;
            }
        }
        let mut free: Vec<Far<'_>> = Vec::new();
        for one in &self.candidates {
            if !self.chosen.contains_key(&one.site) {
                let rtt = self.far.get(&one.site).and_then(Samples::last);
                free.push(Far::new(one, rtt.unwrap_or(Duration::MAX)));
            }
        }
        let mut taken = regions(&self.candidates, &self.chosen);
        let mut new: Vec<SiteName> = Vec::new();
        let chosen = &mut self.chosen;
        // As `standing`, of those that are there and of new ones.
        let stands = |down: &Option<Instant>| down.is_none_or(|since| now < since + LOST);
        while few || chosen.values().filter(|down| stands(down)).count() < self.count {
            let Some(next) = pick::next(&mut free, &taken) else {
                break;
            };
            if chosen.len() >= self.count + STAND_INS {
                // Whoever has been away longest makes room, if that is so long that it will not come.
                let down = chosen
                    .iter()
                    .filter_map(|(site, down)| Some(((*down)?, site)));
                let Some((_, longest)) = down.filter(|(since, _)| now >= *since + AWAY).min()
                else {
                    break;
                };
                let longest = longest.clone();
                chosen.remove(&longest);
            }
            taken.extend(&next.region);
            let down = (!self.up.contains_key(&next.site)).then_some(now);
            chosen.insert(next.site.clone(), down);
            new.push(next.site.clone());
        }
        if !few && !first && !new.is_empty() {
            // Who did not answer is asked again, for when one more has to stand in.
            let silent = |samples: &Samples| samples.last().is_none();
            let silent = self.far.iter().filter(|(_, samples)| silent(samples));
            let silent: Vec<SiteName> = silent.map(|(site, _)| site.clone()).collect();
            self.due.extend(silent);
        }
    }

    /// Measures some of those to which there is no link, and compares them when that is done.
    fn review(&mut self, now: Instant) {
        self.review_at = Some(now + REVIEW + self.jitter());
        for (site, up) in &self.up {
            if let (Some(rtt), true) = (up.rtt, self.chosen.contains_key(site)) {
                let samples = self.far.entry(site.clone()).or_default();
                samples.push(now, Some(rtt));
            }
        }
        let others = self.candidates.iter().map(|one| &one.site);
        let others = others.filter(|site| !self.chosen.contains_key(*site));
        let mut others: Vec<&SiteName> = others.collect();
        others.sort_by_key(|site| self.far.get(*site).map(|samples| samples.at));
        let others = others.into_iter().take(BUDGET).cloned();
        self.awaited = others.collect();
        self.due.extend(self.awaited.iter().cloned());
        if self.awaited.is_empty() {
            self.compare(now);
        }
    }

    /// Lets go of one that is too many, or has one take the place of another.
    fn compare(&mut self, now: Instant) {
        let attached = self.attached();
        if self.swap.is_some() || self.is_few() || attached.len() < self.count {
            return;
        }
        if attached.len() > self.count {
            let best = pick::several(self.count, attached);
            let steady = |far: &Far<'_>| {
                let up = self.up.get(&far.one.site);
                up.is_some_and(|up| now >= up.since + REVIEW)
            };
            if best.iter().all(steady) {
                self.let_go();
            }
            return;
        }
        let others = self.candidates.iter().filter_map(|one| {
            let there = self.chosen.contains_key(&one.site);
            let worst = self.far.get(&one.site).filter(|_| !there)?.worst()?;
            Some(Far::new(one, pick::handicapped(worst)))
        });
        let all = attached.iter().copied().chain(others).collect();
        let best = pick::several(self.count, all);
        let is_best = |far: &&Far<'_>| best.iter().any(|best| best.one == far.one);
        let better = best
            .iter()
            .find(|far| !self.chosen.contains_key(&far.one.site));
        // Rather one of its own region, so that no two are in one meanwhile.
        let region = better.and_then(|far| far.one.region.as_ref());
        let shares = |far: &Far<'_>| region.is_some() && far.one.region.as_ref() == region;
        let worst = attached.iter().filter(|far| !is_best(far));
        let worst = worst.max_by_key(|far| (shares(far), far.rtt));
        if let (Some(to), Some(from)) = (better, worst) {
            let (to, from) = (to.one.site.clone(), from.one.site.clone());
            let down = (!self.up.contains_key(&to)).then_some(now);
            self.chosen.insert(to.clone(), down);
            if down.is_none() {
                self.chosen.remove(&from);
                return;
            }
            let since = now;
            self.swap = Some(Swap { to, from, since });
        }
    }

    /// The chosen ones to which there is a link, as near as they were lately.
    fn attached(&self) -> Vec<Far<'_>> {
        let attached = self.candidates.iter().filter_map(|one| {
            let up = self.up.get(&one.site)?;
            self.chosen.get(&one.site)?;
            let rtt = self.far.get(&one.site).and_then(Samples::least);
            Some(Far::new(one, rtt.or(up.rtt).unwrap_or(Duration::MAX)))
        });
        attached.collect()
    }

    /// Lets go of those that are more than wanted: first of those without a link, then of those
    /// that would not be chosen.
    fn let_go(&mut self) {
        let best = pick::several(self.count, self.attached());
        let mut order: Vec<(bool, Duration, SiteName)> = Vec::new();
        for site in self.chosen.keys() {
            let is_best = best.iter().any(|far| far.one.site == *site);
            let rtt = self.far.get(site).and_then(Samples::last);
            let key = (!is_best, rtt.unwrap_or(Duration::MAX), site.clone());
            order.push(key);
        }
        order.sort_by_key(|(is_not, rtt, site)| {
            (*is_not, !self.up.contains_key(site), *rtt, site.clone())
        });
        for (_, _, site) in order.into_iter().skip(self.count) {
            self.chosen.remove(&site);
        }
        self.forget_swap();
    }

    /// A swap of which one is not there any more is none.
    fn forget_swap(&mut self) {
        self.swap = self.swap.take().filter(|swap| {
            self.chosen.contains_key(&swap.to) && self.chosen.contains_key(&swap.from)
        });
    }
}

/// Where the chosen ones are.
fn regions<'a>(
    candidates: &'a [Candidate],
    chosen: &BTreeMap<SiteName, Option<Instant>>,
) -> BTreeSet<&'a Name> {
    let chosen = |one: &&Candidate| chosen.contains_key(&one.site);
    let chosen = candidates.iter().filter(chosen);
    chosen.filter_map(|one| one.region.as_ref()).collect()
}

#[cfg(test)]
mod tests;
