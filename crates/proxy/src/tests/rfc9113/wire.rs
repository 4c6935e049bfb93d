//! Frames as octets, and a client that speaks in them.

use balance::Health::Healthy;
use l7::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::tests::{
    recorder::Recorder,
    world::{PATIENCE, World},
};

pub(in crate::tests) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(in crate::tests) const DATA: u8 = 0;
pub(in crate::tests) const HEADERS: u8 = 1;
pub(in crate::tests) const PRIORITY: u8 = 2;
pub(in crate::tests) const RST_STREAM: u8 = 3;
pub(in crate::tests) const SETTINGS: u8 = 4;
pub(in crate::tests) const PUSH_PROMISE: u8 = 5;
pub(in crate::tests) const PING: u8 = 6;
pub(in crate::tests) const GOAWAY: u8 = 7;
pub(in crate::tests) const WINDOW_UPDATE: u8 = 8;
pub(in crate::tests) const CONTINUATION: u8 = 9;

/// Flags. ACK and END_STREAM are the same bit.
pub(in crate::tests) const ACK: u8 = 0x1;
pub(in crate::tests) const END_STREAM: u8 = 0x1;
pub(in crate::tests) const END_HEADERS: u8 = 0x4;
pub(in crate::tests) const PADDED: u8 = 0x8;
pub(in crate::tests) const WITH_PRIORITY: u8 = 0x20;
/// END_STREAM and END_HEADERS: a whole request.
pub(in crate::tests) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Error codes (RFC 9113 §7).
pub(in crate::tests) const NO_ERROR: u32 = 0;
pub(in crate::tests) const PROTOCOL_ERROR: u32 = 1;
pub(in crate::tests) const FLOW_CONTROL_ERROR: u32 = 3;
pub(in crate::tests) const STREAM_CLOSED: u32 = 5;
pub(in crate::tests) const FRAME_SIZE_ERROR: u32 = 6;
pub(in crate::tests) const REFUSED_STREAM: u32 = 7;
pub(in crate::tests) const CANCEL: u32 = 8;
pub(in crate::tests) const COMPRESSION_ERROR: u32 = 9;
pub(in crate::tests) const ENHANCE_YOUR_CALM: u32 = 11;

/// Settings (RFC 9113 §6.5.2, RFC 8441 §3).
pub(in crate::tests) const HEADER_TABLE_SIZE: u16 = 1;
pub(in crate::tests) const ENABLE_PUSH: u16 = 2;
pub(in crate::tests) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(in crate::tests) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(in crate::tests) const MAX_FRAME_SIZE: u16 = 5;
pub(in crate::tests) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The stream on which it is seen that a connection lives on: above all that rows use.
const LAST: u32 = 1001;
const ALIVE: [u8; 8] = *b"alive???";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tests) struct Frame {
    pub(in crate::tests) kind: u8,
    pub(in crate::tests) flags: u8,
    pub(in crate::tests) stream: u32,
    pub(in crate::tests) payload: Vec<u8>,
}

pub(in crate::tests) fn frame(
    kind: u8,
    flags: u8,
    stream: u32,
    payload: impl Into<Vec<u8>>,
) -> Vec<u8> {
    let payload = payload.into();
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), &payload].concat()
}

pub(in crate::tests) fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in list {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, payload)
}

pub(in crate::tests) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub(in crate::tests) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

pub(in crate::tests) fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        [last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

/// A header block of literals that are never indexed, without Huffman's code (RFC 7541 §6.2.3).
pub(in crate::tests) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    let string = |out: &mut Vec<u8>, octets: &[u8]| {
        let mut length = octets.len();
        if length < 127 {
            out.push(u8::try_from(length).expect("short"));
        } else {
            // RFC 7541 §5.1.
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push(u8::try_from(length % 128).expect("below") | 128);
                length /= 128;
            }
            out.push(u8::try_from(length).expect("below"));
        }
        out.extend_from_slice(octets);
    };
    for (name, value) in fields {
        out.push(0x10);
        string(&mut out, name.as_ref());
        string(&mut out, value.as_ref());
    }
    out
}

/// The pseudo-header fields of a good request, and these behind them.
pub(in crate::tests) fn with(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "cart.acme.example"),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

/// A whole request without a body.
pub(in crate::tests) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, with("GET", &[]))
}

/// The head of a request that has a body.
pub(in crate::tests) fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, with("POST", &[]))
}

/// A whole request with exactly these fields.
pub(in crate::tests) fn whole(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, block(fields))
}

/// A whole good request with these fields too.
pub(in crate::tests) fn also(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, with("GET", fields))
}

pub(in crate::tests) fn data(stream: u32, flags: u8, octets: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, octets)
}

/// What comes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tests) enum Expect {
    /// GOAWAY with this code, and then the end (RFC 9113 §5.4.1).
    Connection(u32),
    /// The end, whatever is said before.
    Cut,
    /// RST_STREAM with this code on this stream, and the connection lives on (§5.4.2).
    Stream(u32, u32),
    /// This status on this stream, and the connection lives on.
    Answer(u32, u16),
    /// Nothing, and the connection lives on.
    Ignored,
}

/// Octets in frames.
#[derive(Debug)]
pub(in crate::tests) struct Peer {
    pub(in crate::tests) stream: TcpStream,
    buf: Vec<u8>,
}

impl Peer {
    pub(in crate::tests) fn of(stream: TcpStream) -> Self {
        Peer {
            stream,
            buf: Vec::new(),
        }
    }

    /// A client that has said its preface and read the server's.
    pub(in crate::tests) async fn new(world: &World, list: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(world.http).await.expect("connected");
        let mut peer = Peer::of(stream);
        // The status is at the front of each block then, and never indexed dynamically.
        let list = [list, &[(HEADER_TABLE_SIZE, 0)]].concat();
        peer.send(&[PREFACE, &settings(&list)].concat()).await;
        let first = peer.next().await.expect("a frame");
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
        peer
    }

    /// Whether it is still read by anybody does not matter here.
    pub(in crate::tests) async fn send(&mut self, octets: &[u8]) {
        let _ = self.stream.write_all(octets).await;
    }

    /// The next frame, or the end.
    pub(in crate::tests) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.buf.get(..9) {
                let word = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
                let length = (u32::from_be_bytes(word(0)) >> 8) as usize;
                if self.buf.len() >= 9 + length {
                    let frame = Frame {
                        kind: head[3],
                        flags: head[4],
                        stream: u32::from_be_bytes(word(5)),
                        payload: self.buf[9..9 + length].to_vec(),
                    };
                    self.buf.drain(..9 + length);
                    return Some(frame);
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buf)).await;
            match read.expect("in time") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame on this stream of one of these kinds.
    pub(in crate::tests) async fn until(&mut self, stream: u32, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.stream == stream && kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// The code with which the connection ends, if it says one.
    pub(in crate::tests) async fn ending(&mut self) -> Option<u32> {
        let mut said = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                said = Some(word(&frame.payload[4..8]));
            }
        }
        said
    }

    /// Is a request still answered?
    pub(in crate::tests) async fn is_alive(&mut self, stream: u32) -> bool {
        // What it takes of the connection's window is given back.
        self.send(&[get(stream), window_update(0, 1000)].concat())
            .await;
        let head = self.until(stream, &[HEADERS, RST_STREAM]).await;
        head.is_some_and(|frame| frame.kind == HEADERS && status(&frame.payload) == 200)
    }
}

pub(in crate::tests) fn word(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets.try_into().expect("four octets"))
}

/// The status at the front of a block whose sender has no table (RFC 7541 §6, Appendix A and B).
pub(in crate::tests) fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Updates of the table's size may come first.
    let mut block = block;
    while let [first, rest @ ..] = block
        && first & 0xE0 == 0x20
    {
        block = rest;
    }
    match block {
        [indexed @ 0x88..=0x8E, ..] => STATIC[usize::from(indexed - 0x88)],
        [0x08 | 0x18 | 0x48, length, digits @ ..] if length & 0x80 == 0 => {
            let digits = &digits[..usize::from(*length)];
            std::str::from_utf8(digits)
                .expect("text")
                .parse()
                .expect("a status")
        }
        [0x08 | 0x18 | 0x48, _, a, b, c @ ..] => {
            let bits = u32::from_be_bytes([*a, *b, c.first().copied().unwrap_or(0xFF), 0]);
            digits(bits)
        }
        _ => panic!("no status: {block:?}"),
    }
}

/// Three digits in Huffman's code: 0, 1 and 2 have five bits, the others six.
fn digits(mut bits: u32) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let five = bits >> 27;
        let digit = if five <= 2 {
            bits <<= 5;
            five
        } else {
            let six = bits >> 26;
            bits <<= 6;
            six - 0x19 + 3
        };
        number = number * 10 + digit;
    }
    u16::try_from(number).expect("three digits")
}

/// A world whose endpoint tells what it saw.
pub(in crate::tests) async fn world(limits: Limits) -> (World, Recorder) {
    let world = World::as_peer("par.fabric", limits).await;
    let recorder = Recorder::new().await;
    world.endpoints(&[(recorder.address, Healthy)]);
    (world, recorder)
}

/// Send frames on a fresh connection, and see what comes of them.
pub(in crate::tests) async fn check(frames: &[Vec<u8>], expect: Expect) {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&frames.concat()).await;
    see(&mut peer, expect).await;
}

/// See what comes of what was sent.
pub(in crate::tests) async fn see(peer: &mut Peer, expect: Expect) {
    if expect != Expect::Cut && !matches!(expect, Expect::Connection(_)) {
        peer.send(&frame(PING, 0, 0, ALIVE)).await;
    }
    let mut came = None;
    let mut alive = false;
    loop {
        let done = match expect {
            Expect::Connection(_) | Expect::Cut => false,
            Expect::Stream(..) | Expect::Answer(..) => alive && came.is_some(),
            Expect::Ignored => alive,
        };
        if done {
            break;
        }
        let Some(frame) = peer.next().await else {
            let ended = match expect {
                Expect::Connection(_) => came == Some(expect),
                Expect::Cut => true,
                Expect::Stream(..) | Expect::Answer(..) | Expect::Ignored => false,
            };
            assert!(ended, "the connection ended after {came:?}, not {expect:?}");
            return;
        };
        let this = match frame.kind {
            PING if frame.payload == ALIVE => {
                alive = true;
                continue;
            }
            GOAWAY => Expect::Connection(word(&frame.payload[4..8])),
            // The rest of a request that was answered is not wanted (§8.1).
            RST_STREAM if word(&frame.payload) == NO_ERROR && came.is_some() => continue,
            RST_STREAM => Expect::Stream(frame.stream, word(&frame.payload)),
            // Rows may ask something on other streams too.
            HEADERS if matches!(expect, Expect::Answer(on, _) if on == frame.stream) => {
                Expect::Answer(frame.stream, status(&frame.payload))
            }
            _ => continue,
        };
        if expect != Expect::Cut {
            assert_eq!(this, expect);
        }
        came = Some(this);
    }
    assert!(
        peer.is_alive(LAST).await,
        "the connection is of no use after {expect:?}"
    );
}
