//! Examples that are one node from manifests: the exchanges of their `expect/exchanges.json`, played.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use kit::{Client, Http2, Reply, Role, Subnet, Turn, wait_until};
use serde::Deserialize;
use serde_json::Value;

/// How long a node may take to serve.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// An example's `expect/exchanges.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    host: String,
    http: String,
    /// Each exchange on an HTTP/2 connection of its own, over TLS.
    #[serde(default)]
    tls: bool,
    /// Demo applications: names and addresses.
    endpoints: BTreeMap<String, String>,
    /// Those that are failing (`sealane lab demo ADDRESS failing`).
    #[serde(default)]
    failing: Vec<String>,
    /// By how many milliseconds others are slow (`sealane lab demo ADDRESS slow MS`).
    #[serde(default)]
    slow: BTreeMap<String, u64>,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// Another address than `http`.
    at: Option<String>,
    /// Another host than all others.
    host: Option<String>,
    /// There is to be no connection.
    #[serde(default)]
    refused: bool,
    #[serde(default = "get")]
    method: String,
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Of the request.
    #[serde(default)]
    body: String,
    #[serde(default)]
    answer: Answer,
    /// So many times; once by default.
    repeat: Option<usize>,
    /// How often each demo application answered.
    #[serde(default)]
    spread: BTreeMap<String, usize>,
    /// The same demo application every time.
    #[serde(default)]
    same: bool,
    /// First until every demo application has answered.
    #[serde(default)]
    settle: bool,
    /// Until it is as it should be.
    #[serde(default)]
    eventually: bool,
}

fn get() -> String {
    "GET".to_owned()
}

/// What is not said is not looked at; a header that is `null` must not be there.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    status: Option<u16>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    /// Headers that are there, with whatever value.
    #[serde(default)]
    given: Vec<String>,
    body: Option<String>,
    /// The demo application that answered.
    endpoint: Option<String>,
    /// Path and headers as it saw them.
    #[serde(default)]
    seen: BTreeMap<String, Option<String>>,
}

impl Exchange {
    /// With a URI that is whole, for HTTP/2.
    fn request(&self, host: &str, whole: bool) -> Request<Bytes> {
        let request = Request::builder().method(&*self.method);
        let mut request = if whole {
            request.uri(format!("https://{host}{}", self.path))
        } else {
            request.uri(&self.path).header("host", host)
        };
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let body = Bytes::from(self.body.clone());
        request.body(body).expect("a request")
    }

    /// What is not as it should be.
    fn compare(&self, reply: &Reply) -> Result<(), String> {
        let answer = &self.answer;
        let differs = |what: &str, is: Option<&str>, should: Option<&str>| {
            if is == should {
                return Ok(());
            }
            Err(format!("{what} is {is:?}, not {should:?}"))
        };
        let status = answer.status.unwrap_or(200);
        if reply.status != status {
            let body = String::from_utf8_lossy(&reply.body);
            return Err(format!("{} instead of {status}: {body}", reply.status));
        }
        for (name, value) in &answer.headers {
            let is = reply
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            differs(name, is, value.as_deref())?;
        }
        if let Some(name) = answer
            .given
            .iter()
            .find(|name| !reply.headers.contains_key(*name))
        {
            return Err(format!("{name} is missing"));
        }
        if let Some(body) = &answer.body {
            let is = std::str::from_utf8(&reply.body).ok();
            differs("the body", is, Some(body))?;
        }
        if let Some(endpoint) = &answer.endpoint {
            let story: Value = reply.json()?;
            differs("the endpoint", story["endpoint"].as_str(), Some(endpoint))?;
            for (name, value) in &answer.seen {
                let is = match name.as_str() {
                    "path" => &story["path"],
                    name => &story["headers"][name],
                };
                differs(name, is.as_str(), value.as_deref())?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// Ask as often as it says.
    fn again(&self, ask: &mut dyn FnMut() -> Result<Reply, String>) -> Result<(), String> {
        let mut spread: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..self.repeat.unwrap_or(0) {
            *spread.entry(ask()?.story()?.endpoint).or_default() += 1;
        }
        let one = !self.same || spread.len() == 1;
        if one && (self.spread.is_empty() || self.spread == spread) {
            return Ok(());
        }
        Err(format!("answered by {spread:?}"))
    }
}

/// An example at addresses that no other run uses.
pub(crate) struct Example {
    pub(crate) source: PathBuf,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: String,
    _subnet: Subnet,
}

impl Example {
    pub(crate) fn new(name: &str) -> Self {
        let subnet = Subnet::hold().expect("a loopback network");
        let [a, b, c, _] = subnet.network().octets();
        let example = Example {
            source: Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../examples")
                .join(name),
            folder: tempfile::tempdir().expect("a folder"),
            host: Ipv4Addr::new(a, b, c, 9).to_string(),
            _subnet: subnet,
        };
        fs::create_dir(example.folder.path().join("bundle")).expect("a folder");
        for entry in fs::read_dir(&example.source).expect("the example") {
            let path = entry.expect("an entry").path();
            // All that a node would read there, and more.
            if path.is_file() {
                let name = path.file_name().expect("a name");
                let file = example.folder.path().join("bundle").join(name);
                fs::write(file, example.text(&path)).expect("written");
            }
        }
        example
    }

    /// A file of the example, with its own addresses in it.
    pub(crate) fn text(&self, path: &Path) -> String {
        let text = fs::read_to_string(path).expect("a file");
        text.replace("127.0.0.9", &self.host)
    }

    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Role {
        let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
        Role::start(
            program,
            args,
            &self.folder.path().join(format!("{name}.log")),
        )
    }

    /// The node `edge`.
    pub(crate) fn node(&self) -> Role {
        self.node_with(&[])
    }

    /// The same, told more.
    pub(crate) fn node_with(&self, more: &[&str]) -> Role {
        let path = |name: &str| {
            let path = self.folder.path().join(name);
            path.to_str().expect("a plain path").to_owned()
        };
        let (state, bundle) = (path("state"), path("bundle"));
        let args = [
            "node", "--state", &state, "--bundle", &bundle, "--site", "edge",
        ];
        self.start("node", &[&args[..], more].concat())
    }
}

/// Run the example's manifests at a node `edge` and play its exchanges.
fn play(name: &str) {
    let _turn = Turn::beside();
    let example = Example::new(name);
    let text = example.text(&example.source.join("expect/exchanges.json"));
    let expect: Expect = serde_json::from_str(&text).expect("JSON");
    let demos = expect.endpoints.iter().map(|(name, listen)| {
        let args = [
            "lab", "demo", "--listen", listen, "--tenant", "acme", "--site", "edge", "--name", name,
        ];
        example.start(name, &args)
    });
    let _demos: Vec<Role> = demos.collect();
    // A probe that comes before they listen would leave one out for seconds.
    for (name, listen) in &expect.endpoints {
        let connect = || TcpStream::connect(listen).map_err(|error| error.to_string());
        wait_until(name, SOON, connect);
    }
    let mut node = example.node();
    let http = expect.http.parse().expect("an address");
    let mut client = Client::new();
    let failing = expect
        .failing
        .iter()
        .map(|name| (name, "failing".to_owned()));
    let slow = expect
        .slow
        .iter()
        .map(|(name, ms)| (name, format!("slow {ms}")));
    for (name, mood) in failing.chain(slow) {
        let listen = &expect.endpoints[name];
        let mut tell = Command::new(env!("CARGO_BIN_EXE_sealane"));
        tell.args(["lab", "demo", listen]).args(mood.split(' '));
        wait_until(name, SOON, || match tell.output() {
            Ok(told) if told.status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    for (at, exchange) in expect.exchanges.iter().enumerate() {
        let what = format!("{name}: {} {}", exchange.method, exchange.path);
        // The first one waits for endpoints to be healthy.
        let waits = at == 0 || exchange.eventually;
        let patience = if waits { SOON } else { Duration::ZERO };
        let at = exchange.at.as_ref();
        let to = at.map_or(http, |at| at.parse().expect("an address"));
        let host = exchange.host.as_ref().unwrap_or(&expect.host);
        let mut ask = || -> Result<Reply, String> {
            let request = exchange.request(host, expect.tls);
            let reply = if expect.tls {
                Http2::connect(to, host)?.send(request)?
            } else {
                client.send(to, request)?
            };
            exchange.compare(&reply)?;
            Ok(reply)
        };
        if exchange.refused {
            assert!(Http2::connect(to, host).is_err(), "{what}");
            continue;
        }
        let mut answered = BTreeSet::new();
        wait_until(&what, patience, || {
            let reply = ask()?;
            if exchange.settle {
                answered.insert(reply.story()?.endpoint);
            }
            if exchange.settle && answered.len() < expect.endpoints.len() {
                return Err(format!("only {answered:?} answered"));
            }
            if exchange.eventually {
                exchange.again(&mut ask)?;
            }
            Ok(())
        });
        if !exchange.eventually {
            exchange.again(&mut ask).expect(&what);
        }
    }
    assert_eq!(node.stop(), 0, "{}", node.log());
}

#[test]
fn balance() {
    play("05-balance");
}

#[test]
fn resilience() {
    play("10-resilience");
}

#[test]
fn policies() {
    play("07-policy");
}

#[test]
fn tcp() {
    play("08-tcp");
}

#[test]
fn tls() {
    play("09-tls");
}

#[test]
fn routes() {
    play("04-routes");
}

/// A Python that has this package: the one that `.ci/run` prepares, or the system's.
pub(super) fn python(package: &str) -> Option<String> {
    let prepared = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/python/bin/python"
    );
    let has = |python: &&str| {
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {package}")]);
        import.stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    [prepared, "python3"]
        .iter()
        .find(|python| has(python))
        .map(|python| (*python).to_owned())
}

/// What is not played because somebody else's part of it is missing. Where everything has to be
/// there, that is a failure.
pub(super) fn skip(what: &str, missing: &str) {
    let all = std::env::var_os("SEALANE_REQUIRE").is_some_and(|value| value == "all");
    assert!(!all, "SEALANE_REQUIRE=all, and yet {missing} is missing");
    kit::figure(format!("skipped: {what}, since {missing} is missing"));
}

#[test]
fn grpc() {
    match python("grpc") {
        Some(python) => play_script("06-grpc", &python),
        None => skip("gRPC", "grpcio (pip install grpcio)"),
    }
}

#[test]
fn websocket() {
    match python("websockets") {
        Some(python) => play_script("11-websocket", &python),
        None => skip("WebSocket", "websockets (pip install websockets)"),
    }
}

#[test]
fn http3() {
    match python("aioquic") {
        Some(python) => play_script("12-http3", &python),
        None => skip("HTTP/3", "aioquic (pip install aioquic)"),
    }
}

#[test]
fn client_certificates() {
    match python("aioquic") {
        Some(python) => play_script("14-client-certificates", &python),
        None => skip("client certificates", "aioquic (pip install aioquic)"),
    }
}

#[test]
fn traces() {
    let Some(python) = python("http") else {
        return skip("traces", "python3");
    };
    let example = Example::new("17-traces");
    let _turn = Turn::beside();
    let collector = format!("http://{}:4318/v1/traces", example.host);
    let node = example.node_with(&["--otlp", &collector, "--otlp-ratio", "0"]);
    try_script(&example, node, &python, &[]);
}

#[test]
fn fairness() {
    let Some(python) = python("http") else {
        return skip("fairness", "python3");
    };
    let example = Example::new("13-fairness");
    // A flood is no company for other tests.
    let _turn = Turn::alone();
    try_script(&example, example.node(), &python, &[]);
}

#[test]
fn load_reports() {
    match python("http") {
        Some(python) => play_script("16-load", &python),
        None => skip("load reports", "python3"),
    }
}

/// The issuer publishes its keys, changes them, and is gone when the node starts again.
#[test]
fn keys_from_their_issuer() {
    let Some(python) = python("http") else {
        return skip("keys from their issuer", "python3");
    };
    let example = Example::new("15-jwks");
    let _turn = Turn::beside();
    try_script(&example, example.node(), &python, &[]);
    try_script(&example, example.node(), &python, &["kept"]);
}

/// Run the example's manifests at a node `edge`, and its `try.py` against it.
fn play_script(name: &str, python: &str) {
    let example = Example::new(name);
    let _turn = Turn::beside();
    try_script(&example, example.node(), python, &[]);
}

fn try_script(example: &Example, mut node: Role, python: &str, args: &[&str]) {
    // The script's endpoints are not there yet: the node is to know that first. Else it would serve what
    // it had not probed, and then hear of a probe that came before there was anything.
    let socket = example.folder.path().join("state/admin.sock");
    wait_until("the node has probed", SOON, || {
        let reply = kit::admin::ask(&socket, http::Method::GET, "/endpoints")?;
        let known: Value = reply.json()?;
        let items = known.as_array().filter(|items| !items.is_empty());
        let unknown = |item: &Value| item["health"].as_str() == Some("unknown");
        match items {
            Some(items) if !items.iter().any(unknown) => Ok(()),
            Some(_) | None => Err(known.to_string()),
        }
    });
    let script = example.source.join("try.py");
    let tried = Command::new(python)
        .arg(script)
        .arg(&example.host)
        .args(args)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&[tried.stdout, tried.stderr].concat()).into_owned();
    assert!(tried.status.success(), "{said}{}", node.log());
    assert_eq!(node.stop(), 0, "{}", node.log());
}
