//! What the parts of a node say to each other about the keys of token issuers, a line each on a
//! reserved stream that the data part opens.

use base::WallTime;
use serde::{Deserialize, Serialize};

/// To the data part: a key set, as it was fetched. The data part keeps it on disk in this form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fetched {
    /// Whose, as the table calls it.
    pub(crate) id: String,
    /// When.
    pub(crate) at: WallTime,
    /// The document.
    pub(crate) jwks: String,
}

/// To the control part: a token names a key that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Whose.
    pub(crate) id: String,
}
