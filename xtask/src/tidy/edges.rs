//! Who may depend on whom, read from `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::Report;
use crate::tree::{Package, Tree};

/// What no engine may depend on, whatever for: each brings a socket, a task, a file or a clock.
const SHELL_CRATES: [&str; 14] = [
    "getrandom",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "rand",
    "rusqlite",
    "rustix",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tokio-rustls",
    "tracing-subscriber",
];

/// The rules of the house.
#[derive(Debug, Default)]
pub(super) struct House {
    /// The pure rooms.
    pub(super) engines: BTreeSet<String>,
    /// Room → the rooms it may use.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl House {
    /// Reads the fenced blocks `engines` and `edges`.
    pub(super) fn read(paper: &str) -> Result<House> {
        let engines = fenced(paper, "engines")?.flat_map(str::split_whitespace);
        let mut house = House {
            engines: engines.map(str::to_owned).collect(),
            edges: BTreeMap::new(),
        };
        for line in fenced(paper, "edges")? {
            let Some((from, to)) = line.split_once('→') else {
                bail!("docs/architecture.md: `{line}` is not `ROOM → ROOM…`");
            };
            for from in from.split_whitespace() {
                let rooms = house.edges.entry(from.to_owned()).or_default();
                rooms.extend(to.split_whitespace().map(str::to_owned));
            }
        }
        Ok(house)
    }

    fn allows(&self, from: &Package, to: &str, dev: bool) -> bool {
        let listed = self
            .edges
            .get(&from.name)
            .is_some_and(|rooms| rooms.contains(to));
        to == "base" || listed || (dev && to == "kit")
    }
}

/// The lines of the block that opens with three backticks and `name`.
fn fenced<'a>(paper: &'a str, name: &str) -> Result<impl Iterator<Item = &'a str>> {
    let open = format!("```{name}");
    let mut lines = paper.lines();
    lines
        .find(|line| line.trim_end() == open)
        .with_context(|| format!("docs/architecture.md has no block `{name}`"))?;
    Ok(lines
        .take_while(|line| !line.starts_with("```"))
        .filter(|line| !line.trim().is_empty()))
}

/// Rooms follow the table; tests and chores may use any. Engines depend on no shell crate, and
/// there is one binary.
pub(super) fn check(tree: &Tree, house: &House, report: &mut Report) {
    let mut binaries = Vec::new();
    for package in &tree.packages {
        binaries.extend((package.binaries > 0).then_some(package.name.as_str()));
        let Some(room) = package.folder.strip_prefix("crates/") else {
            continue;
        };
        let manifest = format!("{}/Cargo.toml", package.folder);
        if room != package.name {
            let name = &package.name;
            report
                .violations
                .push(format!("{manifest}: package {name} must be called {room}"));
        }
        for dependency in &package.dependencies {
            let to = &dependency.name;
            if dependency.ours && !house.allows(package, to, dependency.dev) {
                report.violations.push(format!(
                    "{manifest}: the edge {room} → {to} is not in docs/architecture.md"
                ));
            }
            let shell = !dependency.ours && SHELL_CRATES.contains(&to.as_str());
            if shell && !dependency.dev && house.engines.contains(room) {
                report
                    .violations
                    .push(format!("{manifest}: the engine {room} depends on {to}"));
            }
        }
    }
    if binaries != ["sealane"] {
        report.violations.push(format!(
            "Cargo.toml: sealane must be the only package with a binary, so that plain `cargo run` \
             finds it; there are {binaries:?}"
        ));
    }
}
