use super::*;

const ACME: TenantId = TenantId(1);
const BLUE: TenantId = TenantId(2);
const HALF: Duration = Duration::from_micros(50);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

/// Turns of a worker where both tenants have asked for something.
fn shared() -> Turns {
    let turns = Turns::default();
    for tenant in [ACME, BLUE] {
        assert!(turns.enter((tenant, Line(0)), at(0)).is_none());
    }
    turns
}

/// How many of them may go on.
fn may(places: &[Rc<Place>]) -> usize {
    places.iter().filter(|place| place.may.get()).count()
}

#[test]
fn a_tenant_alone_is_not_looked_at() {
    let turns = Turns::default();
    assert!(turns.enter((BLUE, Line(0)), at(0)).is_none());
    assert_eq!(turns.alone.get(), Some(BLUE));
    turns.used(BLUE, MOST);
    turns.next(at(0));
    assert!(turns.enter((BLUE, Line(0)), at(0)).is_none());
    assert_eq!(turns.alone.get(), Some(BLUE));
    assert!(turns.enter((ACME, Line(0)), at(0)).is_none());
    assert_eq!(turns.alone.get(), None);
}

#[test]
fn who_has_used_up_a_turn_waits_and_the_other_does_not() {
    let turns = shared();
    turns.used(BLUE, HALF);
    assert!(turns.enter((BLUE, Line(0)), at(0)).is_none());
    assert!(!turns.spent.get(), "there is time left");
    turns.used(BLUE, HALF);
    let places: Vec<_> = (0..5)
        .filter_map(|_| turns.enter((BLUE, Line(0)), at(0)))
        .collect();
    assert_eq!((places.len(), may(&places)), (5, 0));
    assert!(turns.enter((ACME, Line(0)), at(0)).is_none());
    assert!(turns.spent.get(), "another turn is due");
    // One after the other, as long as there is time, and in order.
    turns.next(at(0));
    assert_eq!(may(&places), 1);
    turns.used(BLUE, HALF);
    assert_eq!(may(&places), 2);
    turns.used(BLUE, HALF);
    assert_eq!(may(&places), 2);
    assert!(places[0].may.get() && places[1].may.get());
    // Who comes now stands behind them.
    let last = turns.enter((BLUE, Line(0)), at(0)).expect("a place");
    turns.next(at(0));
    turns.used(BLUE, HALF / 2);
    assert_eq!((may(&places), last.may.get()), (4, false));
    turns.next(at(0));
    assert_eq!((may(&places), last.may.get()), (5, false));
    turns.used(BLUE, HALF / 2);
    assert!(last.may.get());
}

#[test]
fn the_clients_of_a_tenant_are_served_one_after_the_other() {
    let turns = shared();
    turns.used(BLUE, QUANTUM);
    let lines = [3, 3, 3, 7, 7, 200].map(Line);
    let enter = |line| turns.enter((BLUE, line), at(0)).expect("a place");
    let places = lines.map(enter);
    let mut served = Vec::new();
    for _ in 0..3 {
        turns.next(at(0));
        turns.used(BLUE, HALF);
        turns.used(BLUE, HALF);
        let new = (0..6).filter(|at| places[*at].may.get());
        let new: Vec<_> = new.filter(|at| !served.contains(at)).collect();
        served.extend(new);
    }
    assert_eq!(served, [0, 3, 1, 5, 2, 4], "3 and 7, 200 and 3, 7 and 3");
}

#[test]
fn networks_stand_in_one_line() {
    let line = |text: &str| Line::of(text.parse().expect(text));
    assert_eq!(line("2001:db8:1:2::1"), line("2001:db8:1:2:ffff::9"));
    assert_ne!(line("2001:db8:1:2::1"), line("2001:db8:1:3::1"));
    assert_eq!(line("192.0.2.1"), line("::ffff:192.0.2.1"));
    assert_ne!(line("192.0.2.1"), line("192.0.2.2"));
}

#[test]
fn what_was_used_beyond_is_missing_from_the_next_turns() {
    let turns = shared();
    turns.used(BLUE, QUANTUM * 3 + HALF);
    let place = turns.enter((BLUE, Line(0)), at(0)).expect("a place");
    for _ in 0..2 {
        turns.next(at(0));
        assert!(!place.may.get() && turns.spent.get());
    }
    turns.next(at(0));
    assert!(place.may.get() && !turns.spent.get());
    // Half a turn is left of this one.
    turns.used(BLUE, HALF);
    assert!(turns.enter((BLUE, Line(0)), at(0)).is_some());
}

#[test]
fn time_that_others_took_is_not_charged() {
    let turns = shared();
    turns.used(BLUE, Duration::from_secs(1));
    let place = turns.enter((BLUE, Line(0)), at(0)).expect("a place");
    let turn = |_: &u32| {
        turns.next(at(0));
        place.may.get()
    };
    assert_eq!((1..10).find(turn), Some(5), "as many turns as a handshake");
}

#[test]
fn a_connection_that_ends_while_it_waits_holds_nobody_up() {
    let turns = shared();
    turns.used(BLUE, QUANTUM);
    let gone = turns.enter((BLUE, Line(0)), at(0));
    let place = turns.enter((BLUE, Line(0)), at(0)).expect("a place");
    drop(gone);
    turns.next(at(0));
    assert!(!place.may.get() && turns.spent.get());
    turns.next(at(0));
    assert!(place.may.get());
}

#[test]
fn whoever_has_left_is_forgotten() {
    let turns = shared();
    let mut now = at(900);
    assert!(turns.enter((BLUE, Line(0)), now).is_none());
    turns.used(BLUE, MOST);
    let place = turns.enter((BLUE, Line(0)), now).expect("a place");
    turns.next(now);
    assert!(!place.may.get());
    now = at(1001);
    turns.next(now);
    assert!(place.may.get());
    assert_eq!(turns.alone.get(), Some(BLUE));
    assert!(!turns.spent.get());
    // And by whoever comes new.
    let turns = Turns::default();
    assert!(turns.enter((ACME, Line(0)), at(0)).is_none());
    assert!(turns.enter((BLUE, Line(0)), at(1000)).is_none());
    assert_eq!(turns.alone.get(), Some(BLUE));
}

#[test]
fn in_the_end_nobody_waits() {
    let turns = shared();
    turns.used(BLUE, MOST);
    let places: Vec<_> = (0..5)
        .filter_map(|_| turns.enter((BLUE, Line(0)), at(0)))
        .collect();
    turns.end();
    assert_eq!(may(&places), 5);
    assert!(turns.enter((BLUE, Line(0)), at(0)).is_none());
}

#[test]
fn a_long_poll_is_over_after_a_turn() {
    let turns = Turns::default();
    let cx = &Context::from_waker(Waker::noop());
    assert!(turns.poll_short(cx).is_ready(), "nobody else is there");
    turns
        .until
        .set(Some(runtime::now() + Duration::from_secs(60)));
    assert!(turns.poll_short(cx).is_ready());
    turns.until.set(Some(runtime::now()));
    assert!(turns.poll_short(cx).is_pending());
}
