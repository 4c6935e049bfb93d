//! What endpoints say of their load.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use l7::{load_report, load_report_bin};

use crate::Choices;

/// Whatever was said, what is read of it are numbers that can be reckoned with; a message is the
/// same padded or not and under either name, and what was written is read.
pub(crate) fn report(octets: &[u8]) {
    read(load_report(octets));
    read(load_report_bin(octets));
    let bare = BASE64_STANDARD_NO_PAD.encode(octets);
    let padded = BASE64_STANDARD.encode(octets);
    let said = read(load_report_bin(bare.as_bytes()));
    if padded.len() + 4 <= 4096 {
        assert_eq!(said, read(load_report_bin(padded.as_bytes())));
        assert_eq!(said, read(load_report(format!("BIN {padded}").as_bytes())));
    }
    written(Choices(octets));
}

/// As it is compared: utilization, requests and failures in a second.
fn read(report: Option<balance::LoadReport>) -> Option<[f64; 3]> {
    let report = report?;
    let [utilization, qps, eps] = [report.utilization, report.qps, report.eps];
    assert!(utilization > 0.0 && qps > 0.0 && eps >= 0.0);
    assert!([utilization, qps, eps].iter().all(|n| n.is_finite()));
    Some([utilization, qps, eps])
}

/// Fields in any order, of which some are known, some are not, and some come twice.
fn written(mut choices: Choices<'_>) {
    let mut message = Vec::new();
    let mut last = [0.0; 10];
    while message.len() < 1024
        && let Some(bits) = choices.next()
    {
        let number = bits & 15;
        match (bits >> 4) & 3 {
            0 => {
                let value = f64::from(u16::from_le_bytes([choices.octet(), choices.octet()]));
                message.push(number << 3 | 1);
                message.extend(value.to_le_bytes());
                if let Some(last) = last.get_mut(usize::from(number)).filter(|_| number != 3) {
                    *last = value;
                }
            }
            1 => {
                let value = choices.octet();
                message.push(number << 3);
                message.extend([value | 0x80, 0]);
                if number == 3 {
                    last[3] = f64::from(value & 0x7f);
                }
            }
            2 => {
                let within = choices.take(usize::from(choices.0.len() > 9) * 9);
                message.push(number << 3 | 2);
                message.push(u8::try_from(within.len()).expect("nine at most"));
                message.extend(within);
            }
            _ => {
                message.push(number << 3 | 5);
                message.extend([choices.octet(); 4]);
            }
        }
    }
    let [_, cpu, _, rps, _, _, rps_fractional, eps, _, application] = last;
    let some = |number: f64| Some(number).filter(|n| *n > 0.0);
    let expect = some(application)
        .or(some(cpu))
        .zip(some(rps_fractional).or(some(rps)))
        .map(|(utilization, qps)| [utilization, qps, eps]);
    let said = BASE64_STANDARD_NO_PAD.encode(&message);
    assert_eq!(
        read(load_report_bin(said.as_bytes())),
        expect,
        "{message:02x?}"
    );
}
