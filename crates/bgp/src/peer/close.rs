//! Why a connection ended, and whether its routes outlive it.

use std::{fmt, time::Duration};

use super::negotiate::Negotiated;
use crate::wire::{Family, Notification};

/// OPEN: bad peer AS (RFC 4271 §6.2).
pub(super) const BAD_PEER_AS: (u8, u8) = (2, 2);
/// OPEN: bad BGP Identifier (RFC 4271 §6.2, RFC 6286 §2.2).
pub(super) const BAD_IDENTIFIER: (u8, u8) = (2, 3);
/// OPEN: unsupported optional parameter (RFC 4271 §6.2).
pub(super) const UNSUPPORTED_PARAMETER: (u8, u8) = (2, 4);
/// OPEN: unacceptable hold time (RFC 4271 §6.2).
pub(super) const HOLD_TIME: (u8, u8) = (2, 6);
/// OPEN: unsupported capability (RFC 5492 §5).
pub(super) const UNSUPPORTED_CAPABILITY: (u8, u8) = (2, 7);
/// OPEN: role mismatch (RFC 9234 §4.2).
pub(super) const ROLE_MISMATCH: (u8, u8) = (2, 11);
/// Finite state machine error (RFC 4271 §6.6); its subcodes are of RFC 6608.
pub(super) const STATE_MACHINE: u8 = 5;
/// ROUTE-REFRESH: invalid message length (RFC 7313 §5).
pub(super) const REFRESH_LENGTH: (u8, u8) = (7, 1);

const CEASE: u8 = 6;
/// Cease: too many prefixes (RFC 4486).
pub(super) const MAX_PREFIXES: (u8, u8) = (CEASE, 1);
/// Cease: the neighbour is configured no more (RFC 4486).
pub(super) const DECONFIGURED: (u8, u8) = (CEASE, 3);
/// Cease: connection rejected (RFC 4486).
pub(super) const REJECTED: (u8, u8) = (CEASE, 5);
/// Cease: connection collision resolution (RFC 4486).
pub(super) const COLLISION: (u8, u8) = (CEASE, 7);
/// Cease: hard reset (RFC 8538).
pub(super) const HARD_RESET: (u8, u8) = (CEASE, 9);

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The stream ended without a NOTIFICATION.
    StreamEnded,
    /// The neighbour restarted and opened another connection, which takes its place
    /// (RFC 4724 §4.2).
    Replaced,
    /// We ended it, with this.
    Sent(Notification),
    /// The neighbour ended it, with this.
    Received(Notification),
}

impl Close {
    /// The NOTIFICATION, taken out of the hard reset that carries it (RFC 8538 §3).
    #[must_use]
    pub fn cause(&self) -> Option<Notification> {
        match self {
            Close::StreamEnded | Close::Replaced => None,
            Close::Sent(notification) | Close::Received(notification) => {
                Some(unwrapped(notification))
            }
        }
    }

    pub(super) fn sent(&self, codes: (u8, u8)) -> bool {
        matches!(self, Close::Sent(n) if is(&unwrapped(n), codes))
    }

    pub(super) fn received(&self, codes: (u8, u8)) -> bool {
        matches!(self, Close::Received(n) if is(&unwrapped(n), codes))
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::StreamEnded => f.write_str("the stream ended"),
            Close::Replaced => f.write_str("the neighbour restarted"),
            Close::Sent(n) => write!(f, "sent {n}"),
            Close::Received(n) => write!(f, "received {n}"),
        }
    }
}

pub(super) fn is(notification: &Notification, codes: (u8, u8)) -> bool {
    (notification.code, notification.subcode) == codes
}

fn unwrapped(notification: &Notification) -> Notification {
    match notification.data.as_slice() {
        [code, subcode, data @ ..] if is(notification, HARD_RESET) => Notification {
            code: *code,
            subcode: *subcode,
            data: data.to_vec(),
        },
        _ => notification.clone(),
    }
}

/// Put the Cease subcodes that mean "forget my routes" into a hard reset, if without it the
/// neighbour would keep them (RFC 8538 §3 and §5.1).
pub(super) fn hardened(notification: Notification, negotiated: &Negotiated) -> Notification {
    let final_ones = [
        MAX_PREFIXES,
        Notification::SHUTDOWN,
        DECONFIGURED,
        Notification::BFD_DOWN,
    ];
    if !negotiated.notification_restart || !final_ones.iter().any(|&c| is(&notification, c)) {
        return notification;
    }
    let mut data = vec![notification.code, notification.subcode];
    data.extend(notification.data);
    Notification {
        code: HARD_RESET.0,
        subcode: HARD_RESET.1,
        data,
    }
}

/// Routes of a session that ended and may be used on as stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graceful {
    /// The families; never empty. Routes of all others are gone.
    pub families: Vec<StaleFamily>,
}

impl Graceful {
    /// What is said of `family`; `None`: its routes are gone.
    #[must_use]
    pub fn family(&self, family: Family) -> Option<&StaleFamily> {
        self.families.iter().find(|stale| stale.family == family)
    }
}

/// How long routes of one family outlive their session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleFamily {
    /// The family.
    pub family: Family,
    /// As stale: so long has the neighbour to come back (RFC 4724 §4.2). Zero: long-lived stale
    /// at once.
    pub restart: Duration,
    /// After that as long-lived stale (RFC 9494 §4.2); zero: not.
    pub long_lived: Duration,
}

/// Which routes of an established session outlive this end of it: none of a neighbour that did
/// not offer graceful restart; after a NOTIFICATION only if both sides set the N bit and it was
/// no hard reset (RFC 4724 §4.2, RFC 8538 §4), or if it settles a collision (RFC 4271 §6.8).
#[must_use]
pub fn graceful(negotiated: &Negotiated, close: &Close) -> Option<Graceful> {
    let restart = negotiated.graceful_restart.as_ref()?;
    let kept = match close {
        Close::StreamEnded | Close::Replaced => true,
        // The neighbour lives, on its other connection.
        Close::Sent(n) | Close::Received(n) if is(n, COLLISION) => true,
        Close::Sent(n) | Close::Received(n) => {
            negotiated.notification_restart && !is(n, HARD_RESET)
        }
    };
    if !kept {
        return None;
    }
    let time = Duration::from_secs(u64::from(restart.time_s));
    let families: Vec<StaleFamily> = negotiated
        .families
        .iter()
        .map(|&family| StaleFamily {
            family,
            restart: if restart.families.iter().any(|&(f, _)| f == family) {
                time
            } else {
                Duration::ZERO
            },
            long_lived: negotiated.long_lived(family),
        })
        .filter(|stale| !(stale.restart + stale.long_lived).is_zero())
        .collect();
    (!families.is_empty()).then_some(Graceful { families })
}
