//! The program as a whole, from outside: `sealane up` and what it serves.
//!
//! Bounds on time stand at twice their promised value, since other work may share the machine;
//! bounds on failures stand as they are.

mod attachment;
mod bundle;
mod change;
mod clients;
mod controller;
mod edge;
mod examples;
mod fair;
mod faults;
mod hosts;
mod identity;
mod isolation;
mod layer4;
mod limits;
mod live;
mod loaded;
mod mesh;
mod namespaces;
mod parts;
mod refusals;
mod renewal;
mod restart;
mod routers;
mod scan;
mod scenario;
mod sharing;
mod slow;
mod spill;
mod startup;
mod succession;
mod support;
mod wide;

use std::{net::SocketAddr, time::Duration};

use kit::{Client, Load, Options, Planet, Target, Turn, wait_until};

/// acme's application: three endpoints in aws, two in factory.
const ACME: &str = "cart.acme.example";
/// blue's application: one endpoint in shop.
const BLUE: &str = "cart.blue.example";
/// A bound on time is asserted at so many times its promise.
const SLACK: u32 = 2;

/// How planets of these tests are started.
fn options() -> Options {
    Options::new(env!("CARGO_BIN_EXE_sealane"))
}

fn planet(turn: &Turn) -> Planet {
    Planet::start(turn, options())
}

/// `GET /` of acme's application.
fn cart(address: SocketAddr) -> Target {
    Target {
        address,
        from: None,
        host: ACME.to_owned(),
        path: "/".to_owned(),
    }
}

/// 100 requests a second at each PoP.
fn load(planet: &Planet) -> Load {
    let pops = planet.report.pops.iter();
    Load::start(pops.map(|pop| cart(pop.http)).collect(), 200)
}

/// Waits until 20 answers in a row come from `site` at each of these PoPs; returns how long after
/// now each needed.
fn prefer<'p>(
    planet: &Planet,
    choices: &[(&'p str, &str)],
    bound: Duration,
) -> Vec<(&'p str, Duration)> {
    let began = kit::runtime::now();
    let mut client = Client::new();
    let wait = |(pop, site): &(&'p str, &str)| {
        let address = planet.pop(pop).http;
        let mut row = 0;
        wait_until(&format!("{pop} prefers {site}"), bound, || {
            let reply = client.get(address, ACME, "/");
            let story = reply.and_then(|reply| reply.story())?;
            row = if story.site == *site { row + 1 } else { 0 };
            if row >= 20 {
                Ok(())
            } else {
                Err(format!("{} answered", story.site))
            }
        });
        (*pop, kit::runtime::now().since(began))
    };
    choices.iter().map(wait).collect()
}

/// Lets time pass while a load runs or memory settles.
fn pass(time: Duration) {
    std::thread::sleep(time);
}
