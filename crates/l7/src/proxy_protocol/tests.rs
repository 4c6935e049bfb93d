use super::*;

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    }
}

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xC7, 0x38, 0, 80];

#[test]
fn lines_of_version_1() {
    for (line, expect) in [
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            Some(("255.255.255.255:65535", "255.255.255.255:65535")),
        ),
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n",
            Some(("192.168.0.1:56324", "192.168.0.11:443")),
        ),
        (
            "PROXY TCP6 ffff:f:ffff:ffff:ffff:ffff:ffff:ffff 2001:db8::1 0 1\r\n",
            Some((
                "[ffff:f:ffff:ffff:ffff:ffff:ffff:ffff]:0",
                "[2001:db8::1]:1",
            )),
        ),
        ("PROXY UNKNOWN\r\n", None),
        (
            "PROXY UNKNOWN ffff:f:ffff:ffff:ffff:ffff:ffff:ffff ffff:f:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            None,
        ),
    ] {
        let length = line.find("\r\n").expect("an end") + 2;
        let addresses = expect.map(|(a, b)| addresses(a, b));
        let header = Ok(Some(ProxyHeader { addresses, length }));
        assert_eq!(ProxyHeader::read(line.as_bytes()), header, "{line}");
        for end in 0..length {
            let part = &line.as_bytes()[..end];
            assert_eq!(ProxyHeader::read(part), Ok(None), "{line} {end}");
        }
    }
}

#[test]
fn lines_that_are_none() {
    for bad in [
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3 1 2\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n",
        "PROXY \r\n",
    ] {
        let read = ProxyHeader::read(bad.as_bytes());
        assert!(
            matches!(read, Err(ProxyError::Malformed(_))),
            "{bad:?} {read:?}"
        );
    }
    let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(200);
    let read = |octets: &str| ProxyHeader::read(octets.as_bytes());
    assert_eq!(read(&endless[..MAX_V1 - 1]), Ok(None));
    assert_eq!(read(&endless[..MAX_V1]), Err(ProxyError::TooLong));
    for absent in ["GET / HTTP/1.1\r\n", "PROXX", "\r\n\r\nGET", "\u{16}\u{3}"] {
        assert_eq!(read(absent), Err(ProxyError::Absent), "{absent:?}");
    }
}

#[test]
fn headers_of_version_2() {
    let v4 = addresses("192.0.2.1:51000", "198.51.100.2:80");
    let mut v6 = [0; 36];
    (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
    let (both, tlv) = (&V4[..], &[4, 0, 2, 9, 9][..]);
    for (octets, expect) in [
        (binary(0x21, 0x11, &V4), Some(v4)),
        (binary(0x21, 0x11, &[both, tlv, tlv].concat()), Some(v4)),
        (
            binary(0x21, 0x21, &v6),
            Some(addresses("[::1]:3", "[::2]:4")),
        ),
        (binary(0x21, 0x31, &[0; 216]), None),
        (binary(0x21, 0, &[]), None),
        // Whatever else LOCAL says is to be ignored.
        (binary(0x20, 0, &[]), None),
        (binary(0x20, 0x11, &V4), None),
        (binary(0x20, 0xFF, &[1; 520]), None),
    ] {
        let header = ProxyHeader {
            addresses: expect,
            length: octets.len(),
        };
        let more = [&octets[..], b"more"].concat();
        assert_eq!(ProxyHeader::read(&more), Ok(Some(header)), "{octets:?}");
        for end in 0..octets.len() {
            assert_eq!(ProxyHeader::read(&octets[..end]), Ok(None), "{end}");
        }
    }
}

#[test]
fn headers_of_version_2_that_are_none() {
    let malformed = |what| Err(ProxyError::Malformed(what));
    let after = "what follows the addresses";
    for (octets, expect) in [
        (binary(0x11, 0x11, &V4), malformed("the version or command")),
        (binary(0x22, 0x11, &V4), malformed("the version or command")),
        (binary(0x21, 0x12, &V4), malformed("the family")),
        (binary(0x21, 0x41, &V4), malformed("the family")),
        (binary(0x21, 0x11, &V4[..11]), malformed("the addresses")),
        (binary(0x21, 0x21, &V4), malformed("the addresses")),
        (binary(0x21, 0x31, &[0; 215]), malformed("the addresses")),
        (
            binary(0x21, 0x11, &[&V4[..], &[4]].concat()),
            malformed(after),
        ),
        (
            binary(0x21, 0x11, &[&V4[..], &[4, 0, 1]].concat()),
            malformed(after),
        ),
        (
            binary(0x21, 0x11, &[&V4[..], &[3, 0, 1, 9]].concat()),
            malformed(after),
        ),
        (binary(0x21, 0, &[0; 521]), Err(ProxyError::TooLong)),
    ] {
        assert_eq!(ProxyHeader::read(&octets), expect, "{octets:?}");
    }
    // The command is looked at before the rest has come.
    assert!(ProxyHeader::read(&binary(0x23, 0, &[])[..13]).is_err());
}

#[test]
fn checksums() {
    // RFC 3720 appendix B.4; the octets that are hidden lie behind.
    assert_eq!(crc32c(&[0; 32], 32), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32], 32), 0x62A8_AB43);
    let mut octets = binary(
        0x21,
        0x11,
        &[&V4[..], &[4, 0, 0, 3, 0, 4, 0, 0, 0, 0]].concat(),
    );
    let at = octets.len() - 4;
    let sum = crc32c(&octets, at).to_be_bytes();
    octets[at..].copy_from_slice(&sum);
    assert!(ProxyHeader::read(&octets).is_ok());
    // Without its type it would be no checksum.
    let of_type = V2_HEAD + V4.len() + 3;
    for at in (V2_HEAD..octets.len()).filter(|at| *at != of_type) {
        let mut changed = octets.clone();
        changed[at] ^= 1;
        assert!(ProxyHeader::read(&changed).is_err(), "{at}");
    }
}

#[test]
fn what_is_written_is_read() {
    for (source, destination) in [
        ("192.0.2.1:51000", "198.51.100.2:80"),
        ("[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ("192.0.2.1:51000", "[2001:db8::2]:0"),
        ("[::ffff:192.0.2.1]:5", "198.51.100.2:80"),
    ] {
        let given = addresses(source, destination);
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mut out = Vec::new();
            version.write(Some(&given), &mut out);
            let header = ProxyHeader::read(&out).expect("good").expect("whole");
            assert_eq!(header.length, out.len());
            let read = header.addresses.expect("addresses");
            let same = |a: SocketAddr, b: SocketAddr| {
                (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
            };
            assert!(same(read.source, given.source), "{read:?}");
            assert!(same(read.destination, given.destination), "{read:?}");
        }
    }
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut out = Vec::new();
        version.write(None, &mut out);
        let header = ProxyHeader {
            addresses: None,
            length: out.len(),
        };
        assert_eq!(ProxyHeader::read(&out), Ok(Some(header)));
    }
}
