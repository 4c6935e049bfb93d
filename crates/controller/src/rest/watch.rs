//! `?watch=true`: changes as server-sent events, without gaps.
//!
//! ```text
//! event: put            (or delete: then data has kind and metadata only)
//! id: 17                (the revision: where to go on after a break)
//! data: {"kind":…}
//! ```
//! A watch that lags is fed from the store's history; when that is gone too, `event: gone` ends
//! it, and the watcher lists again.

use std::{sync::Arc, time::Duration};

use api::{ObjectKey, Problem};
use base::Revision;
use bytes::Bytes;
use http::Response;
use serde_json::json;
use store::{Event, Watch, WatchError};
use tokio::sync::mpsc;

use super::{
    Rest,
    answer::{self, Body},
    target::List,
};
use crate::ledger::{OBJECTS, object_from};

/// Events waiting for a connection; full: the watch waits, and the store's history with it.
const QUEUE: usize = 16;
/// A connection that takes nothing for this long is cut.
const PATIENCE: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Answers with the changes after `after`; after now, if that is `None`.
pub(super) async fn start(
    rest: &Arc<Rest>,
    list: List,
    after: Option<Revision>,
) -> Result<Response<Body>, Problem> {
    let Ok(place) = Arc::clone(&rest.watches).try_acquire_owned() else {
        let title = "too many watches are open: close one, or try again later";
        return Err(Problem::new(429, "too-many-watches", title));
    };
    let after = after.unwrap_or(rest.ledger.state().revision);
    let watch = rest
        .ledger
        .store
        .watch(OBJECTS, after)
        .await
        .map_err(|e| gone(&e))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let task = Arc::clone(rest);
    rest.tasks.spawn("watch", async move {
        task.meters.watches.inc();
        feed(&task, watch, &list, sender).await;
        task.meters.watches.dec();
        drop(place);
    });
    Ok(answer::events(receiver))
}

async fn feed(rest: &Rest, mut watch: Watch, list: &List, sender: mpsc::Sender<Bytes>) {
    let mut keepalive = tokio::time::interval(KEEPALIVE);
    loop {
        let text = tokio::select! {
            events = watch.next() => match events {
                Ok(events) => events.iter().filter_map(|event| line(rest, list, event)).collect(),
                Err(error) => {
                    let problem = json!(gone(&error));
                    let last = format!("event: gone\ndata: {problem}\n\n");
                    // The end of the stream says the same to whoever misses this.
                    let _ = sender.send_timeout(last.into(), PATIENCE).await;
                    return;
                }
            },
            // The first tick is at once: it carries the head of the answer to the watcher.
            _ = keepalive.tick() => format!(": at revision {}\n\n", watch.position()),
            () = rest.drain.draining() => return,
            () = sender.closed() => return,
        };
        if !text.is_empty() && sender.send_timeout(text.into(), PATIENCE).await.is_err() {
            return;
        }
    }
}

/// The event as text, if it is about one of the list.
fn line(rest: &Rest, list: &List, event: &Event) -> Option<String> {
    let key: ObjectKey = event.key.strip_prefix(OBJECTS)?.parse().ok()?;
    if !list.holds(&key) {
        return None;
    }
    let (name, data) = match &event.value {
        Some(value) => {
            let object = object_from(value, event.revision).ok()?;
            ("put", json!(rest.show(object)))
        }
        None => {
            let mut data = json!({ "kind": key.kind, "metadata": { "name": key.name } });
            data["metadata"]["revision"] = json!(event.revision);
            if let Some(tenant) = &key.tenant {
                data["metadata"]["tenant"] = json!(tenant);
            }
            if let Some(namespace) = &key.namespace {
                data["metadata"]["namespace"] = json!(namespace);
            }
            ("delete", data)
        }
    };
    Some(format!(
        "event: {name}\nid: {}\ndata: {data}\n\n",
        event.revision
    ))
}

fn gone(error: &WatchError) -> Problem {
    match error {
        WatchError::Compacted { .. } | WatchError::Future { .. } => Problem::new(
            410,
            "gone",
            format!("{error}: list again and watch from there"),
        ),
        WatchError::TooMany(_) => Problem::new(429, "too-many-watches", error.to_string()),
        WatchError::Store(_) => Problem::new(503, "unavailable", base::Chain(error).to_string()),
    }
}
