//! A planet in network namespaces: where each process runs, and what this machine sees of it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use lab::{
    netns::{self, Namespace, NetnsError},
    publish,
    topology::{Layout, Topology},
    world::{CONTROLLER, HOST, Plan, World},
};

use super::{
    NetReport, controller, demo,
    home::{Home, WAN_SOCKET},
    process::{Crew, Spec},
    spec,
};
use crate::{args::Net, error::Failure};

/// Becomes what makes namespaces. To be called while there is one thread.
///
/// # Errors
/// The system does not allow it.
pub(super) fn become_root() -> Result<(), Failure> {
    netns::become_root().map_err(|error| forbidden(&error))
}

fn forbidden(error: &NetnsError) -> Failure {
    let failure = Failure::refused(base::Chain(error).to_string());
    match error {
        NetnsError::Forbidden(_) | NetnsError::Namespace { .. } => failure.fix(
            "the system has to allow user namespaces (user.max_user_namespaces, AppArmor's \
             restriction of them); or run it as root; or leave --net ns out",
        ),
        NetnsError::Missing { package, .. } => {
            failure.fix(format!("install {package}, or leave --net ns out"))
        }
        NetnsError::Refused { .. } => failure,
    }
}

/// The namespaces of a planet.
#[derive(Debug)]
pub(super) struct Inside {
    plan: Plan,
    world: World,
}

impl Inside {
    pub(super) fn make(topology: &Topology, layout: &Layout) -> Result<Self, Failure> {
        let plan = Plan::new(topology, layout).map_err(|e| Failure::refused(e.to_string()))?;
        let world = World::make(&plan).map_err(|error| forbidden(&error))?;
        Ok(Inside { plan, world })
    }

    /// A process, where it belongs.
    pub(super) fn at(&self, name: &str, spec: Spec) -> Spec {
        Spec {
            place: self.world.place(name).cloned(),
            ..spec
        }
    }

    /// What on loopback has this host number: a `PoP`, a relay's end that leads to one, an endpoint.
    pub(super) fn address(&self, layout: &Layout, host: u8) -> Ipv4Addr {
        let is_here = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address.octets()[3] == host,
            std::net::IpAddr::V6(_) => false,
        };
        let relay = layout.relays.iter().find(|r| is_here(r.listen.ip()));
        let pop = layout.pops.iter().find(|pop| is_here(pop.http.ip()));
        let pop = relay.map(|relay| &relay.pop).or(pop.map(|pop| &pop.name));
        if let Some(pop) = pop {
            return self.plan.address(pop);
        }
        let endpoints = layout.endpoints.iter().zip(self.plan.endpoints());
        let mut endpoints = endpoints.filter(|(outside, _)| is_here(outside.address.ip()));
        endpoints
            .next()
            .map_or(self.plan.address(CONTROLLER), |(_, inside)| *inside.ip())
    }

    /// What waits for nobody.
    pub(super) fn start_surroundings(
        &self,
        home: &Home,
        layout: &Layout,
        crew: &mut Crew,
    ) -> Result<(), Failure> {
        let write = |name: &str, text: serde_json::Result<Vec<u8>>| {
            let text = text.map_err(|error| Failure::refused(format!("{name}: {error}")))?;
            home.write(name, &text)
        };
        let config = self.world.config(&self.plan, home.join(WAN_SOCKET));
        let config = write("wan.json", serde_json::to_vec_pretty(&config))?;
        let wan = spec(home, "wan", &["lab".into(), "wan".into(), config.into()]);
        crew.start(Spec {
            place: Some(self.world.wan().clone()),
            carries: true,
            ..wan
        })?;
        let doors = serde_json::to_vec_pretty(&self.doors(layout));
        let doors = write("doors.json", doors)?;
        let doors = ["lab".into(), "publish".into(), doors.into()];
        crew.start(spec(home, "publish", &doors))?;
        let mut api = controller(home, self.plan.api().into(), self.plan.fabric().into());
        api.args.push("--api-host".into());
        api.args.push(layout.controller.ip().to_string().into());
        crew.start(self.at(CONTROLLER, api))?;
        for (endpoint, address) in layout.endpoints.iter().zip(self.plan.endpoints()) {
            let demo = demo(home, endpoint, (*address).into());
            crew.start(self.at(&endpoint.site, demo))?;
        }
        Ok(())
    }

    /// What this machine's loopback offers.
    fn doors(&self, layout: &Layout) -> publish::Config {
        let host = |listen, target: std::net::SocketAddrV4| (HOST, listen, target);
        let mut doors = vec![host(layout.controller, self.plan.api())];
        for pop in &layout.pops {
            let [http, https] = self.plan.public(&pop.name);
            doors.push(host(pop.http, http));
            doors.push(host(pop.https, https));
        }
        let endpoints = layout.endpoints.iter().zip(self.plan.endpoints());
        doors.extend(endpoints.map(|(e, inside)| (&*e.site, e.address, *inside)));
        let doors = doors.into_iter().filter_map(|(place, listen, target)| {
            Some(publish::Door {
                listen,
                target: target.into(),
                namespace: self.world.place(place)?.path().into(),
            })
        });
        publish::Config {
            doors: doors.collect(),
        }
    }

    /// Where a `PoP` offers port 80, for whoever is inside.
    pub(super) fn http(&self, pop: &str) -> SocketAddr {
        let [http, _] = self.plan.public(pop);
        http.into()
    }

    pub(super) fn namespaces(&self) -> BTreeMap<String, Namespace> {
        let all = self.world.namespaces();
        all.map(|space| (space.name().to_owned(), space.clone()))
            .collect()
    }

    pub(super) fn report(&self) -> NetReport {
        let namespaces = self.world.namespaces();
        NetReport {
            mode: Net::Ns,
            namespaces: namespaces
                .map(|space| (space.name().to_owned(), space.path().into()))
                .collect(),
        }
    }
}
