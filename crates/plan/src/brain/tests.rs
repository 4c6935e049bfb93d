//! The machine on a virtual clock: events in, effects out.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one effect among all"
)]

mod links;
mod load;

use base::{NetworkId, Rng, SiteId, SlotId};
use bgp::{EndpointHealth, Key, Rd, Seq, SiteHealth, State, Value};

use super::*;
use crate::{
    Ids, World, compile,
    tests::{bundle, ids, manifest, put, site, world},
};

const MS: Duration = Duration::from_millis(1);

fn me(at: &str) -> Me {
    Me {
        site: site(at),
        node: "n1".parse().expect("a name"),
    }
}

/// A brain with its shell: compiles at once, remembers every other effect.
struct Shell {
    brain: Brain,
    now: Instant,
    effects: Vec<Effect>,
}

impl Shell {
    fn new(part: Part, at: &str) -> Self {
        Shell {
            brain: Brain::new(part, me(at), 7, Seq(100)),
            now: Instant::ZERO,
            effects: Vec::new(),
        }
    }

    fn give(&mut self, event: Event) {
        self.brain.handle(self.now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            match effect {
                Effect::Compile { bundle, cells } => {
                    let result = compile(&bundle, self.brain.me(), &cells).map(Box::new);
                    self.brain
                        .handle(self.now, Event::Compiled(bundle.revision, result));
                }
                Effect::Endpoints { cell, set } => {
                    cell.store(Arc::clone(&set));
                    self.effects.push(Effect::Endpoints { cell, set });
                }
                other => self.effects.push(other),
            }
        }
    }

    fn to(&mut self, at: Instant) {
        self.now = at;
        self.brain.handle_timeout(at);
        self.drain();
    }

    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn bundle(&mut self, world: &World, ids: &Ids, revision: u64) {
        let at = self.brain.me().site.to_string();
        self.give(Event::Bundle(Box::new(bundle(world, ids, &at, revision))));
    }

    fn table(&self) -> &Compiled {
        self.brain.table().expect("a table")
    }

    /// `STATE` or `-STATE` for what was originated, `x` for withdrawals, in order.
    fn said(&mut self) -> Vec<State> {
        let mut said = Vec::new();
        for effect in self.take() {
            if let Effect::Originate(route) = effect
                && matches!(route.key, Key::Endpoint { .. })
            {
                said.push(route.value.state().expect("a state"));
            }
        }
        said
    }

    fn probes(&mut self) -> Vec<TargetKey> {
        let probe = |effect: Effect| match effect {
            Effect::Probe(key, _) => Some(key),
            _ => None,
        };
        self.take().into_iter().filter_map(probe).collect()
    }
}

fn result(outcome: ProbeOutcome) -> ProbeResult {
    ProbeResult {
        outcome,
        rtt: (outcome == ProbeOutcome::Success).then_some(MS),
    }
}

/// A control brain of blue's gateway, which has one endpoint.
fn one_target() -> (Shell, TargetKey) {
    let world = world();
    let mut shell = Shell::new(Part::Control, "shop.blue");
    shell.bundle(&world, &ids(&world), 1);
    assert!(matches!(shell.effects[0], Effect::Publish(_)));
    assert!(matches!(&shell.effects[1], Effect::Originate(r) if matches!(r.key, Key::Site { .. })));
    let keys = shell.probes();
    assert_eq!(keys.len(), 1, "probed as soon as it is known");
    let table = shell.brain.table().expect("a table");
    assert!(
        !table.targets.is_empty() && table.services.is_empty(),
        "nothing to serve"
    );
    (shell, keys[0])
}

/// Run until `until`: each probe gets what `answer(started)` says, at the given time after.
fn run(
    shell: &mut Shell,
    key: TargetKey,
    mut pending: Option<(Instant, ProbeOutcome)>,
    until: Instant,
    answer: &dyn Fn(Instant) -> (Duration, ProbeOutcome),
) -> Vec<(Instant, State)> {
    let mut said = Vec::new();
    loop {
        let timer = shell.brain.poll_timeout().unwrap_or(until);
        let next = pending.map_or(timer, |(at, _)| at.min(timer)).min(until);
        if next >= until {
            return said;
        }
        if let Some((at, outcome)) = pending.filter(|(at, _)| *at == next) {
            pending = None;
            shell.now = at;
            shell.give(Event::Probed(key, result(outcome)));
        } else {
            shell.to(next);
        }
        let now = shell.now;
        for effect in shell.take() {
            match effect {
                Effect::Probe(..) => {
                    assert!(pending.is_none(), "one probe an endpoint at a time");
                    let (after, outcome) = answer(now);
                    pending = Some((now + after, outcome));
                }
                Effect::Originate(route) if matches!(route.key, Key::Endpoint { .. }) => {
                    said.push((now, route.value.state().expect("a state")));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn only_the_newest_revision_is_compiled() {
    let world = world();
    let ids = ids(&world);
    let mut brain = Brain::new(Part::Data, me("par.fabric"), 7, Seq(1));
    let compiling = |brain: &mut Brain| match brain.poll_effect() {
        Some(Effect::Compile { bundle, cells }) => Some((bundle, cells)),
        Some(_) | None => None,
    };
    let give = |brain: &mut Brain, revision| {
        let bundle = bundle(&world, &ids, "par.fabric", revision);
        brain.handle(Instant::ZERO, Event::Bundle(Box::new(bundle)));
    };
    give(&mut brain, 1);
    let (first, cells) = compiling(&mut brain).expect("the first");
    for revision in 2..=5 {
        give(&mut brain, revision);
        assert!(compiling(&mut brain).is_none(), "one at a time");
    }
    let result = compile(&first, brain.me(), &cells).map(Box::new);
    brain.handle(Instant::ZERO, Event::Compiled(first.revision, result));
    let mut next = None;
    let mut published = false;
    while let Some(effect) = brain.poll_effect() {
        match effect {
            Effect::Publish(table) => published = table.revision == Revision(1),
            Effect::Compile { bundle, cells } => next = Some((bundle.revision, cells.len())),
            Effect::Endpoints { .. } => assert!(!published, "the cells are filled first"),
            other => panic!("{other:?}"),
        }
    }
    assert!(published);
    assert_eq!(
        next,
        Some((Revision(5), 2)),
        "2, 3 and 4 were overtaken; cells go on"
    );
}

#[test]
fn a_refused_revision_leaves_the_table() {
    let world = world();
    let ids = ids(&world);
    let mut shell = Shell::new(Part::Data, "aws.acme");
    shell.bundle(&world, &ids, 1);
    shell.take();
    let mut bad = bundle(&world, &ids, "aws.acme", 2);
    bad.resources.remove(&crate::tests::key("tenants/acme"));
    shell.give(Event::Bundle(Box::new(bad)));
    let effects = shell.take();
    assert!(matches!(
        effects[..],
        [Effect::Reject(Revision(2), CompileError::Resource(..))]
    ));
    assert_eq!(shell.table().revision, Revision(1));
    shell.bundle(&world, &ids, 3);
    assert_eq!(shell.table().revision, Revision(3));
}

#[test]
fn nothing_is_said_before_the_first_probe() {
    let (mut shell, key) = one_target();
    assert_eq!(shell.said(), []);
    assert_eq!(shell.brain.sequence(), Some(Seq(101)), "the Site route");
    shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
    assert_eq!(shell.said(), [State::Healthy]);
}

#[test]
fn probes_rise_and_fall() {
    use ProbeOutcome::{Failure, Refused, Success};
    for (outcomes, want) in [
        (vec![Success], vec![State::Healthy]),
        (vec![Failure], vec![State::Unhealthy]),
        (
            vec![Success, Failure, Success, Failure],
            vec![State::Healthy],
        ),
        (
            vec![Success, Failure, Failure],
            vec![State::Healthy, State::Unhealthy],
        ),
        (
            vec![Success, Refused],
            vec![State::Healthy, State::Unhealthy],
        ),
        (vec![Refused, Success, Success], vec![State::Unhealthy]),
        // Up by probes, but held back for a second.
        (
            vec![Refused, Success, Success, Success],
            vec![State::Unhealthy],
        ),
        (
            vec![Refused, Success, Success, Success, Refused],
            vec![State::Unhealthy],
        ),
    ] {
        let (mut shell, key) = one_target();
        for outcome in &outcomes {
            shell.give(Event::Probed(key, result(*outcome)));
        }
        assert_eq!(shell.said(), want, "{outcomes:?}");
    }
}

#[test]
fn up_is_held_for_a_second() {
    let (mut shell, key) = one_target();
    shell.give(Event::Probed(key, result(ProbeOutcome::Refused)));
    assert_eq!(shell.said(), [State::Unhealthy]);
    for _ in 0..3 {
        shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
    }
    shell.to(Instant::ZERO + 999 * MS);
    assert_eq!(shell.said(), []);
    assert_eq!(shell.brain.poll_timeout(), Some(Instant::ZERO + 1000 * MS));
    shell.to(Instant::ZERO + 1000 * MS);
    assert_eq!(shell.said(), [State::Healthy]);
}

#[test]
fn the_interval_is_jittered_within_a_tenth() {
    let (mut shell, key) = one_target();
    let mut gaps = Vec::new();
    for _ in 0..200 {
        let started = shell.now;
        shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
        let next = shell.brain.poll_timeout().expect("the next probe");
        gaps.push(next.since(started));
        shell.to(next);
        assert_eq!(shell.probes(), [key]);
    }
    let (least, most) = (
        gaps.iter().min().expect("some"),
        gaps.iter().max().expect("some"),
    );
    assert!(*least >= 270 * MS && *least < 275 * MS, "{least:?}");
    assert!(*most <= 330 * MS && *most > 325 * MS, "{most:?}");
}

#[test]
fn trouble_starts_a_probe_at_once() {
    for (kind, state) in [
        (TroubleKind::Suspect, vec![]),
        (TroubleKind::Failed, vec![]),
        (TroubleKind::Refused, vec![State::Unhealthy]),
    ] {
        let (mut shell, key) = one_target();
        shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
        shell.take();
        shell.now = Instant::ZERO + 20 * MS;
        shell.give(Event::Trouble(key, kind));
        let probes = shell
            .effects
            .iter()
            .filter(|e| matches!(e, Effect::Probe(k, _) if *k == key))
            .count();
        assert_eq!(probes, 1, "{kind:?}");
        assert_eq!(shell.said(), state, "{kind:?}");
        // A probe on its way may have left before the trouble: one more follows it at once.
        shell.give(Event::Trouble(key, TroubleKind::Suspect));
        assert_eq!(shell.probes(), []);
        shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
        assert_eq!(shell.probes(), [key]);
    }
    let (mut shell, key) = one_target();
    let stranger = TargetKey {
        address: "10.9.9.9:1".parse().expect("an address"),
        ..key
    };
    shell.give(Event::Trouble(stranger, TroubleKind::Refused));
    shell.give(Event::Probed(stranger, result(ProbeOutcome::Refused)));
    assert!(shell.take().is_empty(), "not an endpoint of this site");
}

#[test]
fn silence_is_known_within_a_second() {
    let mut rng = Rng::new(1);
    let mut worst = Duration::ZERO;
    for _ in 0..300 {
        let (mut shell, key) = one_target();
        let dies = Instant::ZERO + Duration::from_nanos(2_000_000_000 + rng.below(900_000_000));
        let answer = move |started: Instant| {
            if started + MS < dies {
                (MS, ProbeOutcome::Success)
            } else {
                (300 * MS, ProbeOutcome::Failure)
            }
        };
        let first = Some((Instant::ZERO + MS, ProbeOutcome::Success));
        let until = dies + Duration::from_secs(3);
        let said = run(&mut shell, key, first, until, &answer);
        let states: Vec<State> = said.iter().map(|(_, state)| *state).collect();
        assert_eq!(states, [State::Healthy, State::Unhealthy]);
        worst = worst.max(said[1].0.since(dies));
    }
    assert!(worst <= Duration::from_secs(1), "{worst:?}");
    assert!(
        worst > 600 * MS,
        "the test looks at the worst case: {worst:?}"
    );
}

#[test]
fn a_flapping_endpoint_is_rate_limited_and_ends_true() {
    let (mut shell, key) = one_target();
    let answer = |started: Instant| {
        let last = started >= Instant::ZERO + Duration::from_secs(50);
        let up = last || (started.as_nanos() / 2_500_000_000).is_multiple_of(2);
        (
            MS,
            if up {
                ProbeOutcome::Success
            } else {
                ProbeOutcome::Refused
            },
        )
    };
    let until = Instant::ZERO + Duration::from_secs(60);
    let first = Some((Instant::ZERO + MS, ProbeOutcome::Success));
    let said = run(&mut shell, key, first, until, &answer);
    assert_eq!(said.last().map(|(_, state)| *state), Some(State::Healthy));
    assert!(
        said.windows(2).all(|two| two[0].1 != two[1].1),
        "only changes are said"
    );
}

#[test]
fn targets_come_and_go_with_the_table() {
    let world = world();
    let mut ids = ids(&world);
    let (mut shell, key) = one_target();
    shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
    shell.take();
    // Nothing changed for this endpoint: nothing is said anew.
    shell.bundle(&world, &ids, 2);
    assert_eq!(shell.said(), []);
    let service = |spec: &str| {
        manifest(&format!(
            "{{kind: Service, metadata: {{tenant: blue, namespace: shop, name: cart}},
               spec: {{port: 8080, origins: [{{sites: [shop], {spec}}}]}}}}"
        ))
    };
    let heavier = put(&world, service("addresses: ['10.0.0.1'], weight: 7"));
    shell.bundle(&heavier, &ids, 3);
    let weights: Vec<u8> = shell
        .take()
        .iter()
        .filter_map(|e| match e {
            Effect::Originate(route) => route.value.as_endpoint().map(|v| v.weight),
            _ => None,
        })
        .collect();
    assert_eq!(weights, [7], "its health is still known");
    let moved = put(&world, service("addresses: ['10.0.0.2']"));
    ids.allocate(&moved);
    shell.bundle(&moved, &ids, 4);
    let effects = shell.take();
    let withdrawn = effects
        .iter()
        .filter(|e| matches!(e, Effect::Withdraw(Key::Endpoint { .. })));
    assert_eq!(withdrawn.count(), 1);
    assert!(
        matches!(effects[0], Effect::Publish(_)),
        "announced by a table in force"
    );
    assert!(matches!(effects[1], Effect::Withdraw(_)), "down goes first");
    let probed: Vec<String> = effects
        .iter()
        .filter_map(|e| match e {
            Effect::Probe(key, _) => Some(key.address.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(probed, ["10.0.0.2:8080"]);
    // What comes late for the old one is ignored; a key that comes back goes on counting.
    shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
    assert_eq!(shell.said(), []);
    let before = shell.brain.sequence().expect("control");
    shell.bundle(&world, &ids, 5);
    shell.give(Event::Probed(key, result(ProbeOutcome::Success)));
    let after = shell.brain.sequence().expect("control");
    assert!(after.is_after(before) || after == before);
    let seqs: Vec<Seq> = shell
        .take()
        .iter()
        .filter_map(|e| match e {
            Effect::Originate(route) => route.value.as_endpoint().map(|v| v.seq),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, [Seq(103)], "101 at first, 102 with its weight");
}

#[test]
fn one_prober_a_site() {
    let world = world();
    let ids = ids(&world);
    let mut second = Shell::new(Part::Control, "aws.acme");
    second.brain.me.node = "n2".parse().expect("a name");
    second.bundle(&world, &ids, 1);
    assert_eq!(second.brain.poll_timeout(), None);
    assert!(
        second
            .take()
            .iter()
            .all(|e| matches!(e, Effect::Publish(_)))
    );
    let mut first = Shell::new(Part::Control, "aws.acme");
    first.bundle(&world, &ids, 1);
    assert_eq!(first.probes().len(), 3);
}

// From here on: the data half.

/// acme's aws announces that 10.0.0.1 is in `state`.
fn aws(shell: &Shell, address: &str) -> Key {
    let id = shell.table().site_ids[&site("aws.acme")];
    endpoint_key(id, address)
}

fn endpoint_key(id: SiteId, address: &str) -> Key {
    let address: SocketAddr = address.parse().expect("an address");
    Key::Endpoint {
        rd: Rd {
            site: id,
            slot: SlotId(0),
        },
        service: pki::service_id(
            &"shop".parse().expect("a name"),
            &"cart".parse().expect("a name"),
        ),
        site: id,
        network: NetworkId(0),
        address: address.ip(),
        port: address.port(),
        protocol: 6,
    }
}

fn is(state: State) -> Option<Value> {
    Some(Value::endpoint(&EndpointHealth {
        state,
        weight: 50,
        ..EndpointHealth::default()
    }))
}

fn site_is(id: SiteId, state: State) -> Event {
    let key = Key::Site {
        rd: Rd {
            site: id,
            slot: SlotId(0),
        },
        site: id,
    };
    Event::Route(
        key,
        Some(Value::site(&SiteHealth {
            state,
            ..SiteHealth::default()
        })),
    )
}

/// The data half of par, which knows two endpoints in aws and one in factory, all healthy.
fn importing() -> Shell {
    let world = world();
    let mut shell = Shell::new(Part::Data, "par.fabric");
    shell.bundle(&world, &ids(&world), 1);
    shell.give(Event::Reach(site("aws.acme"), Some(5 * MS)));
    shell.give(Event::Reach(site("factory.acme"), Some(40 * MS)));
    let factory = shell.table().site_ids[&site("factory.acme")];
    for key in [aws(&shell, "10.0.0.1:8080"), aws(&shell, "10.0.0.2:9090")] {
        shell.give(Event::Route(key, is(State::Healthy)));
    }
    shell.give(Event::Route(
        endpoint_key(factory, "10.0.0.1:8080"),
        is(State::Healthy),
    ));
    shell.take();
    shell
}

/// What the workers see of acme's cart: `SITE/ADDRESS=HEALTH`, `!` if unreachable.
fn seen(shell: &Shell) -> Vec<String> {
    let plan = shell
        .table()
        .services
        .values()
        .find(|plan| plan.name.to_string() == "cart.shop.acme")
        .expect("acme's cart");
    let set = plan.cell.load();
    let show = |e: &balance::Endpoint| {
        let way = if e.reachable { "" } else { "!" };
        format!("{way}{}/{}={:?}", e.site.site, e.key.address.ip(), e.health)
    };
    set.endpoints().iter().map(show).collect()
}

#[test]
fn health_is_the_worse_of_endpoint_and_site() {
    let mut shell = importing();
    let all = [
        "aws/10.0.0.1=Healthy",
        "aws/10.0.0.2=Healthy",
        "factory/10.0.0.1=Healthy",
    ];
    assert_eq!(seen(&shell), all);
    let id = shell.table().site_ids[&site("aws.acme")];
    let one = aws(&shell, "10.0.0.1:8080");
    shell.give(Event::Route(one.clone(), is(State::Degraded)));
    for (of_site, want) in [
        (State::Healthy, ["Degraded", "Healthy"]),
        (State::Draining, ["Draining", "Draining"]),
        (State::Unhealthy, ["Unhealthy", "Unhealthy"]),
        (State::Withdrawn, ["Withdrawn", "Withdrawn"]),
        (State::Healthy, ["Degraded", "Healthy"]),
    ] {
        shell.give(site_is(id, of_site));
        let want = [
            format!("aws/10.0.0.1={}", want[0]),
            format!("aws/10.0.0.2={}", want[1]),
            "factory/10.0.0.1=Healthy".to_owned(),
        ];
        assert_eq!(seen(&shell), want, "{of_site}");
    }
    shell.give(Event::Route(one, None));
    assert_eq!(
        seen(&shell),
        ["aws/10.0.0.2=Healthy", "factory/10.0.0.1=Healthy"]
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a figure for the reader; the test depends on none"
)]
fn a_site_that_goes_down_takes_ten_thousand_endpoints_with_it() {
    let mut shell = importing();
    let id = shell.table().site_ids[&site("aws.acme")];
    let began = std::time::Instant::now();
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let key = endpoint_key(id, &format!("10.9.{high}.{low}:8080"));
        // A burst: the shell asks what is to do behind it.
        shell
            .brain
            .handle(shell.now, Event::Route(key, is(State::Healthy)));
    }
    shell.drain();
    let learned = began.elapsed();
    let published = |shell: &mut Shell| {
        let effects = shell.take();
        let sets = effects
            .iter()
            .filter(|e| matches!(e, Effect::Endpoints { .. }));
        sets.count()
    };
    assert_eq!(published(&mut shell), 1, "a burst builds a set once");
    let began = std::time::Instant::now();
    shell.give(site_is(id, State::Unhealthy));
    let gone = began.elapsed();
    println!("10,000 endpoints learned in {learned:?}, gone with their site in {gone:?}");
    assert_eq!(published(&mut shell), 1);
    let all = seen(&shell);
    let dead = all.iter().filter(|one| one.ends_with("=Unhealthy"));
    assert_eq!((all.len(), dead.count()), (10_003, 10_002));
}

#[test]
fn the_set_comes_before_the_word_that_an_endpoint_is_down() {
    let mut shell = importing();
    let one = aws(&shell, "10.0.0.1:8080");
    let order = |shell: &mut Shell| -> Vec<&'static str> {
        let name = |effect: Effect| match effect {
            Effect::Endpoints { .. } => "set",
            Effect::EndpointDown { .. } => "down",
            _ => "other",
        };
        shell.take().into_iter().map(name).collect()
    };
    shell.give(Event::Route(one.clone(), is(State::Unhealthy)));
    assert_eq!(order(&mut shell), ["set", "down"]);
    shell.give(Event::Route(one.clone(), is(State::Unhealthy)));
    assert_eq!(order(&mut shell), ["set"], "it was down already");
    shell.give(Event::Route(one.clone(), is(State::Healthy)));
    assert_eq!(order(&mut shell), ["set"]);
    shell.give(Event::Route(one, None));
    assert_eq!(order(&mut shell), ["set", "down"]);
    // The way to a site is gone: all its endpoints with it, of every service.
    shell.give(Event::Reach(site("aws.acme"), None));
    assert_eq!(order(&mut shell), ["set", "down"]);
    assert_eq!(
        seen(&shell),
        ["!aws/10.0.0.2=Healthy", "factory/10.0.0.1=Healthy"]
    );
    shell.give(Event::Reach(site("aws.acme"), None));
    assert!(order(&mut shell).is_empty());
    shell.give(Event::Reach(site("aws.acme"), Some(5 * MS)));
    assert_eq!(order(&mut shell), ["set"]);
    assert_eq!(shell.brain.ways().len(), 2);
}

#[test]
fn counters_survive_sets_and_tables() {
    let mut shell = importing();
    let stats = |shell: &Shell| -> Vec<u64> {
        let plan = &shell
            .table()
            .services
            .values()
            .find(|p| p.name.tenant.as_str() == "acme");
        let set = plan.expect("acme's cart").cell.load();
        set.endpoints().iter().map(|e| e.stats.requests()).collect()
    };
    {
        let plan = shell
            .table()
            .services
            .values()
            .find(|p| p.name.tenant.as_str() == "acme");
        let set = plan.expect("acme's cart").cell.load();
        drop(balance::InFlight::start(&set.endpoints()[1].stats));
    }
    assert_eq!(stats(&shell), [0, 1, 0]);
    let two = aws(&shell, "10.0.0.2:9090");
    shell.give(Event::Route(two.clone(), is(State::Unhealthy)));
    shell.give(Event::Reach(site("aws.acme"), None));
    let world = world();
    shell.bundle(&world, &ids(&world), 2);
    shell.give(Event::Reach(site("aws.acme"), Some(MS)));
    assert_eq!(stats(&shell), [0, 1, 0]);
    // An endpoint that was gone begins anew.
    shell.give(Event::Route(two.clone(), None));
    shell.give(Event::Route(two, is(State::Healthy)));
    assert_eq!(stats(&shell), [0, 0, 0]);
}

/// The shell of [`importing`] with these fields in acme's cart.
fn importing_with(fields: &str) -> Shell {
    let mut shell = importing();
    let cart = manifest(&format!(
        "{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: cart}}, spec: {{
          port: 8080, origins: [
            {{sites: [aws], addresses: ['10.0.0.1', '10.0.0.2:9090'], weight: 50}},
            {{sites: [factory], addresses: ['10.0.0.1']}}], {fields}}}}}"
    ));
    let world = put(&world(), cart);
    shell.bundle(&world, &ids(&world), 2);
    shell.take();
    shell
}

/// The service key of acme's cart and its set.
fn cart(shell: &Shell) -> ((TenantId, ServiceId), Arc<EndpointSet>) {
    let services = &shell.table().services;
    let cart = services
        .iter()
        .find(|(_, plan)| plan.name.to_string() == "cart.shop.acme");
    let (key, plan) = cart.expect("acme's cart");
    (*key, plan.cell.load_full())
}

#[test]
fn who_answers_badly_is_out_for_a_while() {
    let mut shell = importing_with("outlier: {ejectionTime: 10s}");
    let ((tenant, service), set) = cart(&shell);
    let bad = set.endpoints()[0].key;
    set.endpoints()[0].stats.judged(false);
    let out = |shell: &Shell| -> Vec<bool> {
        let (_, set) = cart(shell);
        set.endpoints().iter().map(|e| e.ejected).collect()
    };
    shell.give(Event::Outlier(tenant, service, bad));
    assert_eq!(out(&shell), [true, false, false]);
    // Requests that run on it may go on.
    let effects = shell.take();
    assert!(
        matches!(effects[..], [Effect::Endpoints { .. }]),
        "{effects:?}"
    );
    assert!(cart(&shell).1.is_alive(&bad));
    assert!(shell.brain.endpoints()[0].ejected);
    // Half of three is one.
    shell.give(Event::Outlier(tenant, service, set.endpoints()[1].key));
    assert!(shell.take().is_empty());
    // Health and tables come and go meanwhile.
    shell.give(Event::Route(
        aws(&shell, "10.0.0.1:8080"),
        is(State::Degraded),
    ));
    assert_eq!(out(&shell), [true, false, false]);
    let due = shell.brain.poll_timeout().expect("it comes in again");
    assert_eq!(due, Instant::ZERO + Duration::from_secs(10));
    shell.to(due);
    assert_eq!(out(&shell), [false; 3]);
    assert_eq!(cart(&shell).1.endpoints()[0].stats.judged(false), 1, "anew");
    assert_eq!(shell.brain.poll_timeout(), None);
    // A service that does not say so ejects nobody.
    let mut plain = importing();
    plain.give(Event::Outlier(tenant, service, bad));
    assert!(plain.take().is_empty());
}

#[test]
fn a_recovered_endpoint_starts_slowly() {
    let mut shell = importing_with("balance: {slowStart: 10s}");
    let one = aws(&shell, "10.0.0.1:8080");
    shell.to(Instant::ZERO + Duration::from_secs(100));
    shell.give(Event::Route(one.clone(), is(State::Unhealthy)));
    assert_eq!(shell.brain.poll_timeout(), None);
    shell.to(Instant::ZERO + Duration::from_secs(110));
    shell.give(Event::Route(one, is(State::Healthy)));
    shell.take();
    let mut steps = 0;
    while let Some(due) = shell.brain.poll_timeout() {
        shell.to(due);
        let published = shell.take();
        assert!(matches!(published[..], [Effect::Endpoints { .. }]));
        steps += 1;
        assert!(steps <= 10, "it ends");
    }
    assert_eq!(
        (steps, shell.now),
        (9, Instant::ZERO + Duration::from_secs(120))
    );
}

#[test]
fn noise_of_round_trips_publishes_nothing() {
    for (rtt_us, published) in [
        (40_000, false),
        (44_900, false),
        (35_100, false),
        (45_100, true),
        (34_900, true),
        (5_000, true),
    ] {
        let mut shell = importing();
        let rtt = Duration::from_micros(rtt_us);
        shell.give(Event::Reach(site("factory.acme"), Some(rtt)));
        assert_eq!(!shell.take().is_empty(), published, "40 ms → {rtt:?}");
        // What stays so is none.
        let stays = !published && rtt_us != 40_000;
        assert_eq!(shell.brain.poll_timeout().is_some(), stays);
        shell.to(Instant::ZERO + MS * 10_000);
        assert_eq!(!shell.take().is_empty(), stays, "40 ms → {rtt:?}");
    }
    let mut shell = importing();
    for n in 0..100 {
        shell.give(Event::Reach(
            site("aws.acme"),
            Some(Duration::from_micros(5000 + n % 7 * 60)),
        ));
    }
    assert!(shell.take().is_empty());
}

#[test]
fn what_no_table_knows_waits_for_one() {
    let mut shell = importing();
    let key = |site_id| match endpoint_key(site_id, "10.0.0.7:81") {
        Key::Endpoint {
            rd,
            site,
            network,
            address,
            port,
            protocol,
            ..
        } => Key::Endpoint {
            service: pki::service_id(
                &"shop".parse().expect("a name"),
                &"hidden".parse().expect("a name"),
            ),
            rd,
            site,
            network,
            address,
            port,
            protocol,
        },
        other => other,
    };
    let id = shell.table().site_ids[&site("aws.acme")];
    // A service that is not offered here, a site and a slot that nobody granted.
    shell.give(Event::Route(key(id), is(State::Healthy)));
    shell.give(Event::Route(
        endpoint_key(SiteId(999), "10.0.0.1:8080"),
        is(State::Healthy),
    ));
    let ungranted = match aws(&shell, "10.0.0.1:8080") {
        Key::Endpoint {
            service,
            site,
            network,
            address,
            port,
            protocol,
            ..
        } => {
            let rd = Rd {
                site,
                slot: SlotId(9),
            };
            Key::Endpoint {
                rd,
                service,
                site,
                network,
                address,
                port,
                protocol,
            }
        }
        other => other,
    };
    shell.give(Event::Route(ungranted, is(State::Unhealthy)));
    assert!(shell.take().is_empty());
    assert_eq!(seen(&shell).len(), 3);
    // Then a table offers it: the route was kept.
    let world = put(
        &world(),
        manifest(
            "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: more},
              spec: {hosts: [x.acme.example], advertise: [{public: {}}],
                     routes: [{backendRefs: [{name: hidden}]}]}}",
        ),
    );
    shell.bundle(&world, &ids(&world), 2);
    let facts: Vec<String> = shell
        .brain
        .endpoints()
        .iter()
        .filter(|fact| fact.service.service.as_str() == "hidden")
        .map(|fact| format!("{} {:?} {}", fact.address, fact.health, fact.reachable))
        .collect();
    assert_eq!(facts, ["10.0.0.7:81 Healthy true"]);
}

#[test]
fn routes_before_any_table_are_kept() {
    let world = world();
    let ids = ids(&world);
    let known = importing();
    let mut shell = Shell::new(Part::Data, "par.fabric");
    shell.give(Event::Reach(site("aws.acme"), Some(5 * MS)));
    shell.give(Event::Route(
        aws(&known, "10.0.0.1:8080"),
        is(State::Healthy),
    ));
    assert!(shell.take().is_empty() && shell.brain.endpoints().is_empty());
    shell.bundle(&world, &ids, 1);
    assert_eq!(seen(&shell), ["aws/10.0.0.1=Healthy"]);
}

#[test]
fn own_endpoints_are_the_configurations() {
    let world = world();
    let mut shell = Shell::new(Part::Data, "aws.acme");
    shell.bundle(&world, &ids(&world), 1);
    let both = |one: &str| {
        vec![
            format!("aws/10.0.0.1={one}"),
            "aws/10.0.0.2=Unknown".to_owned(),
        ]
    };
    assert_eq!(seen(&shell), both("Unknown"), "before any probe");
    let one = aws(&shell, "10.0.0.1:8080");
    shell.give(Event::Route(one.clone(), is(State::Healthy)));
    shell.give(Event::Route(
        aws(&shell, "10.0.0.99:8080"),
        is(State::Healthy),
    ));
    assert_eq!(
        seen(&shell),
        both("Healthy"),
        "an address that is not configured is none"
    );
    shell.give(Event::Route(one, None));
    assert_eq!(seen(&shell), both("Unknown"));
}

#[test]
fn another_tenants_route_touches_nothing() {
    let mut shell = importing();
    let id = shell.table().site_ids[&site("shop.blue")];
    shell.give(Event::Reach(site("shop.blue"), Some(MS)));
    let before = seen(&shell);
    // Same namespace, same service name, same address: another tenant.
    shell.give(Event::Route(
        endpoint_key(id, "10.0.0.1:8080"),
        is(State::Unhealthy),
    ));
    assert_eq!(seen(&shell), before);
    let of_blue: Vec<String> = shell
        .brain
        .endpoints()
        .iter()
        .filter(|fact| fact.service.tenant.as_str() == "blue")
        .map(|fact| format!("{} {:?}", fact.site, fact.health))
        .collect();
    assert_eq!(of_blue, ["shop.blue Unhealthy"]);
}

#[test]
fn a_vip_is_up_while_somebody_is_healthy_behind_it() {
    let mut world = world();
    let vip = "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: inside},
      spec: {hosts: [in.acme.example], advertise: [{sites: [factory], vip: 192.0.2.10}],
             routes: [{backendRefs: [{name: cart}]}]}}";
    world = put(&world, manifest(vip));
    let mut ids = ids(&world);
    ids.allocate(&world);
    let mut shell = Shell::new(Part::Data, "factory.acme");
    shell.bundle(&world, &ids, 1);
    let vips = |shell: &mut Shell| -> Vec<usize> {
        let effects = shell.take().into_iter();
        let sizes = effects.filter_map(|effect| match effect {
            Effect::Vips(up) => Some(up.len()),
            _ => None,
        });
        sizes.collect()
    };
    assert_eq!(vips(&mut shell), [0; 0], "nobody was probed yet");
    let own = shell.table().site_ids[&site("factory.acme")];
    let other = shell.table().site_ids[&site("aws.acme")];
    let (near, far) = (
        endpoint_key(own, "10.0.0.1:8080"),
        endpoint_key(other, "10.0.0.1:8080"),
    );
    // One without a way to it is no help.
    shell.give(Event::Route(far.clone(), is(State::Healthy)));
    assert_eq!(vips(&mut shell), [0; 0]);
    shell.give(Event::Route(near.clone(), is(State::Healthy)));
    assert_eq!(vips(&mut shell), [1]);
    shell.give(Event::Route(near.clone(), is(State::Degraded)));
    assert_eq!(vips(&mut shell), [0; 0], "said once");
    for state in [State::Unhealthy, State::Draining, State::Maintenance] {
        shell.give(Event::Route(near.clone(), is(state)));
        assert_eq!(vips(&mut shell), [0], "{state:?}");
        shell.give(Event::Route(near.clone(), is(State::Healthy)));
        assert_eq!(vips(&mut shell), [1], "{state:?}");
    }
    // Another site may take over, once there is a way.
    shell.give(Event::Reach(site("aws.acme"), Some(MS)));
    shell.give(Event::Route(near.clone(), None));
    assert_eq!(vips(&mut shell), [0; 0]);
    shell.give(Event::Reach(site("aws.acme"), None));
    assert_eq!(vips(&mut shell), [0]);
    shell.give(Event::Route(near, is(State::Healthy)));
    // The load balancer goes, and its VIP with it.
    let mut without = world.clone();
    without.remove(&crate::tests::key(
        "tenants/acme/namespaces/shop/loadbalancers/inside",
    ));
    shell.bundle(&without, &ids, 2);
    assert_eq!(vips(&mut shell), [1, 0]);
}

#[test]
fn nothing_older_overtakes_in_a_batch() {
    let mut shell = importing();
    let (one, two) = (aws(&shell, "10.0.0.1:8080"), aws(&shell, "10.0.0.2:9090"));
    // Several events before the shell looks at the effects: up, then down, then up.
    for (first, second) in [
        (State::Degraded, State::Unhealthy),
        (State::Unhealthy, State::Degraded),
    ] {
        shell
            .brain
            .handle(shell.now, Event::Route(one.clone(), is(first)));
        shell
            .brain
            .handle(shell.now, Event::Route(two.clone(), is(second)));
        shell
            .brain
            .handle(shell.now, Event::Route(two.clone(), is(State::Healthy)));
        shell
            .brain
            .handle(shell.now, Event::Route(two.clone(), is(second)));
        shell.drain();
        let want = [
            format!("aws/10.0.0.1={first:?}"),
            format!("aws/10.0.0.2={second:?}"),
            "factory/10.0.0.1=Healthy".to_owned(),
        ];
        let seen = seen(&shell);
        assert_eq!(seen, want);
    }
    // The same for what is announced: the last word has the greatest seq.
    let (mut shell, key) = one_target();
    for outcome in [ProbeOutcome::Success, ProbeOutcome::Refused] {
        shell
            .brain
            .handle(shell.now, Event::Probed(key, result(outcome)));
    }
    shell.drain();
    assert_eq!(shell.said(), [State::Unhealthy]);
}
