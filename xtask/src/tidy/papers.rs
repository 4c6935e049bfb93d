//! Papers and plain text: every dependency has its sentence, no file speaks of a machine.

use std::collections::BTreeSet;

use anyhow::Result;

use super::Report;
use crate::tree::Tree;

/// Where the sentences are.
const PAPER: &str = "docs/dependencies.md";

/// What appears in no file: somebody's folders. (Split, or this file would break the rule.)
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
];

pub(super) fn check(tree: &Tree, report: &mut Report) -> Result<()> {
    let wanted = workspace_dependencies(tree.text("Cargo.toml")?);
    let written: BTreeSet<&str> = tree.text(PAPER)?.lines().filter_map(subject).collect();
    for name in wanted.difference(&written) {
        report.violations.push(format!(
            "{PAPER}: {name} has no sentence (`- **{name}**: …`)"
        ));
    }
    for name in written.difference(&wanted) {
        report
            .violations
            .push(format!("{PAPER}: {name} is not a dependency any more"));
    }
    let used: BTreeSet<&str> = tree
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| !dependency.ours)
        .map(|dependency| dependency.name.as_str())
        .collect();
    for name in used.difference(&wanted) {
        report.violations.push(format!(
            "Cargo.toml: {name} is not in [workspace.dependencies]"
        ));
    }
    for name in wanted.difference(&used) {
        report.notes.push(format!("Cargo.toml: nobody uses {name}"));
    }
    for source in &tree.sources {
        machine_paths(&source.path, &source.text, report);
        let module = source.path.rsplit('/').next() == Some("mod.rs");
        if module {
            report
                .violations
                .push(format!("{}: name it after its module instead", source.path));
        }
    }
    Ok(())
}

/// The subject of a line `- **name**: sentence`.
fn subject(line: &str) -> Option<&str> {
    let (name, sentence) = line.strip_prefix("- **")?.split_once("**: ")?;
    (!sentence.trim().is_empty()).then_some(name)
}

/// The names under `[workspace.dependencies]`, our own rooms left out.
fn workspace_dependencies(manifest: &str) -> BTreeSet<&str> {
    let section = manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1);
    section
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path = "))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.starts_with('#'))
        .collect()
}

fn machine_paths(path: &str, text: &str, report: &mut Report) {
    for (number, line) in (1..).zip(text.lines()) {
        for machine in MACHINE_PATHS {
            if line.contains(machine) {
                report
                    .violations
                    .push(format!("{path}:{number}: speaks of {machine}"));
            }
        }
    }
}
