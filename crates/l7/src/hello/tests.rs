use super::*;

fn vec8(octets: &[u8]) -> Vec<u8> {
    [&[u8::try_from(octets.len()).expect("short")], octets].concat()
}

fn vec16(octets: &[u8]) -> Vec<u8> {
    let length = u16::try_from(octets.len()).expect("short");
    [&length.to_be_bytes(), octets].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(data)].concat()
}

fn name(name: &str) -> Vec<u8> {
    let entry = [&[HOST_NAME][..], &vec16(name.as_bytes())].concat();
    extension(SERVER_NAME, &vec16(&entry))
}

/// A ClientHello with these extensions, without records around it.
fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &vec8(&[9; 32]),
        &vec16(&[0x13, 1, 0x13, 2]),
        &vec8(&[0]),
        &vec16(extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], &body].concat()
}

/// In records of at most so many octets.
fn records(message: &[u8], most: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &vec16(piece)].concat();
    message.chunks(most).flat_map(record).collect()
}

fn read(octets: &[u8]) -> Result<Option<Hello>, HelloError> {
    HelloReader::default().read(octets)
}

#[test]
fn however_it_comes() {
    let protocols = extension(ALPN, &vec16(&[vec8(b"h2"), vec8(b"http/1.1")].concat()));
    let all = [name("Vault.Example."), extension(0x0A0A, &[]), protocols].concat();
    let message = message(&all);
    let expect = Hello {
        server_name: Some("vault.example".into()),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    for most in [1, 3, 50, message.len()] {
        let octets = records(&message, most);
        // What follows is somebody else's.
        let more = [&octets[..], b"more"].concat();
        assert_eq!(read(&more), Ok(Some(expect.clone())), "{most}");
        let mut reader = HelloReader::default();
        for end in 0..octets.len() {
            assert_eq!(reader.read(&octets[..end]), Ok(None), "{most} {end}");
        }
        assert_eq!(reader.read(&octets), Ok(Some(expect.clone())), "{most}");
    }
}

#[test]
fn who_names_nobody() {
    let nobody = Ok(Some(Hello::default()));
    assert_eq!(read(&records(&message(&[]), 999)), nobody);
    // Without extensions at all (RFC 5246 §7.4.1.2).
    let mut old = message(&[]);
    old.truncate(old.len() - 2);
    old[3] -= 2;
    assert_eq!(read(&records(&old, 999)), nobody);
}

#[test]
fn what_is_not_understood_is_refused() {
    let malformed = |what| Err(HelloError::Malformed(what));
    let one = |extension: &[u8]| read(&records(&message(extension), 999));
    let entry = |kind: u8, name: &[u8]| [&[kind][..], &vec16(name)].concat();
    let names = |list: &[u8]| extension(SERVER_NAME, &vec16(list));
    for bad in [
        names(&[]),
        names(&entry(1, b"a.example")),
        names(
            &[
                entry(HOST_NAME, b"a.example"),
                entry(HOST_NAME, b"b.example"),
            ]
            .concat(),
        ),
        names(&entry(HOST_NAME, b"")),
        names(&entry(HOST_NAME, b"a.example:443")),
        names(&entry(HOST_NAME, b"a.example\0")),
        names(&entry(HOST_NAME, b"[::1]")),
        names(&entry(HOST_NAME, &[0xC3])),
        names(&[&entry(HOST_NAME, b"a.example")[..], b"x"].concat()),
        extension(SERVER_NAME, &[]),
        extension(
            SERVER_NAME,
            &[&vec16(&entry(HOST_NAME, b"a"))[..], b"x"].concat(),
        ),
    ] {
        assert_eq!(one(&bad), malformed("server name"), "{bad:?}");
    }
    assert_eq!(
        one(&[name("a.example"), name("a.example")].concat()),
        malformed("extensions"),
        "twice"
    );
    assert_eq!(one(b"\0"), malformed("extensions"));
    let many: Vec<u8> = (1000..1200).flat_map(|kind| extension(kind, &[])).collect();
    assert_eq!(
        read(&records(&message(&many), 9999)),
        malformed("extensions")
    );
    assert_eq!(one(&extension(ALPN, &vec16(&[]))), malformed("protocols"));
    assert_eq!(one(&extension(ALPN, &vec16(&[0]))), malformed("protocols"));
    for (octets, error) in [
        (&b"GET / HTTP/1.1\r\n"[..], HelloError::NotTls),
        (&[HANDSHAKE, 2], HelloError::NotTls),
        (&[HANDSHAKE, 3, 9], HelloError::NotTls),
        (&[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0], HelloError::NotTls),
        (
            &[HANDSHAKE, 3, 1, 0, 0],
            HelloError::Malformed("an empty record"),
        ),
        (&[HANDSHAKE, 3, 1, 0xFF, 0xFF], HelloError::TooLong),
        (&[HANDSHAKE, 3, 1, 0, 4, 1, 1, 0, 0], HelloError::TooLong),
    ] {
        assert_eq!(read(octets), Err(error), "{octets:?}");
    }
    // A length that promises more than may come.
    let mut endless = vec![HANDSHAKE, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xFC];
    endless.resize(MAX_HELLO, 0);
    assert_eq!(read(&endless), Err(HelloError::TooLong));
    // Any octet changed: whatever it means then, it is a decision and no panic.
    let good = records(&message(&name("a.example")), 20);
    for at in 0..good.len() {
        for change in [0, 1, 0x7F, 0xFF] {
            let mut octets = good.clone();
            octets[at] = change;
            let _ = read(&octets);
        }
    }
}
