//! The live view of `up` in a terminal: what a planet is like, once a second, and keys that do
//! something to it.
//!
//! ```text
//! nodes' sockets, probe load ─ each second ─▶ Picture ─ screen ─▶ terminal
//! keys ─▶ Deed ─▶ Hands, lab ─▶ measured by the probe load until traffic is right again ─▶ event
//! ```

mod screen;
mod terminal;

use std::{collections::BTreeMap, path::Path, time::Duration};

use api::derived::NodeStatus;
use base::Instant;
use lab::load::{Figures, Target};
use rustix::process::Signal;

use self::{
    screen::{Node, Picture},
    terminal::Terminal,
};
use super::{
    hands::{Hands, Order},
    home::NODES,
    script::Voice,
    users::{Asking, Users},
};
use crate::{
    admin,
    args::{LabArgs, LabCommand, RelayCommand},
    error::Failure,
    status,
    text::micros,
};

pub(super) use terminal::is_there;

/// How often the screen is drawn anew, and how often a measurement looks.
const REDRAW: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// How long a node may take to say how it is.
const PATIENCE: Duration = Duration::from_millis(300);
/// For how long everything has to be answered until traffic is right, and when it is given up.
const RIGHT: Duration = Duration::from_secs(1);
const GIVEN_UP: Duration = Duration::from_secs(60);
/// What the probe load asks a second, and how long it waits.
const RATE: u32 = 50;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Events that are kept.
const EVENTS: usize = 200;
/// What chooses.
const CHOICES: &str = "123456789abcdefghijklmnopqrstuvwxyz";

/// What there is to be looked at and done.
#[derive(Debug)]
pub(super) struct Planet {
    pub(super) title: String,
    pub(super) home: std::path::PathBuf,
    /// Nodes, by name: their sites.
    pub(super) nodes: Vec<(String, String)>,
    pub(super) endpoints: Vec<String>,
    pub(super) lines: Vec<String>,
    /// What the probe load asks, and in which network it is.
    pub(super) targets: Vec<Target>,
    pub(super) place: Option<lab::netns::Namespace>,
    pub(super) began: Instant,
}

/// What a key does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    Kill(String),
    Stop(String),
    Cut(String),
    Start(String),
    Heal(String),
}

/// What is measured now.
#[derive(Debug)]
struct Measure {
    what: String,
    stretch: usize,
    began: Instant,
}

struct View<'a> {
    planet: Planet,
    hands: Hands,
    voice: &'a Voice<'a>,
    probe: Users,
    picture: Picture,
    /// Requests that each node has had.
    counts: BTreeMap<String, (Instant, u64)>,
    choices: Vec<(char, Deed)>,
    done: Vec<Deed>,
    measure: Option<Measure>,
}

/// Shows it until somebody quits.
///
/// # Errors
/// There is no terminal, or the probe load cannot be started.
pub(super) async fn live<'a>(
    planet: Planet,
    hands: Hands,
    voice: &'a Voice<'a>,
) -> Result<(), Failure> {
    let asking = Asking {
        name: "probe".to_owned(),
        targets: planet.targets.clone(),
        rate: RATE,
        timeout_ms: u64::try_from(TIMEOUT.as_millis()).unwrap_or(u64::MAX),
        status: 200,
        place: planet.place.clone(),
    };
    let started = Users::start(&planet.home, 0, asking, &hands);
    let late = || Failure::refused("nothing is answered to the probe load");
    let started = tokio::time::timeout(GIVEN_UP, started).await;
    let (probe, _) = started.map_err(|_| late())??;
    let mut terminal = Terminal::take()
        .map_err(|error| Failure::refused(format!("the terminal cannot be used: {error}")))?;
    let picture = Picture {
        title: planet.title.clone(),
        asks: format!("{RATE} a second, every host at every PoP"),
        ..Picture::default()
    };
    let mut view = View {
        planet,
        hands,
        voice,
        probe,
        picture,
        counts: BTreeMap::new(),
        choices: Vec::new(),
        done: Vec::new(),
        measure: None,
    };
    view.event("everything is ready".to_owned());
    view.run(&mut terminal).await
}

impl View<'_> {
    async fn run(&mut self, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut redraw = tokio::time::interval(REDRAW);
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                keys = terminal.keys() => {
                    let Some(keys) = keys else {
                        return Ok(()); // nobody is there any more
                    };
                    for key in keys {
                        if self.choices.is_empty() && key == b'q' {
                            return Ok(());
                        }
                        self.press(key).await;
                    }
                }
                _ = redraw.tick() => self.update().await,
                _ = look.tick() => {
                    if !self.measured() {
                        continue;
                    }
                }
            }
            self.draw()?;
        }
    }

    fn draw(&mut self) -> Result<(), Failure> {
        self.picture.lived = runtime::now().since(self.planet.began);
        for news in self.voice.heard() {
            self.event(news);
        }
        let lines = screen::lines(&self.picture, Terminal::size());
        Ok(Terminal::show(&lines)?)
    }

    fn event(&mut self, what: String) {
        let at = runtime::now().since(self.planet.began);
        self.picture.events.push((at, what));
        let more = self.picture.events.len().saturating_sub(EVENTS);
        self.picture.events.drain(..more);
    }

    /// How everything is now.
    async fn update(&mut self) {
        let mut nodes = Vec::new();
        for (node, site) in self.planet.nodes.clone() {
            let state = self.planet.home.join(NODES).join(&node);
            let status = tokio::time::timeout(PATIENCE, admin::status(&state)).await;
            let status: Option<NodeStatus> = status.ok().and_then(Result::ok);
            let rate = match &status {
                Some(_) => self.rate(&node, &state).await,
                None => None,
            };
            nodes.push(Node {
                name: site,
                links: status.as_ref().map(status::links),
                rate,
            });
        }
        self.picture.nodes = nodes;
        if let Ok(figures) = self.probe.figures(0, None) {
            self.picture.probe = figures;
        }
    }

    /// Requests a second since the last look.
    async fn rate(&mut self, node: &str, state: &Path) -> Option<u64> {
        let asked = tokio::time::timeout(PATIENCE, admin::metrics(state)).await;
        let count = requests(&asked.ok()?.ok()?)?;
        let now = runtime::now();
        let (before, had) = self.counts.insert(node.to_owned(), (now, count))?;
        let passed = u64::try_from(now.since(before).as_millis()).ok()?.max(1);
        // One that was started again counts anew.
        Some(
            count
                .checked_sub(had)?
                .saturating_mul(1000)
                .div_ceil(passed),
        )
    }

    async fn press(&mut self, key: u8) {
        if !self.choices.is_empty() {
            let chosen = self.choices.iter().find(|(c, _)| key == *c as u8);
            let chosen = chosen.map(|(_, deed)| deed.clone());
            self.choices.clear();
            self.picture.choice = None;
            if let Some(deed) = chosen {
                self.act(deed).await;
            }
            return;
        }
        match key {
            b'e' => {
                let endpoints = self.planet.endpoints.iter().cloned();
                let deeds = endpoints.map(Deed::Kill).collect();
                self.choose("kill which endpoint?", deeds);
            }
            b'l' => {
                let deeds = self.planet.lines.iter().cloned().map(Deed::Cut).collect();
                self.choose("cut which line?", deeds);
            }
            b'c' => self.act(Deed::Stop("controller".to_owned())).await,
            b'u' => match self.done.last().map(Deed::undone) {
                Some(deed) => self.act(deed).await,
                None => self.event("there is nothing to be undone".to_owned()),
            },
            _ => {}
        }
    }

    fn choose(&mut self, question: &str, deeds: Vec<Deed>) {
        self.choices = CHOICES.chars().zip(deeds).collect();
        let names = self
            .choices
            .iter()
            .map(|(key, deed)| (*key, deed.whom().to_owned()));
        self.picture.choice = Some((question.to_owned(), names.collect()));
    }

    /// Does something, and begins to measure.
    async fn act(&mut self, deed: Deed) {
        if self.measure.is_some() {
            return self.event("wait until traffic is right again".to_owned());
        }
        let stretch = match self.probe.mark() {
            Ok(stretch) => stretch,
            Err(failure) => return self.event(failure.what().to_owned()),
        };
        let began = runtime::now();
        if let Err(failure) = self.carry_out(&deed).await {
            // Somebody else may have undone it.
            if matches!(deed, Deed::Start(_) | Deed::Heal(_)) {
                self.done.pop();
            }
            let why = failure.what();
            return self.event(format!("{}: {why}", deed.told()));
        }
        let what = deed.told();
        self.event(what.clone());
        match deed {
            Deed::Start(_) | Deed::Heal(_) => drop(self.done.pop()),
            Deed::Kill(_) | Deed::Stop(_) | Deed::Cut(_) => self.done.push(deed),
        }
        self.measure = Some(Measure {
            what,
            stretch,
            began,
        });
    }

    async fn carry_out(&self, deed: &Deed) -> Result<(), Failure> {
        let command = match deed.clone() {
            Deed::Kill(name) => {
                let order = Order::Signal(name, Signal::KILL);
                return self.hands.ask(order).await.map(drop);
            }
            Deed::Stop(name) => {
                let order = Order::Signal(name, Signal::TERM);
                return self.hands.ask(order).await.map(drop);
            }
            Deed::Start(name) => return self.hands.ask(Order::Again(name)).await.map(drop),
            Deed::Cut(pair) => RelayCommand::Cut { pair },
            Deed::Heal(pair) => RelayCommand::Heal { pair },
        };
        let args = LabArgs {
            home: Some(self.planet.home.clone()),
            command: LabCommand::Distance(command),
        };
        // It would call itself: a verb holds every verb's future.
        Box::pin(crate::lab::lab(&args, &mut std::io::sink()))
            .await
            .map(drop)
    }

    /// Looks whether traffic is right again; true if there is something new to be shown.
    fn measured(&mut self) -> bool {
        let Some(measure) = &self.measure else {
            return false;
        };
        let passed = runtime::now().since(measure.began);
        let figures = match self.probe.figures(measure.stretch, None) {
            Ok(figures) => figures,
            Err(failure) => {
                self.measure = None;
                self.picture.waits = None;
                self.event(failure.what().to_owned());
                return true;
            }
        };
        if !is_right(&figures, passed) && passed < GIVEN_UP {
            let Figures { sent, failed, .. } = figures;
            let text = format!("{}: {failed} of {sent} failed so far", measure.what);
            self.picture.waits = Some(text);
            return true;
        }
        let told = verdict(&measure.what, &figures, is_right(&figures, passed));
        self.measure = None;
        self.picture.waits = None;
        self.event(told);
        true
    }
}

/// Has everything been answered that was asked in the last while?
fn is_right(figures: &Figures, passed: Duration) -> bool {
    let right = u64::try_from(RIGHT.as_micros()).unwrap_or(u64::MAX);
    passed >= RIGHT
        && figures.failed_ago_us.is_none_or(|ago| ago >= right)
        && figures.good_ago_us.is_some_and(|ago| ago < right)
        && figures.waits_us < right
}

/// How long it took, and how many requests failed.
fn verdict(what: &str, figures: &Figures, is_right: bool) -> String {
    let Figures { sent, failed, .. } = figures;
    let slowest = micros(figures.slowest_us);
    match figures.failed_until_us {
        _ if !is_right => {
            let limit = GIVEN_UP.as_secs();
            format!("{what}: traffic is not right after {limit} s, {failed} of {sent} failed")
        }
        None => format!("{what}: 0 of {sent} failed, slowest {slowest}"),
        Some(until) => {
            let until = micros(until);
            format!(
                "{what}: right again after {until}, {failed} of {sent} failed, slowest {slowest}"
            )
        }
    }
}

/// Requests from clients, of a node's metrics.
fn requests(metrics: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix("sealane_proxy_requests_total ")?
            .parse()
            .ok()
    };
    metrics.lines().find_map(value)
}

impl Deed {
    fn whom(&self) -> &str {
        match self {
            Deed::Kill(whom)
            | Deed::Stop(whom)
            | Deed::Cut(whom)
            | Deed::Start(whom)
            | Deed::Heal(whom) => whom,
        }
    }

    fn told(&self) -> String {
        let whom = self.whom();
        match self {
            Deed::Kill(_) => format!("{whom} killed"),
            Deed::Stop(_) => format!("{whom} stopped"),
            Deed::Cut(_) => format!("{whom} cut"),
            Deed::Start(_) => format!("{whom} started again"),
            Deed::Heal(_) => format!("{whom} healed"),
        }
    }

    /// What makes it good.
    fn undone(&self) -> Deed {
        match self.clone() {
            Deed::Kill(whom) | Deed::Stop(whom) | Deed::Start(whom) => Deed::Start(whom),
            Deed::Cut(whom) | Deed::Heal(whom) => Deed::Heal(whom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_long_and_how_many() {
        let good = Figures {
            sent: 120,
            good: 117,
            failed: 3,
            slowest_us: 90_000,
            failed_until_us: Some(310_000),
            failed_ago_us: Some(2_000_000),
            good_ago_us: Some(20_000),
            ..Figures::default()
        };
        let passed = Duration::from_secs(3);
        assert!(is_right(&good, passed) && !is_right(&good, Duration::from_millis(900)));
        assert_eq!(
            verdict("aws-par cut", &good, true),
            "aws-par cut: right again after 310.0ms, 3 of 120 failed, slowest 90.0ms"
        );
        for bad in [
            Figures {
                failed_ago_us: Some(900_000),
                ..good.clone()
            },
            Figures {
                waits_us: 1_200_000,
                ..good.clone()
            },
            Figures {
                good_ago_us: None,
                ..good.clone()
            },
        ] {
            assert!(!is_right(&bad, passed), "{bad:?}");
        }
        let none = Figures {
            failed: 0,
            failed_until_us: None,
            failed_ago_us: None,
            ..good
        };
        assert_eq!(
            verdict("cart-1.aws killed", &none, true),
            "cart-1.aws killed: 0 of 120 failed, slowest 90.0ms"
        );
    }

    #[test]
    fn requests_are_counted() {
        let metrics =
            "# HELP x\nsealane_proxy_requests_total 42\nsealane_proxy_requests_total{a=\"b\"} 1\n";
        assert_eq!(requests(metrics), Some(42));
        assert_eq!(requests(""), None);
    }
}
