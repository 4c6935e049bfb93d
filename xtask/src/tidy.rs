//! The rules no compiler knows.

mod code;
mod edges;
mod papers;
mod paths;
mod purity;

#[cfg(test)]
mod tests;

use std::fmt;

use anyhow::{Result, ensure};

use crate::tree::Tree;

/// What tidy found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each fails the check: `path:line: sentence`.
    pub violations: Vec<String>,
    /// Worth a look, and no failure.
    pub notes: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for violation in &self.violations {
            writeln!(f, "error: {violation}")?;
        }
        Ok(())
    }
}

/// Applies every rule.
///
/// # Errors
/// A paper that holds the rules is missing or cannot be understood, or a Rust file does not
/// parse.
pub fn tidy(tree: &Tree) -> Result<Report> {
    let mut report = Report::default();
    let house = edges::House::read(tree.text("docs/architecture.md")?)?;
    edges::check(tree, &house, &mut report);
    papers::check(tree, &mut report)?;
    for (package, source) in tree.rust() {
        let file = code::File::parse(source)?;
        code::check(package, source, &file, &mut report);
        if house.engines.contains(&package.name) && file.is_production(source) {
            purity::check(source, &file, &mut report);
        }
    }
    Ok(report)
}

/// Applies every rule to the working tree and prints what was found.
///
/// # Errors
/// At least one violation.
pub fn tidy_or_fail() -> Result<()> {
    let report = tidy(&Tree::read()?)?;
    eprint!("{report}");
    let n = report.violations.len();
    ensure!(n == 0, "tidy found {n} violations");
    Ok(())
}
