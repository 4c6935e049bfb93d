//! Every port of an address, tried from where this process is: what is open, and what says no.
//!
//! Packets are written by hand, on raw sockets: 65,535 connections of the system's would each be
//! tried again for minutes. What stands between the two may drop what comes too fast and say
//! nothing, so after each batch somebody who is known to say no is asked, by the same way out. While
//! two batches are on their way, nothing more is sent: so it is never faster than what carries it.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use base::Instant;
use runtime::now;
use socket2::{Domain, Protocol, Socket, Type};

/// Packets between two questions.
const BATCH: usize = 128;
/// When a question, or its answer, is taken for lost.
const LOST: Duration = Duration::from_millis(200);
/// After the last packet: longer than any way in the lab takes, there and back.
const SILENCE: Duration = Duration::from_millis(250);
/// How often the few are asked that did not answer, where the others did.
const PASSES: usize = 8;
/// The ports from which all others are tried: none that the system gives by itself.
const FROM: [u16; 3] = [61_000, 61_001, 61_002];
/// The first of those from which is asked, and how many there are.
const ASKING: u16 = 61_003;
const ASKINGS: u16 = 1_024;
/// The port of which is asked (discard, RFC 863), where nobody has it.
const ASKED: u16 = 9;
/// Flags of TCP (RFC 9293 §3.1).
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What became of all ports of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are there.
    pub open: BTreeSet<u16>,
    /// How many said that they are not.
    pub closed: usize,
    /// How many the system here would not even send to.
    pub unsent: usize,
}

/// Tries all ports of one address. It needs the right to raw sockets here.
#[derive(Debug)]
pub struct Scanner {
    raw: Socket,
    from: Ipv4Addr,
    target: Ipv4Addr,
    says_no: Ipv4Addr,
    /// How many questions were asked, and which was answered last.
    asked: u32,
    answered: u32,
}

impl Scanner {
    /// For `target`; `says_no` refuses connections at port 9, and is reached by the same way.
    ///
    /// # Errors
    /// No way leads there, or this user may have no raw sockets.
    pub fn new(target: Ipv4Addr, says_no: Ipv4Addr) -> io::Result<Self> {
        let way = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        way.connect((target, ASKED))?;
        let from = match way.local_addr()?.ip() {
            std::net::IpAddr::V4(from) => from,
            std::net::IpAddr::V6(_) => return Err(ErrorKind::Unsupported.into()),
        };
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
        raw.set_read_timeout(Some(LOST / 8))?;
        // More than there are answers to two batches; without privileges it may be less.
        raw.set_recv_buffer_size(4 << 20)?;
        Ok(Scanner {
            raw,
            from,
            target,
            says_no,
            asked: 0,
            answered: 0,
        })
    }

    /// Every TCP port from 1 to 65,535, once; where most answer, those that do not again.
    ///
    /// # Errors
    /// The system's, of the socket.
    pub fn tcp(&mut self) -> io::Result<Found> {
        let mut left: BTreeSet<u16> = (1..=u16::MAX).collect();
        let mut found = Found::default();
        for _ in 0..PASSES {
            let ports: Vec<u16> = left.iter().copied().collect();
            for batch in ports.chunks(BATCH) {
                for port in batch {
                    if self.syn(self.target, from(*port), *port, 0).is_err() {
                        found.unsent += 1;
                    }
                }
                self.pace(|answer| answer.note(&mut left, &mut found))?;
            }
            let mut last = now();
            while now().since(last) < SILENCE {
                if let Some(answer) = self.hear()? {
                    answer.note(&mut left, &mut found);
                    last = now();
                }
            }
            // Who does not even say no is asked once.
            if left.is_empty() || left.len() > usize::from(u16::MAX / 2) {
                break;
            }
        }
        Ok(found)
    }

    /// A datagram to every UDP port from 1 to 65,535; those from which one came back are open.
    ///
    /// # Errors
    /// The system's, of the sockets.
    pub fn udp(&mut self) -> io::Result<Found> {
        let mut sockets = Vec::new();
        for port in FROM {
            let socket = UdpSocket::bind((self.from, port))?;
            socket.set_nonblocking(true)?;
            sockets.push(socket);
        }
        let mut found = Found::default();
        let ports: Vec<u16> = (1..=u16::MAX).collect();
        for batch in ports.chunks(BATCH) {
            for port in batch {
                let nth = usize::from(from(*port) - FROM[0]);
                let socket = sockets.get(nth).ok_or(ErrorKind::NotFound)?;
                if socket.send_to(b"?", (self.target, *port)).is_err() {
                    found.unsent += 1;
                }
            }
            self.pace(|_| {})?;
            self.datagrams(&sockets, &mut found)?;
        }
        let last = now();
        while now().since(last) < SILENCE {
            self.hear()?;
            self.datagrams(&sockets, &mut found)?;
        }
        Ok(found)
    }

    fn datagrams(&self, sockets: &[UdpSocket], found: &mut Found) -> io::Result<()> {
        for socket in sockets {
            loop {
                match socket.recv_from(&mut [0; 64]) {
                    Ok((_, from)) if from.ip() == self.target => {
                        found.open.insert(from.port());
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Asks who says no, and waits until at most one question has no answer.
    fn pace(&mut self, mut heard: impl FnMut(Answer)) -> io::Result<()> {
        self.asked += 1;
        let nth = u16::try_from(self.asked % u32::from(ASKINGS)).unwrap_or_default();
        // The other end of the way may be full for a moment: then it is lost, as any other.
        self.syn(self.says_no, ASKING + nth, ASKED, self.asked).ok();
        let began: Instant = now();
        while self.answered + 1 < self.asked {
            if now().since(began) >= LOST {
                self.answered = self.asked - 1;
            }
            if let Some(answer) = self.hear()? {
                heard(answer);
            }
        }
        Ok(())
    }

    /// The next answer of a port that was tried, if one comes soon.
    fn hear(&mut self) -> io::Result<Option<Answer>> {
        let mut packet = [0; 128];
        let length = match self.raw.read(&mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(heard) = Heard::read(packet.get(..length).unwrap_or_default()) else {
            return Ok(None);
        };
        if heard.from == SocketAddrV4::new(self.says_no, ASKED) && heard.to >= ASKING {
            self.answered = self.answered.max(heard.acknowledged.wrapping_sub(1));
            return Ok(None);
        }
        let asked = heard.to == from(heard.from.port()) && heard.acknowledged == 1;
        let ours = *heard.from.ip() == self.target && asked;
        Ok(ours.then_some(heard.answer))
    }

    fn syn(&self, to: Ipv4Addr, from_port: u16, port: u16, sequence: u32) -> io::Result<()> {
        let mut segment = [0; 20];
        segment[..2].copy_from_slice(&from_port.to_be_bytes());
        segment[2..4].copy_from_slice(&port.to_be_bytes());
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        // Five words, SYN, and a window.
        segment[12..16].copy_from_slice(&[5 << 4, SYN, 0xff, 0xff]);
        let sum = checksum(self.from, to, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let to = SocketAddrV4::new(to, 0).into();
        self.raw.send_to(&segment, &to).map(drop)
    }
}

/// From where a port is tried. Two sites that try each other at the same time must not meet: a router
/// that translates takes packets that cross for one connection, and lets them in (RFC 5382 §4.1). So
/// this leads from no port to another and back.
fn from(port: u16) -> u16 {
    let [usual, second, third] = FROM;
    match port {
        port if port == usual => second,
        port if port == second => third,
        _ => usual,
    }
}

/// What a port says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    port: u16,
    open: bool,
}

impl Answer {
    fn note(self, left: &mut BTreeSet<u16>, found: &mut Found) {
        let first = left.remove(&self.port);
        if self.open {
            found.open.insert(self.port);
        } else if first {
            found.closed += 1;
        }
    }
}

/// A segment that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    from: SocketAddrV4,
    to: u16,
    acknowledged: u32,
    answer: Answer,
}

impl Heard {
    /// From a packet, its IP header included (raw(7)); `None` if it answers no SYN.
    fn read(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        let segment = packet.get(header..)?;
        let word = |at: usize| {
            Some(u16::from_be_bytes(
                segment.get(at..at + 2)?.try_into().ok()?,
            ))
        };
        let (port, to) = (word(0)?, word(2)?);
        let acknowledged = u32::from_be_bytes(segment.get(8..12)?.try_into().ok()?);
        let open = match segment.get(13)? & (SYN | RST | ACK) {
            flags if flags == SYN | ACK => true,
            flags if flags == RST | ACK => false,
            _ => return None,
        };
        Some(Heard {
            from: SocketAddrV4::new(from.into(), port),
            to,
            acknowledged,
            answer: Answer { port, open },
        })
    }
}

/// Of a segment, with the addresses (RFC 9293 §3.1).
fn checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8; 20]) -> u16 {
    let addresses = [from.octets(), to.octets()].concat();
    let words = addresses.chunks(2).chain(segment.chunks(2));
    let sum = words.fold(6 + 20, |sum: u32, word| {
        sum + word
            .iter()
            .fold(0, |word, octet| word << 8 | u32::from(*octet))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let packet = |flags: u8| {
            let mut packet = [0; 40];
            packet[0] = 0x45;
            packet[12..16].copy_from_slice(&[203, 0, 113, 9]);
            packet[20..24].copy_from_slice(&[0x44, 0x23, 0xee, 0x48]);
            packet[31] = 1;
            packet[33] = flags;
            Heard::read(&packet)
        };
        let heard = |open| Heard {
            from: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 17_443),
            to: FROM[0],
            acknowledged: 1,
            answer: Answer { port: 17_443, open },
        };
        assert_eq!(packet(SYN | ACK), Some(heard(true)));
        assert_eq!(packet(RST | ACK), Some(heard(false)));
        assert_eq!(packet(ACK), None);
        assert_eq!(Heard::read(&[0x45; 30]), None);
    }

    #[test]
    fn two_that_try_each_other_do_not_meet() {
        for port in 1..=u16::MAX {
            assert_ne!(from(from(port)), port);
        }
    }

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_nothing() {
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(203, 0, 113, 100));
        let mut segment = [0xa7; 20];
        segment[16..18].copy_from_slice(&[0, 0]);
        let sum = checksum(from, to, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(from, to, &segment), 0);
    }
}
