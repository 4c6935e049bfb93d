//! Answers of our own.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use l7::{Fault, Fields, Respond};
use tokio::time::timeout;

use crate::{downstream::Client, exchange::Story, http1::Framing};

/// How long a client may take to take an answer of ours, which is short.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer of our own.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
    /// What went wrong, and whose fault that is.
    pub(crate) error: Option<(&'static str, Fault)>,
}

impl Answer {
    /// What somebody is told who does not get what he wanted.
    pub(crate) fn refusal(
        status: StatusCode,
        code: &'static str,
        reason: &'static str,
        fault: Fault,
    ) -> Self {
        let body = Bytes::from_static(reason.as_bytes());
        Answer::plain(status, body, Some((code, fault)))
    }

    fn plain(status: StatusCode, body: Bytes, error: Option<(&'static str, Fault)>) -> Self {
        let mut fields = Fields::default();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        fields.append(&header::CONTENT_TYPE, &text);
        Answer {
            status,
            fields,
            body: [&*body, b"\n"].concat().into(),
            error,
        }
    }
}

impl From<&Respond<'_>> for Answer {
    fn from(respond: &Respond<'_>) -> Self {
        if respond.wanted {
            return Answer {
                status: respond.status,
                fields: respond.fields.clone(),
                body: respond.body.clone(),
                error: None,
            };
        }
        let fault = match respond.status {
            StatusCode::SERVICE_UNAVAILABLE => Fault::Us,
            _ => Fault::Client,
        };
        let error = Some((respond.code, fault));
        Answer::plain(respond.status, respond.body.clone(), error)
    }
}

/// Give an answer of ours.
pub(crate) async fn answer(
    client: &mut Client<'_>,
    method: &Method,
    answer: Answer,
    story: &mut Story,
) {
    let Answer {
        status,
        mut fields,
        body,
        error,
    } = answer;
    story.status = status.as_u16();
    story.error = error;
    // RFC 9110 §8.6: an answer of 204 has no length, not even of nothing.
    if status != StatusCode::NO_CONTENT {
        fields.insert(&header::CONTENT_LENGTH, &HeaderValue::from(body.len()));
    }
    if let Some(elsewhere) = &story.elsewhere {
        fields.insert(&header::ALT_SVC, elsewhere);
    }
    let bodiless = method == Method::HEAD || body.is_empty();
    let framing = if bodiless {
        Framing::None
    } else {
        Framing::Length(body.len() as u64)
    };
    if client.head(status, &fields, framing).is_err() {
        client.abort();
        return;
    }
    if !bodiless {
        story.bytes_out = body.len() as u64;
        client.data(body);
        client.end(None);
    }
    let flushed = timeout(PATIENCE, poll_fn(|cx| client.poll_flush(cx))).await;
    if !matches!(flushed, Ok(Ok(()))) {
        client.abort();
    }
}
