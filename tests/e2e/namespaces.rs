//! A planet in network namespaces: real packets, real loss, real NAT, and no privileges.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kit::{Client, Planet, Turn, figure, wait_until};

use crate::{
    ACME, BLUE,
    examples::{python, skip},
    faults::none_failed,
    load, options, pass,
};

/// Before something happens, so that it happens to traffic.
const BEFORE: Duration = Duration::from_millis(500);
/// After it, so that what comes of it is seen.
const AFTER: Duration = Duration::from_secs(3);

fn lab(planet: &Planet, words: &[&str]) {
    let all: Vec<&str> = ["lab"].iter().chain(words).copied().collect();
    let _ = planet.sealane(&all).good();
}

#[test]
fn lines_that_are_cut_or_lossy_and_routers_that_forget_fail_nobody() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let net = &planet.report.net;
    assert_eq!(net.mode, "ns");
    for place in ["wan", "par", "aws", "aws-nat", "shop", "shop-nat"] {
        assert!(net.namespaces.contains_key(place), "{net:?}");
    }
    let figures = planet.report.startup_ms;
    figure(format_args!("namespaces: ready after {figures} ms"));
    for words in [
        &["degrade", "aws-par", "--loss", "5", "--jitter", "3ms"][..],
        &["flush-nat", "aws"],
        &["cut", "aws-par"],
        &["heal", "aws-par"],
    ] {
        let load = load(&planet);
        pass(BEFORE);
        lab(&planet, words);
        pass(AFTER);
        let records = load.stop();
        let longest = records.iter().map(kit::Record::took).max();
        let what = format!("namespaces: {}", words.join(" "));
        none_failed(&what, &records);
        figure(format_args!(
            "{what}: 0 of {} failed, the slowest took {:?}",
            records.len(),
            longest.unwrap_or_default()
        ));
    }
    let lines = planet.sealane(&["lab", "list"]).good().stdout;
    let line = lines.lines().find(|line| line.starts_with("aws-par "));
    let line = line.unwrap_or_else(|| panic!("{lines}"));
    assert!(
        line.contains(" open ") && line.contains(" 0.00% "),
        "{line}"
    );
    let lost = line.split_whitespace().next_back().map(str::parse::<u64>);
    assert!(matches!(lost, Some(Ok(1..))), "{line}");
}

#[test]
fn tenants_with_the_same_addresses_are_each_at_home() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let mut client = Client::new();
    for (host, site, tenant) in [(ACME, "aws", "acme"), (BLUE, "shop", "blue")] {
        let at = planet.pop("par").http;
        wait_until("the nearest answers", AFTER, || {
            let reply = client.get(at, host, "/");
            let story = reply.and_then(|reply| reply.story())?;
            // The first endpoints of both tenants have this very address.
            let first = story.address.to_string() == "10.0.0.11:18000";
            if story.site == site && story.tenant == tenant && first {
                Ok(())
            } else {
                Err(format!("{story:?}"))
            }
        });
    }
    let refused = planet.sealane(&["lab", "flush-nat", "par"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("no router before \"par\""),
        "{refused:?}"
    );
    let refused = planet.sealane(&["lab", "cut", "aws-moon"]);
    assert!(
        refused.stderr.contains("there are aws-nyc, aws-par"),
        "{refused:?}"
    );
}

/// A program in a namespace of the planet.
fn inside(planet: &Planet, place: &str, program: &[&str]) -> Command {
    let net = planet.report.net.namespaces.get(place);
    let net = net.unwrap_or_else(|| panic!("no namespace {place}"));
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", net.display()));
    // /proc/PID/fd/N: whoever may not make namespaces has made one of users first.
    let owner = net.ancestors().nth(2).expect("a process").join("ns/user");
    let same = std::fs::read_link("/proc/self/ns/user").ok() == std::fs::read_link(&owner).ok();
    if !same {
        command.arg(format!("--user={}", owner.display()));
        command.arg("--preserve-credentials");
    }
    command.args(program);
    command
}

/// Addresses of a place that others may try.
fn addresses(planet: &Planet, place: &str) -> BTreeSet<String> {
    let listed = inside(planet, place, &["ip", "-o", "-4", "addr"]).output();
    let listed = String::from_utf8(listed.expect("ip").stdout).expect("text");
    let words = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let all = words.filter_map(|word| Some(word.split_once('/')?.0.to_owned()));
    all.filter(|address| !address.starts_with("127.")).collect()
}

/// Ports of a place that are there for everybody who has a way to it.
fn published(place: &str) -> &'static [u16] {
    match place {
        // Tunnels, http, https.
        "par" | "nyc" => &[17443, 18080, 18443],
        // API and fabric.
        "controller" => &[16443, 16444],
        _ => &[],
    }
}

/// Every TCP port of every address, from every other place: PoPs show what they are there for,
/// gateways nothing, and no site shows another anything else.
#[test]
fn nothing_of_a_site_answers_but_what_it_publishes() {
    let Some(python) = python("select") else {
        return skip("the scan", "python3");
    };
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let places = planet.report.net.namespaces.keys();
    let places: Vec<&str> = places.map(String::as_str).filter(|p| *p != "wan").collect();
    let at: BTreeMap<&str, BTreeSet<String>> = places
        .iter()
        .map(|place| (*place, addresses(&planet, place)))
        .collect();
    let all: BTreeSet<&String> = at.values().flatten().collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/scan.py");
    let scans: Vec<(&str, Child)> = places
        .iter()
        .map(|from| {
            let others = all.iter().filter(|address| !at[from].contains(**address));
            let mut scan = inside(&planet, from, &[&python, script]);
            scan.args(others).stdout(Stdio::piped());
            (*from, scan.spawn().expect("nsenter"))
        })
        .collect();
    let (mut tried, mut open) = (0, 0);
    for (from, scan) in scans {
        let said = scan.wait_with_output().expect("it ends");
        assert!(said.status.success(), "{from}: {said:?}");
        for line in String::from_utf8(said.stdout).expect("text").lines() {
            let mut words = line.split(' ');
            let (address, answered) = (words.next(), words.next());
            let address = address.expect("an address");
            let found: Vec<u16> = words.map(|port| port.parse().expect("a port")).collect();
            // Each in the gateways' inner network is at several places: from here at the own one.
            let inner = from
                .strip_suffix("-nat")
                .filter(|_| address.starts_with("10."));
            let place = inner.or_else(|| {
                let mut places = at.iter();
                places.find_map(|(place, own)| own.contains(address).then_some(*place))
            });
            let place = place.expect("somebody's");
            let endpoints: &[u16] = match inner {
                // The router stands in the site's own network: it reaches the site's applications.
                Some(site) if at[site].contains(address) && address != "10.0.0.2" => &[18000],
                Some(_) | None => published(place),
            };
            assert_eq!(found, endpoints, "{address} of {place}, from {from}");
            if !endpoints.is_empty() {
                // Else nothing was seen of it. A router may have no way left for a few.
                let answered: u32 = answered
                    .and_then(|count| count.parse().ok())
                    .expect("a count");
                assert!(
                    answered > 65_000,
                    "{address} of {place}, from {from}: {answered}"
                );
            }
            tried += 1;
            open += found.len();
        }
    }
    figure(format_args!(
        "namespaces: 65535 ports each of {tried} addresses seen from other places: {open} open, all \
         published"
    ));
}
