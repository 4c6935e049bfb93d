//! The program as a whole, from outside: `sealane up` and what it serves.
//!
//! Bounds on time stand at twice their promised value, since other work may share the machine;
//! bounds on failures stand as they are.

mod controller;
mod faults;
mod isolation;
mod sharing;
mod startup;
mod support;

use std::{net::SocketAddr, time::Duration};

use kit::{Load, Options, Planet, Target, Turn};

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
        host: ACME.to_owned(),
        path: "/".to_owned(),
    }
}

/// 100 requests a second at each PoP.
fn load(planet: &Planet) -> Load {
    let pops = planet.report.pops.iter();
    Load::start(pops.map(|pop| cart(pop.http)).collect(), 200)
}

/// Lets time pass while a load runs or memory settles.
fn pass(time: Duration) {
    std::thread::sleep(time);
}
