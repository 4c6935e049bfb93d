//! `sealane up --script FILE`: a scenario that runs unattended.
//!
//! ```text
//! FILE ─ file (serde) ─▶ check (against the planet's plan) ─▶ Script ─ run ─▶ a line a step ─▶ 0 or 1
//! ```
//! Everything that can be known before anything is started is checked then, and all of it is told.
//! A step that cannot be done ends the script; an expectation that does not hold does not.

mod check;
mod expect;
mod file;
mod locate;
mod run;
mod tell;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use self::expect::Bounds;
use crate::{
    args::{LabArgs, Net, Shape, UpArgs},
    error::{Exit, Failure},
};

pub(super) use run::{Places, Progress, Runner};
pub(super) use tell::{Tone, Voice};

/// The longest script, in octets.
const MAX_OCTETS: usize = 256 << 10;

/// What a planet is like, as the arguments and the script say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) topology: Shape,
    pub(crate) net: Net,
    /// Each node is two processes.
    pub(crate) split: bool,
}

/// A script that was checked.
#[derive(Debug)]
pub(crate) struct Script {
    path: PathBuf,
    about: Option<String>,
    pub(crate) setting: Setting,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: Option<String>,
    line: usize,
    /// The step, for people.
    label: String,
    within: Duration,
    action: Action,
}

#[derive(Debug)]
enum Action {
    /// Manifests: name and text of each file.
    Apply(Vec<(String, String)>),
    Load(Box<Load>),
    /// Words of `sealane lab`, and what they mean.
    Lab(Vec<(String, LabArgs)>),
    Signal(Deed, Vec<String>),
    Start(Vec<String>),
    Wait(Duration),
    Until(Condition),
    Expect {
        load: String,
        /// The number of a step; the load's beginning without.
        since: Option<usize>,
        bounds: Box<Bounds>,
    },
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Kill,
    Stop,
    Pause,
    Resume,
}

#[derive(Debug)]
struct Load {
    name: String,
    to: Where,
    /// In which network the users are; this machine's without.
    from: Option<String>,
    rate: u32,
    timeout: Duration,
    status: u16,
    headers: BTreeMap<String, String>,
}

/// Whom a URL means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Where {
    /// Of the URL; an address as it stands in the script.
    authority: String,
    path: String,
    /// The PoPs that are asked; none where the URL has an address.
    at: Vec<String>,
}

#[derive(Debug)]
enum Condition {
    Answer {
        to: Where,
        status: u16,
        by: Vec<String>,
    },
    Way {
        from: String,
        /// As sites are known: `factory.acme`.
        to: String,
        over: Vec<String>,
    },
    Good {
        load: String,
        time: Duration,
    },
    Ready,
}

impl Script {
    /// Reads and checks a script.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub(crate) fn read(path: &Path, args: &UpArgs) -> Result<Self, Vec<Failure>> {
        let place = || path.display().to_string();
        let read = runtime::file::read_limited(path, MAX_OCTETS);
        let octets = read.map_err(|error| {
            let what = format!("the script cannot be read: {error}");
            vec![Failure::usage(what).at(place())]
        })?;
        let text = String::from_utf8(octets).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            vec![Failure::usage(format!("not UTF-8 text at byte {at}")).at(place())]
        })?;
        Script::parse(path, &text, args)
    }

    fn parse(path: &Path, text: &str, args: &UpArgs) -> Result<Self, Vec<Failure>> {
        let file: file::File = serde_yaml_ng::from_str(text).map_err(|error| {
            let place = error.location().map_or_else(
                || path.display().to_string(),
                |at| format!("{}:{}:{}", path.display(), at.line(), at.column()),
            );
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            vec![Failure::usage(format!("the script is not understood: {what}")).at(place)]
        })?;
        check::check(path, text, file, args)
    }

    /// Somebody ended it.
    pub(crate) fn interrupted(
        &self,
        progress: &Progress,
        json: bool,
        out: &mut dyn std::io::Write,
    ) -> Result<Exit, Failure> {
        let (ended, of) = (progress.ended.get(), self.steps.len());
        if json {
            let (script, failed) = (self.path.display().to_string(), Vec::<usize>::new());
            let line = serde_json::json!({ "script": script, "result": "interrupted",
                "steps": of, "failed": failed, "skipped": of - ended });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "\ninterrupted: {ended} of {of} steps had ended")?;
        }
        Ok(Exit::Refused)
    }

    /// Says what it is, for `--check`.
    pub(crate) fn describe(&self, out: &mut dyn std::io::Write) -> Result<Exit, Failure> {
        let place = self.path.display();
        writeln!(out, "{place}: {} steps, nothing wrong", self.steps.len())?;
        Ok(Exit::Done)
    }
}
