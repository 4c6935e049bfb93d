//! What the figures were measured on.

use std::fs;

use serde_json::{Map, Value, json};

use crate::namespace::CONGESTION_CONTROL;

/// Cores, kernel, its TCP, memory, load and the versions of those measured; no names.
#[must_use]
pub fn describe(versions: &[(String, String)], own_namespace: bool) -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.trim_end_matches("kB").trim().parse::<u64>();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let versions: Map<String, Value> = versions
        .iter()
        .map(|(name, version)| (name.clone(), json!(version)))
        .collect();
    json!({
        "congestionControl": read(CONGESTION_CONTROL).trim(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "kernel": kernel.trim().split('-').next().unwrap_or_default(),
        "loadAtStart": load.parse::<f64>().unwrap_or(0.0),
        "memoryGiB": memory.unwrap_or(0).div_ceil(1024 * 1024),
        "ownNamespace": own_namespace,
        "versions": versions,
    })
}
