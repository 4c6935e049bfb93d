//! One process takes another's place: streams go on where they are, and what begins goes to the
//! next one once it serves, whichever side has dialled.

use std::rc::Rc;

use runtime::{Tasks, metrics::Metrics};
use tokio::sync::mpsc;

use super::support::*;
use crate::{Config, DialTarget, DownReason, Prefer, Standing, Tunnel};

/// Serves data connections, on which each side says how it stands.
fn serves(tasks: &Tasks, mut tunnel: Tunnel) -> Tunnel {
    let trunks = Rc::new(tunnel.links.trunks());
    let (_, none) = mpsc::channel(1);
    let mut queue = std::mem::replace(&mut tunnel.trunks, none);
    let group = tasks.clone();
    tasks.spawn_local("trunks", async move {
        while let Some(trunk) = queue.recv().await {
            let trunks = Rc::clone(&trunks);
            group.spawn_local("trunk", async move { trunks.serve(trunk, drop).await });
        }
    });
    tunnel
}

fn with_trunks(config: Config) -> Config {
    Config {
        trunks: 1,
        ..config
    }
}

/// How the processes at the other ends of the links to a site stand, and which are used.
fn links(tunnel: &Tunnel, to: &str) -> Vec<(Standing, bool)> {
    let table = tunnel.links.table();
    let links = table.site(&site(to)).iter();
    links
        .map(|link| (link.standing(), link.share() > 0))
        .collect()
}

#[tokio::test]
async fn of_a_node_that_dials() {
    run(async {
        let (fabric, tasks) = (Fabric::new(), Tasks::new("test"));
        let (par, address) = pop(
            &Metrics::default(),
            with_trunks(fabric.listening("par.fabric")),
        )
        .await;
        let mut par = serves(&tasks, par);
        let config = with_trunks(fabric.dialling("aws.acme", address));
        let mut old = serves(&tasks, crate::start(&Metrics::default()).expect("a thread"));
        let configured = old.control.configure(config.clone()).await;
        configured.expect("configured");
        up(&mut par).await;
        let (mut near, mut far) = stream(&par, &mut old, "aws.acme").await;
        assert!(old.control.sockets().await.expect("asked").is_empty());
        old.control.stand(Standing::Leaves).await.expect("told");
        // While there is no other it is used.
        until(|| links(&par, "aws.acme") == [(Standing::Leaves, true)]).await;
        let next = crate::succeed(&Metrics::default(), Vec::new()).expect("a thread");
        let mut next = serves(&tasks, next);
        next.control.configure(config).await.expect("configured");
        up(&mut par).await;
        let beside = [(Standing::Leaves, true), (Standing::StandsBy, false)];
        until(|| links(&par, "aws.acme") == beside).await;
        let (mut still, mut here) = stream(&par, &mut old, "aws.acme").await;
        next.control.stand(Standing::Serves).await.expect("told");
        let served = [(Standing::Leaves, false), (Standing::Serves, true)];
        until(|| links(&par, "aws.acme") == served).await;
        let (mut new, mut there) = stream(&par, &mut next, "aws.acme").await;
        for (near, far) in [
            (&mut near, &mut far),
            (&mut still, &mut here),
            (&mut new, &mut there),
        ] {
            echo(near, far).await;
        }
        drop((near, far, still, here));
        old.control.relieved().await.expect("told");
        old.control.drain().await;
        until(|| links(&par, "aws.acme") == [(Standing::Serves, true)]).await;
        echo(&mut new, &mut there).await;
    })
    .await;
}

#[tokio::test]
async fn of_a_node_that_is_dialled() {
    run(async {
        let (fabric, tasks) = (Fabric::new(), Tasks::new("test"));
        let (par, address) = pop(
            &Metrics::default(),
            with_trunks(fabric.listening("par.fabric")),
        )
        .await;
        let mut old = serves(&tasks, par);
        let mut aws = serves(&tasks, crate::start(&Metrics::default()).expect("a thread"));
        let dial = vec![DialTarget {
            expected: Some(site("par.fabric")),
            ..target(address)
        }];
        let config = Config {
            dial,
            ..with_trunks(fabric.config("aws.acme"))
        };
        aws.control.configure(config).await.expect("configured");
        up(&mut aws).await;
        let (mut near, mut far) = stream(&aws, &mut old, "par.fabric").await;
        let sockets = old.control.sockets().await.expect("asked");
        old.control.stand(Standing::Leaves).await.expect("told");
        let sockets = sockets.into_iter().map(|(at, socket)| (at, socket.into()));
        let next = crate::succeed(&Metrics::default(), sockets.collect()).expect("a thread");
        let next_config = with_trunks(fabric.listening("par.fabric"));
        let listening = next.control.configure(next_config).await;
        assert_eq!(listening.expect("configured").bound[0].1, address);
        let next = serves(&tasks, next);
        // It is dialled, and not used yet.
        up(&mut aws).await;
        let beside = [(Standing::Leaves, true), (Standing::StandsBy, false)];
        until(|| links(&aws, "par.fabric") == beside).await;
        let (mut still, mut here) = stream(&aws, &mut old, "par.fabric").await;
        // It ends before it served: the first one stays, and is dialled no more than once.
        next.control.drain().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        old.control.stand(Standing::Serves).await.expect("told");
        until(|| links(&aws, "par.fabric") == [(Standing::Serves, true)]).await;
        let sockets = old.control.sockets().await.expect("asked");
        old.control.stand(Standing::Leaves).await.expect("told");
        let sockets = sockets.into_iter().map(|(at, socket)| (at, socket.into()));
        let next_ = crate::succeed(&Metrics::default(), sockets.collect()).expect("a thread");
        let mut next_ = serves(&tasks, next_);
        let next_config = with_trunks(fabric.listening("par.fabric"));
        next_
            .control
            .configure(next_config)
            .await
            .expect("configured");
        until(|| links(&aws, "par.fabric") == beside).await;
        next_.control.stand(Standing::Serves).await.expect("told");
        let served = [(Standing::Leaves, false), (Standing::Serves, true)];
        until(|| links(&aws, "par.fabric") == served).await;
        let (mut new, mut there) = stream(&aws, &mut next_, "par.fabric").await;
        for (near, far) in [
            (&mut near, &mut far),
            (&mut still, &mut here),
            (&mut new, &mut there),
        ] {
            echo(near, far).await;
        }
        drop((near, far, still, here));
        old.control.drain().await;
        until(|| links(&aws, "par.fabric") == [(Standing::Serves, true)]).await;
        echo(&mut new, &mut there).await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_one_that_leaves_is_not_that_of_another() {
    run(async {
        let (fabric, tasks) = (Fabric::new(), Tasks::new("test"));
        let listening = with_trunks(fabric.listening("par.fabric"));
        let (par, address) = pop(&Metrics::default(), listening).await;
        let mut par = serves(&tasks, par);
        let config = with_trunks(fabric.dialling("aws.acme", address));
        let over_quic = Config {
            dial: vec![DialTarget {
                expected: Some(site("par.fabric")),
                ..target(address)
            }],
            prefer: Prefer::Quic,
            ..config.clone()
        };
        let begin = || crate::succeed(&Metrics::default(), Vec::new()).expect("a thread");
        // The first has a link over TLS alone, the second one over each.
        let old = serves(&tasks, begin());
        let configured = old.control.configure(config).await;
        configured.expect("configured");
        up(&mut par).await;
        old.control.stand(Standing::Leaves).await.expect("told");
        until(|| links(&par, "aws.acme") == [(Standing::Leaves, true)]).await;
        let mut next = serves(&tasks, begin());
        let configured = next.control.configure(over_quic).await;
        configured.expect("configured");
        up(&mut par).await;
        up(&mut par).await;
        next.control.stand(Standing::Serves).await.expect("told");
        until(|| links(&par, "aws.acme").contains(&(Standing::Serves, true))).await;
        let of_quic = || {
            let (table, aws) = (par.links.table(), site("aws.acme"));
            table.over_quic(&aws).any(|link| link.share() > 0)
        };
        until(of_quic).await;
        let (mut near, mut far) = stream(&par, &mut next, "aws.acme").await;
        next.control.stand(Standing::Leaves).await.expect("told");
        let leave = || {
            let links = links(&par, "aws.acme");
            links.len() == 3 && links.iter().all(|(how, _)| *how == Standing::Leaves)
        };
        until(leave).await;
        old.control.drain().await;
        assert_eq!(down(&mut par).await, DownReason::Closed);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(links(&par, "aws.acme").len(), 2);
        echo(&mut near, &mut far).await;
    })
    .await;
}

#[tokio::test]
async fn no_node_has_any_number_of_processes_that_leave() {
    run(async {
        let (fabric, tasks) = (Fabric::new(), Tasks::new("test"));
        let (par, address) = pop(
            &Metrics::default(),
            with_trunks(fabric.listening("par.fabric")),
        )
        .await;
        let mut par = serves(&tasks, par);
        let config = with_trunks(fabric.dialling("aws.acme", address));
        let mut processes = Vec::new();
        for before in 0..8 {
            let next = crate::succeed(&Metrics::default(), Vec::new()).expect("a thread");
            let next = serves(&tasks, next);
            let configured = next.control.configure(config.clone()).await;
            configured.expect("configured");
            up(&mut par).await;
            if before > 4 {
                // The oldest goes.
                assert_eq!(down(&mut par).await, DownReason::Replaced);
            }
            next.control.stand(Standing::Leaves).await.expect("told");
            let leave = |links: &[(Standing, bool)]| {
                links.len() == 5.min(before + 1)
                    && links.iter().all(|(how, _)| *how == Standing::Leaves)
            };
            until(|| leave(&links(&par, "aws.acme"))).await;
            processes.push(next);
        }
    })
    .await;
}
