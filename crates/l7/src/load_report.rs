//! What endpoints say of their load with an answer (Open Request Cost Aggregation, gRFC A51).

use balance::LoadReport;
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderName;
use serde_json::Value;

/// The header or trailer that says it as text; it is not for clients.
pub const LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// The one that says it in octets; it is not for clients either.
pub const LOAD_METRICS_BIN: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// The longest value that is read.
const MAX_OCTETS: usize = 4096;

/// gRPC leaves the padding away, others do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Read a value of [`LOAD_METRICS`]: `TEXT cpu_utilization=0.3,rps_fractional=10`,
/// `JSON {"cpu_utilization": 0.3, …}`, or `BIN` and a value of [`LOAD_METRICS_BIN`]; `None`: it is
/// none of these, longer than 4 KiB, or says nothing of what is needed. `application_utilization`
/// counts before `cpu_utilization`, `rps_fractional` before `rps`.
#[must_use]
pub fn load_report(value: &[u8]) -> Option<LoadReport> {
    if value.len() > MAX_OCTETS {
        return None;
    }
    let (format, rest) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    match format {
        "TEXT" => Said::text(rest).report(),
        "JSON" => Said::json(&serde_json::from_str(rest).ok()?).report(),
        "BIN" => load_report_bin(rest.as_bytes()),
        _ => None,
    }
}

/// Read a value of [`LOAD_METRICS_BIN`]: the Protocol Buffers message
/// `xds.data.orca.v3.OrcaLoadReport` in base64, padded or not; `None` as of [`load_report`].
#[must_use]
pub fn load_report_bin(value: &[u8]) -> Option<LoadReport> {
    if value.len() > MAX_OCTETS {
        return None;
    }
    Said::message(&BASE64.decode(value).ok()?)?.report()
}

/// The fields that are needed, by the names that the message has for them; 0: not said.
#[derive(Debug, Default)]
struct Said {
    cpu_utilization: f64,
    rps: f64,
    rps_fractional: f64,
    eps: f64,
    application_utilization: f64,
}

impl Said {
    fn text(pairs: &str) -> Self {
        let mut said = Said::default();
        for (name, number) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            if let Some(field) = said.field(name.trim()) {
                *field = number.trim().parse().unwrap_or(0.0);
            }
        }
        said
    }

    /// The names of fields are those of the message, or as its JSON mapping has them.
    fn json(object: &Value) -> Self {
        let mut said = Said::default();
        for (name, number) in object.as_object().into_iter().flatten() {
            if let Some(field) = said.field(name) {
                *field = number.as_f64().unwrap_or(0.0);
            }
        }
        said
    }

    fn field(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "cpu_utilization" | "cpuUtilization" => Some(&mut self.cpu_utilization),
            "rps" => Some(&mut self.rps),
            "rps_fractional" | "rpsFractional" => Some(&mut self.rps_fractional),
            "eps" => Some(&mut self.eps),
            "application_utilization" | "applicationUtilization" => {
                Some(&mut self.application_utilization)
            }
            _ => None,
        }
    }

    /// Of a field that comes twice the last counts, and those of other numbers or types are passed
    /// over (Protocol Buffers, "Encoding"); `None`: this is no message.
    fn message(mut octets: &[u8]) -> Option<Self> {
        const VARINT: u64 = 0;
        const FIXED64: u64 = 1;
        const LENGTH: u64 = 2;
        const FIXED32: u64 = 5;
        let mut said = Said::default();
        while !octets.is_empty() {
            let tag = varint(&mut octets)?;
            let (number, kind) = (tag >> 3, tag & 7);
            match kind {
                VARINT => {
                    let value = varint(&mut octets)?;
                    if number == 3 {
                        #[expect(clippy::cast_precision_loss, reason = "53 bits say enough of it")]
                        let value = value as f64;
                        said.rps = value;
                    }
                }
                FIXED64 => {
                    let (value, rest) = octets.split_first_chunk()?;
                    octets = rest;
                    let value = f64::from_le_bytes(*value);
                    match number {
                        1 => said.cpu_utilization = value,
                        6 => said.rps_fractional = value,
                        7 => said.eps = value,
                        9 => said.application_utilization = value,
                        _ => {}
                    }
                }
                LENGTH => {
                    let length = usize::try_from(varint(&mut octets)?).ok()?;
                    octets = octets.get(length..)?;
                }
                FIXED32 => octets = octets.get(4..)?,
                // Groups are no part of proto3; the others are nothing yet.
                _ => return None,
            }
        }
        Some(said)
    }

    /// What is no number, negative or without end is not said.
    fn report(&self) -> Option<LoadReport> {
        let positive = |number: f64| Some(number).filter(|n| n.is_finite() && *n > 0.0);
        let cpu = || positive(self.cpu_utilization);
        Some(LoadReport {
            utilization: positive(self.application_utilization).or_else(cpu)?,
            qps: positive(self.rps_fractional).or_else(|| positive(self.rps))?,
            eps: positive(self.eps).unwrap_or(0.0),
        })
    }
}

/// Seven bits an octet, the lowest first; the rest of `octets` is what follows.
fn varint(octets: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = octets.split_first()?;
        *octets = rest;
        let bits = u64::from(octet & 0x7f);
        // The tenth has room for one bit.
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_as_text() {
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
            (
                r#"JSON {"applicationUtilization": 0.7, "rpsFractional": 5}"#,
                Some((0.7, 5.0, 0.0)),
            ),
            // cpu_utilization 0.5, rps_fractional 10, padded and not.
            ("BIN CQAAAAAAAOA/MQAAAAAAACRA", Some((0.5, 10.0, 0.0))),
            ("BIN AAAA", None),
            ("BIN", None),
            ("BIN CQAAAAAAAOA/MQAAAAAAACRA!", None),
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
    /// A field of the message.
    fn double(number: u8, value: f64) -> Vec<u8> {
        [&[number << 3 | 1][..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn reports_in_octets() {
        let known = [double(1, 0.5), double(6, 10.0)].concat();
        let with = |more: &[u8]| [&known, more].concat();
        let after = |before: &[u8]| [before, &known].concat();
        for (octets, expect) in [
            (known.clone(), Some((0.5, 10.0, 0.0))),
            (with(&double(7, 2.0)), Some((0.5, 10.0, 2.0))),
            (with(&double(9, 0.7)), Some((0.7, 10.0, 0.0))),
            // The last of two counts, even if it says nothing.
            (with(&double(1, 0.25)), Some((0.25, 10.0, 0.0))),
            (with(&double(1, 0.0)), None),
            (with(&double(7, f64::NAN)), Some((0.5, 10.0, 0.0))),
            (with(&double(1, f64::INFINITY)), None),
            (with(&double(1, -1.0)), None),
            // The older rps, an integer: 300.
            (
                [&double(1, 0.5)[..], &[0x18, 0xac, 2]].concat(),
                Some((0.5, 300.0, 0.0)),
            ),
            (with(&[0x18, 0xac, 2]), Some((0.5, 10.0, 0.0))),
            // Maps of named metrics, mem_utilization, what is not known yet, other types than ours.
            (after(b"\x42\x05\x0a\x01a\x11\x00"), Some((0.5, 10.0, 0.0))),
            (with(&double(2, 0.9)), Some((0.5, 10.0, 0.0))),
            (after(&[0x35, 1, 2, 3, 4]), Some((0.5, 10.0, 0.0))),
            (after(&[0x08, 1]), Some((0.5, 10.0, 0.0))),
            (
                after(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 1]),
                Some((0.5, 10.0, 0.0)),
            ),
            (Vec::new(), None),
            // Ends early, at every octet of it.
            (known[..17].to_vec(), None),
            (with(&[0x09]), None),
            (with(&[0x42, 2, 0]), None),
            (
                with(&[
                    0x42, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
                ]),
                None,
            ),
            (with(&[0x35, 1, 2, 3]), None),
            (with(&[0x18]), None),
            (with(&[0x18, 0x80]), None),
            // A number of more than 64 bits.
            (
                with(&[
                    0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2,
                ]),
                None,
            ),
            (
                with(&[
                    0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x81, 0,
                ]),
                None,
            ),
            // Groups, and types that there are not.
            (with(&[0x0b]), None),
            (with(&[0x0c]), None),
            (with(&[0x0e]), None),
            (with(&[0x0f]), None),
        ] {
            let padded = base64::prelude::BASE64_STANDARD.encode(&octets);
            let bare = base64::prelude::BASE64_STANDARD_NO_PAD.encode(&octets);
            for value in [padded, bare] {
                let found = load_report_bin(value.as_bytes());
                assert_eq!(load_report(format!("BIN {value}").as_bytes()), found);
                let found = found.map(|report| (report.utilization, report.qps, report.eps));
                assert_eq!(found, expect, "{octets:?}");
            }
        }
        let long = [&known[..], &[0x42, 0xf0, 0x1f], &[0; 4080]].concat();
        let long = base64::prelude::BASE64_STANDARD.encode(long);
        assert_eq!(load_report_bin(long.as_bytes()), None);
    }
}
