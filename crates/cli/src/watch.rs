//! `--watch`: changes of objects as the API streams them, and what is asked for again and again.

use std::{collections::HashSet, io::Write, time::Duration};

use api::{Kind, Object};
use base::Name;
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::{
    args::{Format, GetArgs},
    client::Client,
    error::{Exit, Failure},
    files::label,
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

/// Prints changes of stored objects until the stream ends.
pub(crate) async fn objects(
    client: &mut Client,
    kind: Kind,
    name: Option<&Name>,
    args: &GetArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let collections = objects::collections(client, kind, &args.selection).await?;
    let [collection] = collections.as_slice() else {
        return Err(Failure::usage(format!(
            "--watch follows one collection, these are {}",
            collections.len()
        ))
        .at(collections.join(", "))
        .fix("choose one with -t TENANT and -n NAMESPACE"));
    };
    out.flush()?;
    let mut events = Events::new(client.watch(collection).await?);
    while let Some(event) = events.next().await? {
        let Some(change) = change(&event) else {
            continue;
        };
        if name.is_some_and(|name| change.object.metadata.name != *name) {
            continue;
        }
        match args.output {
            Format::Table if change.deleted => writeln!(out, "{} deleted", label(&change.object))?,
            Format::Table => {
                let table = objects::table(kind, std::slice::from_ref(&change.object), &[]);
                writeln!(out, "{}", table.lines().last().map_or("", String::as_str))?;
            }
            Format::Json => writeln!(out, "{}", event.data)?,
            Format::Yaml => write!(out, "---\n{}", text::yaml(&change.object)?)?,
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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    deleted: bool,
    object: Object,
}

/// What an event says about an object; `None` for an event about something else.
fn change(event: &Event) -> Option<Change> {
    let value: Value = serde_json::from_str(&event.data).ok()?;
    let word = value.get("type").and_then(Value::as_str).unwrap_or(&event.name);
    let deleted = word.eq_ignore_ascii_case("delete") || word.eq_ignore_ascii_case("deleted");
    let object = value.get("object").cloned().unwrap_or(value.clone());
    Some(Change { deleted, object: Object::from_value(object).ok()? })
}

/// Server-sent events (WHATWG HTML §9.2) out of a body.
struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    fn new(body: Incoming) -> Self {
        Events { body, buffer: BytesMut::new() }
    }

    async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            if let Some(event) = take(&mut self.buffer) {
                return Ok(Some(event));
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(Failure::refused(format!("an event over {MAX_EVENT_BYTES} bytes")));
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
        let mut buffer = BytesMut::from(
            format!(": hello\n\nevent: put\nid: 7\ndata: {TENANT}\n\nevent: delete\ndata: {TENANT}\n")
                .as_bytes(),
        );
        let put = take(&mut buffer).expect("whole");
        assert!(!change(&put).expect("a change").deleted);
        assert_eq!(take(&mut buffer), None, "its end is missing");
        buffer.extend_from_slice(b"\n");
        assert!(change(&take(&mut buffer).expect("whole")).expect("a change").deleted);
    }

    #[test]
    fn wrapped_objects_are_understood() {
        let data = format!(r#"{{"type":"deleted","object":{TENANT}}}"#);
        let wrapped = change(&Event { name: String::new(), data }).expect("a change");
        assert!(wrapped.deleted);
        let other = Event { name: "bookmark".to_owned(), data: r#"{"revision":7}"#.to_owned() };
        assert_eq!(change(&other), None);
    }

    #[test]
    fn only_changed_lines_are_printed() {
        let mut last = Vec::new();
        let mut out = Vec::new();
        changed(vec!["H".into(), "a up".into(), "b up".into()], &mut last, &mut out).expect("ok");
        changed(vec!["H".into(), "a up".into(), "b down".into()], &mut last, &mut out).expect("ok");
        assert_eq!(String::from_utf8_lossy(&out), "H\na up\nb up\nb down\n");
    }
}
