//! Octets of a session for Wireshark's dissector: a capture file written without any capture.

use std::{fs, path::Path, process::Command};

use crate::lab::program;

/// Octets of a segment, so that longer messages need reassembly as in life.
const SEGMENT: usize = 1400;
/// `LINKTYPE_RAW`: packets begin with the IP header.
const RAW_IP: u32 = 101;

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The test's own talker.
    Test,
    /// The daemon it talks to.
    Peer,
}

impl Side {
    /// Source and destination address and port; the daemon is the one at 10.0.0.1, port 179.
    fn ends(self) -> ([u8; 4], [u8; 4], u16, u16) {
        let (peer, test) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        match self {
            Side::Test => (test, peer, 40000, 179),
            Side::Peer => (peer, test, 179, 40000),
        }
    }
}

/// A capture file of one session.
#[must_use]
pub fn file(octets: &[(Side, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4_u32.to_be_bytes());
    out.extend([0, 2, 0, 4]);
    for word in [0, 0, 1 << 16, RAW_IP] {
        out.extend(word.to_be_bytes());
    }
    let mut sent = [1_u32, 1];
    let mut packet = |side: Side, flags: u8, payload: &[u8], time: u32| {
        let (own, other) = match side {
            Side::Test => (0, 1),
            Side::Peer => (1, 0),
        };
        let step = u32::try_from(payload.len()).expect("a segment") + u32::from(flags & 2 != 0);
        let packet = ip(side, sent[own], sent[other], flags, payload);
        sent[own] = sent[own].wrapping_add(step);
        let length = u32::try_from(packet.len()).expect("a packet");
        for word in [time / 1_000_000, time % 1_000_000, length, length] {
            out.extend(word.to_be_bytes());
        }
        out.extend(packet);
    };
    // SYN, SYN and ACK, ACK.
    packet(Side::Test, 0x02, &[], 0);
    packet(Side::Peer, 0x12, &[], 1);
    packet(Side::Test, 0x10, &[], 2);
    let segments = octets
        .iter()
        .flat_map(|(side, octets)| octets.chunks(SEGMENT).map(move |segment| (*side, segment)));
    for (time, (side, segment)) in (3..).zip(segments) {
        packet(side, 0x18, segment, time);
    }
    out
}

/// One IPv4 packet with one TCP segment; no checksums, which tshark does not check by default.
fn ip(side: Side, sequence: u32, acknowledged: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination, from, to) = side.ends();
    let total = u16::try_from(40 + payload.len()).expect("a packet");
    let mut out = vec![0x45, 0];
    out.extend(total.to_be_bytes());
    out.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    out.extend(source);
    out.extend(destination);
    out.extend(from.to_be_bytes());
    out.extend(to.to_be_bytes());
    out.extend(sequence.to_be_bytes());
    out.extend(acknowledged.to_be_bytes());
    out.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend(payload);
    out
}

/// What Wireshark's dissector finds malformed, or an error, in what the daemon said; one line each.
///
/// # Errors
/// There is no tshark, or it fails, or it sees fewer BGP messages than there are.
pub fn dissect(folder: &Path, octets: &[(Side, Vec<u8>)]) -> Result<Vec<String>, String> {
    let path = folder.join("session.pcap");
    fs::write(&path, file(octets)).map_err(|error| error.to_string())?;
    let tshark = program("tshark").ok_or("tshark is not installed")?;
    let read = |filter: &str, fields: &[&str]| -> Result<Vec<String>, String> {
        let mut command = Command::new(&tshark);
        command
            .arg("-r")
            .arg(&path)
            .args(["-Y", filter, "-T", "fields"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let output = command
            .output()
            .map_err(|error| format!("tshark: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::to_owned).collect())
    };
    let seen = read("bgp && tcp.srcport == 179", &["bgp.type"])?;
    let seen: usize = seen.iter().map(|line| line.split(',').count()).sum();
    let said = octets
        .iter()
        .filter(|(side, _)| *side == Side::Peer)
        .count();
    if seen != said {
        return Err(format!("tshark sees {seen} messages of {said}"));
    }
    // 0x00800000 is Wireshark's PI_ERROR.
    let wrong = "tcp.srcport == 179 && (_ws.malformed || _ws.expert.severity == 8388608)";
    read(
        wrong,
        &[
            "frame.number",
            "_ws.expert.message",
            "_ws.malformed",
            "tcp.payload",
        ],
    )
}
