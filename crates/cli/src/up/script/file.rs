//! A script as it is written: YAML or JSON, unknown fields refused.

use std::{collections::BTreeMap, fmt};

use api::Span;
use base::Name;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::args::{Net, Shape};

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    /// What it shows; for people.
    pub(super) about: Option<String>,
    pub(super) topology: Option<Shape>,
    pub(super) net: Option<Net>,
    pub(super) split: Option<bool>,
    pub(super) steps: Vec<Step>,
}

/// One step: one of its actions, and what holds for all of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) name: Option<Name>,
    pub(super) within: Option<Span>,
    pub(super) apply: Option<Many>,
    pub(super) load: Option<Load>,
    pub(super) lab: Option<Many>,
    pub(super) kill: Option<Many>,
    pub(super) stop: Option<Many>,
    pub(super) pause: Option<Many>,
    pub(super) resume: Option<Many>,
    pub(super) start: Option<Many>,
    pub(super) wait: Option<Span>,
    pub(super) until: Option<Until>,
    pub(super) expect: Option<Expect>,
}

/// The actions, for whoever wrote none or two.
pub(super) const ACTIONS: &str =
    "apply, load, lab, kill, stop, pause, resume, start, wait, until and expect";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Load {
    pub(super) url: String,
    pub(super) at: Option<Many>,
    pub(super) from: Option<String>,
    pub(super) rate: Option<u32>,
    pub(super) timeout: Option<Span>,
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Until {
    pub(super) url: Option<String>,
    pub(super) at: Option<Many>,
    pub(super) status: Option<u16>,
    pub(super) answered_by: Option<Many>,
    pub(super) way: Option<Way>,
    pub(super) load: Option<String>,
    pub(super) good: Option<Span>,
    pub(super) ready: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Way {
    pub(super) from: String,
    pub(super) to: String,
    #[serde(default)]
    pub(super) over: Many,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expect {
    pub(super) load: Option<String>,
    pub(super) since: Option<String>,
    pub(super) answers: Option<u64>,
    pub(super) failed: Option<u64>,
    pub(super) recovered: Option<Span>,
    pub(super) p50: Option<Span>,
    pub(super) p90: Option<Span>,
    pub(super) p99: Option<Span>,
    pub(super) slowest: Option<Span>,
    pub(super) answered_by: Option<Many>,
}

/// One text, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Many(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Many;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Many, E> {
                Ok(Many(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, texts: A) -> Result<Many, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(texts)).map(Many)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
