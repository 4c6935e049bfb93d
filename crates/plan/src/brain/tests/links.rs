//! Links: what is said of one's own, and the ways that follow from everybody's.

use bgp::{LinkHealth, Measure, RouteTarget, TunnelId};

use super::*;

fn up(links: &[(&str, u64)]) -> Event {
    let link = |(to, ms): &(&str, u64)| Link {
        peer: site(to),
        rtt_us: Some(ms * 1000),
        jitter_us: 0,
        loss: 0,
        load: 0,
        capacity_kbit_s: 0,
    };
    Event::Links(links.iter().map(link).collect())
}

/// What is said of links: whom they lead to, state, milliseconds and the tenant that hears it.
fn told(shell: &mut Shell) -> Vec<(String, State, u32, TenantId)> {
    let names = shell.table().site_names.clone();
    let told = |effect| match effect {
        Effect::Originate(route) => {
            let Key::Link { to, from, rd, .. } = &route.key else {
                return None;
            };
            assert_eq!(*from, rd.site);
            let link = route.value.as_link().expect("a link");
            let [target] = &*route.route_targets else {
                panic!("{route:?}");
            };
            assert_eq!(target.selector, RouteTarget::SITE);
            let ms = link.rtt.quantity() / 1000;
            Some((names[to].to_string(), link.state, ms, target.tenant))
        }
        _ => None,
    };
    shell.take().into_iter().filter_map(told).collect()
}

#[test]
fn a_pop_tells_each_tenant_of_the_links_to_its_own_gateways() {
    let world = world();
    let ids = ids(&world);
    let mut shell = Shell::new(Part::Control, "par.fabric");
    // Before there is a table nothing can be said.
    shell.give(up(&[("nyc.fabric", 40), ("aws.acme", 5)]));
    shell.bundle(&world, &ids, 1);
    let tenant = |name: &str| ids.tenant(&name.parse().expect("a name")).expect("known");
    let (acme, blue) = (tenant("acme"), tenant("blue"));
    let healthy = |to: &str, ms, whose| (to.to_owned(), State::Healthy, ms, whose);
    let mut first = told(&mut shell);
    first.sort();
    let fabric = TenantId(0);
    let both = [
        healthy("aws.acme", 4, acme),
        healthy("nyc.fabric", 39, fabric),
    ];
    // A measure is rounded.
    assert!(
        first == both
            || first
                == [
                    healthy("aws.acme", 5, acme),
                    healthy("nyc.fabric", 40, fabric)
                ],
        "{first:?}"
    );
    // Noise is no news.
    shell.give(up(&[("nyc.fabric", 41), ("aws.acme", 5)]));
    assert_eq!(told(&mut shell), []);
    shell.give(up(&[("nyc.fabric", 80), ("aws.acme", 5), ("shop.blue", 9)]));
    let more = told(&mut shell);
    assert_eq!(more.len(), 2, "{more:?}");
    assert!(
        more.iter()
            .any(|(to, _, _, whose)| to == "shop.blue" && *whose == blue)
    );
    shell.give(up(&[("nyc.fabric", 80), ("shop.blue", 9)]));
    assert_eq!(
        told(&mut shell),
        [("aws.acme".to_owned(), State::Unhealthy, 0, acme)]
    );
    shell.give(up(&[("nyc.fabric", 80), ("shop.blue", 9)]));
    assert_eq!(told(&mut shell), []);
}

#[test]
fn a_gateway_tells_its_tenant() {
    let world = world();
    let ids = ids(&world);
    let mut shell = Shell::new(Part::Control, "aws.acme");
    shell.bundle(&world, &ids, 1);
    shell.take();
    shell.give(up(&[("par.fabric", 5)]));
    let said = told(&mut shell);
    let acme = ids.tenant(&"acme".parse().expect("a name"));
    assert_eq!(said.len(), 1);
    assert_eq!(said.first().map(|(.., whose)| *whose), acme);
}

#[test]
fn a_link_that_flaps_is_rate_limited_and_ends_true() {
    let world = world();
    let mut shell = Shell::new(Part::Control, "par.fabric");
    shell.bundle(&world, &ids(&world), 1);
    shell.take();
    let mut said = Vec::new();
    for n in 0..400 {
        let links: &[(&str, u64)] = if n % 2 == 0 { &[("aws.acme", 5)] } else { &[] };
        shell.give(up(links));
        shell.to(Instant::ZERO + MS * (n + 1));
        said.extend(told(&mut shell));
    }
    assert!(said.len() < 200, "{}", said.len());
    while let Some(next) = shell
        .brain
        .poll_timeout()
        .filter(|at| *at < Instant::ZERO + MS * 60_000)
    {
        shell.to(next);
        said.extend(told(&mut shell));
        if said
            .last()
            .is_some_and(|(_, state, ..)| *state == State::Unhealthy)
        {
            break;
        }
    }
    assert_eq!(
        said.last().map(|(_, state, ..)| *state),
        Some(State::Unhealthy)
    );
}

fn link(shell: &Shell, from: &str, to: &str, said: Option<(State, u64)>) -> Event {
    let id = |name: &str| shell.table().site_ids[&site(name)];
    let key = Key::Link {
        rd: Rd {
            site: id(from),
            slot: SlotId(0),
        },
        from: id(from),
        to: id(to),
        tunnel: TunnelId(1),
    };
    let value = |(state, ms): (State, u64)| {
        Value::link(&LinkHealth {
            state,
            rtt: Measure::new(ms * 1000),
            ..LinkHealth::default()
        })
    };
    Event::Route(key, said.map(value))
}

/// The ways over others, if they were said anew: each by its end.
fn ways(shell: &mut Shell) -> Option<Vec<String>> {
    let mut said = None;
    for effect in shell.take() {
        match effect {
            Effect::Ways(over) => {
                let text = |hops: Vec<SiteName>| {
                    let names: Vec<&str> = hops.iter().map(|hop| hop.site.as_str()).collect();
                    names.join(" ")
                };
                said = Some(over.into_values().map(text).collect());
            }
            Effect::Endpoints { .. } if said.is_none() => said = Some(vec!["late".to_owned()]),
            _ => {}
        }
    }
    said
}

#[test]
fn what_one_pop_does_not_reach_it_reaches_over_another() {
    let mut shell = importing();
    shell.give(Event::Reach(site("factory.acme"), None));
    shell.give(Event::Reach(site("nyc.fabric"), Some(40 * MS)));
    let unreachable = "!factory/10.0.0.1=Healthy";
    assert_eq!(seen(&shell).last().map(String::as_str), Some(unreachable));
    shell.take();
    // The end from which one goes has to say so.
    let healthy = Some((State::Healthy, 5));
    shell.give(link(&shell, "factory.acme", "nyc.fabric", healthy));
    assert_eq!(seen(&shell).last().map(String::as_str), Some(unreachable));
    assert_eq!(ways(&mut shell), None);
    shell.give(link(&shell, "nyc.fabric", "factory.acme", healthy));
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    let reachable = "factory/10.0.0.1=Healthy";
    assert_eq!(seen(&shell).last().map(String::as_str), Some(reachable));
    let (_, set) = cart(&shell);
    let far = set
        .endpoints()
        .last()
        .and_then(|endpoint| endpoint.distance);
    assert!(far.is_some_and(|far| far.abs_diff(45 * MS) < MS), "{far:?}");
    // The no of either is a no.
    for (from, to) in [
        ("nyc.fabric", "factory.acme"),
        ("factory.acme", "nyc.fabric"),
    ] {
        shell.give(link(&shell, from, to, Some((State::Unhealthy, 0))));
        assert_eq!(ways(&mut shell), Some(vec![]));
        assert_eq!(seen(&shell).last().map(String::as_str), Some(unreachable));
        shell.give(link(&shell, from, to, healthy));
        assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    }
    // What the far end says may be known later.
    shell.give(link(&shell, "factory.acme", "nyc.fabric", None));
    assert_eq!(ways(&mut shell), None);
    shell.give(link(&shell, "nyc.fabric", "factory.acme", None));
    assert_eq!(ways(&mut shell), Some(vec![]));
    assert_eq!(seen(&shell).last().map(String::as_str), Some(unreachable));
    shell.give(link(&shell, "nyc.fabric", "factory.acme", healthy));
    shell.take();
    // Its own link to the first of them counts as it measures it, whatever the other says.
    shell.give(Event::Reach(site("nyc.fabric"), None));
    assert_eq!(ways(&mut shell), Some(vec![]));
    assert_eq!(seen(&shell).last().map(String::as_str), Some(unreachable));
}

#[test]
fn a_doubted_link_is_gone_round_while_its_length_stays() {
    let mut shell = importing();
    shell.give(Event::Reach(site("nyc.fabric"), Some(40 * MS)));
    shell.give(Event::Doubt(site("factory.acme"), true));
    // There is no other way.
    assert_eq!(ways(&mut shell), None);
    let far = |shell: &Shell| cart(shell).1.endpoints().last().and_then(|e| e.distance);
    assert_eq!(far(&shell), Some(40 * MS));
    let healthy = Some((State::Healthy, 5));
    shell.give(link(&shell, "nyc.fabric", "factory.acme", healthy));
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    shell.give(Event::Doubt(site("factory.acme"), false));
    assert_eq!(ways(&mut shell), None, "not before its time");
    shell.to(Instant::ZERO + MS * 10_000);
    assert_eq!(ways(&mut shell), Some(vec![]));
    assert_eq!(far(&shell), Some(40 * MS));
}

#[test]
fn a_gateway_reaches_another_over_a_pop() {
    let world = world();
    let mut shell = Shell::new(Part::Data, "aws.acme");
    shell.bundle(&world, &ids(&world), 1);
    shell.give(Event::Reach(site("par.fabric"), Some(5 * MS)));
    let healthy = Some((State::Healthy, 40));
    shell.give(link(&shell, "par.fabric", "factory.acme", healthy));
    shell.give(link(&shell, "factory.acme", "par.fabric", healthy));
    assert_eq!(ways(&mut shell), Some(vec!["par factory".to_owned()]));
}

const LINKS: [&str; 2] = [
    "{kind: Link, metadata: {name: l}, spec: {kind: backbone, a: par, b: nyc, cost: 2}}",
    "{kind: Link, metadata: {tenant: acme, name: l}, spec: {kind: transit, a: aws, b: par}}",
];

#[test]
fn of_what_sort_a_link_is_both_its_ends_know_and_say() {
    let plain = world();
    let ids = ids(&plain);
    let graded = LINKS.iter().fold(plain.clone(), |world, link| {
        crate::tests::put(&world, crate::tests::manifest(link))
    });
    let said = |shell: &mut Shell| {
        let names = shell.table().site_names.clone();
        let said = |effect| match effect {
            Effect::Originate(route) => {
                let Key::Link { to, .. } = &route.key else {
                    return None;
                };
                let link = route.value.as_link().expect("a link");
                let grade = link.grade.map(|grade| (grade.class, grade.cost));
                Some((names[to].to_string(), grade))
            }
            _ => None,
        };
        let all = shell.take().into_iter().filter_map(said);
        all.collect::<BTreeMap<String, Option<(u8, u16)>>>()
    };
    let said_of = |of: &[(&str, Option<(u8, u16)>)]| {
        let of = of.iter().map(|(to, grade)| ((*to).to_owned(), *grade));
        of.collect::<BTreeMap<String, Option<(u8, u16)>>>()
    };
    let mut shell = Shell::new(Part::Control, "par.fabric");
    shell.bundle(&plain, &ids, 1);
    shell.give(up(&[("nyc.fabric", 40), ("aws.acme", 5)]));
    let nothing = [("aws.acme", None), ("nyc.fabric", None)];
    assert_eq!(said(&mut shell), said_of(&nothing));
    // It is news although they are as long as they were; and so is that it is said no more.
    shell.bundle(&graded, &ids, 2);
    let both = [("aws.acme", Some((4, 1))), ("nyc.fabric", Some((1, 2)))];
    assert_eq!(said(&mut shell), said_of(&both));
    shell.bundle(&plain, &ids, 3);
    assert_eq!(said(&mut shell), said_of(&nothing));
    // Whom it does not concern knows nothing of it.
    for (of, knows) in [
        ("aws.acme", 1),
        ("factory.acme", 0),
        ("shop.blue", 0),
        ("nyc.fabric", 1),
    ] {
        let mut shell = Shell::new(Part::Control, of);
        shell.bundle(&graded, &ids, 1);
        assert_eq!(shell.table().fabric.grades.len(), knows, "{of}");
    }
}

#[test]
fn ways_go_by_what_sort_links_are_one_s_own_and_others() {
    let mut shell = importing();
    shell.give(Event::Reach(site("nyc.fabric"), Some(40 * MS)));
    shell.give(Event::Reach(site("factory.acme"), Some(44 * MS)));
    shell.give(link(
        &shell,
        "nyc.fabric",
        "factory.acme",
        Some((State::Healthy, 5)),
    ));
    assert_eq!(ways(&mut shell), None);
    // The other end says that its link is a backbone: 40 and 3.5.
    let id = |name: &str| shell.table().site_ids[&site(name)];
    let key = Key::Link {
        rd: Rd {
            site: id("nyc.fabric"),
            slot: SlotId(0),
        },
        from: id("nyc.fabric"),
        to: id("factory.acme"),
        tunnel: TunnelId(1),
    };
    let value = Value::link(&LinkHealth {
        state: State::Healthy,
        rtt: Measure::new(5000),
        grade: Some(bgp::LinkGrade { class: 1, cost: 1 }),
        ..LinkHealth::default()
    });
    shell.give(Event::Route(key, Some(value)));
    assert_eq!(ways(&mut shell), None, "it is too little");
    // And so is one's own.
    let world = crate::tests::put(
        &world(),
        crate::tests::manifest(LINKS[0].replace(", cost: 2", "").as_str()),
    );
    shell.bundle(&world, &ids(&world), 9);
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    let way = shell
        .brain
        .ways()
        .into_iter()
        .find(|way| way.hops.len() == 2);
    let grades = way.expect("the way").grades;
    assert_eq!(grades[0].to_string(), "backbone");
    assert_eq!(grades[1].to_string(), "backbone");
}

#[test]
fn how_full_a_link_is_is_said_when_it_is_news() {
    let world = world();
    let mut shell = Shell::new(Part::Control, "par.fabric");
    shell.bundle(&world, &ids(&world), 1);
    shell.take();
    let link = |load, capacity_kbit_s| {
        Event::Links(vec![Link {
            peer: site("nyc.fabric"),
            rtt_us: Some(40_000),
            jitter_us: 0,
            loss: 0,
            load,
            capacity_kbit_s,
        }])
    };
    let said = |shell: &mut Shell| {
        let said = |effect| match effect {
            Effect::Originate(route) => {
                let link = route.value.as_link().expect("a link");
                Some((link.load, link.bandwidth_kbit_s, link.grade))
            }
            _ => None,
        };
        shell
            .take()
            .into_iter()
            .filter_map(said)
            .collect::<Vec<_>>()
    };
    shell.give(link(0, 0));
    assert_eq!(said(&mut shell), [(0, 0, None)]);
    let unsaid = Some(bgp::LinkGrade { class: 0, cost: 1 });
    shell.give(link(90, 100_000));
    assert_eq!(said(&mut shell), [(58_982, 100_000, unsaid)]);
    // What it could carry, too soon after that, or about as much.
    for (ms, capacity, news) in [
        (9_000, 300_000, false),
        (9_500, 149_000, false),
        (10_000, 149_000, false),
        (10_000, 67_000, false),
        (10_000, 151_000, true),
        (19_000, 10_000, false),
        (20_000, 10_000, true),
    ] {
        shell.to(Instant::ZERO + MS * ms);
        shell.give(link(90, capacity));
        assert_eq!(!said(&mut shell).is_empty(), news, "{ms} {capacity}");
    }
    shell.give(link(0, 10_000));
    assert_eq!(said(&mut shell), [(0, 10_000, None)]);
}

#[test]
fn a_link_that_is_a_little_longer_is_said_to_be_so_after_a_while() {
    let world = world();
    let mut shell = Shell::new(Part::Control, "par.fabric");
    shell.bundle(&world, &ids(&world), 1);
    shell.take();
    let said = |shell: &mut Shell| {
        let said = |effect| match effect {
            Effect::Originate(route) => route.value.as_link().map(|link| link.rtt.quantity()),
            _ => None,
        };
        let taken = shell.take().into_iter();
        taken.filter_map(said).collect::<Vec<_>>()
    };
    shell.give(up(&[("nyc.fabric", 40)]));
    assert_eq!(said(&mut shell), [40_000]);
    shell.to(Instant::ZERO + MS * 3_000);
    shell.give(up(&[("nyc.fabric", 42)]));
    shell.to(Instant::ZERO + MS * 9_999);
    assert_eq!(said(&mut shell), [0_u32; 0]);
    shell.to(Instant::ZERO + MS * 10_000);
    assert_eq!(said(&mut shell), [42_000]);
    // Noise is none, whenever.
    shell.give(up(&[("nyc.fabric", 41)]));
    shell.to(Instant::ZERO + MS * 60_000);
    assert_eq!(said(&mut shell), [0_u32; 0]);
}

#[test]
fn a_link_that_is_a_little_better_than_it_was_is_known_to_be_so() {
    let mut shell = importing();
    let us = Duration::from_micros;
    shell.give(Event::Reach(site("nyc.fabric"), Some(38 * MS)));
    shell.give(Event::Reach(site("factory.acme"), Some(us(40_300))));
    let healthy = Some((State::Healthy, 5));
    shell.give(link(&shell, "nyc.fabric", "factory.acme", healthy));
    assert_eq!(ways(&mut shell), None);
    // As it is filled, and as the last of it leaves the queues.
    shell.give(Event::Reach(site("factory.acme"), Some(60 * MS)));
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    shell.to(Instant::ZERO + MS * 15_000);
    shell.give(Event::Reach(site("factory.acme"), Some(46 * MS)));
    // Nothing is heard after that, for it stays as it is.
    shell.give(Event::Reach(site("factory.acme"), Some(us(40_300))));
    assert_eq!(ways(&mut shell), None);
    let due = Instant::ZERO + MS * 25_000;
    assert_eq!(shell.brain.poll_timeout(), Some(due));
    shell.to(due);
    assert_eq!(ways(&mut shell), Some(vec![]));
    assert_eq!(shell.brain.poll_timeout(), None);
    // So it is with what is lost, a thousandth of which counts as a millisecond.
    shell.give(Event::Loss(site("factory.acme"), Loss::of(0.008)));
    shell.to(due + MS * 15_000);
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    shell.to(due + MS * 30_000);
    shell.give(Event::Reach(site("factory.acme"), Some(us(36_500))));
    shell.give(Event::Loss(site("factory.acme"), Loss::of(0.0035)));
    let due = due + MS * 40_000;
    assert_eq!(shell.brain.poll_timeout(), Some(due));
    assert_eq!(ways(&mut shell), None);
    shell.to(due);
    assert_eq!(ways(&mut shell), Some(vec![]));
    assert_eq!(shell.brain.poll_timeout(), None);
}

#[test]
fn ways_go_round_what_is_full_one_s_own_links_and_others() {
    let mut shell = importing();
    shell.give(Event::Reach(site("nyc.fabric"), Some(20 * MS)));
    shell.give(Event::Reach(site("factory.acme"), Some(22 * MS)));
    let healthy = Some((State::Healthy, 5));
    shell.give(link(&shell, "nyc.fabric", "factory.acme", healthy));
    shell.take();
    shell.give(Event::Load(site("factory.acme"), path::Load::FULL));
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
    let loads = |shell: &Shell| {
        let ways = shell.brain.ways().into_iter();
        let longest = ways.max_by_key(|way| way.hops.len()).expect("a way");
        longest
            .loads
            .iter()
            .map(|load| load.percent())
            .collect::<Vec<_>>()
    };
    assert_eq!(loads(&shell), [0, 0]);
    // The other end says that its link is fuller.
    let id = |name: &str| shell.table().site_ids[&site(name)];
    let key = Key::Link {
        rd: Rd {
            site: id("nyc.fabric"),
            slot: SlotId(0),
        },
        from: id("nyc.fabric"),
        to: id("factory.acme"),
        tunnel: TunnelId(1),
    };
    let value = Value::link(&LinkHealth {
        state: State::Healthy,
        rtt: Measure::new(5000),
        load: u16::MAX,
        ..LinkHealth::default()
    });
    shell.give(Event::Route(key, Some(value)));
    assert_eq!(ways(&mut shell), None, "not before its time");
    assert_eq!(loads(&shell), [0, 100]);
    shell.to(Instant::ZERO + MS * 20_000);
    assert_eq!(ways(&mut shell), Some(vec![]));
    // It has room again, and serves already.
    shell.give(Event::Load(site("factory.acme"), path::Load::of(0)));
    assert_eq!(ways(&mut shell), None);
    // What is full serves where nothing else does.
    shell.give(Event::Reach(site("factory.acme"), None));
    assert_eq!(ways(&mut shell), Some(vec!["nyc factory".to_owned()]));
}
