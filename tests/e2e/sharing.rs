//! Who answers: every request goes to a near and healthy endpoint of its own tenant.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use kit::{Client, Http2, Planet, Reply, Story, Turn, figure};

use crate::{ACME, BLUE, SLACK, planet, prefer};

const REQUESTS: u32 = 1_000;
/// Clients that ask at the same time, each over a connection of its own.
const CLIENTS: u32 = 8;

/// How often each endpoint answered, by site and address.
#[derive(Default)]
struct Shares(BTreeMap<String, BTreeMap<String, u32>>);

impl Shares {
    fn count(&mut self, story: &Story) {
        let site = self.0.entry(story.site.clone()).or_default();
        *site.entry(story.address.to_string()).or_default() += 1;
    }

    fn of_site(&self, site: &str) -> u32 {
        self.0.get(site).map_or(0, |site| site.values().sum())
    }

    fn total(&self) -> u32 {
        self.0.values().flat_map(BTreeMap::values).sum()
    }

    /// In percent of all.
    fn percent(&self, count: u32) -> f64 {
        f64::from(count) * 100.0 / f64::from(self.total().max(1))
    }

    /// At least 95 % from `site`, and from each of its `endpoints` between `low` and `high`
    /// percent of all.
    fn check(&self, what: &str, site: &str, endpoints: usize, low: f64, high: f64) {
        let each = self.0.get(site).cloned().unwrap_or_default();
        let near = self.percent(self.of_site(site));
        let shares: Vec<String> = each
            .values()
            .map(|count| format!("{:.1} %", self.percent(*count)))
            .collect();
        figure(format_args!(
            "shares: {what}: {near:.1} % from {site} ({})",
            shares.join(", ")
        ));
        assert!(near >= 95.0, "{what}: {:?}", self.0);
        assert_eq!(each.len(), endpoints, "{what}: {:?}", self.0);
        for count in each.values() {
            let share = self.percent(*count);
            assert!((low..=high).contains(&share), "{what}: {:?}", self.0);
        }
    }

    /// What acme's application should look like at a PoP whose near site is `site`.
    fn check_acme(&self, what: &str, site: &str) {
        match site {
            "aws" => self.check(what, site, 3, 23.0, 43.0),
            _ => self.check(what, site, 2, 40.0, 60.0),
        }
    }
}

#[test]
fn near_endpoints_share_the_requests_and_preference_follows_distance() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    for (pop, site) in [("par", "aws"), ("nyc", "factory")] {
        http1(&planet, pop, ACME).check_acme(&format!("http/1.1 at {pop}"), site);
        http2(&planet, pop, ACME).check_acme(&format!("h2 at {pop}"), site);
    }
    for (pair, rtt_ms) in [
        ("aws-par", 40.0),
        ("aws-nyc", 5.0),
        ("factory-nyc", 40.0),
        ("factory-par", 5.0),
    ] {
        planet.set_distance(pair, rtt_ms);
    }
    let swapped = [("par", "factory"), ("nyc", "aws")];
    let bound = Duration::from_secs(10) * SLACK;
    for (pop, took) in prefer(&planet, &swapped, bound) {
        figure(format_args!(
            "preference: {pop} follows {took:?} after the swap"
        ));
    }
    for (pop, site) in swapped {
        http1(&planet, pop, ACME).check_acme(&format!("http/1.1 at {pop}, swapped"), site);
    }
}

#[test]
fn a_tenant_is_answered_by_its_own_endpoints_only() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    for pop in ["par", "nyc"] {
        for (protocol, shares) in [
            ("http/1.1", http1(&planet, pop, BLUE)),
            ("h2", http2(&planet, pop, BLUE)),
        ] {
            let what = format!("blue's, {protocol} at {pop}");
            shares.check(&what, "shop", 1, 100.0, 100.0);
        }
    }
}

/// Answers to 1,000 requests over eight connections, all of them 200.
fn http1(planet: &Planet, pop: &str, host: &str) -> Shares {
    let address = planet.pop(pop).http;
    shares(host, || {
        let mut client = Client::new();
        move || client.get(address, host, "/")
    })
}

/// The same over HTTP/2 and TLS.
fn http2(planet: &Planet, pop: &str, host: &str) -> Shares {
    let address = planet.pop(pop).https;
    shares(host, || {
        let mut client = Http2::connect(address, host).expect("a connection");
        move || client.get("/")
    })
}

fn shares<A>(host: &str, client: impl Fn() -> A + Sync) -> Shares
where
    A: FnMut() -> Result<Reply, String>,
{
    let tenant = host.split('.').nth(1).expect("cart.TENANT.example");
    let shares = Mutex::new(Shares::default());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut ask = client();
                for _ in 0..REQUESTS / CLIENTS {
                    let reply = ask().and_then(|reply| reply.story());
                    let story = reply.expect("200 and a story");
                    assert_eq!(story.tenant, tenant);
                    shares.lock().expect("nobody panicked").count(&story);
                }
            });
        }
    });
    let shares = shares.into_inner().expect("nobody panicked");
    assert_eq!(shares.total(), REQUESTS);
    shares
}
