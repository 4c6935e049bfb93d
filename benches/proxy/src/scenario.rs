//! What is asked of each proxy.

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bench_kit::clock::Deadline;
use clap::ValueEnum;

use crate::{
    contestant::{Contestant, Found, Proxy, origin},
    hops,
    load::{Answered, h2load, latencies, wrk},
};

/// Hosts of [`Scenario::Hosts`].
pub(crate) const HOSTS: u32 = 10_000;
/// Connections of HTTP/1.1.
pub(crate) const CONNECTIONS: u32 = 128;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// HTTP/1.1, 128 connections that stay, 1 KiB.
    Http1,
    /// The same over TLS 1.3.
    Tls,
    /// A connection and a full TLS 1.3 handshake for every request, 200 at a time.
    Handshakes,
    /// HTTP/2 over TLS in front, 16 connections of 32 streams, 1 KiB.
    Http2,
    /// HTTP/1.1, 16 connections, 1 MiB.
    Bodies,
    /// HTTP/1.1, a random one of 10,000 hosts in each request.
    Hosts,
    /// HTTP/1.1 at 70 % of what the slowest can do: how long answers take.
    Latency,
    /// HTTP/1.1 through a second proxy of ours at the other end of a tunnel, beside one alone.
    Hops,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scenario::Http1 => "http1",
            Scenario::Tls => "tls",
            Scenario::Handshakes => "handshakes",
            Scenario::Http2 => "http2",
            Scenario::Bodies => "bodies",
            Scenario::Hosts => "hosts",
            Scenario::Latency => "latency",
            Scenario::Hops => "hops",
        })
    }
}

impl Scenario {
    /// Is it one for this contestant?
    pub(crate) fn asks(self, contestant: Contestant) -> bool {
        match contestant {
            Contestant::Haproxy | Contestant::Envoy | Contestant::Nginx => self != Scenario::Hops,
            Contestant::Floor => self == Scenario::Http1,
            Contestant::Sealane => true,
        }
    }
}

/// Figures of one run by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// One run.
pub(crate) struct Setting<'a> {
    pub(crate) scenario: Scenario,
    pub(crate) found: &'a Found,
    pub(crate) folder: PathBuf,
    pub(crate) time: Duration,
    /// Requests a second for [`Scenario::Latency`].
    pub(crate) rate: Option<f64>,
}

/// Start the proxy, put it to work, measure.
pub(crate) fn run(setting: &Setting<'_>) -> Result<Figures> {
    if setting.scenario == Scenario::Hops {
        return hops::run(setting);
    }
    let _origin = origin(&setting.folder)?;
    let hosts = if setting.scenario == Scenario::Hosts {
        HOSTS
    } else {
        1
    };
    let proxy = setting.found.start(&setting.folder, hosts)?;
    let ready = proxy.wait()?;
    let figures = measure(setting, &proxy);
    let mut figures = figures.with_context(|| proxy.last_words())?;
    figures.insert("ready_s", ready);
    figures.insert("pss_mb", proxy.family().pss()? / 1e6);
    Ok(figures)
}

fn measure(setting: &Setting<'_>, proxy: &Proxy) -> Result<Figures> {
    let (http, https) = (proxy.url(false), proxy.url(true));
    // A second first, in which connections are made and memory is found.
    let warm = Duration::from_secs(1);
    let seconds = format!("-D{}", setting.time.as_secs());
    match setting.scenario {
        Scenario::Http1 => work(proxy, warm, setting.time, |time| {
            wrk(&http, CONNECTIONS, time, &[])
        }),
        Scenario::Tls => work(proxy, warm, setting.time, |time| {
            wrk(&https, CONNECTIONS, time, &[])
        }),
        // wrk takes up its TLS sessions again; each client of h2load is a stranger.
        Scenario::Handshakes => work(proxy, warm, setting.time, |time| {
            let deadline = Deadline::after(time);
            let mut all = Answered::default();
            while !deadline.passed() {
                all += h2load(&https, &["--h1", "-c200", "-n200"])?;
            }
            Ok(all)
        }),
        Scenario::Http2 => work(proxy, warm, setting.time, |_| {
            h2load(&https, &["-c16", "-m32", &seconds])
        }),
        Scenario::Bodies => {
            let url = format!("{http}1m");
            work(proxy, warm, setting.time, |time| wrk(&url, 16, time, &[]))
        }
        Scenario::Hosts => {
            let script = setting.folder.join("hosts.lua");
            let text = format!(
                "request = function() return wrk.format(nil, nil, {{Host = \"h\" .. \
                 math.random(0, {}) .. \".example\"}}) end\n",
                HOSTS - 1
            );
            fs::write(&script, text).context("wrk's script")?;
            let more = ["-s".to_owned(), script.display().to_string()];
            work(proxy, warm, setting.time, |time| {
                wrk(&http, CONNECTIONS, time, &more)
            })
        }
        Scenario::Latency => latency(setting, proxy, &http),
        Scenario::Hops => bail!("it has a planet of its own"),
    }
}

fn work(
    proxy: &Proxy,
    warm: Duration,
    time: Duration,
    load: impl Fn(Duration) -> Result<Answered>,
) -> Result<Figures> {
    load(warm)?;
    let before = proxy.family().cpu_s()?;
    let answered = load(time)?;
    // What was put off counts too.
    thread::sleep(Duration::from_millis(300));
    let used = proxy.family().cpu_s()? - before;
    ensure!(answered.requests > 0.0, "nothing was answered");
    Ok(Figures::from([
        ("requests_per_s", answered.requests / answered.seconds),
        ("cpu_us", used * 1e6 / answered.requests),
    ]))
}

fn latency(setting: &Setting<'_>, proxy: &Proxy, url: &str) -> Result<Figures> {
    let rate = setting
        .rate
        .context("needs the figures of http1 in the same run")?;
    let clients = 64.0;
    let log = setting.folder.join("latency.tsv");
    let before = proxy.family().cpu_s()?;
    let answered = h2load(
        url,
        &[
            "--h1",
            "-c64",
            &format!("--rps={}", rate / clients),
            &format!("-D{}", setting.time.as_secs()),
            &format!("--log-file={}", log.display()),
        ],
    )?;
    let used = proxy.family().cpu_s()? - before;
    let all = latencies(&log)?;
    ensure!(!all.is_empty(), "nothing was answered");
    let at = |percent: usize| all[(all.len() - 1) * percent / 100] / 1e3;
    Ok(Figures::from([
        ("requests_per_s", answered.requests / answered.seconds),
        ("cpu_us", used * 1e6 / answered.requests),
        ("p50_ms", at(50)),
        ("p99_ms", at(99)),
    ]))
}

/// Wait until something listens.
pub(crate) fn listens(port: u16, limit: Duration) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Deadline::after(limit);
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(!deadline.passed(), "nobody listens on {address}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
