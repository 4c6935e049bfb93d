use std::{net::SocketAddr, rc::Rc, time::Duration};

use base::SiteName;
use runtime::{Tasks, metrics::Metrics};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    Admit, Config, OpenError, TrunkIncoming, Trunks, Tunnel,
    tests::support::{BOUND, Fabric, counted_to, head, pop, run},
};

pub(super) fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

/// A thread's data connections, and the streams that come on them.
pub(super) struct Worker {
    pub(super) trunks: Rc<Trunks>,
    pub(super) streams: mpsc::Receiver<TrunkIncoming>,
    /// A number for each connection that has come, but for spare ones.
    indices: mpsc::Receiver<usize>,
}

impl Worker {
    /// Serves what `tunnel` has from now on.
    pub(super) fn new(tasks: &Tasks, tunnel: Tunnel) -> Worker {
        let trunks = Rc::new(Trunks::default());
        let (stream, streams) = mpsc::channel(16);
        let (index, indices) = mpsc::channel(16);
        let (group, serving) = (tasks.clone(), Rc::clone(&trunks));
        tasks.spawn_local("trunks", async move {
            // All of it: without its other end it ends.
            let mut tunnel = tunnel;
            while let Some(trunk) = tunnel.trunks.recv().await {
                if !trunk.is_spare() {
                    assert!(index.try_send(trunk.index()).is_ok());
                }
                let (serving, stream) = (Rc::clone(&serving), stream.clone());
                group.spawn_local("trunk", async move {
                    let on_stream = |incoming| assert!(stream.try_send(incoming).is_ok());
                    serving.serve(trunk, on_stream).await;
                });
            }
        });
        Worker {
            trunks,
            streams,
            indices,
        }
    }

    pub(super) async fn connections(&mut self, count: usize) -> Vec<usize> {
        let mut come = Vec::new();
        for _ in 0..count {
            let index = tokio::time::timeout(BOUND, self.indices.recv()).await;
            come.push(index.expect("in time").expect("it serves"));
        }
        come.sort_unstable();
        // They are served once the task that took them has run.
        tokio::task::yield_now().await;
        come
    }
}

/// Octets there and back, and an end of each half.
async fn exchange(from: &Worker, to: &mut Worker, name: &str) {
    let (name, head) = (site(name), head());
    let (near, far) = tokio::join!(from.trunks.open(&name, &head), async {
        let incoming = to.streams.recv().await.expect("a stream");
        assert_eq!(incoming.head, head);
        incoming.accept().expect("accepted")
    });
    let (mut near, mut far) = (near.expect("a stream"), far);
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let (echoed, ()) = tokio::join!(
        async {
            let (mut reader, mut writer) = tokio::io::split(&mut near);
            let mut echoed = Vec::new();
            let (written, read) = tokio::join!(
                async {
                    writer.write_all(&sent).await?;
                    writer.shutdown().await
                },
                reader.read_to_end(&mut echoed)
            );
            written.and(read).expect("both ways");
            echoed
        },
        async {
            let (mut reader, mut writer) = tokio::io::split(&mut far);
            tokio::io::copy(&mut reader, &mut writer)
                .await
                .expect("copied");
            writer.shutdown().await.expect("ended");
        }
    );
    assert!(echoed == sent);
}

/// A link through a relay that forgets the connection of this number, from 1, after a while.
async fn linked(tasks: &Tasks, trunks: (u8, u8), cut: Option<usize>) -> (Worker, Worker) {
    metered(&Metrics::default(), tasks, trunks, cut).await
}

/// The same, with the metrics of the PoP.
async fn metered(
    metrics: &Metrics,
    tasks: &Tasks,
    trunks: (u8, u8),
    cut: Option<usize>,
) -> (Worker, Worker) {
    let (par, aws) = tunnels(&Fabric::new(), metrics, tasks, trunks, cut).await;
    (Worker::new(tasks, par), Worker::new(tasks, aws))
}

/// The tunnels of both, of this fabric.
async fn tunnels(
    fabric: &Fabric,
    metrics: &Metrics,
    tasks: &Tasks,
    trunks: (u8, u8),
    cut: Option<usize>,
) -> (Tunnel, Tunnel) {
    let listening = Config {
        trunks: trunks.0,
        ..fabric.listening("par.fabric")
    };
    let (par, address) = pop(metrics, listening).await;
    let relay = relay(tasks, address, cut).await;
    let aws = crate::start(&Metrics::default()).expect("a thread");
    let config = Config {
        trunks: trunks.1,
        ..fabric.dialling("aws.acme", relay)
    };
    aws.control.configure(config).await.expect("configured");
    (par, aws)
}

/// Hands octets on: each connection to it is one to `address`.
async fn relay(tasks: &Tasks, address: SocketAddr, cut: Option<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let group = tasks.clone();
    tasks.spawn_local("relay", async move {
        let mut count = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            count += 1;
            let forgets = Some(count) == cut;
            group.spawn_local("relayed", async move {
                let mut server = TcpStream::connect(address).await.expect("it listens");
                for tcp in [&client, &server] {
                    tcp.set_nodelay(true).expect("an option");
                }
                let copy = tokio::io::copy_bidirectional(&mut client, &mut server);
                if forgets {
                    let _ = tokio::time::timeout(Duration::from_millis(500), copy).await;
                    std::future::pending::<()>().await;
                } else {
                    let _ = copy.await;
                }
            });
        }
    });
    at
}

#[tokio::test]
async fn keys_are_replaced_under_what_is_sent() {
    run(async {
        let (tasks, metrics) = (Tasks::new("test"), Metrics::default());
        let (mut par, mut aws) = metered(&metrics, &tasks, (1, 1), None).await;
        aws.connections(1).await;
        par.connections(1).await;
        for times in 1..=2 {
            for connection in ["data", "http2"] {
                let name = format!("sealane_tunnel_rekeys_total{{connection=\"{connection}\"}}");
                counted_to(&metrics, &name, times).await;
            }
            exchange(&par, &mut aws, "aws.acme").await;
            exchange(&aws, &mut par, "par.fabric").await;
        }
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn both_sides_open_streams_on_connections_of_their_own_thread() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = linked(&tasks, (1, 2), None).await;
        assert_eq!(aws.connections(2).await, [0, 1]);
        assert_eq!(par.connections(2).await, [0, 1]);
        exchange(&par, &mut aws, "aws.acme").await;
        exchange(&aws, &mut par, "par.fabric").await;
        let nowhere = par.trunks.open(&site("gcp.acme"), &head()).await;
        assert!(matches!(nowhere, Err(OpenError::NoLink(_))), "{nowhere:?}");
        let (refused, ()) = tokio::join!(
            async { par.trunks.open(&site("aws.acme"), &head()).await },
            async {
                let incoming = aws.streams.recv().await.expect("a stream");
                incoming.refuse(http::StatusCode::FORBIDDEN, "no");
            }
        );
        let is_no = |error: &OpenError| {
            matches!(error, OpenError::Refused { status, reason }
                if *status == http::StatusCode::FORBIDDEN && reason == "no")
        };
        assert!(refused.is_err_and(|error| is_no(&error)));
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_said_last_is_heard_when_a_side_leaves() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = linked(&tasks, (1, 1), None).await;
        tokio::join!(par.connections(1), aws.connections(1));
        let (name, head) = (site("aws.acme"), head());
        let (near, far) = tokio::join!(par.trunks.open(&name, &head), async {
            aws.streams.recv().await.expect("a stream").accept()
        });
        let (mut near, mut far) = (near.expect("open"), far.expect("accepted"));
        let said = vec![5; 1 << 20];
        let saying = async {
            far.write_all(&said).await.expect("written");
            far.shutdown().await.expect("ended");
            drop(far);
            aws.trunks.leave();
        };
        let hearing = async {
            let mut heard = Vec::new();
            near.read_to_end(&mut heard).await.map(|_| heard)
        };
        let ((), heard) = tokio::join!(saying, hearing);
        assert!(heard.expect("to its end") == said);
        // It is gone on both sides.
        drop(near);
        let closed = par.trunks.open(&name, &head).await;
        assert!(closed.is_err());
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn who_asks_for_none_gets_none() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = linked(&tasks, (0, 2), None).await;
        let none = tokio::time::timeout(Duration::from_secs(1), async {
            tokio::select! { _ = par.connections(1) => {}, _ = aws.connections(1) => {} }
        });
        assert!(none.await.is_err());
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_being_received_outlives_its_link_whichever_side_ended_that() {
    run(async {
        let tasks = Tasks::new("test");
        // Both sides miss it; which of them ends the link first is a matter of luck, and the other
        // one hears that it is closed.
        let (mut par, mut aws) = linked(&tasks, (1, 1), Some(1)).await;
        tokio::join!(par.connections(1), aws.connections(1));
        let head = head();
        let (to_aws, to_par) = (site("aws.acme"), site("par.fabric"));
        let (there, back) = tokio::join!(par.trunks.open(&to_aws, &head), async {
            aws.streams.recv().await.expect("a stream").accept()
        });
        let (here, forth) = tokio::join!(aws.trunks.open(&to_par, &head), async {
            par.streams.recv().await.expect("a stream").accept()
        });
        let mut readers = [there.expect("open"), here.expect("open")];
        let mut writers = [back.expect("accepted"), forth.expect("accepted")];
        let is_up = |worker: &Worker| worker.trunks.served.borrow()[0].link.is_up();
        let mut late = 0;
        while late < 30 {
            late += u32::from(!is_up(&par) && !is_up(&aws));
            for (reader, writer) in readers.iter_mut().zip(&mut writers) {
                writer.write_u8(7).await.expect("written");
                assert_eq!(reader.read_u8().await.expect("read"), 7);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // All that was written is read, whoever leaves first.
        for (mut reader, mut writer) in readers.into_iter().zip(writers) {
            let writing = async move {
                writer.write_all(&[7; 1 << 20]).await.expect("written");
                writer.shutdown().await.expect("ended");
            };
            let mut read = Vec::new();
            let ((), all) = tokio::join!(writing, reader.read_to_end(&mut read));
            assert_eq!(all.expect("all of it"), 1 << 20);
        }
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn who_is_not_admitted_any_more_keeps_nothing_that_outlives_its_link() {
    run(async {
        let (tasks, fabric) = (Tasks::new("test"), Fabric::new());
        let (par, aws) = tunnels(&fabric, &Metrics::default(), &tasks, (1, 1), Some(1)).await;
        let control = par.control.clone();
        let (mut par, mut aws) = (Worker::new(&tasks, par), Worker::new(&tasks, aws));
        tokio::join!(par.connections(1), aws.connections(1));
        let (head, name) = (head(), site("par.fabric"));
        let (reader, writer) = tokio::join!(aws.trunks.open(&name, &head), async {
            par.streams.recv().await.expect("a stream").accept()
        });
        let (mut reader, mut writer) = (reader.expect("open"), writer.expect("accepted"));
        writer.write_u8(7).await.expect("written");
        assert_eq!(reader.read_u8().await.expect("read"), 7);
        let link = par.trunks.served.borrow()[0].link.clone();
        while link.is_up() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        writer.write_u8(7).await.expect("it goes on");
        let revoked = Config {
            admit: Admit::when(|_| false),
            ..fabric.config("par.fabric")
        };
        control.configure(revoked).await.expect("configured");
        assert_eq!(reader.read_u8().await.expect("read"), 7);
        let end = tokio::time::timeout(Duration::from_secs(2), reader.read_u8()).await;
        assert!(end.expect("at once").is_err());
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_dialled_again_and_its_link_stays() {
    run(async {
        let tasks = Tasks::new("test");
        // The first data connection comes after the three that a link begins with.
        let (mut par, mut aws) = linked(&tasks, (1, 1), Some(4)).await;
        tokio::join!(par.connections(1), aws.connections(1));
        let (head, name) = (head(), site("aws.acme"));
        let (stream, far) = tokio::join!(par.trunks.open(&name, &head), async {
            aws.streams.recv().await.expect("a stream").accept()
        });
        let mut stream = stream.expect("open");
        let read = tokio::time::timeout(BOUND, stream.read_u8()).await;
        assert!(read.expect("noticed").is_err());
        drop((stream, far));
        tokio::join!(par.connections(1), aws.connections(1));
        exchange(&par, &mut aws, "aws.acme").await;
        tasks.drain(Duration::ZERO).await;
    })
    .await;
}
