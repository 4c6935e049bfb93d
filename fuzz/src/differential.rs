//! Two readers of one UPDATE: ours, and `netgauze-bgp-pkt`.
//!
//! What the other reader makes of a message is written out again by it, and read by us: it is to
//! be what we read in the first place. Where only one of both takes a message, the reason is one
//! of the [`EXPLAINED`] ones.

use std::collections::HashMap;

use bgp::wire::{AttributesView, Family, HEADER, MAX_MESSAGE, UpdateError};
use netgauze_bgp_pkt::{BgpMessage, wire::deserializer::BgpParsingContext};
use netgauze_parse_utils::{WritablePdu, reader::SliceReader, traits::ParseFromWithOneInput};

use crate::Choices;
use crate::wire::{Update, context, read};

/// Families that both know. Not RT constraint: of its prefixes (RFC 4684 §4) the other reader
/// takes whole octets only.
const FAMILIES: [Family; 4] = [Family::IPV4, Family::IPV6, Family::VPNV4, Family::VPNV6];

fn message(body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.push(2);
    out.extend_from_slice(body);
    out
}

/// As the other reader sees it, written again; or what it says is wrong.
fn theirs(message: &[u8]) -> Result<Vec<u8>, String> {
    let mut context =
        BgpParsingContext::new(true, HashMap::new(), HashMap::new(), true, true, true, true);
    let mut reader = SliceReader::new(message);
    let parsed = BgpMessage::parse(&mut reader, &mut context);
    let parsed = parsed.map_err(|error| format!("{error:?}"))?;
    let mut out = Vec::new();
    parsed
        .write(&mut out)
        .map_err(|error| format!("cannot write: {error:?}"))?;
    Ok(out)
}

/// How the two differ; `None`: not at all.
pub fn difference(body: &[u8]) -> Option<String> {
    let mut context = context(&mut Choices(&[0x10]));
    context.families = FAMILIES.to_vec();
    let ours = read(body, &context);
    match (ours, theirs(&message(body))) {
        (Ok(mut ours), Ok(again)) => {
            once(&mut ours);
            if again.len() < HEADER || again.len() > MAX_MESSAGE {
                return None;
            }
            // What they cannot read themselves they have not written well.
            if theirs(&again).as_ref() != Ok(&again) {
                return None;
            }
            match read(&again[HEADER..], &context) {
                Ok(mut second) => {
                    once(&mut second);
                    (second != ours).then(|| format!("differ: {}", apart(&ours, &second)))
                }
                Err(error) => Some(format!("differ: we refuse what they wrote: {error:?}")),
            }
        }
        (Err(_), Err(_)) => None,
        (Ok(ours), Err(theirs)) if ours == Update::default() => {
            // Nothing is left of it for us either: treated as withdrawn, or nothing of ours.
            let _ = theirs;
            None
        }
        (Ok(_), Err(theirs)) => Some(format!("only we take it: {theirs}")),
        (Err(UpdateError::Reset(why)), Ok(_)) => Some(format!("only they take it: {why}")),
        (Err(UpdateError::DisableFamily(family, finding)), Ok(_)) => {
            Some(format!("only they take it: {family} {}", finding.what))
        }
    }
}

/// A route that is said twice in one message is said once.
fn once(update: &mut Update) {
    update.announced.sort();
    update.announced.dedup();
    update.withdrawn.sort();
    update.withdrawn.dedup();
}

/// In what two readings of one message differ.
fn apart(ours: &Update, theirs: &Update) -> String {
    let keys = |update: &Update| {
        update
            .announced
            .iter()
            .map(|(route, _)| route.clone())
            .collect::<Vec<_>>()
    };
    if keys(ours) != keys(theirs) {
        return format!("announced {:?} and {:?}", keys(ours), keys(theirs));
    }
    if ours.withdrawn != theirs.withdrawn {
        return format!("withdrawn {:?} and {:?}", ours.withdrawn, theirs.withdrawn);
    }
    for ((_, a), (_, b)) in ours.announced.iter().zip(&theirs.announced) {
        for code in 0..=255 {
            let (a, b) = (AttributesView(a).get(code), AttributesView(b).get(code));
            if a != b {
                return format!("attribute {code}: {a:?} and {b:?}");
            }
        }
    }
    "flags of an attribute".to_owned()
}

pub(crate) fn run(octets: &[u8]) {
    if octets.len() > MAX_MESSAGE - HEADER {
        return;
    }
    if let Some(difference) = difference(octets) {
        let known = EXPLAINED.iter().any(|(sign, _)| difference.contains(sign));
        assert!(known, "{difference}");
    }
}

/// Signs of a difference, and why it is none of ours to mend.
pub const EXPLAINED: [(&str, &str); 8] = [
    (
        "differ: announced [] and",
        "RFC 7606: we withdraw the routes under a bad attribute that they mend",
    ),
    (
        "differ: attribute 16",
        "an unknown sub-type of an extended community is written by them as a route target",
    ),
    (
        "only we take it: BgpUpdateMessageParsingError(PathAttributeError(",
        "RFC 7606: a bad attribute is discarded or its routes withdrawn, and unknown families, \
         types of route distinguishers and partial bits are no reason to refuse a message",
    ),
    (
        "only we take it: BgpUpdateMessageParsingError(InvalidIpv4UnicastNetwork",
        "RFC 4271 section 4.3: the bits behind a prefix are irrelevant",
    ),
    (
        "only we take it: BgpUpdateMessageParsingError(Parse(UnexpectedEof",
        "RFC 7606 section 4: an attribute cut off withdraws the routes behind it",
    ),
    (
        "only they take it: UPDATE message error (3/2)",
        "RFC 4271 section 6.3: a well-known attribute that nobody knows ends the session",
    ),
    (
        "only they take it: UPDATE message error (3/1)",
        "RFC 7606 section 5.2: a bad attribute and no route to withdraw for it",
    ),
    (
        "a next hop of a wrong length",
        "RFC 8950 was not agreed on, and a next hop has the length of its family",
    ),
];
