//! To which PoPs a gateway is attached: the nearest, and as many as it should be, whoever dies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base::{Instant, SiteName};

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

/// Chooses PoPs by their distance, and others in the place of those to which there is no link.
///
/// It dials and measures nothing: its shell asks [`Attachment::unmeasured`] whom to measure, tells
/// what it found and which links are up, and dials whom [`Attachment::chosen`] names. Who was chosen
/// stays chosen as long as it is a candidate and not replaced, so nothing moves by noise.
#[derive(Debug, Default)]
pub struct Attachment {
    count: usize,
    /// In the order in which they are taken where nothing is known of them.
    order: Vec<SiteName>,
    /// What was measured; `None`: it did not answer.
    measured: BTreeMap<SiteName, Option<Duration>>,
    /// The chosen ones, and since when there is no link; `None`: there is one.
    chosen: BTreeMap<SiteName, Option<Instant>>,
    up: BTreeSet<SiteName>,
    /// When the candidates were told.
    began: Option<Instant>,
    /// When it was chosen last.
    last: Instant,
}

impl Attachment {
    /// It should be attached to `count` of these.
    pub fn want(&mut self, now: Instant, count: usize, candidates: Vec<SiteName>) {
        if self.count == count && self.order == candidates {
            return;
        }
        self.count = count;
        self.measured.retain(|site, _| candidates.contains(site));
        self.chosen.retain(|site, _| candidates.contains(site));
        self.order = candidates;
        self.began = Some(now);
        self.choose(now);
    }

    /// Whom to measure now: nobody where there is nothing to choose.
    pub fn unmeasured(&self) -> impl Iterator<Item = &SiteName> {
        let many = self.order.len() > self.count;
        let all = self.order.iter().filter(move |_| many);
        all.filter(|site| !self.measured.contains_key(*site) || self.is_unanswered(site))
    }

    /// A round trip to a candidate took so long, or it did not answer.
    pub fn handle_measured(&mut self, now: Instant, site: SiteName, rtt: Option<Duration>) {
        if self.order.contains(&site) {
            self.measured.insert(site, rtt);
            self.choose(now);
        }
    }

    /// There is a link to a site now, or there is none.
    pub fn handle_link(&mut self, now: Instant, site: &SiteName, up: bool) {
        let changed = match up {
            true => self.up.insert(site.clone()),
            false => self.up.remove(site),
        };
        if let (true, Some(down)) = (changed, self.chosen.get_mut(site)) {
            *down = (!up).then_some(now);
            self.choose(now);
        }
    }

    /// Chooses again, since time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.choose(now);
    }

    /// When [`Attachment::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
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
            .order
            .iter()
            .any(|site| !self.chosen.contains_key(site));
        if !more || self.standing(None) >= self.count {
            return None;
        }
        let down = self.chosen.values().flatten();
        let due = down.flat_map(|since| [*since + LOST, *since + AWAY]);
        due.filter(|due| *due > self.last).min()
    }

    /// Whom to dial.
    #[must_use]
    pub const fn chosen(&self) -> &BTreeMap<SiteName, Option<Instant>> {
        &self.chosen
    }

    /// Was it measured in vain? Then it may be measured again, for when somebody has to stand in.
    #[must_use]
    pub fn is_unanswered(&self, site: &SiteName) -> bool {
        self.is_settled() && self.measured.get(site) == Some(&None)
    }

    fn answered(&self) -> usize {
        self.measured.values().flatten().count()
    }

    /// Was there a first choice?
    fn is_settled(&self) -> bool {
        !self.chosen.is_empty() || self.order.is_empty()
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

    fn choose(&mut self, now: Instant) {
        self.last = now;
        let few = self.order.len() <= self.count;
        if !few && !self.is_settled() {
            let passed = self.began.map_or(Duration::ZERO, |began| now.since(began));
            let all = self.measured.len() == self.order.len();
            let enough = self.answered() >= self.count && passed >= GATHER;
            if !(all || enough || passed >= PATIENCE) {
                return;
            }
        }
        let mut wanted: Vec<(Duration, usize, SiteName)> = Vec::new();
        for (nth, site) in self.order.iter().enumerate() {
            if !self.chosen.contains_key(site) {
                let rtt = self.measured.get(site).copied().flatten();
                wanted.push((rtt.unwrap_or(Duration::MAX), nth, site.clone()));
            }
        }
        wanted.sort();
        for (_, _, site) in wanted {
            if !few && self.standing(Some(now)) >= self.count {
                return;
            }
            if self.chosen.len() >= self.count + STAND_INS {
                // Whoever has been away longest makes room, if that is so long that it will not come.
                let down = self
                    .chosen
                    .iter()
                    .filter_map(|(site, down)| Some(((*down)?, site)));
                let Some((_, longest)) = down.filter(|(since, _)| now >= *since + AWAY).min()
                else {
                    return;
                };
                let longest = longest.clone();
                self.chosen.remove(&longest);
            }
            let down = (!self.up.contains(&site)).then_some(now);
            self.chosen.insert(site, down);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    fn site(name: &str) -> SiteName {
        format!("{name}.fabric").parse().expect("a site")
    }

    fn sites(names: &str) -> Vec<SiteName> {
        names.split_whitespace().map(site).collect()
    }

    fn chosen(attachment: &Attachment) -> String {
        let names: Vec<&str> = attachment
            .chosen()
            .keys()
            .map(|s| s.site.as_str())
            .collect();
        names.join(" ")
    }

    /// Attached to the two nearest of four.
    fn attached() -> Attachment {
        let mut attachment = Attachment::default();
        attachment.want(at(0), 2, sites("sin nyc par lon"));
        for (name, rtt) in [("lon", 9), ("par", 5), ("nyc", 40), ("sin", 90)] {
            attachment.handle_measured(at(rtt), site(name), Some(MS * rtt));
        }
        attachment
    }

    #[test]
    fn the_nearest_are_taken_when_all_are_measured() {
        let mut attachment = attached();
        assert_eq!(chosen(&attachment), "lon par");
        assert_eq!(attachment.unmeasured().count(), 0);
        for name in ["lon", "par"] {
            attachment.handle_link(at(200), &site(name), true);
        }
        assert_eq!(attachment.poll_timeout(), None);
    }

    #[test]
    fn where_there_is_nothing_to_choose_nobody_is_measured() {
        let mut attachment = Attachment::default();
        attachment.want(at(0), 2, sites("par nyc"));
        assert_eq!(chosen(&attachment), "nyc par");
        assert_eq!(attachment.unmeasured().count(), 0);
        assert_eq!(attachment.poll_timeout(), None);
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for_long() {
        let mut attachment = Attachment::default();
        attachment.want(at(0), 2, sites("sin nyc par lon"));
        assert_eq!(attachment.poll_timeout(), Some(at(1000)));
        attachment.handle_measured(at(40), site("nyc"), Some(MS * 40));
        attachment.handle_measured(at(90), site("sin"), Some(MS * 90));
        assert_eq!(chosen(&attachment), "");
        assert_eq!(attachment.poll_timeout(), Some(at(300)));
        attachment.handle_timeout(at(300));
        assert_eq!(chosen(&attachment), "nyc sin");
        // Nobody answers: the eldest.
        let mut attachment = Attachment::default();
        attachment.want(at(0), 2, sites("sin nyc par lon"));
        attachment.handle_timeout(at(1000));
        assert_eq!(chosen(&attachment), "nyc sin");
    }

    #[test]
    fn another_stands_in_for_one_that_is_lost_and_nothing_moves_back() {
        let mut attachment = attached();
        for name in ["lon", "par"] {
            attachment.handle_link(at(200), &site(name), true);
        }
        attachment.handle_link(at(5000), &site("par"), false);
        assert_eq!(chosen(&attachment), "lon par");
        assert_eq!(attachment.poll_timeout(), Some(at(6000)));
        attachment.handle_timeout(at(6000));
        assert_eq!(chosen(&attachment), "lon nyc par");
        attachment.handle_link(at(6100), &site("nyc"), true);
        assert_eq!(attachment.poll_timeout(), None);
        attachment.handle_link(at(9000), &site("par"), true);
        assert_eq!(chosen(&attachment), "lon nyc par");
    }

    #[test]
    fn a_short_loss_changes_nothing() {
        let mut attachment = attached();
        for name in ["lon", "par"] {
            attachment.handle_link(at(200), &site(name), true);
        }
        attachment.handle_link(at(5000), &site("par"), false);
        attachment.handle_link(at(5900), &site("par"), true);
        attachment.handle_timeout(at(6000));
        assert_eq!(chosen(&attachment), "lon par");
        assert_eq!(attachment.poll_timeout(), None);
    }

    #[test]
    fn no_more_than_two_stand_in_at_once() {
        let mut attachment = Attachment::default();
        attachment.want(at(0), 2, sites("a b c d e f"));
        attachment.handle_timeout(at(1000));
        assert_eq!(chosen(&attachment), "a b");
        let mut tried = BTreeSet::new();
        let mut rounds = 0;
        // Nobody answers: it goes on by its own timer, and never at once.
        while let Some(due) = attachment.poll_timeout().filter(|due| *due < at(60_000)) {
            assert!(due > attachment.last, "{due:?}");
            attachment.handle_timeout(due);
            assert!(attachment.chosen().len() <= 4);
            tried.extend(attachment.chosen().keys().cloned());
            rounds += 1;
        }
        assert_eq!(tried.len(), 6, "everybody has a turn");
        assert!(rounds < 100, "{rounds}");
    }

    #[test]
    fn who_is_no_candidate_any_more_goes() {
        let mut attachment = attached();
        attachment.want(at(500), 2, sites("sin nyc lon"));
        assert_eq!(chosen(&attachment), "lon nyc");
        attachment.want(at(600), 1, sites("sin nyc lon"));
        assert_eq!(chosen(&attachment), "lon nyc");
    }
}
