//! FlowSpec filters (RFC 8955 §4, RFC 8956 §3): components in ascending type.

use std::fmt::Write as _;

use super::nlri::address;
use crate::cursor::Cursor;

const RD: usize = 8;
/// Types 1 and 2 are prefixes, 13 is the flow label of IPv6.
const LAST_TYPE: u8 = 13;

/// A filter's octets behind its length of one or two octets (RFC 8955 §4.1).
pub(super) fn take<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], &'static str> {
    let first = cursor.u8().ok_or("no length")?;
    let length = if first < 0xF0 {
        usize::from(first)
    } else {
        let low = cursor.u8().ok_or("a length that overruns")?;
        usize::from(first & 0x0F) << 8 | usize::from(low)
    };
    cursor.take(length).ok_or("a filter that overruns")
}

/// Is it what it should be?
pub(super) fn check(key: &[u8], v6: bool, vpn: bool) -> Result<(), &'static str> {
    let components = if vpn {
        key.get(RD..)
            .ok_or("a filter shorter than its route distinguisher")?
    } else {
        key
    };
    let mut cursor = Cursor::new(components);
    if components.is_empty() {
        return Err("a filter without components would match everything");
    }
    let mut last = 0;
    while !cursor.is_empty() {
        let kind = component(&mut cursor, v6, |_, _| ())?;
        if kind <= last {
            return Err("filter components are not in ascending order");
        }
        last = kind;
    }
    Ok(())
}

/// One component; `f` gets each operator and its value.
fn component(
    cursor: &mut Cursor<'_>,
    v6: bool,
    mut f: impl FnMut(u8, u64),
) -> Result<u8, &'static str> {
    let kind = cursor.u8().ok_or("no component type")?;
    match kind {
        1 | 2 => {
            let most = if v6 { 128 } else { 32 };
            let bits = cursor.u8().ok_or("no prefix length")?;
            let offset = if v6 {
                cursor.u8().ok_or("no prefix offset")?
            } else {
                0
            };
            // RFC 8956 §3.1: the offset is less than the length, or both are 0.
            if bits > most || (offset >= bits && offset != 0) {
                return Err("a prefix longer than its address");
            }
            let octets = usize::from(bits - offset).div_ceil(8);
            cursor.take(octets).ok_or("a prefix that overruns")?;
        }
        3..=LAST_TYPE if v6 || kind < LAST_TYPE => loop {
            let operator = cursor.u8().ok_or("no operator")?;
            let octets = 1 << ((operator >> 4) & 3);
            let value = cursor.take(octets).ok_or("a value that overruns")?;
            let number = value
                .iter()
                .fold(0, |sum, octet| sum << 8 | u64::from(*octet));
            f(operator, number);
            if operator & 0x80 != 0 {
                break;
            }
        },
        _ => return Err("a filter component of an unknown type"),
    }
    Ok(kind)
}

/// A filter, for people: `dst 10.0.0.0/8 port =80`.
pub(super) fn describe(components: &[u8], v6: bool) -> String {
    const NAMES: [&str; 14] = [
        "",
        "dst",
        "src",
        "proto",
        "port",
        "dst-port",
        "src-port",
        "icmp-type",
        "icmp-code",
        "tcp-flags",
        "length",
        "dscp",
        "fragment",
        "flow-label",
    ];
    let mut text = String::new();
    let mut cursor = Cursor::new(components);
    while !cursor.is_empty() {
        let before = cursor.rest();
        let mut values = String::new();
        let Ok(kind) = component(&mut cursor, v6, |operator, value| {
            let sign = match (operator & 0x07, operator & 0x40 != 0) {
                (1, _) => "=",
                (2, _) => ">",
                (3, _) => ">=",
                (4, _) => "<",
                (5, _) => "<=",
                (6, _) => "!=",
                _ => "",
            };
            let and = if operator & 0x40 != 0 { "&" } else { " " };
            let _ = write!(values, "{and}{sign}{value}");
        }) else {
            return text + " (cut off)";
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(NAMES[usize::from(kind.min(LAST_TYPE))]);
        if kind <= 2 {
            let head = if v6 { 3 } else { 2 };
            let bits = before.get(1).copied().unwrap_or(0);
            let end = before.len() - cursor.rest().len();
            let prefix = before.get(head..end).unwrap_or_default();
            text.push(' ');
            text.push_str(&address(if v6 { 2 } else { 1 }, bits, prefix));
        } else {
            text.push_str(&values);
        }
    }
    text
}
