//! A node's own socket: `STATE/admin.sock`, HTTP/1.1, JSON; only for the node's user.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use api::derived::{Explanation, HopView, NodeStatus, PathView, Question};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{
    args::{Format, GetArgs, WhyArgs},
    client::problem,
    context,
    error::{Exit, Failure},
    objects::hops,
    text::{self, Table},
    watch,
};

/// The socket in a node's state folder.
pub(crate) const SOCKET: &str = "admin.sock";
/// The control part's own, where a node's parts are two processes: BGP is asked there.
const CONTROL_SOCKET: &str = "control.sock";
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// `sealane get routes|neighbors|endpoints --node-state DIR`.
pub(crate) async fn get(path: &str, args: &GetArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let given = args.node_state.as_deref().ok_or_else(|| {
        Failure::usage(format!("whose {}?", args.kind))
            .at("--node-state")
            .fix("name the node's state folder, or a node of the running `up`: --node-state par")
    })?;
    let state = state_folder(given, args.connection.home.as_deref())?;
    watch::poll(args.watch, out, async |out, last: &mut Vec<String>| {
        let value = ask(&socket(&state, path), Method::GET, path, None).await?;
        match args.output {
            Format::Json => writeln!(out, "{}", text::json(&value)?)?,
            Format::Yaml => write!(out, "---\n{}", text::yaml(&value)?)?,
            Format::Table => {
                let rows = rows(&value, args.name.as_deref());
                watch::changed(Table::of_values(&rows).lines(), last, out)?;
            }
        }
        Ok(())
    })
    .await
}

/// What a node answers, once.
pub(crate) async fn look(path: &str, args: &GetArgs) -> Result<Value, Failure> {
    let given = args.node_state.as_deref().unwrap_or(Path::new("."));
    let state = state_folder(given, args.connection.home.as_deref())?;
    ask(&socket(&state, path), Method::GET, path, None).await
}

/// How a node is, as it says itself.
pub(crate) async fn status(state: &Path) -> Result<NodeStatus, Failure> {
    let body = fetch(&socket(state, "/status"), Method::GET, "/status", None).await?;
    understand(&socket(state, "/status"), &body)
}

/// What a node counts, as text.
pub(crate) async fn metrics(state: &Path) -> Result<String, Failure> {
    let octets = fetch(&socket(state, "/metrics"), Method::GET, "/metrics", None).await?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The PoPs over which a stream of a node goes now to a site, such as `factory.acme`.
pub(crate) async fn way(state: &Path, to: &str) -> Result<Vec<String>, Failure> {
    let body = fetch(&socket(state, "/paths"), Method::GET, "/paths", None).await?;
    let paths: Vec<PathView> = understand(&socket(state, "/paths"), &body)?;
    let path = paths.iter().find(|path| path.site == to);
    let path = path.ok_or_else(|| Failure::refused(format!("there is no way to {to}")))?;
    let between = path.hops.iter().filter(|hop| hop.site != to);
    let name = |hop: &HopView| hop.site.trim_end_matches(".fabric").to_owned();
    Ok(between.map(name).collect())
}

/// Which part of a node answers this.
fn socket(state: &Path, path: &str) -> PathBuf {
    let control = state.join(CONTROL_SOCKET);
    let of_bgp = ["/routes", "/neighbors", "/bgp"];
    if of_bgp.iter().any(|start| path.starts_with(start)) && control.exists() {
        return control;
    }
    state.join(SOCKET)
}

/// Resets one BGP session of a node.
pub(crate) async fn reset_bgp(
    node: &Path,
    peer: &str,
    home: Option<&Path>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let state = state_folder(node, home)?;
    if !peer
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
    {
        return Err(
            Failure::usage(format!("{peer:?} is not the id of a neighbour"))
                .fix("`sealane get neighbors` shows the ids"),
        );
    }
    let path = format!("/bgp/reset?peer={peer}");
    ask(&socket(&state, &path), Method::POST, &path, None).await?;
    writeln!(out, "done")?;
    Ok(Exit::Done)
}

/// `sealane why`.
pub(crate) async fn why(args: &WhyArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let state = state_folder(&args.node_state, args.home.as_deref())?;
    let question = Question {
        url: args.url.clone(),
        method: args.method.clone(),
        headers: args.headers.clone(),
        client: args.client,
        identity: args.identity.clone(),
    };
    let body = serde_json::to_vec(&question)
        .map_err(|error| Failure::refused(format!("the question cannot be written: {error}")))?;
    let answer = ask(&state.join(SOCKET), Method::POST, "/why", Some(body.into())).await?;
    match args.output {
        Format::Json => writeln!(out, "{}", text::json(&answer)?)?,
        Format::Yaml => write!(out, "---\n{}", text::yaml(&answer)?)?,
        Format::Table => {
            let said: Explanation = serde_json::from_value(answer).map_err(|error| {
                Failure::refused(format!("the node's answer is not understood: {error}"))
            })?;
            for step in &said.steps {
                let mark = if step.good { "ok" } else { "no" };
                writeln!(out, "{mark}  {:<9} {}", step.step, step.text)?;
            }
            for endpoint in &said.endpoints {
                let (percent, tenth) = (endpoint.per_mille / 10, endpoint.per_mille % 10);
                let mut place = format!("{} in {}", endpoint.address, endpoint.site);
                if endpoint.path.len() > 1 {
                    place += &format!(" ({})", hops(&endpoint.path));
                }
                let load = text::load(endpoint.load_per_mille, endpoint.share_per_mille);
                let load = load.map_or_else(String::new, |load| format!(", load there {load}"));
                writeln!(
                    out,
                    "    {place:<40} {percent:>3}.{tenth} %  {} in flight  {}{load}",
                    endpoint.in_flight, endpoint.why
                )?;
            }
            writeln!(out, "=>  {}", said.verdict)?;
        }
    }
    Ok(Exit::Done)
}

/// The folder that is meant: a path, or the name of a node of the `up` that is meant.
fn state_folder(given: &Path, home: Option<&Path>) -> Result<PathBuf, Failure> {
    if given.is_dir() || given.components().count() != 1 {
        return Ok(given.to_owned());
    }
    Ok(context::home(home)?.join(crate::up::NODES).join(given))
}

/// The objects of a list, wherever it is in the answer; those that hold `word`, if given.
fn rows(value: &Value, word: Option<&str>) -> Vec<Value> {
    let list = match value {
        Value::Array(items) => items.clone(),
        Value::Object(map) => match map.values().find_map(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![value.clone()],
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![value.clone()],
    };
    let wanted = |item: &Value| word.is_none_or(|word| item.to_string().contains(word));
    list.iter().flat_map(spread).filter(wanted).collect()
}

/// One row for each object of an inner list (a route's paths), with the outer fields before it.
fn spread(item: &Value) -> Vec<Value> {
    let Value::Object(outer) = item else {
        return vec![item.clone()];
    };
    let of_objects = |value: &Value| {
        value
            .as_array()
            .is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object))
    };
    let Some((inner, list)) = outer.iter().find(|(_, value)| of_objects(value)) else {
        return vec![item.clone()];
    };
    let rows = list
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_object);
    rows.map(|row| {
        let mut whole = outer.clone();
        whole.remove(inner);
        whole.extend(row.clone());
        Value::Object(whole)
    })
    .collect()
}

/// One request to a node, which answers with JSON.
async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Value, Failure> {
    let body = fetch(socket, method, path, body).await?;
    understand(socket, &body)
}

fn understand<T: DeserializeOwned>(socket: &Path, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::refused(format!("the node's answer is not understood: {error}"))
            .at(socket.display().to_string())
    })
}

/// One request to a node.
async fn fetch(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Bytes>,
) -> Result<Bytes, Failure> {
    let place = socket.display().to_string();
    let lost = |why: String| {
        Failure::unreachable(format!("the node does not answer: {why}"))
            .at(place.clone())
            .fix("is the node running, under this user, with this --state folder?")
    };
    let asking = async {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| lost(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| lost(e.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "node")
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|e| lost(e.to_string()))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| lost(e.to_string()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            Ok::<_, Failure>((status, body.map_err(|e| lost(e.to_string()))?.to_bytes()))
        };
        // The connection has to be driven; the answer comes first.
        tokio::pin!(answer);
        tokio::select! {
            answered = &mut answer => answered,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(lost(error.to_string())),
            },
        }
    };
    let (status, body) = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| lost(format!("nothing within {} s", PATIENCE.as_secs())))??;
    if !status.is_success() {
        return Err(problem(status, &format!("{place}{path}"), &body));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn lists_are_found_and_filtered() {
        let value = json!({"revision": 7, "routes": [{"key": "a"}, {"key": "b"}]});
        assert_eq!(rows(&value, None).len(), 2);
        assert_eq!(rows(&value, Some("b")), [json!({"key": "b"})]);
        assert_eq!(rows(&json!({"up": true}), None), [json!({"up": true})]);
        let nested = json!({"items": [{"key": "a", "paths": [{"from": 1}, {"from": 2}]}]});
        let expected = [
            json!({"key": "a", "from": 1}),
            json!({"key": "a", "from": 2}),
        ];
        assert_eq!(rows(&nested, None), expected);
    }

    #[tokio::test]
    async fn a_node_is_asked_over_its_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(SOCKET);
        let missing = ask(&path, Method::GET, "/routes", None)
            .await
            .expect_err("no socket");
        assert_eq!(missing.exit().code(), 3);
        let listener = tokio::net::UnixListener::bind(&path).expect("bound");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut head = vec![0; 1024];
            let n = stream.read(&mut head).await.expect("read");
            assert!(head[..n].starts_with(b"GET /routes HTTP/1.1\r\n"));
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"routes\":[]}";
            stream.write_all(answer.as_bytes()).await.expect("written");
        };
        let (value, ()) = tokio::join!(ask(&path, Method::GET, "/routes", None), serve);
        assert_eq!(value.expect("an answer"), json!({"routes": []}));
    }
}
