//! From what is written to what is done: everything that can be known before a planet is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use api::Span;
use http::{HeaderName, HeaderValue, Uri};
use lab::{
    load::MAX_RATE,
    topology::{Layout, Topology},
    world::{CONTROLLER, HOST},
};

use super::{
    Action, Condition, Deed, Load, Script, Setting, Step, Where,
    expect::{Bounds, shown},
    file::{self, ACTIONS, Many},
    locate::{self, At},
};
use crate::{
    args::{Net, UpArgs},
    error::Failure,
    files,
    up::{
        manifests,
        report::{control_name, endpoint_name},
        topology,
    },
};

mod words;

/// The most steps, and the most loads.
const MAX_STEPS: usize = 500;
const MAX_LOADS: usize = 8;
/// The longest wait, and the longest time to do something within.
const MAX_TIME: Duration = Duration::from_secs(3600);
/// How much a load asks, and how long it waits, unless the script says.
const RATE: u32 = 100;
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// What is wrong: the field, the sentence, and what would be right.
type Wrong = (String, String, String);

fn wrong<T>(field: &str, what: impl Into<String>, right: impl Into<String>) -> Result<T, Wrong> {
    Err((field.to_owned(), what.into(), right.into()))
}

/// What there will be, and what steps before have made.
struct Checker<'a> {
    folder: &'a Path,
    net: Net,
    topology: Topology,
    layout: Layout,
    processes: BTreeSet<String>,
    /// Numbers of steps, by name.
    names: BTreeMap<String, usize>,
    /// Loads that run.
    loads: Vec<String>,
}

pub(super) fn check(
    path: &Path,
    text: &str,
    file: file::File,
    args: &UpArgs,
) -> Result<Script, Vec<Failure>> {
    let place = |way: &[At<'_>], field: &str| {
        let line = locate::line(text, way);
        format!("{}:{line}, {field}", path.display())
    };
    let setting = setting(&file, args).map_err(|(field, what, right)| {
        let place = place(&[At::Key(&field)], &field);
        vec![Failure::usage(what).at(place).fix(right)]
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut checker = Checker::new(folder, setting).map_err(|failure| vec![failure])?;
    if !(1..=MAX_STEPS).contains(&file.steps.len()) {
        let what = format!("there are {} steps", file.steps.len());
        let right = format!("a script has 1 to {MAX_STEPS}");
        let place = place(&[At::Key("steps")], "steps");
        return Err(vec![Failure::usage(what).at(place).fix(right)]);
    }
    let mut steps = Vec::new();
    let mut failures = Vec::new();
    for (at, step) in file.steps.into_iter().enumerate() {
        let way = [At::Key("steps"), At::Index(at)];
        match checker.step(at, step, locate::line(text, &way)) {
            Ok(step) => steps.push(step),
            Err((field, what, right)) => {
                let fields = field.split('.').map(At::Key);
                let way: Vec<At<'_>> = way.into_iter().chain(fields).collect();
                let dot = if field.is_empty() { "" } else { "." };
                let place = place(&way, &format!("steps[{at}]{dot}{field}"));
                failures.push(Failure::usage(what).at(place).fix(right));
            }
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    Ok(Script {
        path: path.to_owned(),
        about: file.about,
        setting,
        steps,
    })
}

/// What the arguments and the script say together; they may not contradict each other.
fn setting(file: &file::File, args: &UpArgs) -> Result<Setting, Wrong> {
    fn both<T: Copy + Default + PartialEq + clap::ValueEnum>(
        field: &str,
        here: Option<T>,
        given: Option<T>,
    ) -> Result<T, Wrong> {
        let name = |value: T| {
            let value = value.to_possible_value();
            value.map_or_else(String::new, |value| value.get_name().to_owned())
        };
        match (here, given) {
            (Some(here), Some(given)) if here != given => {
                let (here, given) = (name(here), name(given));
                let what = format!("the script is for {here}, not for --{field} {given}");
                wrong(field, what, format!("leave --{field} out"))
            }
            (Some(value), _) | (None, Some(value)) => Ok(value),
            (None, None) => Ok(T::default()),
        }
    }
    Ok(Setting {
        topology: both("topology", file.topology, args.topology)?,
        net: both("net", file.net, args.net)?,
        split: args.split || file.split.unwrap_or(false),
    })
}

impl<'a> Checker<'a> {
    fn new(folder: &'a Path, setting: Setting) -> Result<Self, Failure> {
        let topology = topology(setting.topology);
        // Which network it will be does not matter here.
        let layout = Layout::new(&topology, Ipv4Addr::LOCALHOST)
            .map_err(|error| Failure::refused(error.to_string()))?;
        let mut processes: BTreeSet<String> = ["controller".to_owned()].into();
        let around: &[&str] = match setting.net {
            Net::Loopback => &["relay"],
            Net::Ns => &["wan", "publish"],
        };
        processes.extend(around.iter().map(|name| (*name).to_owned()));
        let gateways = topology.gateways.iter().map(|gateway| &gateway.name);
        for site in topology.pops.iter().chain(gateways) {
            processes.insert(site.clone());
            if setting.split {
                processes.insert(control_name(site));
            }
        }
        let endpoints = layout.endpoints.iter();
        processes.extend(endpoints.map(|endpoint| endpoint_name(&endpoint.name, &endpoint.site)));
        Ok(Checker {
            folder,
            net: setting.net,
            topology,
            layout,
            processes,
            names: BTreeMap::new(),
            loads: Vec::new(),
        })
    }

    fn step(&mut self, at: usize, mut step: file::Step, line: usize) -> Result<Step, Wrong> {
        let name = step.name.take().map(|name| name.to_string());
        let within = step.within.take();
        let mut actions = self.actions(name.as_deref(), step);
        let count = actions.len();
        let (label, action) = match (actions.pop(), actions.is_empty()) {
            (Some(action), true) => action?,
            (..) => {
                let what = format!("a step is one action, and this has {count}");
                return wrong("", what, format!("one of {ACTIONS}"));
            }
        };
        let within = match (within, &action) {
            (Some(_), Action::Wait(_)) => {
                let what = "a wait takes as long as it says";
                return wrong("within", what, "leave `within` out");
            }
            (Some(time), _) => self.time("within", time, MAX_TIME)?,
            (None, action) => action.patience(),
        };
        if let Some(name) = &name
            && self.names.insert(name.clone(), at).is_some()
        {
            let what = format!("two steps have the name {name}");
            return wrong("name", what, "give each a name of its own, or none");
        }
        if let (Action::Load(_), Some(name)) = (&action, &name) {
            self.loads.push(name.clone());
        }
        let label = match &name {
            Some(name) => format!("{name}: {label}"),
            None => label,
        };
        Ok(Step {
            name,
            line,
            label,
            within,
            action,
        })
    }

    /// All actions of a step, each with its label.
    fn actions(
        &self,
        name: Option<&str>,
        step: file::Step,
    ) -> Vec<Result<(String, Action), Wrong>> {
        let deeds = [
            (Deed::Kill, step.kill),
            (Deed::Stop, step.stop),
            (Deed::Pause, step.pause),
            (Deed::Resume, step.resume),
        ];
        let mut actions = Vec::new();
        actions.extend(step.apply.map(|paths| self.apply(&paths)));
        actions.extend(step.load.map(|load| self.load(name, load)));
        actions.extend(step.lab.map(|words| self.lab(&words)));
        for (deed, names) in deeds {
            actions.extend(names.map(|names| {
                let names = self.processes_named(deed.verb(), names)?;
                let label = format!("{} {}", deed.verb(), names.join(", "));
                Ok((label, Action::Signal(deed, names)))
            }));
        }
        actions.extend(step.start.map(|names| {
            let names = self.processes_named("start", names)?;
            Ok((format!("start {}", names.join(", ")), Action::Start(names)))
        }));
        actions.extend(step.wait.map(|time| {
            let time = self.time("wait", time, MAX_TIME)?;
            Ok((format!("wait {}", shown(time)), Action::Wait(time)))
        }));
        actions.extend(step.until.map(|until| self.until(until)));
        actions.extend(step.expect.map(|expect| self.expect(expect)));
        actions
    }

    fn time(&self, field: &str, Span(time): Span, most: Duration) -> Result<Duration, Wrong> {
        if time.is_zero() || time > most {
            let what = format!("{} is no time for this", shown(time));
            return wrong(field, what, format!("1ms to {}", shown(most)));
        }
        Ok(time)
    }

    fn apply(&self, Many(paths): &Many) -> Result<(String, Action), Wrong> {
        let mut texts = Vec::new();
        let told = |failure: Failure| ("apply".to_owned(), failure.to_string(), String::new());
        for path in paths {
            let path = self.folder.join(path);
            for file in files::files(&[path]).map_err(told)? {
                let name = file.display().to_string();
                let text = files::text(&file).map_err(told)?;
                let text = match self.net {
                    Net::Loopback => manifests::on_loopback(&text),
                    Net::Ns => text,
                };
                files::parse(&name, &text).map_err(told)?;
                texts.push((name, text));
            }
        }
        if texts.is_empty() {
            return wrong(
                "apply",
                "there is no manifest",
                "name files, or folders of them",
            );
        }
        Ok((format!("apply {}", paths.join(", ")), Action::Apply(texts)))
    }

    fn load(&self, name: Option<&str>, load: file::Load) -> Result<(String, Action), Wrong> {
        let Some(name) = name else {
            return wrong("", "this load has no name", "name: what `expect` calls it");
        };
        if self.loads.len() >= MAX_LOADS {
            let right = format!("ask more with one: {MAX_LOADS} loads at most");
            return wrong("load", "there are too many loads", right);
        }
        let to = self.to("load", &load.url, load.at)?;
        let from = self.from(load.from)?;
        let rate = load.rate.unwrap_or(RATE);
        if !(1..=MAX_RATE).contains(&rate) {
            let right = format!("1 to {MAX_RATE}");
            return wrong("load.rate", format!("{rate} requests a second"), right);
        }
        let timeout = load
            .timeout
            .map(|time| self.time("load.timeout", time, MAX_TIMEOUT));
        for (name, value) in &load.headers {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                let what = format!("{name:?}: {value:?} is no header");
                return wrong("load.headers", what, "a name and a value as HTTP has them");
            }
        }
        let from_where = from
            .as_ref()
            .map_or_else(String::new, |from| format!(", from {from}"));
        let label = format!("load {rate}/s {}{from_where}", to.label());
        let load = Load {
            name: name.to_owned(),
            to,
            from,
            rate,
            timeout: timeout.transpose()?.unwrap_or(TIMEOUT),
            status: self.status("load.status", load.status)?,
            headers: load.headers,
        };
        Ok((label, Action::Load(Box::new(load))))
    }

    fn status(&self, field: &str, status: Option<u16>) -> Result<u16, Wrong> {
        match status.unwrap_or(200) {
            status @ 100..=599 => Ok(status),
            status => wrong(
                field,
                format!("{status} is no status"),
                "100 to 599; 200 without it",
            ),
        }
    }

    /// Where users are.
    fn from(&self, from: Option<String>) -> Result<Option<String>, Wrong> {
        match (self.net, from) {
            (Net::Loopback, Some(_)) => {
                let what = "on loopback everybody is in one network";
                wrong("load.from", what, "net: ns, or leave `from` out")
            }
            (Net::Loopback, None) => Ok(None),
            (Net::Ns, None) => Ok(Some(HOST.to_owned())),
            (Net::Ns, Some(from)) => {
                let mut places = vec![HOST, CONTROLLER];
                places.extend(self.sites());
                self.one_of("load.from", "place", from, &places).map(Some)
            }
        }
    }

    fn sites(&self) -> impl Iterator<Item = &str> {
        let gateways = self.topology.gateways.iter().map(|gateway| &gateway.name);
        self.topology
            .pops
            .iter()
            .chain(gateways)
            .map(String::as_str)
    }

    fn one_of(
        &self,
        field: &str,
        sort: &str,
        name: String,
        known: &[&str],
    ) -> Result<String, Wrong> {
        if known.contains(&name.as_str()) {
            return Ok(name);
        }
        let right = format!("one of {}", known.join(", "));
        wrong(field, format!("there is no {sort} {name:?}"), right)
    }

    fn processes_named(&self, field: &str, Many(names): Many) -> Result<Vec<String>, Wrong> {
        let known: Vec<&str> = self.processes.iter().map(String::as_str).collect();
        if names.is_empty() {
            return wrong(field, "nobody is named", "one process or more");
        }
        let names = names.into_iter();
        names
            .map(|name| self.one_of(field, "process", name, &known))
            .collect()
    }

    fn to(&self, field: &str, url: &str, at: Option<Many>) -> Result<Where, Wrong> {
        let right = "http://HOST/PATH, or http://ADDRESS:PORT/PATH";
        let url_field = format!("{field}.url");
        let parsed: Option<Uri> = url.parse().ok();
        let parsed = parsed.filter(|uri| uri.scheme_str() == Some("http"));
        let Some((uri, authority)) = parsed.and_then(|uri| {
            let authority = uri.authority()?.clone();
            Some((uri, authority))
        }) else {
            return wrong(&url_field, format!("{url:?} is not such a URL"), right);
        };
        let is_address = authority.host().parse::<IpAddr>().is_ok();
        let at_field = format!("{field}.at");
        let at = match (is_address, at) {
            (true, Some(_)) => {
                return wrong(&at_field, "the URL says where already", "leave `at` out");
            }
            (true, None) => Vec::new(),
            (false, None) => self.topology.pops.clone(),
            (false, Some(Many(pops))) => {
                let known: Vec<&str> = self.topology.pops.iter().map(String::as_str).collect();
                if pops.is_empty() {
                    return wrong(&at_field, "nobody is named", "one PoP or more");
                }
                let pops = pops
                    .into_iter()
                    .map(|pop| self.one_of(&at_field, "PoP", pop, &known));
                pops.collect::<Result<_, _>>()?
            }
        };
        if !is_address && authority.port_u16().is_some_and(|port| port != 80) {
            return wrong(&url_field, "PoPs are asked on their port 80", right);
        }
        Ok(Where {
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            at,
        })
    }

    fn running(&self, field: &str, load: Option<String>) -> Result<String, Wrong> {
        let known: Vec<&str> = self.loads.iter().map(String::as_str).collect();
        match (load, known.as_slice()) {
            (Some(load), known) if !known.is_empty() => self.one_of(field, "load", load, known),
            (None, [only]) => Ok((*only).to_owned()),
            (_, []) => wrong(
                field,
                "no load has begun before",
                "a step with `load` comes first",
            ),
            (None, several) => {
                let right = format!("load: one of {}", several.join(", "));
                wrong(field, "which load is meant?", right)
            }
            (Some(_), _) => wrong(
                field,
                "no load has begun before",
                "a step with `load` comes first",
            ),
        }
    }

    fn until(&self, until: file::Until) -> Result<(String, Action), Wrong> {
        let file::Until {
            url,
            at,
            status,
            answered_by,
            way,
            load,
            good,
            ready,
        } = until;
        let asks = at.is_some() || status.is_some() || answered_by.is_some();
        let (label, condition) = match (url, way, good, ready) {
            (Some(url), None, None, None) if load.is_none() => {
                let to = self.to("until", &url, at)?;
                let status = self.status("until.status", status)?;
                let Many(by) = answered_by.unwrap_or_default();
                let mut label = format!("{} is answered with {status}", to.label());
                if !by.is_empty() {
                    label = format!("{label} by {}", by.join(" or "));
                }
                (label, Condition::Answer { to, status, by })
            }
            (None, Some(way), None, None) if !asks && load.is_none() => self.way(way)?,
            (None, None, Some(time), None) if !asks => {
                let load = self.running("until.load", load)?;
                let time = self.time("until.good", time, MAX_TIME)?;
                let label = format!("{load} has been good for {}", shown(time));
                (label, Condition::Good { load, time })
            }
            (None, None, None, Some(true)) if !asks && load.is_none() => {
                let label = "every site is connected and runs what it should".to_owned();
                (label, Condition::Ready)
            }
            (..) => {
                let right = "url (with at, status, answeredBy), or way, or good (with load), or \
                             ready: true";
                return wrong("until", "this is not one condition", right);
            }
        };
        Ok((format!("until {label}"), Action::Until(condition)))
    }

    fn way(&self, way: file::Way) -> Result<(String, Condition), Wrong> {
        let sites: Vec<&str> = self.sites().collect();
        let pops: Vec<&str> = self.topology.pops.iter().map(String::as_str).collect();
        let from = self.one_of("until.way.from", "site", way.from, &sites)?;
        let to = self.one_of("until.way.to", "site", way.to, &sites)?;
        let over = way.over.0.into_iter();
        let over: Result<Vec<String>, Wrong> = over
            .map(|pop| self.one_of("until.way.over", "PoP", pop, &pops))
            .collect();
        let over = over?;
        let label = match over.as_slice() {
            [] => format!("{from} reaches {to} directly"),
            some => format!("{from} reaches {to} over {}", some.join(" and ")),
        };
        let gateway = self
            .topology
            .gateways
            .iter()
            .find(|gateway| gateway.name == to);
        let to = match gateway {
            Some(gateway) => format!("{to}.{}", gateway.tenant),
            None => format!("{to}.fabric"),
        };
        Ok((label, Condition::Way { from, to, over }))
    }

    fn expect(&self, expect: file::Expect) -> Result<(String, Action), Wrong> {
        let load = self.running("expect.load", expect.load)?;
        let since = match expect.since {
            None => None,
            Some(name) => {
                let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
                let name = self.one_of("expect.since", "step before this", name, &names)?;
                Some(name)
            }
        };
        let time = |field: &str, span: Option<Span>| {
            let time = span.map(|span| self.time(&format!("expect.{field}"), span, MAX_TIME));
            time.transpose()
        };
        let bounds = Bounds {
            answers: expect.answers,
            failed: expect.failed,
            recovered: time("recovered", expect.recovered)?,
            p50: time("p50", expect.p50)?,
            p90: time("p90", expect.p90)?,
            p99: time("p99", expect.p99)?,
            slowest: time("slowest", expect.slowest)?,
            answered_by: expect.answered_by.unwrap_or_default().0,
        };
        if bounds.is_empty() {
            let right = "answers, failed, recovered, p50, p90, p99, slowest or answeredBy";
            return wrong("expect", "nothing is expected", right);
        }
        let label = match &since {
            Some(name) => format!("expect {load} since {name}"),
            None => format!("expect {load}"),
        };
        let action = Action::Expect {
            load,
            since: since.and_then(|name| self.names.get(&name).copied()),
            bounds: Box::new(bounds),
        };
        Ok((label, action))
    }
}

impl Deed {
    const fn verb(self) -> &'static str {
        match self {
            Deed::Kill => "kill",
            Deed::Stop => "stop",
            Deed::Pause => "pause",
            Deed::Resume => "resume",
        }
    }
}

impl Action {
    /// How long it may take, unless the script says.
    const fn patience(&self) -> Duration {
        match self {
            Action::Apply(_) => Duration::from_secs(30),
            Action::Load(_)
            | Action::Lab(_)
            | Action::Signal(..)
            | Action::Start(_)
            | Action::Until(_) => Duration::from_secs(10),
            // What it waits for has a limit of its own.
            Action::Wait(_) => MAX_TIME,
            Action::Expect { .. } => MAX_TIMEOUT,
        }
    }
}

impl Where {
    fn label(&self) -> String {
        let Where {
            authority,
            path,
            at,
        } = self;
        match at.as_slice() {
            [] => format!("http://{authority}{path}"),
            pops => format!("http://{authority}{path} at {}", pops.join(", ")),
        }
    }
}
