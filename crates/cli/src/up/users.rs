//! A load that runs: a process of the planet, told and asked over its socket.

use std::path::{Path, PathBuf};

use lab::{
    load::{self, Command, Config, Figures, Reply},
    netns::Namespace,
};

use super::{
    POLL,
    hands::{Hands, Order},
    process::Spec,
};
use crate::error::Failure;

/// What a load is, but for where it is told.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) name: String,
    pub(super) targets: Vec<load::Target>,
    pub(super) rate: u32,
    pub(super) timeout_ms: u64,
    pub(super) status: u16,
    /// In which network the users are; this machine's without.
    pub(super) place: Option<Namespace>,
}

/// Users of a planet.
#[derive(Debug)]
pub(super) struct Users {
    socket: PathBuf,
}

impl Users {
    /// Has them begin; `number` tells their files from those of others in this home. Returns what
    /// became of the first one's request, for which it waits.
    pub(super) async fn start(
        home: &Path,
        number: usize,
        asking: Asking,
        hands: &Hands,
    ) -> Result<(Self, Figures), Failure> {
        let Asking {
            name,
            targets,
            rate,
            timeout_ms,
            status,
            place,
        } = asking;
        let socket = home.join(format!("load-{number}.sock"));
        std::fs::remove_file(&socket).ok(); // of an earlier run in this home
        let config = Config {
            control: socket.clone(),
            targets,
            rate,
            timeout_ms,
            status,
        };
        let path = home.join(format!("load-{number}.json"));
        let wrong =
            |error: std::io::Error| Failure::refused(format!("the load's configuration: {error}"));
        let text = serde_json::to_vec_pretty(&config).map_err(|error| wrong(error.into()))?;
        runtime::file::write_atomic(&path, &text, 0o600).map_err(wrong)?;
        let name = format!("load.{name}");
        let spec = Spec {
            log: home.join("logs").join(format!("{name}.log")),
            name,
            args: vec!["lab".into(), "load".into(), path.into()],
            place,
            carries: false,
        };
        hands.ask(Order::Start(Box::new(spec))).await?;
        let users = Users { socket };
        loop {
            match users.figures(0, None) {
                Ok(figures) if figures.good + figures.failed > 0 => return Ok((users, figures)),
                Ok(_) | Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn ask(&self, command: &Command) -> Result<Reply, Failure> {
        let asked = load::command(&self.socket, command);
        let wrong = |why: String| Failure::refused(format!("the load does not answer: {why}"));
        match asked.map_err(|error| wrong(base::Chain(&error).to_string()))? {
            Reply::Error(why) => Err(wrong(why)),
            reply @ (Reply::Ok {} | Reply::Marked(_) | Reply::Figures(_)) => Ok(reply),
        }
    }

    /// A new stretch begins: its number.
    pub(super) fn mark(&self) -> Result<usize, Failure> {
        match self.ask(&Command::Mark {})? {
            Reply::Marked(stretch) => Ok(stretch),
            Reply::Ok {} | Reply::Figures(_) | Reply::Error(_) => Err(strange()),
        }
    }

    /// What became of the requests that began in these stretches.
    pub(super) fn figures(&self, since: usize, until: Option<usize>) -> Result<Figures, Failure> {
        match self.ask(&Command::Figures { since, until })? {
            Reply::Figures(figures) => Ok(*figures),
            Reply::Ok {} | Reply::Marked(_) | Reply::Error(_) => Err(strange()),
        }
    }

    /// No more requests begin.
    pub(super) fn stop(&self) -> Result<(), Failure> {
        self.ask(&Command::Stop {}).map(drop)
    }
}

fn strange() -> Failure {
    Failure::refused("the load says something that was not asked")
}
