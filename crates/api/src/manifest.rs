//! Manifests: YAML or JSON, several documents a file.

mod bounded;

use std::fmt;

use serde::de::DeserializeSeed;

use self::bounded::{Bounded, Budget};
use crate::{MAX_OBJECT_BYTES, Object, Problem};

/// The most a whole file may hold, in bytes.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// The most documents a file may hold.
pub const MAX_DOCUMENTS: usize = 1000;

/// The most brackets open at a time. Reading them takes time by the square of their number.
const MAX_DEPTH: usize = 1000;

/// What is wrong with a file, and in which document (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The document, counted from 1; 0 when it is the file as a whole.
    pub document: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.document {
            0 => self.problem.fmt(f),
            n => write!(f, "document {n}: {}", self.problem),
        }
    }
}

impl std::error::Error for ManifestError {}

/// Parse all documents of a file; empty documents are passed over.
///
/// # Errors
/// The first thing that is wrong. Sizes: [`MAX_FILE_BYTES`], [`MAX_DOCUMENTS`] and
/// [`MAX_OBJECT_BYTES`] a document.
pub fn parse(text: &str) -> Result<Vec<Object>, ManifestError> {
    let whole = |code: &str, title: String| ManifestError {
        document: 0,
        problem: Problem::new(413, code, title),
    };
    if text.len() > MAX_FILE_BYTES {
        let title = format!(
            "the file has {} bytes, {MAX_FILE_BYTES} at most: split it",
            text.len()
        );
        return Err(whole("too-large", title));
    }
    if is_deep(text) {
        let title = format!("brackets are nested more than {MAX_DEPTH} deep");
        return Err(whole("bad-manifest", title));
    }
    let mut objects = Vec::new();
    for (at, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let document_number = at + 1;
        if document_number > MAX_DOCUMENTS {
            return Err(whole(
                "too-large",
                format!("more than {MAX_DOCUMENTS} documents: split the file"),
            ));
        }
        let wrong = |problem| ManifestError {
            document: document_number,
            problem,
        };
        let mut budget = Budget(MAX_OBJECT_BYTES);
        let value = Bounded(&mut budget).deserialize(document).map_err(|e| {
            wrong(if budget.0 == 0 {
                let title = format!("the resource is larger than {MAX_OBJECT_BYTES} bytes");
                Problem::new(413, "too-large", title)
            } else {
                Problem::new(422, "bad-manifest", format!("not YAML or JSON: {e}"))
            })
        })?;
        if value.is_null() {
            continue;
        }
        objects.push(Object::from_value(value).map_err(wrong)?);
        let size = serde_json::to_vec(&objects[objects.len() - 1]).map_or(usize::MAX, |v| v.len());
        if size > MAX_OBJECT_BYTES {
            let title = format!("the resource has {size} bytes, {MAX_OBJECT_BYTES} at most");
            return Err(wrong(Problem::new(413, "too-large", title)));
        }
    }
    Ok(objects)
}

/// Are there more than [`MAX_DEPTH`] brackets open anywhere, those inside of texts included?
fn is_deep(text: &str) -> bool {
    let mut open = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MAX_DEPTH
    })
}

#[cfg(test)]
mod tests;
