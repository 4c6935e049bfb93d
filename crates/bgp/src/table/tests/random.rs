//! Random histories against a model: at rest, everybody holds what is so.

use std::sync::Arc;

use base::Rng;

use super::model::{
    Planet, attributes, client, external, internal, prefix, spoken, vpn, wanted, with_target,
};
use crate::{
    policy::{Action, Condition, Med, Policy, Statement, Then, Verdict},
    table::*,
};

fn below(rng: &mut Rng, n: u64) -> u64 {
    rng.next_u64() % n
}

/// Policies that take and tell everything, but some of it with a changed preference: whatever is
/// remembered of their answers is to be given back.
fn some_policy(pref: u32) -> Arc<Filter> {
    let statement = Statement {
        name: "short".to_owned(),
        conditions: vec![Condition::PathLength(0..=2)],
        actions: vec![Action::LocalPref(pref), Action::Med(Med::Set(pref))],
        then: Then::Accept,
    };
    Arc::new(Filter::from(Policy {
        statements: vec![statement],
        default: Verdict::Accept,
    }))
}

fn play(seed: u64, steps: usize, add_path: u8) {
    let families = [Family::IPV4, Family::VPNV4, Family::RTC];
    let mut planet = Planet::new(65000, &families);
    let mut rng = Rng::new(seed);
    let config = |at: u16| {
        if at.is_multiple_of(2) {
            let mut config = external(at, 65000 + u32::from(at));
            config.families[0].add_path_send = add_path;
            if at.is_multiple_of(4) {
                config.import = some_policy(100 + u32::from(at));
                config.export = some_policy(7);
            }
            return config;
        }
        let mut config = client(at, 65000);
        config.constrained = at.is_multiple_of(3);
        if at == 7 {
            config.kind = Kind::NonClient;
        }
        config.families = families.iter().map(|f| spoken(*f)).collect();
        config.families[0].add_path_send = add_path;
        config
    };
    let mut deaf = [false; 9];
    for step in 0..steps {
        let at = 1 + u16::try_from(below(&mut rng, 8)).expect("small");
        if !planet.is_up(at) {
            planet.up(at, config(at));
            deaf[usize::from(at)] = false;
            continue;
        }
        let i = below(&mut rng, 40);
        let keys: Vec<Vec<u8>> = (i..i + 1 + below(&mut rng, 5))
            .map(|i| prefix(u32::try_from(i).expect("small"), 24))
            .collect();
        let length = 1 + u8::try_from(below(&mut rng, 4)).expect("small");
        let tenant = 1 + u8::try_from(below(&mut rng, 3)).expect("small");
        let own = u8::try_from(at).expect("small");
        let a = if at % 2 == 0 {
            attributes(65000 + u32::from(at), length)
        } else {
            internal(own)
        };
        let path_id = u32::try_from(below(&mut rng, 3)).expect("small");
        match below(&mut rng, 100) {
            0..30 => planet.say(at, Family::IPV4, path_id, &keys, Some(&a)),
            30..50 => planet.say(at, Family::IPV4, path_id, &keys, None),
            50..60 if at % 2 == 1 => {
                planet.announce(at, Family::VPNV4, &[vpn(own, tenant)], &with_target(tenant));
            }
            60..66 if at % 2 == 1 => planet.withdraw(at, Family::VPNV4, &[vpn(own, tenant)]),
            66..70 if at % 3 == 0 => {
                planet.announce(at, Family::RTC, &[wanted(tenant)], &internal(own));
            }
            70..73 if at % 3 == 0 => planet.withdraw(at, Family::RTC, &[wanted(tenant)]),
            73..76 => planet.shard.refresh(PeerIndex(at), Family::IPV4),
            76..79 => {
                let keep: &[Family] = if step % 2 == 0 { &[] } else { &families };
                planet.down(at, keep);
            }
            79..81 => planet.end_of_rib(at, families[step % 3]),
            81..85 => {
                planet.shard.pause(PeerIndex(at));
                deaf[usize::from(at)] = true;
            }
            85..90 if deaf[usize::from(at)] => {
                planet.shard.resume(PeerIndex(at));
                deaf[usize::from(at)] = false;
            }
            90..92 => planet.shard.set_ready(PeerIndex(at), step % 2 == 0),
            _ => {
                planet.turn();
            }
        }
        if step % 97 == 0 {
            for at in 1..=8 {
                planet.shard.resume(PeerIndex(at));
                deaf[usize::from(at)] = false;
            }
            planet.settle();
            planet.check();
        }
    }
    for at in 1..=8 {
        if planet.is_up(at) {
            planet.down(at, &[]);
        }
    }
    // Routes kept for a restart go when the neighbour comes back and says nothing.
    for at in 1..=8 {
        planet.up(at, config(at));
        for family in families {
            planet.end_of_rib(at, family);
        }
    }
    planet.settle();
    planet.check();
    for family in families {
        let (left, _) = planet.shard.routes(family, 0, 10, |_| true);
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
    let sizes = planet.shard.sizes();
    assert_eq!(
        (sizes.routes, sizes.attributes, sizes.pending),
        (0, 0, 0),
        "seed {seed}"
    );
}

#[test]
fn whatever_happens_everybody_hears_what_is_so() {
    for seed in 0..60 {
        play(seed, 1500, 0);
    }
}

#[test]
fn the_same_with_several_paths() {
    for seed in 100..140 {
        play(seed, 1500, 3);
    }
}
