//! `sealane up`: a whole planet on one machine, each role a process of its own.
//!
//! ```text
//! relay, demo × 6 ─┐
//! controller ──────┴▶ tenants, sites, tokens ─▶ PoPs ─▶ gateways ─▶ every host answers ─▶ ready
//!                                      └▶ certificates, services, load balancers
//! ```
//! What does not wait for another is started at once. Everything is ended by Ctrl-C, by SIGTERM,
//! by a process that dies before all is ready, and by the end of this process, whatever way.

mod hands;
mod home;
mod inside;
mod janitor;
mod live;
mod manifests;
mod process;
mod ready;
mod report;
mod script;
mod socket;
mod users;
mod watch;

use std::{
    ffi::OsString,
    future::Future,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use api::Kind;
use lab::topology::{EndpointLayout, FABRIC_PORT, Layout, Subnet, Topology};
use serde::Deserialize;
use tokio::net::UnixListener;

pub(crate) use home::{NODES, RELAY_SOCKET, REPORT, WAN_SOCKET};
pub(crate) use janitor::serve as janitor;
pub(crate) use process::obey_parent;
pub use report::{
    AppReport, ControllerReport, EndpointReport, GatewayReport, NetReport, PopReport, RelayReport,
    Report,
};
pub(crate) use socket::{Answer, Ask, ask};

use self::{
    hands::Hands,
    home::Home,
    inside::Inside,
    janitor::Janitor,
    process::{Crew, Exited, Spec},
    report::{control_name, endpoint_name},
    script::{Progress, Runner, Script, Setting, Tone, Voice},
};
use crate::{
    apply,
    args::{Net, Shape, UpArgs, Verb},
    client::Client,
    context::{self, Context, Places, RunLink},
    error::{Exit, Failure},
    files::{self, Document},
};

/// Threads a node carries requests with: eleven processes share this machine.
const WORKERS: &str = "2";
/// The planet's name.
const PLANET: &str = "demo";
/// How often a condition is looked at while starting.
const POLL: Duration = Duration::from_millis(20);
/// When starting is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `up` is to do.
#[derive(Debug)]
pub(crate) struct Intent {
    setting: Setting,
    script: Option<Script>,
}

/// Reads what is to be read, and becomes what makes namespaces if `verb` will. To be called while
/// there is one thread.
///
/// # Errors
/// The script is wrong, or the system allows no namespaces.
pub(crate) fn prepare(verb: &Verb) -> Result<Option<Intent>, Vec<Failure>> {
    let Verb::Up(args) = verb else {
        return Ok(None);
    };
    let script = args.script.as_deref().map(|path| Script::read(path, args));
    let script = script.transpose()?;
    let setting = script.as_ref().map_or_else(
        || Setting {
            topology: args.topology.unwrap_or_default(),
            net: args.net.unwrap_or_default(),
            split: args.split,
        },
        |script| script.setting,
    );
    if setting.net == Net::Ns && !args.check {
        inside::become_root().map_err(|failure| vec![failure])?;
    }
    Ok(Some(Intent { setting, script }))
}

/// `sealane up`.
pub(crate) async fn up(
    args: &UpArgs,
    intent: &Intent,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let script = intent.script.as_ref();
    if let Some(script) = script.filter(|_| args.check) {
        return script.describe(out);
    }
    let signal = runtime::signal::shutdown();
    tokio::pin!(signal);
    let mut planet = Planet::prepare(args, intent.setting)?;
    let progress = Progress::default();
    let lived = tokio::select! {
        lived = planet.live(args, script, &progress, out) => lived,
        signal = &mut signal => match signal {
            Ok(_) => match script {
                None => Ok(Exit::Done),
                Some(script) => script.interrupted(&progress, args.json, out),
            },
            Err(error) => Err(Failure::refused(format!("signals cannot be heard: {error}"))),
        },
    };
    if !args.json {
        writeln!(out, "stopping").ok(); // the processes end, whoever listens
    }
    planet.stop().await;
    lived
}

/// Who there is in a planet of this shape.
fn topology(shape: Shape) -> Topology {
    match shape {
        Shape::Small => Topology::demo(),
        Shape::World => Topology::world(),
        Shape::Wide => Topology::wide(),
    }
}

/// What the controller writes when it serves.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ControllerReady {
    url: String,
    ca: PathBuf,
    token_file: PathBuf,
}

struct Planet {
    began: base::Instant,
    home: Home,
    subnet: Subnet,
    shape: Shape,
    /// Each node is two processes.
    split: bool,
    topology: Topology,
    layout: Layout,
    /// The namespaces, if there are any.
    inside: Option<Inside>,
    crew: Crew,
    socket: UnixListener,
    janitor: Option<Janitor>,
    link: Option<RunLink>,
}

impl Planet {
    /// Everything but processes.
    fn prepare(args: &UpArgs, setting: Setting) -> Result<Self, Failure> {
        let began = runtime::now();
        let home = Home::open(args)?;
        let socket = runtime::net::unix_listener(&home.socket()).map_err(|error| {
            Failure::refused(format!("this home cannot be used: {error}"))
                .at(home.path().display().to_string())
                .fix("stop the other `sealane up` that uses it, or give another --home")
        })?;
        let subnet = home.subnet()?;
        let topology = topology(setting.topology);
        let layout = Layout::new(&topology, subnet.network())
            .map_err(|error| Failure::refused(error.to_string()))?;
        let inside = match setting.net {
            Net::Loopback => None,
            Net::Ns => Some(Inside::make(&topology, &layout)?),
        };
        let program = std::env::current_exe()
            .map_err(|error| Failure::refused(format!("this program is not found: {error}")))?;
        let janitor = home
            .is_temporary()
            .then(|| Janitor::start(&program, home.path(), &context::runs_folder()))
            .transpose()?;
        let crew = Crew::new(program);
        Ok(Planet {
            began,
            home,
            subnet,
            shape: setting.topology,
            split: setting.split,
            topology,
            layout,
            inside,
            crew,
            socket,
            janitor,
            link: None,
        })
    }

    /// Starts everything and says so. Then it watches for ever, or as long as a script runs.
    async fn live(
        &mut self,
        args: &UpArgs,
        script: Option<&Script>,
        progress: &Progress,
        out: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let (report, client) = {
            let mut quiet = std::io::sink();
            let steps: &mut dyn Write = if args.json { &mut quiet } else { out };
            self.start(steps).await?
        };
        if args.json {
            let line = serde_json::to_string(&report)
                .map_err(|error| Failure::refused(format!("the report has no JSON: {error}")))?;
            writeln!(out, "{line}")?;
        } else {
            report.tell(&program(), script.is_some(), out)?;
        }
        out.flush()?;
        let (hands, mut asked) = Hands::new();
        let is_live = script.is_none() && !args.json && !args.no_live && live::is_there();
        let tone = match (args.json, is_live) {
            (true, _) => Tone::Json,
            (false, true) => Tone::Live,
            (false, false) => Tone::Lines,
        };
        let voice = Voice::new(out, tone);
        if is_live {
            let planet = self.seen();
            return tokio::select! {
                biased;
                () = self.watch(&voice, &mut asked, progress) => Ok(Exit::Done),
                ended = live::live(planet, hands, &voice) => ended.map(|()| Exit::Done),
            };
        }
        let Some(script) = script else {
            self.watch(&voice, &mut asked, progress).await;
            return Ok(Exit::Done);
        };
        let places = self.places();
        let runner = Runner::new(script, places, hands, client, &voice, progress);
        tokio::select! {
            biased;
            () = self.watch(&voice, &mut asked, progress) => Ok(Exit::Done),
            held = runner.run() => held.map(|held| if held { Exit::Done } else { Exit::Refused }),
        }
    }

    fn step(&self, out: &mut dyn Write, what: &str) -> Result<(), Failure> {
        let passed = runtime::now().since(self.began);
        writeln!(out, "{:>7.3} s  {what}", passed.as_secs_f64())?;
        Ok(out.flush()?)
    }

    async fn start(&mut self, out: &mut dyn Write) -> Result<(Report, Client), Failure> {
        let network = self.subnet.network();
        self.step(out, &format!("{network}/24 is held for this run"))?;
        self.start_surroundings()?;
        let count = self.layout.endpoints.len();
        self.step(
            out,
            &format!("controller, network and {count} demo endpoints started"),
        )?;
        let controller = self.controller().await?;
        self.step(out, &format!("the controller serves {}", controller.url))?;
        let mut client = self.client(&controller)?;
        let documents = self.manifests()?;
        let (first, rest): (Vec<Document>, Vec<Document>) = documents
            .into_iter()
            .partition(|document| files::rank(document.object.kind) <= files::rank(Kind::Token));
        self.apply(&mut client, first).await?;
        self.step(out, "tenants, namespaces, sites and tokens applied")?;
        for pop in self.topology.pops.clone() {
            self.start_node(&pop)?;
        }
        self.apply(&mut client, rest).await?;
        self.step(
            out,
            "PoPs started; certificates, services and load balancers applied",
        )?;
        let pops = self
            .topology
            .pops
            .iter()
            .map(|pop| format!("{pop}.fabric"))
            .collect();
        self.connected(&mut client, pops).await?;
        for gateway in self.topology.gateways.clone() {
            self.start_node(&gateway.name)?;
        }
        self.step(out, "PoPs connected; gateways started")?;
        self.serving(&mut client, out).await?;
        Ok((self.report(controller)?, client))
    }

    fn start_node(&mut self, site: &str) -> Result<(), Failure> {
        let node = node(&self.home, site);
        let specs = match self.split {
            false => vec![node],
            true => vec![data_part(node), control_part(&self.home, site)],
        };
        for spec in specs {
            let spec = match &self.inside {
                None => spec,
                Some(inside) => inside.at(site, spec),
            };
            self.crew.start(spec)?;
        }
        Ok(())
    }

    /// What waits for nobody.
    fn start_surroundings(&mut self) -> Result<(), Failure> {
        if let Some(inside) = &self.inside {
            return inside.start_surroundings(&self.home, &self.layout, &mut self.crew);
        }
        let home = &self.home;
        // What an earlier run left would be taken for this run's.
        std::fs::remove_file(home.join(WAN_SOCKET)).ok();
        let fabric = SocketAddr::new(self.layout.controller.ip(), FABRIC_PORT);
        let controller = controller(home, self.layout.controller, fabric);
        self.crew.start(controller)?;
        let config = self.layout.relay(Some(home.join(RELAY_SOCKET)));
        let text = serde_json::to_vec_pretty(&config)
            .map_err(|error| Failure::refused(format!("the relay's configuration: {error}")))?;
        let config = home.write("relay.json", &text)?;
        let args = [
            "lab".into(),
            "relay".into(),
            "--config".into(),
            config.into(),
        ];
        self.crew.start(Spec {
            carries: true,
            ..spec(home, "relay", &args)
        })?;
        for endpoint in &self.layout.endpoints {
            self.crew.start(demo(home, endpoint, endpoint.address))?;
        }
        Ok(())
    }

    /// Waits until the controller says that it serves.
    async fn controller(&mut self) -> Result<ControllerReady, Failure> {
        let path = self.home.join("controller/ready.json");
        let ready = async {
            loop {
                // The file is whole or absent.
                if let Ok(bytes) = runtime::file::read_limited(&path, 64 << 10) {
                    return serde_json::from_slice(&bytes).map_err(|error| {
                        Failure::refused(format!("ready.json is not understood: {error}"))
                            .at(path.display().to_string())
                    });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = || "the controller does not say that it serves".to_owned();
        let ready: ControllerReady = patiently(&mut self.crew, &self.home, ready, late).await?;
        Ok(match &self.inside {
            None => ready,
            // Where this machine reaches it.
            Some(_) => ControllerReady {
                url: format!("https://{}", self.layout.controller),
                ..ready
            },
        })
    }

    /// A client of the API; leaves its settings in the home for other terminals.
    fn client(&self, controller: &ControllerReady) -> Result<Client, Failure> {
        let text = context::env_text(&controller.url, &controller.ca, &controller.token_file);
        self.home.write(context::ENV_FILE, text.as_bytes())?;
        Client::new(Context::load(Places {
            server: Some(controller.url.clone()),
            ca: Some(controller.ca.clone()),
            token_file: Some(controller.token_file.clone()),
        })?)
    }

    /// The manifests with this run's addresses, also as files in the home.
    fn manifests(&self) -> Result<Vec<Document>, Failure> {
        let place = |host| self.address(host);
        let mut documents = Vec::new();
        for (name, example) in manifests::files(self.shape) {
            let example = match &self.inside {
                None => manifests::on_loopback(example),
                Some(_) => (*example).to_owned(),
            };
            let text = manifests::text(&example, &place);
            self.home
                .write(&format!("manifests/{name}"), text.as_bytes())?;
            documents.extend(crate::files::parse(name, &text)?);
        }
        crate::files::sort(&mut documents);
        Ok(documents)
    }

    /// What 127.80.1.`host` of the examples is in this run.
    fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.subnet.network().octets();
        match &self.inside {
            None => Ipv4Addr::new(a, b, c, host),
            Some(inside) => inside.address(&self.layout, host),
        }
    }

    async fn apply(
        &mut self,
        client: &mut Client,
        documents: Vec<Document>,
    ) -> Result<(), Failure> {
        let home = &self.home;
        let applying = async {
            for document in documents {
                if document.object.kind == Kind::Token {
                    admit(client, home, &document).await?;
                } else {
                    apply::put(client, &document, false).await?;
                }
            }
            Ok(())
        };
        let late = || "the manifests could not be applied".to_owned();
        patiently(&mut self.crew, home, applying, late).await
    }

    /// Waits until these sites are connected.
    async fn connected(&mut self, client: &mut Client, wanted: Vec<String>) -> Result<(), Failure> {
        let last = std::cell::RefCell::new(String::new());
        let connected = async {
            loop {
                let sites = client.sites().await?;
                let up = |name: &&String| sites.iter().any(|s| s.site == **name && s.connected);
                let Some(absent) = wanted.iter().find(|name| !up(name)) else {
                    return Ok(());
                };
                *last.borrow_mut() = format!("{absent} is not connected");
                tokio::time::sleep(POLL).await;
            }
        };
        patiently(&mut self.crew, &self.home, connected, || {
            last.borrow().clone()
        })
        .await
    }

    /// Every site, as `SITE.TENANT`.
    fn sites(&self) -> Vec<String> {
        let Topology { pops, gateways, .. } = &self.topology;
        let pops = pops.iter().map(|pop| format!("{pop}.fabric"));
        let gateways = gateways.iter();
        pops.chain(gateways.map(|gateway| format!("{}.{}", gateway.name, gateway.tenant)))
            .collect()
    }

    /// Waits until every site runs what it should and every host answers at every PoP.
    async fn serving(&mut self, client: &mut Client, out: &mut dyn Write) -> Result<(), Failure> {
        let sites = self.sites();
        let mut questions = Vec::new();
        for pop in &self.layout.pops {
            questions.extend(
                self.topology
                    .apps
                    .iter()
                    .map(|app| (pop.http, app.host.as_str())),
            );
        }
        let last = std::cell::RefCell::new(String::new());
        let waited = async {
            while let Some(missing) = ready::missing(&client.sites().await?, &sites) {
                *last.borrow_mut() = missing;
                tokio::time::sleep(POLL).await;
            }
            let at_sites = runtime::now();
            for (address, host) in questions {
                while let Some(missing) = ready::unanswered(address, host).await {
                    *last.borrow_mut() = missing;
                    tokio::time::sleep(POLL).await;
                }
            }
            Ok(at_sites)
        };
        let late = || last.borrow().clone();
        let at_sites = patiently(&mut self.crew, &self.home, waited, late).await?;
        let passed = at_sites.since(self.began).as_secs_f64();
        writeln!(
            out,
            "{passed:>7.3} s  every site is connected and runs the wanted revision"
        )?;
        self.step(out, "every host answers at every PoP")
    }

    fn report(&mut self, controller: ControllerReady) -> Result<Report, Failure> {
        let token = runtime::file::read_limited(&controller.token_file, 4096).map_err(|error| {
            Failure::refused(format!("the administrator's token cannot be read: {error}"))
        })?;
        let controller = ControllerReport {
            url: controller.url,
            ca: controller.ca,
            token: String::from_utf8_lossy(&token).trim().to_owned(),
            pid: self.crew.pid("controller"),
        };
        let path = self.home.path();
        let mut report = Report::new(&self.topology, &self.layout, &self.crew, path, controller);
        if let Some(inside) = &self.inside {
            report.net = inside.report();
        }
        // Without the link other terminals need --home; nothing else is lost.
        match RunLink::make(&context::runs_folder(), path) {
            Ok(link) => self.link = Some(link),
            Err(error) => tracing::warn!(%error, "other terminals will need --home"),
        }
        let passed = runtime::now().since(self.began);
        report.startup_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let text = serde_json::to_vec_pretty(&report)
            .map_err(|error| Failure::refused(format!("the report has no JSON: {error}")))?;
        self.home.write(REPORT, &text)?;
        Ok(report)
    }

    /// Ends every process and removes what is temporary.
    async fn stop(self) {
        let Planet {
            home,
            crew,
            socket,
            janitor,
            link,
            subnet,
            ..
        } = self;
        for name in crew.stop().await {
            let news = format!("{name} did not end within 3 s of SIGTERM and was killed");
            writeln!(std::io::stderr(), "sealane up: {news}").ok();
        }
        drop((link, socket));
        std::fs::remove_file(home.socket()).ok();
        home.close();
        if let Some(janitor) = janitor {
            janitor.finish().await;
        }
        drop(subnet); // the last: nobody else may come before all is gone
    }
}

/// Applies a Token and keeps its secret; one whose secret was lost is made anew.
async fn admit(client: &mut Client, home: &Home, document: &Document) -> Result<(), Failure> {
    let name = document.object.metadata.name.to_string();
    let mut applied = apply::put(client, document, false).await?;
    let secret = |applied: &apply::Applied| applied.object.status.as_ref()?.token.clone();
    if secret(&applied).is_none() && !home.token(&name).exists() {
        client.delete(&document.object.key()).await?;
        applied = apply::put(client, document, false).await?;
    }
    match secret(&applied) {
        Some(token) => home
            .write(&format!("tokens/{name}"), token.as_bytes())
            .map(drop),
        None if home.token(&name).exists() => Ok(()),
        None => Err(Failure::refused(format!(
            "the controller did not show the token of {name}"
        ))),
    }
}

/// Does `work`, unless a process ends or 30 s pass before it is done.
async fn patiently<T>(
    crew: &mut Crew,
    home: &Home,
    work: impl Future<Output = Result<T, Failure>>,
    late: impl Fn() -> String,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        exited = crew.exited() => Err(stillborn(&exited, home)),
        done = tokio::time::timeout(PATIENCE, work) => done.unwrap_or_else(|_| {
            Err(Failure::refused(format!("not ready after {} s: {}", PATIENCE.as_secs(), late()))
                .at(home.join("logs").display().to_string())
                .fix("`sealane up --keep` leaves the logs there"))
        }),
    }
}

fn stillborn(exited: &Exited, home: &Home) -> Failure {
    let Exited { name, status, .. } = exited;
    Failure::refused(format!("{name} ended while starting: {status}")).at(home.log_tail(name))
}

fn spec(home: &Home, name: &str, args: &[OsString]) -> Spec {
    Spec {
        name: name.to_owned(),
        args: args.to_vec(),
        log: home.log(name),
        place: None,
        carries: false,
    }
}

fn node(home: &Home, site: &str) -> Spec {
    let mut token = OsString::from("@");
    token.push(home.token(site));
    let args = [
        "node".into(),
        "--state".into(),
        home.node(site).into(),
        "--token".into(),
        token,
        "--workers".into(),
        WORKERS.into(),
    ];
    spec(home, site, &args)
}

/// Of a node in two processes, the one that carries traffic, and joins.
fn data_part(mut node: Spec) -> Spec {
    node.args.extend(["--part".into(), "data".into()]);
    node
}

/// The other one.
fn control_part(home: &Home, site: &str) -> Spec {
    let args = [
        "node".into(),
        "--state".into(),
        home.node(site).into(),
        "--part".into(),
        "control".into(),
    ];
    spec(home, &control_name(site), &args)
}

fn controller(home: &Home, listen: SocketAddr, fabric: SocketAddr) -> Spec {
    let state = home.join("controller");
    // What an earlier run left would be taken for this run's.
    std::fs::remove_file(state.join("ready.json")).ok();
    let args = [
        "controller".into(),
        "--state".into(),
        state.into(),
        "--listen".into(),
        listen.to_string().into(),
        "--fabric".into(),
        fabric.to_string().into(),
        "--planet".into(),
        PLANET.into(),
    ];
    spec(home, "controller", &args)
}

fn demo(home: &Home, endpoint: &EndpointLayout, address: SocketAddr) -> Spec {
    let EndpointLayout {
        tenant, site, name, ..
    } = endpoint;
    let args = [
        "lab".into(),
        "demo".into(),
        "--listen".into(),
        address.to_string().into(),
        "--tenant".into(),
        tenant.into(),
        "--site".into(),
        site.into(),
        "--name".into(),
        name.into(),
    ];
    spec(home, &endpoint_name(name, site), &args)
}

/// How this program is called from the current folder.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("sealane"));
    let on_path = std::env::var_os("PATH")
        .is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| dir.join("sealane") == path));
    if on_path {
        return "sealane".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let near = path.strip_prefix(&here).unwrap_or(&path);
    match near.components().count() {
        1 => format!("./{}", near.display()),
        _ => near.display().to_string(),
    }
}
