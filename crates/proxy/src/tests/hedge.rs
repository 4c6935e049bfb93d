//! A second try beside one that takes long.

use std::time::Duration;

use balance::Health::Healthy;
use l7::Retry;
use tokio::time::timeout;

use super::world::{Manner, PATIENCE, Spot, World};

/// The first endpoint is the nearest, and a second is asked after a millisecond.
async fn world(first: Manner, second: Manner) -> (World, Spot, Spot) {
    let world = World::new().await;
    let spots = (
        Spot::new("one", first).await,
        Spot::new("two", second).await,
    );
    world.endpoints(&[(spots.0.address, Healthy), (spots.1.address, Healthy)]);
    world.route(|route| {
        route.retry = Retry {
            hedge: Some(Duration::from_millis(1)),
            ..Retry::default()
        };
    });
    (world, spots.0, spots.1)
}

async fn ask(world: &World, method: &str) -> String {
    timeout(PATIENCE, world.ask(method)).await.expect("in time")
}

#[tokio::test]
async fn the_first_good_answer_wins() {
    let (world, slow, quick) = world(Manner::Hang, Manner::Echo).await;
    let answer = ask(&world, "GET").await;
    assert!(answer.contains("\r\n\r\ntwo\n"), "{answer}");
    assert_eq!((slow.served(), quick.served()), (1, 1));
    // The other one is given up, and both are told of.
    let sum = |world: &World| -> u32 {
        let set = world.ingress_cell.load();
        set.endpoints().iter().map(|e| e.stats.in_flight()).sum()
    };
    let wait = async {
        while sum(&world) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("in time");
    let path = world.log.path().join("access.log");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    while lines().is_empty() {
        tokio::task::yield_now().await;
    }
    let record: serde_json::Value =
        serde_json::from_str(lines().lines().next().expect("a line")).expect("JSON");
    assert_eq!(record["tries"], 2, "{record}");
    let second = quick.address.to_string();
    assert_eq!(record["endpoint"], second.as_str(), "{record}");
}

#[tokio::test]
async fn a_second_that_fails_changes_nothing() {
    let (world, mut slow, bad) = world(Manner::Hang, Manner::Drop).await;
    let asking = ask(&world, "GET");
    let later = async {
        timeout(PATIENCE, slow.arrived.recv())
            .await
            .expect("in time");
        let wait = async {
            while bad.served() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.expect("in time");
        // The first ends by its endpoint's death; nobody is left who was not asked.
        slow.kill().await;
    };
    let (answer, ()) = tokio::join!(asking, later);
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
}

#[tokio::test]
async fn what_changes_something_is_asked_once() {
    for method in ["POST", "PUT", "DELETE"] {
        let (world, mut slow, quick) = world(Manner::Hang, Manner::Echo).await;
        let asking = ask(&world, method);
        let later = async {
            timeout(PATIENCE, slow.arrived.recv())
                .await
                .expect("in time");
            // Longer than a second one would take.
            let (_, idle) = (world.ask("GET").await, quick.served());
            slow.kill().await;
            idle
        };
        let (answer, others) = tokio::join!(asking, later);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{method} {answer}");
        // The GET was.
        assert_eq!((others, quick.served()), (1, 1), "{method}");
    }
}
