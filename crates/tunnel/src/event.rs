//! What the tunnels tell the node, in a queue that cannot overflow.

use std::collections::VecDeque;

use path::LinkQuality;
use pki::Identity;

/// A link, numbered by this process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl std::fmt::Display for LinkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a link went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// Nothing was heard for three intervals.
    Silent,
    /// The peer closed a connection of the link, or it broke.
    Closed,
    /// The same node came with a newer link.
    Replaced,
    /// The configuration no longer wants it: target removed, peer no longer admitted.
    Removed,
    /// This node drains.
    Draining,
}

impl DownReason {
    /// The reason as a word for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DownReason::Silent => "silent",
            DownReason::Closed => "closed",
            DownReason::Replaced => "replaced",
            DownReason::Removed => "removed",
            DownReason::Draining => "draining",
        }
    }
}

/// A change of a link. Per link they come in the order `Up`, any number of `Rtt` and `Mtu`, `Down`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The link carries streams.
    Up {
        /// The node at the other end.
        peer: Identity,
        /// The link.
        link: LinkId,
    },
    /// The link is gone, and every stream on it.
    Down {
        /// The node at the other end.
        peer: Identity,
        /// The link.
        link: LinkId,
        /// Why.
        reason: DownReason,
    },
    /// The round trip or its floor changed by more than a twentieth and 100 µs, or more is lost, or
    /// less.
    Rtt {
        /// The node at the other end.
        peer: Identity,
        /// The link.
        link: LinkId,
        /// What is measured now.
        quality: LinkQuality,
    },
    /// What it carries of packets is another; what was sent before that may be too large.
    Mtu {
        /// The node at the other end.
        peer: Identity,
        /// The link.
        link: LinkId,
        /// Octets a packet may have; `None`: it carries none ([`crate::Link::mtu`]).
        mtu: Option<u16>,
    },
}

impl LinkEvent {
    /// The link it is about.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        match self {
            LinkEvent::Up { link, .. }
            | LinkEvent::Down { link, .. }
            | LinkEvent::Rtt { link, .. }
            | LinkEvent::Mtu { link, .. } => *link,
        }
    }
}

/// How a link went down, for those who carry something for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// By the other side.
    Closed,
    /// Nothing was heard.
    Silent,
    /// By us.
    Ended,
}

/// Events not yet taken by the node. At most four a link: a newer `Rtt` or `Mtu` replaces an older
/// one, and a link that is down before its `Up` was taken leaves nothing.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<LinkEvent>);

impl Outbox {
    pub(crate) fn push(&mut self, event: LinkEvent) {
        let link = event.link();
        match event {
            LinkEvent::Up { .. } => {}
            LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. } => {
                let kind = std::mem::discriminant(&event);
                let same =
                    |e: &&mut LinkEvent| e.link() == link && std::mem::discriminant(*e) == kind;
                if let Some(old) = self.0.iter_mut().find(same) {
                    *old = event;
                    return;
                }
            }
            LinkEvent::Down { .. } => {
                let before = self.0.len();
                let is_up = |e: &LinkEvent| matches!(e, LinkEvent::Up { .. });
                let was_up = self.0.iter().any(|e| e.link() == link && is_up(e));
                self.0.retain(|e| e.link() != link);
                debug_assert!(self.0.len() <= before);
                if was_up {
                    return;
                }
            }
        }
        self.0.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<LinkEvent> {
        self.0.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_keeps_what_matters() {
        let peer: Identity = "spiffe://earth/tenant/fabric/site/par/node/n0"
            .parse()
            .expect("id");
        let up = |n| LinkEvent::Up {
            peer: peer.clone(),
            link: LinkId(n),
        };
        let down = |n| LinkEvent::Down {
            peer: peer.clone(),
            link: LinkId(n),
            reason: DownReason::Silent,
        };
        let rtt = |n, samples| LinkEvent::Rtt {
            peer: peer.clone(),
            link: LinkId(n),
            quality: LinkQuality {
                rtt: std::time::Duration::ZERO,
                min_rtt: std::time::Duration::ZERO,
                jitter: std::time::Duration::ZERO,
                loss: path::Loss::default(),
                load: path::Load::default(),
                samples,
            },
        };
        let mtu = |n, mtu| LinkEvent::Mtu {
            peer: peer.clone(),
            link: LinkId(n),
            mtu,
        };
        let mut outbox = Outbox::default();
        for event in [
            up(1),
            up(2),
            rtt(1, 1),
            mtu(1, Some(1157)),
            mtu(2, Some(1157)),
            rtt(2, 1),
            rtt(1, 2),
            mtu(1, None),
            down(2),
            rtt(3, 9),
            down(3),
        ] {
            outbox.push(event);
        }
        let left: Vec<_> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(left, [up(1), rtt(1, 2), mtu(1, None), down(3)]);
        assert!(outbox.is_empty());
    }
}
