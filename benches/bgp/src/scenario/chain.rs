//! How late a change of one endpoint is behind four daemons in a row: gateway, `PoP`, reflector,
//! `PoP`.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result};
use bench_kit::clock::Deadline;

use super::{Figures, START, Setting, latency};
use crate::{
    daemon::{self, Neighbour, Topology},
    session::{Session, Spec},
    wire::{self, ASN, Family, Origin},
};

/// Daemons in the row.
const DAEMONS: u8 = 4;
/// Endpoints that change beside the one that is watched.
const BACKGROUND: u32 = 5_000;
/// Changes of them a second.
const RATE: u32 = 5_000;

const FAMILIES: [Family; 2] = [Family::Mesh, Family::Rtc];

/// One session changes an endpoint at the first daemon, one sees it at the last, and one is the
/// background at the first.
pub(super) fn chain(setting: &Setting<'_>) -> Result<Figures> {
    let host = |number: u8| Origin {
        asn: ASN,
        address: setting.addresses.host(number),
    };
    let neighbour = |number: u8, dialled: bool| Neighbour {
        address: host(number).address,
        asn: ASN,
        families: FAMILIES.to_vec(),
        dialled,
    };
    let at = |number: u8| SocketAddr::from((host(number).address, 1790));
    let mut daemons = Vec::new();
    for number in 1..=DAEMONS {
        let mut neighbours = Vec::new();
        if number > 1 {
            neighbours.push(neighbour(number - 1, true));
        }
        if number < DAEMONS {
            neighbours.push(neighbour(number + 1, false));
        }
        match number {
            1 => neighbours.extend([neighbour(10, false), neighbour(12, false)]),
            DAEMONS => neighbours.push(neighbour(11, false)),
            _ => {}
        }
        let topology = Topology {
            address: at(number),
            neighbours,
        };
        let folder = setting.folder.join(number.to_string());
        std::fs::create_dir_all(&folder)?;
        daemons.push(daemon::start(setting.peer, &topology, &folder)?);
    }
    let deadline = Deadline::after(START);
    let open = |origin: Origin, daemon: SocketAddr, watched| {
        let spec = Spec {
            origin,
            daemon,
            families: &FAMILIES,
            counted: (Family::Mesh, 5 + BACKGROUND),
            watched,
            nap: None,
            own: 0..0,
        };
        let session = Session::establish(&spec, || !deadline.passed())?;
        let mut messages = wire::announce(origin, Family::Rtc, 0..1, 0);
        wire::end_of_rib(Family::Rtc, &mut messages);
        session.send(&messages)?;
        Ok::<_, anyhow::Error>(session)
    };
    let source = open(host(10), at(1), None)?;
    let beside = open(host(12), at(1), None)?;
    let sink = open(host(11), at(DAEMONS), Some(0))?;
    sink.expect(BACKGROUND);
    beside.send(&wire::announce(
        host(12),
        Family::Mesh,
        5..5 + BACKGROUND,
        0,
    ))?;
    sink.wait(setting.deadline())
        .with_context(|| daemons[usize::from(DAEMONS) - 1].last_words())?;
    let over = AtomicBool::new(false);
    let (changes, rate) = thread::scope(|scope| {
        let pace = scope.spawn(|| {
            let load = (Family::Mesh, RATE);
            let rate = latency::pace(&beside, host(12), BACKGROUND, load);
            over.store(true, Ordering::Relaxed);
            rate
        });
        let over = || over.load(Ordering::Relaxed);
        let changes = latency::flap((&source, host(10)), &sink, Family::Mesh, over);
        let rate = pace.join().expect("the background does not panic");
        changes.and_then(|changes| Ok((changes, rate?)))
    })?;
    for daemon in &mut daemons {
        daemon.check()?;
    }
    Ok(Figures::from([
        ("chain_p50_ms", latency::quantile(&changes, 50)),
        ("chain_p99_ms", latency::quantile(&changes, 99)),
        (
            "chain_changes",
            f64::from(u32::try_from(changes.len()).unwrap_or(0)),
        ),
        ("background_per_s", rate),
    ]))
}
