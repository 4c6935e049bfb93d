//! A planet that runs: deaths are told, other terminals are answered, and what a script asks for is
//! done.

use std::collections::{BTreeMap, BTreeSet};

use lab::{load::Target, topology::Topology, world::HOST};
use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot};

use super::{
    POLL, Planet,
    hands::{Asked, Order},
    live,
    process::Exited,
    report::endpoint_name,
    script::{Places, Progress, Voice},
    socket,
};
use crate::{args::Shape, error::Failure};

/// Deaths that are kept for a script; those after them it is not told of.
const DEATHS: usize = 64;

/// Who waits for the end of a process.
type Waiting = BTreeMap<String, oneshot::Sender<Result<u32, Failure>>>;

impl Planet {
    /// Where everything is, for a script.
    pub(super) fn places(&self) -> Places {
        let pops = self.layout.pops.iter().map(|pop| {
            let inside = self.inside.as_ref().map(|inside| inside.http(&pop.name));
            (pop.name.clone(), (pop.http, inside.unwrap_or(pop.http)))
        });
        let namespaces = self.inside.as_ref().map(|inside| inside.namespaces());
        Places {
            home: self.home.path().to_owned(),
            sites: self.sites(),
            pops: pops.collect(),
            namespaces: namespaces.unwrap_or_default(),
            hosts: (0..=u8::MAX).map(|host| self.address(host)).collect(),
        }
    }

    /// What there is, for the live view.
    pub(super) fn seen(&self) -> live::Planet {
        let Topology {
            pops,
            gateways,
            apps,
            round_trips,
        } = &self.topology;
        let (shape, net) = match (self.shape, &self.inside) {
            (Shape::Small, None) => ("small", "on loopback"),
            (Shape::Small, Some(_)) => ("small", "in namespaces"),
            (Shape::World, None) => ("world", "on loopback"),
            (Shape::World, Some(_)) => ("world", "in namespaces"),
            (Shape::Wide, None) => ("wide", "on loopback"),
            (Shape::Wide, Some(_)) => ("wide", "in namespaces"),
        };
        let lines: Vec<String> = match &self.inside {
            None => self.layout.relays.iter().map(|pair| pair.name()).collect(),
            Some(_) => {
                let lines = round_trips.iter();
                lines.map(|far| format!("{}-{}", far.a, far.b)).collect()
            }
        };
        let places = self.places();
        let targets = apps.iter().flat_map(|app| {
            places.pops.values().map(|(_, there)| Target {
                address: *there,
                host: app.host.clone(),
                path: "/".to_owned(),
                headers: BTreeMap::new(),
            })
        });
        let targets: Vec<Target> = targets.collect();
        let sites = pops
            .iter()
            .chain(gateways.iter().map(|gateway| &gateway.name));
        let endpoints = self.layout.endpoints.iter();
        live::Planet {
            title: format!("sealane up: {shape}, {net}, {}", self.home.path().display()),
            nodes: sites.cloned().zip(places.sites.iter().cloned()).collect(),
            endpoints: endpoints
                .map(|it| endpoint_name(&it.name, &it.site))
                .collect(),
            lines,
            targets,
            place: places.namespaces.get(HOST).cloned(),
            home: places.home,
            began: self.began,
        }
    }

    /// Reports deaths, answers other terminals, and does what is asked for, for ever.
    pub(super) async fn watch(
        &mut self,
        voice: &Voice<'_>,
        asked: &mut mpsc::Receiver<Asked>,
        progress: &Progress,
    ) {
        let mut waiting = Waiting::new();
        let mut wanted: BTreeSet<u32> = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                exited = self.crew.exited() => {
                    if let Some(answer) = waiting.remove(&exited.name) {
                        answer.send(Ok(exited.pid)).ok(); // or it waits no longer
                    }
                    if !wanted.remove(&exited.pid) {
                        voice.news(&obituary(&exited));
                        let Exited { name, pid, status } = exited;
                        let mut deaths = progress.deaths.borrow_mut();
                        if deaths.len() < DEATHS {
                            deaths.push(format!("{name} (pid {pid}) ended by itself: {status}"));
                        }
                    }
                }
                Some(asked) = asked.recv() => self.obey(asked, &mut waiting, &mut wanted),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        if let Some(news) = socket::answer(stream, &mut self.crew).await {
                            voice.news(&news);
                        }
                    }
                    Err(error) => {
                        tokio::time::sleep(POLL).await;
                        voice.news(&format!("another terminal could not be heard: {error}"));
                    }
                },
            }
        }
    }

    fn obey(&mut self, asked: Asked, waiting: &mut Waiting, wanted: &mut BTreeSet<u32>) {
        let Asked { order, answer } = asked;
        let done = match order {
            Order::Start(spec) => self.crew.start(*spec),
            Order::Again(name) => self.crew.restart(&name),
            Order::Signal(name, signal) => {
                let told = self.crew.tell(&name, signal);
                let ends = signal == Signal::KILL || signal == Signal::TERM;
                if let Ok(pid) = told
                    && ends
                {
                    // A stopped process could not obey.
                    self.crew.tell(&name, Signal::CONT).ok();
                    wanted.insert(pid);
                    waiting.insert(name, answer);
                    return;
                }
                told
            }
        };
        answer.send(done).ok(); // or it waits no longer
    }
}

fn obituary(exited: &Exited) -> String {
    let Exited { name, pid, status } = exited;
    format!(
        "{name} (pid {pid}) ended: {status}; it is not restarted: `sealane lab restart {name}` \
         starts it again"
    )
}
