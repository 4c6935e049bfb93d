//! Answers and their bodies.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use api::{Object, Problem};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

/// What an answer carries.
pub(super) enum Body {
    /// Everything at once; `None` once sent.
    Whole(Option<Bytes>),
    /// Pieces as they come.
    Pieces(mpsc::Receiver<Bytes>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Pieces(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => {
                let len = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
            }
            Body::Pieces(_) => SizeHint::default(),
        }
    }
}

pub(super) fn found(object: &Object) -> Response<Body> {
    json(object)
}

pub(super) fn created(object: &Object) -> Response<Body> {
    let mut response = json(object);
    *response.status_mut() = StatusCode::CREATED;
    response
}

pub(super) fn no_content() -> Response<Body> {
    whole(StatusCode::NO_CONTENT, None, None)
}

pub(super) fn json(value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => text("application/json", bytes.into()),
        Err(error) => problem(&Problem::new(
            500,
            "internal",
            format!("the answer cannot be written: {error}"),
        )),
    }
}

pub(super) fn text(media_type: &'static str, bytes: Bytes) -> Response<Body> {
    whole(StatusCode::OK, Some(media_type), Some(bytes))
}

/// Server-sent events.
pub(super) fn events(pieces: mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Pieces(pieces));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn problem(problem: &Problem) -> Response<Body> {
    // A problem is four strings and a number: it can be written.
    let bytes = serde_json::to_vec(problem).unwrap_or_default();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = whole(status, Some(Problem::MEDIA_TYPE), Some(bytes.into()));
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

fn whole(
    status: StatusCode,
    media_type: Option<&'static str>,
    bytes: Option<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::Whole(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    response
}
