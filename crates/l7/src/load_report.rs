//! What endpoints say of their load with an answer (Open Request Cost Aggregation, gRFC A51).

use balance::LoadReport;
use http::HeaderName;
use serde_json::Value;

/// The header that says it; it is not for clients.
pub const LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The longest value that is read.
const MAX_OCTETS: usize = 4096;

/// Read `TEXT cpu_utilization=0.3,rps_fractional=10` or `JSON {"cpu_utilization": 0.3, …}`;
/// `None`: it is neither, or says nothing of what is needed. `application_utilization` counts
/// before `cpu_utilization`, `rps_fractional` before `rps`.
#[must_use]
pub fn load_report(value: &[u8]) -> Option<LoadReport> {
    let text = std::str::from_utf8(value.get(..value.len().min(MAX_OCTETS))?).ok()?;
    let (format, rest) = text.split_once(' ')?;
    if value.len() > MAX_OCTETS {
        return None;
    }
    let number: &dyn Fn(&str) -> Option<f64> = match format {
        "TEXT" => &|name| {
            let mut pairs = rest.split(',').filter_map(|pair| pair.split_once('='));
            let (_, number) = pairs.find(|(key, _)| key.trim() == name)?;
            number.trim().parse().ok()
        },
        "JSON" => {
            let object: Value = serde_json::from_str(rest).ok()?;
            return report(&|name| object.get(name)?.as_f64());
        }
        _ => return None,
    };
    report(number)
}

fn report(number: &dyn Fn(&str) -> Option<f64>) -> Option<LoadReport> {
    let sound = |name| number(name).filter(|number| number.is_finite() && *number >= 0.0);
    let positive = |name| sound(name).filter(|number| *number > 0.0);
    Some(LoadReport {
        utilization: positive("application_utilization").or_else(|| positive("cpu_utilization"))?,
        qps: positive("rps_fractional").or_else(|| positive("rps"))?,
        eps: sound("eps").unwrap_or(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_in_both_forms() {
        for (value, expect) in [
            (
                "TEXT cpu_utilization=0.5,rps_fractional=10",
                Some((0.5, 10.0, 0.0)),
            ),
            (
                "TEXT mem_utilization=0.9, cpu_utilization=0.5, rps_fractional=10.5, eps=1, \
                 named_metrics.queue=0.3",
                Some((0.5, 10.5, 1.0)),
            ),
            (
                "TEXT application_utilization=1.5,cpu_utilization=0.5,rps=7",
                Some((1.5, 7.0, 0.0)),
            ),
            (
                "TEXT application_utilization=0,cpu_utilization=0.5,rps=7",
                Some((0.5, 7.0, 0.0)),
            ),
            (
                r#"JSON {"cpu_utilization": 0.5, "rps_fractional": 10}"#,
                Some((0.5, 10.0, 0.0)),
            ),
            (
                r#"JSON {"application_utilization": 0.7, "rps_fractional": 1e2, "eps": 3,
                         "named_metrics": {"queue": 0.3}}"#,
                Some((0.7, 100.0, 3.0)),
            ),
            ("TEXT cpu_utilization=0.5", None),
            ("TEXT rps_fractional=10", None),
            ("TEXT cpu_utilization=NaN,rps_fractional=10", None),
            ("TEXT cpu_utilization=inf,rps_fractional=10", None),
            ("TEXT cpu_utilization=-1,rps_fractional=10", None),
            ("TEXT cpu_utilization=0.5,rps_fractional=ten", None),
            ("TEXT", None),
            ("cpu_utilization=0.5,rps_fractional=10", None),
            ("JSON [0.5, 10]", None),
            (
                "JSON {\"cpu_utilization\": \"0.5\", \"rps_fractional\": 10}",
                None,
            ),
            ("JSON {", None),
            ("BIN AAAA", None),
            ("", None),
        ] {
            let found = load_report(value.as_bytes());
            let found = found.map(|report| (report.utilization, report.qps, report.eps));
            assert_eq!(found, expect, "{value}");
        }
        let long = format!(
            "TEXT cpu_utilization=0.5,rps_fractional=10,{}",
            "x".repeat(4096)
        );
        assert_eq!(load_report(long.as_bytes()), None);
        assert_eq!(load_report(b"TEXT cpu_utilization=0.5,rps=\xff"), None);
        let deep = format!("JSON {}", "[".repeat(4000));
        assert_eq!(load_report(deep.as_bytes()), None);
    }
}
