//! `apply`, `delete` and `diff`: manifests against the API.

use std::{collections::BTreeMap, io::Write};

use api::{Object, ObjectKey, Spec};

use crate::{
    args::{ApplyArgs, DeleteArgs, DiffArgs},
    client::Client,
    context::Context,
    error::{Exit, Failure},
    files::{self, Document, label},
    objects, text,
};

type Texts = BTreeMap<String, String>;

/// What an `apply` did to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Created,
    Configured,
    Unchanged,
}

impl Done {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Done::Created => "created",
            Done::Configured => "configured",
            Done::Unchanged => "unchanged",
        }
    }
}

/// One applied object, as it is now.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) done: Done,
    pub(crate) object: Object,
}

/// `sealane apply`.
pub(crate) async fn apply(args: &ApplyArgs, out: &mut dyn Write) -> Result<Exit, Vec<Failure>> {
    let documents = files::read(&args.files)?;
    let mut client = Context::find(&args.connection)
        .and_then(Client::new)
        .map_err(one)?;
    if args.dry_run {
        return rehearse(&mut client, &documents, out).await;
    }
    for (count, document) in documents.iter().enumerate() {
        match put(&mut client, document, false).await {
            Ok(applied) => tell(&applied, false, out).map_err(|error| one(error.into()))?,
            Err(failure) => {
                let known = before(count, documents.len());
                return Err(one(failure.fix_also(&known)));
            }
        }
    }
    Ok(Exit::Done)
}

/// A dry run goes on after a refusal; what refers to something that would be new cannot be checked.
async fn rehearse(
    client: &mut Client,
    documents: &[Document],
    out: &mut dyn Write,
) -> Result<Exit, Vec<Failure>> {
    let mut failures = Vec::new();
    let mut new = 0_usize;
    for document in documents {
        let told = match put(client, document, true).await {
            Ok(applied) => {
                new += usize::from(applied.done == Done::Created);
                tell(&applied, true, out)
            }
            Err(failure) if new > 0 && failure.is("dangling-reference") => {
                new += 1; // others may refer to this one
                let (label, why) = (label(&document.object), failure.what());
                writeln!(
                    out,
                    "{label} not checked, it needs what is not there yet: {why}"
                )
            }
            Err(failure) if failure.exit() == Exit::Refused => {
                failures.push(failure);
                Ok(())
            }
            Err(failure) => {
                failures.push(failure);
                return Err(failures);
            }
        };
        told.map_err(|error| one(error.into()))?;
    }
    if failures.is_empty() {
        Ok(Exit::Done)
    } else {
        Err(failures)
    }
}

fn one(failure: Failure) -> Vec<Failure> {
    vec![failure]
}

/// What a refusal in the middle leaves behind.
fn before(applied: usize, all: usize) -> String {
    match applied {
        0 => "nothing was applied".to_owned(),
        n => format!(
            "{n} of {all} documents were applied before it (listed above), the rest were not sent; \
             `apply` again is safe, what is applied already stays unchanged"
        ),
    }
}

/// Sends one document; its revision is the server's, unless the manifest names one.
pub(crate) async fn put(
    client: &mut Client,
    document: &Document,
    dry_run: bool,
) -> Result<Applied, Failure> {
    let told = |failure: Failure| failure.at(document.place.clone());
    let before = client.read(&document.object.key()).await.map_err(told)?;
    let based_on = before.as_ref().and_then(|object| object.metadata.revision);
    let mut object = document.object.clone();
    object.status = None;
    object.metadata.revision = object.metadata.revision.or(based_on);
    let put = client.put(&object, dry_run).await.map_err(told)?;
    let done = match before {
        None => Done::Created,
        Some(_) if put.created => Done::Created,
        Some(before) if wants(&before) == wants(&put.object) => Done::Unchanged,
        Some(_) => Done::Configured,
    };
    Ok(Applied {
        done,
        object: put.object,
    })
}

/// The user's part of an object.
fn wants(object: &Object) -> (&Spec, &Texts, &Texts) {
    (
        &object.spec,
        &object.metadata.labels,
        &object.metadata.annotations,
    )
}

/// `service/cart created`; a new Token's secret on the next line, for it is shown only now.
fn tell(applied: &Applied, dry_run: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let dry = if dry_run { " (dry run)" } else { "" };
    writeln!(
        out,
        "{} {}{dry}",
        label(&applied.object),
        applied.done.word()
    )?;
    let token = applied
        .object
        .status
        .as_ref()
        .and_then(|status| status.token.as_ref());
    match token {
        Some(token) if !dry_run => {
            writeln!(out, "  shown only once, to be used once:")?;
            writeln!(out, "  sealane node --state DIR --token {token}")
        }
        Some(_) | None => Ok(()),
    }
}

/// `sealane delete`.
pub(crate) async fn delete(args: &DeleteArgs, out: &mut dyn Write) -> Result<Exit, Vec<Failure>> {
    let mut keys: Vec<ObjectKey> = Vec::new();
    if !args.files.is_empty() {
        keys = files::read(&args.files)?
            .iter()
            .map(|document| document.object.key())
            .collect();
    }
    let mut client = Context::find(&args.connection)
        .and_then(Client::new)
        .map_err(one)?;
    if let (Some(word), Some(name)) = (&args.kind, &args.name) {
        let kind = objects::kind(word).map_err(one)?;
        let found = objects::one(&mut client, kind, name, &args.selection)
            .await
            .map_err(one)?;
        keys.push(found.key());
    }
    // Who refers goes before what it refers to.
    keys.sort_by_key(|key| std::cmp::Reverse(files::rank(key.kind)));
    for key in keys {
        let deleted = client.delete(&key).await.map_err(one)?;
        let word = if deleted { "deleted" } else { "not there" };
        let kind = key.kind.as_str().to_lowercase();
        writeln!(out, "{kind}/{} {word}", key.name).map_err(|error| one(error.into()))?;
    }
    Ok(Exit::Done)
}

/// `sealane diff`.
pub(crate) async fn diff(args: &DiffArgs, out: &mut dyn Write) -> Result<Exit, Vec<Failure>> {
    let documents = files::read(&args.files)?;
    let mut client = Context::find(&args.connection)
        .and_then(Client::new)
        .map_err(one)?;
    let mut exit = Exit::Done;
    for document in &documents {
        let key = document.object.key();
        let there = client.read(&key).await.map_err(one)?;
        let old = there
            .as_ref()
            .map(comparable)
            .transpose()
            .map_err(one)?
            .unwrap_or_default();
        let new = comparable(&document.object).map_err(one)?;
        if old == new {
            continue;
        }
        exit = Exit::Refused;
        let told = write!(
            out,
            "--- {key} (there)\n+++ {}\n{}",
            document.place,
            text::diff(&old, &new)
        );
        told.map_err(|error| one(error.into()))?;
    }
    Ok(exit)
}

/// The user's part of an object as YAML, without what is never shown again.
fn comparable(object: &Object) -> Result<String, Failure> {
    let mut object = object.clone();
    let metadata = &mut object.metadata;
    (metadata.uid, metadata.id, metadata.revision) = (None, None, None);
    (metadata.created_at, metadata.updated_at) = (None, None);
    object.status = None;
    if let Spec::Certificate(spec) = &mut object.spec {
        spec.private_key = None;
    }
    text::yaml(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Object {
        files::parse("x", text).expect("parses").remove(0).object
    }

    #[test]
    fn results_are_told_and_a_token_only_once() {
        let mut object = document("kind: Token\nmetadata: {name: par}\nspec: {site: par}\n");
        let told = |object: &Object, done, dry_run| {
            let mut out = Vec::new();
            tell(
                &Applied {
                    done,
                    object: object.clone(),
                },
                dry_run,
                &mut out,
            )
            .expect("written");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            told(&object, Done::Unchanged, false),
            "token/par unchanged\n"
        );
        object.status = Some(api::Status {
            token: Some("sealane1.x".to_owned()),
            ..Default::default()
        });
        assert_eq!(
            told(&object, Done::Created, false),
            "token/par created\n  shown only once, to be used once:\n  \
             sealane node --state DIR --token sealane1.x\n"
        );
        assert_eq!(
            told(&object, Done::Created, true),
            "token/par created (dry run)\n"
        );
    }

    #[test]
    fn the_servers_fields_make_no_difference() {
        let text = "kind: Tenant\nmetadata: {name: acme}\nspec: {publicHosts: [a.example]}\n";
        let mine = document(text);
        let mut theirs = mine.clone();
        theirs.metadata.uid = Some("u".to_owned());
        theirs.metadata.revision = Some(base::Revision(7));
        theirs.status = Some(api::Status::default());
        assert_eq!(
            comparable(&mine).expect("yaml"),
            comparable(&theirs).expect("yaml")
        );
    }

    #[test]
    fn a_refusal_says_what_was_applied() {
        assert_eq!(before(0, 3), "nothing was applied");
        assert!(before(2, 3).starts_with("2 of 3 documents were applied before it"));
    }
}
