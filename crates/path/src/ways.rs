//! The way to every site: over one's own links and those that others announce.
//!
//! Whoever begins a stream chooses its whole way; who passes it on only follows. So two sites that
//! see the world differently for a moment never send a stream in a circle.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use base::{Instant, SiteId};

use crate::{Grade, Load, Loss};

/// The most links of a way.
pub const MAX_HOPS: usize = 5;

/// What every link costs beside its round trip: of two ways that are about as long, the one with
/// fewer relays.
const HOP: Duration = Duration::from_millis(1);
/// What a doubted link costs more: any other way is better.
const DOUBT: Duration = Duration::from_secs(3600);
/// A way that serves is left for one that is better by this part of its cost, and by this much.
const BETTER_PART: u32 = 16;
const BETTER_BY: Duration = Duration::from_millis(2);
/// How long a way is kept at least before a better one takes its place. One that is gone, or costs
/// several times as much, is left at once.
const HOLD: Duration = Duration::from_secs(10);
const SEVERAL: u32 = 3;
/// Load follows traffic, and ways follow load: with each change that a load has brought about the next
/// one waits twice as long, until a way has lasted so many times as long as it had to. 640 s at most.
const MOST_DOUBLED: u32 = 6;
const CALM: u32 = 4;

/// Links between sites, and who passes streams on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    links: BTreeMap<SiteId, BTreeMap<SiteId, Stretch>>,
    relays: BTreeSet<SiteId>,
    doubted: BTreeSet<(SiteId, SiteId)>,
}

/// A link from one site to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    rtt: Duration,
    loss: Loss,
    load: Load,
    grade: Grade,
}

impl Stretch {
    fn cost(&self) -> Duration {
        self.grade.weigh(self.rtt) + self.loss.delay() + self.load.delay()
    }
}

impl Graph {
    /// A stream may go from `from` to `to`: its round trip, what is lost, and of what sort the link
    /// is. Of several the best counts.
    pub fn link(&mut self, from: SiteId, to: SiteId, rtt: Duration, loss: Loss, grade: Grade) {
        self.loaded_link(from, to, rtt, loss, grade, Load::default());
    }

    /// As [`Graph::link`], of a link that is so full.
    pub fn loaded_link(
        &mut self,
        from: SiteId,
        to: SiteId,
        rtt: Duration,
        loss: Loss,
        grade: Grade,
        load: Load,
    ) {
        let new = Stretch {
            rtt,
            loss,
            load,
            grade,
        };
        let links = self.links.entry(from).or_default();
        let known = links.entry(to).or_insert(new);
        if new.cost() < known.cost() {
            *known = new;
        }
    }

    /// It is likely that nothing passes from `from` to `to`: another way is better, if there is one.
    pub fn doubt(&mut self, from: SiteId, to: SiteId) {
        self.doubted.insert((from, to));
    }

    /// `site` passes streams on.
    pub fn relay(&mut self, site: SiteId) {
        self.relays.insert(site);
    }

    fn stretch(&self, from: SiteId, to: SiteId) -> Option<Stretch> {
        self.links.get(&from)?.get(&to).copied()
    }

    /// The cheapest way from `own` to every site that can be reached in [`MAX_HOPS`] links; of
    /// equal ones the one with fewer links, then with the smaller numbers. O(links × log), at most
    /// [`MAX_HOPS`] times.
    fn ways(&self, own: SiteId) -> BTreeMap<SiteId, Way> {
        let mut found: BTreeMap<SiteId, Way> = BTreeMap::new();
        // A dearer way with fewer links leads further than a cheaper one with more.
        let mut fewest: BTreeMap<SiteId, usize> = BTreeMap::new();
        let mut heap = BinaryHeap::from([Reverse((Duration::ZERO, Vec::new(), own))]);
        while let Some(Reverse((_, hops, at))) = heap.pop() {
            if fewest.get(&at).is_some_and(|fewest| *fewest <= hops.len()) {
                continue;
            }
            fewest.insert(at, hops.len());
            if at != own {
                if let Some(way) = self.measured(own, &hops) {
                    found.entry(at).or_insert(way);
                }
                if !self.relays.contains(&at) || hops.len() == MAX_HOPS {
                    continue;
                }
            }
            for to in self.links.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if *to == own || hops.contains(to) {
                    continue;
                }
                let mut hops = hops.clone();
                hops.push(*to);
                if let Some(way) = self.measured(own, &hops) {
                    heap.push(Reverse((way.cost(), hops, *to)));
                }
            }
        }
        found
    }

    /// The way over these hops as it is now; `None` if a link of it is gone or a site on it does
    /// not pass streams on.
    fn measured(&self, own: SiteId, hops: &[SiteId]) -> Option<Way> {
        let (_, relays) = hops.split_last()?;
        if !relays.iter().all(|site| self.relays.contains(site)) {
            return None;
        }
        let froms = std::iter::once(&own).chain(hops);
        let stretches = froms.zip(hops);
        let measured = stretches.clone().map(|(from, to)| self.stretch(*from, *to));
        let measured = measured.collect::<Option<Vec<Stretch>>>()?;
        let mut stretches = stretches;
        Some(Way {
            hops: hops.to_vec(),
            rtts: measured.iter().map(|stretch| stretch.rtt).collect(),
            grades: measured.iter().map(|stretch| stretch.grade).collect(),
            loads: measured.iter().map(|stretch| stretch.load).collect(),
            loss: measured
                .iter()
                .fold(Loss::default(), |loss, stretch| loss.and(stretch.loss)),
            doubted: stretches.any(|(from, to)| self.doubted.contains(&(*from, *to))),
        })
    }
}

/// A way to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The sites on it, one's own left out, the destination last: 1 to [`MAX_HOPS`].
    pub hops: Vec<SiteId>,
    /// The round trip of each of its links.
    pub rtts: Vec<Duration>,
    /// Of what sort each of them is.
    pub grades: Vec<Grade>,
    /// How full each of them is.
    pub loads: Vec<Load>,
    /// The part that is lost on it.
    pub loss: Loss,
    /// Does it go over a link of which it is likely that nothing passes?
    pub doubted: bool,
}

impl Way {
    /// The round trip over all its links.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.rtts.iter().sum()
    }

    fn cost(&self) -> Duration {
        self.bare_cost() + self.loads.iter().map(|load| load.delay()).sum::<Duration>()
    }

    /// What it would cost if nobody used it.
    fn bare_cost(&self) -> Duration {
        let doubt = if self.doubted { DOUBT } else { Duration::ZERO };
        let links = self.rtts.iter().zip(&self.grades);
        links
            .map(|(rtt, grade)| grade.weigh(*rtt))
            .sum::<Duration>()
            + self.loss.delay()
            + doubt
            + HOP * u32::try_from(self.hops.len()).unwrap_or(u32::MAX)
    }

    /// Is it so much better than `other` that changing is worth it?
    fn beats(&self, other: &Way) -> bool {
        is_better(self.cost(), other.cost())
    }

    /// And would it be, if nobody used either?
    fn beats_bare(&self, other: &Way) -> bool {
        is_better(self.bare_cost(), other.bare_cost())
    }
}

fn is_better(ours: Duration, theirs: Duration) -> bool {
    theirs > ours + (theirs / BETTER_PART).max(BETTER_BY)
}

/// The ways of one site, steady under noise: a way is changed when it breaks, or for one that is
/// clearly better, and that at most once in ten seconds.
#[derive(Debug)]
pub struct Ways {
    own: SiteId,
    ways: BTreeMap<SiteId, Held>,
    /// A better way waits until then.
    waits: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    way: Way,
    /// When it took the place of another one; `None`: it is the first.
    since: Option<Instant>,
    /// How often the time that it is kept was doubled.
    doubled: u32,
}

impl Held {
    fn hold(&self) -> Duration {
        HOLD * 2_u32.pow(self.doubled)
    }

    /// `next` takes its place.
    fn change(&mut self, now: Instant, next: &Way) {
        let calm = self.hold() * CALM;
        let calm = self.since.is_none_or(|since| now.since(since) >= calm);
        let before = if calm { 0 } else { self.doubled };
        self.doubled = match next.beats_bare(&self.way) {
            true => before,
            false => MOST_DOUBLED.min(before + 1),
        };
        self.since = Some(now);
    }
}

impl Ways {
    /// No way to anywhere, from `own`.
    #[must_use]
    pub fn new(own: SiteId) -> Self {
        Ways {
            own,
            ways: BTreeMap::new(),
            waits: None,
        }
    }

    /// The way to `site`, if there is one.
    #[must_use]
    pub fn way(&self, site: SiteId) -> Option<&Way> {
        self.ways.get(&site).map(|held| &held.way)
    }

    /// Every way, by its destination.
    pub fn iter(&self) -> impl Iterator<Item = (SiteId, &Way)> {
        self.ways.iter().map(|(site, held)| (*site, &held.way))
    }

    /// When [`Ways::settle`] should be called again although nothing changed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waits
    }

    /// Choose anew by the links there are `now`. What comes back are the sites to which the way is
    /// another one, or as long as it was not.
    pub fn settle(&mut self, now: Instant, graph: &Graph) -> BTreeSet<SiteId> {
        let best = graph.ways(self.own);
        self.waits = None;
        let mut changed: BTreeSet<SiteId> = BTreeSet::new();
        self.ways.retain(|site, _| {
            let stays = best.contains_key(site);
            if !stays {
                changed.insert(*site);
            }
            stays
        });
        for (site, best) in best {
            let Some(held) = self.ways.get_mut(&site) else {
                // What follows at once is what was not measured yet.
                let held = Held {
                    way: best,
                    since: None,
                    doubled: 0,
                };
                self.ways.insert(site, held);
                changed.insert(site);
                continue;
            };
            let way = match graph.measured(self.own, &held.way.hops) {
                None => {
                    held.since = Some(now);
                    best
                }
                Some(same) if best.beats(&same) => {
                    let due = held.since.map_or(now, |since| since + held.hold());
                    if due <= now || same.bare_cost() > best.bare_cost() * SEVERAL {
                        held.way = same;
                        held.change(now, &best);
                        best
                    } else {
                        self.waits = Some(self.waits.map_or(due, |waits| waits.min(due)));
                        same
                    }
                }
                Some(same) => same,
            };
            if (&way.hops, &way.rtts) != (&held.way.hops, &held.way.rtts) {
                changed.insert(site);
            }
            held.way = way;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LinkClass;

    const MS: Duration = Duration::from_millis(1);
    const PAR: SiteId = SiteId(1);
    const LON: SiteId = SiteId(2);
    const NYC: SiteId = SiteId(3);
    const SIN: SiteId = SiteId(4);
    const SHOP: SiteId = SiteId(5);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    fn graph(links: &[(SiteId, SiteId, u32)]) -> Graph {
        let mut graph = Graph::default();
        for (a, b, rtt) in links {
            graph.link(*a, *b, MS * *rtt, Loss::default(), Grade::default());
            graph.link(*b, *a, MS * *rtt, Loss::default(), Grade::default());
        }
        for pop in [PAR, LON, NYC, SIN] {
            graph.relay(pop);
        }
        graph
    }

    fn backbone() -> Vec<(SiteId, SiteId, u32)> {
        vec![
            (PAR, LON, 5),
            (PAR, NYC, 40),
            (LON, NYC, 38),
            (NYC, SIN, 110),
            (PAR, SIN, 90),
            (NYC, SHOP, 5),
        ]
    }

    fn hops(ways: &Ways, to: SiteId) -> &[SiteId] {
        ways.way(to).map_or(&[], |way| &way.hops)
    }

    #[test]
    fn the_shortest_way_and_round_a_cut() {
        let mut ways = Ways::new(PAR);
        let changed = ways.settle(at(0), &graph(&backbone()));
        assert_eq!(changed, BTreeSet::from([LON, NYC, SIN, SHOP]));
        assert_eq!(hops(&ways, SHOP), [NYC, SHOP]);
        assert_eq!(ways.way(SHOP).map(Way::rtt), Some(45 * MS));
        let cut: Vec<_> = backbone()
            .into_iter()
            .filter(|(a, b, _)| (*a, *b) != (PAR, NYC))
            .collect();
        let changed = ways.settle(at(100), &graph(&cut));
        assert_eq!(changed, BTreeSet::from([NYC, SHOP]));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        // Healed: back, when the detour has served for ten seconds.
        assert_eq!(ways.settle(at(9_000), &graph(&backbone())), BTreeSet::new());
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        assert_eq!(ways.poll_timeout(), Some(at(10_100)));
        ways.settle(at(10_100), &graph(&backbone()));
        assert_eq!(hops(&ways, SHOP), [NYC, SHOP]);
    }

    #[test]
    fn gateways_pass_nothing_on() {
        let links = [(PAR, SHOP, 1), (SHOP, NYC, 1)];
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &graph(&links));
        assert_eq!(hops(&ways, SHOP), [SHOP]);
        assert_eq!(ways.way(NYC), None);
    }

    #[test]
    fn a_better_way_waits_for_its_time_and_then_is_taken() {
        let near = |rtt| {
            let mut links = backbone();
            links.retain(|(a, b, _)| (*a, *b) != (PAR, NYC));
            links.push((PAR, NYC, rtt));
            graph(&links)
        };
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &near(20));
        // The first is not waited for; and then it is.
        ways.settle(at(0), &near(60));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        ways.settle(at(4_000), &near(20));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        assert_eq!(ways.poll_timeout(), Some(at(10_000)));
        ways.settle(at(10_000), &near(20));
        assert_eq!(hops(&ways, SHOP), [NYC, SHOP]);
        assert_eq!(ways.poll_timeout(), None);
        // Several times as long: at once.
        ways.settle(at(11_000), &near(300));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
    }

    #[test]
    fn under_noise_a_way_changes_once_in_ten_seconds_at_most() {
        let mut ways = Ways::new(PAR);
        let mut rng = base::Rng::new(7);
        let mut before: Option<Vec<SiteId>> = None;
        let mut changed: Option<Instant> = None;
        let mut others = BTreeSet::new();
        for n in 0..6_000 {
            let links: Vec<_> = backbone()
                .into_iter()
                .map(|(a, b, rtt)| {
                    // So much that now one way is clearly better and now the other.
                    let noise = rng.below(u64::from(rtt) / 2 + 1);
                    (a, b, rtt + u32::try_from(noise).unwrap_or(0))
                })
                .collect();
            let now = at(n * 100);
            ways.settle(now, &graph(&links));
            let hops = hops(&ways, SHOP).to_vec();
            others.insert(hops.clone());
            if before.as_ref().is_some_and(|before| *before != hops) {
                let last = changed.replace(now);
                let early = last.filter(|last| now < *last + HOLD);
                assert_eq!(early, None, "and again at {now:?}");
            }
            before = Some(hops);
        }
        assert!(others.len() > 1, "there was nothing to hold back");
    }

    #[test]
    fn a_dearer_way_with_fewer_links_leads_further() {
        let sites: Vec<SiteId> = (1..=8).map(SiteId).collect();
        let mut graph = Graph::default();
        for pair in sites.windows(2) {
            graph.link(pair[0], pair[1], MS, Loss::default(), Grade::default());
        }
        // Straight to the fifth: dear, and the only one that leaves links for what is behind it.
        graph.link(
            SiteId(1),
            SiteId(5),
            MS * 50,
            Loss::default(),
            Grade::default(),
        );
        sites.iter().for_each(|site| graph.relay(*site));
        let mut ways = Ways::new(SiteId(1));
        ways.settle(at(0), &graph);
        assert_eq!(hops(&ways, SiteId(5)), [2, 3, 4, 5].map(SiteId));
        assert_eq!(hops(&ways, SiteId(7)), [5, 6, 7].map(SiteId));
    }

    #[test]
    fn a_doubted_link_is_left_at_once_if_there_is_another_way() {
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &graph(&backbone()));
        let mut doubted = graph(&backbone());
        doubted.doubt(PAR, NYC);
        ways.settle(at(100), &doubted);
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        // The doubt is over: back when it has served for ten seconds.
        ways.settle(at(200), &graph(&backbone()));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        ways.settle(at(10_100), &graph(&backbone()));
        assert_eq!(hops(&ways, SHOP), [NYC, SHOP]);
        // Without another way its length is what it was.
        let alone = [(PAR, SHOP, 5)];
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &graph(&alone));
        let mut doubted = graph(&alone);
        doubted.doubt(PAR, SHOP);
        ways.settle(at(100), &doubted);
        assert_eq!(ways.way(SHOP).map(Way::rtt), Some(5 * MS));
    }

    #[test]
    fn a_line_that_loses_packets_is_longer_than_it_is() {
        let mut links = backbone();
        links.retain(|(a, b, _)| (*a, *b) != (PAR, NYC));
        let lossy = |percent: f64| {
            let mut graph = graph(&links);
            graph.link(
                PAR,
                NYC,
                30 * MS,
                Loss::of(percent / 100.0),
                Grade::default(),
            );
            graph
        };
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &lossy(0.1));
        assert_eq!(hops(&ways, SHOP), [NYC, SHOP]);
        ways.settle(at(0), &lossy(2.0));
        assert_eq!(hops(&ways, SHOP), [LON, NYC, SHOP]);
        let way = ways.way(NYC).expect("a way");
        assert_eq!((way.rtt(), way.loss), (43 * MS, Loss::default()));
    }

    /// From `PAR` to `NYC` directly, and over `LON` as long as that, so full.
    fn loaded(direct: u8, over_lon: u8) -> Graph {
        let mut graph = graph(&[(LON, NYC, 21)]);
        let (none, grade) = (Loss::default(), Grade::default());
        graph.loaded_link(PAR, NYC, 40 * MS, none, grade, Load::of(direct));
        graph.loaded_link(PAR, LON, 20 * MS, none, grade, Load::of(over_lon));
        graph
    }

    #[test]
    fn what_begins_goes_round_a_full_link_and_back_when_it_has_room() {
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &loaded(0, 0));
        assert_eq!(hops(&ways, NYC), [NYC]);
        assert_eq!(ways.settle(at(1_000), &loaded(70, 0)), BTreeSet::new());
        assert_eq!(hops(&ways, NYC), [NYC], "it is too little");
        ways.settle(at(2_000), &loaded(100, 0));
        assert_eq!(hops(&ways, NYC), [LON, NYC]);
        let way = ways.way(NYC).expect("a way");
        assert_eq!(
            (way.rtt(), &way.loads[..]),
            (41 * MS, &[Load::of(0); 2][..])
        );
        // Full are both: there is nothing to be won.
        ways.settle(at(30_000), &loaded(100, 100));
        assert_eq!(hops(&ways, NYC), [LON, NYC]);
        // Of a full link alone its length stays.
        let mut ways = Ways::new(PAR);
        let mut alone = graph(&[]);
        let (none, grade) = (Loss::default(), Grade::default());
        alone.loaded_link(PAR, NYC, 5 * MS, none, grade, Load::FULL);
        ways.settle(at(0), &alone);
        assert_eq!(ways.way(NYC).map(Way::rtt), Some(5 * MS));
    }

    #[test]
    fn a_load_alone_moves_nothing_at_once_though_it_costs_several_times_as_much() {
        let short = |load| {
            let mut graph = graph(&[(PAR, LON, 3), (LON, NYC, 3)]);
            let (none, grade) = (Loss::default(), Grade::default());
            graph.loaded_link(PAR, NYC, 4 * MS, none, grade, Load::of(load));
            graph
        };
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &short(0));
        ways.settle(at(1_000), &short(100));
        assert_eq!(hops(&ways, NYC), [LON, NYC]);
        // It has brought a change about: the next one waits twice as long.
        ways.settle(at(20_999), &short(0));
        assert_eq!(hops(&ways, NYC), [LON, NYC]);
        assert_eq!(ways.poll_timeout(), Some(at(21_000)));
        ways.settle(at(21_000), &short(0));
        assert_eq!(hops(&ways, NYC), [NYC]);
        ways.settle(at(22_000), &short(100));
        assert_eq!(hops(&ways, NYC), [NYC]);
        assert_eq!(ways.poll_timeout(), Some(at(41_000)));
        // What breaks is left at once all the same.
        let mut cut = graph(&[(PAR, LON, 3), (LON, NYC, 3)]);
        cut.relay(NYC);
        ways.settle(at(23_000), &cut);
        assert_eq!(hops(&ways, NYC), [LON, NYC]);
    }

    #[test]
    fn load_that_follows_the_way_moves_it_less_and_less_often() {
        // More than a link can carry: whichever way it goes, there it is full, a few seconds later.
        let mut ways = Ways::new(PAR);
        let mut changes: Vec<Instant> = Vec::new();
        let (mut direct, mut over) = (0_u32, 0_u32);
        let mut before = Vec::new();
        for second in 0..3600_u32 {
            let now = at(second * 1000);
            let full = |seconds: u32| if seconds > 10 { 100 } else { 0 };
            ways.settle(now, &loaded(full(direct), full(over)));
            let way = hops(&ways, NYC).to_vec();
            let (on, off) = match way.len() {
                1 => (&mut direct, &mut over),
                _ => (&mut over, &mut direct),
            };
            (*on, *off) = ((*on + 1).min(20), off.saturating_sub(1));
            if second > 0 && way != before {
                changes.push(now);
            }
            before = way;
        }
        let gaps: Vec<u64> = changes
            .windows(2)
            .map(|pair| pair[1].since(pair[0]).as_secs())
            .collect();
        assert!(gaps.iter().all(|gap| *gap >= 20), "{gaps:?}");
        let early = changes
            .iter()
            .filter(|at| at.since(Instant::ZERO).as_secs() < 600);
        let early = early.count();
        assert!((2..=8).contains(&early), "{gaps:?}");
        // And at last once in ten minutes.
        assert!(gaps.iter().rev().take(3).all(|gap| *gap >= 600), "{gaps:?}");
    }

    #[test]
    fn a_better_sort_of_link_is_taken_where_it_is_not_much_longer() {
        let graded = |class, cost, long| {
            let mut graph = graph(&[(PAR, NYC, 40)]);
            let grade = Grade { class, cost };
            let half = MS * long / 2;
            graph.link(PAR, LON, half, Loss::default(), grade);
            graph.link(LON, NYC, half, Loss::default(), grade);
            let mut ways = Ways::new(PAR);
            ways.settle(at(0), &graph);
            hops(&ways, NYC).len()
        };
        for (class, cost, long, links) in [
            // A link more is a millisecond.
            (LinkClass::Internet, 1, 38, 2),
            (LinkClass::Internet, 1, 40, 1),
            (LinkClass::Transit, 1, 42, 2),
            (LinkClass::Transit, 1, 44, 1),
            (LinkClass::Backbone, 1, 54, 2),
            (LinkClass::Backbone, 1, 56, 1),
            (LinkClass::Backbone, 2, 26, 2),
            (LinkClass::Backbone, 2, 28, 1),
        ] {
            assert_eq!(graded(class, cost, long), links, "{class:?} {cost} {long}");
        }
        // What it is worth changes nothing of its length.
        let mut graph = graph(&[]);
        let grade = Grade {
            class: LinkClass::Backbone,
            cost: 1,
        };
        graph.link(PAR, NYC, 40 * MS, Loss::default(), grade);
        let mut ways = Ways::new(PAR);
        ways.settle(at(0), &graph);
        let way = ways.way(NYC).expect("a way");
        assert_eq!((way.rtt(), &way.grades[..]), (40 * MS, &[grade][..]));
    }

    #[test]
    fn no_way_is_longer_than_the_limit() {
        let sites: Vec<SiteId> = (1..=9).map(SiteId).collect();
        let mut graph = Graph::default();
        for pair in sites.windows(2) {
            graph.link(pair[0], pair[1], MS, Loss::default(), Grade::default());
            graph.relay(pair[0]);
        }
        let mut ways = Ways::new(SiteId(1));
        ways.settle(at(0), &graph);
        let longest = ways.iter().map(|(_, way)| way.hops.len()).max();
        assert_eq!(longest, Some(MAX_HOPS));
        assert_eq!(ways.way(SiteId(7)), None);
    }
}
