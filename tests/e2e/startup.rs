//! A planet starts fast, fits in memory, and leaves nothing behind.

use std::{fmt::Write, time::Duration};

use kit::{Client, Planet, Turn, figure, process::Process, wait_until};

use crate::{ACME, BLUE, SLACK, options, pass, planet};

const STARTUP: Duration = Duration::from_secs(5);
const PSS_KIB: u64 = 300 * 1024;

#[test]
fn a_planet_starts_in_5_s_and_fits_in_300_mib() {
    let turn = Turn::alone();
    let began = kit::runtime::now();
    let mut planet = Planet::start(&turn, options().temporary_home());
    let reply = Client::new().get(planet.pop("par").http, ACME, "/");
    let first = kit::runtime::now().since(began);
    assert_eq!(reply.expect("an answer").status, 200);
    let said = Duration::from_millis(planet.report.startup_ms);
    figure(format_args!(
        "startup: up says {said:?}, first 200 of a stranger after {first:?}"
    ));
    assert!(first <= STARTUP * SLACK, "{first:?}");
    // Ready and all caches warm: what is promised is the sum 10 s later.
    pass(Duration::from_secs(10));
    let mut each = String::new();
    for process in planet.processes() {
        let words: Vec<&str> = process.command.split(' ').skip(1).take(3).collect();
        let kib = kit::process::pss_kib(process.pid).unwrap_or_default();
        write!(each, " {} {kib};", words.join(" ")).expect("a string");
    }
    let sum = planet.pss_kib();
    figure(format_args!(
        "memory: {} MiB in {} processes (KiB:{each})",
        sum / 1024,
        planet.processes().len()
    ));
    assert!(sum <= PSS_KIB, "{sum} KiB");
    planet.stop();
}

#[test]
fn nothing_is_left_after_sigterm() {
    let turn = Turn::beside();
    let mut planet = Planet::start(&turn, options().temporary_home());
    let all = inhabited(&planet);
    let took = planet.stop();
    figure(format_args!("stop: {took:?} from SIGTERM to the end of up"));
    let left: Vec<&Process> = all.iter().filter(|process| process.is_alive()).collect();
    assert!(left.is_empty(), "{left:?}");
    deserted(&planet, &all);
}

#[test]
fn nothing_is_left_after_sigkill_of_up() {
    let turn = Turn::beside();
    let mut planet = Planet::start(&turn, options().temporary_home());
    let all = inhabited(&planet);
    let began = kit::runtime::now();
    planet.kill();
    deserted(&planet, &all);
    let took = kit::runtime::now().since(began);
    figure(format_args!(
        "stop: {took:?} from SIGKILL of up until nothing is left"
    ));
}

/// All processes of a planet that is as it should be.
fn inhabited(planet: &Planet) -> Vec<Process> {
    let all = planet.processes();
    // up, janitor, controller, relay, 2 PoPs, 3 gateways, 6 endpoints.
    assert_eq!(all.len(), 15, "{all:?}");
    assert!(planet.home().exists() && !planet.listening().is_empty());
    all
}

/// Waits until a planet has left no process, no socket and no file.
fn deserted(planet: &Planet, all: &[Process]) {
    wait_until("nothing is left", Duration::from_secs(5), || {
        let left: Vec<&Process> = all.iter().filter(|process| process.is_alive()).collect();
        if !left.is_empty() {
            return Err(format!("processes {left:?}"));
        }
        let sockets = planet.listening();
        if !sockets.is_empty() {
            return Err(format!("sockets {sockets:?}"));
        }
        let files = std::fs::read_dir(planet.folder()).expect("our folder");
        let names = files
            .flatten()
            .map(|file| file.file_name().display().to_string());
        let names: Vec<String> = names.filter(|name| name != "up.stderr").collect();
        if names.is_empty() {
            Ok(())
        } else {
            Err(format!("files {names:?}"))
        }
    });
}

#[test]
fn two_planets_at_once_share_nothing() {
    let turn = Turn::beside();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| planet(&turn));
        (planet(&turn), one.join().expect("a planet"))
    });
    assert_ne!(one.network(), other.network());
    let mut client = Client::new();
    for planet in [&one, &other] {
        for (host, apps) in [(ACME, planet.app(ACME)), (BLUE, planet.app(BLUE))] {
            for pop in &planet.report.pops {
                let reply = client.get(pop.http, host, "/").expect("an answer");
                let story = reply.story().expect("a demo endpoint");
                let ours = apps.endpoints.iter().any(|e| e.address == story.address);
                assert!(ours, "{story:?}");
            }
        }
    }
}
