use std::{
    io::{ErrorKind, IoSlice},
    task::{Context, Poll},
};

use base::Rng;
use tokio::io::ReadBuf;

use super::{
    super::{
        frame::Kind,
        mux::{BULK, IDLE, MOST, Mux, Reading, Turn, Violation, Way},
    },
    machine::{Frame, NOBODY, Pair, carry, octets, read, way, write},
};
use crate::link::Side;

/// Of a spare connection on which nothing is to be done.
const REST: Turn = Turn {
    ebbs: false,
    ends: false,
    reading: Reading::Nothing,
};

fn pair(spares: &[u16]) -> Pair {
    let mut pair = Pair::new();
    pair.near.greet();
    pair.far.greet();
    for number in spares {
        assert!(pair.near.spare_comes(*number) && pair.far.spare_comes(*number));
    }
    pair.settle();
    pair
}

/// Writes a piece of bulk from the near side, which the far side reads at once: over which spare
/// connection it goes, if it does.
fn send(pair: &mut Pair, id: u32) -> Option<u16> {
    let piece = [7; 32 << 10];
    match way(&mut pair.near, id, &[IoSlice::new(&piece)]) {
        Poll::Ready(Ok(Way::Here(count))) => {
            pair.settle();
            let got = read(&mut pair.far, id, count);
            assert_eq!(got.map_ok(|octets| octets.len()), Poll::Ready(Ok(count)));
            pair.settle();
            None
        }
        Poll::Ready(Ok(Way::Aside(number))) => Some(number),
        other @ (Poll::Ready(Err(_)) | Poll::Pending) => panic!("{other:?}"),
    }
}

/// Sends until it goes aside; over which, and after how many octets.
fn bulk(pair: &mut Pair, id: u32) -> (u16, usize) {
    for pieces in 0..1000 {
        if let Some(number) = send(pair, id) {
            pair.settle();
            return (number, pieces * (32 << 10));
        }
    }
    panic!("it does not go aside");
}

fn turn(mux: &mut Mux, number: u16) -> Option<Turn> {
    mux.spare_turn(number, NOBODY)
}

/// The spare connection that a stream is to be read from.
fn aside(mux: &mut Mux, id: u32) -> Option<u16> {
    let mut room = [0; 9];
    let mut buf = ReadBuf::new(&mut room);
    match mux.poll_read(id, &mut Context::from_waker(NOBODY), &mut buf) {
        Poll::Ready(Ok(number)) => number,
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

/// What the task of the spare connection does when a stream has gone home, at both ends.
fn end(pair: &mut Pair, number: u16) {
    assert!(turn(&mut pair.near, number).expect("there").ends);
    pair.near.spare_ended(number);
    assert!(!turn(&mut pair.near, number).expect("there").ends);
    pair.far.came_home(number);
    pair.settle();
}

#[test]
fn bulk_goes_aside_until_it_ends() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    assert_eq!(bulk(&mut pair, id), (7, BULK));
    assert_eq!(send(&mut pair, id), Some(7));
    let reading = Reading::Stream { awaited: false };
    let reads = Some(Turn {
        ebbs: false,
        ends: false,
        reading,
    });
    assert_eq!(turn(&mut pair.far, 7), reads);
    assert_eq!(aside(&mut pair.far, id), Some(7));
    pair.near.end(id);
    pair.settle();
    // Its end is here, and what comes before is not read yet.
    assert_eq!(aside(&mut pair.far, id), Some(7));
    assert!(pair.near.sends_aside());
    end(&mut pair, 7);
    assert!(!pair.near.sends_aside());
    assert_eq!(read(&mut pair.far, id, 9), Poll::Ready(Ok(Vec::new())));
    assert_eq!(turn(&mut pair.near, 7), Some(REST));
    assert_eq!(turn(&mut pair.far, 7), Some(REST));
    assert_eq!((pair.near.take_asides(), pair.near.take_asides()), (1, 0));
}

#[test]
fn what_was_sent_before_and_after_is_read_before_and_after() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    let (number, _) = bulk(&mut pair, id);
    // What is said while it is aside is not here.
    pair.near.wrote_aside(number, 32 << 10);
    // As long as it moves it stays.
    pair.near.tick();
    assert_eq!(send(&mut pair, id), Some(number));
    pair.near.tick();
    assert_eq!(write(&mut pair.near, id, b"after"), Poll::Ready(Ok(5)));
    pair.settle();
    assert_eq!(aside(&mut pair.far, id), Some(number));
    end(&mut pair, number);
    assert_eq!(
        read(&mut pair.far, id, 9),
        Poll::Ready(Ok(b"after".to_vec()))
    );
    // And before: nobody has read it when it goes.
    let piece = [IoSlice::new(&[7; 32 << 10])];
    for _ in 0..7 {
        assert_eq!(send(&mut pair, id), None);
    }
    assert!(way(&mut pair.near, id, &piece).is_ready());
    assert_eq!(
        way(&mut pair.near, id, &piece),
        Poll::Ready(Ok(Way::Aside(number)))
    );
    pair.settle();
    let before = read(&mut pair.far, id, 99_999);
    assert_eq!(before.map_ok(|o| o.len()), Poll::Ready(Ok(32 << 10)));
    assert_eq!(aside(&mut pair.far, id), Some(number));
}

#[test]
fn who_is_answered_or_says_little_is_no_bulk() {
    let mut pair = pair(&[7]);
    let (asks, chats) = (pair.stream(), pair.stream());
    for _ in 0..100 {
        assert_eq!(send(&mut pair, asks), None);
        assert_eq!(write(&mut pair.far, asks, b"thanks"), Poll::Ready(Ok(6)));
        pair.settle();
        assert!(read(&mut pair.near, asks, 9).is_ready());
    }
    for _ in 0..1000 {
        assert_eq!(
            write(&mut pair.near, chats, &[1; 999]),
            Poll::Ready(Ok(999))
        );
        pair.settle();
        assert!(read(&mut pair.far, chats, 999).is_ready());
    }
}

#[test]
fn who_has_more_to_send_than_goes_is_bulk_whatever_comes() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    let piece = [7; 32 << 10];
    let mut sent = 0;
    loop {
        match way(&mut pair.near, id, &[IoSlice::new(&piece)]) {
            Poll::Ready(Ok(Way::Here(count))) => sent += count,
            Poll::Ready(Ok(Way::Aside(_))) => break,
            Poll::Pending => {
                assert_eq!(write(&mut pair.far, id, b"?"), Poll::Ready(Ok(1)));
                carry(&mut pair.far, &mut pair.near);
                carry(&mut pair.near, &mut pair.far);
                assert!(read(&mut pair.far, id, 1 << 20).is_ready());
                pair.settle();
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
        assert!(sent < BULK + (64 << 10));
    }
}

#[test]
fn both_sides_lend_the_same_connection_to_streams_of_theirs() {
    let mut pair = pair(&[7]);
    let (up, down) = (pair.stream(), pair.stream());
    assert_eq!(bulk(&mut pair, up).0, 7);
    std::mem::swap(&mut pair.near, &mut pair.far);
    assert_eq!(bulk(&mut pair, down).0, 7);
    assert_eq!(aside(&mut pair.far, down), Some(7));
    assert_eq!(aside(&mut pair.near, up), Some(7));
    pair.near.end(down);
    pair.settle();
    end(&mut pair, 7);
    assert_eq!(aside(&mut pair.near, up), Some(7));
    assert_eq!(read(&mut pair.far, down, 9), Poll::Ready(Ok(Vec::new())));
}

#[test]
fn a_stream_does_not_go_again_before_it_is_heard() {
    let mut pair = pair(&[7, 8]);
    let id = pair.stream();
    // Much may be unread, for a reader that kept up.
    for much in [64 << 10, 128 << 10, BULK] {
        for _ in 0..much / (32 << 10) {
            let piece = [IoSlice::new(&[7; 32 << 10])];
            assert!(way(&mut pair.near, id, &piece).is_ready());
            carry(&mut pair.near, &mut pair.far);
        }
        assert!(read(&mut pair.far, id, much).is_ready());
        assert!(write(&mut pair.far, id, b"thanks").is_ready());
        pair.settle();
        assert!(read(&mut pair.near, id, 9).is_ready());
    }
    let (number, _) = bulk(&mut pair, id);
    pair.near.tick();
    pair.near.tick();
    pair.near.spare_ended(number);
    // What it sends meanwhile waits for what is aside.
    let piece = [7; 4 << 10];
    let mut sent = 0;
    while let Poll::Ready(Ok(way)) = way(&mut pair.near, id, &[IoSlice::new(&piece)]) {
        assert_eq!(way, Way::Here(piece.len()));
        sent += piece.len();
        pair.settle();
    }
    assert!(sent > BULK, "{sent}");
    assert_eq!(aside(&mut pair.far, id), Some(number));
    pair.far.came_home(number);
    pair.settle();
    let waited = read(&mut pair.far, id, sent).map_ok(|octets| octets.len());
    assert_eq!(waited, Poll::Ready(Ok(sent)));
    pair.settle();
    assert!(send(&mut pair, id).is_some());
}

#[test]
fn whoever_has_bulk_gets_spare_connections_and_loses_them_when_there_is_none() {
    // It is the acceptor that has bulk: the dialler dials for it.
    let mut pair = pair(&[]);
    std::mem::swap(&mut pair.near, &mut pair.far);
    let id = pair.stream();
    assert!(!pair.far.wants_spare());
    for _ in 0..=BULK / (32 << 10) {
        assert_eq!(send(&mut pair, id), None);
    }
    assert!(pair.far.wants_spare() && !pair.near.wants_spare());
    pair.far.dials_spare();
    assert!(!pair.far.wants_spare());
    // In vain; then again, later and later.
    for waits in [2, 4, 8] {
        let mut ticks = 0;
        while !pair.far.wants_spare() {
            pair.far.tick();
            ticks += 1;
        }
        assert_eq!(ticks, waits);
        pair.far.dials_spare();
    }
    assert!(pair.far.spare_comes(1));
    pair.settle();
    // It is no use until it has come here.
    assert_eq!(send(&mut pair, id), None);
    assert!(pair.near.spare_comes(1));
    pair.settle();
    assert_eq!(bulk(&mut pair, id).0, 1);
    // One is idle at a time.
    assert!(pair.far.wants_spare());
    for number in 2.. {
        if !pair.far.wants_spare() {
            break;
        }
        assert!(pair.far.spare_comes(number) && pair.near.spare_comes(number));
        pair.settle();
        let another = pair.stream();
        bulk(&mut pair, another);
        assert!(usize::from(number) <= MOST);
    }
    assert!(!pair.far.spare_comes(99), "there are enough");
    // Without bulk all of them go, one after the other.
    pair.near.end(id);
    pair.settle();
    end(&mut pair, 1);
    let lent = |mux: &mut Mux| (1..=16).filter(|n| turn(mux, *n).is_some()).count();
    assert_eq!((lent(&mut pair.far), lent(&mut pair.near)), (MOST, MOST));
    for _ in 0..IDLE {
        pair.near.tick();
        pair.far.tick();
    }
    for number in 2..=16 {
        pair.near.spare_ended(number);
        pair.far.came_home(number);
    }
    pair.settle();
    for _ in 0..IDLE + 16 {
        pair.far.tick();
        pair.settle();
    }
    assert_eq!(lent(&mut pair.near), 0);
    // It hears by the end of the connection that it is closed.
    (1..=16).for_each(|number| pair.far.spare_gone(number));
    assert!(!pair.far.wants_spare());
}

#[test]
fn what_is_about_to_be_used_is_not_closed() {
    let mut pair = pair(&[7]);
    std::mem::swap(&mut pair.near, &mut pair.far);
    let id = pair.stream();
    for _ in 0..BULK / (32 << 10) {
        assert_eq!(send(&mut pair, id), None);
    }
    // Both say something at once.
    for _ in 0..=IDLE {
        pair.far.tick();
    }
    assert!(!pair.far.out().is_empty());
    assert_eq!(send(&mut pair, id), Some(7));
    pair.settle();
    assert_eq!(aside(&mut pair.far, id), Some(7));
    assert!(turn(&mut pair.near, 7).is_some() && turn(&mut pair.far, 7).is_some());
    // And it may be used by the other side as well.
    std::mem::swap(&mut pair.near, &mut pair.far);
    assert_eq!(bulk(&mut pair, id).0, 7);
}

#[test]
fn a_stream_that_is_reset_leaves_its_spare_connection_as_it_was() {
    for (by_sender, again) in [(true, 7), (false, 7)] {
        let mut pair = pair(&[7]);
        let id = pair.stream();
        bulk(&mut pair, id);
        match by_sender {
            true => pair.near.release(id),
            false => pair.far.release(id),
        }
        pair.settle();
        let waste = Turn {
            ebbs: false,
            ends: false,
            reading: Reading::Waste,
        };
        assert_eq!(turn(&mut pair.far, 7), Some(waste));
        if by_sender {
            let broken = Poll::Ready(Err(ErrorKind::ConnectionReset));
            assert_eq!(read(&mut pair.far, id, 9), broken);
        } else {
            let broken = Poll::Ready(Err(ErrorKind::ConnectionReset));
            assert_eq!(write(&mut pair.near, id, b"x"), broken);
        }
        end(&mut pair, 7);
        let another = pair.stream();
        assert_eq!(bulk(&mut pair, another).0, again);
    }
}

#[test]
fn a_reset_after_the_end_takes_nothing_back_from_aside() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    bulk(&mut pair, id);
    pair.near.end(id);
    pair.near.release(id);
    pair.settle();
    assert_eq!(aside(&mut pair.far, id), Some(7));
    end(&mut pair, 7);
    assert_eq!(read(&mut pair.far, id, 9), Poll::Ready(Ok(Vec::new())));
}

#[test]
fn what_was_aside_is_lost_with_its_connection_and_nothing_else_is() {
    for near in [true, false] {
        let mut pair = pair(&[7]);
        let (id, other) = (pair.stream(), pair.stream());
        bulk(&mut pair, id);
        match near {
            true => pair.near.spare_gone(7),
            false => pair.far.spare_gone(7),
        }
        // What is said before it is known there is no fault.
        if !near {
            pair.near.tick();
            pair.near.tick();
            assert!(write(&mut pair.near, id, b"more").is_ready());
            pair.near.end(id);
        } else {
            // Its end would look as if that were all.
            pair.near.end(id);
            assert!(pair.near.check_whole(id).is_err());
        }
        pair.settle();
        let broken = Poll::Ready(Err(ErrorKind::ConnectionReset));
        assert_eq!(read(&mut pair.far, id, 9), broken);
        assert_eq!(read(&mut pair.near, id, 9), broken);
        assert_eq!(
            write(&mut pair.far, id, b"x"),
            Poll::Ready(Err(ErrorKind::ConnectionReset))
        );
        assert_eq!(write(&mut pair.near, other, b"x"), Poll::Ready(Ok(1)));
        pair.near.release(id);
        pair.far.release(id);
        pair.settle();
        pair.near.spare_gone(7);
        pair.far.spare_gone(7);
        assert_eq!(
            (turn(&mut pair.near, 7), turn(&mut pair.far, 7)),
            (None, None)
        );
    }
}

#[test]
fn an_end_after_a_reset_is_none() {
    let mut pair = pair(&[]);
    let id = pair.stream();
    let says = [
        (Kind::Data, id, &b"a part"[..]),
        (Kind::Reset, id, b""),
        (Kind::End, id, b""),
    ];
    pair.far.receive(&mut octets(&says)).expect("no violation");
    let broken = Poll::Ready(Err(ErrorKind::ConnectionReset));
    assert_eq!(read(&mut pair.far, id, 9), broken);
}

#[test]
fn an_acceptor_takes_few_that_nobody_wants_and_lets_them_go() {
    let mut far = Mux::new(Side::Acceptor);
    far.greet();
    let taken: Vec<u16> = (0..9).filter(|number| far.spare_comes(*number)).collect();
    assert_eq!(taken, [0, 1]);
    for _ in 0..=4 * IDLE + 1 {
        far.tick();
    }
    assert!(taken.iter().all(|number| turn(&mut far, *number).is_none()));
}

#[test]
fn who_leaves_sends_what_is_aside_and_it_is_heard_after_that() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    bulk(&mut pair, id);
    pair.near.leave();
    assert!(pair.near.is_leaving() && pair.near.sends_aside());
    // What is said until then comes after.
    assert_eq!(write(&mut pair.near, id, b"last"), Poll::Ready(Ok(4)));
    pair.near.end(id);
    pair.settle();
    pair.near.spare_ended(7);
    assert!(!pair.near.sends_aside());
    // Nothing goes aside any more.
    let another = pair.stream();
    for _ in 0..20 {
        assert_eq!(send(&mut pair, another), None);
    }
    // Both are gone; the spare connection stays until it is read to its end.
    pair.far.ebb(ErrorKind::UnexpectedEof);
    pair.near.ebb(ErrorKind::UnexpectedEof);
    let ebbs = |mux: &mut Mux| turn(mux, 7).is_some_and(|turn| turn.ebbs);
    assert!(ebbs(&mut pair.near) && ebbs(&mut pair.far));
    assert_eq!(aside(&mut pair.far, id), Some(7));
    pair.far.came_home(7);
    assert_eq!(
        read(&mut pair.far, id, 9),
        Poll::Ready(Ok(b"last".to_vec()))
    );
    assert_eq!(read(&mut pair.far, id, 9), Poll::Ready(Ok(Vec::new())));
    assert_eq!(turn(&mut pair.far, 7), None);
    let over = Poll::Ready(Err(ErrorKind::UnexpectedEof));
    assert_eq!(read(&mut pair.far, another, 9), over);
}

#[test]
fn what_is_aside_ends_with_a_connection_that_is_cut() {
    let mut pair = pair(&[7]);
    let id = pair.stream();
    bulk(&mut pair, id);
    pair.far.close(ErrorKind::ConnectionAborted);
    let over = Poll::Ready(Err(ErrorKind::ConnectionAborted));
    assert_eq!(read(&mut pair.far, id, 9), over);
    assert_eq!(turn(&mut pair.far, 7), None);
    // And if it is not read to its end when the other side has left.
    pair.near.ebb(ErrorKind::UnexpectedEof);
    assert_eq!(turn(&mut pair.near, 7), None);
}

#[test]
fn whoever_does_not_know_spare_connections_gets_frames() {
    let mut pair = Pair::new();
    pair.near.greet();
    pair.settle();
    let id = pair.stream();
    for _ in 0..100 {
        assert_eq!(send(&mut pair, id), None);
    }
    assert!(!pair.near.wants_spare());
}

#[test]
fn what_no_peer_says_of_spare_connections_ends_the_connection() {
    let open = (Kind::Open, 1, &b"h"[..]);
    let aside = (Kind::Aside, 1, &b"\0\x07"[..]);
    let cases: Vec<(Vec<Frame<'_>>, Violation)> = vec![
        (vec![(Kind::Spares, 0, b"")], Violation::Size),
        (vec![(Kind::Have, 0, b"1")], Violation::Size),
        (vec![(Kind::Drop, 0, b"123")], Violation::Size),
        (vec![(Kind::Home, 0, b"")], Violation::Size),
        (vec![open, (Kind::Aside, 1, b"7")], Violation::Size),
        (vec![aside], Violation::Id),
        (vec![(Kind::Aside, 0, b"\0\x07")], Violation::Id),
        (vec![open, aside, aside], Violation::Aside),
        (
            vec![open, aside, (Kind::Aside, 1, b"\0\x08")],
            Violation::Aside,
        ),
        (
            vec![
                open,
                aside,
                (Kind::Open, 3, b"h"),
                (Kind::Aside, 3, b"\0\x07"),
            ],
            Violation::Aside,
        ),
        (vec![open, (Kind::End, 1, b""), aside], Violation::Ended),
        (vec![open, (Kind::Reset, 1, b""), aside], Violation::Ended),
        (vec![(Kind::Home, 0, b"\0\x07")], Violation::Aside),
    ];
    for (frames, violation) in cases {
        let mut far = Mux::new(Side::Acceptor);
        assert!(far.spare_comes(7) && far.spare_comes(8));
        let names: Vec<_> = frames.iter().map(|(kind, id, _)| (kind, id)).collect();
        let received = far.receive(&mut octets(&frames));
        assert_eq!(received, Err(violation), "{names:?}");
    }
    // One that is not here may just have broken: that is the end of the stream alone.
    let mut far = Mux::new(Side::Acceptor);
    let lost = (Kind::Aside, 1, &b"\0\x09"[..]);
    let frames = [open, lost, (Kind::Data, 1, b"late"), (Kind::End, 1, b"")];
    far.receive(&mut octets(&frames)).expect("no violation");
    let broken = Poll::Ready(Err(ErrorKind::ConnectionReset));
    assert_eq!(read(&mut far, 1, 9), broken);
    // Numbers of those that never come are not kept without end.
    let have: Vec<Vec<u8>> = (0..9999_u16).map(|n| n.to_be_bytes().to_vec()).collect();
    let have: Vec<Frame<'_>> = have.iter().map(|n| (Kind::Have, 0, &n[..])).collect();
    far.receive(&mut octets(&have)).expect("no violation");
}

#[test]
fn noise_about_spare_connections_is_no_more_than_a_violation() {
    let mut rng = Rng::new(43);
    let mut ended = 0;
    for _ in 0..3000 {
        let mut far = Mux::new(Side::Acceptor);
        far.greet();
        let mut came = 0;
        for _ in 0..6 {
            let number = u8::try_from(rng.below(3)).expect("small");
            let id = u32::try_from(rng.below(3) * 2 + 1).expect("small");
            let two = [0, number];
            let frame: Frame<'_> = match rng.below(12) {
                0 | 1 => (Kind::Open, id, b"h"),
                2 => (Kind::Data, id, b"octets"),
                3 => (Kind::End, id, b""),
                4 => (Kind::Reset, id, b""),
                5 => (Kind::Spares, 0, &two[1..]),
                6 | 7 => (Kind::Have, 0, &two),
                8 | 9 => (Kind::Aside, id, &two),
                10 => (Kind::Home, 0, &two),
                _ => (Kind::Drop, 0, &two),
            };
            if far.receive(&mut octets(&[frame])).is_err() {
                ended += 1;
                break;
            }
            let number = number.into();
            match rng.below(8) {
                0 | 1 => came += u32::from(far.spare_comes(number)),
                2 => far.spare_gone(number),
                3 => far.came_home(number),
                4 => far.release(id),
                5 => far.end(id),
                6 => far.tick(),
                _ => drop(way(&mut far, id, &[IoSlice::new(&[0; 32 << 10])])),
            }
            let _ = turn(&mut far, number).map(|turn| turn.ends && far.sends_aside());
            let _ = aside(&mut far, id);
        }
        assert!(came <= 4);
    }
    assert!((300..2900).contains(&ended), "{ended}");
}
