//! The MESH family: the frame of its NLRI, its six route types, and types we do not know, which
//! pass through unread. `docs/protocol/mesh.md` says what every octet means.
//!
//! ```text
//! route type (1) | key length (2, 8…512) | value length (1) | key: RD (8) … | value …
//! ```

pub mod bytes;
mod facts;
mod key;
mod measure;
mod seq;
mod state;
mod value;

use crate::{cursor::Cursor, wire::UpdateFindings};

pub use facts::Facts;
pub use key::{
    Host, HttpMatch, Key, KeyError, PathKind, PathMatch, PathText, PolicySetId, Rd, TunnelId,
};
pub use measure::Measure;
pub use seq::Seq;
pub use state::State;
pub use value::{
    EndpointHealth, HttpTarget, LinkHealth, PolicyReference, ServiceHealth, SiteHealth, Value,
    ValueError,
};

/// The longest key, RD included.
const MAX_KEY: usize = 512;
/// Octets before the key.
const FRAME_HEAD: usize = 4;
/// The RD that starts every key.
const RD_LEN: usize = 8;

/// Lengths that run over the end: the family must be disabled (RFC 7606 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

/// One NLRI of MP_REACH, judged.
pub(crate) enum Nlri {
    /// A good key and a good value.
    Announced(Key, Value),
    /// A good key whose value is bad: treated as withdrawn.
    Withdrawn(Key),
}

/// Split and judge the NLRI of an `MP_REACH` (`reach`) or an `MP_UNREACH`.
pub(crate) fn decode_all(
    octets: &[u8],
    reach: bool,
    findings: &mut UpdateFindings,
) -> Result<Vec<Nlri>, Overrun> {
    let mut cursor = Cursor::new(octets);
    let mut out = Vec::new();
    while !cursor.is_empty() {
        let (kind, key, value) = frame(&mut cursor).ok_or(Overrun)?;
        let Ok(key) = Key::decode(kind, key) else {
            findings.bad_keys += 1;
            continue;
        };
        if !reach {
            out.push(Nlri::Withdrawn(key));
            continue;
        }
        match Value::decode(&key, value) {
            Ok(value) => out.push(Nlri::Announced(key, value)),
            Err(_) => {
                findings.bad_values += 1;
                out.push(Nlri::Withdrawn(key));
            }
        }
    }
    Ok(out)
}

fn frame<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8], &'a [u8])> {
    let kind = cursor.u8()?;
    let key_len = usize::from(cursor.u16()?);
    let value_len = usize::from(cursor.u8()?);
    Some((kind, cursor.take(key_len)?, cursor.take(value_len)?))
}

/// The octets one NLRI takes.
pub(crate) fn encoded_len(key: &Key, value: Option<&Value>) -> usize {
    FRAME_HEAD + key.encoded_len() + value.map_or(0, |v| v.as_bytes().len())
}

/// Append one NLRI; without a value it is a withdrawal.
pub(crate) fn encode(key: &Key, value: Option<&Value>, out: &mut Vec<u8>) {
    let value = value.map_or(&[][..], Value::as_bytes);
    out.push(key.kind());
    out.extend(crate::cursor::len16(key.encoded_len()).to_be_bytes());
    out.push(crate::cursor::len8(value.len()));
    key.encode(out);
    out.extend_from_slice(value);
}
