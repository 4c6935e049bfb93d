//! The connections of one neighbour: at most one we dialled and one it dialled beside it, or
//! one established and one that wants its place.

use std::time::Duration;

use base::Instant;
use bytes::Bytes;

use super::{
    ConnectionId,
    close::COLLISION,
    collision::Initiator,
    connection::{Connection, ConnectionEvent, ConnectionState},
};
use crate::wire::Notification;

/// One connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: ConnectionId,
    pub(super) initiator: Initiator,
    pub(super) connection: Connection,
    /// Since when it is established; kept when it is over.
    pub(super) established_at: Option<Instant>,
}

impl Slot {
    /// No OPEN of the neighbour yet.
    fn is_silent(&self) -> bool {
        match self.connection.state() {
            ConnectionState::Delaying | ConnectionState::OpenSent => true,
            ConnectionState::OpenConfirm
            | ConnectionState::Established
            | ConnectionState::Closed => false,
        }
    }

    fn is_established(&self) -> bool {
        self.connection.state() == ConnectionState::Established
    }

    /// The neighbour's OPEN has the R bit (RFC 4724 §3).
    fn says_restarted(&self) -> bool {
        let terms = self.connection.negotiated();
        terms
            .and_then(|terms| terms.graceful_restart.as_ref())
            .is_some_and(|restart| restart.restarting)
    }

    /// The neighbour, which keeps routes over a restart, has forgotten this one (RFC 4724 §4.2):
    /// it says so (`restarted`), or this one was established long enough that a new connection is
    /// no race of two dials.
    fn is_orphan(&self, now: Instant, restarted: bool) -> bool {
        let keeps = self.connection.negotiated().is_some_and(|negotiated| {
            negotiated
                .graceful_restart
                .as_ref()
                .is_some_and(|restart| !restart.families.is_empty())
        });
        let old = self.established_at.is_some_and(|at| now.since(at) >= RACE);
        keeps && (old || restarted) && self.is_established()
    }
}

/// Two dials that crossed are both open so soon after each other.
const RACE: Duration = Duration::from_secs(5);

/// All of them, at most [`Slots::MOST`].
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    const MOST: usize = 2;

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Slot> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Slot> {
        self.0.iter_mut()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Slot> {
        self.0.iter().find(|slot| slot.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Slot> {
        self.0.iter_mut().find(|slot| slot.id == id)
    }

    pub(super) fn push(&mut self, slot: Slot) {
        self.0.push(slot);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Slot> {
        let at = self.0.iter().position(|slot| slot.id == id)?;
        Some(self.0.remove(at))
    }

    /// The state of the one that got farthest.
    pub(super) fn farthest(&self) -> Option<ConnectionState> {
        self.0
            .iter()
            .map(|slot| slot.connection.state())
            .filter(|&state| state != ConnectionState::Closed)
            .max()
    }

    pub(super) fn established(&self) -> Option<&Slot> {
        self.0.iter().find(|slot| slot.is_established())
    }

    pub(super) fn established_mut(&mut self) -> Option<&mut Slot> {
        self.0.iter_mut().find(|slot| slot.is_established())
    }

    /// Have we dialled already, or has the neighbour said OPEN?
    pub(super) fn needs_no_dial(&self) -> bool {
        self.0
            .iter()
            .any(|slot| slot.initiator == Initiator::Us || !slot.is_silent())
    }

    /// A connection of the neighbour on which it has not said OPEN.
    pub(super) fn silent_incoming(&mut self) -> Option<&mut Slot> {
        self.0
            .iter_mut()
            .find(|slot| slot.initiator == Initiator::Them && slot.is_silent())
    }

    /// Is there no place for one more of the neighbour's? One that is established may be
    /// contested; one in `OpenConfirm` is about to be established or to time out.
    pub(super) fn full_for_incoming(&self) -> bool {
        self.0.len() >= Self::MOST
            || self
                .0
                .iter()
                .any(|slot| slot.initiator == Initiator::Them && !slot.is_established())
    }

    pub(super) fn close_all(&mut self, notification: &Notification) {
        for slot in &mut self.0 {
            slot.connection.close(notification.clone());
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<(ConnectionId, ConnectionEvent)> {
        self.0
            .iter_mut()
            .find_map(|slot| slot.connection.poll_event().map(|event| (slot.id, event)))
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(ConnectionId, Bytes)> {
        self.0.iter_mut().find_map(|slot| {
            slot.connection
                .poll_transmit()
                .map(|octets| (slot.id, octets))
        })
    }

    /// The neighbour's OPEN came on `id`: of it and another one on which it came before, one is
    /// closed. Returns how many were. Without a `winner` the older one stays.
    pub(super) fn resolve(
        &mut self,
        now: Instant,
        id: ConnectionId,
        winner: Option<Initiator>,
    ) -> u64 {
        let Some(new) = self.0.iter().position(|slot| slot.id == id) else {
            return 0;
        };
        let Some(old) = self.0.iter().position(|slot| {
            slot.id != id
                && matches!(
                    slot.connection.state(),
                    ConnectionState::OpenConfirm | ConnectionState::Established
                )
        }) else {
            return 0;
        };
        // A race after a restart has the R bit on both.
        let restarted = self.0[new].says_restarted() && !self.0[old].says_restarted();
        if self.0[old].is_orphan(now, restarted) {
            self.0[old].connection.replace();
            return 1;
        }
        let contested = self.0[old].initiator != self.0[new].initiator;
        let loser = if contested && winner == Some(self.0[new].initiator) {
            old
        } else {
            new
        };
        self.0[loser].connection.close(COLLISION.into());
        1
    }
}
