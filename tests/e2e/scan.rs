//! Every port of what stands in the Internet of the lab, tried from every other place: nothing of a
//! gateway answers, and nothing of a site answers another but what it publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use kit::{
    Client, Planet, Turn, figure,
    process::{Socket, socket_inodes, sockets_beside},
    scan::Scanner,
    wait_until,
};
use serde::Deserialize;

use crate::{ACME, BLUE, examples::SOON, options};

/// All ports.
const ALL: usize = 65_535;
/// What a `PoP` is there for: tunnels, http, https.
const POP: [u16; 3] = [17_443, 18_080, 18_443];
/// The controller: its API, and where it takes `PoPs`.
const CONTROLLER: [u16; 2] = [16_443, 16_444];
/// The port of every demo endpoint.
const APP: u16 = 18_000;
/// Holes that the test makes in a router, to see that they are found.
const HOLES: (u16, u16) = (4_567, 4_568);
/// How often a router's SYNs are sent again when not all arrived: the machine was busy.
const TRIES: usize = 4;
/// What this program is to do in a namespace: `tcp TARGET SAYS_NO`, `udp TARGET SAYS_NO`, `listen`.
const TASK: &str = "KIT_SCAN_TASK";

/// Counts what comes for the host itself, before anything else looks at it.
const COUNTING: &str = "
table ip scanned {
  set syns { type ipv4_addr; size 64; flags dynamic; counter; }
  set datagrams { type ipv4_addr; size 64; flags dynamic; counter; }
  chain first {
    type filter hook prerouting priority raw;
    tcp flags & (syn | ack | rst) == syn add @syns { ip saddr counter }
    meta l4proto udp add @datagrams { ip saddr counter }
  }
}
";

/// Does nothing by itself: the test below starts this program again in namespaces of its planet, and
/// there this is what runs.
#[test]
fn what_runs_inside() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let words: Vec<&str> = task.split(' ').collect();
    let address = |text: &str| text.parse().expect("an address");
    let found = match words[..] {
        ["listen"] => listen(),
        ["tcp", target, no] => Scanner::new(address(target), address(no)).and_then(|mut s| s.tcp()),
        ["udp", target, no] => Scanner::new(address(target), address(no)).and_then(|mut s| s.udp()),
        _ => panic!("{task:?}"),
    };
    let found = found.expect("sockets");
    let open: Vec<String> = found.open.iter().map(u16::to_string).collect();
    let text = format!(
        "found {} {} {}\n",
        found.closed,
        found.unsent,
        open.join(" ")
    );
    std::io::stderr().write_all(text.as_bytes()).expect("heard");
}

/// Is there on both ports until it is killed.
fn listen() -> ! {
    let _tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, HOLES.0)).expect("free");
    let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, HOLES.1)).expect("free");
    loop {
        let (_, from) = udp.recv_from(&mut [0; 64]).expect("a datagram");
        udp.send_to(b"!", from).expect("sent");
    }
}

/// A child that is killed when it is not wanted any more.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Somebody in the Internet, as the lab's own file has it.
#[derive(Clone, Debug, Deserialize)]
struct Place {
    name: String,
    address: Ipv4Addr,
    /// A router that translates stands there.
    nat: Option<PathBuf>,
}

/// A planet, and who is where.
struct Ground {
    planet: Planet,
    places: Vec<Place>,
    tried: AtomicUsize,
    /// Because not everything had arrived.
    again: AtomicUsize,
    open: AtomicUsize,
}

impl Ground {
    fn new(turn: &Turn) -> Self {
        #[derive(Deserialize)]
        struct Wan {
            places: Vec<Place>,
        }
        let world = options().arg("--net").arg("ns").arg("--topology");
        let planet = Planet::start(turn, world.arg("world"));
        let text = fs::read(planet.home().join("wan.json")).expect("the lab's file");
        let wan: Wan = serde_json::from_slice(&text).expect("places");
        let ground = Ground {
            planet,
            places: wan.places,
            tried: AtomicUsize::default(),
            again: AtomicUsize::default(),
            open: AtomicUsize::default(),
        };
        for router in ground.routers() {
            ground.nft(router.nat.as_deref().expect("a router"), COUNTING);
        }
        ground
    }

    fn routers(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| place.nat.is_some())
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        let mut places = self.places.iter();
        let place = places.find(|place| place.name == name);
        place.expect("a place of this name").address
    }

    fn namespace(&self, place: &str) -> &Path {
        let net = self.planet.report.net.namespaces.get(place);
        net.unwrap_or_else(|| panic!("no namespace {place}"))
    }

    /// The places in which somebody is: `PoPs`, the controller, the host's door, gateways.
    fn sources(&self) -> BTreeSet<&str> {
        let open = self.places.iter().filter(|place| place.nat.is_none());
        let gateways = self.planet.report.gateways.iter();
        open.map(|place| &*place.name)
            .chain(gateways.map(|gateway| &*gateway.name))
            .collect()
    }

    fn nft(&self, namespace: &Path, rules: &str) {
        let mut nft = nft(&self.planet, namespace);
        let mut nft = nft
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsenter");
        let input = nft.stdin.take();
        let said = input.expect("a pipe").write_all(rules.as_bytes());
        said.expect("it listens");
        assert!(nft.wait().expect("it ends").success(), "{rules}");
    }

    /// What arrived at a router's counters in the set of this name, by who sent it.
    fn arrived(&self, router: &Path, set: &str) -> BTreeMap<Ipv4Addr, usize> {
        let mut nft = nft(&self.planet, router);
        let said = nft.args(["list", "set", "ip", "scanned", set]).output();
        let said = String::from_utf8(said.expect("nsenter").stdout).expect("text");
        let words: Vec<&str> = said.split_whitespace().collect();
        let counters = words.windows(4).filter_map(|four| match four {
            [address, "counter", "packets", count] => {
                Some((address.parse().ok()?, count.parse().ok()?))
            }
            _ => None,
        });
        counters.collect()
    }

    /// This program again, inside.
    fn task(&self, namespace: &Path, task: &str) -> Command {
        let program = std::env::current_exe().expect("this program");
        let mut command = self.planet.inside(namespace, program);
        command
            .args(["scan::what_runs_inside", "--exact", "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// All ports of a target from a place: those that are open, how many said no, how many could
    /// not even be asked.
    fn scan(&self, from: &str, how: &str, target: Ipv4Addr) -> (Vec<u16>, usize, usize) {
        // Whoever is asked answers at once.
        let no = if from == "host" { "controller" } else { "host" };
        let task = format!("{how} {target} {}", self.address(no));
        let said = self.task(self.namespace(from), &task).output();
        let said = said.expect("nsenter");
        let text = String::from_utf8_lossy(&said.stderr);
        let line = text.lines().find_map(|line| line.strip_prefix("found "));
        let line = line.unwrap_or_else(|| panic!("{task} from {from}: {said:?}"));
        let numbers: Result<Vec<usize>, _> = line.split_whitespace().map(str::parse).collect();
        let numbers = numbers.expect("numbers");
        let [closed, unsent, open @ ..] = &numbers[..] else {
            panic!("{line}");
        };
        let open = open.iter().filter_map(|port| u16::try_from(*port).ok());
        let open: Vec<u16> = open.collect();
        self.tried.fetch_add(1, Relaxed);
        self.open.fetch_add(open.len(), Relaxed);
        (open, *closed, *unsent)
    }

    /// A router's connections are remembered for minutes, and there is room for some 250,000.
    fn forget(&self, from: &str) {
        if self.planet.report.gateways.iter().any(|g| g.name == from) {
            let _ = self.planet.sealane(&["lab", "flush-nat", from]).good();
        }
    }

    /// The addresses in the Internet that are a site's own.
    fn own(&self, site: &str) -> BTreeSet<Ipv4Addr> {
        let is_own = |place: &&Place| {
            let rest = place.name.strip_prefix(site);
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        };
        let own = self.places.iter().filter(is_own);
        own.map(|place| place.address).collect()
    }

    /// Nothing of a router answers, and all that was asked arrived there.
    fn wall(&self, from: &str, how: &str, router: &Place) {
        let path = router.nat.as_deref().expect("a router");
        let own = self.own(from);
        let set = if how == "tcp" { "syns" } else { "datagrams" };
        let came = || -> usize {
            let all = self.arrived(path, set);
            own.iter().filter_map(|address| all.get(address)).sum()
        };
        for _ in 0..TRIES {
            let before = came();
            let (open, closed, unsent) = self.scan(from, how, router.address);
            self.forget(from);
            let what = format!("{how} from {from} at the router of {}", router.name);
            assert_eq!((&open[..], closed, unsent), (&[][..], 0, 0), "{what}");
            if came() - before >= ALL {
                return;
            }
            self.again.fetch_add(1, Relaxed);
        }
        panic!(
            "{how} from {from} at {}: not all of it arrived",
            router.name
        );
    }

    /// Nothing answers but what everybody may use.
    fn published(&self, from: &str, place: &Place) {
        let open: &[u16] = match &*place.name {
            "controller" => &CONTROLLER,
            "host" => &[],
            _ => &POP,
        };
        let found = self.scan(from, "tcp", place.address);
        self.forget(from);
        let all = (open.to_vec(), ALL - open.len(), 0);
        assert_eq!(found, all, "from {from} at {}", place.name);
    }
}

fn nft(planet: &Planet, namespace: &Path) -> Command {
    // It is not on every user's PATH.
    let places = ["/usr/sbin/nft", "/sbin/nft"];
    let found = places.into_iter().find(|path| Path::new(path).exists());
    planet.inside(namespace, found.unwrap_or("nft"))
}

/// Sockets that are open in the namespace of a process.
fn open_beside(pid: u32) -> Vec<Socket> {
    let mut sockets = sockets_beside(pid);
    sockets.retain(Socket::is_open);
    sockets
}

#[test]
fn nothing_of_a_site_answers_but_what_it_publishes() {
    let turn = Turn::alone();
    let ground = Ground::new(&turn);
    let began = kit::runtime::now();
    // Inside a gateway's network its applications listen, and nobody else does.
    for gateway in &ground.planet.report.gateways {
        let node = socket_inodes(gateway.pid);
        assert!(!node.is_empty());
        let open = open_beside(gateway.pid);
        for socket in &open {
            assert!(
                !node.contains(&socket.inode),
                "{}: {socket:?}",
                gateway.name
            );
            let address = socket
                .local_v4()
                .map(|address| (*address.ip(), address.port()));
            let app = |(ip, port): (Ipv4Addr, u16)| ip.octets()[..3] == [10, 0, 0] && port == APP;
            assert!(address.is_some_and(app), "{}: {socket:?}", gateway.name);
        }
        assert!(!open.is_empty());
    }
    // Each place tries one after the other, all at the same time.
    thread::scope(|scope| {
        for from in ground.sources() {
            let ground = &ground;
            scope.spawn(move || {
                let own = ground.own(from);
                for router in ground.routers() {
                    if !own.contains(&router.address) {
                        ground.wall(from, "tcp", router);
                    }
                }
                // One site of each tenant, at everything else that is in the Internet.
                if ["aws", "shop"].contains(&from) {
                    for place in ground.places.iter().filter(|place| place.nat.is_none()) {
                        ground.published(from, place);
                    }
                }
                if ["host", "factory", "market"].contains(&from) {
                    for router in ground.routers().filter(|r| !own.contains(&r.address)) {
                        ground.wall(from, "udp", router);
                    }
                }
            });
        }
    });
    figure(format_args!(
        "scan: all {ALL} ports in {} scans ({} of them once more) from {} places: {} open, all of \
         them published by PoPs and the controller; {:?}",
        ground.tried.load(Relaxed),
        ground.again.load(Relaxed),
        ground.sources().len(),
        ground.open.load(Relaxed),
        kit::runtime::now().since(began)
    ));
    beside(&ground);
    holes(&ground);
    // And who may be asked still answers.
    let mut client = Client::new();
    for host in [ACME, BLUE] {
        wait_until("an answer", SOON, || {
            let reply = client.get(ground.planet.pop("par").http, host, "/")?;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.status.to_string())
            }
        });
    }
}

/// Addresses that other sites have in a network of the same numbers, and one does not: nobody
/// answers there, whoever asks.
fn beside(ground: &Ground) {
    let apps = |pid| {
        let open = open_beside(pid);
        let addresses = open.iter().filter_map(Socket::local_v4);
        addresses
            .map(|a: SocketAddrV4| *a.ip())
            .collect::<BTreeSet<_>>()
    };
    let gateways = &ground.planet.report.gateways;
    let all: BTreeSet<Ipv4Addr> = gateways
        .iter()
        .flat_map(|gateway| apps(gateway.pid))
        .collect();
    // And the one between the two routers of a site that has two.
    let between = Ipv4Addr::new(10, 0, 1, 2);
    let tried = AtomicUsize::default();
    thread::scope(|scope| {
        for from in ["aws", "shop"] {
            let own = apps(ground.planet.gateway(from).pid);
            let others = all.difference(&own).chain([&between]).copied();
            for address in others.collect::<Vec<_>>() {
                let tried = &tried;
                scope.spawn(move || {
                    let (open, closed, _) = ground.scan(from, "tcp", address);
                    assert_eq!((&open[..], closed), (&[][..], 0), "{address} from {from}");
                    tried.fetch_add(1, Relaxed);
                });
            }
        }
    });
    figure(format_args!(
        "scan: all {ALL} ports of {} addresses that only others have in their own networks: \
         nobody answers",
        tried.into_inner()
    ));
}

/// The same scan finds what is there: a hole in a router's wall, and who listens behind it.
fn holes(ground: &Ground) {
    let router = ground.routers().find(|router| router.name == "aws");
    let router = router.expect("the router of aws");
    let path = router.nat.as_deref().expect("a router");
    let (tcp, udp) = HOLES;
    let rule = "add rule inet filter input";
    ground.nft(
        path,
        &format!("{rule} tcp dport {tcp} accept\n{rule} udp dport {udp} accept"),
    );
    let child = ground.task(path, "listen").stderr(Stdio::null()).spawn();
    let _listener = Listener(child.expect("nsenter"));
    wait_until("a listener in the router", SOON, || {
        let (open, _, _) = ground.scan("par", "tcp", router.address);
        if open == [tcp] {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    });
    let (open, closed, _) = ground.scan("par", "udp", router.address);
    assert_eq!((&open[..], closed), (&[udp][..], 0));
    figure(format_args!(
        "scan: a hole made on purpose in the router of aws is found, by TCP and by UDP"
    ));
}
