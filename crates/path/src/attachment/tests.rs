use super::*;

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_hours(24);

fn at(ms: u32) -> Instant {
    Instant::ZERO + MS * ms
}

fn site(name: &str) -> SiteName {
    format!("{name}.fabric").parse().expect("a site")
}

/// `NAME`, or `NAME@REGION`.
fn candidates(names: &str) -> Vec<Candidate> {
    let one = |word: &str| {
        let (name, region) = word.split_once('@').unwrap_or((word, ""));
        Candidate {
            site: site(name),
            region: region.parse().ok(),
        }
    };
    names.split_whitespace().map(one).collect()
}

fn chosen(attachment: &Attachment) -> String {
    let names: Vec<&str> = attachment
        .chosen()
        .keys()
        .map(|s| s.site.as_str())
        .collect();
    names.join(" ")
}

/// Wants `count` of those that answer in so many ms.
fn attach(count: usize, names: &str, rtts: &[(&str, u32)]) -> Attachment {
    let mut attachment = Attachment::new(1);
    attachment.want(at(0), count, candidates(names));
    assert_eq!(attachment.take_due().len(), rtts.len());
    for (name, rtt) in rtts {
        attachment.handle_measured(at(*rtt), &site(name), Some(MS * *rtt));
    }
    attachment
}

/// Attached to the two nearest of four.
/// Is nothing to be done before the first review?
fn waits_for_review(attachment: &Attachment) -> bool {
    let due = attachment.poll_timeout().expect("a review");
    (at(240_000)..at(360_000)).contains(&due)
}

fn attached() -> Attachment {
    let rtts = [("lon", 9), ("par", 5), ("nyc", 40), ("sin", 90)];
    let mut attachment = attach(2, "sin nyc par lon", &rtts);
    assert_eq!(chosen(&attachment), "lon par");
    for (name, rtt) in [("lon", 9), ("par", 5)] {
        attachment.handle_link(at(200), &site(name), true, Some(MS * rtt));
    }
    attachment
}

#[test]
fn the_nearest_are_taken_when_all_are_measured() {
    let mut attachment = attached();
    assert!(attachment.take_due().is_empty());
    // Nothing is to be done until the first review.
    assert!(waits_for_review(&attachment));
}

#[test]
fn where_there_is_nothing_to_choose_nobody_is_measured() {
    let mut attachment = Attachment::new(1);
    attachment.want(at(0), 2, candidates("par nyc"));
    assert_eq!(chosen(&attachment), "nyc par");
    assert!(!attachment.is_due());
    assert_eq!(attachment.poll_timeout(), None);
}

#[test]
fn who_does_not_answer_is_not_waited_for_long() {
    let mut attachment = Attachment::new(1);
    attachment.want(at(0), 2, candidates("sin nyc par lon"));
    assert_eq!(attachment.poll_timeout(), Some(at(1000)));
    attachment.handle_measured(at(40), &site("nyc"), Some(MS * 40));
    attachment.handle_measured(at(90), &site("sin"), Some(MS * 90));
    assert_eq!(chosen(&attachment), "");
    assert_eq!(attachment.poll_timeout(), Some(at(300)));
    attachment.handle_timeout(at(300));
    assert_eq!(chosen(&attachment), "nyc sin");
    // Nobody answers: the eldest.
    let mut attachment = Attachment::new(1);
    attachment.want(at(0), 2, candidates("sin nyc par lon"));
    attachment.handle_timeout(at(1000));
    assert_eq!(chosen(&attachment), "nyc sin");
}

#[test]
fn whom_the_first_link_leads_to_is_measured_as_all_are() {
    let mut attachment = Attachment::new(1);
    // Over the address that came with its Token.
    attachment.handle_link(at(0), &site("par"), true, Some(MS * 5));
    attachment.want(at(0), 2, candidates("sin nyc par lon"));
    assert_eq!(attachment.take_due().len(), 4);
    for (name, rtt) in [("par", 5), ("lon", 9), ("nyc", 40), ("sin", 90)] {
        attachment.handle_measured(at(rtt), &site(name), Some(MS * rtt));
    }
    assert_eq!(chosen(&attachment), "lon par");
}

#[test]
fn two_in_one_place_only_where_the_next_is_much_farther() {
    let rtts = [("par", 5), ("cdg", 6), ("lon", 32), ("nyc", 40)];
    let attachment = attach(2, "par@fr cdg@fr lon@uk nyc@us", &rtts);
    assert_eq!(chosen(&attachment), "lon par", "32 is twice 6 and 20");
    let rtts = [("par", 5), ("cdg", 6), ("lon", 33), ("nyc", 40)];
    let attachment = attach(2, "par@fr cdg@fr lon@uk nyc@us", &rtts);
    assert_eq!(chosen(&attachment), "cdg par");
    // Where nobody says where they are, the nearest.
    let attachment = attach(2, "par cdg lon@uk nyc@us", &rtts);
    assert_eq!(chosen(&attachment), "cdg par");
    // And of those that are left, where there are fewer places than wanted.
    let rtts = [("par", 5), ("cdg", 6), ("ory", 7), ("lon", 9)];
    let attachment = attach(3, "par@fr cdg@fr ory@fr lon@uk", &rtts);
    assert_eq!(chosen(&attachment), "cdg lon par");
}

#[test]
fn another_stands_in_for_one_that_is_lost_and_is_let_go_when_it_is_back_for_good() {
    let mut attachment = attached();
    attachment.handle_link(at(5000), &site("par"), false, None);
    assert_eq!(chosen(&attachment), "lon par");
    assert_eq!(attachment.poll_timeout(), Some(at(6000)));
    attachment.handle_timeout(at(6000));
    assert_eq!(chosen(&attachment), "lon nyc par");
    attachment.handle_link(at(6100), &site("nyc"), true, Some(MS * 40));
    assert!(waits_for_review(&attachment));
    attachment.handle_link(at(9000), &site("par"), true, Some(MS * 5));
    let mut world = World::new("lon 9, par 5, nyc 40, sin 90", 0);
    world.run(&mut attachment, at(245_000));
    assert_eq!(
        chosen(&attachment),
        "lon nyc par",
        "it is not back for long"
    );
    world.run(&mut attachment, at(700_000));
    assert_eq!(chosen(&attachment), "lon par");
}

#[test]
fn a_stand_in_is_elsewhere() {
    let rtts = [("par", 5), ("cdg", 6), ("lon", 9), ("fra", 15)];
    let mut attachment = attach(2, "par@fr cdg@fr lon@uk fra@de", &rtts);
    assert_eq!(chosen(&attachment), "lon par");
    for name in ["lon", "par"] {
        attachment.handle_link(at(200), &site(name), true, None);
    }
    attachment.handle_link(at(5000), &site("par"), false, None);
    attachment.handle_timeout(at(6000));
    assert_eq!(chosen(&attachment), "fra lon par");
}

#[test]
fn a_short_loss_changes_nothing() {
    let mut attachment = attached();
    attachment.handle_link(at(5000), &site("par"), false, None);
    attachment.handle_link(at(5900), &site("par"), true, None);
    attachment.handle_timeout(at(6000));
    assert_eq!(chosen(&attachment), "lon par");
    assert!(waits_for_review(&attachment));
}

#[test]
fn no_more_than_two_stand_in_at_once() {
    let mut attachment = Attachment::new(1);
    attachment.want(at(0), 2, candidates("a b c d e f"));
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
    attachment.want(at(500), 2, candidates("sin nyc lon"));
    assert_eq!(chosen(&attachment), "lon nyc");
}

#[test]
fn a_smaller_count_lets_go_of_the_farthest_and_keeps_those_with_a_link() {
    let mut attachment = attached();
    attachment.want(at(500), 1, candidates("sin nyc par lon"));
    assert_eq!(chosen(&attachment), "par");
    let mut attachment = attached();
    attachment.handle_link(at(400), &site("par"), false, None);
    attachment.want(at(500), 1, candidates("sin nyc par lon"));
    assert_eq!(chosen(&attachment), "lon");
    // A greater one takes the next.
    attachment.want(at(600), 3, candidates("sin nyc par lon"));
    assert_eq!(chosen(&attachment), "lon nyc par");
}

#[test]
fn other_addresses_are_measured() {
    let mut attachment = attached();
    // What has a link is known by it.
    attachment.forget(at(500), &site("par"));
    attachment.handle_timeout(at(500));
    let soon = |attachment: &Attachment| {
        let due = attachment.poll_timeout().expect("a review");
        due < at(500) + Duration::from_secs(70)
    };
    assert!(!soon(&attachment));
    attachment.forget(at(500), &site("nyc"));
    // Not at once: all gateways hear of it together.
    assert!(attachment.take_due().is_empty());
    assert!(soon(&attachment));
    let due = attachment.poll_timeout().expect("a review");
    attachment.handle_timeout(due);
    assert!(attachment.take_due().contains(&site("nyc")));
}

/// PoPs with their distances, of which measurements differ by up to so many percent, or three times
/// as much now and then. There is a link as soon as one is chosen.
struct World {
    far: BTreeMap<SiteName, Duration>,
    noise: u64,
    rng: Rng,
    /// When who was chosen changed, and to whom.
    changes: Vec<(Instant, String)>,
    dead: BTreeSet<SiteName>,
}

impl World {
    /// `NAME MS, …`
    fn new(far: &str, noise: u64) -> Self {
        let one = |words: &str| {
            let (name, ms) = words.trim().split_once(' ').expect("two words");
            (site(name), MS * ms.parse::<u32>().expect("a number"))
        };
        World {
            far: far.split(',').map(one).collect(),
            noise,
            rng: Rng::new(7),
            changes: Vec::new(),
            dead: BTreeSet::new(),
        }
    }

    fn measure(&mut self, site: &SiteName) -> Option<Duration> {
        if self.dead.contains(site) {
            return None;
        }
        let far = *self.far.get(site)?;
        let noise = u32::try_from(self.rng.below(self.noise * 2 + 1)).unwrap_or(0);
        let spike = self.noise > 0 && self.rng.chance(1, 50);
        let times = if spike { 3 } else { 1 };
        let rtt = far * (100 + noise) / 100 - far * u32::try_from(self.noise).unwrap_or(0) / 100;
        Some(rtt * times)
    }

    /// Runs until `end` from timer to timer.
    fn run(&mut self, attachment: &mut Attachment, end: Instant) {
        let mut before = chosen(attachment);
        while let Some(now) = attachment.poll_timeout().filter(|at| *at < end) {
            let links: Vec<SiteName> = self.far.keys().cloned().collect();
            for site in &links {
                let up = attachment.chosen().contains_key(site) && !self.dead.contains(site);
                let rtt = self.measure(site).filter(|_| up);
                attachment.handle_link(now, site, up, rtt);
            }
            attachment.handle_timeout(now);
            for site in attachment.take_due() {
                assert!(
                    !attachment.chosen().contains_key(&site),
                    "{site} has a link"
                );
                let rtt = self.measure(&site);
                attachment.handle_measured(now + MS * 100, &site, rtt);
            }
            let links = attachment.up.len();
            assert!(links + 1 >= attachment.count, "one at a time: {links}");
            let after = chosen(attachment);
            if before != after {
                self.changes.push((now, after.clone()));
                before = after;
            }
        }
    }
}

/// Attached in a world that is still.
fn settled(world: &mut World, count: usize, names: &str) -> Attachment {
    let mut attachment = Attachment::new(3);
    attachment.want(at(0), count, candidates(names));
    for site in attachment.take_due() {
        let rtt = world.measure(&site);
        attachment.handle_measured(at(100), &site, rtt);
    }
    let links: Vec<SiteName> = attachment.chosen().keys().cloned().collect();
    for site in links {
        let rtt = world.measure(&site);
        attachment.handle_link(at(200), &site, true, rtt);
    }
    attachment
}

#[test]
fn a_nearer_one_takes_the_place_after_three_measurements_and_its_link_comes_first() {
    let mut world = World::new("lon 9, par 12, nyc 40, sin 90", 0);
    let mut attachment = settled(&mut world, 2, "lon par nyc sin");
    world.run(&mut attachment, at(600_000));
    assert_eq!(chosen(&attachment), "lon par");
    // A new line to New York.
    world.far.insert(site("nyc"), MS * 2);
    let moved = at(600_000);
    world.run(&mut attachment, at(3_600_000));
    let [(first, both), (second, after)] = &world.changes[..] else {
        panic!("{:?}", world.changes);
    };
    assert_eq!((both.as_str(), after.as_str()), ("lon nyc par", "lon nyc"));
    assert!(second > first, "the link came first");
    let took = second.since(moved);
    assert!(took >= REVIEW * 2 && took <= REVIEW * 6, "{took:?}");
}

#[test]
fn a_swap_whose_link_does_not_come_is_given_up() {
    let mut world = World::new("lon 9, par 12, nyc 40", 0);
    let mut attachment = settled(&mut world, 2, "lon par nyc");
    world.far.insert(site("nyc"), MS * 2);
    while !attachment.chosen().contains_key(&site("nyc")) {
        let now = attachment.poll_timeout().expect("a review");
        attachment.handle_timeout(now);
        for site in attachment.take_due() {
            let rtt = world.measure(&site);
            attachment.handle_measured(now, &site, rtt);
        }
    }
    let now = attachment.poll_timeout().expect("it waits for the link");
    assert_eq!(chosen(&attachment), "lon nyc par");
    attachment.handle_timeout(now);
    assert_eq!(chosen(&attachment), "lon par");
    // Whose place it was to take dies: it stands in.
    let mut attachment = settled(&mut world, 2, "lon par nyc");
    world.far.insert(site("par"), MS * 60);
    assert_eq!(chosen(&attachment), "lon nyc");
    let (to, from) = (site("par"), site("nyc"));
    attachment.chosen.insert(to.clone(), Some(at(1000)));
    let since = at(1000);
    attachment.swap = Some(Swap { to, from, since });
    attachment.handle_link(at(1100), &site("nyc"), false, None);
    attachment.handle_link(at(1200), &site("par"), true, None);
    attachment.handle_timeout(at(8000));
    assert_eq!(chosen(&attachment), "lon nyc par");
}

#[test]
fn noise_moves_nothing_for_a_day() {
    for noise in [5, 10, 20] {
        let far = "lon 20, par 21, fra 22, ams 23, mad 28, nyc 80, sin 180";
        let mut world = World::new(far, noise);
        let names = "lon@uk par@fr fra@de ams@nl mad@es nyc@us sin@sg";
        let mut attachment = settled(&mut world, 2, names);
        let first = chosen(&attachment);
        world.run(&mut attachment, Instant::ZERO + DAY);
        assert_eq!(world.changes, [], "from {first}, {noise} %");
    }
}

#[test]
fn every_still_world_comes_to_rest_near_the_best() {
    let mut rng = Rng::new(11);
    for _ in 0..100 {
        let many = 4 + rng.below(8);
        let count = 1 + usize::try_from(rng.below(3)).unwrap_or(0);
        let (mut names, mut far) = (Vec::new(), Vec::new());
        for nth in 0..many {
            names.push(format!("p{nth}@r{}", rng.below(4)));
            far.push(format!("p{nth} {}", 1 + rng.below(120)));
        }
        let names = names.join(" ");
        let mut world = World::new(&far.join(","), 0);
        let mut attachment = settled(&mut world, count, &names);
        // And now everything is elsewhere.
        let far = world.far.values_mut();
        far.for_each(|far| *far = MS * u32::try_from(1 + rng.below(120)).unwrap_or(0));
        world.run(&mut attachment, Instant::ZERO + DAY);
        let changes = &world.changes;
        // Each is a change to both and one to the new one.
        assert!(
            changes.len() <= count * 4,
            "{names} {:?} {changes:?}",
            world.far
        );
        let last = changes.last().map_or(at(0), |(at, _)| *at);
        assert!(last < at(3 * 3_600_000), "{changes:?}");
        assert_eq!(attachment.chosen().len(), count);
        let nearest = world.far.values().min().copied().unwrap_or_default();
        let chosen = attachment.chosen().keys().map(|site| world.far[site]);
        let best = chosen.min().unwrap_or_default();
        assert!(
            best <= pick::handicapped(nearest) * 2 + MS * 20,
            "{best:?} {nearest:?}"
        );
    }
}
