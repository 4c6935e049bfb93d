//! What RFC 9114, RFC 9204 and RFC 9220 forbid, section by section.

use balance::Health::Healthy;
use tokio::time::timeout;

use super::talker::{CANCELLED, HOST, SETTINGS, Talker, config, endpoint, head, raw, section};
use crate::tests::world::{Manner, PATIENCE, Spot, World};

const MESSAGE_ERROR: u64 = 0x10e;

/// Each is answered with 400, never forwarded, and the connection serves on.
async fn refused(cases: &[Vec<u8>]) {
    let (world, spot) = world().await;
    let talker = Talker::new(&world, world.quic().await).await;
    for (nth, case) in cases.iter().enumerate() {
        let reply = talker.ask(case).await.expect("a reply");
        assert_eq!(reply.status, "400", "case {nth}");
    }
    assert_eq!(spot.served(), 0);
    assert_eq!(talker.get("/").await.status, "200");
}

async fn world() -> (World, Spot) {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    (world, spot)
}

/// Each is reset, never forwarded, and the connection serves on.
async fn malformed(cases: &[Vec<u8>]) {
    let (world, spot) = world().await;
    let talker = Talker::new(&world, world.quic().await).await;
    for (nth, case) in cases.iter().enumerate() {
        assert_eq!(talker.reset(case).await, MESSAGE_ERROR, "case {nth}");
    }
    assert_eq!(spot.served(), 0);
    assert_eq!(talker.get("/").await.status, "200");
}

/// What is said on a request stream ends the connection with this code.
async fn ends(cases: &[(u64, Vec<u8>)]) {
    let (world, spot) = world().await;
    let to = world.quic().await;
    for (nth, (code, case)) in cases.iter().enumerate() {
        let talker = Talker::new(&world, to).await;
        let (mut send, _recv) = talker.say(case).await;
        let _ = send.finish();
        assert_eq!(talker.closed().await, *code, "case {nth}");
    }
    assert_eq!(spot.served(), 0);
}

fn of(fields: &[(&str, &str)]) -> Vec<u8> {
    raw(1, &section(fields))
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "https");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/");

#[tokio::test]
async fn rfc9114_4_1_2_a_body_is_as_long_as_it_says() {
    let (world, _spot) = world().await;
    let talker = Talker::new(&world, world.quic().await).await;
    let post = |length: &str| head("POST", "/", &[("content-length", length)]);
    for (nth, case) in [
        post("4"),
        [post("4"), raw(0, b"abc")].concat(),
        [post("2"), raw(0, b"abc")].concat(),
        [post("0"), raw(0, b"a")].concat(),
        post("x"),
        post("+1"),
        post(""),
        [
            head(
                "POST",
                "/",
                &[("content-length", "1"), ("content-length", "2")],
            ),
            raw(0, b"a"),
        ]
        .concat(),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(talker.reset(case).await, MESSAGE_ERROR, "case {nth}");
    }
    let same = [("content-length", "1"), ("content-length", "1")];
    let twice = [head("POST", "/", &same), raw(0, b"a")].concat();
    assert_eq!(talker.ask(&twice).await.expect("a reply").status, "200");
}

#[tokio::test]
async fn rfc9114_4_2_fields() {
    let bad = |name: &str, value: &str| head("GET", "/", &[(name, value)]);
    malformed(&[
        bad("X-Upper", "1"),
        bad("x y", "1"),
        bad("", "1"),
        bad("x-a", "a\r\nb: c"),
        bad("x-a", "a\0"),
        bad("connection", "close"),
        bad("keep-alive", "1"),
        bad("proxy-connection", "1"),
        bad("transfer-encoding", "chunked"),
        bad("upgrade", "websocket"),
        bad("te", "gzip"),
    ])
    .await;
}

#[tokio::test]
async fn rfc9114_4_3_pseudo_header_fields() {
    malformed(&[
        of(&[METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH]),
        of(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]),
        of(&[METHOD, SCHEME, AUTHORITY, PATH, PATH]),
        of(&[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH]),
        of(&[METHOD, SCHEME, AUTHORITY, PATH, (":status", "200")]),
        of(&[METHOD, SCHEME, AUTHORITY, PATH, (":other", "1")]),
        of(&[SCHEME, AUTHORITY, PATH]),
        of(&[METHOD, AUTHORITY, PATH]),
        of(&[METHOD, SCHEME, AUTHORITY]),
        of(&[METHOD, SCHEME, AUTHORITY, (":path", "")]),
        of(&[METHOD, SCHEME, AUTHORITY, (":path", "a")]),
        of(&[METHOD, SCHEME, AUTHORITY, (":path", "/a b")]),
        of(&[(":method", "G T"), SCHEME, AUTHORITY, PATH]),
        of(&[METHOD, SCHEME, (":authority", "a b"), PATH]),
        of(&[]),
    ])
    .await;
    refused(&[
        of(&[METHOD, SCHEME, AUTHORITY, (":path", "*")]),
        of(&[METHOD, SCHEME, PATH]),
        of(&[METHOD, SCHEME, AUTHORITY, PATH, ("host", "other.example")]),
        of(&[METHOD, SCHEME, PATH, ("host", HOST), ("host", HOST)]),
    ])
    .await;
}

#[tokio::test]
async fn rfc9114_4_3_trailers_have_no_pseudo_header_fields() {
    let (world, _spot) = world().await;
    let talker = Talker::new(&world, world.quic().await).await;
    for fields in [&[(":path", "/")][..], &[("X-Upper", "1")]] {
        let case = [head("POST", "/", &[]), raw(0, b"a"), of(fields)].concat();
        assert_eq!(talker.reset(&case).await, MESSAGE_ERROR);
    }
}

#[tokio::test]
async fn rfc9114_4_4_connect() {
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    malformed(&[
        of(&[CONNECT, SCHEME, AUTHORITY, PATH]),
        of(&[CONNECT, AUTHORITY, PATH]),
        // RFC 9220, RFC 8441 §4.
        of(&[CONNECT, (":protocol", "websocket"), AUTHORITY]),
        of(&[METHOD, (":protocol", "websocket"), SCHEME, AUTHORITY, PATH]),
    ])
    .await;
    refused(&[of(&[CONNECT])]).await;
}

#[tokio::test]
async fn rfc9114_4_1_the_order_of_frames() {
    const UNEXPECTED: u64 = 0x105;
    let get = head("GET", "/", &[]);
    let trailers = of(&[("x-a", "1")]);
    ends(&[
        (UNEXPECTED, raw(0, b"a")),
        (UNEXPECTED, raw(4, &[])),
        (UNEXPECTED, raw(7, &[0])),
        (UNEXPECTED, raw(0xd, &[0])),
        (UNEXPECTED, raw(3, &[0])),
        (UNEXPECTED, raw(5, &[0])),
        // RFC 9114 §7.2.8: those of HTTP/2.
        (UNEXPECTED, raw(2, &[0; 5])),
        (UNEXPECTED, raw(6, &[0; 8])),
        (UNEXPECTED, raw(8, &[0; 4])),
        (UNEXPECTED, raw(9, &[])),
        // RFC 9114 §7.1: a frame that is cut off.
        (0x106, get[..get.len() - 1].to_vec()),
        (0x106, vec![1]),
        (0x106, [&raw(0x21, &[7; 9])[..5]].concat()),
    ])
    .await;
    let (world, _spot) = world().await;
    let to = world.quic().await;
    for after in [trailers.clone(), raw(0, b"a")] {
        let talker = Talker::new(&world, to).await;
        let case = [&head("POST", "/", &[])[..], &trailers, &after].concat();
        let (_send, _recv) = talker.say(&case).await;
        assert_eq!(talker.closed().await, UNEXPECTED);
    }
}

#[tokio::test]
async fn rfc9114_4_1_a_request_without_a_head_is_incomplete() {
    let (world, _spot) = world().await;
    let talker = Talker::new(&world, world.quic().await).await;
    for case in [vec![], raw(0x21, b"unknown")] {
        assert_eq!(talker.reset(&case).await, 0x10d);
    }
}

#[tokio::test]
async fn rfc9114_6_2_1_the_control_stream() {
    let (world, _spot) = world().await;
    let to = world.quic().await;
    let with = |frames: &[Vec<u8>]| [SETTINGS, &frames.concat()].concat();
    for (nth, (code, opening)) in [
        // RFC 9114 §6.2.1, §7.2.4.
        (0x10a, [&[0][..], &raw(7, &[0])].concat()),
        (0x105, with(&[raw(4, &[])])),
        (0x105, with(&[raw(0, b"a")])),
        (0x105, with(&[raw(1, b"a")])),
        (0x105, with(&[raw(5, &[0])])),
        (0x105, with(&[raw(6, &[0; 8])])),
        (0x106, with(&[raw(7, &[])])),
        (0x106, with(&[raw(7, &[0, 0])])),
        // RFC 9114 §5.2, §7.2.3, §7.2.7.
        (0x108, with(&[raw(7, &[1]), raw(7, &[2])])),
        (0x108, with(&[raw(0xd, &[2]), raw(0xd, &[1])])),
        (0x108, with(&[raw(3, &[0])])),
        // RFC 9114 §7.2.4.1, RFC 9220.
        (0x109, [&[0][..], &raw(4, &[2, 0])].concat()),
        (0x109, [&[0][..], &raw(4, &[6, 0, 6, 0])].concat()),
        (0x109, [&[0][..], &raw(4, &[8, 2])].concat()),
        (0x106, [&[0][..], &raw(4, &[6])].concat()),
        (0x107, [&[0][..], &raw(4, &[0; 2000])].concat()),
        // RFC 9114 §6.2.2.
        (0x103, vec![1]),
        // RFC 9204 §4.3, §4.4: with no table there is nothing to say of it.
        (0x201, vec![2, 0x3f, 1]),
        (0x201, vec![2, 0xc0, 0]),
        (0x202, vec![3, 0x80]),
        (0x202, vec![3, 0x01]),
    ]
    .into_iter()
    .enumerate()
    {
        let talker = Talker::with(endpoint(), &config(&world.root), to, &opening).await;
        assert_eq!(talker.closed().await, code, "case {nth}");
    }
    // One of each, which stays open.
    for (code, octets, finish) in [(0x103, vec![0], false), (0x104, vec![2], true)] {
        let talker = Talker::new(&world, to).await;
        let mut other = talker.connection.open_uni().await.expect("a stream");
        other.write_all(&octets).await.expect("written");
        if finish {
            other.finish().expect("not over");
        }
        assert_eq!(talker.closed().await, code);
    }
}

#[tokio::test]
async fn rfc9114_9_what_is_not_known_is_passed_over() {
    let (world, _spot) = world().await;
    let reserved = [SETTINGS, &raw(0x21, &[7; 3000]), &raw(0x40, &[])].concat();
    let to = world.quic().await;
    let talker = Talker::with(endpoint(), &config(&world.root), to, &reserved).await;
    for kind in [0x21, 0x54] {
        let mut other = talker.connection.open_uni().await.expect("a stream");
        let _ = other.write_all(&[&[kind][..], &[9; 500]].concat()).await;
        let stopped = timeout(PATIENCE, other.stopped()).await.expect("in time");
        assert_eq!(
            stopped.expect("stopped").map(|c| c.into_inner()),
            Some(0x103)
        );
    }
    let mut cancels = talker.connection.open_uni().await.expect("a stream");
    cancels
        .write_all(&[3, 0x44, 0x7f, 0x80, 0x01])
        .await
        .expect("written");
    let case = [
        raw(0x21, &[7; 3000]),
        head("GET", "/", &[]),
        raw(0x40, &[1]),
    ]
    .concat();
    assert_eq!(talker.ask(&case).await.expect("a reply").status, "200");
}

#[tokio::test]
async fn rfc9204_sections_that_need_a_table() {
    ends(&[
        (0x200, raw(1, &[])),
        (0x200, raw(1, &[0])),
        (0x200, raw(1, &[2, 0, 0x80])),
        (0x200, raw(1, &[0, 0, 0x80])),
        (0x200, raw(1, &[0, 0, 0x10])),
        (0x200, raw(1, &[0, 0, 0xff, 0xff, 0xff])),
        (
            0x200,
            raw(1, &[0, 0, 0x51, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn rfc9114_10_5_floods_end_the_connection() {
    const EXCESSIVE: u64 = 0x107;
    let (world, _spot) = world().await;
    let to = world.quic().await;
    // Frames that say nothing.
    let empty = [head("POST", "/", &[]), raw(0, &[]).repeat(200)].concat();
    let talker = Talker::new(&world, to).await;
    let (_send, _recv) = talker.say(&empty).await;
    assert_eq!(talker.closed().await, EXCESSIVE);
    let flood = [SETTINGS, &raw(0x21, &[]).repeat(500)].concat();
    let talker = Talker::with(endpoint(), &config(&world.root), to, &flood).await;
    assert_eq!(talker.closed().await, EXCESSIVE);
    // Requests that are given up at once.
    let talker = Talker::new(&world, to).await;
    let get = head("GET", "/", &[]);
    let resets = async {
        loop {
            let Ok((mut send, mut recv)) = talker.connection.open_bi().await else {
                return;
            };
            let _ = send.write_all(&get).await;
            let _ = (send.reset(CANCELLED), recv.stop(CANCELLED));
        }
    };
    timeout(PATIENCE, resets).await.expect("in time");
    assert_eq!(talker.closed().await, EXCESSIVE);
    // And malformed ones.
    let talker = Talker::new(&world, to).await;
    let malformed = of(&[METHOD]);
    let flood = async {
        while let Ok((mut send, _recv)) = talker.connection.open_bi().await {
            let _ = send.write_all(&malformed).await;
        }
    };
    timeout(PATIENCE, flood).await.expect("in time");
    assert_eq!(talker.closed().await, EXCESSIVE);
}
