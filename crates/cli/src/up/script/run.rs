//! The steps of a script, one after the other, against a planet that runs.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use lab::{
    load::{self, Figures, Target},
    netns::Namespace,
};
use rustix::process::Signal;

use super::{
    Action, Bounds, Condition, Deed, Load, Script, Step, Where,
    tell::{Outcome, StepReport, Summary, Voice, full},
};
use crate::{
    admin, apply,
    args::LabArgs,
    client::Client,
    error::Failure,
    files,
    up::{
        hands::{Hands, Order},
        home::NODES,
        manifests,
        users::{Asking, Users},
    },
};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// When a step says that it still runs, and how often then.
const LONG: Duration = Duration::from_secs(2);
const OFTEN: Duration = Duration::from_secs(5);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing may change before what was applied is everywhere.
const SETTLED: Duration = Duration::from_millis(300);

/// Where everything is in this run.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) home: PathBuf,
    /// All sites, as `SITE.TENANT`.
    pub(crate) sites: Vec<String>,
    /// Where each PoP is asked: from this machine, and from where its users are.
    pub(crate) pops: BTreeMap<String, (SocketAddr, SocketAddr)>,
    /// The networks by name.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    /// What 127.80.1.N of the examples is, by N.
    pub(crate) hosts: Vec<Ipv4Addr>,
}

impl Places {
    fn text(&self, text: &str) -> String {
        let host = |n: u8| self.hosts.get(usize::from(n)).copied();
        manifests::text(text, &|n| host(n).unwrap_or(Ipv4Addr::UNSPECIFIED))
    }
}

/// How far a script has come, for whoever ends it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Steps that have ended.
    pub(crate) ended: Cell<usize>,
    /// Processes that ended though nobody wanted it.
    pub(crate) deaths: RefCell<Vec<String>>,
}

/// A load that runs.
#[derive(Debug)]
struct Running {
    users: Users,
    /// The number of its stretch that began with each step.
    marks: BTreeMap<usize, usize>,
}

/// Runs a script.
pub(crate) struct Runner<'a> {
    pub(crate) script: &'a Script,
    pub(crate) places: Places,
    pub(crate) hands: Hands,
    pub(crate) client: Client,
    pub(crate) voice: &'a Voice<'a>,
    pub(crate) progress: &'a Progress,
    loads: BTreeMap<String, Running>,
    /// What a condition saw last.
    seen: RefCell<String>,
}

/// What a step found.
#[derive(Debug, Default)]
struct Done {
    said: Vec<String>,
    wrong: Vec<String>,
    loads: BTreeMap<String, Figures>,
}

impl Done {
    fn said(said: impl Into<String>) -> Self {
        Done {
            said: vec![said.into()],
            ..Done::default()
        }
    }
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        script: &'a Script,
        places: Places,
        hands: Hands,
        client: Client,
        voice: &'a Voice<'a>,
        progress: &'a Progress,
    ) -> Self {
        Runner {
            script,
            places,
            hands,
            client,
            voice,
            progress,
            loads: BTreeMap::new(),
            seen: RefCell::default(),
        }
    }

    /// Everything; true if all was as expected.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub(crate) async fn run(mut self) -> Result<bool, Failure> {
        let script = self.script;
        let began = runtime::now();
        self.voice.begin(script)?;
        let mut wrong: Vec<(usize, String)> = Vec::new();
        let mut failed = Vec::new();
        for (at, step) in script.steps.iter().enumerate() {
            let (found, ends) = self.step(at, step).await?;
            self.progress.ended.set(at + 1);
            if !found.is_empty() {
                failed.push(at + 1);
            }
            wrong.extend(found.into_iter().map(|wrong| (at, wrong)));
            if ends {
                break;
            }
        }
        let of = script.steps.len();
        let ended = self.progress.ended.get();
        for (at, step) in script.steps.iter().enumerate().skip(ended) {
            self.tell(at, step, Outcome::Skipped, Duration::ZERO, Done::default())?;
        }
        let result = if failed.is_empty() {
            Outcome::Ok
        } else {
            Outcome::Failed
        };
        let summary = Summary {
            script: script.path.display().to_string(),
            about: script.about.as_deref(),
            result,
            steps: of,
            failed,
            skipped: of - ended,
            took_ms: millis(runtime::now().since(began)),
            loads: self.last_figures().await,
        };
        self.voice.summary(script, &summary, &wrong)?;
        Ok(result == Outcome::Ok)
    }

    /// One step, with its line: what is wrong, and whether the script ends with it.
    async fn step(&mut self, at: usize, step: &Step) -> Result<(Vec<String>, bool), Failure> {
        self.mark(at);
        self.seen.borrow_mut().clear();
        let began = runtime::now();
        let voice = self.voice;
        let seen = std::mem::take(&mut self.seen);
        let done = {
            let acted = tokio::time::timeout(step.within, self.act(at, step, &seen));
            tokio::pin!(acted);
            let mut next = LONG;
            loop {
                let passed = runtime::now().since(began);
                tokio::select! {
                    done = &mut acted => break done,
                    () = tokio::time::sleep(next.saturating_sub(passed)) => {
                        voice.progress(step, next, &seen.borrow());
                        next += OFTEN;
                    }
                }
            }
        };
        let took = runtime::now().since(began);
        let (mut done, ends) = match done {
            Ok(Ok(done)) => (done, false),
            Ok(Err(failure)) => {
                let told = failure.to_string();
                let told = told.trim_start_matches("error: ").replace('\n', ";");
                let wrong = vec![told.split_whitespace().collect::<Vec<_>>().join(" ")];
                (
                    Done {
                        wrong,
                        ..Done::default()
                    },
                    true,
                )
            }
            Err(_) => {
                let within = super::expect::shown(step.within);
                let last = seen.borrow();
                let last = if last.is_empty() {
                    String::new()
                } else {
                    format!("; last: {last}")
                };
                let wrong = vec![format!("not within {within}{last}")];
                (
                    Done {
                        wrong,
                        ..Done::default()
                    },
                    true,
                )
            }
        };
        if done.loads.is_empty() {
            done.loads = self.figures_since(at);
        }
        done.wrong.append(&mut self.progress.deaths.borrow_mut());
        let outcome = if done.wrong.is_empty() {
            Outcome::Ok
        } else {
            Outcome::Failed
        };
        let wrong = done.wrong.clone();
        self.tell(at, step, outcome, took, done)?;
        Ok((wrong, ends))
    }

    fn tell(
        &self,
        at: usize,
        step: &Step,
        result: Outcome,
        took: Duration,
        done: Done,
    ) -> Result<(), Failure> {
        self.voice.step(&StepReport {
            step: at + 1,
            of: self.script.steps.len(),
            name: step.name.as_deref(),
            line: step.line,
            action: &step.label,
            result,
            took_ms: millis(took),
            is_expectation: matches!(step.action, Action::Expect { .. }),
            said: done.said,
            wrong: done.wrong,
            loads: done.loads,
        })
    }

    async fn act(
        &mut self,
        at: usize,
        step: &Step,
        seen: &RefCell<String>,
    ) -> Result<Done, Failure> {
        match &step.action {
            Action::Apply(texts) => self.apply(texts, seen).await,
            Action::Load(load) => self.load(at, load).await,
            Action::Lab(lines) => self.lab(lines).await,
            Action::Signal(deed, names) => self.signal(*deed, names).await,
            Action::Start(names) => {
                let mut done = Done::default();
                for name in names {
                    let pid = self.hands.ask(Order::Again(name.clone())).await?;
                    done.said.push(format!("pid {pid}"));
                }
                Ok(done)
            }
            Action::Wait(time) => {
                tokio::time::sleep(*time).await;
                Ok(Done::default())
            }
            Action::Until(condition) => {
                let began = runtime::now();
                while let Some(missing) = self.missing(condition, began).await? {
                    *seen.borrow_mut() = missing;
                    tokio::time::sleep(POLL).await;
                }
                Ok(Done::default())
            }
            Action::Expect {
                load,
                since,
                bounds,
            } => self.expect(at, load, *since, bounds).await,
        }
    }

    async fn apply(
        &mut self,
        texts: &[(String, String)],
        seen: &RefCell<String>,
    ) -> Result<Done, Failure> {
        let mut documents = Vec::new();
        for (name, text) in texts {
            documents.extend(files::parse(name, &self.places.text(text))?);
        }
        files::sort(&mut documents);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for document in &documents {
            let applied = apply::put(&mut self.client, document, false).await?;
            *counts.entry(applied.done.word()).or_default() += 1;
        }
        let mut since = runtime::now();
        while runtime::now().since(since) < SETTLED {
            if let Some(missing) = self.lagging().await? {
                *seen.borrow_mut() = missing;
                since = runtime::now();
            }
            tokio::time::sleep(POLL).await;
        }
        let counts = counts.iter().map(|(word, n)| format!("{n} {word}"));
        Ok(Done::said(counts.collect::<Vec<_>>().join(", ")))
    }

    /// A site that is connected and does not run what it should.
    async fn lagging(&mut self) -> Result<Option<String>, Failure> {
        let sites = self.client.sites().await?;
        let connected = sites.iter().filter(|site| site.connected);
        let wanted: Vec<String> = connected.map(|site| site.site.clone()).collect();
        Ok(crate::up::ready::missing(&sites, &wanted))
    }

    async fn load(&mut self, at: usize, load: &Load) -> Result<Done, Failure> {
        let place = load.from.as_ref();
        let asking = Asking {
            name: load.name.clone(),
            targets: self.targets(&load.to, true, &load.headers),
            rate: load.rate,
            timeout_ms: millis(load.timeout),
            status: load.status,
            place: place
                .and_then(|place| self.places.namespaces.get(place))
                .cloned(),
        };
        let number = self.loads.len() + 1;
        // Its first answer shows that it asks whom it should.
        let (users, first) = Users::start(&self.places.home, number, asking, &self.hands).await?;
        let marks = BTreeMap::from([(at, 0)]);
        let running = Running { users, marks };
        self.loads.insert(load.name.clone(), running);
        let said = match first.failed {
            0 => "it is answered".to_owned(),
            _ => full(&first),
        };
        Ok(Done::said(said))
    }

    /// Whom a URL means, for users (inside) or for this machine.
    fn targets(&self, to: &Where, inside: bool, headers: &BTreeMap<String, String>) -> Vec<Target> {
        let target = |address, host: &str| Target {
            address,
            host: host.to_owned(),
            path: to.path.clone(),
            headers: headers.clone(),
        };
        if to.at.is_empty() {
            let authority = self.places.text(&to.authority);
            let address = authority
                .parse()
                .or_else(|_| format!("{authority}:80").parse());
            return address
                .map(|address| target(address, &authority))
                .into_iter()
                .collect();
        }
        let pops = to.at.iter().filter_map(|pop| self.places.pops.get(pop));
        let address =
            |(here, there): &(SocketAddr, SocketAddr)| if inside { *there } else { *here };
        pops.map(|pop| target(address(pop), &to.authority))
            .collect()
    }

    async fn lab(&self, lines: &[(String, LabArgs)]) -> Result<Done, Failure> {
        let mut done = Done::default();
        for (_, args) in lines {
            let args = LabArgs {
                home: Some(self.places.home.clone()),
                ..args.clone()
            };
            let mut out = Vec::new();
            // It would call itself: a verb holds every verb's future.
            Box::pin(crate::lab::lab(&args, &mut out)).await?;
            let text = String::from_utf8_lossy(&out);
            let text = text.trim_end();
            if text != "done" {
                done.said.push(text.to_owned());
            }
        }
        Ok(done)
    }

    async fn signal(&self, deed: Deed, names: &[String]) -> Result<Done, Failure> {
        let signal = match deed {
            Deed::Kill => Signal::KILL,
            Deed::Stop => Signal::TERM,
            Deed::Pause => Signal::STOP,
            Deed::Resume => Signal::CONT,
        };
        let mut done = Done::default();
        for name in names {
            let pid = self.hands.ask(Order::Signal(name.clone(), signal)).await?;
            done.said.push(format!("pid {pid}"));
        }
        Ok(done)
    }

    /// What a condition lacks, that is waited for since `began`.
    async fn missing(
        &mut self,
        condition: &Condition,
        began: base::Instant,
    ) -> Result<Option<String>, Failure> {
        match condition {
            Condition::Answer { to, status, by } => {
                for target in self.targets(to, false, &BTreeMap::new()) {
                    let missing = match load::ask(&target, PATIENCE).await {
                        Err(why) => Some(why),
                        Ok(answer) if answer.status.as_u16() != *status => {
                            Some(format!("status {}", answer.status.as_u16()))
                        }
                        Ok(answer) => not_by(answer.by.as_ref(), by),
                    };
                    if missing.is_some() {
                        return Ok(missing);
                    }
                }
                Ok(None)
            }
            Condition::Way { from, to, over } => {
                let state = self.places.home.join(NODES).join(from);
                // A node that is being started has no socket yet.
                Ok(match admin::way(&state, to).await {
                    Err(failure) => Some(failure.what().to_owned()),
                    Ok(way) if way == *over => None,
                    Ok(way) if way.is_empty() => Some("directly".to_owned()),
                    Ok(way) => Some(format!("over {}", way.join(" and "))),
                })
            }
            Condition::Good { load, time } => {
                let Some(running) = self.loads.get(load) else {
                    return Err(Failure::refused(format!("{load} does not run")));
                };
                let figures = running.users.figures(0, None)?;
                let is_early = runtime::now().since(began) < *time;
                let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let is_bad = figures.failed_ago_us.is_some_and(|ago| ago < time);
                let is_good = figures.good_ago_us.is_some_and(|ago| ago < time);
                let is_late = figures.waits_us >= time;
                Ok((is_early || is_bad || is_late || !is_good).then(|| full(&figures)))
            }
            Condition::Ready => {
                let sites = self.client.sites().await?;
                Ok(crate::up::ready::missing(&sites, &self.places.sites))
            }
        }
    }

    async fn expect(
        &mut self,
        at: usize,
        load: &str,
        since: Option<usize>,
        bounds: &Bounds,
    ) -> Result<Done, Failure> {
        let Some(running) = self.loads.get(load) else {
            return Err(Failure::refused(format!("{load} does not run")));
        };
        // A load that began later has no mark of that step: all of it is meant.
        let since = since.and_then(|step| running.marks.get(&step)).copied();
        let until = running.marks.get(&at).copied();
        let figures = loop {
            let figures = running.users.figures(since.unwrap_or(0), until)?;
            if figures.waiting == 0 {
                break figures;
            }
            tokio::time::sleep(POLL).await;
        };
        Ok(Done {
            said: vec![full(&figures)],
            wrong: bounds.broken(&figures),
            loads: BTreeMap::from([(load.to_owned(), figures)]),
        })
    }

    /// A step begins.
    fn mark(&mut self, at: usize) {
        for running in self.loads.values_mut() {
            // One that died is told as a death.
            if let Ok(stretch) = running.users.mark() {
                running.marks.insert(at, stretch);
            }
        }
    }

    /// What began while a step ran.
    fn figures_since(&self, at: usize) -> BTreeMap<String, Figures> {
        let loads = self.loads.iter();
        let figures = loads.filter_map(|(name, running)| {
            let since = running.marks.get(&at)?;
            let figures = running.users.figures(*since, None).ok()?;
            (figures.sent > 0).then(|| (name.clone(), figures))
        });
        figures.collect()
    }

    /// All of every load, when nothing waits any more.
    async fn last_figures(&self) -> BTreeMap<String, Figures> {
        let mut all = BTreeMap::new();
        for running in self.loads.values() {
            running.users.stop().ok();
        }
        for (name, running) in &self.loads {
            // A load gives up each request by itself.
            while let Ok(figures) = running.users.figures(0, None) {
                if figures.waiting == 0 {
                    all.insert(name.clone(), figures);
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        all
    }
}

/// Who answered, if it is none of these.
fn not_by(by: Option<&(String, String)>, wanted: &[String]) -> Option<String> {
    if wanted.is_empty() {
        return None;
    }
    let Some((endpoint, site)) = by else {
        return Some("answered by nobody who says who it is".to_owned());
    };
    let name = format!("{endpoint}.{site}");
    let is_wanted = wanted
        .iter()
        .any(|wanted| wanted == site || *wanted == name);
    (!is_wanted).then(|| format!("answered by {name}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
