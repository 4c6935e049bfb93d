//! The body of a request, within bounds of size and time.

use std::time::Duration;

use api::{MAX_OBJECT_BYTES, Problem};
use bytes::BytesMut;
use http::{Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde_json::Value;

/// How much of a body that is too large is read and dropped, so that its sender hears why.
const MAX_DISCARD: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The body as JSON of at most [`MAX_OBJECT_BYTES`].
pub(super) async fn read(request: Request<Incoming>) -> Result<Value, Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or("application/json");
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let title = "send the resource as application/json";
        return Err(Problem::new(415, "unsupported-media-type", title));
    }
    let late = |_| Problem::new(408, "timeout", "the body did not arrive within 30 s");
    let bytes = tokio::time::timeout(TIMEOUT, collect(request.into_body()))
        .await
        .map_err(late)??;
    serde_json::from_slice(&bytes)
        .map_err(|e| Problem::new(400, "bad-json", format!("the body is not JSON: {e}")))
}

async fn collect(mut body: Incoming) -> Result<BytesMut, Problem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_DISCARD {
        return Err(too_large());
    }
    let (mut bytes, mut total) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let broken = |e| Problem::new(400, "bad-body", format!("the body broke off: {e}"));
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        total += data.len();
        if total > MAX_DISCARD {
            break;
        }
        if total <= MAX_OBJECT_BYTES {
            bytes.extend_from_slice(&data);
        }
    }
    if total > MAX_OBJECT_BYTES {
        Err(too_large())
    } else {
        Ok(bytes)
    }
}

fn too_large() -> Problem {
    let title = format!("a resource has at most {MAX_OBJECT_BYTES} bytes: split it");
    Problem::new(413, "too-large", title)
}
