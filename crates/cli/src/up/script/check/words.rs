//! The words of `sealane lab` in a script.

use clap::{Parser, error::ErrorKind};

use super::{Action, Checker, Many, Wrong, wrong};
use crate::args::{
    Cli, Command, DemoArgs, LabArgs, LabCommand, Net, RelayArgs, RelayCommand, Verb,
};

const FIELD: &str = "lab";

impl Checker<'_> {
    pub(super) fn lab(&self, Many(lines): &Many) -> Result<(String, Action), Wrong> {
        if lines.is_empty() {
            return wrong(FIELD, "nothing is said", "the words of `sealane lab`");
        }
        let checked = lines.iter().map(|line| {
            let args = self.words(line)?;
            Ok((line.clone(), args))
        });
        let checked: Vec<(String, LabArgs)> = checked.collect::<Result<_, Wrong>>()?;
        Ok((format!("lab {}", lines.join(", ")), Action::Lab(checked)))
    }

    fn words(&self, line: &str) -> Result<LabArgs, Wrong> {
        let right = "`sealane lab --help` says what there is";
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() || words.iter().any(|word| word.starts_with("--home")) {
            let what = format!("{line:?} is nothing to be said here");
            return wrong(FIELD, what, "the words after `sealane lab`, without --home");
        }
        let parsed = Cli::try_parse_from(["sealane", "lab"].iter().chain(&words));
        let args = match parsed {
            Ok(Cli {
                command: Command::Verb(Verb::Lab(args)),
            }) => args,
            Ok(_) => return wrong(FIELD, format!("{line:?} is another verb"), right),
            Err(error) => return wrong(FIELD, sentence(line, &error), right),
        };
        match &args.command {
            LabCommand::Distance(command)
            | LabCommand::Relay(RelayArgs {
                config: None,
                command: Some(command),
            }) => self.distance(command)?,
            LabCommand::Demo(DemoArgs {
                listen: None,
                endpoint: Some(endpoint),
                ..
            }) => self.endpoint(endpoint)?,
            LabCommand::Restart { name } => {
                self.processes_named(FIELD, Many(vec![name.clone()]))?;
            }
            LabCommand::ResetBgp { node, .. } => {
                let sites: Vec<&str> = self.sites().collect();
                self.one_of(FIELD, "node", node.display().to_string(), &sites)?;
            }
            LabCommand::Relay(_)
            | LabCommand::Demo(_)
            | LabCommand::Wan { .. }
            | LabCommand::Publish { .. }
            | LabCommand::Load { .. }
            | LabCommand::Janitor { .. } => {
                return wrong(FIELD, format!("{line:?} is not for scripts"), right);
            }
        }
        Ok(args)
    }

    fn distance(&self, command: &RelayCommand) -> Result<(), Wrong> {
        let needs_ns = matches!(
            command,
            RelayCommand::Degrade { .. } | RelayCommand::FlushNat { .. }
        );
        if needs_ns && self.net == Net::Loopback {
            let what = "on loopback stands a relay of connections, which loses no packets";
            return wrong(FIELD, what, "net: ns");
        }
        match command {
            RelayCommand::Set { pair, .. }
            | RelayCommand::Cut { pair }
            | RelayCommand::Stall { pair }
            | RelayCommand::Degrade { pair, .. }
            | RelayCommand::Heal { pair } => {
                let lines: Vec<String> = match self.net {
                    Net::Loopback => self.layout.relays.iter().map(|pair| pair.name()).collect(),
                    Net::Ns => {
                        let lines = self.topology.round_trips.iter();
                        lines.map(|far| format!("{}-{}", far.a, far.b)).collect()
                    }
                };
                let known: Vec<&str> = lines.iter().map(String::as_str).collect();
                self.one_of(FIELD, "line", pair.clone(), &known).map(drop)
            }
            RelayCommand::FlushNat { gateway } => {
                let gateways = self.topology.gateways.iter();
                let places: Vec<String> = gateways
                    .flat_map(|gateway| [Some(gateway.name.clone()), gateway.second_place()])
                    .flatten()
                    .collect();
                let known: Vec<&str> = places.iter().map(String::as_str).collect();
                self.one_of(FIELD, "gateway", gateway.clone(), &known)
                    .map(drop)
            }
            RelayCommand::List => Ok(()),
        }
    }

    fn endpoint(&self, name: &str) -> Result<(), Wrong> {
        if name.parse::<std::net::SocketAddr>().is_ok() {
            let right = "its name, such as cart-1.aws: each run has addresses of its own";
            return wrong(FIELD, format!("{name} is an address"), right);
        }
        let known: Vec<&str> = self.processes.iter().map(String::as_str).collect();
        let known: Vec<&str> = known
            .into_iter()
            .filter(|name| self.is_endpoint(name))
            .collect();
        self.one_of(FIELD, "endpoint", name.to_owned(), &known)
            .map(drop)
    }

    fn is_endpoint(&self, process: &str) -> bool {
        let endpoints = self.layout.endpoints.iter();
        let mut names = endpoints.map(|it| super::endpoint_name(&it.name, &it.site));
        names.any(|name| name == process)
    }
}

/// What clap says, in one sentence.
fn sentence(line: &str, error: &clap::Error) -> String {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return format!("{line:?} asks for help");
    }
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or_default();
    let said = said.split("\n\nFor more").next().unwrap_or_default();
    let said = said.trim_start_matches("error: ");
    let words: Vec<&str> = said.split_whitespace().collect();
    format!("{line:?}: {}", words.join(" "))
}
