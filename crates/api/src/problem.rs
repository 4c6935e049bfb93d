//! The body of every error (RFC 9457).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An error as the API, the CLI and `status` show it: what is wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// Stable, machine-readable: `unknown-field`, `bad-value`, `dangling-reference`, `conflict` …
    pub code: String,
    /// One sentence: what is wrong and what would be right.
    pub title: String,
    /// JSON Pointer (RFC 6901) to the field, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The object it is about, as its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
}

impl Problem {
    /// The media type of a problem.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// A problem without a place.
    #[must_use]
    pub fn new(status: u16, code: &str, title: impl Into<String>) -> Self {
        Problem {
            status,
            code: code.to_owned(),
            title: title.into(),
            pointer: None,
            object: None,
        }
    }

    /// 422 at `pointer`.
    #[must_use]
    pub fn field(code: &str, pointer: impl Into<String>, title: impl Into<String>) -> Self {
        Problem {
            pointer: Some(pointer.into()),
            ..Problem::new(422, code, title)
        }
    }

    /// The same problem, about `object`.
    #[must_use]
    pub fn about(self, object: impl Into<String>) -> Self {
        Problem {
            object: Some(object.into()),
            ..self
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(pointer) = &self.pointer {
            write!(f, "{pointer}: ")?;
        }
        write!(f, "{} ({})", self.title, self.code)
    }
}

impl std::error::Error for Problem {}
