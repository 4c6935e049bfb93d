//! What sites say of their load, and what ingresses make of it.

use api::sync::Running;
use balance::WHOLE;
use bgp::ServiceHealth;

use super::*;

/// The shared world, where each endpoint of acme's cart takes so many requests well.
fn loaded_world(aws: u32, factory: u32) -> World {
    let cart = manifest(&format!(
        "{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: cart}},
           spec: {{port: 8080, origins: [
             {{sites: [aws], addresses: ['10.0.0.1', '10.0.0.2:9090'], weight: 50, capacity: {aws}}},
             {{sites: [factory], addresses: ['10.0.0.1'], capacity: {factory}}}]}}}}"
    ));
    put(&world(), cart)
}

fn cart() -> ServiceId {
    let name = |text: &str| text.parse().expect("a name");
    pki::service_id(&name("shop"), &name("cart"))
}

fn acme(shell: &Shell) -> TenantId {
    shell.table().numbers.tenant
}

/// So many requests of acme's cart run.
fn running(shell: &Shell, requests: u32) -> Event {
    let one = Running {
        tenant: acme(shell),
        service: cart(),
        requests,
    };
    Event::Running([one].into_iter().filter(|one| one.requests > 0).collect())
}

/// A control brain, of which every probe finds the endpoint well unless it is this one.
struct Site {
    shell: Shell,
    dead: Option<&'static str>,
}

impl Site {
    fn new(world: &World, at: &str) -> Self {
        let mut shell = Shell::new(Part::Control, at);
        shell.bundle(world, &ids(world), 1);
        Site { shell, dead: None }
    }

    /// What is said of the service until then, and when; `None`: nothing any more.
    fn until(&mut self, until: Instant) -> Vec<(Instant, Key, Option<ServiceHealth>)> {
        let mut said = Vec::new();
        loop {
            while let Some(effect) =
                (!self.shell.effects.is_empty()).then(|| self.shell.effects.remove(0))
            {
                match effect {
                    Effect::Probe(key, _) => {
                        let dead = self
                            .dead
                            .is_some_and(|dead| key.address.to_string() == dead);
                        let outcome = match dead {
                            true => ProbeOutcome::Refused,
                            false => ProbeOutcome::Success,
                        };
                        self.shell.give(Event::Probed(key, result(outcome)));
                    }
                    Effect::Originate(route) if matches!(route.key, Key::Service { .. }) => {
                        let target = (
                            route.route_targets[0].tenant,
                            route.route_targets[0].selector,
                        );
                        assert_eq!(target, (acme(&self.shell), bgp::RouteTarget::SERVICE));
                        said.push((self.shell.now, route.key, route.value.as_service()));
                    }
                    Effect::Withdraw(key @ Key::Service { .. }) => {
                        said.push((self.shell.now, key, None));
                    }
                    _ => {}
                }
            }
            match self.shell.brain.poll_timeout().filter(|at| *at <= until) {
                Some(at) => self.shell.to(at.max(self.shell.now)),
                None => break,
            }
        }
        self.shell.now = until;
        said
    }

    fn hear(&mut self, requests: u32) {
        let event = running(&self.shell, requests);
        self.shell.give(event);
    }

    /// When what load was said, in sixteenths.
    fn loads(&mut self, until: Instant) -> Vec<(u64, u32)> {
        let said = self.until(until).into_iter();
        let load = said.filter_map(|(at, _, said)| Some((at, said?.load)));
        let load = load.map(|(at, load)| (ms(at), (u32::from(load) * 16).div_ceil(65_535)));
        load.collect()
    }
}

fn ms(at: Instant) -> u64 {
    at.as_nanos() / 1_000_000
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

#[test]
fn a_load_is_what_runs_of_what_is_taken_well() {
    let mut aws = Site::new(&loaded_world(10, 10), "aws.acme");
    assert!(aws.until(at(3_000)).is_empty(), "nobody knows what runs");
    aws.hear(0);
    let said = aws.until(at(3_000));
    let [
        (
            _,
            Key::Service {
                rd,
                service,
                site: where_,
            },
            Some(health),
        ),
    ] = &said[..]
    else {
        panic!("{said:?}");
    };
    let own = aws.shell.table().numbers.site;
    assert_eq!(
        (rd.site, rd.slot, *service, *where_),
        (own, SlotId(0), cart(), own)
    );
    let expect = ServiceHealth {
        state: State::Healthy,
        flags: 0,
        load: 0,
        healthy: 2,
        total: 2,
        weights: 100,
        rtt: bgp::Measure::new(1_000),
        capacity: bgp::Measure::new(20),
        seq: health.seq,
    };
    assert_eq!(*health, expect);
    // It is smoothed, said every five seconds at most, and again as long as it keeps requests away.
    aws.hear(15);
    let loads = aws.loads(at(60_000));
    assert_eq!(
        loads,
        [
            (8_000, 8),
            (13_000, 10),
            (18_000, 11),
            (23_000, 12),
            (43_000, 12)
        ]
    );
    // A step is another one when it is three quarters of a step away.
    aws.hear(16);
    assert_eq!(aws.loads(at(78_000)), [(63_000, 12), (74_000, 13)]);
    aws.hear(300);
    assert_eq!(aws.loads(at(84_000)), [(79_000, 16)]);
}

#[test]
fn who_dies_takes_its_capacity_along() {
    let mut aws = Site::new(&loaded_world(10, 10), "aws.acme");
    aws.hear(8);
    let _ = aws.until(at(10_000));
    aws.dead = Some("10.0.0.2:9090");
    let said = aws.until(at(20_000));
    let [(_, _, Some(one))] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(
        (one.state, one.healthy, one.total, one.weights),
        (State::Healthy, 1, 2, 50)
    );
    assert_eq!((one.capacity.quantity(), one.load), (10, 53_247));
    // Nothing is in use where nothing is well.
    let key = TargetKey {
        tenant: acme(&aws.shell),
        service: cart(),
        address: "10.0.0.1:8080".parse().expect("an address"),
    };
    aws.shell.give(Event::Trouble(key, TroubleKind::Refused));
    let last = aws
        .until(at(21_000))
        .pop()
        .and_then(|(_, _, said)| said)
        .expect("a word");
    assert_eq!(
        (last.state, last.healthy, last.load),
        (State::Unhealthy, 0, 0)
    );
}

#[test]
fn who_says_nothing_of_a_capacity_says_nothing_of_a_load() {
    let mut aws = Site::new(&world(), "aws.acme");
    aws.hear(9);
    assert!(aws.until(at(9_000)).is_empty());
    let loaded = loaded_world(10, 10);
    aws.shell.bundle(&loaded, &ids(&loaded), 2);
    assert_eq!(aws.until(at(10_000)).len(), 1);
    // Another capacity is another load, and no reason to ask endpoints anew.
    let greater = loaded_world(20, 10);
    aws.shell.bundle(&greater, &ids(&greater), 3);
    let said = aws.until(at(20_000));
    assert_eq!(said.len(), 1, "{said:?}");
    let seqs = |said: &[(Instant, Key, Option<ServiceHealth>)]| said[0].2.map(|said| said.seq);
    assert!(seqs(&said).expect("a word").is_after(Seq(101)));
    aws.shell.bundle(&world(), &ids(&world()), 4);
    let said = aws.until(at(30_000));
    assert!(
        matches!(said[..], [(_, Key::Service { .. }, None)]),
        "{said:?}"
    );
    // Whoever is not the site's prober says nothing.
    let mut second = Shell::new(Part::Control, "aws.acme");
    second.brain.me.node = "n2".parse().expect("a name");
    second.bundle(&loaded, &ids(&loaded), 1);
    let event = running(&second, 9);
    second.give(event);
    assert_eq!(second.brain.poll_timeout(), None);
}

#[test]
fn what_runs_is_counted_at_the_endpoints_of_the_site() {
    let plain = world();
    let mut shell = Shell::new(Part::Data, "aws.acme");
    shell.bundle(&plain, &ids(&plain), 1);
    assert_eq!(shell.table().running(), None, "nobody asks for it");
    let loaded = loaded_world(10, 10);
    shell.bundle(&loaded, &ids(&loaded), 2);
    let factory = shell.table().site_ids[&site("factory.acme")];
    shell.give(Event::Reach(site("factory.acme"), Some(40 * MS)));
    shell.give(Event::Route(
        endpoint_key(factory, "10.0.0.1:8080"),
        is(State::Healthy),
    ));
    assert_eq!(shell.table().running(), Some(Vec::new()));
    let key = (acme(&shell), cart());
    let set = shell.table().services[&key].cell.load_full();
    assert_eq!(set.endpoints().len(), 3);
    // One on each, of which the one in the other site is that site's to count; and one more.
    let each = set.endpoints().iter().chain(set.endpoints().first());
    let runs: Vec<_> = each
        .map(|endpoint| balance::InFlight::start(&endpoint.stats))
        .collect();
    let one = Running {
        tenant: key.0,
        service: key.1,
        requests: 3,
    };
    assert_eq!(shell.table().running(), Some(vec![one]));
    drop(runs);
    assert_eq!(shell.table().running(), Some(Vec::new()));
}

/// Site by site, the share of what would go there.
fn shares(shell: &Shell) -> BTreeMap<String, u16> {
    let facts = shell.brain.endpoints().into_iter();
    let cart = facts.filter(|fact| fact.service.to_string() == "cart.shop.acme");
    cart.map(|fact| (fact.site.site.to_string(), fact.share.unwrap_or(WHOLE)))
        .collect()
}

fn load_is(shell: &Shell, of: &str, load: Option<u16>) -> Event {
    let id = shell.table().site_ids[&site(of)];
    let key = Key::Service {
        rd: Rd {
            site: id,
            slot: SlotId(0),
        },
        service: cart(),
        site: id,
    };
    let value = load.map(|load| {
        Value::service(&ServiceHealth {
            state: State::Healthy,
            load,
            ..ServiceHealth::default()
        })
    });
    Event::Route(key, value)
}

/// Let time pass.
fn pass(shell: &mut Shell, until: Instant) {
    while let Some(next) = shell.brain.poll_timeout().filter(|next| *next <= until) {
        shell.to(next.max(shell.now));
    }
    shell.now = until;
}

#[test]
fn a_loaded_site_is_given_less_until_it_says_so_no_more() {
    let mut shell = importing();
    let load = |shell: &mut Shell, load| {
        let event = load_is(shell, "aws.acme", load);
        shell.give(event);
    };
    load(&mut shell, Some(40_000));
    pass(&mut shell, at(10_000));
    assert_eq!(shares(&shell)["aws"], 1000);
    assert!(shell.take().is_empty(), "no set is built for nothing");
    load(&mut shell, Some(62_000));
    pass(&mut shell, at(21_000));
    assert_eq!(
        shares(&shell),
        BTreeMap::from([("aws".to_owned(), 671), ("factory".to_owned(), 1000)])
    );
    let fact = shell
        .brain
        .endpoints()
        .into_iter()
        .find(|fact| fact.load.is_some());
    assert_eq!(fact.expect("one").load, Some(62_000));
    // What the workers see: a third goes farther.
    let plan = shell.table().services.values();
    let plan = plan
        .clone()
        .find(|plan| plan.name.to_string() == "cart.shop.acme")
        .expect("acme's cart");
    let set = plan.cell.load();
    let parts = set
        .standings()
        .map(|(endpoint, standing)| (endpoint.site.site.to_string(), standing));
    let parts: Vec<_> = parts.collect();
    let picked = |site: &str, part| (site.to_owned(), balance::Standing::Picked(part));
    assert_eq!(
        parts,
        [
            picked("aws", 335),
            picked("aws", 335),
            picked("factory", 329)
        ]
    );
    // A new table changes nothing of it.
    let world = world();
    shell.bundle(&world, &ids(&world), 2);
    assert_eq!(shares(&shell)["aws"], 671);
    // What is taken back is not known any more.
    load(&mut shell, None);
    assert_eq!(shares(&shell)["aws"], 1000);
    assert_eq!(shell.brain.poll_timeout(), None);
    // And what nobody repeats is forgotten: whoever said it may be gone.
    load(&mut shell, Some(62_000));
    pass(&mut shell, at(80_000));
    assert!(shares(&shell)["aws"] < 300);
    pass(&mut shell, at(300_000));
    assert_eq!(shares(&shell)["aws"], 1000);
}

#[test]
fn a_load_that_came_before_the_table_counts_with_it() {
    let other = importing();
    let mut shell = Shell::new(Part::Data, "par.fabric");
    shell.give(load_is(&other, "aws.acme", Some(62_000)));
    shell.give(Event::Reach(site("aws.acme"), Some(5 * MS)));
    let world = world();
    shell.bundle(&world, &ids(&world), 1);
    shell.give(Event::Route(
        aws(&shell, "10.0.0.1:8080"),
        is(State::Healthy),
    ));
    pass(&mut shell, at(6_000));
    assert_eq!(shares(&shell)["aws"], 766);
}

/// So often in a second it goes on.
const LOOKS: usize = 20;

/// Two PoPs that see two sites, and the users of both. Every request takes a second where there is
/// room for it and waits where there is none.
struct Planet {
    pops: Vec<Shell>,
    sites: Vec<(Site, Queue)>,
    rng: Rng,
    now: Instant,
    /// Every share of the near site that the first PoP had.
    history: Vec<u16>,
}

struct Queue {
    /// At a time.
    places: usize,
    /// When each that runs is done.
    busy: Vec<Instant>,
    waiting: usize,
    waited: usize,
    answered: usize,
}

impl Planet {
    fn new(places: [u32; 2]) -> Self {
        let [near, far] = places;
        let world = loaded_world(near / 2, far);
        let pops = ["par.fabric", "nyc.fabric"].map(|at| {
            let mut shell = Shell::new(Part::Data, at);
            shell.bundle(&world, &ids(&world), 1);
            shell.give(Event::Reach(site("aws.acme"), Some(5 * MS)));
            shell.give(Event::Reach(site("factory.acme"), Some(40 * MS)));
            let factory = shell.table().site_ids[&site("factory.acme")];
            for key in [
                aws(&shell, "10.0.0.1:8080"),
                aws(&shell, "10.0.0.2:9090"),
                endpoint_key(factory, "10.0.0.1:8080"),
            ] {
                shell.give(Event::Route(key, is(State::Healthy)));
            }
            shell
        });
        let site = |at: &str, places: u32| {
            let queue = Queue {
                places: usize::try_from(places).expect("few"),
                busy: Vec::new(),
                waiting: 0,
                waited: 0,
                answered: 0,
            };
            (Site::new(&world, at), queue)
        };
        Planet {
            pops: pops.into(),
            sites: vec![site("aws.acme", near), site("factory.acme", far)],
            rng: Rng::new(5),
            now: Instant::ZERO,
            history: vec![WHOLE],
        }
    }

    /// So many requests a second come to each PoP, for so long.
    fn serve(&mut self, rates: [u64; 2], seconds: u64) {
        for tick in 0..seconds * LOOKS as u64 {
            self.now = self.now + 1000 * MS / u32::try_from(LOOKS).expect("few");
            for (pop, rate) in self.pops.iter_mut().zip(rates) {
                // A coin for each of so many that could come.
                let come = (0..rate)
                    .filter(|_| self.rng.below(LOOKS as u64) == 0)
                    .count();
                let plan = pop.table().services.values();
                let plan = plan
                    .clone()
                    .find(|plan| plan.name.to_string() == "cart.shop.acme");
                let set = plan.expect("acme's cart").cell.load_full();
                for _ in 0..come {
                    let to = balance::pick(&set, self.now, &mut self.rng, &[], None);
                    let far = to.expect("an endpoint").site == site("factory.acme");
                    self.sites[usize::from(far)].1.waiting += 1;
                }
            }
            for (site, queue) in &mut self.sites {
                queue.turn(self.now);
                if tick % LOOKS as u64 == 0 {
                    site.hear(u32::try_from(queue.busy.len() + queue.waiting).expect("few"));
                }
                for (_, key, said) in site.until(self.now) {
                    for pop in &mut self.pops {
                        let value = said.as_ref().map(Value::service);
                        pop.now = self.now;
                        pop.give(Event::Route(key.clone(), value));
                    }
                }
            }
            for pop in &mut self.pops {
                pass(pop, self.now);
                pop.take();
            }
            let share = shares(&self.pops[0])["aws"];
            if self.history.last() != Some(&share) {
                self.history.push(share);
            }
        }
    }

    /// How often the share went the other way.
    fn turns(&self) -> usize {
        let ways = self.history.windows(2).map(|two| two[1] > two[0]);
        let ways: Vec<bool> = ways.collect();
        ways.windows(2).filter(|two| two[0] != two[1]).count()
    }

    fn start_anew(&mut self) {
        let last = self.history.pop();
        self.history = last.into_iter().collect();
        for (_, queue) in &mut self.sites {
            (queue.waited, queue.answered) = (0, 0);
        }
    }
}

impl Queue {
    fn turn(&mut self, now: Instant) {
        self.busy.retain(|done| *done > now);
        while self.waiting > 0 && self.busy.len() < self.places {
            self.waiting -= 1;
            self.answered += 1;
            self.busy.push(now + 1000 * MS);
        }
        self.waited += self.waiting;
    }
}

/// Requests a second at each PoP, places in each site, how often the share may turn in twelve minutes:
/// of few requests nobody knows from a look a second how many there are.
#[test]
fn ingresses_that_hear_the_same_do_not_swing() {
    for (rates, places, most) in [
        ([20, 20], [64, 64], 0),
        ([40, 40], [64, 64], 1),
        ([60, 20], [64, 200], 1),
        ([80, 80], [64, 200], 1),
        ([200, 100], [64, 500], 1),
        ([5, 5], [8, 64], 30),
    ] {
        let what = format!("{rates:?} a second, {places:?} places");
        let mut planet = Planet::new(places);
        planet.serve(rates, 120);
        let settling = planet.turns();
        planet.start_anew();
        planet.serve(rates, 600);
        let turns = settling + planet.turns();
        assert!(turns <= most, "{what}: {turns} turns, {:?}", planet.history);
        let near = &planet.sites[0].1;
        let asked: u64 = rates.iter().sum::<u64>() * 600;
        let could = near.places * 600;
        let full = near.answered * 100 / could;
        if asked < u64::try_from(could).expect("few") * 9 / 10 {
            assert_eq!(planet.history, [WHOLE], "{what}: all go to the nearest");
        } else {
            assert!(
                (60..95).contains(&full),
                "{what}: the nearest is full to {full} %"
            );
        }
        // On the average of all looks, not one of them waits.
        assert!(near.waited < 600 * LOOKS, "{what}: {}", near.waited);
        let [one, other] = &planet.pops[..] else {
            panic!("two of them")
        };
        assert_eq!(shares(one), shares(other), "{what}: what all hear, all do");
        planet.serve(
            [near.places, near.places].map(|places| places as u64 / 16),
            60,
        );
        assert_eq!(
            planet.history.last(),
            Some(&WHOLE),
            "{what}: all is as before"
        );
    }
}
