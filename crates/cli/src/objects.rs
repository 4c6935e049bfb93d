//! `get` and `describe`: objects, and what sites report.

mod paths;

use std::io::Write;

use api::{
    Kind, LoadBalancerSpec, Metadata, Object, Role, Scope, ServiceSpec, SiteSpec, Spec, derived,
};
use base::{Name, Revision};

pub(crate) use paths::hops;

use crate::{
    admin,
    args::{DescribeArgs, Format, GetArgs, Selection},
    client::Client,
    context::Context,
    error::{Exit, Failure},
    text::{self, Table, shown, structured},
    watch,
};

/// What `get` can be asked for beside the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    /// Endpoints as sites see them, through the controller.
    Endpoints,
    /// The ways from site to site, through the controller.
    Paths,
    /// A node's routes, from its own socket.
    Routes,
    /// A node's BGP sessions, from its own socket.
    Neighbors,
}

impl Derived {
    fn from_word(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "endpoint" | "endpoints" | "ep" => Some(Derived::Endpoints),
            "path" | "paths" => Some(Derived::Paths),
            "route" | "routes" => Some(Derived::Routes),
            "neighbor" | "neighbors" | "neighbour" | "neighbours" => Some(Derived::Neighbors),
            _ => None,
        }
    }
}

/// The kind that a word means.
pub(crate) fn kind(word: &str) -> Result<Kind, Failure> {
    Kind::from_word(word).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::plural).join(", ");
        Failure::usage(format!("there is no kind {word:?}")).fix(format!(
            "one of {known}; for `get` also endpoints, paths, routes, neighbors"
        ))
    })
}

/// `sealane get`.
pub(crate) async fn get(args: &GetArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    match Derived::from_word(&args.kind) {
        Some(Derived::Routes) => return admin::get("/routes", args, out).await,
        Some(Derived::Neighbors) => return admin::get("/neighbors", args, out).await,
        Some(Derived::Endpoints) if args.node_state.is_some() => {
            return admin::get("/endpoints", args, out).await;
        }
        Some(Derived::Endpoints) => return endpoints(args, out).await,
        Some(Derived::Paths) => return paths::get(args, out).await,
        None => {}
    }
    let kind = kind(&args.kind)?;
    if args.node_state.is_some() {
        return Err(
            Failure::usage(format!("a node does not tell its {}", kind.plural()))
                .at("--node-state")
                .fix("it tells routes, neighbors, endpoints and paths"),
        );
    }
    let name = args.name.as_deref().map(name).transpose()?;
    let mut client = Client::new(Context::find(&args.connection)?)?;
    let (found, revision) = select(&mut client, kind, name.as_ref(), &args.selection).await?;
    if name.is_some() && found.is_empty() && !args.watch {
        return Err(missing(kind, name.as_ref(), &args.selection));
    }
    if name.is_some() && found.len() == 1 && args.output == Format::Json {
        writeln!(out, "{}", text::json(&found[0])?)?;
    } else if !structured(&found, args.output, out)? {
        let live = if kind == Kind::Site {
            client.sites().await?
        } else {
            Vec::new()
        };
        let table = table(kind, &found, &live);
        if table.is_empty() && !args.watch {
            writeln!(out, "no {}", kind.plural())?;
        } else {
            write!(out, "{table}")?;
        }
    }
    if args.watch {
        watch::objects(&mut client, kind, revision, args, out).await?;
    }
    Ok(Exit::Done)
}

fn name(text: &str) -> Result<Name, Failure> {
    text.parse()
        .map_err(|error: base::NameError| Failure::usage(error.to_string()))
}

fn missing(kind: Kind, name: Option<&Name>, selection: &Selection) -> Failure {
    let name = name.map_or("", Name::as_str);
    let mut scope = String::new();
    if let Some(tenant) = selection.tenant() {
        scope += &format!(" in tenant {tenant}");
    }
    if let Some(namespace) = selection.namespace() {
        scope += &format!(", namespace {namespace}");
    }
    Failure::refused(format!("there is no {kind} {name:?}{scope}"))
        .fix(format!("`sealane get {} -A` lists them all", kind.plural()))
}

/// The one object that is meant.
pub(crate) async fn one(
    client: &mut Client,
    kind: Kind,
    name: &Name,
    selection: &Selection,
) -> Result<Object, Failure> {
    let (mut found, _) = select(client, kind, Some(name), selection).await?;
    match (found.pop(), found.as_slice()) {
        (Some(object), []) => Ok(object),
        (None, _) => Err(missing(kind, Some(name), selection)),
        (Some(last), others) => {
            let keys: Vec<String> = others
                .iter()
                .chain([&last])
                .map(|object| object.key().to_string())
                .collect();
            Err(
                Failure::usage(format!("{kind} {name:?} is not one but {}", keys.len()))
                    .at(keys.join(", "))
                    .fix("say which with -t TENANT and -n NAMESPACE"),
            )
        }
    }
}

/// Every object of a kind that the selection allows.
pub(crate) async fn select(
    client: &mut Client,
    kind: Kind,
    name: Option<&Name>,
    selection: &Selection,
) -> Result<(Vec<Object>, Revision), Failure> {
    let (mut found, revision) = client.list(&collection(kind, selection)).await?;
    found.retain(|object| allowed(&object.metadata, name, selection));
    Ok((found, revision))
}

/// The smallest collection that holds everything the selection allows.
pub(crate) fn collection(kind: Kind, selection: &Selection) -> String {
    let tenant = selection.tenant().filter(|_| kind.scope() != Scope::Global);
    let namespace = selection
        .namespace()
        .filter(|_| kind.scope() == Scope::Namespace);
    let plural = kind.plural();
    match (tenant, namespace) {
        (None, _) => plural.to_owned(),
        (Some(tenant), None) => format!("tenants/{tenant}/{plural}"),
        (Some(tenant), Some(namespace)) => {
            format!("tenants/{tenant}/namespaces/{namespace}/{plural}")
        }
    }
}

/// Is it one of those that are meant?
fn allowed(metadata: &Metadata, name: Option<&Name>, selection: &Selection) -> bool {
    let fits = |wanted: Option<&Name>, have: Option<&Name>| match (wanted, have) {
        (Some(wanted), Some(have)) => wanted == have,
        (None, _) | (Some(_), None) => true, // the kind has no such part
    };
    name.is_none_or(|name| metadata.name == *name)
        && fits(selection.namespace(), metadata.namespace.as_ref())
}

/// The columns of a kind.
pub(crate) fn table(kind: Kind, objects: &[Object], live: &[derived::SiteStatusView]) -> Table {
    let mut table = match kind {
        Kind::Tenant => Table::new(&["NAME", "ID", "PUBLIC HOSTS"]),
        Kind::Namespace => Table::new(&["TENANT", "NAME", "ISOLATION"]),
        Kind::Token => Table::new(&["TENANT", "NAME", "SITE", "STATE"]),
        Kind::Site => Table::new(&["TENANT", "NAME", "ROLE", "CONNECTED", "APPLIED", "WANTED"]),
        Kind::ServicePolicy => Table::new(&[
            "TENANT",
            "NAMESPACE",
            "NAME",
            "ALGORITHM",
            "EFFECT",
            "RULES",
        ]),
        Kind::Service => Table::new(&["TENANT", "NAMESPACE", "NAME", "PORT", "ORIGINS"]),
        Kind::LoadBalancer => Table::new(&["TENANT", "NAMESPACE", "NAME", "HOSTS", "PORTS", "TO"]),
        Kind::Certificate => Table::new(&["TENANT", "NAMESPACE", "NAME", "HOSTS", "SOURCE"]),
        Kind::BgpPeer => Table::new(&["TENANT", "NAME", "SITE", "ADDRESS", "AS", "OUR AS"]),
        Kind::Link => Table::new(&["TENANT", "NAME", "A", "B", "KIND", "COST"]),
    };
    for object in objects {
        add(&mut table, object, live);
    }
    table
}

fn add(table: &mut Table, object: &Object, live: &[derived::SiteStatusView]) {
    let meta = &object.metadata;
    let name = meta.name.to_string();
    let tenant = meta.tenant.as_ref().map_or("-".to_owned(), Name::to_string);
    let namespace = meta
        .namespace
        .as_ref()
        .map_or("-".to_owned(), Name::to_string);
    match &object.spec {
        Spec::Tenant(spec) => {
            let id = meta.id.map_or("-".to_owned(), |id| id.to_string());
            table.row([name, id, join(&spec.public_hosts)]);
        }
        Spec::Namespace(spec) => {
            let isolation = match spec.isolation {
                api::Isolation::Open => "open",
                api::Isolation::Closed => "closed",
            };
            table.row([tenant, name, isolation.to_owned()]);
        }
        Spec::Token(spec) => table.row([tenant, name, spec.site.to_string(), state(object)]),
        Spec::Site(spec) => {
            let site = object.key().site_name().to_string();
            let [connected, applied, wanted] = site_cells(&site, live);
            table.row([
                tenant,
                name,
                role(spec).to_owned(),
                connected,
                applied,
                wanted,
            ]);
        }
        Spec::ServicePolicy(spec) => {
            let [algorithm, effect] = policy(spec).map(str::to_owned);
            let rules = spec.rules.len().to_string();
            table.row([tenant, namespace, name, algorithm, effect, rules]);
        }
        Spec::Service(spec) => {
            table.row([
                tenant,
                namespace,
                name,
                spec.port.to_string(),
                origins(spec),
            ]);
        }
        Spec::LoadBalancer(spec) => {
            let (hosts, ports, to) = (join(&spec.hosts), ports(spec), backends(spec));
            table.row([tenant, namespace, name, hosts, ports, to]);
        }
        Spec::BgpPeer(spec) => {
            table.row([
                tenant,
                name,
                spec.site.to_string(),
                spec.peer_address.to_string(),
                spec.peer_asn.to_string(),
                spec.local_asn.to_string(),
            ]);
        }
        Spec::Link(spec) => {
            let kind = spec.kind.as_str().to_owned();
            let (a, b) = (spec.a.to_string(), spec.b.to_string());
            table.row([tenant, name, a, b, kind, spec.cost.to_string()]);
        }
        Spec::Certificate(spec) => {
            let source = match spec.source {
                api::CertificateSource::Pem => "pem",
                api::CertificateSource::SelfSigned => "selfSigned",
            };
            table.row([
                tenant,
                namespace,
                name,
                join(&spec.hosts),
                source.to_owned(),
            ]);
        }
    }
}

fn policy(spec: &api::ServicePolicySpec) -> [&'static str; 2] {
    let algorithm = match spec.algorithm {
        api::PolicyAlgorithm::FirstMatch => "firstMatch",
        api::PolicyAlgorithm::DenyOverrides => "denyOverrides",
        api::PolicyAlgorithm::AllowOverrides => "allowOverrides",
    };
    let effect = match spec.effect {
        api::PolicyEffect::Enforce => "enforce",
        api::PolicyEffect::Shadow => "shadow",
    };
    [algorithm, effect]
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

fn role(spec: &SiteSpec) -> &'static str {
    match spec.role {
        Role::Pop => "pop",
        Role::Gateway => "gateway",
    }
}

/// The reasons of the conditions: `Redeemed`, `Ready` …
fn state(object: &Object) -> String {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let words: Vec<String> = conditions
        .map(|condition| shown(&condition.reason))
        .collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(",")
    }
}

fn site_cells(site: &str, live: &[derived::SiteStatusView]) -> [String; 3] {
    let nodes: Vec<_> = live.iter().filter(|view| view.site == site).collect();
    let Some(first) = nodes.first() else {
        return ["never", "-", "-"].map(str::to_owned);
    };
    let up = nodes.iter().filter(|node| node.connected).count();
    let connected = match (up, nodes.len()) {
        (0, _) => "no".to_owned(),
        (up, all) if up == all => "yes".to_owned(),
        (up, all) => format!("{up}/{all}"),
    };
    let applied = nodes
        .iter()
        .filter_map(|node| node.status.as_ref())
        .map(|s| s.applied)
        .min();
    let applied = applied.map_or("-".to_owned(), |applied| applied.to_string());
    [connected, applied, first.wanted.to_string()]
}

fn origins(spec: &ServiceSpec) -> String {
    let each = spec.origins.iter().map(|origin| {
        format!(
            "{}x{}",
            origin
                .sites
                .iter()
                .map(Name::as_str)
                .collect::<Vec<_>>()
                .join("+"),
            origin.addresses.len()
        )
    });
    each.collect::<Vec<_>>().join(",")
}

fn ports(spec: &LoadBalancerSpec) -> String {
    let kind = spec.kind.as_str();
    let own = spec.ports().iter().map(|port| format!("{kind}:{port}"));
    let tls = spec.tls_ports().iter().map(|port| format!("https:{port}"));
    own.chain(tls).collect::<Vec<_>>().join(",")
}

fn backends(spec: &LoadBalancerSpec) -> String {
    let mut names: Vec<String> = Vec::new();
    for backend in spec.routes.iter().flat_map(|route| &route.backend_refs) {
        let name = backend.name.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(",")
}

/// One endpoint as one site sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen<'a> {
    seen_by: &'a str,
    #[serde(flatten)]
    endpoint: &'a derived::EndpointView,
}

async fn endpoints(args: &GetArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut client = Client::new(Context::find(&args.connection)?)?;
    watch::poll(args.watch, out, async |out, last: &mut Vec<String>| {
        let sites = client.sites().await?;
        let seen = seen(&sites, args);
        if args.watch && args.output == Format::Table {
            return watch::changed(endpoint_table(&seen).lines(), last, out);
        }
        if !structured(&seen, args.output, out)? {
            if seen.is_empty() {
                writeln!(out, "no endpoints")?;
            } else {
                write!(out, "{}", endpoint_table(&seen))?;
            }
        }
        Ok(())
    })
    .await
}

fn seen<'a>(sites: &'a [derived::SiteStatusView], args: &GetArgs) -> Vec<Seen<'a>> {
    let mut seen = Vec::new();
    for site in sites {
        for endpoint in site.status.iter().flat_map(|status| &status.endpoints) {
            let mut parts = endpoint.service.splitn(3, '.');
            let mut is = |wanted: Option<&str>| {
                let part = parts.next();
                wanted.is_none_or(|wanted| part == Some(wanted))
            };
            let named = is(args.name.as_deref())
                & is(args.selection.namespace().map(Name::as_str))
                & is(args.selection.tenant().map(Name::as_str));
            if named {
                seen.push(Seen {
                    seen_by: &site.site,
                    endpoint,
                });
            }
        }
    }
    seen.sort_by(|a, b| {
        let key = |s: &Seen<'a>| {
            (
                &s.endpoint.service,
                &s.endpoint.site,
                &s.endpoint.address,
                s.seen_by,
            )
        };
        key(a).cmp(&key(b))
    });
    seen
}

fn endpoint_table(seen: &[Seen<'_>]) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "SITE",
        "ADDRESS",
        "SEEN BY",
        "HEALTH",
        "REACHABLE",
        "RTT",
        "LOAD",
    ]);
    for Seen { seen_by, endpoint } in seen {
        let rtt = endpoint.rtt_us.filter(|_| endpoint.reachable);
        table.row([
            shown(&endpoint.service),
            shown(&endpoint.site),
            shown(&endpoint.address),
            shown(seen_by),
            shown(&endpoint.health),
            if endpoint.reachable { "yes" } else { "no" }.to_owned(),
            rtt.map_or("-".to_owned(), text::micros),
            text::load(endpoint.load_per_mille, endpoint.share_per_mille)
                .unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

/// `sealane describe`.
pub(crate) async fn describe(args: &DescribeArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let kind = kind(&args.kind)?;
    let mut client = Client::new(Context::find(&args.connection)?)?;
    let mut object = one(&mut client, kind, &args.name, &args.selection).await?;
    let status = object.status.take().unwrap_or_default();
    write!(out, "{}", text::yaml(&object)?)?;
    for condition in &status.conditions {
        let holds = if condition.status { "yes" } else { "no" };
        let (kind, reason) = (shown(&condition.kind), shown(&condition.reason));
        writeln!(
            out,
            "condition {kind}: {holds}, {reason}: {}",
            shown(&condition.message)
        )?;
    }
    if !status.sites.is_empty() {
        let mut table = Table::new(&["SITE", "APPLIED", "REFUSED"]);
        for report in &status.sites {
            let refused = report.refused.as_deref().map_or("-".to_owned(), shown);
            table.row([shown(&report.site), report.applied.to_string(), refused]);
        }
        write!(out, "\n{table}")?;
    }
    if kind == Kind::Site {
        let site = object.key().site_name().to_string();
        let nodes = client.sites().await?;
        for node in nodes.iter().filter(|node| node.site == site) {
            write!(out, "\n{}", text::yaml(node)?)?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
