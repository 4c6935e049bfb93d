use std::{
    io::{ErrorKind, IoSlice},
    task::{Context, Poll, Waker},
};

use base::Rng;
use bytes::{BufMut, BytesMut};
use http::StatusCode;
use path::{Load, Loss};
use tokio::io::ReadBuf;

use super::super::{
    frame::{HEADER, Header, Kind, MAX_PAYLOAD},
    mux::{
        Answer, CONNECTION_WINDOW, FIRST_WINDOW, LAST_WINDOW, MAX_STREAMS, Mux, Opened, Violation,
        Way,
    },
};
use crate::link::Side;

pub(super) const NOBODY: &Waker = Waker::noop();

/// Two machines, and what one has sent and the other not yet taken in.
pub(super) struct Pair {
    pub(super) near: Mux,
    pub(super) far: Mux,
}

impl Pair {
    pub(super) fn new() -> Pair {
        Pair {
            near: Mux::new(Side::Dialler),
            far: Mux::new(Side::Acceptor),
        }
    }

    /// Carry everything, until nothing is left.
    pub(super) fn settle(&mut self) {
        while carry(&mut self.near, &mut self.far) + carry(&mut self.far, &mut self.near) > 0 {}
    }

    /// A stream that the near side opened and the far side took.
    pub(super) fn stream(&mut self) -> u32 {
        let id = self.near.open(b"head").expect("room");
        self.settle();
        let opened = self.far.arrived().expect("arrived");
        assert_eq!((opened.id, &opened.head[..]), (id, &b"head"[..]));
        self.far.accept(id).expect("it is there");
        self.settle();
        assert_eq!(answer(&mut self.near, id), Poll::Ready(Ok(Answer::Yes)));
        id
    }
}

pub(super) fn carry(from: &mut Mux, to: &mut Mux) -> usize {
    let mut octets = BytesMut::from(from.out());
    let count = octets.len();
    from.sent(count);
    to.receive(&mut octets).expect("no violation");
    assert!(octets.is_empty());
    count
}

fn answer(mux: &mut Mux, id: u32) -> Poll<Result<Answer, ErrorKind>> {
    let polled = mux.poll_answer(id, &mut Context::from_waker(NOBODY));
    polled.map_err(|error| error.kind())
}

pub(super) fn write(mux: &mut Mux, id: u32, octets: &[u8]) -> Poll<Result<usize, ErrorKind>> {
    let (head, tail) = octets.split_at(octets.len() / 3);
    let bufs = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)];
    match way(mux, id, &bufs) {
        Poll::Ready(Ok(Way::Here(count))) => Poll::Ready(Ok(count)),
        Poll::Ready(Ok(Way::Aside(number))) => panic!("over {number}"),
        Poll::Ready(Err(kind)) => Poll::Ready(Err(kind)),
        Poll::Pending => Poll::Pending,
    }
}

pub(super) fn way(mux: &mut Mux, id: u32, bufs: &[IoSlice<'_>]) -> Poll<Result<Way, ErrorKind>> {
    let polled = mux.poll_write(id, &mut Context::from_waker(NOBODY), bufs);
    polled.map_err(|error| error.kind())
}

/// Writes until it would have to wait; how much.
fn fill(pair: &mut Pair, id: u32) -> usize {
    let mut total = 0;
    while let Poll::Ready(count) = write(&mut pair.near, id, &[7; 100_000]) {
        total += count.expect("open");
        carry(&mut pair.near, &mut pair.far);
    }
    total
}

pub(super) fn read(mux: &mut Mux, id: u32, most: usize) -> Poll<Result<Vec<u8>, ErrorKind>> {
    let mut room = vec![0; most];
    let mut buf = ReadBuf::new(&mut room);
    let polled = mux.poll_read(id, &mut Context::from_waker(NOBODY), &mut buf);
    let read = buf.filled().to_vec();
    let here = |aside| match aside {
        None => read,
        Some(number) => panic!("on {number}"),
    };
    polled.map(|done| done.map(here).map_err(|error| error.kind()))
}

pub(super) type Frame<'a> = (Kind, u32, &'a [u8]);

pub(super) fn octets(frames: &[Frame<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    for (kind, id, payload) in frames {
        Header::write(*kind, *id, payload.len(), &mut out);
        out.put_slice(payload);
    }
    out
}

#[test]
fn what_is_lost_and_how_full_it_is_is_said_once_and_who_should_move_hears_it() {
    let mut pair = Pair::new();
    let id = pair.stream();
    pair.near.say_loss(Loss(300));
    pair.settle();
    assert_eq!(pair.far.take_their_loss(), Some(Loss(300)));
    assert_eq!(pair.far.take_their_loss(), None);
    pair.near.say_load(Load::of(90));
    pair.settle();
    assert_eq!(pair.far.take_their_load(), Some(Load::of(90)));
    assert_eq!(pair.far.take_their_load(), None);
    assert!(!pair.near.moves(id));
    pair.far.say_move(id);
    // Of one that is gone nothing is said.
    pair.far.say_move(id + 2);
    pair.settle();
    assert!(pair.near.moves(id));
    // It goes on all the same.
    assert_eq!(write(&mut pair.near, id, b"abc"), Poll::Ready(Ok(3)));
    for (kind, id, payload) in [
        (Kind::Loss, 0, &[1_u8][..]),
        (Kind::Loss, 0, &[]),
        (Kind::Loss, 0, &[1, 2, 3]),
        (Kind::Load, 0, &[]),
    ] {
        let mut octets = BytesMut::new();
        Header::write(kind, id, payload.len(), &mut octets);
        octets.put_slice(payload);
        assert_eq!(pair.far.receive(&mut octets), Err(Violation::Size));
    }
    // A later version may say more.
    let mut more = octets(&[(Kind::Load, 0, &[200, 1, 2])]);
    assert_eq!(pair.far.receive(&mut more), Ok(()));
    assert_eq!(pair.far.take_their_load(), Some(Load::FULL));
    let mut octets = BytesMut::new();
    Header::write(Kind::Move, 99, 0, &mut octets);
    assert_eq!(pair.near.receive(&mut octets), Err(Violation::Id));
}

#[test]
fn a_stream_carries_both_ways_and_leaves_nothing() {
    let mut pair = Pair::new();
    let id = pair.stream();
    assert_eq!(write(&mut pair.near, id, b"question"), Poll::Ready(Ok(8)));
    pair.near.end(id);
    assert_eq!(
        write(&mut pair.near, id, b"more"),
        Poll::Ready(Err(ErrorKind::BrokenPipe))
    );
    assert!(read(&mut pair.far, id, 5).is_pending());
    pair.settle();
    assert_eq!(
        read(&mut pair.far, id, 5),
        Poll::Ready(Ok(b"quest".to_vec()))
    );
    assert_eq!(read(&mut pair.far, id, 5), Poll::Ready(Ok(b"ion".to_vec())));
    assert_eq!(read(&mut pair.far, id, 5), Poll::Ready(Ok(Vec::new())));
    assert_eq!(write(&mut pair.far, id, b"answer"), Poll::Ready(Ok(6)));
    pair.far.end(id);
    // The handle goes before the octets do.
    pair.far.release(id);
    pair.settle();
    assert_eq!(
        read(&mut pair.near, id, 9),
        Poll::Ready(Ok(b"answer".to_vec()))
    );
    assert_eq!(read(&mut pair.near, id, 9), Poll::Ready(Ok(Vec::new())));
    pair.near.release(id);
    assert_eq!((pair.near.streams(), pair.far.streams()), (0, 0));
    assert!(
        pair.near.out().is_empty(),
        "it ended on both sides: no reset"
    );
}

#[test]
fn both_sides_open_streams() {
    let mut pair = Pair::new();
    let forth = pair.stream();
    let back = pair.far.open(b"other").expect("room");
    assert_eq!((forth % 2, back % 2), (1, 0));
    pair.settle();
    let opened = pair.near.arrived().expect("arrived");
    pair.near
        .refuse(opened.id, StatusCode::FORBIDDEN, "not\r\noffered");
    pair.near.release(opened.id);
    pair.settle();
    let no = Answer::No(StatusCode::FORBIDDEN, "notoffered".to_owned());
    assert_eq!(answer(&mut pair.far, back), Poll::Ready(Ok(no)));
    pair.far.release(back);
    assert!(
        pair.far.out().is_empty(),
        "whoever was refused says nothing"
    );
    assert_eq!((pair.near.streams(), pair.far.streams()), (1, 1));
}

#[test]
fn a_stream_sends_what_its_reader_takes() {
    let mut pair = Pair::new();
    let id = pair.stream();
    let window = FIRST_WINDOW as usize;
    assert_eq!(fill(&mut pair, id), window);
    // Less than half is not worth saying.
    let less = window / 2 - 1;
    assert_eq!(
        read(&mut pair.far, id, less).map_ok(|o| o.len()),
        Poll::Ready(Ok(less))
    );
    pair.settle();
    assert_eq!(fill(&mut pair, id), 0);
    assert_eq!(read(&mut pair.far, id, 1), Poll::Ready(Ok(vec![7])));
    pair.settle();
    assert_eq!(fill(&mut pair, id), window / 2);
    // Others are not concerned.
    let other = pair.stream();
    assert_eq!(fill(&mut pair, other), window);
}

#[test]
fn a_reader_that_keeps_up_is_sent_more_at_a_time() {
    let mut pair = Pair::new();
    let id = pair.stream();
    let mut sent = Vec::new();
    for _ in 0..7 {
        let count = fill(&mut pair, id);
        sent.push(count >> 10);
        let all = read(&mut pair.far, id, 2 * count).map_ok(|octets| octets.len());
        assert_eq!(all, Poll::Ready(Ok(count)));
        pair.settle();
    }
    assert_eq!(sent, [64, 128, 256, 512, 1024, 1024, 1024]);
    assert_eq!(LAST_WINDOW, 1 << 20);
}

#[test]
fn all_streams_together_are_bounded_and_go_on_when_one_is_dropped() {
    let mut pair = Pair::new();
    let (mut total, mut ids) = (0, Vec::new());
    while total < CONNECTION_WINDOW as usize {
        let id = pair.stream();
        total += fill(&mut pair, id);
        ids.push(id);
    }
    assert_eq!(total, CONNECTION_WINDOW as usize);
    let last = pair.stream();
    assert_eq!(fill(&mut pair, last), 0);
    // What nobody reads any more is given back.
    for id in &ids {
        pair.far.release(*id);
    }
    pair.settle();
    assert_eq!(fill(&mut pair, last), FIRST_WINDOW as usize);
    assert_eq!(
        write(&mut pair.near, ids[0], b"x"),
        Poll::Ready(Err(ErrorKind::ConnectionReset))
    );
}

#[test]
fn a_thousand_readers_that_stand_still_hold_up_nobody() {
    let mut pair = Pair::new();
    let still: Vec<u32> = (0..1000).map(|_| pair.stream()).collect();
    // Some were fast before.
    for id in still.iter().take(40) {
        for _ in 0..5 {
            let count = fill(&mut pair, *id);
            assert!(read(&mut pair.far, *id, count).is_ready());
            pair.settle();
        }
    }
    for id in &still {
        fill(&mut pair, *id);
    }
    let live = pair.stream();
    let mut moved = 0;
    while moved < CONNECTION_WINDOW as usize {
        let count = fill(&mut pair, live);
        assert!(count > 0, "after {moved}");
        moved += count;
        assert!(read(&mut pair.far, live, count).is_ready());
        pair.settle();
    }
}

#[test]
fn who_leaves_the_queue_makes_room_for_others() {
    let mut pair = Pair::new();
    let full = [(); 8].map(|()| pair.stream());
    let waiting = [(); 40].map(|()| pair.stream());
    let last = pair.stream();
    for id in full {
        while write(&mut pair.near, id, &[1; 100_000]).is_ready() {}
    }
    for id in waiting.iter().chain([&last]) {
        assert!(write(&mut pair.near, *id, b"x").is_pending());
    }
    // Half of those that wait are reset by the other side, and half are dropped here.
    for id in &waiting[..20] {
        pair.far.release(*id);
    }
    carry(&mut pair.far, &mut pair.near);
    for id in &waiting[20..] {
        pair.near.release(*id);
    }
    let sent = pair.near.out().len();
    pair.near.sent(sent);
    assert_eq!(write(&mut pair.near, last, b"x"), Poll::Ready(Ok(1)));
}

#[test]
fn who_can_send_nothing_more_still_hears() {
    let mut pair = Pair::new();
    let id = pair.stream();
    assert_eq!(write(&mut pair.far, id, b"last words"), Poll::Ready(Ok(10)));
    pair.near.mute(ErrorKind::BrokenPipe);
    carry(&mut pair.far, &mut pair.near);
    assert_eq!(
        read(&mut pair.near, id, 99),
        Poll::Ready(Ok(b"last words".to_vec()))
    );
    let broken = Poll::Ready(Err(ErrorKind::BrokenPipe));
    assert_eq!(write(&mut pair.near, id, b"x"), broken);
    pair.near.release(id);
    assert!(pair.near.out().is_empty());
    assert_eq!(pair.near.open(b"head"), None);
}

#[test]
fn writers_wait_while_much_is_unsent() {
    let mut pair = Pair::new();
    let ids = [(); 8].map(|()| pair.stream());
    let mut total = 0;
    for id in ids {
        while let Poll::Ready(Ok(count)) = write(&mut pair.near, id, &[1; 100_000]) {
            total += count;
        }
    }
    assert!(total < 5 * FIRST_WINDOW as usize, "{total}");
    assert!(pair.near.out().len() < total + 100 * HEADER);
    let sent = pair.near.out().len() * 3 / 4;
    pair.near.sent(sent);
    assert!(write(&mut pair.near, ids[7], b"x").is_ready());
}

#[test]
fn who_waits_comes_before_who_has_just_written() {
    let mut pair = Pair::new();
    let greedy = [(); 8].map(|()| pair.stream());
    let modest = pair.stream();
    let all = |pair: &mut Pair| {
        for id in greedy {
            while write(&mut pair.near, id, &[1; 100_000]).is_ready() {}
        }
    };
    // They have written as much as may be unsent, and go on as soon as they may.
    all(&mut pair);
    assert!(write(&mut pair.near, modest, b"x").is_pending());
    for _ in 0..3 {
        let sent = pair.near.out().len();
        pair.near.sent(sent);
        all(&mut pair);
        if write(&mut pair.near, modest, b"x").is_ready() {
            return;
        }
    }
    panic!("it still waits");
}

#[test]
fn a_reset_after_the_end_takes_nothing_back() {
    let mut pair = Pair::new();
    let (whole, torn) = (pair.stream(), pair.stream());
    for id in [whole, torn] {
        assert_eq!(write(&mut pair.near, id, b"said"), Poll::Ready(Ok(4)));
    }
    pair.near.end(whole);
    pair.near.release(whole);
    pair.near.release(torn);
    pair.settle();
    assert_eq!(
        read(&mut pair.far, whole, 9),
        Poll::Ready(Ok(b"said".to_vec()))
    );
    assert_eq!(read(&mut pair.far, whole, 9), Poll::Ready(Ok(Vec::new())));
    assert_eq!(
        write(&mut pair.far, whole, b"x"),
        Poll::Ready(Err(ErrorKind::BrokenPipe))
    );
    assert_eq!(
        read(&mut pair.far, torn, 9),
        Poll::Ready(Err(ErrorKind::ConnectionReset))
    );
    // What is under way to a stream that was dropped is no violation.
    let late = pair.stream();
    assert_eq!(write(&mut pair.near, late, b"late"), Poll::Ready(Ok(4)));
    pair.far.release(late);
    pair.settle();
}

#[test]
fn the_end_of_the_connection_is_every_streams_end() {
    let mut pair = Pair::new();
    let (id, asked) = (pair.stream(), pair.near.open(b"head").expect("room"));
    assert_eq!(write(&mut pair.far, id, b"last"), Poll::Ready(Ok(4)));
    pair.settle();
    pair.near.close(ErrorKind::TimedOut);
    assert_eq!(
        read(&mut pair.near, id, 9),
        Poll::Ready(Ok(b"last".to_vec()))
    );
    let over = Poll::Ready(Err(ErrorKind::TimedOut));
    assert_eq!(read(&mut pair.near, id, 9), over);
    assert_eq!(
        write(&mut pair.near, id, b"x"),
        Poll::Ready(Err(ErrorKind::TimedOut))
    );
    assert_eq!(
        answer(&mut pair.near, asked),
        Poll::Ready(Err(ErrorKind::TimedOut))
    );
    assert_eq!(pair.near.open(b"head"), None);
    pair.near.release(id);
    pair.near.release(asked);
    assert_eq!((pair.near.streams(), pair.near.out().len()), (0, 0));
}

#[test]
fn one_side_opens_so_many_and_no_more() {
    let mut pair = Pair::new();
    for _ in 0..MAX_STREAMS {
        pair.near.open(b"head").expect("room");
    }
    assert_eq!(pair.near.open(b"head"), None);
    pair.settle();
    assert_eq!(pair.far.streams(), MAX_STREAMS);
    // A peer that does not count is told.
    let one_more = u32::try_from(MAX_STREAMS).expect("small") * 2 + 1;
    let mut open = octets(&[(Kind::Open, one_more, b"head")]);
    pair.far.receive(&mut open).expect("no violation");
    assert_eq!(pair.far.streams(), MAX_STREAMS);
    let header = Header::read(pair.far.out()).expect("short").expect("whole");
    assert_eq!((header.kind, header.stream), (Some(Kind::Refuse), one_more));
}

#[test]
fn frames_in_pieces_and_of_later_versions_are_taken() {
    let mut all = octets(&[(Kind::Open, 1, b"head"), (Kind::Data, 1, b"octets")]);
    all.put_slice(&[0, 0, 3, 200, 0, 0, 0, 9, 1, 2, 3]);
    all.put_slice(&octets(&[(Kind::End, 1, b"")]));
    let (mut far, mut held) = (Mux::new(Side::Acceptor), BytesMut::new());
    for octet in all {
        held.put_u8(octet);
        far.receive(&mut held).expect("no violation");
    }
    let opened = Opened {
        id: 1,
        head: "head".into(),
    };
    assert_eq!((far.arrived(), far.arrived()), (Some(opened), None));
    assert_eq!(read(&mut far, 1, 9), Poll::Ready(Ok(b"octets".to_vec())));
    assert_eq!(read(&mut far, 1, 9), Poll::Ready(Ok(Vec::new())));
}

#[test]
fn what_no_peer_does_ends_the_connection() {
    let (long, full) = (vec![0; 9000], vec![0; MAX_PAYLOAD]);
    let over: Vec<_> = std::iter::repeat_n((Kind::Data, 1, &full[..]), 3).collect();
    let open = (Kind::Open, 1, &b"h"[..]);
    let cases: Vec<(Vec<Frame<'_>>, Violation)> = vec![
        (vec![(Kind::Open, 0, b"h")], Violation::Id),
        (vec![(Kind::Open, 2, b"h")], Violation::Id),
        (vec![(Kind::Open, 3, b"h"), open], Violation::Id),
        (vec![open, open], Violation::Id),
        (vec![(Kind::Open, 1, &long)], Violation::Size),
        (vec![(Kind::Data, 1, b"x")], Violation::Id),
        (vec![(Kind::Data, 0, b"x")], Violation::Id),
        (vec![(Kind::End, 2, b"")], Violation::Id),
        (vec![(Kind::Accept, 2, b"")], Violation::Id),
        (vec![(Kind::Refuse, 1, b"\x01\xf4")], Violation::Id),
        (vec![(Kind::Refuse, 2, b"x")], Violation::Size),
        (vec![(Kind::Refuse, 2, b"\0\0")], Violation::Size),
        (vec![(Kind::Credit, 0, b"123")], Violation::Size),
        (
            vec![(Kind::Credit, 0, b"\xff\xff\xff\xff")],
            Violation::Window,
        ),
        (
            vec![open, (Kind::Credit, 1, b"\xff\xff\xff\xff")],
            Violation::Window,
        ),
        (
            vec![open, (Kind::End, 1, b""), (Kind::Data, 1, b"x")],
            Violation::Ended,
        ),
        (
            vec![open, (Kind::Reset, 1, b""), (Kind::Data, 1, b"x")],
            Violation::Ended,
        ),
        ([&[open][..], &over].concat(), Violation::Window),
    ];
    for (frames, violation) in cases {
        let mut far = Mux::new(Side::Acceptor);
        let names: Vec<_> = frames.iter().map(|(kind, id, _)| (kind, id)).collect();
        assert_eq!(
            far.receive(&mut octets(&frames)),
            Err(violation),
            "{names:?}"
        );
    }
    let mut long = BytesMut::from(&[0xff, 0, 0, 3, 0, 0, 0, 1][..]);
    let received = Mux::new(Side::Acceptor).receive(&mut long);
    assert_eq!(received, Err(Violation::TooLong));
}

#[test]
fn who_asks_and_does_not_read_is_cut() {
    let mut far = Mux::new(Side::Acceptor);
    let pings: Vec<_> = std::iter::repeat_n((Kind::Ping, 0, &b""[..]), 1000).collect();
    let cut = (0..1000).find_map(|_| far.receive(&mut octets(&pings)).err());
    assert_eq!(cut, Some(Violation::Unread));
}

#[test]
fn noise_is_no_more_than_a_violation() {
    let mut rng = Rng::new(41);
    let mut ended = 0;
    for _ in 0..2000 {
        let mut far = Mux::new(Side::Acceptor);
        let mut held = BytesMut::new();
        for _ in 0..6 {
            // Likely headers, so that it comes further.
            let kind = u8::try_from(rng.below(10)).expect("small");
            let length = u8::try_from(rng.below(20)).expect("small");
            let id = u8::try_from(rng.below(6)).expect("small");
            held.put_slice(&[0, 0, length, kind, 0, 0, 0, id]);
            held.put_bytes(
                u8::try_from(rng.below(256)).expect("an octet"),
                usize::from(length),
            );
            if far.receive(&mut held).is_err() {
                ended += 1;
                break;
            }
            while let Some(opened) = far.arrived() {
                if opened.id % 4 == 1 {
                    far.accept(opened.id).ok();
                } else {
                    far.release(opened.id);
                }
            }
            let _ = read(&mut far, 1, 4);
            let _ = write(&mut far, 1, b"abc");
        }
    }
    assert!((100..2000).contains(&ended), "{ended}");
}

#[test]
fn on_a_silent_line_what_is_received_goes_on_and_what_waits_is_lost() {
    let mut pair = Pair::new();
    let (download, asked, rested) = (pair.stream(), pair.stream(), pair.stream());
    for id in [download, asked, rested] {
        assert_eq!(write(&mut pair.near, id, b"GET"), Poll::Ready(Ok(3)));
    }
    pair.settle();
    for id in [download, rested] {
        assert_eq!(write(&mut pair.far, id, b"answer"), Poll::Ready(Ok(6)));
    }
    pair.settle();
    for id in [download, rested] {
        assert_eq!(
            read(&mut pair.near, id, 6),
            Poll::Ready(Ok(b"answer".to_vec()))
        );
    }
    let unanswered = pair.near.open(b"head").expect("room");
    pair.near.linger();
    pair.far.linger();
    // Nothing begins, and what was asked for and not answered can be asked for elsewhere.
    assert_eq!(pair.near.open(b"head"), None);
    let reset = Poll::Ready(Err(ErrorKind::ConnectionReset));
    assert_eq!(read(&mut pair.near, asked, 1), reset);
    assert!(matches!(
        answer(&mut pair.near, unanswered),
        Poll::Ready(Err(_))
    ));
    // One at rest is of no use any more.
    assert!(pair.near.check_open(rested).is_err());
    let begun = write(&mut pair.near, rested, b"GET");
    assert_eq!(begun, Poll::Ready(Err(ErrorKind::ConnectionReset)));
    // What was asked for may be answered all the same.
    assert_eq!(write(&mut pair.far, asked, b"late"), Poll::Ready(Ok(4)));
    // The other side goes on with what it was asked for.
    assert_eq!(write(&mut pair.far, download, b"more"), Poll::Ready(Ok(4)));
    assert!(pair.far.check_open(download).is_ok());
    pair.settle();
    assert_eq!(
        read(&mut pair.near, download, 4),
        Poll::Ready(Ok(b"more".to_vec()))
    );
}
