//! What every bench says of its runs.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::number;

/// Figures of one run, in one line.
#[must_use]
pub fn line<K: Display>(figures: &BTreeMap<K, f64>) -> String {
    let words = figures.iter();
    let words = words.map(|(name, value)| format!("{name} {}", number(*value)));
    words.collect::<Vec<_>>().join(", ")
}

/// What [`crate::machine::describe`] found, as a sentence.
#[must_use]
pub fn machine(found: &Value) -> String {
    format!(
        "Machine: {} cores ({}), {} GiB, Linux {}, TCP with {}, load {} before the first run.",
        found["cores"],
        found["cpu"].as_str().unwrap_or("unknown"),
        found["memoryGiB"],
        found["kernel"].as_str().unwrap_or("unknown"),
        found["congestionControl"].as_str().unwrap_or_default(),
        found["loadAtStart"],
    )
}

/// Write `text` to standard output and, if there is to be one, the page of results to its place.
///
/// # Errors
/// Either cannot be written.
pub fn publish(text: &str, page: Option<&Path>, whole: impl FnOnce() -> String) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("writing to standard output")?;
    if let Some(page) = page {
        fs::write(page, whole()).with_context(|| format!("writing {}", page.display()))?;
        eprintln!("results: {}", page.display());
    }
    Ok(())
}
