//! Load, and what came of it: `wrk` for HTTP/1.1, `h2load` for HTTP/2 and for a steady rate.

use std::{fs, ops::AddAssign, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};

/// What was answered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answered {
    /// Requests answered with 2xx.
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
}

impl AddAssign for Answered {
    fn add_assign(&mut self, other: Answered) {
        self.requests += other.requests;
        self.seconds += other.seconds;
    }
}

/// Run a program on the core that the proxy does not have; its output.
fn beside(program: &str, arguments: &[String]) -> Result<String> {
    let output = Command::new("taskset")
        .args(["-c", "1", program])
        .args(arguments)
        .output()
        .with_context(|| format!("{program} could not be started"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{program} ended with {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// HTTP/1.1 as fast as it goes.
pub(crate) fn wrk(
    url: &str,
    connections: u32,
    time: Duration,
    more: &[String],
) -> Result<Answered> {
    let mut arguments = vec![
        "-t1".to_owned(),
        format!("-c{connections}"),
        format!("-d{}s", time.as_secs()),
    ];
    arguments.extend_from_slice(more);
    arguments.push(url.to_owned());
    let text = beside("wrk", &arguments)?;
    for line in text.lines().map(str::trim) {
        // Connections that are cut at the end of the run count as read errors of this kind.
        let bad = line.starts_with("Non-2xx")
            || line.starts_with("Socket errors: connect ") && !line.contains("connect 0,");
        if bad {
            bail!("wrk: {line}");
        }
    }
    let (requests, seconds) = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .with_context(|| format!("wrk says: {text}"))?;
    let seconds = seconds.split(',').next().unwrap_or_default();
    Ok(Answered {
        requests: requests.parse().context("wrk's count")?,
        seconds: unit(seconds).with_context(|| format!("wrk's time {seconds}"))?,
    })
}

/// `4.10s`, `1.02m`.
fn unit(text: &str) -> Option<f64> {
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => match text.strip_suffix('s') {
            Some(number) => (number, 1.0),
            None => (text.strip_suffix('m')?, 60.0),
        },
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// By `h2load`.
pub(crate) fn h2load(url: &str, arguments: &[&str]) -> Result<Answered> {
    let mut all: Vec<String> = vec!["-t1".to_owned()];
    all.extend(arguments.iter().map(|word| (*word).to_owned()));
    all.push(url.to_owned());
    let text = beside("h2load", &all)?;
    h2load_said(&text).with_context(|| format!("h2load says: {text}"))
}

fn h2load_said(text: &str) -> Option<Answered> {
    let finished = text
        .lines()
        .find_map(|line| line.strip_prefix("finished in "))?;
    let codes = text
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "))?;
    let good = codes.split_once(" 2xx")?.0;
    Some(Answered {
        requests: good.parse().ok()?,
        seconds: unit(finished.split(',').next()?)?,
    })
}

/// Latencies in microseconds from `h2load --log-file`, sorted: start, status, duration.
pub(crate) fn latencies(file: &Path) -> Result<Vec<f64>> {
    let text = fs::read_to_string(file).context("h2load's log")?;
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split('\t');
        if let (Some(_), Some("200"), Some(took)) = (words.next(), words.next(), words.next()) {
            all.push(
                took.parse()
                    .with_context(|| format!("h2load's log: {line}"))?,
            );
        }
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says() {
        let text = "finished in 4.05s, 50000.00 req/s, 50.00MB/s\n\
                    requests: 200000 total, 200001 started\n\
                    status codes: 199998 2xx, 0 3xx, 0 4xx, 2 5xx\n";
        let said = h2load_said(text).expect("said");
        assert!((said.requests - 199_998.0).abs() < 0.1 && (said.seconds - 4.05).abs() < 1e-9);
        assert_eq!(unit("1.50m"), Some(90.0));
        assert_eq!(unit("250.00ms"), Some(0.25));
        assert_eq!(unit("x"), None);
    }
}
