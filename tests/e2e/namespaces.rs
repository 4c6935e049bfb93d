//! A planet in network namespaces: real packets, real loss, real NAT, and no privileges.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::RangeInclusive,
    process::Stdio,
    time::Duration,
};

use kit::{
    Client, Load, Planet, Target, Turn, bulk, figure, http::Method, process::Signal, wait_until,
};
use serde_json::{Value, json};

use crate::{
    ACME, BLUE,
    faults::none_failed,
    load, options, pass,
    support::{acme, at, fetch, node_metric, put},
};

const PLANT: &str = "plant.acme.example";
/// A download of 3 s.
const DOWNLOAD: &str = "/download?bytes=6000000&rate=2000000";
/// Before something happens, so that it happens to traffic.
const BEFORE: Duration = Duration::from_millis(500);
/// After it, so that what comes of it is seen.
const AFTER: Duration = Duration::from_secs(3);

/// Four PoPs and four gateways in namespaces.
fn world() -> kit::Options {
    let options = options().arg("--net").arg("ns");
    options.arg("--topology").arg("world")
}

fn lab(planet: &Planet, words: &[&str]) {
    let all: Vec<&str> = ["lab"].iter().chain(words).copied().collect();
    let _ = planet.sealane(&all).good();
}

/// The application in acme's factory, asked in Paris.
fn plant(planet: &Planet) -> Target {
    Target {
        address: planet.pop("par").http,
        from: None,
        host: PLANT.to_owned(),
        path: "/".to_owned(),
    }
}

/// A connection on which something was asked for, which ends with the answer.
fn begun(address: SocketAddr, host: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
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

/// The sites over which a stream from one site to another goes now, itself the last.
pub(crate) fn way(planet: &Planet, from: &str, to: &str) -> Result<Vec<String>, String> {
    let paths = planet.admin(from, Method::GET, "/paths");
    let mut paths = paths.as_array().into_iter().flatten();
    let path = paths.find(|path| path["site"].as_str() == Some(to));
    let hops = path.and_then(|path| path["hops"].as_array());
    let name = |hop: &Value| hop["site"].as_str().map(|site| site.replace(".fabric", ""));
    let hops = hops.ok_or_else(|| format!("no way from {from} to {to}"))?;
    Ok(hops.iter().filter_map(name).collect())
}

/// How long until that is the way from `par` to acme's factory.
pub(crate) fn takes(planet: &Planet, wanted: &[&str], bound: Duration) -> Duration {
    let began = kit::runtime::now();
    wait_until(
        &format!("par reaches factory over {wanted:?}"),
        bound,
        || match way(planet, "par", "factory.acme")? {
            way if way == wanted => Ok(()),
            way if kit::runtime::now().since(began) + Duration::from_secs(1) < bound => {
                Err(format!("{way:?}"))
            }
            way => {
                let measured = ["par", "lon", "nyc"]
                    .map(|pop| planet.admin(pop, Method::GET, "/status")["links"].take());
                let paths = planet.admin("par", Method::GET, "/paths");
                Err(format!("{way:?}; paths: {paths}; links: {measured:?}"))
            }
        },
    );
    kit::runtime::now().since(began)
}

#[test]
fn a_cut_between_pops_is_gone_round_and_come_back_from() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, world());
    figure(format_args!(
        "world: ready after {} ms",
        planet.report.startup_ms
    ));
    let direct = ["nyc", "factory.acme"];
    takes(&planet, &direct, AFTER);
    // Behind two routers, the one before the Internet forgetting everything.
    assert!(planet.report.net.namespaces.contains_key("market-nat-2"));
    for _ in 0..2 {
        let reply = Client::new().get(planet.pop("sin").http, BLUE, "/");
        let story = reply.and_then(|reply| reply.story());
        assert_eq!(story.expect("an answer").site, "market");
        lab(&planet, &["flush-nat", "market"]);
    }
    let plant = plant(&planet);
    let http = plant.address;
    let download = std::thread::spawn(move || Client::new().get(http, PLANT, DOWNLOAD));
    let load = Load::start(vec![plant], 500);
    pass(BEFORE);
    lab(&planet, &["cut", "par-nyc"]);
    let cut = takes(&planet, &["lon", "nyc", "factory.acme"], AFTER);
    pass(AFTER);
    lab(&planet, &["heal", "par-nyc"]);
    let healed = takes(&planet, &direct, Duration::from_secs(20));
    pass(AFTER);
    let now = way(&planet, "par", "factory.acme");
    assert_eq!(now.as_deref(), Ok(&direct.map(str::to_owned)[..]));
    let records = load.stop();
    none_failed("world: par-nyc cut and healed", &records);
    let download = download.join().expect("no panic").expect("not cut");
    assert_eq!((download.status, download.body.len()), (200, 6_000_000));
    let longest = records.iter().map(kit::Record::took).max();
    figure(format_args!(
        "world: par-nyc cut: over lon after {cut:?}, healed: back after {healed:?}; 0 of {} failed, \
         the slowest took {:?}; a download went on",
        records.len(),
        longest.unwrap_or_default()
    ));
}

/// As good as the direct one, but longer.
const DETOUR: &str =
    "{kind: Link, metadata: {name: lon-nyc}, spec: {kind: backbone, a: lon, b: nyc}}";

#[test]
fn what_begins_goes_round_a_line_that_a_download_fills() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, world());
    let _ = planet.sealane_with(&["apply", "-f", "-"], DETOUR).good();
    let (direct, round) = (["nyc", "factory.acme"], ["lon", "nyc", "factory.acme"]);
    takes(&planet, &direct, AFTER);
    // By some 6 ms of what counts: more than a busy machine makes of it, and less than a full line.
    lab(&planet, &["degrade", "lon-nyc", "--delay", "21ms"]);
    lab(&planet, &["degrade", "par-nyc", "--rate", "20000"]);
    let plant = plant(&planet);
    let address = plant.address;
    let load = Load::start(vec![plant], 50);
    pass(AFTER);
    let mut stream = begun(address, PLANT, "/download?bytes=1000000000");
    let download = std::thread::spawn(move || {
        let rate = bulk::drain(&mut stream, Some(Duration::from_secs(25)));
        rate.expect("not cut")
    });
    let full = takes(&planet, &round, Duration::from_secs(30));
    pass(AFTER);
    let since = kit::runtime::now();
    pass(AFTER);
    let still = way(&planet, "par", "factory.acme");
    assert_eq!(still.as_deref(), Ok(&round.map(str::to_owned)[..]));
    let rate = download.join().expect("no panic");
    let free = takes(&planet, &direct, Duration::from_secs(90));
    let records = load.stop();
    none_failed("world: par-nyc filled by a download", &records);
    let later = records.iter().filter(|record| record.start >= since);
    let mut took: Vec<Duration> = later.take(100).map(kit::Record::took).collect();
    took.sort();
    figure(format_args!(
        "world: a download of {:.1} Mbit/s over par-nyc, which carries 20: what begins goes over lon \
         after {full:?}, {:?} of 100 answers within {:?}; back {free:?} after it; 0 of {} failed",
        rate as f64 * 8e-6,
        took.len() * 99 / 100,
        took[took.len() * 99 / 100],
        records.len()
    ));
    // Most of what the line carries is the download's.
    assert!(rate > 1_000_000, "{rate}");
}

/// The PoPs to which a gateway has a link.
pub(crate) fn attached(planet: &Planet, gateway: &str) -> Vec<String> {
    let status = planet.admin(gateway, Method::GET, "/status");
    let links = status["links"].as_array().into_iter().flatten();
    let peers = links.filter_map(|link| link["peer"].as_str());
    let mut peers: Vec<String> = peers.map(str::to_owned).collect();
    peers.sort();
    // One over TLS and one over QUIC, of each uplink.
    peers.dedup();
    peers
}

#[test]
fn another_pop_stands_in_for_one_that_dies() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    // The nearest two of the three to which it has a line, not the first.
    wait_until("shop is attached", AFTER, || {
        match attached(&planet, "shop") {
            pops if pops == ["lon.fabric", "par.fabric"] => Ok(()),
            pops => Err(format!("{pops:?}")),
        }
    });
    let blue = Target {
        address: planet.pop("nyc").http,
        from: None,
        host: BLUE.to_owned(),
        path: "/".to_owned(),
    };
    let load = Load::start(vec![blue], 100);
    pass(BEFORE);
    let began = kit::runtime::now();
    planet.signal("lon", Signal::KILL);
    wait_until(
        "nyc stands in",
        Duration::from_secs(10),
        || match attached(&planet, "shop") {
            pops if pops == ["nyc.fabric", "par.fabric"] => Ok(()),
            pops => Err(format!("{pops:?}")),
        },
    );
    let took = kit::runtime::now().since(began);
    pass(BEFORE);
    let records = load.stop();
    none_failed("world: lon killed", &records);
    figure(format_args!(
        "world: lon killed: shop is attached to nyc in its place after {took:?}; 0 of {} failed",
        records.len()
    ));
}

/// Offers acme's plant, which is in `factory` alone, inside the network of `aws`; where.
pub(crate) fn plant_inside(planet: &Planet) -> SocketAddr {
    let vip = at(planet, 80, 8080);
    put(
        &planet.api(),
        &json!({ "kind": "LoadBalancer", "metadata": acme("plant-inside"), "spec": {
            "hosts": ["plant.acme.example"],
            "ports": [vip.port()],
            "advertise": [{ "sites": ["aws"], "vip": vip.ip() }],
            "routes": [{ "backendRefs": [{ "name": "plant" }] }],
        } }),
    );
    vip
}

#[test]
fn an_application_in_one_gateway_is_reached_from_another() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    let vip = plant_inside(&planet);
    let mut client = Client::new();
    wait_until("aws reaches factory", Duration::from_secs(10), || {
        let reply = client.get(vip, "plant.acme.example", "/");
        match reply.and_then(|reply| reply.story())? {
            story if story.site == "factory" => Ok(()),
            story => Err(format!("{story:?}")),
        }
    });
    let hops = way(&planet, "aws", "factory.acme").expect("a way");
    assert_eq!(hops.last().map(String::as_str), Some("factory.acme"));
    assert!(hops.len() >= 2, "{hops:?}");
    let shown = planet
        .sealane(&["get", "paths", "aws", "-t", "acme"])
        .good()
        .stdout;
    let line = shown
        .lines()
        .find(|line| line.starts_with("aws.acme") && line.contains(" factory.acme "));
    assert!(line.is_some_and(|line| line.contains("fabric")), "{shown}");
    // What the PoPs passed on they could not read.
    let sealed = node_metric(&planet, "aws", "sealane_proxy_sealed_streams_total");
    let opened = node_metric(&planet, "factory", "sealane_proxy_unsealed_streams_total");
    assert!(sealed >= 1 && opened >= sealed, "{sealed} {opened}");
    // Nothing of it looked wrong to anybody.
    let refused = planet.admin("factory", Method::GET, "/refusals");
    assert_eq!(refused["items"], json!([]));
}

/// Streams that `pop` has had on its links to a site, by uplink and transport.
fn opened(planet: &Planet, pop: &str, to: &str) -> BTreeMap<(String, String), u64> {
    let status = planet.admin(pop, Method::GET, "/status");
    let links = status["links"].as_array().into_iter().flatten();
    let links = links.filter(|link| link["peer"].as_str() == Some(to));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let count = |link: &Value| {
        let place = (text(&link["uplink"]), text(&link["transport"]));
        (place, link["opened"].as_u64().unwrap_or_default())
    };
    links.map(count).collect()
}

/// Those from `nyc` to acme's factory: over its first uplink, over its second.
fn over_uplinks(planet: &Planet) -> Result<[u64; 2], String> {
    let all = opened(planet, "nyc", "factory.acme");
    let of = |number: &str| {
        let its = all.iter().filter(|((uplink, _), _)| uplink == number);
        its.map(|(_, count)| *count).reduce(|a, b| a + b)
    };
    match (of("1"), of("2")) {
        (Some(first), Some(second)) => Ok([first, second]),
        (..) => Err(format!("{all:?}")),
    }
}

/// Requests whose streams nobody can use again: each is given up when its answer has begun.
fn begin_streams(at: SocketAddr, host: &str, count: usize) {
    for _ in 0..count {
        let mut stream = begun(at, host, DOWNLOAD);
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
    }
}

/// A line of each sort: from `nyc` and from `sin`.
fn both(planet: &Planet, words: &[&str]) {
    let [verb, uplink, rest @ ..] = words else {
        return;
    };
    for pop in ["nyc", "sin"] {
        let line = format!("{uplink}-{pop}");
        lab(planet, &[&[verb, line.as_str()], rest].concat());
    }
}

#[test]
fn of_two_uplinks_each_carries_what_it_is_good_for() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, world());
    let host = "plant.acme.example";
    let nyc = planet.pop("nyc").http;
    wait_until("there is a link over each", AFTER, || {
        over_uplinks(&planet).map(|_| ())
    });
    // Both are measured.
    pass(BEFORE);
    let streams = |count| {
        let before = over_uplinks(&planet).expect("two links");
        begin_streams(nyc, host, count);
        let after = over_uplinks(&planet).expect("two links");
        let [cable, lte] = [0, 1].map(|n| after[n] - before[n]);
        (cable, lte)
    };
    // Of 5 and 15 ms, each with 2 that every link costs: 17 to 7.
    let (cable, lte) = streams(100);
    figure(format_args!(
        "uplinks: of 100 streams {cable} went over cable and {lte} over lte, 10 ms longer"
    ));
    assert!((20..=40).contains(&lte), "{cable} and {lte}");

    let plant = |pop: &str| Target {
        address: planet.pop(pop).http,
        from: None,
        host: host.to_owned(),
        path: "/".to_owned(),
    };
    let load = Load::start(vec![plant("nyc"), plant("par")], 200);
    pass(BEFORE);
    both(&planet, &["degrade", "factory", "--loss", "20"]);
    pass(Duration::from_secs(2));
    let (cable, lte) = streams(100);
    let records = load.stop();
    none_failed("uplinks: 20 % lost on cable", &records);
    figure(format_args!(
        "uplinks: 2 s after cable began to lose 20 %: {cable} of 100 streams over it, {lte} over \
         lte; 0 of {} failed",
        records.len()
    ));
    assert!(cable * 20 <= cable + lte, "{cable} and {lte}");

    both(&planet, &["heal", "factory"]);
    wait_until(
        "cable carries again",
        Duration::from_secs(60),
        || match streams(20) {
            (cable, lte) if cable > lte => Ok(()),
            both => Err(format!("{both:?}")),
        },
    );
    let load = Load::start(vec![plant("nyc"), plant("par")], 200);
    pass(BEFORE);
    both(&planet, &["cut", "factory"]);
    pass(AFTER);
    assert_eq!(attached(&planet, "factory"), ["nyc.fabric", "sin.fabric"]);
    begin_streams(nyc, host, 20);
    let records = load.stop();
    none_failed("uplinks: cable cut", &records);
    let longest = records.iter().map(kit::Record::took).max();
    figure(format_args!(
        "uplinks: cable cut: 0 of {} failed, the slowest took {:?}",
        records.len(),
        longest.unwrap_or_default()
    ));
}

#[test]
fn where_packets_are_lost_quic_carries_and_where_udp_is_blocked_tls_does() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let par = planet.pop("par").http;
    let streams = || {
        let of = |transport: &str| {
            let all = opened(&planet, "par", "aws.acme");
            let of = all.iter().filter(|((_, name), _)| name == transport);
            of.map(|(_, count)| *count).sum::<u64>()
        };
        let before = (of("tls"), of("quic"));
        begin_streams(par, ACME, 5);
        (of("tls") - before.0, of("quic") - before.1)
    };
    let until = |what: &str, bound: Duration, good: &dyn Fn((u64, u64)) -> bool| {
        let began = kit::runtime::now();
        wait_until(what, bound, || match streams() {
            counts if good(counts) => Ok(()),
            counts => Err(format!("{counts:?} over TLS and QUIC")),
        });
        kit::runtime::now().since(began)
    };
    wait_until("there is a link over each", AFTER, || {
        let links = opened(&planet, "par", "aws.acme").len();
        (links == 2).then_some(()).ok_or(links.to_string())
    });
    until("nothing is lost: TLS carries", AFTER, &|(tls, quic)| {
        tls >= 5 && quic == 0
    });
    // There is no better way round.
    lab(&planet, &["cut", "aws-nyc"]);
    pass(AFTER);
    let load = load(&planet);
    lab(&planet, &["degrade", "aws-par", "--loss", "5"]);
    let bound = Duration::from_secs(20);
    let lossy = until("QUIC carries", bound, &|(tls, quic)| tls == 0 && quic >= 5);
    lab(&planet, &["degrade", "aws-par", "--no-udp"]);
    let blocked = until("TLS carries", bound, &|(tls, quic)| tls >= 5 && quic == 0);
    lab(&planet, &["heal", "aws-par"]);
    pass(BEFORE);
    lab(&planet, &["degrade", "aws-par", "--loss", "5"]);
    let back = until("QUIC again", bound, &|(tls, quic)| tls == 0 && quic >= 5);
    // A router that forgets: the next datagram makes it remember, as another port, and the connection
    // moves. Those of TCP do not.
    let quic = || {
        let all = opened(&planet, "par", "aws.acme");
        let quic = all.iter().find(|((_, name), _)| name == "quic");
        *quic.expect("there is one").1
    };
    let before = quic();
    lab(&planet, &["flush-nat", "aws"]);
    pass(AFTER);
    assert!(
        quic() >= before,
        "it is another link, of {} streams",
        quic()
    );
    let records = load.stop();
    none_failed("transports: packets lost, UDP blocked", &records);
    let longest = records.iter().map(kit::Record::took).max();
    figure(format_args!(
        "transports: 5 % lost: over QUIC after {lossy:?}; UDP blocked: over TLS after {blocked:?}; \
         it passes: back after {back:?}; 0 of {} failed, the slowest took {:?}",
        records.len(),
        longest.unwrap_or_default()
    ));
    assert!(blocked < Duration::from_secs(3), "{blocked:?}");
}

/// What a node's link to a site carries of packets over a transport.
fn mtu(planet: &Planet, node: &str, to: &str, transport: &str) -> Option<u64> {
    let status = planet.admin(node, Method::GET, "/status");
    let its = |link: &&Value| link["peer"] == to && link["transport"] == transport;
    let mut links = status["links"].as_array()?.iter();
    links.find(its)?["mtu"].as_u64()
}

/// Until both ends of the link between a PoP and a gateway carry packets of so many octets, how long it
/// took, and how many they are.
fn carry(planet: &Planet, bound: Duration, wanted: RangeInclusive<u64>) -> (Duration, [u64; 2]) {
    let began = kit::runtime::now();
    let mut both = [0; 2];
    wait_until("the link's MTU", bound, || {
        let ends = [("par", "aws.acme"), ("aws", "par.fabric")];
        both = ends.map(|(node, to)| mtu(planet, node, to, "quic").unwrap_or_default());
        let good = both.iter().all(|mtu| wanted.contains(mtu));
        good.then_some(()).ok_or(format!("{both:?}"))
    });
    (kit::runtime::now().since(began), both)
}

#[test]
fn what_a_link_carries_of_packets_follows_its_line() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let api = planet.api();
    let mut aws = fetch(&api, "/api/v1/tenants/acme/sites/aws");
    aws["spec"]["attach"]["transport"] = json!("quic");
    put(&api, &aws);
    // There is no way round.
    lab(&planet, &["cut", "aws-nyc"]);
    let par = planet.pop("par").http;
    let streams = || {
        let all = opened(&planet, "par", "aws.acme");
        let mut its = all.iter().filter(|((_, transport), _)| transport == "quic");
        its.next().map(|(_, count)| *count)
    };
    // What was dialled before is dialled anew.
    wait_until("QUIC carries", Duration::from_secs(20), || {
        let before = streams();
        begin_streams(par, ACME, 5);
        let after = streams();
        let all = before
            .zip(after)
            .is_some_and(|(before, after)| after >= before + 5);
        all.then_some(()).ok_or(format!("{before:?} and {after:?}"))
    });
    // IP, UDP, QUIC and our own header take 71 octets of IPv4; the search stops at IPv6's 1,452 octets.
    let _ = carry(&planet, Duration::from_secs(20), 1_409..=1_409);
    assert_eq!(mtu(&planet, "par", "aws.acme", "tls"), Some(1_500));
    let before = streams();
    // For as long as all of this takes.
    let download = std::thread::spawn(move || {
        let mut stream = begun(par, ACME, "/download?bytes=30000000&rate=500000");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all.len())
    });
    pass(BEFORE);
    lab(&planet, &["degrade", "aws-par", "--mtu", "1400"]);
    let bound = Duration::from_secs(40);
    let (shrunk, less) = carry(&planet, bound, 1_157..=1_329);
    let (found, most) = carry(&planet, bound, 1_317..=1_329);
    lab(&planet, &["heal", "aws-par"]);
    let (grown, _) = carry(&planet, Duration::from_secs(60), 1_409..=1_409);
    let got = download.join().expect("no panic").expect("not cut");
    assert!(got > 30_000_000, "{got}");
    assert!(streams() > before, "it is another link: {before:?}");
    figure(format_args!(
        "MTU of a line from 1,500 to 1,400: {less:?} after {shrunk:?}, {most:?} {found:?} later; \
         healed: 1,409 after {grown:?}; a download went on"
    ));
}

/// What this program is to do where it is started again inside a namespace.
const TASK: &str = "SEALANE_TEST_BULK";
/// Where plain TCP is taken, in a PoP's namespace.
const PLAIN: u16 = 5001;

/// Does nothing by itself: the test below starts this program again inside.
#[test]
fn what_sends_inside() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let words: Vec<&str> = task.split(' ').collect();
    let text = match words[..] {
        ["send", to] => {
            let to = to.parse().expect("an address");
            // It ends with its reader, or after a while.
            bulk::send(to, "cubic", Duration::from_secs(8)).map(|()| String::new())
        }
        ["receive", at] => {
            bulk::receive(at.parse().expect("an address")).map(|rate| format!("rate {rate}\n"))
        }
        _ => panic!("{task:?}"),
    };
    let text = text.expect("sockets");
    std::io::stderr().write_all(text.as_bytes()).expect("heard");
}

/// Octets a second that one plain connection with cubic carries from a gateway to a PoP.
fn plain(planet: &Planet, from: &str, pop: &str, address: SocketAddr) -> u64 {
    let inside = |place: &str, task: String| {
        let namespace = &planet.report.net.namespaces[place];
        let program = std::env::current_exe().expect("this program");
        let mut command = planet.inside(namespace, program);
        command
            .args(["namespaces::what_sends_inside", "--exact", "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().expect("nsenter")
    };
    let receiver = inside(pop, format!("receive {address}"));
    pass(BEFORE);
    let mut sender = inside(from, format!("send {address}"));
    let said = receiver.wait_with_output().expect("it ends");
    sender.wait().expect("it ends");
    let text = String::from_utf8_lossy(&said.stderr);
    let rate = text.lines().find_map(|line| line.strip_prefix("rate "));
    rate.and_then(|rate| rate.parse().ok())
        .unwrap_or_else(|| panic!("{said:?}"))
}

#[test]
fn a_line_that_is_far_and_lossy_carries_much_more_than_one_connection_with_cubic() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let par = planet.pop("par").http;
    // There is no better way round.
    lab(&planet, &["cut", "shop-nyc"]);
    let far = ["degrade", "shop-par", "--delay", "20ms", "--loss", "1"];
    lab(&planet, &[&far[..], &["--rate", "100000"]].concat());
    pass(AFTER);
    // As the plan gives them: the first PoP's.
    let address = SocketAddr::from(([203, 0, 113, 10], PLAIN));
    let cubic = plain(&planet, "shop", "par", address);
    let mut stream = begun(par, BLUE, "/download?bytes=1000000000");
    let ours = bulk::drain(&mut stream, Some(Duration::from_secs(8))).expect("read");
    drop(stream);
    let over = opened(&planet, "par", "shop.blue");
    figure(format_args!(
        "far and lossy: 40 ms, 1 % lost, 100 Mbit/s: {:.1} Mbit/s through a tunnel, {:.1} over one \
         connection with cubic: {:.1} times as much; streams {over:?}",
        ours as f64 * 8e-6,
        cubic as f64 * 8e-6,
        ours as f64 / cubic as f64
    ));
    assert!(ours >= cubic * 3, "{ours} and {cubic}");
}
