//! Messages that ExaBGP tests itself with: what becomes of each is written down.

use std::fmt::Write as _;

use super::{again, hex};
use crate::wire::{
    Family, HEADER, MAX_EXTENDED_MESSAGE, MessageKind, Notification, OpenMessage, UpdateContext,
    UpdateError, frame, read_route_refresh,
};

const MESSAGES: &str = include_str!("data/exabgp-messages.txt");
const OUTCOMES: &str = include_str!("data/exabgp-outcomes.txt");

fn messages() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    MESSAGES.lines().map(|line| {
        let (name, octets) = line.split_once(' ').expect("a name and octets");
        (name, hex(octets))
    })
}

/// A name tells where path ids are spoken.
fn context(name: &str, four_octet_as: bool, ebgp: bool) -> UpdateContext {
    let with_ids = ["addpath", "path-information", "api-open", "attributes-path"]
        .iter()
        .any(|n| name.contains(n));
    UpdateContext {
        four_octet_as,
        add_path: if with_ids {
            Family::ALL.to_vec()
        } else {
            vec![]
        },
        ..again::context(ebgp)
    }
}

fn outcome(name: &str, octets: &[u8]) -> String {
    let (kind, length) = match frame(octets, MAX_EXTENDED_MESSAGE) {
        Err(notification) => return format!("frame refused: {notification}"),
        Ok(None) => return "cut off".to_owned(),
        Ok(Some(found)) => found,
    };
    let body = &octets[HEADER..length];
    match kind {
        MessageKind::Open => open(body),
        MessageKind::Update => update(name, body),
        MessageKind::Notification => format!("notification: {}", Notification::decode(body)),
        MessageKind::Keepalive => "keepalive".to_owned(),
        MessageKind::RouteRefresh => match read_route_refresh(body) {
            Some((family, kind)) => format!("refresh: {family} {kind:?}"),
            None => "refresh: ignored".to_owned(),
        },
    }
}

fn open(body: &[u8]) -> String {
    let open = match OpenMessage::decode(body) {
        Err(notification) => return format!("open refused: {notification}"),
        Ok(open) => open,
    };
    let encoded = open.encode();
    assert_eq!(OpenMessage::decode(&encoded[HEADER..]).as_ref(), Ok(&open));
    let can = &open.capabilities;
    let families: Vec<String> = can.families.iter().map(Family::to_string).collect();
    let mut text = format!(
        "open: AS {} hold {} families {}",
        open.asn,
        open.hold_time_s,
        families.join(" ")
    );
    for (given, name) in [
        (can.route_refresh, "refresh"),
        (can.enhanced_refresh, "enhanced-refresh"),
        (can.extended_message, "extended-message"),
        (can.four_octet_as.is_some(), "as4"),
        (!can.add_path.is_empty(), "add-path"),
        (!can.extended_next_hop.is_empty(), "extended-next-hop"),
        (can.graceful_restart.is_some(), "graceful-restart"),
        (can.role.is_some(), "role"),
    ] {
        if given {
            let _ = write!(text, " +{name}");
        }
    }
    if let Some(software) = &can.software {
        let _ = write!(text, " software {software}");
    }
    text
}

/// Which session a message was meant for is not told: inside an AS and between two, and AS
/// numbers of two octets if they make no path of four.
fn update(name: &str, body: &[u8]) -> String {
    let both = [false, true].map(|ebgp| {
        let told = [true, false].map(|four| {
            let context = context(name, four, ebgp);
            again::check(body, &context);
            judged(body, &context)
        });
        match told {
            [wide, short] if wide.contains("(attribute 2)") && !short.contains("(attribute 2)") => {
                format!("{short} [2-octet AS]")
            }
            [wide, _] => wide,
        }
    });
    match both {
        [inside, outside] if inside == outside => format!("update: {inside}"),
        [inside, outside] => format!("update: ibgp {inside} | ebgp {outside}"),
    }
}

fn judged(body: &[u8], context: &UpdateContext) -> String {
    let (routes, findings) = again::read(body, context);
    let routes = match routes {
        Ok(routes) => routes,
        Err(UpdateError::Reset(notification)) => return format!("reset: {notification}"),
        Err(UpdateError::DisableFamily(family, finding)) => {
            return format!(
                "{family} disabled: {} (octet {})",
                finding.what, finding.offset
            );
        }
    };
    let mut text = Vec::new();
    for family in Family::ALL {
        let announced = routes.announced.iter().filter(|(r, _)| r.family == family);
        let withdrawn = routes.withdrawn.iter().filter(|r| r.family == family);
        let (good, bad): (Vec<_>, Vec<_>) = announced.partition(|(_, a)| a.is_some());
        for (n, sign) in [
            (good.len(), '+'),
            (withdrawn.count(), '-'),
            (bad.len(), '!'),
        ] {
            if n > 0 {
                text.push(format!("{family} {sign}{n}"));
            }
        }
    }
    if let Some(family) = routes.end_of_rib {
        text.push(format!("end of {family}"));
    }
    if findings.foreign_families > 0 {
        text.push("foreign family".to_owned());
    }
    // That a message from inside an AS has LOCAL_PREF is no news between two.
    let news = findings
        .last
        .filter(|last| !(context.ebgp && matches!(last.code, 5 | 9 | 10)));
    if let Some(last) = news {
        let outcome = if findings.treated_as_withdrawn > 0 {
            "withdrawn"
        } else {
            "discarded"
        };
        text.push(format!(
            "{outcome}: {} (attribute {})",
            last.what, last.code
        ));
    }
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text.join(", ")
    }
}

#[test]
fn every_message_has_the_outcome_that_was_reviewed() {
    let mut outcomes = String::new();
    for (name, octets) in messages() {
        writeln!(outcomes, "{name} {}", outcome(name, &octets)).expect("to memory");
    }
    if std::env::var_os("SEALANE_WRITE_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/tests/data/exabgp-outcomes.txt"
        );
        std::fs::write(path, &outcomes).expect("the golden file");
        return;
    }
    assert_eq!(outcomes.lines().count(), 233);
    for (ours, golden) in outcomes.lines().zip(OUTCOMES.lines()) {
        assert_eq!(ours, golden);
    }
    assert_eq!(OUTCOMES.lines().count(), 233);
}
