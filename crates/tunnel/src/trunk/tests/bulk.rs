//! Bulk over spare connections, between threads.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use runtime::{Tasks, metrics::Metrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::threads::{Worker, site};
use crate::{
    Config, TrunkStream,
    tests::support::{Fabric, counted_to, head, pop, run, target, until},
};

/// More than is on its way at a time.
const MUCH: usize = 4 << 20;
const PIECE: usize = 64 << 10;

/// The metric of streams that went aside, of the side that sends.
const ASIDE: &str = "sealane_tunnel_streams_aside_total";
const SPARES: &str = "sealane_tunnel_spare_connections";

/// A PoP, and a gateway that dials it.
struct Ends {
    par: Worker,
    aws: Worker,
    at_par: Metrics,
    at_aws: Metrics,
    /// All connections beyond the first four are cut when it is set: those are spare ones.
    cut: Rc<Cell<bool>>,
}

async fn ends(tasks: &Tasks) -> Ends {
    let fabric = Fabric::new();
    let (at_par, at_aws) = (Metrics::default(), Metrics::default());
    let listening = Config {
        trunks: 1,
        ..fabric.listening("par.fabric")
    };
    let (par, address) = pop(&at_par, listening).await;
    let cut = Rc::new(Cell::new(false));
    let relay = relay(tasks, address, Rc::clone(&cut)).await;
    let aws = crate::start(&at_aws).expect("a thread");
    let config = Config {
        dial: vec![target(relay)],
        trunks: 1,
        ..fabric.config("aws.acme")
    };
    aws.control.configure(config).await.expect("configured");
    let (mut par, mut aws) = (Worker::new(tasks, par), Worker::new(tasks, aws));
    tokio::join!(par.connections(1), aws.connections(1));
    Ends {
        par,
        aws,
        at_par,
        at_aws,
        cut,
    }
}

/// Hands octets on: each connection to it is one to `address`.
async fn relay(tasks: &Tasks, address: SocketAddr, cut: Rc<Cell<bool>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let group = tasks.clone();
    tasks.spawn_local("relay", async move {
        let mut count = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            count += 1;
            let (is_spare, cut) = (count > 4, Rc::clone(&cut));
            group.spawn_local("relayed", async move {
                let mut server = TcpStream::connect(address).await.expect("it listens");
                for tcp in [&client, &server] {
                    tcp.set_nodelay(true).expect("an option");
                }
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    () = until(|| is_spare && cut.get()) => {}
                }
            });
        }
    });
    at
}

/// A stream that the PoP opened, and its other end.
async fn stream(ends: &mut Ends) -> (TrunkStream, TrunkStream) {
    let (name, head) = (site("aws.acme"), head());
    let (near, far) = tokio::join!(ends.par.trunks.open(&name, &head), async {
        ends.aws.streams.recv().await.expect("a stream").accept()
    });
    (near.expect("open"), far.expect("accepted"))
}

/// The octet at this place of what is sent: other ones for each stream.
fn octet(place: usize, salt: usize) -> u8 {
    (place.wrapping_mul(31) >> 7)
        .wrapping_add(place + salt)
        .to_le_bytes()[0]
}

async fn send(stream: &mut (impl tokio::io::AsyncWrite + Unpin), much: usize, salt: usize) {
    for at in (0..much).step_by(PIECE) {
        let piece: Vec<u8> = (at..much.min(at + PIECE)).map(|n| octet(n, salt)).collect();
        stream.write_all(&piece).await.expect("written");
    }
}

async fn check(stream: &mut (impl tokio::io::AsyncRead + Unpin), much: usize, salt: usize) {
    let (mut room, mut at) = (vec![0; 100_000], 0);
    while at < much {
        let most = room.len().min(much - at);
        let count = stream.read(&mut room[..most]).await.expect("read");
        assert!(count > 0, "after {at}");
        let right = (at..)
            .zip(&room[..count])
            .all(|(n, o)| octet(n, salt) == *o);
        assert!(right, "at {at}");
        at += count;
    }
}

/// Sends, and reads at the other end, until it goes over a spare connection.
async fn go_aside(near: &mut TrunkStream, far: &mut TrunkStream) {
    while !near.mux.borrow().is_lent(near.id) {
        tokio::join!(send(near, PIECE, 0), check(far, PIECE, 0));
    }
}

#[tokio::test]
async fn bulk_goes_aside_both_ways_at_once_and_ends() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        let (mut near, mut far) = stream(&mut ends).await;
        go_aside(&mut near, &mut far).await;
        go_aside(&mut far, &mut near).await;
        let both = async |stream: TrunkStream, salts: (usize, usize)| {
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::join!(
                async {
                    send(&mut writer, MUCH, salts.0).await;
                    writer.shutdown().await.expect("ended");
                },
                async {
                    check(&mut reader, MUCH, salts.1).await;
                    assert_eq!(reader.read(&mut [0; 9]).await.expect("its end"), 0);
                }
            );
        };
        tokio::join!(both(near, (1, 2)), both(far, (2, 1)));
        counted_to(&ends.at_par, ASIDE, 1).await;
        counted_to(&ends.at_aws, ASIDE, 1).await;
        counted_to(&ends.at_par, SPARES, 1).await;
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_its_own_stream() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        let (mut still, mut unread) = stream(&mut ends).await;
        let (mut near, mut far) = stream(&mut ends).await;
        go_aside(&mut still, &mut unread).await;
        let sends = async {
            send(&mut still, 4 * MUCH, 3).await;
            still.shutdown().await.expect("ended");
        };
        let others = async {
            // What fits there is sent.
            tokio::time::sleep(Duration::from_millis(300)).await;
            for salt in 0..4 {
                tokio::join!(
                    send(&mut near, MUCH / 4, salt),
                    check(&mut far, MUCH / 4, salt)
                );
            }
            check(&mut unread, 4 * MUCH, 3).await;
            assert_eq!(unread.read(&mut [0; 9]).await.expect("its end"), 0);
        };
        tokio::join!(sends, others);
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_passes_from_one_to_the_other_and_what_comes_first_is_first() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        let (mut near, mut far) = stream(&mut ends).await;
        for _ in 0..3 {
            go_aside(&mut near, &mut far).await;
            // With rests between them it comes home.
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(!near.mux.borrow().is_lent(near.id));
            tokio::join!(send(&mut near, 99, 7), check(&mut far, 99, 7));
        }
        counted_to(&ends.at_par, ASIDE, 3).await;
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_given_up_aside_leaves_the_connection_to_others() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        for _ in 0..3 {
            let (mut near, mut far) = stream(&mut ends).await;
            go_aside(&mut near, &mut far).await;
            let torn = async {
                send(&mut near, MUCH, 5).await;
                // Not to its end.
                drop(near);
            };
            let reads = async {
                let mut room = vec![0; 99_999];
                while far.read(&mut room).await.is_ok_and(|count| count > 0) {}
            };
            tokio::join!(torn, reads);
            // And the other side.
            let (mut near, mut far) = stream(&mut ends).await;
            go_aside(&mut near, &mut far).await;
            let torn = async {
                check(&mut far, MUCH / 2, 5).await;
                drop(far);
            };
            let writes = async {
                send(&mut near, MUCH / 2, 5).await;
                let piece = vec![0; PIECE];
                while near.write_all(&piece).await.is_ok() {}
            };
            tokio::join!(torn, writes);
        }
        let most = ends.at_par.render();
        let spares = most.lines().find_map(|line| line.strip_prefix(SPARES));
        let spares: usize = spares.expect("counted").trim().parse().expect("a number");
        assert!(spares <= 3, "{spares}");
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn a_spare_connection_that_breaks_breaks_its_stream_alone() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        let (mut near, mut far) = stream(&mut ends).await;
        let (mut other, mut its) = stream(&mut ends).await;
        go_aside(&mut near, &mut far).await;
        let sends = async {
            let piece = vec![0; PIECE];
            while near.write_all(&piece).await.is_ok() {}
        };
        let reads = async {
            let mut room = vec![0; 99_999];
            while far.read(&mut room).await.is_ok_and(|count| count > 0) {}
        };
        ends.cut.set(true);
        tokio::join!(sends, reads);
        ends.cut.set(false);
        go_aside(&mut other, &mut its).await;
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn who_leaves_is_heard_to_the_end_from_aside() {
    run(async {
        let tasks = Tasks::new("test");
        let mut ends = ends(&tasks).await;
        let (mut near, mut far) = stream(&mut ends).await;
        go_aside(&mut near, &mut far).await;
        // As much as goes: some of it is in TLS, and not yet in the socket.
        let (piece, mut more) = (vec![9; PIECE], 0);
        let patience = Duration::from_millis(300);
        while let Ok(count) = tokio::time::timeout(patience, near.write(&piece)).await {
            more += count.expect("written");
        }
        near.shutdown().await.expect("ended");
        drop(near);
        ends.par.trunks.leave();
        // It would have left by now, but for what is not heard.
        tokio::time::sleep(patience).await;
        let (mut room, mut heard) = (vec![0; 100_000], 0);
        while heard < more / 2 {
            heard += far.read(&mut room).await.expect("heard");
        }
        // And now it has.
        tokio::time::sleep(patience).await;
        while let count @ 1.. = far.read(&mut room).await.expect("to its end") {
            heard += count;
        }
        assert_eq!(heard, more);
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}
