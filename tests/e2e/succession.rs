//! Nodes of a planet whose process another one takes the place of, under load: nothing is refused,
//! nothing is cut, nothing fails.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use kit::{
    Load, Planet, Role, Target, Turn, figure,
    http::Method,
    process::{Process, Signal},
    wait_until,
};

use crate::{ACME, BLUE, cart, faults::none_failed, pass, planet};

/// Gateways of two tenants and both PoPs, in the order in which their processes are replaced.
const NODES: [&str; 4] = ["aws", "par", "shop", "nyc"];
/// How often each node's process is replaced.
const ROUNDS: usize = 3;
/// Until a process serves in the place of another, however busy the machine.
const SERVES: Duration = Duration::from_secs(30);
/// How long a process that was relieved may take to end: idle connections get 30 s.
const END: Duration = Duration::from_secs(90);
/// Until something must be so.
const LATE: Duration = Duration::from_secs(15);

/// Starts what runs as a process once more, beside it.
fn beside(planet: &Planet, pid: u32, name: &str, round: usize) -> Role {
    let text = fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    let words = text
        .split(|octet| *octet == 0)
        .filter(|word| !word.is_empty());
    let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
    let mut args: Vec<String> = words.skip(1).collect();
    if !args.iter().any(|arg| arg == "--take-over") {
        args.push("--take-over".to_owned());
    }
    let log = planet.folder().join(format!("{name}-{round}.log"));
    Role::start(Path::new(env!("CARGO_BIN_EXE_sealane")), &args, &log)
}

fn waits_for(role: &Role, word: &str) {
    wait_until(word, SERVES, || {
        let log = role.log();
        if log.contains(word) { Ok(()) } else { Err(log) }
    });
}

/// Octets that come slowly: what began when, and where they ended too early.
fn download(pop: SocketAddr, host: &str, seconds: usize) -> Result<(), String> {
    let bytes = seconds * 100_000;
    let mut stream = TcpStream::connect(pop).map_err(|e| e.to_string())?;
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).map_err(|e| e.to_string())?;
    let ask = format!(
        "GET /download?bytes={bytes}&rate=100000 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    );
    stream
        .write_all(ask.as_bytes())
        .map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    stream
        .read_to_end(&mut all)
        .map_err(|e| format!("{host} at {pop} after {} of {bytes}: {e}", all.len()))?;
    match all.starts_with(b"HTTP/1.1 200") && all.len() > bytes {
        true => Ok(()),
        false => {
            let end = all.windows(4).position(|octets| octets == b"\r\n\r\n");
            let head = String::from_utf8_lossy(&all[..end.unwrap_or(all.len().min(300))]);
            Err(format!("{host} at {pop}: {} of {bytes}: {head}", all.len()))
        }
    }
}

/// Downloads of five seconds at each PoP, of both tenants, one after the other, and one of each
/// that lasts as long as all of them.
struct Downloads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Downloads {
    fn start(planet: &Planet) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pops = planet.report.pops.iter().map(|pop| pop.http);
        let each = pops.flat_map(|pop| [(pop, ACME), (pop, BLUE)]);
        let threads = each.flat_map(|(pop, host)| {
            [5, 45].map(|seconds| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let (mut done, mut wrong) = (0, Vec::new());
                    while !stop.load(Relaxed) {
                        match download(pop, host, seconds) {
                            Ok(()) => done += 1,
                            Err(why) => wrong.push(why),
                        }
                    }
                    (done, wrong)
                })
            })
        });
        let threads = threads.collect();
        Downloads { stop, threads }
    }

    /// Waits for their ends; how many there were.
    fn stop(self, planet: &Planet) -> usize {
        self.stop.store(true, Relaxed);
        let ended = self
            .threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        let (mut all, mut wrong) = (0, Vec::new());
        for (done, failed) in ended {
            all += done;
            wrong.extend(failed);
        }
        assert!(
            wrong.is_empty(),
            "{} of {all} were cut: {wrong:#?}; in the logs: {:#?}",
            wrong.len(),
            bad_words(planet)
        );
        all
    }
}

/// What the logs say of links that ended, and of anything else that is wrong.
fn bad_words(planet: &Planet) -> Vec<String> {
    const BAD: [&str; 4] = ["link is down", "\"WARN\"", "\"ERROR\"", "panicked"];
    let folders = [planet.folder().to_owned(), planet.home().join("logs")];
    let files = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    let texts = files.flatten().flatten().filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        Some((name, fs::read_to_string(file.path()).ok()?))
    });
    let found = texts.flat_map(|(name, text)| {
        let is_bad = |line: &&str| BAD.iter().any(|word| line.contains(word));
        let bad = text.lines().filter(is_bad);
        bad.map(|line| format!("{name}: {line}"))
            .collect::<Vec<_>>()
    });
    found.collect()
}

/// Every PoP says of one more or less endpoint of aws that it is healthy.
fn healthy(planet: &Planet, count: usize) {
    for pop in &planet.report.pops {
        wait_until(
            &format!("{count} healthy endpoints in aws at {}", pop.name),
            LATE,
            || {
                let all = planet.admin(&pop.name, Method::GET, "/endpoints");
                let items = all.as_array().into_iter().flatten();
                let well =
                    items.filter(|view| view["site"] == "aws.acme" && view["health"] == "healthy");
                match well.count() {
                    found if found == count => Ok(()),
                    found => Err(format!("{found}: {all}")),
                }
            },
        );
    }
}

#[test]
fn gateways_and_pops_are_restarted_hot() {
    let turn = Turn::alone();
    let mut planet = planet(&turn);
    healthy(&planet, 3);
    let pops = planet.report.pops.iter().map(|pop| pop.http);
    let targets = pops.flat_map(|pop| {
        let host = BLUE.to_owned();
        [cart(pop), Target { host, ..cart(pop) }]
    });
    let (load, downloads) = (
        Load::start(targets.collect(), 200),
        Downloads::start(&planet),
    );
    pass(Duration::from_secs(1));
    let mut roles: Vec<(String, Role)> = Vec::new();
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        for name in NODES {
            let last = roles.iter().rev().find(|(of, _)| of == name);
            let pid = last.map_or_else(|| planet.pid_of(name), |(_, role)| role.pid());
            let began = kit::runtime::now();
            let next = beside(&planet, pid, name, round);
            waits_for(&next, "node is ready");
            slowest = slowest.max(kit::runtime::now().since(began));
            roles.push((name.to_owned(), next));
            pass(Duration::from_secs(1));
        }
    }
    let downloads = downloads.stop(&planet);
    let records = load.stop();
    none_failed("nodes that are restarted hot", &records);
    // Health flows from the last processes, through the last ones.
    planet.signal("cart-1.aws", Signal::KILL);
    healthy(&planet, 2);
    planet.restart("cart-1.aws");
    healthy(&planet, 3);
    for name in NODES {
        let first = Process::read(planet.pid_of(name));
        wait_until("the end of a first process", END, || match &first {
            Some(process) if process.is_alive() => Err(format!("{name} runs")),
            Some(_) | None => Ok(()),
        });
    }
    let relieved = (ROUNDS - 1) * NODES.len();
    for (nth, (name, role)) in roles.iter_mut().enumerate() {
        let code = if nth < relieved {
            let ended = || role.ended().ok_or_else(|| format!("{name} runs"));
            wait_until("the end of a relieved process", END, ended).0
        } else {
            role.stop()
        };
        assert_eq!(code, 0, "{name}: {}", role.log());
    }
    figure(format_args!(
        "{} hot restarts of gateways and PoPs: 0 of {} requests failed, 0 of {downloads} downloads \
         were cut; the slowest took {slowest:?}",
        ROUNDS * NODES.len(),
        records.len(),
    ));
}
