//! From fields to header blocks.

use http::StatusCode;

use super::integer;

/// Our table has no entry and never will. A peer that makes its table smaller waits for that word
/// at the front of the next block (RFC 7541 §4.2).
pub(crate) fn table_size_zero(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// A response's status.
pub(crate) fn status(out: &mut Vec<u8>, status: StatusCode) {
    let index = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            integer::put(out, 0, 4, 8);
            return string(out, status.as_str().as_bytes());
        }
    };
    out.push(0x80 | index);
}

/// One more field; its name is in lower case.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // RFC 7541 §7.1.3: nobody behind us is to keep it in a table either.
    let flags = if name == b"set-cookie" { 0x10 } else { 0 };
    match index(name) {
        Some(index) => integer::put(out, flags, 4, index),
        None => {
            out.push(flags);
            string(out, name);
        }
    }
    string(out, value);
}

fn string(out: &mut Vec<u8>, octets: &[u8]) {
    integer::put(out, 0, 7, octets.len());
    out.extend_from_slice(octets);
}

/// Where the static table has a name that answers have.
fn index(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"date" => 33,
        b"etag" => 34,
        b"expires" => 36,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"proxy-authenticate" => 48,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => return None,
    })
}
