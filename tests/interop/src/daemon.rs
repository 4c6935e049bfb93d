//! One shape for every daemon: started from a [`Setup`], asked for what it has seen.

mod bird;
mod frr;
mod gobgp;
mod openbgpd;
mod sealane;

use std::{fs, net::IpAddr, path::PathBuf, process::Command};

use serde_json::Value;

use crate::{
    lab::{Node, Process, program},
    setup::{Counters, Family, Route, Seen, Setup},
};

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours: `sealane bgp`.
    Sealane,
    /// BIRD 2.
    Bird,
    /// FRRouting's bgpd, without zebra.
    Frr,
    /// GoBGP.
    Gobgp,
    /// OpenBGPD.
    Openbgpd,
}

impl Kind {
    /// The stock daemons, in the table's order.
    pub const STOCK: [Kind; 4] = [Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Openbgpd];

    /// The one that plays our part: Sealane, or whom `SEALANE_INTEROP_SPEAKER` names.
    ///
    /// # Panics
    /// It names nobody.
    #[must_use]
    pub fn speaker() -> Kind {
        let Ok(name) = std::env::var("SEALANE_INTEROP_SPEAKER") else {
            return Kind::Sealane;
        };
        let mut all = Kind::STOCK.into_iter().chain([Kind::Sealane]);
        let named = all.find(|kind| kind.name().eq_ignore_ascii_case(&name));
        named.unwrap_or_else(|| panic!("SEALANE_INTEROP_SPEAKER={name}: no such daemon"))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sealane => "Sealane",
            Kind::Bird => "BIRD",
            Kind::Frr => "FRR",
            Kind::Gobgp => "GoBGP",
            Kind::Openbgpd => "OpenBGPD",
        }
    }

    /// Its version, as it says itself.
    ///
    /// # Errors
    /// What is missing.
    pub fn version(self) -> Result<String, String> {
        let (name, arg) = match self {
            Kind::Sealane => return sealane::binary().map(|_| String::new()),
            Kind::Bird => ("bird", "--version"),
            Kind::Frr => ("bgpd", "--version"),
            Kind::Gobgp => ("gobgpd", "--version"),
            Kind::Openbgpd => ("bgpctl", "-V"),
        };
        let file = if self == Kind::Frr {
            frr::bgpd()
        } else {
            program(name)
        };
        let file = file.ok_or_else(|| format!("{} is not installed", self.name()))?;
        let output = Command::new(file).arg(arg).output();
        let output = output.map_err(|error| format!("{}: {error}", self.name()))?;
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let digits = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let version = text.split_whitespace().find(digits);
        version
            .map(str::to_owned)
            .ok_or_else(|| format!("{}: no version in {text:?}", self.name()))
    }

    /// Makes one in a node; nothing runs before [`Daemon::launch`].
    #[must_use]
    pub fn on(self, node: Node, setup: Setup) -> Box<dyn Daemon> {
        let instance = Instance {
            node,
            setup,
            process: None,
        };
        match self {
            Kind::Sealane => Box::new(sealane::Sealane(instance)),
            Kind::Bird => Box::new(bird::Bird(instance)),
            Kind::Frr => Box::new(frr::Frr(instance)),
            Kind::Gobgp => Box::new(gobgp::Gobgp(instance)),
            Kind::Openbgpd => Box::new(openbgpd::Openbgpd(instance)),
        }
    }
}

/// What all of them have.
pub struct Instance {
    node: Node,
    setup: Setup,
    process: Option<Process>,
}

impl Instance {
    /// Writes a file in the node's folder, for nobody else's eyes; where it is.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        // Whole or not at all: a daemon may be reading it after an earlier signal.
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).expect("our own folder");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&new, mode).expect("our own file");
        fs::rename(&new, &path).expect("our own file");
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.folder().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn run(&mut self, name: &str, command: Command) {
        self.process = Some(self.node.spawn(name, command));
    }

    /// Fails the test at once when the daemon has ended by itself.
    fn check(&mut self) {
        if let Some(Err(ended)) = self.process.as_mut().map(Process::check) {
            panic!("{}: {ended}", self.node.name());
        }
    }

    /// The position of a neighbour among the configured ones.
    fn position(&self, address: IpAddr) -> usize {
        let mut neighbors = self.setup.neighbors.iter();
        let found = neighbors.position(|neighbor| neighbor.address == address);
        found.expect("a configured neighbour")
    }

    /// Every family any neighbour speaks about, once.
    fn families(&self) -> Vec<Family> {
        let neighbors = self.setup.neighbors.iter();
        let mut all: Vec<Family> = neighbors.flat_map(|one| one.families.clone()).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// A BGP daemon in a node.
pub trait Daemon {
    /// Which one.
    fn kind(&self) -> Kind;

    /// What all have.
    fn instance(&mut self) -> &mut Instance;

    /// Starts it and waits until it answers; `restarting` if it is to say that it was there before
    /// (RFC 4724's restart state).
    fn launch(&mut self, restarting: bool);

    /// Whether the session with a neighbour is established.
    ///
    /// # Errors
    /// The state it is in.
    fn established(&mut self, neighbor: IpAddr) -> Result<(), String>;

    /// Whether BFD with a neighbour is up.
    ///
    /// # Errors
    /// How it is, or that this daemon does not say.
    fn sees_path(&mut self, neighbor: IpAddr) -> Result<(), String> {
        Err(format!(
            "{} is not asked about {neighbor}",
            self.kind().name()
        ))
    }

    /// Every path of a family, the best ones and the others.
    ///
    /// # Errors
    /// It does not answer.
    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String>;

    /// Originates one more route.
    fn announce(&mut self, route: &Route);

    /// Originates a route no longer.
    fn withdraw(&mut self, route: &Route);

    /// Asks a neighbour to send everything again, RFC 2918.
    ///
    /// # Errors
    /// It refuses.
    fn refresh(&mut self, neighbor: IpAddr) -> Result<(), String>;

    /// What was exchanged with a neighbour.
    ///
    /// # Errors
    /// It does not answer.
    fn counters(&mut self, neighbor: IpAddr) -> Result<Counters, String>;

    /// Kills it with SIGKILL: no goodbye.
    fn kill(&mut self) {
        if let Some(mut process) = self.instance().process.take() {
            process.kill();
        }
    }

    /// Waits until a session is established.
    fn wait_established(&mut self, neighbor: IpAddr) {
        let what = format!("{}'s session with {neighbor}", self.kind().name());
        let bound = self.instance().node.remaining();
        kit::wait_until(&what, bound, || {
            self.instance().check();
            self.established(neighbor)
        });
    }

    /// Waits until `accept` takes what it shows of a route, all its paths.
    fn wait_route(
        &mut self,
        family: Family,
        route: &str,
        accept: &dyn Fn(&[Seen]) -> bool,
    ) -> Vec<Seen> {
        let what = format!("{} {family} {route}", self.kind().name());
        let bound = self.instance().node.remaining();
        let look = || {
            self.instance().check();
            let mut paths = self.rib(family)?;
            let all = format!("{paths:?}");
            paths.retain(|path| path.route == route);
            if accept(&paths) { Ok(paths) } else { Err(all) }
        };
        kit::wait_until(&what, bound, look).0
    }
}

/// Waits until a daemon answers at all.
fn wait_answer(instance: &mut Instance, ask: &[&str]) {
    let (program, args) = ask.split_first().expect("a program");
    kit::wait_until(
        &format!("{program} answers"),
        instance.node.remaining(),
        || {
            instance.check();
            instance.node.ask(program, args)
        },
    );
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
}

/// A text field; empty if it is absent.
fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A list of texts; empty if it is absent.
fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(string).collect()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| number.try_into().ok())
}

/// An address without a distinguisher or a mapping around it.
fn plain(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => address.to_owned(),
    }
}
