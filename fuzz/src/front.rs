//! What comes first on a client's connection.

use l7::{
    Addresses, HelloReader, MAX_HELLO, MAX_V1, MAX_V2, ProxyError, ProxyHeader, ProxyVersion,
};

use crate::Choices;

/// A ClientHello means the same in one piece and in many, and what is behind it does not matter.
pub(crate) fn hello(octets: &[u8]) {
    let mut choices = Choices(octets);
    let step = usize::from(choices.octet()) + 1;
    let octets = choices.take(2 * MAX_HELLO);
    let whole = HelloReader::default().read(octets);
    let mut reader = HelloReader::default();
    let mut end = 0;
    let pieces = loop {
        end = (end + step).min(octets.len());
        match reader.read(&octets[..end]) {
            Ok(None) if end < octets.len() => {}
            read => break read,
        }
    };
    // In pieces it may be too long before it is malformed.
    if whole.is_ok() || pieces.is_ok() {
        assert_eq!(pieces, whole);
    }
    if let Ok(Some(hello)) = whole {
        let name = hello.server_name.as_deref();
        assert!(name.is_none_or(|name| l7::host_of(name).as_deref() == Some(name)));
        assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
    }
}

/// A header has bounds, needs no octet less, and is written again the same.
pub(crate) fn proxy_header(octets: &[u8]) {
    let header = match ProxyHeader::read(octets) {
        Ok(Some(header)) => header,
        Ok(None) => {
            assert!(octets.len() < MAX_V2);
            return;
        }
        Err(ProxyError::Absent | ProxyError::TooLong | ProxyError::Malformed(_)) => return,
    };
    let text = octets.starts_with(b"PROXY ");
    assert!(header.length <= if text { MAX_V1 } else { MAX_V2 });
    assert_eq!(
        ProxyHeader::read(&octets[..header.length]),
        Ok(Some(header))
    );
    assert_eq!(ProxyHeader::read(&octets[..header.length - 1]), Ok(None));
    let same = |addresses: Addresses| {
        let ends = [addresses.source, addresses.destination];
        ends.map(|end| (end.ip().to_canonical(), end.port()))
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut again = Vec::new();
        version.write(header.addresses.as_ref(), &mut again);
        let read = ProxyHeader::read(&again).expect("good").expect("whole");
        assert_eq!(read.length, again.len());
        assert_eq!(read.addresses.map(same), header.addresses.map(same));
    }
}
