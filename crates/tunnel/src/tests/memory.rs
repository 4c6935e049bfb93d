use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::StatusCode;
use runtime::Tasks;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::oneshot,
};

use super::support::*;
use crate::{BoxPipe, DownReason, LinkEvent, OpenError, Pipe, Pipes, Side, StreamHead, Tunnel};

/// Two tunnels on one thread with a link between them: `par` accepted, `aws` dialled.
async fn pair(tasks: &Tasks) -> (Tunnel, Tunnel) {
    let (near, far) = Pipes::in_memory();
    attached(tasks, near, far).await
}

async fn attached(tasks: &Tasks, near: Pipes, far: Pipes) -> (Tunnel, Tunnel) {
    let (mut par, mut aws) = (local(tasks), local(tasks));
    aws.control
        .attach(identity("par.fabric"), Side::Dialler, near)
        .await
        .expect("attached");
    par.control
        .attach(identity("aws.acme"), Side::Acceptor, far)
        .await
        .expect("attached");
    assert_eq!(up(&mut aws).await, identity("par.fabric"));
    assert_eq!(up(&mut par).await, identity("aws.acme"));
    (par, aws)
}

async fn exchange(from: &Tunnel, to: &mut Tunnel, site: &str) {
    let site = site.parse().expect("a site");
    let head = head();
    let (stream, accepted) = tokio::join!(from.links.open(&site, &head), async {
        let incoming = service(to).await;
        assert_eq!(incoming.head, head);
        incoming.accept().expect("accepted")
    });
    let (mut near, mut far) = (stream.expect("a stream"), accepted);
    let big = vec![7; 3_000_000];
    let (sent, got) = tokio::join!(
        async {
            near.write_all(&big).await?;
            near.shutdown().await?;
            let mut answer = String::new();
            near.read_to_string(&mut answer).await?;
            io::Result::Ok(answer)
        },
        async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await?;
            far.write_all(b"thanks").await?;
            far.shutdown().await?;
            io::Result::Ok(got)
        }
    );
    assert_eq!(sent.expect("sent"), "thanks");
    assert!(got.expect("got") == big);
}

#[tokio::test]
async fn streams_go_both_ways() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = pair(&tasks).await;
        exchange(&aws, &mut par, "par.fabric").await;
        exchange(&par, &mut aws, "aws.acme").await;
        let table = par.links.table();
        assert!(table.reaches(&"aws.acme".parse().expect("a site")));
        assert!(!table.reaches(&"nyc.fabric".parse().expect("a site")));
        let error = par
            .links
            .open(&"nyc.fabric".parse().expect("a site"), &head())
            .await;
        assert!(matches!(&error, Err(OpenError::NoLink(_))), "{error:?}");
        assert!(error.expect_err("no link").nothing_sent());
    })
    .await;
}

/// Writes until then, and reads what the other end writes.
async fn busy(stream: crate::Stream, until: base::Instant) -> io::Result<u64> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let piece = vec![7; 256 << 10];
    let writes = async {
        while runtime::now() < until {
            writer.write_all(&piece).await?;
        }
        writer.shutdown().await
    };
    let mut nowhere = tokio::io::sink();
    let (wrote, read) = tokio::join!(writes, tokio::io::copy(&mut reader, &mut nowhere));
    wrote.and(read)
}

/// Two halves on threads of their own that both send much, through a dozen pings.
#[tokio::test]
async fn bulk_both_ways_at_once_stops_neither() {
    let (near, far) = Pipes::in_memory();
    let until = runtime::now() + Duration::from_secs(4);
    let (says, there) = oneshot::channel();
    // The link ends with either end of it.
    let (over, is_over) = oneshot::channel::<()>();
    let half = runtime::thread("there", move |tasks| async move {
        let mut par = local(&tasks);
        let dialler = identity("aws.acme");
        let attached = par.control.attach(dialler, Side::Acceptor, far).await;
        attached.expect("attached");
        let stream = service(&mut par).await.accept().expect("accepted");
        let _ = says.send(busy(stream, until).await);
        let _ = is_over.await;
    });
    half.expect("a thread");
    run(async {
        let tasks = Tasks::new("here");
        let mut aws = local(&tasks);
        let acceptor = identity("par.fabric");
        let attached = aws.control.attach(acceptor, Side::Dialler, near).await;
        attached.expect("attached");
        assert_eq!(up(&mut aws).await, identity("par.fabric"));
        let par = "par.fabric".parse().expect("a site");
        let stream = aws.links.open(&par, &head()).await.expect("a stream");
        let here = busy(stream, until).await.expect("went on");
        let there = there.await.expect("no panic").expect("went on");
        let least = 16 << 20;
        assert!(here > least && there > least);
        drop(over);
    })
    .await;
}

#[tokio::test]
async fn refusals_say_why() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, aws) = pair(&tasks).await;
        let site = "par.fabric".parse().expect("a site");
        let head = head();
        let (error, ()) = tokio::join!(aws.links.open(&site, &head), async {
            let incoming = service(&mut par).await;
            assert_eq!(incoming.peer, identity("aws.acme"));
            incoming.refuse(StatusCode::NOT_FOUND, "no such service");
        });
        let Err(OpenError::Refused { status, reason }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(
            (status, &*reason),
            (StatusCode::NOT_FOUND, "no such service")
        );
        let (error, ()) = tokio::join!(aws.links.open(&site, &head), async {
            drop(service(&mut par).await);
        });
        assert!(
            matches!(
                error,
                Err(OpenError::Closed {
                    head_sent: true,
                    ..
                })
            ),
            "{error:?}"
        );
        let bad = aws.links.open(&site, &StreamHead::to("BAD")).await;
        assert!(matches!(bad, Err(OpenError::Head(_))), "{bad:?}");
    })
    .await;
}

#[tokio::test]
async fn reserved_streams_have_their_own_queue() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = pair(&tasks).await;
        let bgp = StreamHead::to("bgp.sealane.internal");
        let (to_par, to_aws) = (
            "par.fabric".parse().expect("ok"),
            "aws.acme".parse().expect("ok"),
        );
        let (opened, _far) = tokio::join!(aws.links.open_control(&to_par, &bgp), async {
            let incoming = par.reserved.recv().await.expect("a stream");
            incoming.accept().expect("accepted")
        });
        opened.expect("from the dialler");
        let (opened, _far) = tokio::join!(par.links.open_control(&to_aws, &bgp), async {
            let incoming = aws.reserved.recv().await.expect("a stream");
            incoming.accept().expect("accepted")
        });
        opened.expect("from the acceptor");
        assert!(aws.links.open_control(&to_par, &head()).await.is_err());
        let link = Arc::clone(aws.links.table().best(&to_par).expect("a link"));
        // A service on the control connection is refused even if the peer tries.
        let mut crafted = h2(&link.control).ready().await.expect("ready");
        let (response, _send) = crafted
            .send_request(head().to_request().expect("valid"), true)
            .expect("sent");
        let response = response.await.expect("answered");
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses() {
    run(async {
        let tasks = Tasks::new("test");
        let (par, aws) = pair(&tasks).await;
        drop(par.reserved);
        let site = "par.fabric".parse().expect("a site");
        let error = aws
            .links
            .open_control(&site, &StreamHead::to("x.sealane.internal"))
            .await;
        let Err(OpenError::Refused { status, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test]
async fn crafted_heads_are_refused_and_the_link_lives() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, aws) = pair(&tasks).await;
        let site = "par.fabric".parse().expect("a site");
        let link = Arc::clone(aws.links.table().best(&site).expect("a link"));
        let good = || head().to_request().expect("valid");
        let mut twice = good();
        twice
            .headers_mut()
            .append("sealane-lb", "b/b".parse().expect("a value"));
        let mut get = good();
        *get.method_mut() = http::Method::GET;
        *get.uri_mut() = "https://cart.shop.acme/".parse().expect("a URI");
        let mut huge = good();
        let name = http::header::HeaderName::from_static("x-huge");
        huge.headers_mut()
            .insert(name, "x".repeat(9000).parse().expect("a value"));
        for (request, status) in [
            (twice, StatusCode::BAD_REQUEST),
            (get, StatusCode::METHOD_NOT_ALLOWED),
            (huge, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        ] {
            let mut opener = h2(&link.opener).ready().await.expect("ready");
            let (response, _send) = opener.send_request(request, false).expect("sent");
            assert_eq!(response.await.expect("answered").status(), status);
        }
        exchange(&aws, &mut par, "par.fabric").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_reset_and_forgotten() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, aws) = pair(&tasks).await;
        let site = "par.fabric".parse().expect("a site");
        let head = head();
        let (near, far) = tokio::join!(aws.links.open(&site, &head), async {
            service(&mut par).await.accept().expect("accepted")
        });
        let (near, mut far) = (near.expect("a stream"), far);
        let link = Arc::clone(aws.links.table().best(&site).expect("a link"));
        assert_eq!(link.streams(), 1);
        drop(near);
        assert_eq!(link.streams(), 0);
        let error = far.read_u8().await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_requests_and_not_for_control() {
    for (head, patient) in [
        (head(), true),
        (StreamHead::to("bgp.sealane.internal"), false),
    ] {
        run(async {
            let tasks = Tasks::new("test");
            let (mut par, mut aws) = pair(&tasks).await;
            let site = "par.fabric".parse().expect("a site");
            let (near, far) = tokio::join!(aws.links.open(&site, &head), async {
                let incoming = tokio::select! {
                    incoming = par.services.recv() => incoming,
                    incoming = par.reserved.recv() => incoming,
                };
                incoming.expect("a stream").accept().expect("accepted")
            });
            let streams = (near.expect("a stream"), far);
            // Without its control handle a tunnel drains.
            drop(aws.control);
            let ended = async {
                loop {
                    match aws.events.recv().await {
                        Some(LinkEvent::Down { .. }) | None => return,
                        Some(LinkEvent::Up { .. } | LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. }) => {}
                    }
                }
            };
            let early = tokio::time::timeout(Duration::from_secs(1), ended).await;
            assert_eq!(early.is_err(), patient, "{}", head.authority);
            if patient {
                let back = "aws.acme".parse().expect("a site");
                let refused = par.links.open(&back, &head).await;
                assert!(
                    matches!(&refused, Err(OpenError::Refused { status, .. }) if *status == StatusCode::SERVICE_UNAVAILABLE),
                    "{refused:?}"
                );
            }
            drop(streams);
            assert_eq!(down(&mut par).await, DownReason::Closed);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_link_replaces_the_older() {
    run(async {
        let tasks = Tasks::new("test");
        let (mut par, mut aws) = pair(&tasks).await;
        let (near, far) = Pipes::in_memory();
        aws.control
            .attach(identity("par.fabric"), Side::Dialler, near)
            .await
            .expect("attached");
        par.control
            .attach(identity("aws.acme"), Side::Acceptor, far)
            .await
            .expect("attached");
        up(&mut aws).await;
        let reason = down(&mut aws).await;
        assert!(
            matches!(reason, DownReason::Replaced | DownReason::Closed),
            "{reason:?}"
        );
        exchange(&aws, &mut par, "par.fabric").await;
        assert_eq!(aws.links.table().links().count(), 1);
    })
    .await;
}

/// A pipe that falls silent on demand without closing: neither side hears the other.
struct Stalling(BoxPipe, Arc<AtomicBool>);

impl Pipe for Stalling {
    fn waits(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_within_three_intervals() {
    run(async {
        let tasks = Tasks::new("test");
        let silent = Arc::new(AtomicBool::new(false));
        let stalling = |pipe| Box::new(Stalling(pipe, Arc::clone(&silent))) as BoxPipe;
        let (near, far) = Pipes::in_memory();
        let near = Pipes {
            control: stalling(near.control),
            forward: stalling(near.forward),
            reverse: stalling(near.reverse),
        };
        let (mut par, mut aws) = attached(&tasks, near, far).await;
        let site = "par.fabric".parse().expect("a site");
        let head = head();
        let (near, _far) = tokio::join!(aws.links.open(&site, &head), async {
            service(&mut par).await.accept().expect("accepted")
        });
        let mut near = near.expect("a stream");
        // Idle, the link lives on pings alone.
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(aws.links.table().reaches(&site));
        let quality = aws.links.table().best(&site).expect("a link").quality();
        assert!(quality.expect("measured").samples >= 20, "{quality:?}");
        let doubted = || {
            let table = aws.links.table();
            table.best(&site).is_some_and(|link| link.is_doubted())
        };
        assert!(!doubted());
        silent.store(true, Ordering::Relaxed);
        let since = runtime::now();
        // It carries a stream, so it is looked at often.
        while !doubted() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = runtime::now().since(since);
        assert!(took <= Duration::from_millis(360), "{took:?}");
        assert_eq!(down(&mut aws).await, DownReason::Silent);
        let took = runtime::now().since(since);
        assert!(
            took > Duration::from_millis(500) && took <= Duration::from_millis(910),
            "{took:?}"
        );
        assert!(!aws.links.table().reaches(&site));
        assert!(near.read_u8().await.is_err(), "its streams end with it");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_silent_connection_ends_the_link_later() {
    run(async {
        let tasks = Tasks::new("test");
        let silent = Arc::new(AtomicBool::new(false));
        let (near, far) = Pipes::in_memory();
        let near = Pipes {
            reverse: Box::new(Stalling(near.reverse, Arc::clone(&silent))),
            ..near
        };
        let (_par, mut aws) = attached(&tasks, near, far).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        silent.store(true, Ordering::Relaxed);
        let since = runtime::now();
        assert_eq!(down(&mut aws).await, DownReason::Silent);
        let took = runtime::now().since(since);
        assert!(
            took > Duration::from_millis(2_400) && took <= Duration::from_millis(3_910),
            "{took:?}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_closed_pipe_ends_the_link_at_once() {
    run(async {
        let tasks = Tasks::new("test");
        let (near, far) = Pipes::in_memory();
        let (mut par, mut aws) = (local(&tasks), local(&tasks));
        aws.control
            .attach(identity("par.fabric"), Side::Dialler, near)
            .await
            .expect("attached");
        par.control
            .attach(identity("aws.acme"), Side::Acceptor, far)
            .await
            .expect("attached");
        up(&mut aws).await;
        up(&mut par).await;
        let began = runtime::now();
        // The other side vanishes: its control handle is gone, so it drains; no stream is left.
        drop(par);
        let reason = down(&mut aws).await;
        assert_eq!(reason, DownReason::Closed);
        assert!(runtime::now().since(began) < Duration::from_millis(100));
    })
    .await;
}
