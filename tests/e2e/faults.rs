//! What dies is missed by nobody: no request fails while another endpoint serves.
//!
//! Each fault comes while 100 requests a second go to each PoP. What a PoP *chose* is read from
//! its access log: a request whose last endpoint is the victim, or that needed more than one try.
//! The time of a choice is the time at which its request began.

use std::{collections::BTreeSet, path::Path, time::Duration};

use base::WallTime;
use http::Method;
use kit::{
    Access, Client, Load, Planet, Record, Role, Story, Turn, figure, process::Signal, since_ms,
    wait_until,
};
use serde_json::Value;

use crate::{ACME, SLACK, cart, load, pass, planet, prefer};

/// A closed connection is known one way later, and 100 ms for everything else.
const CLOSED: Duration = Duration::from_millis(100);
/// Silence is known after this.
const SILENT: Duration = Duration::from_millis(1200);
/// Before a fault, so that the victim is seen to serve.
const BEFORE: Duration = Duration::from_millis(1500);
/// After a fault, so that a late choice is seen.
const AFTER: Duration = Duration::from_secs(4);
/// Until what was healed is chosen again.
const HEALED: Duration = Duration::from_secs(15);

/// Who dies.
struct Victim {
    /// For people.
    name: &'static str,
    /// Its site, `SITE.TENANT`.
    site: &'static str,
    /// Its address, if it is one endpoint.
    address: Option<String>,
    /// The PoPs that lose it.
    pops: &'static [&'static str],
    /// The longest way that the news has to go.
    one_way: Duration,
}

impl Victim {
    fn endpoint(planet: &Planet, name: &'static str) -> Self {
        let address = Some(planet.endpoint(name).address.to_string());
        Victim {
            address,
            ..Victim::gateway(name)
        }
    }

    fn gateway(name: &'static str) -> Self {
        let one_way = Duration::from_millis(20); // aws to nyc
        Victim {
            name,
            site: "aws.acme",
            address: None,
            pops: &["par", "nyc"],
            one_way,
        }
    }

    fn pair(name: &'static str) -> Self {
        let one_way = Duration::from_micros(2500); // aws to par
        Victim {
            pops: &["par"],
            one_way,
            ..Victim::gateway(name)
        }
    }

    fn told(&self, story: &Story) -> bool {
        let here = format!("{}.{}", story.site, story.tenant) == self.site;
        here && self
            .address
            .as_ref()
            .is_none_or(|it| *it == story.address.to_string())
    }

    fn chosen(&self, access: &Access) -> bool {
        let it = self.address.as_ref().unwrap_or(&access.endpoint);
        access.tries > 1 || (access.site == self.site && *it == access.endpoint)
    }

    /// Whether a request came to a PoP that loses the victim.
    fn concerns(&self, planet: &Planet, record: &Record) -> bool {
        let pop = planet.report.pops.get(record.target);
        pop.is_some_and(|pop| self.pops.contains(&pop.name.as_str()))
    }
}

/// Lets a victim die under load, and checks what that promises.
fn die(planet: &Planet, victim: &Victim, how: &str, bound: Duration, kill: impl FnOnce()) {
    let what = format!("{} {how}", victim.name);
    let load = load(planet);
    pass(BEFORE);
    let began = kit::runtime::now();
    let at = kit::runtime::wall();
    kill();
    pass(AFTER);
    let records = load.stop();
    let served =
        |record: &&Record| record.start < began && record.story().is_some_and(|s| victim.told(s));
    let served = records.iter().filter(served).count();
    assert!(
        served > 20,
        "{what}: the victim served only {served} before it died"
    );
    none_failed(&what, &records);

    let (chosen, last, again) = last_choice(planet, victim, at);
    let after = records
        .iter()
        .filter(|record| record.start >= began && victim.concerns(planet, record));
    let slowest = after.map(Record::took).max().unwrap_or_default();
    figure(format_args!(
        "fault: {what}: 0 of {} failed, victim served {served} before; last chosen {last} ms \
         after ({chosen} times, {again} tried again), slowest answer {slowest:?}",
        records.len()
    ));
    let bound = (bound + victim.one_way) * SLACK;
    assert!(
        last <= i64::try_from(bound.as_millis()).expect("small"),
        "{what}: {last} ms > {bound:?}"
    );
}

pub(crate) fn none_failed(what: &str, records: &[Record]) {
    let failed: Vec<String> = records
        .iter()
        .filter(|record| record.has_failed())
        .map(|record| {
            format!(
                "{} at {} after {:?}: {:?}",
                record.target,
                record.start_wall,
                record.took(),
                record.outcome
            )
        })
        .collect();
    let some: Vec<&String> = failed.iter().take(10).collect();
    let late = records.iter().map(|record| record.late).max();
    let (failed, all, late) = (failed.len(), records.len(), late.unwrap_or_default());
    assert!(
        failed == 0,
        "{what}: {failed} of {all} failed (this test's own requests began up to {late:?} late): \
         {some:#?}"
    );
}

/// How often the PoPs chose the victim since `at`, when they did last (in ms since then), and how
/// many requests needed another try.
fn last_choice(planet: &Planet, victim: &Victim, at: WallTime) -> (usize, i64, usize) {
    let (mut chosen, mut last, mut again) = (0, 0, 0);
    for pop in victim.pops {
        for access in planet.access_log(pop).since(at) {
            if victim.chosen(&access) {
                chosen += 1;
                last = last.max(since_ms(at, &access.time));
                again += usize::from(access.tries > 1);
            }
        }
    }
    (chosen, last, again)
}

/// Waits until every PoP that lost the victim chooses it again.
fn recovers(planet: &Planet, victim: &Victim) {
    let began = kit::runtime::now();
    let mut client = Client::new();
    for pop in victim.pops {
        let address = planet.pop(pop).http;
        let what = format!("{pop} chooses {} again", victim.name);
        wait_until(&what, HEALED, || {
            let reply = client.get(address, ACME, "/");
            let story = reply.and_then(|reply| reply.story())?;
            if victim.told(&story) {
                Ok(())
            } else {
                Err(format!("{story:?}"))
            }
        });
        let took = kit::runtime::now().since(began);
        figure(format_args!(
            "fault: {} chosen by {pop} again {took:?} after it was healed",
            victim.name
        ));
    }
}

/// A planet on which both PoPs prefer aws, so that both have something to lose: factory is
/// 120 ms away from either.
fn planet_that_prefers_aws(turn: &Turn) -> Planet {
    let planet = planet(turn);
    planet.set_distance("factory-par", 120.0);
    planet.set_distance("factory-nyc", 120.0);
    prefer(&planet, &[("par", "aws"), ("nyc", "aws")], HEALED);
    planet
}

#[test]
fn an_endpoint_that_dies_is_missed_by_nobody() {
    let turn = Turn::alone();
    let mut planet = planet_that_prefers_aws(&turn);
    let victim = Victim::endpoint(&planet, "cart-1.aws");
    die(&planet, &victim, "SIGKILL", CLOSED, || {
        planet.signal("cart-1.aws", Signal::KILL)
    });
    planet.restart("cart-1.aws");
    recovers(&planet, &victim);
    die(&planet, &victim, "SIGSTOP", SILENT, || {
        planet.signal("cart-1.aws", Signal::STOP)
    });
    planet.signal("cart-1.aws", Signal::CONT);
    recovers(&planet, &victim);
}

#[test]
fn a_gateway_that_dies_is_missed_by_nobody() {
    let turn = Turn::alone();
    let mut planet = planet_that_prefers_aws(&turn);
    let victim = Victim::gateway("aws");
    die(&planet, &victim, "SIGKILL", CLOSED, || {
        planet.signal("aws", Signal::KILL)
    });
    planet.restart("aws");
    recovers(&planet, &victim);
    die(&planet, &victim, "SIGSTOP", SILENT, || {
        planet.signal("aws", Signal::STOP)
    });
    planet.signal("aws", Signal::CONT);
    recovers(&planet, &victim);
}

#[test]
fn a_way_that_dies_is_missed_by_nobody() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    let victim = Victim::pair("aws-par");
    die(&planet, &victim, "cut", CLOSED, || planet.cut("aws-par"));
    planet.heal("aws-par");
    recovers(&planet, &victim);
    die(&planet, &victim, "stalled", SILENT, || {
        planet.stall("aws-par")
    });
    planet.heal("aws-par");
    recovers(&planet, &victim);
}

#[test]
fn all_ways_dead_at_once_come_back() {
    let turn = Turn::alone();
    let mut planet = planet(&turn);
    let aws = Victim {
        pops: &["par"],
        ..Victim::gateway("aws")
    };
    for how in ["silent for 2 s", "killed"] {
        if how == "killed" {
            planet.signal("relay", Signal::KILL);
            pass(Duration::from_secs(1));
            planet.restart("relay");
        } else {
            planet.signal("relay", Signal::STOP);
            pass(Duration::from_secs(2));
            planet.signal("relay", Signal::CONT);
        }
        let mut client = Client::new();
        for pop in ["par", "nyc"] {
            let address = planet.pop(pop).http;
            let (_, took) = wait_until(&format!("{pop} answers"), HEALED, || {
                client
                    .get(address, ACME, "/")
                    .and_then(|reply| reply.story())
            });
            figure(format_args!(
                "fault: relay {how}: {pop} answers {took:?} after it is back"
            ));
        }
        recovers(&planet, &aws);
        let load = load(&planet);
        pass(BEFORE);
        none_failed(how, &load.stop());
    }
}

#[test]
fn a_bgp_session_that_dies_fails_nothing() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    let load = load(&planet);
    // Sessions older than any that comes later.
    pass(BEFORE * 2);
    let began = kit::runtime::now();
    let mut resets = 0;
    for node in ["par", "nyc", "aws"] {
        let neighbors = planet.admin(node, Method::GET, "/neighbors");
        let items = neighbors["items"].as_array().expect("a list").clone();
        for id in items.iter().filter_map(|item| item["id"].as_str()) {
            let done = planet.admin(node, Method::POST, &format!("/bgp/reset?peer={id}"));
            assert_eq!(done["reset"], Value::from(id));
            resets += 1;
        }
    }
    let asked = kit::runtime::now().since(began);
    for node in ["par", "nyc", "aws"] {
        wait_until(&format!("sessions of {node} are back"), HEALED, || {
            let neighbors = planet.admin(node, Method::GET, "/neighbors");
            let items = neighbors["items"].as_array().cloned().unwrap_or_default();
            // Up again, not up still: a session that never broke is older.
            let fresh = |item: &Value| {
                let age = item["since_s"].as_u64().map(Duration::from_secs);
                age.is_some_and(|age| age <= kit::runtime::now().since(began))
            };
            let back = items.iter().all(|item| item["up"] == true && fresh(item));
            if back && !items.is_empty() {
                Ok(())
            } else {
                Err(neighbors.to_string())
            }
        });
    }
    let took = kit::runtime::now().since(began);
    pass(BEFORE);
    let records = load.stop();
    none_failed("BGP resets", &records);
    let near = records.iter().filter(|record| {
        let pop = if record.target == 0 { "aws" } else { "factory" };
        record.story().is_some_and(|story| story.site == pop)
    });
    let near = near.count();
    figure(format_args!(
        "fault: {resets} BGP sessions reset: 0 of {} failed, {near} from the near site, all \
         sessions back after {took:?}, {asked:?} of that for asking",
        records.len()
    ));
}

/// Everything that a node believes.
fn keys(planet: &Planet, node: &str) -> BTreeSet<String> {
    let routes = planet.admin(node, Method::GET, "/routes");
    let items = routes["items"].as_array().expect("items").iter();
    items.map(|item| item["key"].to_string()).collect()
}

/// One of the two reflectors is killed: the other one and the gateways lose no route, and what
/// changes is known as soon as before.
#[test]
fn a_reflector_that_dies_loses_no_route() {
    let turn = Turn::alone();
    let mut planet = planet_that_prefers_aws(&turn);
    let load = Load::start(vec![cart(planet.pop("nyc").http)], 100);
    pass(BEFORE);
    let receivers = ["nyc", "aws", "factory"];
    let before = receivers.map(|node| keys(&planet, node));
    assert!(before.iter().all(|keys| keys.len() > 3), "{before:?}");
    planet.signal("par", Signal::KILL);
    let killed = kit::runtime::now();
    let mut looks = 0;
    while kit::runtime::now().since(killed) < AFTER {
        for (node, before) in receivers.iter().zip(&before) {
            let lost: Vec<_> = before.difference(&keys(&planet, node)).cloned().collect();
            assert!(lost.is_empty(), "{node} has lost {lost:?}");
            looks += 1;
        }
    }
    let victim = planet.endpoint("cart-1.aws").address.to_string();
    planet.signal("cart-1.aws", Signal::KILL);
    let (_, took) = wait_until("nyc knows of a death", HEALED, || {
        let all = planet.admin("nyc", Method::GET, "/endpoints");
        let items = all.as_array().expect("endpoints").iter();
        let of_victim = |view: &&Value| view["address"] == victim.as_str();
        let mut health = items.filter(of_victim).map(|view| view["health"].clone());
        if health.all(|health| health != "healthy") {
            Ok(())
        } else {
            Err(all.to_string())
        }
    });
    assert!(took <= Duration::from_secs(1) * SLACK, "{took:?}");
    pass(BEFORE);
    let records = load.stop();
    none_failed("kill -9 of a reflector", &records);
    figure(format_args!(
        "fault: kill -9 of a reflector: no route lost in {looks} looks at three receivers, a death \
         known at the other one {took:?} after it, 0 of {} failed there",
        records.len()
    ));
    planet.restart("cart-1.aws");
    planet.restart("par");
}

/// A gateway in two processes: the one that probes and announces is killed, and no request fails,
/// its endpoints still serve; the one that carries traffic is killed, and the site is gone at once.
#[test]
fn a_control_part_that_dies_is_missed_by_nobody() {
    let turn = Turn::alone();
    let planet = planet_that_prefers_aws(&turn);
    let state = planet.state("aws");
    let folder = state.to_str().expect("a plain path").to_owned();
    let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
    let start = |part: &str| {
        let args = ["node", "--state", &folder, "--part", part, "--workers", "1"];
        Role::start(program, &args, &state.join(format!("{part}.log")))
    };
    planet.signal("aws", Signal::KILL);
    // Its sockets are its own until it is gone.
    let socket = state.join("admin.sock");
    wait_until(
        "aws is gone",
        HEALED,
        || match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(_) => Err("its admin socket answers"),
            Err(_) => Ok(()),
        },
    );
    let (mut data, mut control) = (start("data"), start("control"));
    let victim = Victim::gateway("aws");
    recovers(&planet, &victim);
    // Ten minutes for whoever asks for them: SEALANE_AWAY_S=600.
    let away = std::env::var("SEALANE_AWAY_S").ok();
    let away = away.and_then(|seconds| seconds.parse().ok());
    let away = away.map_or(AFTER * 2, Duration::from_secs);
    for how in ["killed", "killed again"] {
        let load = load(&planet);
        pass(BEFORE);
        let began = kit::runtime::now();
        control.kill();
        pass(away);
        let records = load.stop();
        none_failed(&format!("kill -9 of a control part: {how}"), &records);
        let late = |record: &&Record| record.start > began + AFTER;
        let served = |record: &&Record| record.story().is_some_and(|story| victim.told(story));
        let still = records.iter().filter(late).filter(served).count();
        assert!(still > 100, "aws served only {still} of the last");
        figure(format_args!(
            "fault: kill -9 of the control part of aws: 0 of {} failed, it served {still} of those \
             that came {AFTER:?} and more after, away for {away:?}",
            records.len()
        ));
        control = start("control");
        let fresh = |view: &Value| view["up"] == true && view["synced"] == true;
        wait_until("par hears of aws again", HEALED, || {
            let all = planet.admin("par", Method::GET, "/neighbors");
            let items = all["items"].as_array().cloned().unwrap_or_default();
            if items.iter().all(fresh) {
                Ok(())
            } else {
                Err(all.to_string())
            }
        });
    }
    die(&planet, &victim, "SIGKILL of its data part", CLOSED, || {
        data.kill();
    });
    let data = start("data");
    recovers(&planet, &victim);
    drop((data, control));
}
