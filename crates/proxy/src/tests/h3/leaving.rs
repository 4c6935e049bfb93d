//! Connections that end, and those that wait for it.

use std::{sync::Arc, time::Duration};

use balance::Health::Healthy;
use l7::{Limits, ListenerProtocol};
use tokio::{sync::oneshot, time::timeout};

use super::talker::{Talker, goaway, head, reply};
use crate::{
    Config, ListenerSpec, Workers,
    tests::{
        seats::{ACME, BLUE, guests, sixteen},
        world::{Manner, PATIENCE, Spot, World},
    },
};

/// Have the PoP end, and hear when it has.
fn drain(world: &World) -> oneshot::Receiver<()> {
    let (done, over) = oneshot::channel();
    let pop = Arc::clone(&world.pop);
    runtime::Tasks::new("test").spawn("drain", async move {
        pop.drain(Duration::from_secs(30)).await;
        let _ = done.send(());
    });
    over
}

#[tokio::test]
async fn rfc9114_5_1_an_idle_connection_is_asked_to_go() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(400),
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let talker = Talker::new(&world, world.quic().await).await;
    assert_eq!(talker.get("/").await.status, "503");
    let mut control = talker.control().await;
    assert_eq!(goaway(&mut control).await, (1 << 62) - 4);
    assert_eq!(goaway(&mut control).await, 4);
    assert_eq!(talker.closed().await, 0x100);
}

#[tokio::test]
async fn the_idle_connection_of_a_tenant_with_too_many_is_asked_to_go() {
    let world = sixteen().await;
    let talker = Talker::new(&world, world.quic().await).await;
    assert_eq!(talker.get("/").await.status, "404");
    let mut control = talker.control().await;
    let _acme = guests(&world, ACME, 8).await;
    let _blue = guests(&world, BLUE, 1).await;
    assert_eq!(goaway(&mut control).await, (1 << 62) - 4);
    assert_eq!(talker.closed().await, 0x100);
}

#[tokio::test]
async fn rfc9114_5_2_running_requests_finish_and_later_ones_are_rejected() {
    let world = World::new().await;
    let mut spot = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let mut control = talker.control().await;
    let (mut send, recv) = talker.say(&head("GET", "/", &[])).await;
    send.finish().expect("not over");
    timeout(PATIENCE, spot.arrived.recv())
        .await
        .expect("in time");
    let drain = drain(&world);
    assert_eq!(goaway(&mut control).await, (1 << 62) - 4);
    // What was on its way when it was said is still served.
    let echo = Spot::new("two", Manner::Echo).await;
    world.endpoints(&[(echo.address, Healthy), (spot.address, Healthy)]);
    let last = match talker.ask(&head("GET", "/", &[])).await {
        Ok(reply) => {
            assert_eq!(reply.status, "200");
            8
        }
        // This machine was slow.
        Err(_) => 4,
    };
    assert_eq!(goaway(&mut control).await, last);
    assert_eq!(talker.reset(&head("GET", "/", &[])).await, 0x10b);
    // The first one ends with its endpoint, elsewhere.
    spot.kill().await;
    let reply = reply(recv).await.expect("a reply");
    assert!(reply.body.starts_with("two\n"), "{reply:?}");
    assert_eq!(talker.closed().await, 0x100);
    timeout(PATIENCE, drain)
        .await
        .expect("in time")
        .expect("drained");
}

/// Two processes at one address, the first of which ends: its connections are still heard, and
/// who comes now comes to the second.
#[tokio::test]
async fn who_stays_is_heard_and_who_comes_finds_the_next() {
    let world = World::new().await;
    let mut slow = Spot::new("slow", Manner::Hang).await;
    world.endpoints(&[(slow.address, Healthy)]);
    let to = world.quic().await;
    let mut talkers = Vec::new();
    for _ in 0..8 {
        let talker = Talker::new(&world, to).await;
        let (mut send, recv) = talker.say(&head("GET", "/", &[])).await;
        send.finish().expect("not over");
        timeout(PATIENCE, slow.arrived.recv())
            .await
            .expect("in time");
        talkers.push((talker, recv));
    }
    let (next, _events) = Workers::start(Config {
        workers: 2,
        snapshot: world.pop.snapshot(),
        dial: Arc::clone(&world.bridge) as _,
        access_log: None,
        spans: None,
        metrics: <_>::default(),
        seed: 2,
        inherited: Vec::new(),
    })
    .expect("started");
    let spec = ListenerSpec {
        bind: to,
        port: 443,
        protocol: ListenerProtocol::Quic,
    };
    for bound in next.set_listeners(&[spec]).await {
        bound.expect("beside the first");
    }
    let drain = drain(&world);
    for (talker, _) in &talkers {
        goaway(&mut talker.control().await).await;
    }
    let echo = Spot::new("echo", Manner::Echo).await;
    world.endpoints(&[(echo.address, Healthy)]);
    for _ in 0..8 {
        let talker = Talker::new(&world, to).await;
        assert!(talker.get("/").await.body.starts_with("echo\n"));
    }
    slow.kill().await;
    for (talker, recv) in talkers {
        let reply = reply(recv).await.expect("a reply");
        assert!(reply.body.starts_with("echo\n"), "{reply:?}");
        assert_eq!(talker.closed().await, 0x100);
    }
    timeout(PATIENCE, drain)
        .await
        .expect("in time")
        .expect("drained");
    next.drain(Duration::ZERO).await;
}
