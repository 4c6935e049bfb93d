//! One request of the demo application.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{Identity, body::Download};

/// The longest body of `/control`.
const CONTROL_LIMIT: usize = 1024;

/// The longest delay that can be asked for: a minute.
const DELAY_LIMIT_MS: u64 = 60_000;

/// The longest download and the longest echo: 1 TiB.
const BODY_LIMIT: u64 = 1 << 40;

type Answer = Response<Either<Full<Bytes>, Download>>;

/// Who we are and how we feel.
#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    address: SocketAddr,
    sick: AtomicBool,
    failing: AtomicBool,
    delay_ms: AtomicU64,
}

impl State {
    pub(super) fn new(identity: Identity, address: SocketAddr) -> Self {
        State {
            identity,
            address,
            sick: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What `/` answers.
#[derive(Serialize)]
struct Story<'a> {
    #[serde(flatten)]
    identity: &'a Identity,
    address: SocketAddr,
    method: &'a str,
    path: &'a str,
    headers: BTreeMap<&'a str, String>,
}

/// What `/control` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    sick: Option<bool>,
    failing: Option<bool>,
    delay_ms: Option<u64>,
}

/// What `/echo` answers.
#[derive(Serialize)]
struct Echo {
    length: u64,
    sum: u64,
}

/// Answers one request; what is wrong with it becomes a 4xx with a sentence.
pub(super) async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    if path == "/healthz" {
        return Ok(if state.sick.load(Ordering::Relaxed) {
            text(StatusCode::SERVICE_UNAVAILABLE, "sick")
        } else {
            text(StatusCode::OK, "ok")
        });
    }
    if path == "/control" {
        return Ok(control(&state, request).await.unwrap_or_else(refuse));
    }
    let delay = state.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if state.failing.load(Ordering::Relaxed) {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "failing"));
    }
    Ok(match request.uri().path() {
        "/download" => download(request.uri().query()).unwrap_or_else(refuse),
        "/echo" => echo(request).await.unwrap_or_else(refuse),
        _ => story(&state, &request),
    })
}

fn story(state: &State, request: &Request<Incoming>) -> Answer {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let line = headers.entry(name.as_str()).or_default();
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&value);
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    json(&Story {
        identity: &state.identity,
        address: state.address,
        method: request.method().as_str(),
        path,
        headers,
    })
}

async fn control(state: &State, request: Request<Incoming>) -> Result<Answer, String> {
    if request.method() != Method::POST {
        return Err("POST a JSON object with sick, failing or delay_ms".to_owned());
    }
    let body = Limited::new(request.into_body(), CONTROL_LIMIT)
        .collect()
        .await;
    let body = body
        .map_err(|error| format!("the body could not be read: {error}"))?
        .to_bytes();
    let control: Control =
        serde_json::from_slice(&body).map_err(|error| format!("the body is not right: {error}"))?;
    if control.delay_ms.is_some_and(|ms| ms > DELAY_LIMIT_MS) {
        return Err(format!("delay_ms may be {DELAY_LIMIT_MS} at most"));
    }
    if let Some(sick) = control.sick {
        state.sick.store(sick, Ordering::Relaxed);
    }
    if let Some(failing) = control.failing {
        state.failing.store(failing, Ordering::Relaxed);
    }
    if let Some(ms) = control.delay_ms {
        state.delay_ms.store(ms, Ordering::Relaxed);
    }
    Ok(text(StatusCode::NO_CONTENT, ""))
}

fn download(query: Option<&str>) -> Result<Answer, String> {
    let (mut length, mut rate) = (0, None);
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number: u64 = value
            .parse()
            .map_err(|_| format!("{name} must be a number"))?;
        match name {
            "bytes" if number <= BODY_LIMIT => length = number,
            "rate" if number > 0 => rate = Some(number),
            _ => {
                return Err(format!(
                    "{name}={number}: use bytes (to 1 TiB) and rate (from 1)"
                ));
            }
        }
    }
    Ok(Response::new(Either::Right(Download::new(length, rate))))
}

async fn echo(request: Request<Incoming>) -> Result<Answer, String> {
    let mut body = request.into_body();
    // FNV-1a, 64 bits.
    let (mut length, mut sum) = (0_u64, 0xcbf2_9ce4_8422_2325_u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body could not be read: {error}"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.remaining() as u64;
        if length > BODY_LIMIT {
            return Err("the body is over 1 TiB".to_owned());
        }
        sum = data.iter().fold(sum, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
    Ok(json(&Echo { length, sum }))
}

fn refuse(why: String) -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, "");
    *answer.body_mut() = Either::Left(Full::from(why + "\n"));
    answer
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// Our own types always have a JSON form.
fn json(value: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    let mut answer = Response::new(Either::Left(Full::from(body)));
    let kind = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
