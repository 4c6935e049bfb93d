//! Manifests from files, folders and standard input, all of them before the first is used.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use api::{Kind, Object, ObjectKey, manifest::MAX_FILE_BYTES};
use serde::Deserialize;

use crate::error::Failure;

/// The most files one command reads.
const MAX_FILES: usize = 10_000;
/// The deepest folder below a given one.
const MAX_DEPTH: usize = 32;

/// One document and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// `FILE, document N`.
    pub(crate) place: String,
    pub(crate) object: Object,
}

/// Reads everything that `paths` name, in the order in which it is to be applied.
///
/// # Errors
/// Every file that cannot be read or parsed, each with its place; then nothing is returned.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Vec<Failure>> {
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    for path in files(paths).map_err(|failure| vec![failure])? {
        let name = if path == Path::new("-") {
            "stdin".to_owned()
        } else {
            path.display().to_string()
        };
        match text(&path).and_then(|text| parse(&name, &text)) {
            Ok(found) => documents.extend(found),
            Err(failure) => failures.push(failure),
        }
    }
    failures.extend(twice(&documents));
    if !failures.is_empty() {
        return Err(failures);
    }
    if documents.is_empty() {
        let failure = Failure::usage("there is no document to be read")
            .fix("folders are searched for .yaml, .yml and .json");
        return Err(vec![failure]);
    }
    sort(&mut documents);
    Ok(documents)
}

/// What is referred to goes first; otherwise the order stays.
pub(crate) fn sort(documents: &mut [Document]) {
    documents.sort_by_key(|document| rank(document.object.kind));
}

/// The place of a kind in [`Kind::ALL`].
pub(crate) fn rank(kind: Kind) -> usize {
    Kind::ALL
        .iter()
        .position(|k| *k == kind)
        .unwrap_or(Kind::ALL.len())
}

/// The documents of one text.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Document>, Failure> {
    let objects = api::manifest::parse(text).map_err(|error| {
        let place = match error.document {
            0 => name.to_owned(),
            n => format!("{name}, document {n}"),
        };
        Failure::from(error.problem).at(place)
    })?;
    let numbered = numbers(text).into_iter().zip(objects);
    Ok(numbered
        .map(|(number, object)| Document {
            place: format!("{name}, document {number}"),
            object,
        })
        .collect())
}

/// The numbers, from 1, of the documents that are not empty.
fn numbers(text: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for (at, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        // The text has been parsed before: this does not fail, and has MAX_DOCUMENTS at most.
        if serde_json::Value::deserialize(document).is_ok_and(|value| !value.is_null()) {
            numbers.push(at + 1);
        }
    }
    numbers
}

fn twice(documents: &[Document]) -> Vec<Failure> {
    let mut seen: BTreeMap<ObjectKey, &str> = BTreeMap::new();
    let mut failures = Vec::new();
    for document in documents {
        if let Some(first) = seen.insert(document.object.key(), &document.place) {
            let what = format!("{} is there twice", label(&document.object));
            let failure = Failure::refused(what)
                .at(format!("{first}; {}", document.place))
                .fix("keep one of them");
            failures.push(failure);
        }
    }
    failures
}

/// `service/cart`.
pub(crate) fn label(object: &Object) -> String {
    format!(
        "{}/{}",
        object.kind.as_str().to_lowercase(),
        object.metadata.name
    )
}

/// The files that `paths` name, those in folders too.
pub(crate) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") || !path.is_dir() {
            files.push(path.clone());
        } else {
            search(path, 0, &mut files)?;
        }
    }
    Ok(files)
}

fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong = |what: String| Failure::usage(what).at(folder.display().to_string());
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)?.take(MAX_FILES) {
            found.push(entry?.path());
        }
        found.sort();
        Ok(found)
    };
    if depth > MAX_DEPTH {
        return Err(wrong(format!("folders are more than {MAX_DEPTH} deep")));
    }
    for path in read().map_err(|error| wrong(format!("the folder cannot be read: {error}")))? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            search(&path, depth + 1, files)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(wrong(format!("more than {MAX_FILES} files")));
        }
    }
    Ok(())
}

/// The text of a file of manifests.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new("-") {
        let bound = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let read = io::stdin().lock().take(bound + 1).read_to_end(&mut bytes);
        read.and_then(|_| {
            if bytes.len() > MAX_FILE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(bytes)
        })
    } else {
        runtime::file::read_limited(path, MAX_FILE_BYTES)
    };
    let place = || path.display().to_string();
    let bytes = read.map_err(|error| {
        if error.kind() == io::ErrorKind::FileTooLarge {
            let limit = MAX_FILE_BYTES >> 20;
            Failure::refused(format!("more than {limit} MiB in one file (too-large)"))
                .at(place())
                .fix("split it into several files")
        } else {
            Failure::usage(format!("the file cannot be read: {error}")).at(place())
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::refused(format!("not UTF-8 text at byte {at}")).at(place())
    })
}

#[cfg(test)]
mod tests;
