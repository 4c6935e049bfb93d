//! An endpoint that reads requests with a parser of its own, as strict as can be: whatever is not
//! exactly one unambiguous message is a fault of the proxy's.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What stands where no octet of a client's may: anywhere but in a body.
pub(super) const MARK: &str = "SMUGGLED";
/// For whoever asks for this, the script is played.
pub(super) const BAD: &str = "/bad";

/// A request, as the endpoint saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    method: String,
    target: String,
    #[expect(dead_code, reason = "shown by Debug")]
    fields: Vec<(String, Vec<u8>)>,
    trailers: usize,
    /// The whole of it, as text.
    text: String,
}

#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    faults: Vec<String>,
    /// What is said to whoever asks for [`BAD`], and whether the connection ends then.
    script: (Vec<u8>, bool),
}

pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    record: Arc<Mutex<Record>>,
    _tasks: runtime::Tasks,
}

impl Recorder {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let record = Arc::new(Mutex::new(Record::default()));
        let tasks = runtime::Tasks::new("recorder");
        let (inner, shared) = (tasks.clone(), Arc::clone(&record));
        tasks.spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let record = Arc::clone(&shared);
                inner.spawn("connection", attend(stream, record));
            }
        });
        Recorder {
            address,
            record,
            _tasks: tasks,
        }
    }

    /// What it has seen since somebody asked last.
    pub(super) fn take(&self) -> (Vec<Seen>, Vec<String>) {
        let mut record = self.record.lock().expect("no panic");
        (
            std::mem::take(&mut record.seen),
            std::mem::take(&mut record.faults),
        )
    }

    pub(super) fn play(&self, octets: Vec<u8>, ends: bool) {
        self.record.lock().expect("no panic").script = (octets, ends);
    }
}

async fn attend(mut stream: TcpStream, record: Arc<Mutex<Record>>) {
    let mut buf = Vec::new();
    loop {
        let whole = loop {
            match request(&buf) {
                Ok(Some(whole)) => break whole,
                Ok(None) => {}
                Err(fault) => {
                    let text = String::from_utf8_lossy(&buf).into_owned();
                    let mut record = record.lock().expect("no panic");
                    record.faults.push(format!("{fault}: {text:?}"));
                    return;
                }
            }
            match stream.read_buf(&mut buf).await {
                Ok(1..) => {}
                // A message that is cut off is none; whoever sent it has given up.
                Ok(0) | Err(_) => return,
            }
        };
        let (seen, used) = whole;
        buf.drain(..used);
        let (answer, ends) = {
            let mut record = record.lock().expect("no panic");
            let answer = if seen.target == BAD {
                record.script.clone()
            } else {
                (echo(&seen), false)
            };
            record.seen.push(seen);
            answer
        };
        if stream.write_all(&answer).await.is_err() || ends {
            return;
        }
    }
}

fn echo(seen: &Seen) -> Vec<u8> {
    let body = if seen.method == "HEAD" {
        ""
    } else {
        &seen.text
    };
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// The request at the front, and its length; `None`: it is not whole.
fn request(octets: &[u8]) -> Result<Option<(Seen, usize)>, &'static str> {
    let Some(end) = find(octets, b"\r\n\r\n") else {
        // What is there has to be right already.
        lines(octets.split(|b| *b == b'\n').next().unwrap_or_default())?;
        return Ok(None);
    };
    let mut lines = lines(&octets[..end])?.into_iter();
    let first = text(lines.next().unwrap_or_default())?;
    let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else {
        return Err("not three words");
    };
    if !is_token(method.as_bytes()) || version != "HTTP/1.1" {
        return Err("a bad method or version");
    }
    if !(target.starts_with('/') || target == "*") || target.contains('#') {
        return Err("a bad target");
    }
    if !target.bytes().all(|b| b.is_ascii_graphic()) || target.contains(MARK) {
        return Err("a bad octet in the target");
    }
    let fields = fields(lines)?;
    let of = |name: &str| {
        let same = fields.iter().filter(|(this, _)| this == name);
        same.map(|(_, value)| &value[..]).collect::<Vec<_>>()
    };
    let [host] = of("host")[..] else {
        return Err("not one host");
    };
    let good = |b: &u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(b);
    if host.is_empty() || !host.iter().all(good) {
        return Err("a bad host");
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "http2-settings",
        "expect",
    ] {
        if !of(name).is_empty() {
            return Err("a field of another connection");
        }
    }
    match (&of("connection")[..], &of("upgrade")[..]) {
        ([], []) => {}
        ([b"upgrade"], [token]) if find(token, b"h2").is_none() => {}
        _ => return Err("a bad upgrade"),
    }
    let start = end + 4;
    let (trailers, used) = match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => (0, start),
        ([length], []) => {
            if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
                return Err("a bad length");
            }
            let length: usize = text(length)?.parse().map_err(|_| "a bad length")?;
            (0, start + length)
        }
        ([], [b"chunked"]) => match chunks(octets, start)? {
            Some(both) => both,
            None => return Ok(None),
        },
        _ => return Err("not one framing"),
    };
    let Some(whole) = octets.get(..used) else {
        return Ok(None);
    };
    let seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        trailers,
        text: String::from_utf8_lossy(whole).into_owned(),
        fields,
    };
    Ok(Some((seen, used)))
}

/// Where chunks end, and how many trailers there are.
fn chunks(octets: &[u8], start: usize) -> Result<Option<(usize, usize)>, &'static str> {
    let mut at = start;
    loop {
        let rest = octets.get(at..).unwrap_or_default();
        let Some(line) = find(rest, b"\r\n") else {
            return Ok(None);
        };
        let size = text(&rest[..line])?;
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("a bad chunk");
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| "a large chunk")?;
        at += line + 2;
        if size > 0 {
            match octets.get(at + size..at + size + 2) {
                Some(b"\r\n") => at += size + 2,
                Some(_) => return Err("no end of a chunk"),
                None => return Ok(None),
            }
            continue;
        }
        let rest = octets.get(at..).unwrap_or_default();
        if rest.starts_with(b"\r\n") {
            return Ok(Some((0, at + 2)));
        }
        let Some(end) = find(rest, b"\r\n\r\n") else {
            return Ok(None);
        };
        let trailers = fields(lines(&rest[..end])?.into_iter())?;
        for (name, _) in &trailers {
            if ["content-length", "transfer-encoding", "host", "connection"].contains(&&**name) {
                return Err("a trailer that frames");
            }
        }
        return Ok(Some((trailers.len(), at + end + 4)));
    }
}

/// Lines that end in CRLF, and no other CR or LF.
fn lines(head: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest.strip_suffix(b"\r").unwrap_or(rest));
    if lines
        .iter()
        .any(|line| line.contains(&b'\r') || line.contains(&b'\n'))
    {
        return Err("CR or LF alone");
    }
    Ok(lines)
}

fn fields<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<(String, Vec<u8>)>, &'static str> {
    let mut fields = Vec::new();
    for line in lines {
        let colon = find(line, b": ").ok_or("no colon")?;
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
            return Err("a bad name");
        }
        let control = |b: &u8| (*b < b' ' && *b != b'\t') || *b == 0x7F;
        let edge = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        if value.iter().any(control) || edge(value.first()) || edge(value.last()) {
            return Err("a bad value");
        }
        if find(value, MARK.as_bytes()).is_some() || name.starts_with(b"sealane-") {
            return Err("a field that no endpoint is to see");
        }
        fields.push((text(name)?.to_owned(), value.to_vec()));
    }
    Ok(fields)
}

fn is_token(octets: &[u8]) -> bool {
    let good = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !octets.is_empty() && octets.iter().all(good)
}

fn text(octets: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(octets).map_err(|_| "no text")?;
    if text.is_ascii() {
        Ok(text)
    } else {
        Err("no text")
    }
}

pub(super) fn find(octets: &[u8], what: &[u8]) -> Option<usize> {
    octets.windows(what.len()).position(|window| window == what)
}

/// The parser has to find what it is there to find.
#[test]
fn what_is_not_one_message_is_a_fault() {
    let head = "GET / HTTP/1.1\r\nhost: a\r\n";
    for bad in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n".to_owned(),
        "GET /SMUGGLED HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        format!("{head}host: a\r\n\r\n"),
        format!("{head}content-length: 1\r\ncontent-length: 1\r\n\r\nx"),
        format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx"),
        format!("{head}transfer-encoding: Chunked\r\n\r\n"),
        format!("{head}x-a: b\nx-b: c\r\n\r\n"),
        format!("{head}x-a: b\rx-b: c\r\n\r\n"),
        format!("{head}x-a: b\r\n folded\r\n\r\n"),
        format!("{head}x-a : b\r\n\r\n"),
        format!("{head}x-a: a\0b\r\n\r\n"),
        format!("{head}x-a: SMUGGLED\r\n\r\n"),
        format!("{head}connection: close\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n1;x\r\ny\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n1\r\nyz\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: chunked\r\n\r\n0\r\nhost: b\r\n\r\n"),
    ] {
        assert!(request(bad.as_bytes()).is_err(), "{bad:?}");
    }
    for (good, trailers) in [
        (format!("{head}\r\n"), 0),
        (format!("{head}content-length: 3\r\n\r\nabc"), 0),
        (
            format!("{head}transfer-encoding: chunked\r\n\r\n1\r\ny\r\n0\r\nx-a: b\r\n\r\n"),
            1,
        ),
    ] {
        let (seen, used) = request(good.as_bytes()).expect("good").expect("whole");
        assert_eq!((used, seen.trailers), (good.len(), trailers), "{good:?}");
        assert!(
            request(&good.as_bytes()[..good.len() - 1])
                .expect("good")
                .is_none()
        );
    }
}
