//! One neighbour's machine: octets in pieces, streams that come and go, time that passes.

use std::{sync::Arc, time::Duration};

use base::{Instant, NodeId};
use bgp::{
    Family,
    peer::{
        ConnectionConfig, ConnectionId, Effect, FamilyConfig, GracefulConfig, Incoming, Peer,
        PeerAs, PeerConfig,
    },
    wire::{Notification, keepalive},
};

use crate::Choices;

fn machine(bits: u8) -> Peer {
    let families = [Family::IPV4, Family::VPNV4, Family::RTC, Family::MESH];
    let mut connection = ConnectionConfig::new(NodeId(5), 65000, PeerAs::Exactly(65000), &families);
    connection.hold_time = Duration::from_secs(9);
    connection.families = families
        .iter()
        .map(|family| FamilyConfig {
            graceful: bits & 1 != 0,
            add_path_receive: bits & 2 != 0,
            ..FamilyConfig::new(*family)
        })
        .collect();
    connection.graceful_restart = (bits & 4 != 0).then_some(GracefulConfig {
        restart_time: Duration::from_secs(30),
        restarting: bits & 8 != 0,
        forwarding: bits & 16 != 0,
        notification: bits & 32 != 0,
    });
    let mut config = PeerConfig::new(Arc::new(connection));
    config.passive = bits & 64 != 0;
    Peer::new(config, 7)
}

/// A good OPEN of the neighbour, with graceful restart.
fn open(restarted: bool) -> Vec<u8> {
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xFD, 0xE8];
    capabilities.extend([64, 6, u8::from(restarted) << 7, 30, 0, 1, 1, 0x80]);
    let length = u8::try_from(capabilities.len()).unwrap_or(0);
    let mut body = vec![4, 0xFD, 0xE8, 0, 9, 10, 0, 0, 1, length + 2, 2, length];
    body.extend(capabilities);
    let mut out = vec![0xFF; 16];
    out.extend(u16::try_from(19 + body.len()).unwrap_or(0).to_be_bytes());
    out.push(1);
    out.extend(body);
    out
}

struct Shell {
    peer: Peer,
    now: Instant,
    open: Vec<ConnectionId>,
    next: u64,
    /// As the sink heard it, and as the effects say.
    heard: bool,
    established: Option<ConnectionId>,
}

impl Shell {
    fn connected(&mut self, incoming: bool) {
        let id = ConnectionId(self.next);
        self.next += 1;
        self.open.push(id);
        self.peer.handle_connected(self.now, id, incoming);
    }

    fn octets(&mut self, at: usize, octets: &[u8]) {
        let Some(id) = self.open.get(at % self.open.len().max(1)).copied() else {
            return;
        };
        let heard = &mut self.heard;
        self.peer
            .handle_bytes(self.now, id, octets, &mut |negotiated, incoming| {
                match incoming {
                    Incoming::Established => *heard = true,
                    Incoming::Update(body) => {
                        assert!(*heard, "an UPDATE before anybody agreed");
                        assert!(body.len() < negotiated.max_message_in);
                    }
                    Incoming::Refresh { family, .. } => {
                        assert!(negotiated.families.contains(&family));
                    }
                }
                Ok(())
            });
    }

    fn carry_out(&mut self) {
        loop {
            let mut messages = 0;
            while self.peer.poll_transmit().is_some() {
                messages += 1;
                assert!(messages < 100, "it talks and talks");
            }
            let Some(effect) = self.peer.poll_effect() else {
                return;
            };
            match effect {
                Effect::Dial | Effect::CancelDial => {}
                Effect::Close(id) => self.open.retain(|open| *open != id),
                Effect::Established { id, .. } => {
                    assert_eq!(self.established, None, "two sessions at once");
                    self.established = Some(id);
                }
                Effect::Down { id, .. } => {
                    assert_eq!(self.established.take(), Some(id), "the end of no session");
                }
                Effect::Failed { id, .. } => assert_ne!(self.established, Some(id)),
            }
        }
    }
}

pub(crate) fn run(octets: &[u8]) {
    let mut choices = Choices(octets);
    let mut shell = Shell {
        peer: machine(choices.octet()),
        now: Instant::ZERO,
        open: Vec::new(),
        next: 0,
        heard: false,
        established: None,
    };
    shell.peer.start(shell.now);
    while let Some(what) = choices.next() {
        let at = usize::from(what >> 4);
        match what & 15 {
            0 => shell.connected(true),
            1 => shell.connected(false),
            2 => shell.octets(at, &open(false)),
            3 => shell.octets(at, &open(true)),
            4 => shell.octets(at, &keepalive()),
            5 => {
                let length = usize::from(choices.octet());
                shell.octets(at, choices.take(length));
            }
            6 => {
                // A whole message with a good header.
                let (kind, length) = (choices.octet() % 6, usize::from(choices.octet()));
                let body = choices.take(length);
                let mut message = vec![0xFF; 16];
                message.extend(u16::try_from(19 + body.len()).unwrap_or(0).to_be_bytes());
                message.push(kind);
                message.extend_from_slice(body);
                shell.octets(at, &message);
            }
            7 => {
                if let Some(id) = shell.open.get(at % shell.open.len().max(1)).copied() {
                    shell.peer.handle_closed(shell.now, id);
                    shell.open.retain(|open| *open != id);
                }
            }
            8 => {
                if let Some(next) = shell.peer.poll_timeout() {
                    shell.now = next.max(shell.now);
                }
                shell.peer.handle_timeout(shell.now);
            }
            9 => shell.now = shell.now + Duration::from_millis(u64::from(choices.octet()) * 100),
            10 => shell.peer.handle_connect_failed(shell.now),
            11 => shell.peer.stop(shell.now, "bye"),
            12 => shell.peer.start(shell.now),
            13 => shell.peer.reset(shell.now, ""),
            14 => shell.peer.close(shell.now, &Notification::from((6, 1))),
            _ => {
                if let Some(id) = shell.open.first().copied() {
                    shell.peer.handle_blocked(shell.now, id);
                }
            }
        }
        shell.carry_out();
        assert!(shell.open.len() <= 3, "streams pile up");
    }
}
