//! TLS that is ended by others.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use balance::{Health::Healthy, empty_cell};
use l7::{Limits, Passed, Protocol};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    layer4::{connect, expect, layer4, rest, stand_here},
    world::{Manner, PATIENCE, Spot, World, cluster, message, plain},
};
use crate::Snapshot;

/// An endpoint with a key of its own for `vault.acme.example`: says hello, and echoes.
async fn vault() -> (
    std::net::SocketAddr,
    CertificateDer<'static>,
    runtime::Tasks,
) {
    let made = rcgen::generate_simple_self_signed(vec!["vault.acme.example".to_owned()])
        .expect("a certificate");
    let der = made.cert.der().clone();
    let credentials = runtime::tls::Credentials {
        chain: vec![der.clone()],
        key: PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
    };
    let config = runtime::tls::server(&credentials, &[b"h2"]).expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("vault");
    let acceptor = TlsAcceptor::from(config);
    tasks.spawn("accept", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let _ = stream.write_all(b"hello").await;
            let mut piece = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                let _ = stream.write_all(&piece[..count]).await;
            }
            let _ = stream.shutdown().await;
        }
    });
    (address, der, tasks)
}

/// A world that passes on what is for `vault.acme.example` and below `pass.acme.example`.
async fn passing() -> (World, CertificateDer<'static>, runtime::Tasks) {
    passing_by(Limits::default()).await
}

async fn passing_by(limits: Limits) -> (World, CertificateDer<'static>, runtime::Tasks) {
    let world = World::new().await;
    let (endpoint, root, tasks) = vault().await;
    let cell = empty_cell();
    stand_here(&cell, &[endpoint]);
    let to = layer4(cluster(&cell, Protocol::Tcp), limits);
    let now = world.pop.snapshot();
    let passed = Passed {
        port: 443,
        hosts: vec!["vault.acme.example".into(), "*.pass.acme.example".into()],
        to,
    };
    let table = plain(&world.ingress_cell, now.limits);
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table.with_passed(vec![passed]).expect("no conflict")),
        ..Snapshot::clone(&now)
    }));
    (world, root, tasks)
}

/// Writes octet by octet.
struct Drip(TcpStream);

impl AsyncRead for Drip {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Drip {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let one = buf.len().min(1);
        Pin::new(&mut self.0).poll_write(cx, &buf[..one])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn connector(root: &CertificateDer<'static>, alpn: &[&[u8]]) -> TlsConnector {
    let root = std::slice::from_ref(root);
    TlsConnector::from(runtime::tls::client(root, alpn).expect("a client"))
}

#[tokio::test]
async fn the_server_name_says_who_ends_tls() {
    let (world, root, _tasks) = passing().await;
    let name = || "vault.acme.example".try_into().expect("a name");
    // The client sees the endpoint's own certificate and protocol, and nobody reads along.
    let tcp = Drip(connect(world.https).await);
    let connecting = connector(&root, &[b"http/1.1", b"h2"]).connect(name(), tcp);
    let mut stream = timeout(PATIENCE, connecting)
        .await
        .expect("in time")
        .expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut seen = [0; 10];
    stream.write_all(b"there").await.expect("written");
    stream.flush().await.expect("written");
    let read = timeout(PATIENCE, stream.read_exact(&mut seen)).await;
    read.expect("in time").expect("read");
    assert_eq!(&seen, b"hellothere");
    stream.shutdown().await.expect("ended");
    let read = timeout(PATIENCE, stream.read(&mut seen)).await;
    assert_eq!(read.expect("in time").expect("an end"), 0);
    // On the same port, another name's TLS ends here.
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let tcp = Drip(connect(world.https).await);
    let name = "cart.acme.example".try_into().expect("a name");
    let connecting = connector(&world.root, &[b"http/1.1"]).connect(name, tcp);
    let mut stream = timeout(PATIENCE, connecting)
        .await
        .expect("in time")
        .expect("TLS");
    let request = b"GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    stream.flush().await.expect("written");
    let response = message(&mut stream, &mut Vec::new())
        .await
        .expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // A host that is passed on is nobody's for requests that were read here.
    let request = b"GET / HTTP/1.1\r\nHost: vault.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    stream.flush().await.expect("written");
    let response = message(&mut stream, &mut Vec::new())
        .await
        .expect("a response");
    assert!(response.starts_with("HTTP/1.1 421 "), "{response}");
}

#[tokio::test]
async fn a_name_that_is_withdrawn_takes_its_connections_along() {
    let (world, root, _tasks) = passing_by(Limits {
        drain_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let open = async |name: &'static str| {
        let name = name.try_into().expect("a name");
        let tcp = connect(world.https).await;
        let connecting = connector(&root, &[]).connect(name, tcp);
        timeout(PATIENCE, connecting)
            .await
            .expect("in time")
            .expect("TLS")
    };
    let mut stream = open("vault.acme.example").await;
    let mut seen = [0; 5];
    let read = timeout(PATIENCE, stream.read_exact(&mut seen)).await;
    read.expect("in time").expect("read");
    assert_eq!(&seen, b"hello");
    let now = world.pop.snapshot();
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(plain(&world.ingress_cell, now.limits)),
        ..Snapshot::clone(&now)
    }));
    world.pop.set_listeners(&[]).await;
    let read = timeout(PATIENCE, stream.read_exact(&mut seen)).await;
    let ended = read.expect("in time").expect_err("an end");
    assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn names_that_nobody_has_are_refused_in_tls() {
    let (world, root, _tasks) = passing().await;
    for name in ["other.acme.example", "pass.acme.example", "127.0.0.1"] {
        let tcp = connect(world.https).await;
        let name = name.try_into().expect("a name");
        let connecting = connector(&root, &[]).connect(name, tcp);
        let error = timeout(PATIENCE, connecting).await.expect("in time");
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("UnrecognisedName"), "{error}");
    }
    // Below the wildcard the endpoint answers, whose certificate is for another name.
    let tcp = connect(world.https).await;
    let name = "a.pass.acme.example".try_into().expect("a name");
    let connecting = connector(&root, &[]).connect(name, tcp);
    let error = timeout(PATIENCE, connecting).await.expect("in time");
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn what_is_not_tls_is_not_passed_on() {
    let (world, _root, _tasks) = passing().await;
    let mut stream = connect(world.https).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("written");
    let ended = rest(&mut stream).await;
    assert!(matches!(ended, Err(_) | Ok(_)), "no answer");
    assert!(ended.is_err() || ended == Ok(Vec::new()));
    // A malformed ClientHello is told so.
    let mut stream = connect(world.https).await;
    let hello = [22, 3, 1, 0, 5, 1, 0, 0, 1, 0];
    stream.write_all(&hello).await.expect("written");
    expect(&mut stream, &[21, 3, 3, 0, 2, 2, 50]).await;
}
