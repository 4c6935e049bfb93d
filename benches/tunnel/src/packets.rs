//! Packets of a Network over a link: as many as it carries, and what is lost on the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bench_kit::{clock, clock::Deadline, process::Family};
use runtime::metrics::Metrics;
use tunnel::{Config, DialTarget, PacketError, Prefer, Transport, Tunnel};

use crate::{
    contestant::{ANYWHERE, SERVER, Trust, sealane},
    scenario::Figures,
};

/// How long the link may take to come up, and to find what its path takes.
const START: Duration = Duration::from_secs(10);
/// What a TUN device over such a link has as its MTU: that of one over QUIC.
const PACKET: usize = 1_400;
/// After the link had no room for one.
const PAUSE: Duration = Duration::from_micros(50);

/// One run over a transport.
pub(crate) async fn run(transport: Transport, time: Duration) -> Result<Figures> {
    let trust = Trust::new()?;
    let (mut server, client) = link(&trust, transport).await?;
    let over = Arc::new(AtomicBool::new(false));
    let sender = {
        let (over, links, to) = (Arc::clone(&over), client.links.clone(), SERVER.parse()?);
        thread::spawn(move || {
            let (mut sent, packet) = (0_u64, [7; PACKET]);
            while !over.load(Ordering::Relaxed) {
                match links.send(&to, 1, &packet) {
                    Ok(()) => sent += 1,
                    // The latter where so much is lost that the path seems to have become smaller.
                    Err(PacketError::Full | PacketError::TooLarge { .. }) => thread::sleep(PAUSE),
                    Err(error) => bail!("{error}"),
                }
            }
            Ok(sent)
        })
    };
    let mut receive = async |time: Duration| {
        let (began, mut count) = (clock::now(), 0_u64);
        while clock::now() - began < time {
            server.packets.recv().await.context("the tunnel ended")?;
            count += 1;
        }
        anyhow::Ok((count, (clock::now() - began).as_secs_f64()))
    };
    let (warm, _) = receive(time / 4).await?;
    let before = Family::this().cpu_s()?;
    let (received, took) = receive(time).await?;
    let cpu = Family::this().cpu_s()? - before;
    over.store(true, Ordering::Relaxed);
    let sent = sender
        .join()
        .map_err(|_| anyhow::anyhow!("it panicked"))??;
    ensure!(received > 0, "none came");
    let (received, all) = (received as f64, (warm + received) as f64);
    Ok(Figures::from([
        ("packets_per_s", received / took),
        ("packet_cpu_us", cpu * 1e6 / received),
        ("lost_percent", (1.0 - all / sent as f64).max(0.0) * 100.0),
    ]))
}

/// Two tunnels and a link between them that carries packets.
async fn link(trust: &Trust, transport: Transport) -> Result<(Tunnel, Tunnel)> {
    let [server, client] = [Metrics::default(), Metrics::default()];
    let (server, client) = (tunnel::start(&server)?, tunnel::start(&client)?);
    let config = Config {
        prefer: match transport {
            Transport::Tls => Prefer::Tls,
            Transport::Quic => Prefer::Quic,
        },
        ..sealane::config(trust)
    };
    let listening = Config {
        credentials: trust.server.clone(),
        listen: vec![ANYWHERE],
        ..config.clone()
    };
    let listening = server.control.configure(listening).await?;
    let (_, at) = listening.bound.first().context("it does not listen")?;
    let dialling = Config {
        dial: vec![DialTarget {
            expected: None,
            addresses: vec![*at],
            uplink: None,
        }],
        ..config
    };
    client.control.configure(dialling).await?;
    let (to, deadline) = (SERVER.parse()?, Deadline::after(START));
    while !deadline.passed() {
        let table = client.links.table();
        let carries = table
            .carrier(&to)
            .filter(|link| link.transport == transport);
        if carries.is_some_and(|link| link.mtu().is_some_and(|mtu| usize::from(mtu) >= PACKET)) {
            return Ok((server, client));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bail!("no link came up that carries {PACKET} octets")
}
