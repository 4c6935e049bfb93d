//! `--watch`: changes of objects as the API streams them, and what is asked for again and again.

use std::{collections::HashSet, io::Write, time::Duration};

use api::{Kind, Object, Problem};
use base::Revision;
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::{
    args::{Format, GetArgs},
    client::Client,
    error::{Exit, Failure},
    objects, text,
};

/// From one question to the next.
const PERIOD: Duration = Duration::from_millis(500);
/// The longest event, in bytes: one object and what surrounds it.
const MAX_EVENT_BYTES: usize = 2 * api::MAX_OBJECT_BYTES;

/// Does `step` once, or again and again until it fails.
pub(crate) async fn poll<F>(again: bool, out: &mut dyn Write, mut step: F) -> Result<Exit, Failure>
where
    F: AsyncFnMut(&mut dyn Write, &mut Vec<String>) -> Result<(), Failure>,
{
    let mut last = Vec::new();
    loop {
        step(out, &mut last).await?;
        if !again {
            return Ok(Exit::Done);
        }
        out.flush()?;
        tokio::time::sleep(PERIOD).await;
    }
}

/// Prints the lines that were not there before; at first all of them.
pub(crate) fn changed(
    lines: Vec<String>,
    last: &mut Vec<String>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let before: HashSet<&String> = last.iter().collect();
    for line in lines.iter().filter(|line| !before.contains(line)) {
        writeln!(out, "{line}")?;
    }
    *last = lines;
    Ok(())
}

/// Prints changes of stored objects after `after` until the stream ends.
pub(crate) async fn objects(
    client: &mut Client,
    kind: Kind,
    after: Revision,
    args: &GetArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    out.flush()?;
    let collection = objects::collection(kind, &args.selection);
    let mut events = Events::new(client.watch(&collection, after).await?);
    while let Some(event) = events.next().await? {
        let Some(change) = change(&event)? else {
            continue;
        };
        let wanted = args.name.as_deref();
        if wanted.is_some_and(|wanted| change.name() != wanted) {
            continue;
        }
        match (args.output, &change) {
            (Format::Json, _) => writeln!(out, "{}", event.data)?,
            (Format::Table | Format::Yaml, Change::Deleted { kind, name }) => {
                writeln!(out, "{kind}/{name} deleted")?;
            }
            (Format::Table, Change::Put(object)) => {
                let table = objects::table(kind, std::slice::from_ref(&**object), &[]);
                writeln!(out, "{}", table.lines().last().map_or("", String::as_str))?;
            }
            (Format::Yaml, Change::Put(object)) => write!(out, "---\n{}", text::yaml(object)?)?,
        }
        out.flush()?;
    }
    Err(Failure::unreachable("the stream of changes ended").fix("start the command again"))
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Event {
    name: String,
    data: String,
}

/// A change of a stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Put(Box<Object>),
    Deleted { kind: String, name: String },
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Change::Put(object) => object.metadata.name.as_str(),
            Change::Deleted { name, .. } => name,
        }
    }
}

/// What an event says about an object; `None` for one that this version does not know.
///
/// # Errors
/// The API ended the stream and said why, or an object is not understood.
fn change(event: &Event) -> Result<Option<Change>, Failure> {
    let wrong = |error: serde_json::Error| {
        Failure::refused(format!("a change is not understood: {error}"))
            .fix("use the sealane of the controller's version")
    };
    let value: Value = serde_json::from_str(&event.data).map_err(wrong)?;
    match event.name.as_str() {
        "put" => Ok(Some(Change::Put(Box::new(Object::from_value(value)?)))),
        "delete" => {
            let word = |pointer: &str| {
                text::shown(
                    value
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or_default(),
                )
            };
            let kind = word("/kind").to_lowercase();
            Ok(Some(Change::Deleted {
                kind,
                name: word("/metadata/name"),
            }))
        }
        "gone" => Err(serde_json::from_value::<Problem>(value)
            .map_err(wrong)?
            .into()),
        _ => Ok(None),
    }
}

/// Server-sent events (WHATWG HTML §9.2) out of a body.
struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    fn new(body: Incoming) -> Self {
        Events {
            body,
            buffer: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = take(&mut self.buffer) {
                return Ok(Some(event));
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(Failure::refused(format!(
                    "an event over {MAX_EVENT_BYTES} bytes"
                )));
            }
            let lost = |error| Failure::unreachable(format!("the stream broke: {error}"));
            match self.body.frame().await.transpose().map_err(lost)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Takes the first whole event that has data; comments and empty events are passed over.
fn take(buffer: &mut BytesMut) -> Option<Event> {
    loop {
        let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block = buffer.split_to(end + 2);
        let mut event = Event::default();
        for line in String::from_utf8_lossy(&block).lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "data" if event.data.is_empty() => value.clone_into(&mut event.data),
                "data" => event.data = format!("{}\n{value}", event.data),
                _ => {}
            }
        }
        if !event.data.is_empty() {
            return Some(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = r#"{"kind":"Tenant","metadata":{"name":"acme"},"spec":{}}"#;

    #[test]
    fn events_are_taken_whole() {
        let data = r#"{"kind":"Site","metadata":{"name":"par"}}"#;
        let text = format!(
            ": hello\n\nevent: put\nid: 7\ndata: {TENANT}\n\nevent: delete\ndata: {data}\n"
        );
        let mut buffer = BytesMut::from(text.as_bytes());
        let put = take(&mut buffer).expect("whole");
        assert_eq!(change(&put).expect("good").expect("known").name(), "acme");
        assert_eq!(take(&mut buffer), None, "its end is missing");
        buffer.extend_from_slice(b"\n");
        let deleted = change(&take(&mut buffer).expect("whole")).expect("good");
        let expected = Change::Deleted {
            kind: "site".to_owned(),
            name: "par".to_owned(),
        };
        assert_eq!(deleted, Some(expected));
    }

    #[test]
    fn the_end_says_why_and_the_unknown_is_passed_over() {
        let event = |name: &str, data: &str| Event {
            name: name.to_owned(),
            data: data.to_owned(),
        };
        let gone = event(
            "gone",
            r#"{"status":410,"code":"gone","title":"list again"}"#,
        );
        assert!(
            change(&gone)
                .expect_err("an end")
                .to_string()
                .contains("list again (gone)")
        );
        assert_eq!(change(&event("bookmark", "{}")).expect("harmless"), None);
        assert!(change(&event("put", r#"{"kind":"Moon"}"#)).is_err());
        assert!(change(&event("put", "{")).is_err());
    }

    #[test]
    fn only_changed_lines_are_printed() {
        let mut last = Vec::new();
        let mut out = Vec::new();
        changed(
            vec!["H".into(), "a up".into(), "b up".into()],
            &mut last,
            &mut out,
        )
        .expect("ok");
        changed(
            vec!["H".into(), "a up".into(), "b down".into()],
            &mut last,
            &mut out,
        )
        .expect("ok");
        assert_eq!(String::from_utf8_lossy(&out), "H\na up\nb up\nb down\n");
    }
}
