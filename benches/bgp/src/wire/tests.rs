use super::*;
use crate::counter::Counter;

const ORIGIN: Origin = Origin {
    asn: 4_200_000_010,
    address: Ipv4Addr::new(198, 18, 1, 10),
};

fn messages(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let length = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
        assert!(length <= MESSAGE);
        let (message, rest) = octets.split_at(length);
        all.push(message);
        octets = rest;
    }
    all
}

#[test]
fn what_is_announced_is_counted_and_what_is_withdrawn_is_not() {
    for (family, count, least) in [
        (Family::Ipv4, 10_000, 2_000),
        (Family::Vpnv4, 12_000, 2_400),
        (Family::Mesh, 20_000, 240),
    ] {
        let mut counter = Counter::new(family, count, None, 0..0);
        let announced = announce(ORIGIN, family, 0..count, 1);
        assert_eq!(messages(&announced).len(), least, "{family:?}");
        assert_eq!(counter.feed(&announced).expect("UPDATEs"), announced.len());
        assert_eq!(counter.have(), count, "{family:?}");
        counter.feed(&announced).expect("again");
        assert_eq!((counter.have(), counter.foreign), (count, 0));
        let withdrawn = withdraw(family, 0..count);
        counter.feed(&withdrawn).expect("UPDATEs");
        assert_eq!((counter.have(), counter.foreign), (0, 0), "{family:?}");
    }
}

#[test]
fn what_comes_back_is_not_counted() {
    let mut counter = Counter::new(Family::Ipv4, 20, None, 5..10);
    let octets = announce(ORIGIN, Family::Ipv4, 0..20, 0);
    counter.feed(&octets).expect("UPDATEs");
    assert_eq!(counter.have(), 15);
}

#[test]
fn pieces_of_messages_wait() {
    let mut counter = Counter::new(Family::Ipv4, 10, None, 0..0);
    let octets = announce(ORIGIN, Family::Ipv4, 0..10, 0);
    let half = octets.len() / 2 + 7;
    let taken = counter.feed(&octets[..half]).expect("a whole one");
    assert_eq!((taken, counter.have()), (half - 7, 5));
    counter.feed(&octets[taken..]).expect("the rest");
    assert_eq!(counter.have(), 10);
}

#[test]
fn a_session_that_ends_says_why() {
    let mut counter = Counter::new(Family::Ipv4, 10, None, 0..0);
    let mut cease = Vec::new();
    message(&mut cease, 3, |out| out.extend([6, 2]));
    let error = counter.feed(&cease).expect_err("it ends");
    assert!(error.to_string().contains("6/2"), "{error}");
    assert!(counter.feed(&[0; 19]).is_err());
}

#[test]
fn the_endpoint_messages_hold_some_ninety() {
    let octets = announce(ORIGIN, Family::Mesh, 0..1_000, 0);
    assert_eq!(messages(&octets).len(), 12);
}
