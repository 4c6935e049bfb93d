//! Token: admission of a site, once.

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;

/// Admission of one node of a site. The secret is shown once, in the answer to the creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenSpec {
    /// The site it admits, of the Token's own tenant (of the fabric for a Token without tenant).
    #[schemars(with = "String")]
    pub site: Name,
    /// The node of that site it admits; may be left out where the site has one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub node: Option<Name>,
    /// How long it can be used, from its creation; an hour by default, a week at most.
    #[serde(default = "hour")]
    pub valid_for: Span,
}

fn hour() -> Span {
    Span(std::time::Duration::from_secs(3600))
}
