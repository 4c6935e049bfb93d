//! What a script says while it runs: a line a step, and a summary.

use std::{cell::RefCell, collections::BTreeMap, io::Write, time::Duration};

use lab::load::Figures;
use serde::Serialize;

use super::{Script, Step};
use crate::{error::Failure, text::micros};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Ok,
    Failed,
    /// It was not begun.
    Skipped,
}

/// One step, as `--json` has it.
#[derive(Debug, Serialize)]
pub(super) struct StepReport<'a> {
    /// Its number, from 1.
    pub(super) step: usize,
    /// How many there are.
    pub(super) of: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) line: usize,
    pub(super) action: &'a str,
    pub(super) result: Outcome,
    pub(super) took_ms: u64,
    #[serde(skip)]
    pub(super) is_expectation: bool,
    /// What it found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) said: Vec<String>,
    /// What is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) wrong: Vec<String>,
    /// What became of the requests that are meant: those that began while the step ran, or, for an
    /// expectation, those it is about.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) loads: BTreeMap<String, Figures>,
}

/// All of it, as `--json` has it.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    pub(super) script: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<&'a str>,
    pub(super) result: Outcome,
    pub(super) steps: usize,
    pub(super) failed: Vec<usize>,
    pub(super) skipped: usize,
    pub(super) took_ms: u64,
    pub(super) loads: BTreeMap<String, Figures>,
}

/// Where everything goes: lines for people, or one JSON document a line.
pub(crate) struct Voice<'a> {
    out: RefCell<&'a mut dyn Write>,
    tone: Tone,
    /// News that the live view has not shown.
    heard: RefCell<Vec<String>>,
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// People, line by line.
    Lines,
    /// Programs.
    Json,
    /// People who see the live view.
    Live,
}

impl<'a> Voice<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, tone: Tone) -> Self {
        Voice {
            out: RefCell::new(out),
            tone,
            heard: RefCell::default(),
        }
    }

    /// News of the planet. Whoever does not listen any more misses it; the planet goes on.
    pub(crate) fn news(&self, news: &str) {
        match self.tone {
            Tone::Lines => self.line(news).unwrap_or_default(),
            Tone::Json => writeln!(std::io::stderr(), "sealane up: {news}").unwrap_or_default(),
            Tone::Live => self.heard.borrow_mut().push(news.to_owned()),
        }
    }

    /// News for the live view.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.take()
    }

    fn is_json(&self) -> bool {
        self.tone == Tone::Json
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        let mut out = self.out.borrow_mut();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::refused(format!("the report has no JSON: {error}")))?;
        self.line(&text)
    }

    pub(super) fn begin(&self, script: &Script) -> Result<(), Failure> {
        if self.is_json() {
            return Ok(());
        }
        let about = script.about.as_deref().map(str::trim).unwrap_or_default();
        let (path, steps) = (script.path.display(), script.steps.len());
        self.line(&format!("\n{path}: {steps} steps"))?;
        about
            .lines()
            .try_for_each(|line| self.line(&format!("  {line}")))?;
        self.line("")
    }

    /// A step takes long.
    pub(super) fn progress(&self, step: &Step, passed: Duration, seen: &str) {
        if self.is_json() {
            return;
        }
        let seen = if seen.is_empty() {
            String::new()
        } else {
            format!(": {seen}")
        };
        let seconds = passed.as_secs();
        self.line(&format!(
            "               … {seconds} s, {}{seen}",
            step.label
        ))
        .ok();
    }

    pub(super) fn step(&self, report: &StepReport<'_>) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(report);
        }
        let width = report.of.to_string().len();
        let result = match report.result {
            Outcome::Ok => "ok     ",
            Outcome::Failed => "FAILED ",
            Outcome::Skipped => "skipped",
        };
        let (step, of, action) = (report.step, report.of, report.action);
        let took = Duration::from_millis(report.took_ms).as_secs_f64();
        let mut line = format!("{step:>width$}/{of} {result} {took:>7.3} s  {action}");
        // An expectation has said what it is about.
        let loads = report.loads.iter().filter(|_| !report.is_expectation);
        let loads = loads.map(|(name, figures)| {
            let figures = brief(figures);
            format!("{name} {figures}")
        });
        let said: Vec<String> = report.said.iter().cloned().chain(loads).collect();
        if !said.is_empty() {
            line += &format!(": {}", said.join("; "));
        }
        self.line(&line)?;
        report
            .wrong
            .iter()
            .try_for_each(|wrong| self.line(&format!("    {wrong}")))
    }

    pub(super) fn summary(
        &self,
        script: &Script,
        summary: &Summary<'_>,
        wrong: &[(usize, String)],
    ) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(summary);
        }
        let Summary {
            steps,
            failed,
            skipped,
            ..
        } = summary;
        let took = Duration::from_millis(summary.took_ms).as_secs_f64();
        self.line("")?;
        if summary.result == Outcome::Ok {
            self.line(&format!(
                "ok: {steps} steps in {took:.3} s, everything as expected"
            ))?;
        } else {
            let failed = failed.len();
            let skipped = match skipped {
                0 => String::new(),
                n => format!(", {n} not run"),
            };
            self.line(&format!(
                "FAILED: {failed} of {steps} steps{skipped}, in {took:.3} s"
            ))?;
            for (at, wrong) in wrong {
                let step = script.steps.get(*at);
                let (line, label) = step.map_or((0, ""), |step| (step.line, &*step.label));
                let (path, at) = (script.path.display(), at + 1);
                self.line(&format!("  step {at} ({path}:{line}), {label}: {wrong}"))?;
            }
        }
        for (name, figures) in &summary.loads {
            self.line(&format!("  {name}: {}", full(figures)))?;
        }
        self.line("")
    }
}

fn brief(figures: &Figures) -> String {
    let Figures { sent, failed, .. } = figures;
    let mut text = format!("{sent} asked, {failed} failed");
    if figures.good > 0 {
        text += &format!(", slowest {}", micros(figures.slowest_us));
    }
    if let Some(until) = figures.failed_until_us {
        text += &format!(", until {}", micros(until));
    }
    text
}

/// With everything that there is to be known.
pub(super) fn full(figures: &Figures) -> String {
    let mut text = brief(figures);
    if figures.good > 0 {
        let [half, most] = [figures.p50_us, figures.p99_us].map(micros);
        text += &format!(", median {half}, p99 {most}");
    }
    let sites = sites(figures);
    if !sites.is_empty() {
        text += &format!(", by {}", sites.join(", "));
    }
    let errors = figures.errors.iter();
    let errors: Vec<String> = errors.map(|(why, n)| format!("{why} × {n}")).collect();
    if !errors.is_empty() {
        text += &format!("; {}", errors.join(", "));
    }
    if figures.late_us > 50_000 {
        let late = micros(figures.late_us);
        text += &format!("; requests began up to {late} late: this machine is busy");
    }
    text
}

/// `aws 120`, the most first.
fn sites(figures: &Figures) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (by, n) in &figures.by {
        let site = by.split_once('.').map_or(by.as_str(), |(_, site)| site);
        *counts.entry(site).or_default() += n;
    }
    let mut counts: Vec<(&str, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts
        .iter()
        .map(|(site, n)| format!("{site} {n}"))
        .collect()
}
