//! §10.5: work without end. Each flood ends its own connection and nothing else: the good client
//! beside it sees no failure.

use std::future::Future;

use balance::Health::Healthy;
use l7::Limits;
use tokio::time::timeout;

use super::wire::*;
use crate::tests::world::{Manner, PATIENCE, Spot, World};

/// So much of a flood is far more than anybody is allowed.
const MUCH: usize = 64 << 20;

/// Say this again and again until the connection ends; the code with which it did, if that was
/// heard. Somebody good asks for something all the while.
async fn flood(world: &World, begin: &[u8], again: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let bad = async {
        let mut peer = Peer::new(world, &[]).await;
        peer.send(begin).await;
        pour(peer, again).await
    };
    beside(world, bad).await
}

/// Octets and frames both ways at once, so that nobody waits for the other.
async fn pour(peer: Peer, mut again: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    use tokio::io::AsyncWriteExt;
    let (read, mut write) = peer.stream.into_split();
    let said = async {
        let mut octets = 0;
        for turn in 0u32.. {
            let mut piece = Vec::new();
            while piece.len() < 16 << 10 {
                piece.extend(again(turn));
            }
            octets += piece.len();
            assert!(octets < MUCH, "nobody minds");
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    let heard = async {
        use tokio::io::AsyncReadExt;
        let (mut read, mut all) = (read, Vec::new());
        while let Ok(1..) = read.read_buf(&mut all).await {}
        all
    };
    let (all, ()) = timeout(PATIENCE, async { tokio::join!(heard, said) })
        .await
        .expect("in time");
    code(&all)
}

/// The code of the last GOAWAY in these frames.
fn code(mut octets: &[u8]) -> Option<u32> {
    let mut said = None;
    while let Some(head) = octets.get(..9) {
        let length = (word(&head[..4]) >> 8) as usize;
        let payload = octets.get(9..9 + length)?;
        if head[3] == GOAWAY {
            said = Some(word(&payload[4..8]));
        }
        octets = &octets[9 + length..];
    }
    said
}

/// What `bad` comes to, while all that somebody good asks is answered.
async fn beside<T>(world: &World, bad: impl Future<Output = T>) -> T {
    let mut good = Peer::new(world, &[]).await;
    let mut bad = std::pin::pin!(bad);
    let mut answered = 0;
    loop {
        tokio::select! {
            biased;
            alive = async { good.is_alive(1 + 2 * answered).await } => {
                assert!(alive, "the good one suffers after {answered} answers");
                answered += 1;
            }
            ended = &mut bad => {
                // What it asked last may be on its way.
                assert!(good.is_alive(3 + 2 * answered).await);
                assert!(Peer::new(world, &[]).await.is_alive(1).await);
                return ended;
            }
        }
    }
}

/// Floods end with ENHANCE_YOUR_CALM, or are cut before that could be heard.
fn calm(ended: Option<u32>) {
    assert!(
        matches!(ended, Some(ENHANCE_YOUR_CALM) | None),
        "it ended with {ended:?}"
    );
}

#[tokio::test]
async fn s10_5_a_flood_of_pings() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| frame(PING, 0, 0, [7; 8])).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_acknowledgements() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| frame(PING, ACK, 0, [7; 8])).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_settings() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| settings(&[(INITIAL_WINDOW_SIZE, 7)])).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_empty_settings() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| settings(&[])).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_priorities() {
    let (world, _recorder) = world(Limits::default()).await;
    let again = |turn| frame(PRIORITY, 0, 1 + 2 * (turn % 9999), [0, 0, 0, 0, 1]);
    calm(flood(&world, &[], again).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_window_updates() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| window_update(0, 1)).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_window_updates_on_a_stream() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &post(1), |_| window_update(1, 1)).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_unknown_frames() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &[], |_| frame(0xBB, 0, 0, [])).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_goaways() {
    let (world, _recorder) = world(Limits::default()).await;
    // It is an end in order if nothing runs.
    let ended = flood(&world, &post(1), |_| goaway(0, NO_ERROR)).await;
    assert!(ended == Some(NO_ERROR) || ended == Some(ENHANCE_YOUR_CALM) || ended.is_none());
}

#[tokio::test]
async fn s10_5_a_flood_of_empty_data() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &post(1), |_| data(1, 0, b"")).await);
}

#[tokio::test]
async fn s10_5_a_flood_of_data_that_is_nothing_but_padding() {
    let (world, _recorder) = world(Limits::default()).await;
    calm(flood(&world, &post(1), |_| data(1, PADDED, &[0])).await);
}

/// CVE-2024-24549 and its like: a block that never ends.
#[tokio::test]
async fn s10_5_a_flood_of_continuations() {
    let (world, _recorder) = world(Limits::default()).await;
    let begin = frame(HEADERS, END_STREAM, 1, with("GET", &[]));
    let again = |_| frame(CONTINUATION, 0, 1, block(&[("x-a", "1")]));
    calm(flood(&world, &begin, again).await);
    calm(flood(&world, &begin, |_| frame(CONTINUATION, 0, 1, [])).await);
    let long = block(&[("x-a", "y".repeat(8000))]);
    calm(flood(&world, &begin, |_| frame(CONTINUATION, 0, 1, &*long)).await);
}

/// A small block that says much: a long field is put into the table and named again and again.
#[tokio::test]
async fn s10_5_a_block_that_is_much_longer_than_it_looks() {
    let (world, recorder) = world(Limits::default()).await;
    let long = "y".repeat(3800);
    let mut first = vec![0x40, 3];
    first.extend(b"x-a");
    first.extend([0x7F, 0xD9, 0x1C]);
    first.extend(long.as_bytes());
    let begin = frame(HEADERS, WHOLE, 1, [with("GET", &[]), first].concat());
    let bomb = [with("GET", &[]), vec![0xBE; 12_000]].concat();
    let mut stream = 1;
    let ended = flood(&world, &begin, |_| {
        stream += 2;
        frame(HEADERS, WHOLE, stream, &*bomb)
    })
    .await;
    calm(ended);
    assert!(!recorder.take().0.is_empty());
}

/// CVE-2023-44487: requests that are taken back at once.
#[tokio::test]
async fn s10_5_rapid_resets() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut stream = 1;
    let ended = flood(&world, &[], |_| {
        stream += 2;
        [get(stream), reset(stream, CANCEL)].concat()
    })
    .await;
    calm(ended);
}

/// The same, slow enough for each request to be begun before it is taken back.
#[tokio::test]
async fn s10_5_resets_of_requests_that_run() {
    let world = World::new().await;
    let mut spot = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut peer = Peer::new(&world, &[]).await;
    let ended = async {
        for batch in 0u32.. {
            let streams = (0..50).map(|nth| 1 + 2 * (50 * batch + nth));
            peer.send(&streams.clone().flat_map(get).collect::<Vec<_>>())
                .await;
            for _ in streams.clone() {
                tokio::select! {
                    _ = spot.arrived.recv() => {}
                    frame = peer.until(0, &[GOAWAY]) => {
                        return frame.map(|frame| word(&frame.payload[4..8]));
                    }
                }
            }
            let resets = streams.flat_map(|stream| reset(stream, CANCEL));
            peer.send(&resets.collect::<Vec<_>>()).await;
        }
        None
    };
    calm(timeout(PATIENCE, ended).await.expect("in time"));
    // Whoever resets fifty of them does no harm.
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&(0..50).flat_map(|nth| get(1 + 2 * nth)).collect::<Vec<_>>())
        .await;
    for _ in 0..50 {
        spot.arrived.recv().await.expect("a request");
    }
    let resets = (0..50).flat_map(|nth| reset(1 + 2 * nth, CANCEL));
    peer.send(&resets.collect::<Vec<_>>()).await;
    peer.send(&frame(PING, 0, 0, [7; 8])).await;
    let pong = peer.until(0, &[PING, GOAWAY]).await.expect("a frame");
    assert_eq!(pong.kind, PING);
}

/// CVE-2025-8671: the server is made to reset, by what is malformed.
#[tokio::test]
async fn s10_5_made_to_reset() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut stream = 1;
    let malformed = |stream| {
        let block = with("GET", &[("connection", "close")]);
        frame(HEADERS, WHOLE, stream, block)
    };
    let ended = flood(&world, &[], |_| {
        stream += 2;
        malformed(stream)
    })
    .await;
    calm(ended);
    let mut stream = 1;
    let ended = flood(&world, &[], |_| {
        stream += 2;
        [post(stream), window_update(stream, (1 << 31) - 1)].concat()
    })
    .await;
    calm(ended);
}

/// CVE-2019-9511: windows of an octet, opened one by one.
#[tokio::test]
async fn s10_5_responses_taken_octet_by_octet() {
    let (world, _recorder) = world(Limits::default()).await;
    let bad = async {
        let mut peer = Peer::new(&world, &[(INITIAL_WINDOW_SIZE, 1)]).await;
        let asked = (0..100).flat_map(|nth| get(1 + 2 * nth));
        peer.send(&asked.collect::<Vec<_>>()).await;
        loop {
            let mut more = Vec::new();
            while more.len() < 100 * 13 {
                let frame = peer.next().await?;
                match frame.kind {
                    GOAWAY => return Some(word(&frame.payload[4..8])),
                    DATA if frame.flags & END_STREAM != 0 => panic!("nobody minds"),
                    DATA => more.extend(window_update(frame.stream, 1)),
                    _ => {}
                }
            }
            peer.send(&more).await;
        }
    };
    calm(
        beside(&world, async {
            timeout(PATIENCE, bad).await.expect("in time")
        })
        .await,
    );
}

/// A client that asks much and reads nothing costs a bounded number of octets, and after a while
/// its connection.
#[tokio::test]
async fn s10_5_a_client_that_never_reads() {
    let limits = Limits {
        idle_timeout: std::time::Duration::from_secs(1),
        ..Limits::default()
    };
    let (world, _recorder) = world(limits).await;
    let bad = async {
        let peer = Peer::new(&world, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let asked: Vec<u8> = (0..100).flat_map(|nth| get(1 + 2 * nth)).collect();
        let mut peer = peer;
        peer.send(&asked).await;
        // All are reset or the connection ends when nothing has moved for so long.
        let mut over = 0;
        while over < 100 {
            match peer.next().await {
                Some(frame) if frame.kind == RST_STREAM => over += 1,
                Some(_) => {}
                None => break,
            }
        }
    };
    beside(&world, async {
        timeout(PATIENCE, bad).await.expect("in time")
    })
    .await;
}
