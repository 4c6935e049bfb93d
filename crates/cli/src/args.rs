//! The command line: what may be said, with help that teaches.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use base::Name;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// The longest text of an admission, in bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// Sealane: a global application gateway.
#[derive(Debug, Parser)]
#[command(
    name = "sealane",
    version,
    about = "A global application gateway: applications on separate islands, joined by nothing else",
    long_about = "Applications on separate islands (clouds, data centres, factories) talk to each \
                  other and to their users; the islands never join. PoPs stand near the users, \
                  gateways beside the applications, and between them only application \
                  connectivity.",
    after_help = "First steps:\n  \
                  sealane up                 a whole planet on this machine, until Ctrl-C\n  \
                  sealane status             what is wrong, if anything\n  \
                  sealane get endpoints      every endpoint's health, as every site sees it\n\n\
                  Exit codes: 0 done, 1 refused or something is wrong, 2 usage, 3 cannot reach \
                  the other side.",
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Everything that can be said.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the management plane
    Controller(ControllerArgs),
    /// Run one node of a site
    Node(NodeArgs),
    /// Run the BGP speaker alone: a route server or reflector
    Bgp(BgpArgs),
    /// Everything that this crate does itself.
    #[command(flatten)]
    Verb(Verb),
}

/// The verbs that this crate does itself.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a whole planet on this machine, each role a process of its own
    Up(UpArgs),
    /// Create or change resources from manifests
    Apply(ApplyArgs),
    /// List or read resources, and what sites report
    Get(GetArgs),
    /// Show one resource with everything that is known about it
    Describe(DescribeArgs),
    /// Delete resources
    Delete(DeleteArgs),
    /// Show what `apply` would change
    Diff(DiffArgs),
    /// Say what becomes of a request, and why: listener, host, route, policies, endpoints
    Why(WhyArgs),
    /// Say what is wrong: sites, revisions, certificates, links, listeners
    Status(StatusArgs),
    /// Do things to a planet that `up` started: distances, cuts, sick applications
    Lab(LabArgs),
}

/// `sealane controller`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  \
    sealane controller --state /var/lib/sealane --listen 10.0.0.5:8443 --fabric 10.0.0.5:7443\n\n\
    On its first start it makes the fabric's CA (ca.pem, secret; api-ca.pem is its public half, \
    for --ca) and the administrator's token (admin.token) in its state folder. When it serves, \
    ready.json is there.")]
pub struct ControllerArgs {
    /// Folder of the store and the keys; created with mode 0700
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Address of the API (HTTPS)
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Address on which PoPs are accepted (mutual TLS)
    #[arg(long, value_name = "ADDR")]
    pub fabric: SocketAddr,
    /// HOST:PORT that PoPs dial instead of --fabric; written into PoPs' tokens; may be repeated
    #[arg(long, value_name = "ADDR", num_args = 1..)]
    pub fabric_advertise: Vec<String>,
    /// One more host name or address for the API's certificate; may be repeated
    #[arg(long, value_name = "HOST")]
    pub api_host: Vec<String>,
    /// Name of this planet; its certificates and bundles fit nowhere else
    #[arg(long, value_name = "NAME", default_value = "earth")]
    pub planet: Name,
    /// Lifetime of node certificates, such as 90d, 12h or 30s; renewed after a third of it
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = lifetime)]
    pub node_certificate_lifetime: Duration,
}

/// `sealane bgp`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealane bgp --config bgp.yaml --check              only say whether the file is good\n  \
    sealane bgp --config bgp.yaml --state /run/bgp     speak; then, beside it:\n  \
    sealane get neighbors --node-state /run/bgp        sessions, routes said and told\n  \
    sealane get routes --node-state /run/bgp           paths of each route, and why one is best\n\n\
    A file:\n  \
    asn: 65000\n  \
    routerId: 10.0.0.1\n  \
    listen: 10.0.0.1:179\n  \
    neighbors:\n  \
    - { address: 10.0.1.1, asn: 65001, passive: true, families: [ipv4, ipv6], import: accept, export: accept }\n  \
    - { address: 10.0.2.1, asn: 65000, client: true, families: [vpnv4, vpnv6, rtc, mesh] }\n\n\
    Toward another AS nothing is taken and nothing told until import and export say so (RFC 8212). \
    docs/operate/bgp.md explains every field.")]
pub struct BgpArgs {
    /// The file, YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Folder of the admin socket, for `get --node-state`; none without
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Only say whether the file is good
    #[arg(long)]
    pub check: bool,
}

/// `sealane node`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealane node --state /var/lib/sealane --token @/etc/sealane/token   first start: joins\n  \
    sealane node --state /var/lib/sealane                              every later start\n  \
    sealane node --state DIR --bundle manifests/ --site edge           no controller at all\n  \
    sealane node --state DIR --bundle manifests/ --site edge --check   only say whether it compiles\n\n\
    The token comes from `sealane apply` of a kind: Token; it is used once.")]
pub struct NodeArgs {
    /// Folder of the key, the last good bundle and the endpoint facts; created with mode 0700
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The admission, as text or as @FILE; needed until the node has its certificate
    #[arg(
        long,
        value_name = "TOKEN|@FILE",
        env = "SEALANE_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Run from the manifests in this folder, without a controller
    #[arg(long, value_name = "DIR", requires = "site", conflicts_with = "token")]
    pub bundle: Option<PathBuf>,
    /// With --bundle: the site this is, SITE or SITE.TENANT
    #[arg(long, value_name = "SITE", requires = "bundle")]
    pub site: Option<String>,
    /// With --bundle: the node of that site this is; its only one by default
    #[arg(long, value_name = "NODE", requires = "bundle")]
    pub node: Option<Name>,
    /// With --bundle: compile, say what is wrong, and end
    #[arg(long, requires = "bundle")]
    pub check: bool,
    /// Threads that carry requests; one a core by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Where the access log goes, or none; STATE/access.log by default
    #[arg(long, value_name = "FILE|none")]
    pub access_log: Option<PathBuf>,
    /// Which fields the records of the access log have, with commas between them; all by default
    #[arg(long, value_name = "NAMES")]
    pub access_log_fields: Option<String>,
    /// Where spans of requests go: a collector's URL for OTLP over HTTP, such as
    /// http://127.0.0.1:4318/v1/traces
    #[arg(long, value_name = "URL")]
    pub otlp: Option<http::Uri>,
    /// Of the requests that begin a trace, how many are told, 0 to 1; others go by their parent
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, requires = "otlp")]
    pub otlp_ratio: f64,
    /// If a process runs this node already, take over its listening sockets, serve, and let it
    /// finish what it has (hot restart). Of a node in one process
    #[arg(long, conflicts_with = "check")]
    pub take_over: bool,
    /// Run one part of the node in this process; the other one, in its own process with the same
    /// state folder, is found at STATE/node.sock. Traffic goes on while the control part is away
    #[arg(long, value_name = "PART", default_value = "both")]
    pub part: NodePart,
}

/// Which part of a node a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NodePart {
    /// Both in one process
    #[default]
    Both,
    /// Probes, BGP and site-sync
    Control,
    /// Tunnels, listeners and the proxy
    Data,
}

impl NodeArgs {
    /// The admission, read from its file if it is in one. A file that is gone does not matter to a
    /// node that has joined already.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn admission(&self) -> Result<Option<String>, Failure> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let Some(path) = token.strip_prefix('@') else {
            return Ok(Some(token.clone()));
        };
        match runtime::file::read_limited(Path::new(path), MAX_TOKEN_BYTES) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
            Err(_) if self.state.join("node.json").exists() => Ok(None),
            Err(error) => {
                let what = format!("{path} cannot be read: {error}");
                Err(Failure::usage(what).at("--token"))
            }
        }
    }
}

/// `sealane up`.
#[derive(Clone, Debug, Args, Default)]
#[command(
    after_help = "Starts 1 controller, 2 PoPs (par, nyc), 3 gateways (aws and factory of \
    tenant acme, shop of tenant blue), 6 demo endpoints and a relay that puts distance between \
    them; all on loopback addresses, as any user. Ctrl-C stops everything and leaves nothing.\n\n\
    A process that dies is reported and not restarted; `sealane lab restart NAME` starts it again. In a \
    terminal it shows the planet live, with keys that kill, cut and undo.\n\n\
    Examples:\n  \
    sealane up                    until Ctrl-C, in a temporary folder\n  \
    sealane up --home ~/planet    keeps its state, and continues it the next time\n  \
    sealane up --json | head -1   one line for programs, when everything is ready\n  \
    sealane up --split            kill -9 a control part: no request notices\n  \
    sealane up --script cut.yaml  runs a scenario, a line a step; ends with 0 or 1\n\n\
    A script (docs/operate/scenarios.md):\n  \
    topology: world\n  \
    net: ns\n  \
    steps:\n  \
    - name: users\n    \
      load: { url: http://plant.acme.example/, at: par, rate: 200 }\n  \
    - wait: 1s\n  \
    - name: cut\n    \
      lab: cut par-nyc\n  \
    - wait: 5s\n  \
    - expect: { since: cut, failed: 0, slowest: 2s }\n\n\
    It ends with 0 if everything was as expected, with 1 if not, and with 2, before anything is \
    started, if the script is wrong."
)]
pub struct UpArgs {
    /// Print one JSON line on stdout when ready, and nothing else; with --script one more for each
    /// step, and one for all of them
    #[arg(long)]
    pub json: bool,
    /// Folder for state and logs; kept. A temporary one by default
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Keep the temporary folder at the end
    #[arg(long)]
    pub keep: bool,
    /// What stands between the sites: loopback, unless the script says otherwise
    #[arg(long, value_enum)]
    pub net: Option<Net>,
    /// Which planet: small, unless the script says otherwise
    #[arg(long, value_enum)]
    pub topology: Option<Shape>,
    /// Run each node as two processes: NODE carries traffic, and control.NODE probes and speaks BGP
    #[arg(long)]
    pub split: bool,
    /// Run this scenario when everything is ready, then stop: 0 if all was as it expects, else 1
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// In a terminal: print lines, and show no live view
    #[arg(long)]
    pub no_live: bool,
    /// With --script: only say whether the script is good
    #[arg(long, requires = "script")]
    pub check: bool,
}

/// Which planet `up` starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Two PoPs and three gateways (examples/01-cart)
    #[default]
    Small,
    /// Four PoPs with a backbone, and four gateways, each attached to two of them
    /// (examples/18-world)
    World,
    /// The same four PoPs, and twenty gateways, each attached to two of them (examples/19-wide)
    Wide,
}

/// What stands between the sites of a planet on one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Net {
    /// Everything on loopback addresses; a relay delays connections
    #[default]
    Loopback,
    /// A network namespace for each site, gateways behind NAT, and packets that can be delayed and
    /// lost; needs `ip` and `nft`, and no privileges
    Ns,
}

/// Where the API is.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Where the API is (default: the newest running `sealane up`)")]
pub struct Connection {
    /// URL of the controller's API
    #[arg(long, value_name = "URL", env = "SEALANE_SERVER")]
    pub server: Option<String>,
    /// PEM file of the CA that signed the API's certificate; nothing else is trusted
    #[arg(long, value_name = "FILE", env = "SEALANE_CA")]
    pub ca: Option<PathBuf>,
    /// File with the bearer token
    #[arg(long, value_name = "FILE", env = "SEALANE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Home of a `sealane up`, which says all three
    #[arg(long, value_name = "DIR", env = "SEALANE_HOME")]
    pub home: Option<PathBuf>,
}

/// `sealane apply`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealane apply -f cart.yaml\n  \
    sealane apply -f examples/01-cart/          a folder: every .yaml, .yml and .json below it\n  \
    generate | sealane apply -f - --dry-run     checked by the controller, nothing written\n\n\
    Every document is parsed before the first is sent. What others refer to goes first: Tenant, \
    Namespace, Site, Token, Certificate, Service, LoadBalancer.")]
pub struct ApplyArgs {
    /// Manifest file, folder, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Let the controller check everything, but change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// YAML documents
    Yaml,
}

/// Which objects are meant; what is left out selects all.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only this tenant's
    #[arg(short, long, value_name = "NAME", env = "SEALANE_TENANT")]
    pub tenant: Option<Name>,
    /// Only this namespace's
    #[arg(short, long, value_name = "NAME", env = "SEALANE_NAMESPACE")]
    pub namespace: Option<Name>,
    /// All tenants and namespaces, whatever SEALANE_TENANT and SEALANE_NAMESPACE say
    #[arg(short = 'A', long)]
    pub all: bool,
}

impl Selection {
    /// The tenant, unless all are meant.
    pub(crate) fn tenant(&self) -> Option<&Name> {
        self.tenant.as_ref().filter(|_| !self.all)
    }

    /// The namespace, unless all are meant.
    pub(crate) fn namespace(&self) -> Option<&Name> {
        self.namespace.as_ref().filter(|_| !self.all)
    }
}

/// `sealane get`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Kinds: tenants, namespaces (ns), sites, tokens, services (svc), \
    loadbalancers (lb), certificates (cert), bgppeers (peer).\n\
    What sites report: endpoints and paths (through the controller, or of a node on this machine \
    with --node-state); routes and neighbors (of a node, with --node-state).\n\n\
    Examples:\n  \
    sealane get services\n  \
    sealane get lb web -t acme -n shop -o yaml\n  \
    sealane get endpoints -t acme --watch\n  \
    sealane get paths par                     each way that begins or ends at par, hop by hop\n  \
    sealane get routes --node-state /var/lib/sealane"
)]
pub struct GetArgs {
    /// Kind, in singular, plural or short
    #[arg(value_name = "KIND")]
    pub kind: String,
    /// Only the one with this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Which ones.
    #[command(flatten)]
    pub selection: Selection,
    /// Print, then go on printing what changes until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// For routes, neighbors, endpoints and paths: a node's state folder, or a node of the running
    /// `up`
    #[arg(long, value_name = "DIR")]
    pub node_state: Option<PathBuf>,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// `sealane why`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The node decides as it would for a real request, by the configuration and \
    the health that it has now. Ports are the logical ones, 80 and 443 if the URL has none.\n\n\
    Examples:\n  \
    sealane why http://cart.acme.example/ --node-state par\n  \
    sealane why https://shop.acme.example/orders -X POST -H 'x-user: jones' --node-state /var/lib/sealane"
)]
pub struct WhyArgs {
    /// Where the request goes, http:// or https://
    #[arg(value_name = "URL")]
    pub url: String,
    /// Its method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub method: String,
    /// One of its headers; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The address of its client, which policies may look at
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// A name in its client's certificate: uri=, dns=, commonName= or sha256=; may be repeated
    #[arg(long, value_name = "KIND=NAME")]
    pub identity: Vec<String>,
    /// Which node: its state folder, or the name of a node of the running `up`
    #[arg(long, value_name = "DIR")]
    pub node_state: PathBuf,
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// The home of the `up` that is meant
    #[arg(long, value_name = "DIR", env = "SEALANE_HOME")]
    pub home: Option<PathBuf>,
}

/// A header as curl takes it.
fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as 'NAME: VALUE'".to_owned()),
    }
}

/// `sealane describe`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealane describe service cart -t acme -n shop\n  \
    sealane describe site par")]
pub struct DescribeArgs {
    /// Kind, in singular, plural or short
    #[arg(value_name = "KIND")]
    pub kind: String,
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: Name,
    /// Where to look for it.
    #[command(flatten)]
    pub selection: Selection,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// `sealane delete`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  \
    sealane delete service cart -t acme -n shop\n  \
    sealane delete -f examples/01-cart/       everything in these manifests, users first")]
pub struct DeleteArgs {
    /// Kind, in singular, plural or short
    #[arg(
        value_name = "KIND",
        requires = "name",
        required_unless_present = "files"
    )]
    pub kind: Option<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: Option<Name>,
    /// Everything in these manifests: file, folder, or - for standard input; may be repeated
    #[arg(
        short,
        long = "filename",
        value_name = "FILE|DIR|-",
        conflicts_with = "kind"
    )]
    pub files: Vec<PathBuf>,
    /// Where to look for it.
    #[command(flatten)]
    pub selection: Selection,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// `sealane diff`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Ends with 1 when there is a difference. Private keys are not compared.\n\n\
    Example:\n  sealane diff -f examples/01-cart/"
)]
pub struct DiffArgs {
    /// Manifest file, folder, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// `sealane status`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Ends with 1 when something is wrong: a site that is not connected, lags \
    behind, refused a revision, or could not bind a listener.\n\n\
    Example:\n  until sealane status; do sleep 1; done"
)]
pub struct StatusArgs {
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Where the API is
    #[command(flatten)]
    pub connection: Connection,
}

/// `sealane lab`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples (of the newest running `sealane up`, or with --home DIR):\n  \
    sealane lab relay list\n  \
    sealane lab relay set aws-par 80ms         round trip; the PoPs notice and prefer others\n  \
    sealane lab relay cut aws-par              connections are reset, new ones too\n  \
    sealane lab relay stall aws-par            silence: nothing arrives any more\n  \
    sealane lab relay heal aws-par\n  \
    sealane lab demo cart-1.aws sick           its /healthz says 503\n  \
    sealane lab demo cart-1.aws slow 200       every answer 200 ms later\n  \
    sealane lab demo cart-1.aws well\n  \
    sealane lab restart cart-1.aws             starts a process that died again"
)]
pub struct LabArgs {
    /// Home of the `sealane up`; the newest running one by default
    #[arg(long, value_name = "DIR", env = "SEALANE_HOME", global = true)]
    pub home: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// What can be done to a planet.
#[derive(Clone, Debug, Subcommand)]
pub enum LabCommand {
    /// Change the distance between a site and a PoP
    #[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Relay(RelayArgs),
    /// Make a demo endpoint sick, well or slow
    #[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Demo(DemoArgs),
    /// Start a process that died again, with the same arguments
    Restart {
        /// Its name, as `up` prints it: controller, relay, par, aws, cart-1.aws …
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Reset one BGP session of a node; nothing fails, the session comes back
    ResetBgp {
        /// The node's state folder, or a node of the running `up`, such as par
        #[arg(value_name = "NODE")]
        node: PathBuf,
        /// The neighbour's id, as `sealane get neighbors` shows it
        #[arg(value_name = "ID")]
        peer: String,
    },
    /// Be the Internet between namespaces
    #[command(hide = true)]
    Wan {
        /// What it is told
        config: PathBuf,
    },
    /// Be the doors into namespaces
    #[command(hide = true)]
    Publish {
        /// Which there are
        config: PathBuf,
    },
    /// Be users who ask at a steady rate
    #[command(hide = true)]
    Load {
        /// Whom for what
        config: PathBuf,
    },
    /// Be the janitor
    #[command(hide = true)]
    Janitor {
        /// The temporary home to remove
        home: PathBuf,
        /// The folder of links
        runs: PathBuf,
    },
    /// The relay's commands, also without the word relay.
    #[command(flatten)]
    Distance(RelayCommand),
}

/// `sealane lab relay`: a command for the running relay, or the relay itself.
#[derive(Clone, Debug, Args)]
pub struct RelayArgs {
    /// Be the relay
    #[arg(long, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
    /// A command for the running relay.
    #[command(subcommand)]
    pub command: Option<RelayCommand>,
}

/// What the relay can be told.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RelayCommand {
    /// Change the round trip of a pair
    Set {
        /// The pair, such as aws-par
        #[arg(value_name = "PAIR")]
        pair: String,
        /// The round trip, such as 40ms
        #[arg(value_name = "RTT", value_parser = span)]
        rtt: Duration,
    },
    /// Reset the connections of a pair, and every new one
    Cut {
        /// The pair
        #[arg(value_name = "PAIR")]
        pair: String,
    },
    /// Let nothing through any more, and say nothing
    Stall {
        /// The pair
        #[arg(value_name = "PAIR")]
        pair: String,
    },
    /// Make a line worse (with `up --net ns`); what is not named stays
    Degrade {
        /// The line, such as aws-par
        #[arg(value_name = "LINE")]
        pair: String,
        /// One way, such as 20ms
        #[arg(long, value_name = "TIME", value_parser = span)]
        delay: Option<Duration>,
        /// Up to so much more, such as 5ms
        #[arg(long, value_name = "TIME", value_parser = span)]
        jitter: Option<Duration>,
        /// The share of packets that is lost, in percent, such as 1 or 0.5
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        loss: Option<u32>,
        /// The rate, in kilobits a second
        #[arg(long, value_name = "KBIT")]
        rate: Option<u64>,
        /// The longest packet that fits, in octets
        #[arg(long, value_name = "OCTETS")]
        mtu: Option<usize>,
        /// Drop what is UDP, as a firewall does that knows TCP alone
        #[arg(long)]
        no_udp: bool,
    },
    /// Have the router before a gateway forget its connections (with `up --net ns`)
    FlushNat {
        /// The gateway, such as aws
        #[arg(value_name = "GATEWAY")]
        gateway: String,
    },
    /// Carry again
    Heal {
        /// The pair
        #[arg(value_name = "PAIR")]
        pair: String,
    },
    /// List the pairs
    List,
}

/// `sealane lab demo`: a command for a demo endpoint, or the endpoint itself.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Be a demo endpoint on this address
    #[arg(long, value_name = "ADDR", hide = true, requires_all = ["tenant", "site", "name"])]
    pub listen: Option<SocketAddr>,
    /// The tenant the endpoint says it belongs to
    #[arg(long, value_name = "NAME", hide = true)]
    pub tenant: Option<String>,
    /// The site it says it is in
    #[arg(long, value_name = "NAME", hide = true)]
    pub site: Option<String>,
    /// The name it says it has
    #[arg(long, value_name = "NAME", hide = true)]
    pub name: Option<String>,
    /// The endpoint: ADDRESS:PORT, or its name such as cart-1.aws
    #[arg(value_name = "ENDPOINT", required_unless_present = "listen")]
    pub endpoint: Option<String>,
    /// What it shall be
    #[arg(value_enum, required_unless_present = "listen")]
    pub mood: Option<Mood>,
    /// With slow: how much later every answer comes, in milliseconds
    #[arg(value_name = "MS", required_if_eq("mood", "slow"))]
    pub delay_ms: Option<u64>,
}

/// What a demo endpoint can be told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mood {
    /// /healthz answers 503
    Sick,
    /// Everything but /healthz answers 503
    Failing,
    /// Everything answers at once again
    Well,
    /// Every answer comes late
    Slow,
}

/// A share in percent, in millionths.
fn percent(text: &str) -> Result<u32, String> {
    // In millionths: four digits behind the point.
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    let padded = format!("{whole}{part:0<4}");
    match padded.parse() {
        Ok(millionths) if digits(whole) && digits(part) && millionths <= 1_000_000 => {
            Ok(millionths)
        }
        Ok(_) | Err(_) => Err("a share in percent, 0 to 100, such as 1 or 0.5".to_owned()),
    }
}

/// A duration as manifests write it.
fn span(text: &str) -> Result<Duration, String> {
    text.parse::<api::Span>().map(|span| span.0)
}

/// A duration as manifests write it, or whole days.
fn lifetime(text: &str) -> Result<Duration, String> {
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u32>().ok());
    let lifetime = match days {
        Some(days) => Duration::from_secs(u64::from(days) * 86_400),
        None => span(text).map_err(|error| format!("{error}; or days, such as 90d"))?,
    };
    if lifetime < Duration::from_secs(10) || lifetime > Duration::from_secs(3650 * 86_400) {
        return Err("a node certificate lives 10s at least and 3650d at most".to_owned());
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests;
