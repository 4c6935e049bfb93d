//! What is done, and what is measured of it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bench_kit::{clock, process::Family};
use clap::ValueEnum;
use futures_util::future::{join_all, try_join};
use tunnel::Transport;

use crate::{
    contestant::{self, Contestant},
    packets,
    work::{self, Opener},
};

/// Streams at a time in `streams`.
const STREAMS: usize = 1000;
/// Between two small requests in `beside`.
const PAUSE: Duration = Duration::from_millis(1);

/// Figures of one run, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// One stream that sends as fast as it can.
    Bulk,
    /// 1,000 requests at a time, a new stream for each; plain TCP has a connection for each of the
    /// 1,000 that it keeps.
    Streams,
    /// The same through a third one, which passes on what comes: what that needs.
    Relay,
    /// One small request after the other, alone and then beside a stream that sends as fast as it
    /// can.
    Beside,
    /// Packets of a Network over a link, over TLS and over QUIC, as many as it carries.
    Packets,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scenario::Bulk => "bulk",
            Scenario::Streams => "streams",
            Scenario::Relay => "relay",
            Scenario::Beside => "beside",
            Scenario::Packets => "packets",
        })
    }
}

impl Scenario {
    /// Does this contestant take part?
    pub(crate) fn asks(self, contestant: Contestant) -> bool {
        match self {
            Scenario::Bulk => contestant != Contestant::Haproxy,
            Scenario::Streams => !matches!(contestant, Contestant::Tls | Contestant::Haproxy),
            Scenario::Relay => matches!(
                contestant,
                Contestant::Tls | Contestant::Haproxy | Contestant::Sealane
            ),
            // Connections of their own do not meet.
            Scenario::Beside => matches!(
                contestant,
                Contestant::Http2 | Contestant::Quic | Contestant::Sealane
            ),
            // What they stand for here is what our link goes over.
            Scenario::Packets => matches!(contestant, Contestant::Tls | Contestant::Quic),
        }
    }
}

/// One run: both ends are made for it.
pub(crate) fn run(scenario: Scenario, contestant: Contestant, time: Duration) -> Result<Figures> {
    match scenario {
        Scenario::Bulk => contestant::between(contestant, async move |opener| {
            bulk(&opener, time, "cpu_s_per_gb", cpu_s).await
        }),
        Scenario::Relay => contestant::over_relay(contestant, async move |opener, ran| {
            bulk(&opener, time, "hop_cpu_s_per_gb", || hop_cpu_s(&ran)).await
        }),
        Scenario::Streams => contestant::between(contestant, async move |opener| {
            streams(&opener, time, contestant == Contestant::Tcp).await
        }),
        Scenario::Beside => {
            contestant::between(contestant, async move |opener| beside(&opener, time).await)
        }
        Scenario::Packets => {
            let transport = match contestant == Contestant::Quic {
                true => Transport::Quic,
                false => Transport::Tls,
            };
            contestant::on_this_thread(async |_| packets::run(transport, time).await)
        }
    }
}

fn cpu_s() -> Result<f64> {
    Family::this().cpu_s()
}

/// One stream as fast as it can, and what it needs of the CPU that `cpu_s` counts, under this name.
async fn bulk(
    opener: &Opener,
    time: Duration,
    name: &'static str,
    cpu_s: impl Fn() -> Result<f64>,
) -> Result<Figures> {
    let over = |since: Instant, time| move || clock::now() - since >= time;
    work::send(opener, over(clock::now(), time / 4)).await?;
    let (began, before) = (clock::now(), cpu_s()?);
    let octets = work::send(opener, over(began, time)).await? as f64;
    let took = (clock::now() - began).as_secs_f64();
    Ok(Figures::from([
        ("gbit_per_s", octets * 8.0 / took / 1e9),
        (name, (cpu_s()? - before) / (octets / 1e9)),
    ]))
}

/// Of whoever passes on what others send; `ran` says how long that ran.
fn hop_cpu_s(ran: &Path) -> Result<f64> {
    let text = fs::read_to_string(ran)?;
    let ns = text.split(' ').next().context("nothing")?.parse::<f64>()?;
    Ok(ns / 1e9)
}

async fn streams(opener: &Opener, time: Duration, kept: bool) -> Result<Figures> {
    let all = async |time: Duration| {
        let until = clock::now() + time;
        let one = async || {
            let (mut count, mut kept_one) = (0_u64, None);
            while clock::now() < until {
                let mut stream = match kept_one.take() {
                    Some(stream) => stream,
                    None => work::begin(opener).await?,
                };
                work::ask(&mut stream).await?;
                count += 1;
                kept_one = kept.then_some(stream);
            }
            anyhow::Ok(count)
        };
        let counts = join_all((0..STREAMS).map(|_| one())).await;
        counts.into_iter().sum::<Result<u64>>()
    };
    all(time / 4).await?;
    let before = cpu_s()?;
    let began = clock::now();
    let requests = all(time).await? as f64;
    let took = (clock::now() - began).as_secs_f64();
    ensure!(requests > 0.0, "no request was answered");
    Ok(Figures::from([
        ("requests_per_s", requests / took),
        ("cpu_us", (cpu_s()? - before) * 1e6 / requests),
    ]))
}

async fn beside(opener: &Opener, time: Duration) -> Result<Figures> {
    let mut stream = work::begin(opener).await?;
    let idle = latencies(&mut stream, time).await?;
    let over = Rc::new(Cell::new(false));
    let sending = work::send(opener, || over.get());
    let asking = async {
        // Until it is at its speed.
        tokio::time::sleep(time / 4).await;
        let busy = latencies(&mut stream, time).await;
        over.set(true);
        busy
    };
    let (_, busy) = try_join(sending, asking).await?;
    let at = |sorted: &[f64], share: usize| {
        let place = sorted.len() * share / 100;
        sorted
            .get(place)
            .copied()
            .context("no request was answered")
    };
    Ok(Figures::from([
        ("idle_p50_us", at(&idle, 50)?),
        ("idle_p99_us", at(&idle, 99)?),
        ("busy_p50_us", at(&busy, 50)?),
        ("busy_p99_us", at(&busy, 99)?),
    ]))
}

/// What small requests took, in µs, the shortest first.
async fn latencies(stream: &mut work::Stream, time: Duration) -> Result<Vec<f64>> {
    let until = clock::now() + time;
    let mut all = Vec::new();
    while clock::now() < until {
        let began = clock::now();
        work::ask(stream).await?;
        all.push((clock::now() - began).as_secs_f64() * 1e6);
        tokio::time::sleep(PAUSE).await;
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}
