//! Clients that others wrote, through a node: curl, h2load, nghttp and a browser.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use kit::{Role, Turn, wait_until};

use crate::examples::{Example, python, skip};

/// The manifests: one service in plain text and over TLS.
const MANIFESTS: &str = "11-websocket";
const NAME: &str = "talk.acme.example";
/// What the endpoint gives whoever asks for `/file`.
const FILE: usize = 3_000_000;

/// A page that asks for more, and says in its text what it got. It has loaded, for the browser, when
/// its picture is there, which comes when the page has said everything.
const PAGE: &str = r#"<!doctype html><title>page</title><pre id="said"></pre>
<img src="/picture"><script>
const say = text => document.getElementById("said").append(text + ";");
(async () => {
  const all = await Promise.all([...Array(40).keys()].map(n => fetch("/echo?" + n)));
  say("answers=" + all.filter(answer => answer.ok).length);
  const file = await (await fetch("/file")).arrayBuffer();
  say("octets=" + file.byteLength);
  const posted = await fetch("/length", { method: "POST", body: "x".repeat(500000) });
  say("posted=" + await posted.text());
  say("protocol=" + performance.getEntriesByName(location.origin + "/file")[0].nextHopProtocol);
  const socket = new WebSocket("wss://" + location.host + "/socket");
  socket.onmessage = event => { say("heard=" + event.data); socket.close(); };
  socket.onerror = () => say("error");
  socket.onclose = event => { say("done"); fetch("/picture-now"); };
})();
</script>"#;

/// A node, and an endpoint behind it.
struct Served {
    example: Example,
    node: Role,
    _turn: Turn,
}

impl Served {
    fn new() -> Self {
        Served::of(MANIFESTS)
    }

    /// By the manifests of this example, which have the same name and addresses.
    fn of(manifests: &str) -> Self {
        let turn = Turn::beside();
        let example = Example::new(manifests);
        let listener = TcpListener::bind((&*example.host, 18000)).expect("a free address");
        thread::spawn(move || {
            let picture = Arc::new(Barrier::new(2));
            while let Ok((stream, _)) = listener.accept() {
                let picture = picture.clone();
                thread::spawn(move || attend(stream, &picture));
            }
        });
        let node = example.node();
        let served = Served {
            example,
            node,
            _turn: turn,
        };
        let mut client = kit::Client::new();
        let http = format!("{}:18080", served.example.host)
            .parse()
            .expect("an address");
        wait_until("an answer", Duration::from_secs(10), || {
            let reply = client.get(http, NAME, "/echo")?;
            (reply.status == 200)
                .then_some(())
                .ok_or(reply.status.to_string())
        });
        served
    }

    fn ends(mut self) {
        assert_eq!(self.node.stop(), 0, "{}", self.node.log());
    }

    /// What curl writes, and with `-w` says.
    fn curl(&self, curl: &PathBuf, args: &[&str]) -> String {
        let host = &self.example.host;
        let mut command = Command::new(curl);
        command.args([
            "-sS",
            "-k",
            "--max-time",
            "60",
            "-w",
            " %{http_code} %{http_version} %{num_connects}\n",
        ]);
        for port in [18080, 18443] {
            command.args(["--resolve", &format!("{NAME}:{port}:{host}")]);
        }
        said(command.args(args))
    }
}

/// What a program says that ends well.
fn said(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

/// A program, if it is there.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Requests one after the other. `/picture` and `/picture-now` wait for each other.
fn attend(stream: TcpStream, picture: &Barrier) {
    let mut read = BufReader::new(stream.try_clone().expect("cloned"));
    let mut write = stream;
    while let Some((line, head)) = head(&mut read) {
        let body = body(&mut read, &head);
        let target = line.split(' ').nth(1).unwrap_or_default();
        let answer = if head.contains("\r\nupgrade: websocket\r\n") {
            socket(&mut write);
            return;
        } else if target == "/file" {
            file(&head)
        } else if target == "/page" {
            ok("text/html", PAGE.as_bytes())
        } else if target == "/length" {
            ok("text/plain", body.to_string().as_bytes())
        } else {
            if target.starts_with("/picture") {
                picture.wait();
            }
            ok("text/plain", line.as_bytes())
        };
        let end = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .map_or(0, |at| at + 4);
        let answer = if line.starts_with("HEAD ") {
            &answer[..end]
        } else {
            &answer
        };
        if write.write_all(answer).is_err() {
            return;
        }
    }
}

fn ok(kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// All of the file, or the range that is asked for (RFC 9110 §14).
fn file(head: &str) -> Vec<u8> {
    let all: Vec<u8> = (0..FILE)
        .map(|at| b'a' + u8::try_from(at % 26).expect("a letter"))
        .collect();
    let range = head
        .split("\r\nrange: bytes=")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next());
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
        return ok("text/plain", &all);
    };
    let (from, to): (usize, usize) = (
        from.parse().expect("a number"),
        to.parse().expect("a number"),
    );
    let part = &all[from..=to];
    let length = part.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{to}/{FILE}\r\n\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), part].concat()
}

/// The request line, and the fields in lower case, each behind CRLF.
fn head(read: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut line = String::new();
    read.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut head = "\r\n".to_owned();
    loop {
        let mut field = String::new();
        read.read_line(&mut field).ok().filter(|count| *count > 0)?;
        if field == "\r\n" {
            return Some((line.trim_end().to_owned(), head));
        }
        head += &field.to_lowercase();
    }
}

/// Read a body; how long it was.
fn body(read: &mut BufReader<TcpStream>, head: &str) -> u64 {
    let mut skip = |count: u64| std::io::copy(&mut read.by_ref().take(count), &mut std::io::sink());
    if let Some(length) = head.split("\r\ncontent-length: ").nth(1) {
        let length = length
            .split("\r\n")
            .next()
            .and_then(|l| l.parse().ok())
            .expect("a number");
        return skip(length).expect("read");
    }
    let mut total = 0;
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        loop {
            let mut line = String::new();
            read.read_line(&mut line).expect("read");
            let size = u64::from_str_radix(line.trim(), 16).expect("a size");
            if size == 0 {
                break;
            }
            let mut chunk = read.by_ref().take(size + 2);
            std::io::copy(&mut chunk, &mut std::io::sink()).expect("read");
            total += size;
        }
        // Trailers, up to an empty line.
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            read.read_line(&mut line).expect("read");
        }
    }
    total
}

/// A message at once, and then nothing until the client closes. Who came over HTTP/2 does not look
/// at the key's answer.
fn socket(write: &mut TcpStream) {
    let agreed =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-accept: none\r\n\r\n\x81\x05hello";
    if write.write_all(agreed).is_ok() {
        // Its close frame is six octets of head and key, and two of a code if any.
        let mut close = [0; 8];
        let _ = write.read(&mut close);
        let _ = write.write_all(&[0x88, 0]);
    }
}

#[test]
fn curl() {
    let Some(curl) = program("curl") else {
        return skip("curl", "curl (apt install curl)");
    };
    let served = Served::new();
    let upload = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(upload.path(), vec![b'x'; 2_000_000]).expect("written");
    let from = format!("@{}", upload.path().display());
    let file = upload.path().to_str().expect("a plain path");
    let plain = |path: &str| format!("http://{NAME}:18080{path}");
    let tls = |path: &str| format!("https://{NAME}:18443{path}");
    for (version, url, args) in [
        ("1.0", plain(""), &["--http1.0"][..]),
        ("1.1", plain(""), &["--http1.1"]),
        ("2", plain(""), &["--http2-prior-knowledge"]),
        ("1.1", tls(""), &["--http1.1"]),
        ("2", tls(""), &["--http2"]),
    ] {
        let run = |more: &[&str], path: &str| {
            let url = format!("{url}{path}");
            served.curl(&curl, &[args, more, &[&*url]].concat())
        };
        // What HTTP/1.0 cannot say (RFC 9112 §6.1, RFC 9110 §10.1.1).
        let shown = if version == "1.0" { "1.1" } else { version };
        assert_eq!(
            run(&[], "/echo"),
            format!("GET /echo HTTP/1.1 200 {shown} 1\n")
        );
        assert_eq!(
            run(&["-r", "26-30"], "/file"),
            format!("abcde 206 {shown} 1\n")
        );
        assert_eq!(
            run(&[], "/file").len(),
            FILE + format!(" 200 {shown} 1\n").len()
        );
        assert!(run(&["-I"], "/file").contains(&format!("content-length: {FILE}\r\n")));
        assert_eq!(
            run(&["--data-binary", &from], "/length"),
            format!("2000000 200 {shown} 1\n")
        );
        if version == "1.0" {
            continue;
        }
        if version == "1.1" {
            let expects = ["-H", "Expect: 100-continue", "--expect100-timeout", "20"];
            let expects = [&expects[..], &["--data-binary", &from]].concat();
            assert_eq!(run(&expects, "/length"), format!("2000000 200 {shown} 1\n"));
        }
        // curl 7.88 fails at the second request on such a connection, whoever serves it.
        if args != ["--http2-prior-knowledge"] {
            let both = format!("{url}/echo?2");
            let kept = run(&[&both], "/echo?1");
            let each = |n, new| format!("GET /echo?{n} HTTP/1.1 200 {shown} {new}\n");
            assert_eq!(kept, each(2, 1) + &each(1, 0));
        }
        let chunked = ["-X", "POST", "-H", "Transfer-Encoding: chunked", "-T", file];
        let chunked = if version == "2" {
            &chunked[4..]
        } else {
            &chunked[..]
        };
        assert_eq!(run(chunked, "/length"), format!("2000000 200 {shown} 1\n"));
    }
    served.ends();
}

#[test]
fn h2load() {
    let Some(h2load) = program("h2load") else {
        return skip("h2load", "h2load (apt install nghttp2-client)");
    };
    let served = Served::new();
    let host = &served.example.host;
    for (url, port, args) in [
        (
            format!("https://{NAME}:18443/echo"),
            18443,
            &["-m", "10"][..],
        ),
        (format!("http://{NAME}:18080/echo"), 18080, &["-m", "10"]),
        (format!("http://{NAME}:18080/echo"), 18080, &["--h1"]),
        (
            format!("https://{NAME}:18443/file"),
            18443,
            &["-m", "4", "-w", "16"],
        ),
    ] {
        let count = if url.ends_with("/file") { "40" } else { "2000" };
        let to = format!("--connect-to={host}:{port}");
        let mut command = Command::new(&h2load);
        let text = said(
            command
                .args(["-n", count, "-c", "5", &to])
                .args(args)
                .arg(&url),
        );
        let good = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(
            text.contains(&good) && text.contains(&format!("{count} 2xx")),
            "{url}: {text}"
        );
    }
    served.ends();
}

#[test]
fn nghttp() {
    let Some(nghttp) = program("nghttp") else {
        return skip("nghttp", "nghttp (apt install nghttp2-client)");
    };
    let served = Served::new();
    let url = format!("http://{}:18080/length", served.example.host);
    let upload = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(upload.path(), vec![b'x'; 500_000]).expect("written");
    let mut command = Command::new(nghttp);
    let name = format!(":authority: {NAME}");
    command.args([
        "-H",
        &name,
        "-m",
        "5",
        "-t",
        "30",
        "--trailer",
        "x-a: b",
        "-d",
    ]);
    let text = said(command.arg(upload.path()).arg(&url));
    assert_eq!(text, "500000".repeat(5));
    served.ends();
}

/// What a browser shows of the page, with these arguments more.
fn browse(served: &Served, chromium: &PathBuf, more: &[&str]) -> String {
    let profile = tempfile::tempdir().expect("a folder");
    let map = format!("--host-resolver-rules=MAP {NAME} {}", served.example.host);
    let folder = format!("--user-data-dir={}", profile.path().display());
    let url = format!("https://{NAME}:18443/page");
    let mut command = Command::new(chromium);
    // Within a container it cannot make its own sandbox; it looks at nothing but our page.
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]);
    command.args([
        "--ignore-certificate-errors",
        "--no-first-run",
        "--disable-background-networking",
    ]);
    command.args(more);
    command.args([&*map, &*folder, "--timeout=60000", "--dump-dom", &*url]);
    said(&mut command)
}

#[test]
fn chromium() {
    let Some(chromium) = program("chromium") else {
        return skip("a browser", "chromium (apt install chromium)");
    };
    let served = Served::new();
    let text = browse(&served, &chromium, &[]);
    let expect = format!("answers=40;octets={FILE};posted=500000;protocol=h2;heard=hello;done;");
    assert!(text.contains(&expect), "{text}{}", served.node.log());
    served.ends();
}

/// What a browser has to be told of a certificate that it is to take over QUIC: the SHA-256 of its
/// key.
const KEY: &str = "
import base64, hashlib, socket, ssl, sys
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
tcp = socket.create_connection((sys.argv[1], 18443))
tls = context.wrap_socket(tcp, server_hostname=sys.argv[2])
key = x509.load_der_x509_certificate(tls.getpeercert(True)).public_key()
key = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
print(base64.b64encode(hashlib.sha256(key).digest()).decode())
";

#[test]
fn chromium_http3() {
    let Some(chromium) = program("chromium") else {
        return skip("a browser", "chromium (apt install chromium)");
    };
    let Some(python) = python("aioquic") else {
        return skip("HTTP/3 in a browser", "aioquic (pip install aioquic)");
    };
    let served = Served::of("12-http3");
    let mut key = Command::new(python);
    let key = said(key.args(["-c", KEY, &served.example.host, NAME]));
    let key = format!("--ignore-certificate-errors-spki-list={}", key.trim());
    let origin = format!("--origin-to-force-quic-on={NAME}:18443");
    let text = browse(&served, &chromium, &["--enable-quic", &key, &origin]);
    // A WebSocket it opens over HTTP/1.1 here, whose key the endpoint does not answer.
    let expect = format!("answers=40;octets={FILE};posted=500000;protocol=h3;error;done;");
    assert!(text.contains(&expect), "{text}{}", served.node.log());
    served.ends();
}
