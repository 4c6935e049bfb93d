//! A spare connection by itself, with somebody else at its other end.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{ErrorKind, IoSlice},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BufMut;
use runtime::{Tasks, metrics::Metrics, tls};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    super::{
        frame::{Kind, MAX_CHUNK},
        mux::Mux,
        spare::{Shelf, Spare},
    },
    machine::octets,
};
use crate::{
    flow::Flow,
    link::Side,
    metrics::TunnelMetrics,
    socket::Socket,
    tests::support::{BOUND, Fabric, identity, root, run},
    transport::Keys,
};

/// Both ends of a connection of TLS.
async fn pair() -> (TlsStream<Socket>, TlsStream<Socket>) {
    let fabric = Fabric::new();
    let credentials = fabric.credentials(&identity("par.fabric"), runtime::wall());
    let roots = [root(&fabric)];
    let server = tls::fabric_server(&credentials, &roots, &[b"x"]).expect("a configuration");
    let client = tls::fabric_client(&credentials, &roots, &[b"x"]).expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(
        async {
            let tcp = TcpStream::connect(address).await.expect("connected");
            let name = ServerName::IpAddress(address.ip().into());
            let connector = TlsConnector::from(client);
            connector
                .connect(name, Socket::new(tcp))
                .await
                .expect("TLS")
        },
        async {
            let (tcp, _) = listener.accept().await.expect("accepted");
            let acceptor = TlsAcceptor::from(server);
            acceptor.accept(Socket::new(tcp)).await.expect("TLS")
        }
    );
    (near.into(), far.into())
}

/// A spare connection from which a stream is to be read, and its other end.
async fn read_from() -> (Rc<RefCell<Mux>>, Rc<Spare>, TlsStream<Socket>) {
    let (near, far) = pair().await;
    let mut mux = Mux::new(Side::Acceptor);
    assert!(mux.spare_comes(7));
    let aside = [(Kind::Open, 1, &b"h"[..]), (Kind::Aside, 1, &[0, 7])];
    mux.receive(&mut octets(&aside)).expect("no violation");
    let metrics = TunnelMetrics::declare(&Metrics::default());
    let keys = Keys::new(&metrics.rekeys, "spare");
    let flow = Flow::new(Arc::default());
    let spare = Spare::new(7, Rc::new(Shelf::default()), Box::new(near), keys, flow);
    (Rc::new(RefCell::new(mux)), spare, far)
}

/// What is read until the stream is home, or it breaks.
async fn read(mux: &RefCell<Mux>, spare: &Spare) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    let reads = poll_fn(|cx| {
        loop {
            let mut room = [0; 1000];
            let mut buf = ReadBuf::new(&mut room);
            match spare.poll_read(&mut buf) {
                Poll::Ready(Ok(home)) => {
                    all.extend_from_slice(buf.filled());
                    if home {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.kind())),
                Poll::Pending => {
                    mux.borrow_mut().wait_to_read(1, cx);
                    return Poll::Pending;
                }
            }
        }
    });
    let read = tokio::select! {
        read = reads => read,
        ran = spare.run(mux) => Err(ran.expect_err("its stream is read").kind()),
    };
    read.map(|()| all)
}

#[tokio::test]
async fn chunks_are_taken_in_whatever_pieces_they_come() {
    run(async {
        let (mux, spare, mut far) = read_from().await;
        let mut sent = Vec::new();
        for piece in [&b"one"[..], b"two and three"] {
            sent.put_u32(u32::try_from(piece.len()).expect("short"));
            sent.put_slice(piece);
        }
        sent.put_u32(0);
        let says = async {
            for octet in sent {
                far.write_all(&[octet]).await.expect("written");
                far.flush().await.expect("sent");
                tokio::task::yield_now().await;
            }
        };
        let (read, ()) = tokio::join!(read(&mux, &spare), says);
        assert_eq!(read, Ok(b"onetwo and three".to_vec()));
    })
    .await;
}

#[tokio::test]
async fn what_is_no_chunk_or_ends_within_one_breaks_the_connection() {
    let most = u32::try_from(MAX_CHUNK).expect("short");
    for (length, found) in [
        (most + 1, ErrorKind::InvalidData),
        (u32::MAX, ErrorKind::InvalidData),
        (most, ErrorKind::UnexpectedEof),
    ] {
        run(async {
            let (mux, spare, mut far) = read_from().await;
            let says = async {
                far.write_u32(length).await.expect("written");
                far.write_all(b"octets").await.expect("written");
                far.shutdown().await.expect("ended");
            };
            let (read, ()) = tokio::join!(read(&mux, &spare), says);
            assert_eq!(read, Err(found), "{length}");
        })
        .await;
    }
}

#[tokio::test]
async fn who_sends_on_one_that_nobody_reads_is_held_up() {
    run(async {
        let (_, spare, mut far) = read_from().await;
        // Nothing goes over it as far as is known here.
        let mut mux = Mux::new(Side::Acceptor);
        assert!(mux.spare_comes(7));
        let mux = RefCell::new(mux);
        let sent = std::cell::Cell::new(0);
        let says = async {
            loop {
                far.write_all(&[0; 65_536]).await.expect("written");
                sent.set(sent.get() + 65_536);
            }
        };
        let still = async {
            let mut before = usize::MAX;
            while std::mem::replace(&mut before, sent.get()) != sent.get() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::select! {
            () = says => {}
            ran = spare.run(&mux) => panic!("{ran:?}"),
            () = still => {}
        }
        assert!(sent.get() < 64 << 20, "{}", sent.get());
    })
    .await;
}

#[tokio::test]
async fn a_chunk_is_written_whole_or_not_at_all() {
    run(async {
        let (mux, spare, mut far) = read_from().await;
        let pieces: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; 5000]).collect();
        let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let (mut written, mut chunks) = (0, Vec::new());
        // As long as something goes; nobody reads.
        while let Poll::Ready(count) = spare.poll_write(&pieces) {
            let count = count.expect("open");
            assert!((1..=MAX_CHUNK).contains(&count));
            written += count;
            chunks.push(count);
        }
        let serves = spare.run(&mux);
        let reads = async {
            for count in &chunks {
                let length = far.read_u32().await.expect("a chunk");
                assert_eq!(usize::try_from(length), Ok(*count));
                let mut octets = vec![0; *count];
                far.read_exact(&mut octets).await.expect("all of it");
                let right = (0..)
                    .zip(&octets)
                    .all(|(at, octet)| usize::from(*octet) == at / 5000);
                assert!(right);
            }
        };
        tokio::select! {
            ran = serves => panic!("{ran:?}"),
            read = tokio::time::timeout(BOUND, reads) => read.expect("in time"),
        }
        assert!(written > 0);
    })
    .await;
}

#[tokio::test]
async fn one_on_which_nothing_goes_any_more_is_still_listened_to() {
    for waste in [false, true] {
        run(async {
            let (mux, spare, mut far) = read_from().await;
            if waste {
                mux.borrow_mut().release(1);
            }
            let says = async {
                far.write_u32(0).await.expect("written");
                far.flush().await.expect("sent");
                // Until that was taken in.
                tokio::time::sleep(Duration::from_millis(100)).await;
                far.shutdown().await.expect("ended");
            };
            // In a task of its own, which nothing else wakes.
            let (told, ran) = tokio::sync::oneshot::channel();
            Tasks::new("test").spawn_local("spare", async move {
                let _ = told.send(spare.run(&mux).await);
            });
            says.await;
            let ran = ran.await.expect("it ends").expect_err("it is closed");
            assert_eq!(ran.kind(), ErrorKind::UnexpectedEof);
        })
        .await;
    }
}
