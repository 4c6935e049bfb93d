//! The file of `sealane bgp`: YAML (or JSON, which is YAML), every field checked.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU8,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base::NodeId;
use serde::{Deserialize, Deserializer, de::Error as _};
use speaker::server::{
    BfdConfig, Family, Filter, Kind, NeighborConfig, NeighborFamily, NextHopChoice, Secret,
    ServerConfig, StaticRoute, Timers, parse_prefix,
};

use plan::policy::{self, Filters, PolicyFile};

/// The largest file, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// The most neighbours.
const MAX_NEIGHBORS: usize = 10_000;
/// The most threads.
const MAX_SHARDS: usize = 64;

/// Why a file does not make a speaker.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{0}: cannot be read")]
    File(PathBuf, #[source] io::Error),
    /// It is longer than 16 MiB.
    #[error("{0}: longer than {MAX_FILE_BYTES} bytes")]
    TooLong(PathBuf),
    /// It is no YAML of the right shape.
    #[error("{file}: {at}: {sentence}")]
    Shape {
        /// The file.
        file: PathBuf,
        /// Where in it.
        at: String,
        /// What is wrong there.
        sentence: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    asn: u32,
    router_id: Ipv4Addr,
    #[serde(default, deserialize_with = "one_or_many")]
    listen: Vec<SocketAddr>,
    shards: Option<usize>,
    next_hop_tracking: Option<NextHopTracking>,
    #[serde(default)]
    neighbors: Vec<Neighbor>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    policies: BTreeMap<String, PolicyFile>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NextHopTracking {
    #[serde(default, deserialize_with = "duration")]
    interval: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Neighbor {
    address: IpAddr,
    #[serde(default = "bgp_port")]
    port: u16,
    asn: u32,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    client: bool,
    #[serde(default)]
    route_server: bool,
    #[serde(default, deserialize_with = "policy::families")]
    families: Vec<Family>,
    import: Option<String>,
    export: Option<String>,
    password: Option<String>,
    #[serde(default)]
    add_path: AddPath,
    #[serde(default)]
    gtsm: bool,
    #[serde(default, deserialize_with = "duration")]
    hold_time: Option<Duration>,
    graceful_restart: Option<GracefulRestart>,
    bfd: Option<Bfd>,
    #[serde(default = "yes")]
    extended_messages: bool,
    next_hop: Option<NextHop>,
    #[serde(default)]
    next_hop_addresses: Vec<IpAddr>,
    local_address: Option<IpAddr>,
    #[serde(default = "most_routes")]
    max_routes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum NextHop {
    #[serde(rename = "self")]
    Own,
    Unchanged,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AddPath {
    #[serde(default, deserialize_with = "paths")]
    send: u8,
    #[serde(default)]
    receive: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GracefulRestart {
    #[serde(default, deserialize_with = "duration")]
    restart_time: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    long_lived: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Bfd {
    #[serde(default, deserialize_with = "duration")]
    interval: Option<Duration>,
    #[serde(default = "three")]
    multiplier: NonZeroU8,
    multihop: Option<u8>,
}

fn three() -> NonZeroU8 {
    Timers::default().detect_multiplier
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Route {
    prefix: String,
    next_hop: IpAddr,
    #[serde(default)]
    communities: Vec<String>,
    local_pref: Option<u32>,
    med: Option<u32>,
}

const fn bgp_port() -> u16 {
    179
}

const fn yes() -> bool {
    true
}

const fn most_routes() -> u32 {
    10_000_000
}

/// Read and check a file.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn load(path: &Path) -> Result<ServerConfig, ConfigError> {
    let lost = |error| ConfigError::File(path.to_owned(), error);
    let length = fs::metadata(path).map_err(lost)?.len();
    if length > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong(path.to_owned()));
    }
    parse(path, &fs::read_to_string(path).map_err(lost)?)
}

/// A field, and what would be right there.
type Wrong = (String, String);

fn check(good: bool, at: impl FnOnce() -> String, sentence: &str) -> Result<(), Wrong> {
    if good {
        Ok(())
    } else {
        Err((at(), sentence.to_owned()))
    }
}

fn parse(path: &Path, text: &str) -> Result<ServerConfig, ConfigError> {
    let wrong = |(at, sentence): Wrong| ConfigError::Shape {
        file: path.to_owned(),
        at,
        sentence,
    };
    let file: File = serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(text))
        .map_err(|error| wrong((error.path().to_string(), error.inner().to_string())))?;
    config_of(file).map_err(wrong)
}

fn config_of(file: File) -> Result<ServerConfig, Wrong> {
    let top = |field: &'static str| move || field.to_owned();
    let sentence = "AS 0 speaks to nobody (RFC 7607)";
    check(file.asn != 0, top("asn"), sentence)?;
    let sentence = "0.0.0.0 is no BGP Identifier (RFC 6286)";
    check(!file.router_id.is_unspecified(), top("routerId"), sentence)?;
    let shards = file.shards.unwrap_or_else(default_shards);
    let sentence = "a number from 1 to 64; leave it out for one a core";
    check((1..=MAX_SHARDS).contains(&shards), top("shards"), sentence)?;
    let interval = file
        .next_hop_tracking
        .and_then(|tracking| tracking.interval);
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
    check(
        interval.is_none_or(|interval| (least..=most).contains(&interval)),
        top("nextHopTracking.interval"),
        "100ms to 1h",
    )?;
    let few = file.neighbors.len() <= MAX_NEIGHBORS;
    check(few, top("neighbors"), "at most 10000")?;
    let filters = policy::filters(&file.policies).map_err(|name| {
        let sentence = "this name is taken by what it means";
        (format!("policies.{name}"), sentence.to_owned())
    })?;
    let neighbors = (0..file.neighbors.len()).map(|i| neighbor_of(&file, i, &filters));
    let routes = file.routes.iter().enumerate();
    Ok(ServerConfig {
        asn: file.asn,
        node: NodeId(u32::from(file.router_id)),
        shards,
        neighbors: neighbors.collect::<Result<_, _>>()?,
        restarted: false,
        bfd: None,
        next_hop_interval: file
            .next_hop_tracking
            .map(|tracking| tracking.interval.unwrap_or(Duration::from_secs(1))),
        routes: routes
            .map(|(i, route)| route_of(i, route))
            .collect::<Result<_, _>>()?,
        listen: file.listen,
    })
}

fn route_of(i: usize, route: &Route) -> Result<StaticRoute, Wrong> {
    let wrong = |field: &str, sentence: &str| (format!("routes[{i}].{field}"), sentence.to_owned());
    let (family, key) = parse_prefix(&route.prefix)
        .ok_or_else(|| wrong("prefix", "a prefix such as 10.0.0.0/8 or 2001:db8::/32"))?;
    let communities = route.communities.iter().map(|text| {
        community(text).ok_or_else(|| wrong("communities", "a community such as 65000:1"))
    });
    Ok(StaticRoute {
        family,
        key,
        next_hop: route.next_hop,
        communities: communities.collect::<Result<_, _>>()?,
        local_pref: route.local_pref,
        med: route.med,
    })
}

/// The `i`th neighbour, checked.
fn neighbor_of(file: &File, i: usize, filters: &Filters) -> Result<NeighborConfig, Wrong> {
    let (before, rest) = file.neighbors.split_at(i);
    let neighbor = &rest[0];
    let at = |field: &'static str| move || format!("neighbors[{i}].{field}");
    let twin = before
        .iter()
        .any(|other| (other.address, other.port) == (neighbor.address, neighbor.port));
    check(!twin, at("address"), "another neighbour has this address")?;
    check(neighbor.asn != 0, at("asn"), "AS 0 is nobody's (RFC 7607)")?;
    let external = neighbor.asn != file.asn;
    let sentence = "only a neighbour in our own AS is a client of the reflector (RFC 4456)";
    check(!neighbor.client || !external, at("client"), sentence)?;
    let sentence = "only a neighbour in another AS is a client of the route server (RFC 7947)";
    check(
        !neighbor.route_server || external,
        at("routeServer"),
        sentence,
    )?;
    let hold = neighbor.hold_time.map_or(90, |time| time.as_secs());
    let sentence = "0s (never), or from 3s to 65535s (RFC 4271 §4.2)";
    check(
        hold == 0 || (3..=65535).contains(&hold),
        at("holdTime"),
        sentence,
    )?;
    let long = neighbor.password.as_ref().is_some_and(|p| p.len() > 80);
    check(
        !long,
        at("password"),
        "at most 80 bytes (RFC 2385 in Linux)",
    )?;
    let restart = neighbor.graceful_restart.as_ref();
    let most = |time: Option<Duration>, seconds| time.is_none_or(|t| t.as_secs() <= seconds);
    check(
        restart.is_none_or(|restart| most(restart.restart_time, 4095)),
        at("gracefulRestart.restartTime"),
        "at most 4095s (RFC 4724 §3); longLived goes on behind it",
    )?;
    check(
        restart.is_none_or(|restart| most(restart.long_lived, 0xFF_FFFF)),
        at("gracefulRestart.longLived"),
        "at most 16777215s (RFC 9494 §3)",
    )?;
    let interval = neighbor.bfd.as_ref().and_then(|bfd| bfd.interval);
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
    check(
        interval.is_none_or(|interval| (least..=most).contains(&interval)),
        at("bfd.interval"),
        "10ms to 60s",
    )?;
    let import = chosen(filters, neighbor.import.as_deref(), external);
    let import = import.map_err(|sentence| (at("import")(), sentence))?;
    let export = chosen(filters, neighbor.export.as_deref(), external);
    let export = export.map_err(|sentence| (at("export")(), sentence))?;
    Ok(settings(neighbor, external, import, export))
}

/// The filter with a name.
fn chosen(filters: &Filters, name: Option<&str>, external: bool) -> Result<Arc<Filter>, String> {
    // RFC 8212: an external neighbour says and hears nothing until somebody says otherwise.
    let name = name.unwrap_or(if external { "reject" } else { "accept" });
    filters.get(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = filters.keys().map(String::as_str).collect();
        format!(
            "no policy is named {name:?}; there are {}",
            known.join(", ")
        )
    })
}

fn settings(
    neighbor: &Neighbor,
    external: bool,
    import: Arc<Filter>,
    export: Arc<Filter>,
) -> NeighborConfig {
    let kind = match (external, neighbor.client, neighbor.route_server) {
        (true, _, true) => Kind::RouteServerClient,
        (true, _, false) => Kind::External,
        (false, true, _) => Kind::Client,
        (false, false, _) => Kind::NonClient,
    };
    let default = [if neighbor.address.is_ipv4() {
        Family::IPV4
    } else {
        Family::IPV6
    }];
    let families = match neighbor.families.as_slice() {
        [] => &default[..],
        some => some,
    };
    let families = families.iter().map(|family| NeighborFamily {
        family: *family,
        add_path_send: neighbor.add_path.send,
        add_path_receive: neighbor.add_path.receive,
        max_routes: neighbor.max_routes,
    });
    let next_hop = match neighbor.next_hop {
        Some(NextHop::Own) => NextHopChoice::Own,
        Some(NextHop::Unchanged) => NextHopChoice::Unchanged,
        None if kind == Kind::External => NextHopChoice::Own,
        None => NextHopChoice::Unchanged,
    };
    NeighborConfig {
        address: neighbor.address,
        port: neighbor.port,
        asn: neighbor.asn,
        kind,
        passive: neighbor.passive,
        local_address: neighbor.local_address,
        password: neighbor.password.clone().map(Secret),
        gtsm: neighbor.gtsm,
        hold_time: neighbor.hold_time.unwrap_or(Duration::from_secs(90)),
        families: families.collect(),
        import,
        export,
        next_hop,
        next_hop_addresses: neighbor.next_hop_addresses.clone(),
        extended_messages: neighbor.extended_messages,
        bfd: neighbor.bfd.as_ref().map(bfd),
        restart_time: neighbor
            .graceful_restart
            .as_ref()
            .map(|restart| restart.restart_time.unwrap_or(Duration::from_secs(120))),
        long_lived: neighbor
            .graceful_restart
            .as_ref()
            .and_then(|restart| restart.long_lived)
            .unwrap_or_default(),
    }
}

fn bfd(bfd: &Bfd) -> BfdConfig {
    let interval = bfd.interval.unwrap_or(Timers::default().desired_min_tx);
    BfdConfig::new(interval, bfd.multiplier, bfd.multihop)
}

/// One for two cores: the kernel's part of many sessions wants the other, and one thread takes in
/// a single session's table faster than two that have to share it out.
fn default_shards() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

/// `65000:1`, or a number.
fn community(text: &str) -> Option<u32> {
    let Some((asn, value)) = text.split_once(':') else {
        return text.parse().ok();
    };
    let (asn, value): (u16, u16) = (asn.parse().ok()?, value.parse().ok()?);
    Some(u32::from(asn) << 16 | u32::from(value))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(SocketAddr),
    Many(Vec<SocketAddr>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let sentence = "an address such as 10.0.0.1:179, or a list of them";
    Ok(
        match OneOrMany::deserialize(deserializer).map_err(|_| D::Error::custom(sentence))? {
            OneOrMany::One(address) => vec![address],
            OneOrMany::Many(addresses) => addresses,
        },
    )
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |unit: &str| text.strip_suffix(unit).and_then(|s| s.parse::<u64>().ok());
    let of = |unit, seconds| number(unit).and_then(|n| n.checked_mul(seconds));
    let millis = number("ms").map(Duration::from_millis);
    let seconds = || of("s", 1).or(of("m", 60)).or(of("h", 3600));
    let time = millis.or_else(|| seconds().map(Duration::from_secs));
    time.map(Some)
        .ok_or_else(|| D::Error::custom("a time such as 300ms, 90s, 2m or 1h"))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    Some(u8),
    Word(String),
}

fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match Paths::deserialize(deserializer) {
        Ok(Paths::Some(count)) => Ok(count),
        Ok(Paths::Word(word)) if word == "all" => Ok(u8::MAX),
        Ok(Paths::Word(_)) | Err(_) => Err(D::Error::custom("`all`, or how many paths")),
    }
}
