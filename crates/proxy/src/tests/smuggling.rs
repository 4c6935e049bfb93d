//! The corpus of `data/smuggling`, played in both directions: what clients say, to a listener and
//! to the other end of a tunnel, and what endpoints answer, to clients of both versions.

mod cases;

use balance::Health::Healthy;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use self::cases::{Case, Expect, Outcome, Said};
use super::{
    recorder::{BAD, MARK, Recorder, find},
    rfc9113::wire::{
        self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Peer, RST_STREAM, block, frame,
    },
    world::{GATEWAY, PATIENCE, World, key, site},
};
use crate::{Ask, Dial, StreamRequest};

const HOST: &str = "cart.acme.example";
/// Instead of a status: nothing came, and no end either.
const HUNG: u16 = 1;

/// A response, as a client sees it.
#[derive(Debug)]
struct Reply {
    status: u16,
    octets: Vec<u8>,
    whole: bool,
}

/// The response at the front, with `eof` if nothing more comes.
fn reply(buf: &mut Vec<u8>, bodiless: bool, eof: bool) -> Option<Reply> {
    loop {
        let end = find(buf, b"\r\n\r\n").map(|at| at + 4);
        let Some(end) = end else {
            return (eof && !buf.is_empty()).then(|| Reply {
                status: 0,
                octets: std::mem::take(buf),
                whole: false,
            });
        };
        let head = String::from_utf8_lossy(&buf[..end]).into_owned();
        let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        if (100..200).contains(&status) && status != 101 {
            buf.drain(..end);
            continue;
        }
        let length = head.split("content-length: ").nth(1);
        let length = length.and_then(|l| l.split("\r\n").next()?.parse::<usize>().ok());
        let used = if bodiless || status == 204 || status == 304 {
            Some(end)
        } else if head.contains("transfer-encoding: chunked") {
            chunked(buf, end)
        } else {
            length
                .map(|length| end + length)
                .filter(|used| *used <= buf.len())
        };
        return match used {
            Some(used) => Some(Reply {
                status,
                octets: buf.drain(..used).collect(),
                whole: true,
            }),
            None => eof.then(|| Reply {
                status,
                octets: std::mem::take(buf),
                whole: false,
            }),
        };
    }
}

fn chunked(buf: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line = find(&buf[at..], b"\r\n")?;
        let size = std::str::from_utf8(&buf[at..at + line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        at += line + 2;
        if size == 0 {
            let rest = &buf[at..];
            return if rest.starts_with(b"\r\n") {
                Some(at + 2)
            } else {
                find(rest, b"\r\n\r\n").map(|end| at + end + 4)
            };
        }
        at += size + 2;
        if at > buf.len() {
            return None;
        }
    }
}

/// One more reply; `None`: the connection has ended instead.
async fn next<S: AsyncRead + Unpin>(
    stream: &mut S,
    buf: &mut Vec<u8>,
    bodiless: bool,
) -> Option<Reply> {
    let mut eof = false;
    loop {
        if let Some(reply) = reply(buf, bodiless, eof) {
            return Some(reply);
        }
        if eof {
            return None;
        }
        let Ok(read) = timeout(PATIENCE, stream.read_buf(buf)).await else {
            return Some(Reply {
                status: HUNG,
                octets: std::mem::take(buf),
                whole: false,
            });
        };
        eof = !matches!(read, Ok(1..));
    }
}

/// Say what a client says, and see what it hears. What differs from what is expected is told.
async fn played<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    case: &Case,
    expect: &Expect,
) -> Result<(), String> {
    let (mut read, mut write) = tokio::io::split(stream);
    // The proxy may answer and close before it has read all.
    let _ = write.write_all(&case.client).await;
    if case.ends {
        let _ = write.shutdown().await;
    }
    let mut buf = Vec::new();
    let mut heard = Vec::new();
    for _ in &expect.statuses {
        let Some(reply) = next(&mut read, &mut buf, false).await else {
            return Err(format!("closed after {heard:?}"));
        };
        if find(head_of(&reply), MARK.as_bytes()).is_some() {
            return Err(format!("{MARK} in {reply:?}"));
        }
        heard.push(if reply.whole { reply.status } else { 0 });
    }
    let same = heard.iter().zip(&expect.statuses).all(|(is, should)| {
        // What the client did wrong, the ingress hears from the egress as its own fault.
        is == should || (case.by_egress && *should == 400 && *is == 502)
    });
    if !same {
        return Err(format!("answered with {heard:?}"));
    }
    if expect.open {
        let probe = format!("GET /probe HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let _ = write.write_all(probe.as_bytes()).await;
        let reply = next(&mut read, &mut buf, false).await;
        let good =
            |reply: &Reply| reply.status == 200 && find(&reply.octets, b"GET /probe ").is_some();
        if !reply.as_ref().is_some_and(good) {
            return Err(format!("out of step: {reply:?}"));
        }
    } else if let Some(more) = next(&mut read, &mut buf, false).await {
        return Err(format!("not closed, but {more:?}"));
    }
    Ok(())
}

fn head_of(reply: &Reply) -> &[u8] {
    let end = find(&reply.octets, b"\r\n\r\n").unwrap_or(reply.octets.len());
    &reply.octets[..end]
}

/// What the endpoint saw must be good, and as many as expected.
fn recorded(recorder: &Recorder, probes: usize, expect: usize) -> Result<(), String> {
    let (seen, faults) = recorder.take();
    if !faults.is_empty() {
        return Err(format!("the endpoint saw {faults:?}"));
    }
    if seen.len() != probes + expect {
        return Err(format!(
            "the endpoint saw {} requests: {seen:?}",
            seen.len() - probes.min(seen.len())
        ));
    }
    Ok(())
}

/// A world whose endpoint records.
async fn world() -> (World, Recorder) {
    let world = World::new().await;
    let recorder = Recorder::new().await;
    world.endpoints(&[(recorder.address, Healthy)]);
    (world, recorder)
}

fn report(file: &str, count: usize, failed: &[String]) {
    assert!(count > 0, "{file}: no case");
    assert!(
        failed.is_empty(),
        "{file}: {} of {count} cases:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// Every case of a file, against a listener.
async fn ingress(file: &str, text: &str) {
    let (world, recorder) = world().await;
    let mut failed = Vec::new();
    let all = cases::parse(text);
    for case in &all {
        let Outcome::Client(expect) = &case.outcome else {
            panic!("{}: no client's case", case.name);
        };
        let stream = TcpStream::connect(world.http).await.expect("connected");
        let _ = stream.set_nodelay(true);
        let heard = played(stream, case, expect).await;
        let saw = recorded(&recorder, usize::from(expect.open), expect.requests);
        if let Err(what) = heard.and(saw) {
            failed.push(format!("{}: {what}", case.name));
        }
    }
    report(file, all.len(), &failed);
}

/// Every case of a file, against the other end of a tunnel.
async fn egress(file: &str, text: &str) {
    let (world, recorder) = world().await;
    let mut failed = Vec::new();
    let mut count = 0;
    for mut case in cases::parse(text) {
        case.by_egress = true;
        let Some(expect) = case.egress.clone() else {
            continue;
        };
        count += 1;
        let request = StreamRequest {
            authority: "cart.shop.acme:80".to_owned(),
            endpoint: key(GATEWAY, recorder.address),
            lb: "shop/web".to_owned(),
            client: None,
        };
        let stream = world
            .bridge
            .open(&site("aws.acme"), Ask::Endpoint(request))
            .await;
        let heard = played(stream.expect("a stream"), &case, &expect).await;
        let saw = recorded(&recorder, usize::from(expect.open), expect.requests);
        if let Err(what) = heard.and(saw) {
            failed.push(format!("{}: {what}", case.name));
        }
    }
    report(file, count, &failed);
}

/// Rows of `file => ingress test, egress test`.
macro_rules! files {
    ($($file:literal => $ingress:ident, $egress:ident;)*) => {
        $(
            #[tokio::test]
            async fn $ingress() {
                ingress($file, include_str!(concat!("data/smuggling/", $file))).await;
            }

            #[tokio::test]
            async fn $egress() {
                egress($file, include_str!(concat!("data/smuggling/", $file))).await;
            }
        )*
    };
}

files! {
    "framing.txt" => framing_from_clients, framing_out_of_tunnels;
    "chunks.txt" => chunks_from_clients, chunks_out_of_tunnels;
    "heads.txt" => heads_from_clients, heads_out_of_tunnels;
    "hops.txt" => hops_from_clients, hops_out_of_tunnels;
}

/// What comes of a request over HTTP/2.
async fn downgraded(peer: &mut Peer, said: &Said) -> String {
    let bodiless = said.data.is_empty() && said.trailers.is_empty();
    let flags = END_HEADERS | if bodiless { END_STREAM } else { 0 };
    let mut octets = frame(HEADERS, flags, 1, block(&said.head));
    for (at, piece) in said.data.iter().enumerate() {
        let last = at + 1 == said.data.len() && said.trailers.is_empty();
        octets.extend(frame(DATA, if last { END_STREAM } else { 0 }, 1, &**piece));
    }
    if !said.trailers.is_empty() {
        octets.extend(frame(HEADERS, wire::WHOLE, 1, block(&said.trailers)));
    }
    peer.send(&octets).await;
    loop {
        let Some(frame) = peer.next().await else {
            return "closed".to_owned();
        };
        match (frame.kind, frame.stream) {
            (GOAWAY, _) => return "goaway".to_owned(),
            (RST_STREAM, 1) => return "reset".to_owned(),
            // An interim answer is none yet.
            (HEADERS, 1) if wire::status(&frame.payload) < 200 => {}
            (HEADERS, 1) => return wire::status(&frame.payload).to_string(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn downgrades_from_http2() {
    let (world, recorder) = world().await;
    let mut failed = Vec::new();
    let all = cases::parse(include_str!("data/smuggling/downgrade.txt"));
    for case in &all {
        let Outcome::Stream { what, requests } = &case.outcome else {
            panic!("{}: no case of HTTP/2", case.name);
        };
        let mut peer = Peer::new(&world, &[]).await;
        let is = downgraded(&mut peer, &case.said).await;
        let mut result = Ok(());
        if !what.split('|').any(|what| what == is) {
            result = Err(format!("{is} instead of {what}"));
        }
        let mut probes = 0;
        if is != "goaway" && is != "closed" {
            probes = 1;
            if !peer.is_alive(3).await {
                result = result.and(Err("the connection is of no use".to_owned()));
            }
        }
        result = result.and(recorded(&recorder, probes, *requests));
        if let Err(what) = result {
            failed.push(format!("{}: {what}", case.name));
        }
    }
    report("downgrade.txt", all.len(), &failed);
}

/// Does a reply look as the case says? Only the bodies of good ones are looked into.
fn judged(case: &Case, status: u16, whole: bool, octets: &[u8]) -> Result<(), String> {
    let Outcome::Endpoint {
        status: should,
        whole: wanted,
    } = &case.outcome
    else {
        panic!("{}: no endpoint's case", case.name);
    };
    if should.is_some_and(|should| should != status) {
        return Err(format!("{status}: {:?}", String::from_utf8_lossy(octets)));
    }
    if *wanted != whole {
        return Err(format!(
            "whole is {whole}: {:?}",
            String::from_utf8_lossy(octets)
        ));
    }
    if find(octets, MARK.as_bytes()).is_some() {
        return Err(format!("{MARK} in {:?}", String::from_utf8_lossy(octets)));
    }
    Ok(())
}

fn ask(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

#[tokio::test]
async fn answers_to_http1() {
    let (world, recorder) = world().await;
    let mut failed = Vec::new();
    let all = cases::parse(include_str!("data/smuggling/answers.txt"));
    for case in &all {
        recorder.play(case.endpoint.clone(), case.ends);
        let mut stream = TcpStream::connect(world.http).await.expect("connected");
        let mut buf = Vec::new();
        let _ = stream.write_all(ask(&case.method, BAD).as_bytes()).await;
        let bodiless = case.method == "HEAD";
        let reply = next(&mut stream, &mut buf, bodiless).await;
        let mut result = match &reply {
            Some(reply) => judged(case, reply.status, reply.whole, &reply.octets),
            None => Err("closed".to_owned()),
        };
        // Whatever that was, who asks next gets what is meant for him.
        let kept = reply.as_ref().is_some_and(|reply| reply.whole);
        let close = |reply: &Reply| find(&reply.octets, b"connection: close").is_some();
        if !kept || reply.as_ref().is_some_and(close) {
            stream = TcpStream::connect(world.http).await.expect("connected");
            buf.clear();
        }
        for target in ["/one", "/two"] {
            let _ = stream.write_all(ask("GET", target).as_bytes()).await;
            let reply = next(&mut stream, &mut buf, false).await;
            let own = format!("GET {target} ");
            let good = |reply: &Reply| {
                reply.status == 200 && find(&reply.octets, own.as_bytes()).is_some()
            };
            if !reply.as_ref().is_some_and(good) {
                result = result.and(Err(format!("the next one got {reply:?}")));
            }
        }
        if let Err(what) = result {
            failed.push(format!("{}: {what}", case.name));
        }
    }
    report("answers.txt", all.len(), &failed);
}

/// The same, for clients that speak HTTP/2: a broken answer is one that is reset.
#[tokio::test]
async fn answers_to_http2() {
    let (world, recorder) = world().await;
    let mut failed = Vec::new();
    let all = cases::parse(include_str!("data/smuggling/answers.txt"));
    for case in &all {
        recorder.play(case.endpoint.clone(), case.ends);
        let mut peer = Peer::new(&world, &[]).await;
        let fields = [
            (":method", &*case.method),
            (":scheme", "http"),
            (":path", BAD),
            (":authority", HOST),
        ];
        peer.send(&frame(HEADERS, wire::WHOLE, 1, block(&fields)))
            .await;
        let (mut status, mut octets, mut whole) = (0, Vec::new(), false);
        while let Some(frame) = peer.next().await {
            match (frame.kind, frame.stream) {
                (RST_STREAM | GOAWAY, _) => break,
                (HEADERS, 1) => {
                    let this = if frame.payload.is_empty() {
                        0
                    } else {
                        front(&frame.payload)
                    };
                    status = if status < 200 { this } else { status };
                }
                (DATA, 1) => octets.extend(frame.payload),
                (PING, _) => {}
                _ => {}
            }
            whole = frame.stream == 1 && frame.kind != RST_STREAM && frame.flags & END_STREAM != 0;
            if whole {
                break;
            }
        }
        // A reset may overtake the head.
        let lost = status == 0 && !whole && octets.is_empty();
        let status = case.status().filter(|_| lost).unwrap_or(status);
        let mut result = judged(case, status, whole, &octets);
        if !peer.is_alive(3).await {
            result = result.and(Err("the connection is of no use".to_owned()));
        }
        if let Err(what) = result {
            failed.push(format!("{}: {what}", case.name));
        }
    }
    report("answers.txt", all.len(), &failed);
}

/// The status of a head; trailers have none.
fn front(block: &[u8]) -> u16 {
    match block {
        [0x20..=0x3F | 0x88..=0x8E | 0x08 | 0x18 | 0x48, ..] => wire::status(block),
        _ => 0,
    }
}
