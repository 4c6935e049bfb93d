//! Two machines on a virtual clock over a link that loses packets, and one machine alone.

use std::{
    collections::VecDeque,
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

use base::{Instant, Rng};

use super::*;

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn config(discriminator: u32) -> Config {
    let discriminator = NonZeroU32::new(discriminator).expect("not 0");
    Config::new(discriminator, discriminator.get().into())
}

fn timers(tx_ms: u64, rx_ms: u64, multiplier: u8) -> Timers {
    Timers {
        desired_min_tx: ms(tx_ms),
        required_min_rx: ms(rx_ms),
        detect_multiplier: NonZeroU8::new(multiplier).expect("not 0"),
    }
}

/// Two sessions and what is between them.
struct Link {
    now: Instant,
    ends: [Session; 2],
    flying: VecDeque<(Instant, usize, [u8; 24])>,
    delay: Duration,
    /// Per cent of packets toward each end that are lost.
    loss: [u64; 2],
    rng: Rng,
    events: Vec<(Instant, usize, Event)>,
    /// When each end sent what.
    sent: [Vec<(Instant, Packet)>; 2],
}

impl Link {
    fn new(configs: [Config; 2]) -> Self {
        Link {
            now: at(0),
            ends: configs.map(|config| Session::new(config, at(0))),
            flying: VecDeque::new(),
            delay: ms(5),
            loss: [0, 0],
            rng: Rng::new(7),
            events: vec![],
            sent: [vec![], vec![]],
        }
    }

    /// A link that has been up for a while, its record empty.
    fn up(configs: [Config; 2]) -> Self {
        let mut link = Self::new(configs);
        link.run(ms(10_000));
        let states = link.ends.each_ref().map(Session::state);
        assert_eq!(states, [State::Up; 2]);
        link.forget();
        link
    }

    fn forget(&mut self) {
        self.events.clear();
        self.sent = [vec![], vec![]];
    }

    fn flush(&mut self) {
        for end in 0..2 {
            while let Some(octets) = self.ends[end].poll_transmit() {
                let packet = Packet::decode(&octets).expect("we say what we understand");
                assert!(!(packet.poll && packet.final_));
                self.sent[end].push((self.now, packet));
                let lost = self.rng.chance(self.loss[1 - end], 100);
                if !lost {
                    let arrival = self.now + self.delay;
                    self.flying.push_back((arrival, 1 - end, octets));
                }
            }
            while let Some(event) = self.ends[end].poll_event() {
                self.events.push((self.now, end, event));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let stop = self.now + time;
        loop {
            self.flush();
            let arrival = self.flying.front().map(|(at, ..)| *at);
            let next = self
                .ends
                .iter()
                .filter_map(Session::poll_timeout)
                .chain(arrival)
                .min();
            let Some(next) = next.filter(|next| *next <= stop) else {
                self.now = stop;
                return;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, end, octets) = self.flying.pop_front().expect("just seen");
                self.ends[end].handle_packet(self.now, &octets);
                continue;
            }
            for end in &mut self.ends {
                if end.poll_timeout().is_some_and(|at| at <= self.now) {
                    end.handle_timeout(self.now);
                }
            }
        }
    }

    fn counters(&self) -> [Counters; 2] {
        self.ends.each_ref().map(Session::counters)
    }
}

#[test]
fn packets_survive_the_wire_and_rules_are_kept() {
    let packet = Packet {
        diagnostic: Diagnostic::PathDown,
        state: State::Up,
        poll: true,
        control_plane_independent: true,
        demand: true,
        detect_multiplier: 3,
        my_discriminator: 0x0102_0304,
        your_discriminator: 5,
        desired_min_tx: 300_000,
        required_min_rx: 200_000,
        required_min_echo_rx: 1,
        ..Packet::default()
    };
    let good = packet.encode();
    assert_eq!(good[..8], [0x25, 0xEA, 3, 24, 1, 2, 3, 4]);
    assert_eq!(Packet::decode(&good), Ok(packet));
    assert_eq!(Packet::decode(&[&good[..], &[9; 9]].concat()), Ok(packet));
    let with = |at: usize, octet: u8| {
        let mut octets = good;
        octets[at] = octet;
        Packet::decode(&octets)
    };
    assert_eq!(Packet::decode(&good[..23]), Err(PacketError::Short(23)));
    assert_eq!(with(0, 0x05), Err(PacketError::Version(0)));
    assert_eq!(with(1, 0xC1), Err(PacketError::Multipoint));
    assert_eq!(with(1, 0xC4), Err(PacketError::Length(24)));
    assert_eq!(with(2, 0), Err(PacketError::Multiplier));
    assert_eq!(with(3, 23), Err(PacketError::Length(23)));
    assert_eq!(with(3, 25), Err(PacketError::Short(24)));
    assert_eq!(with(11, 0), Err(PacketError::Unaddressed(State::Up)));
    let anonymous = Packet {
        my_discriminator: 0,
        ..packet
    };
    let refused = Packet::decode(&anonymous.encode());
    assert_eq!(refused, Err(PacketError::Anonymous));
    for code in 0..32 {
        assert_eq!(Diagnostic::from_code(code).code(), code);
    }
}

#[test]
fn three_packets_bring_it_up_and_then_it_is_fast() {
    let mut link = Link::new([config(1), config(2)]);
    link.run(ms(100));
    // Both begin, so each is in Init after 5 ms and hears the other's Init after 10 ms.
    let up = [(at(10), 0, Event::Up), (at(10), 1, Event::Up)];
    assert_eq!(link.events, up);
    link.run(ms(10_000));
    for end in &link.ends {
        assert_eq!(end.transmit_interval(), ms(300));
        assert_eq!(end.detection_time(), ms(900));
        assert_eq!(
            (end.diagnostic(), end.remote().0),
            (Diagnostic::None, State::Up)
        );
    }
    // Every poll got its answer and ended.
    for sent in &link.sent {
        assert!(sent.iter().any(|(_, packet)| packet.final_));
        assert!(sent.iter().skip(8).all(|(_, packet)| !packet.poll));
    }
    assert_eq!(
        link.counters().map(|c| (c.stalls, c.malformed)),
        [(0, 0); 2]
    );
}

#[test]
fn until_it_is_up_one_packet_a_second_at_most() {
    let mut link = Link::new([config(1), config(2)]);
    link.loss = [100, 100];
    link.run(ms(30_000));
    for sent in &link.sent {
        assert!((30..=41).contains(&sent.len()), "{}", sent.len());
        assert!(
            sent.iter()
                .all(|(_, packet)| packet.desired_min_tx == 1_000_000)
        );
    }
    assert_eq!(link.events, []);
}

#[test]
fn a_passive_side_waits_for_the_other() {
    let passive = |discriminator| Config {
        role: Role::Passive,
        ..config(discriminator)
    };
    let mut link = Link::new([passive(1), passive(2)]);
    link.run(ms(60_000));
    assert_eq!(link.sent, [vec![], vec![]]);
    assert_eq!(link.ends[0].poll_timeout(), None);
    let mut link = Link::up([passive(1), config(2)]);
    link.run(ms(1000));
    assert_eq!(link.events, []);
}

#[test]
fn silence_is_noticed_at_the_detection_time() {
    for (mine, theirs, detection) in [
        (timers(300, 300, 3), timers(300, 300, 3), 900),
        (timers(300, 100, 3), timers(100, 300, 5), 500),
        (timers(300, 1000, 3), timers(100, 300, 2), 2000),
        (timers(300, 10, 3), timers(50, 300, 1), 50),
    ] {
        let mut link = Link::up([
            Config {
                timers: mine,
                ..config(1)
            },
            Config {
                timers: theirs,
                ..config(2)
            },
        ]);
        assert_eq!(link.ends[0].detection_time(), ms(detection));
        link.flying.clear();
        let last = link.now;
        link.loss = [100, 0];
        link.run(ms(10_000));
        let (when, _, event) = link
            .events
            .iter()
            .find(|(_, end, _)| *end == 0)
            .expect("noticed");
        let took = when.since(last);
        assert!(
            took <= ms(detection) && took >= ms(detection / 4),
            "{took:?}"
        );
        let expired = Event::Down {
            diagnostic: Diagnostic::DetectionTimeExpired,
            remote: Diagnostic::None,
        };
        assert_eq!(*event, expired);
        // The other end hears it in the next packet.
        let (heard, _, event) = link
            .events
            .iter()
            .find(|(_, end, _)| *end == 1)
            .expect("told");
        assert_eq!(heard.since(*when), link.delay);
        let signalled = Event::Down {
            diagnostic: Diagnostic::NeighborSignaledDown,
            remote: Diagnostic::DetectionTimeExpired,
        };
        assert_eq!(*event, signalled);
        assert_eq!(link.counters()[0].expired, 1);
        // One direction alone never comes up again; both do.
        assert!(link.events.iter().all(|(_, _, event)| *event != Event::Up));
        link.loss = [0, 0];
        link.run(ms(10_000));
        assert!(link.ends.iter().all(|end| end.state() == State::Up));
    }
}

#[test]
fn some_loss_is_survived() {
    let slack = |discriminator| Config {
        timers: timers(300, 300, 10),
        ..config(discriminator)
    };
    let mut link = Link::up([slack(1), slack(2)]);
    link.loss = [20, 20];
    link.run(ms(600_000));
    assert_eq!(link.events, []);
}

#[test]
fn intervals_are_jittered_within_bounds() {
    for (multiplier, most) in [(3, 300), (1, 270)] {
        let jittery = |discriminator| Config {
            timers: timers(300, 300, multiplier),
            ..config(discriminator)
        };
        let mut link = Link::up([jittery(1), jittery(2)]);
        link.run(ms(300_000));
        assert_eq!(link.events, []);
        let gaps: Vec<_> = link.sent[0]
            .windows(2)
            .map(|w| w[1].0.since(w[0].0))
            .collect();
        let (least, longest) = (gaps.iter().min(), gaps.iter().max());
        assert!(gaps.len() > 1000);
        assert!(
            least.is_some_and(|gap| *gap >= ms(225) && *gap < ms(230)),
            "{least:?}"
        );
        let bounds = ms(most - 5)..=ms(most);
        assert!(
            longest.is_some_and(|gap| bounds.contains(gap)),
            "{longest:?}"
        );
    }
}

#[test]
fn slower_sending_waits_for_the_neighbours_final() {
    let mut link = Link::up([config(1), config(2)]);
    // No final comes back: the old interval goes on, with P.
    link.loss = [100, 0];
    let now = link.now;
    link.ends[0].set_timers(now, timers(2000, 300, 3));
    link.run(ms(600));
    assert_eq!(link.ends[0].transmit_interval(), ms(300));
    assert!(link.sent[0].len() >= 3);
    assert!(
        link.sent[0]
            .iter()
            .all(|(_, packet)| packet.poll && packet.desired_min_tx == 2_000_000)
    );
    // The neighbour waits by the new interval at once.
    assert_eq!(link.ends[1].detection_time(), ms(6000));
    link.loss = [0, 0];
    link.run(ms(310));
    assert_eq!(link.ends[0].transmit_interval(), ms(2000));
    // Faster holds at once.
    let now = link.now;
    link.ends[0].set_timers(now, timers(100, 300, 3));
    assert_eq!(link.ends[0].transmit_interval(), ms(300), "their limit");
    link.ends[1].set_timers(now, timers(300, 100, 3));
    link.run(ms(1000));
    assert_eq!(link.ends[0].transmit_interval(), ms(100));
    assert_eq!(link.ends[1].detection_time(), ms(300));
    assert_eq!(link.events, []);
}

#[test]
fn faster_receiving_waits_for_the_neighbours_final() {
    let slow = Config {
        timers: timers(100, 1000, 3),
        ..config(1)
    };
    let eager = Config {
        timers: timers(100, 100, 3),
        ..config(2)
    };
    let mut link = Link::up([slow, eager]);
    assert_eq!(link.ends[0].detection_time(), ms(3000));
    let now = link.now;
    link.loss = [100, 0];
    link.ends[0].set_timers(now, timers(100, 100, 3));
    link.run(ms(500));
    assert_eq!(
        link.ends[0].detection_time(),
        ms(3000),
        "the old one until they know"
    );
    link.loss = [0, 0];
    link.run(ms(1000));
    assert_eq!(link.ends[0].detection_time(), ms(300));
    assert_eq!(link.ends[1].transmit_interval(), ms(100));
    // Two changes, the second while the first is polled: both are confirmed in the end.
    let now = link.now;
    link.ends[0].set_timers(now, timers(200, 100, 3));
    link.run(ms(1));
    let now = link.now;
    link.ends[0].set_timers(now, timers(400, 100, 3));
    link.run(ms(2000));
    assert_eq!(link.ends[0].transmit_interval(), ms(400));
    link.forget();
    link.run(ms(2000));
    assert!(link.sent[0].iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn an_administrator_is_not_a_failure() {
    let mut link = Link::up([config(1), config(2)]);
    let now = link.now;
    link.ends[0].disable(now);
    link.run(ms(60_000));
    assert_eq!(link.events, [(now + ms(5), 1, Event::PeerDisabled)]);
    assert_eq!(link.ends[1].state(), State::Down);
    let seen = (State::AdminDown, Diagnostic::AdministrativelyDown);
    assert_eq!(link.ends[1].remote(), seen);
    assert_eq!(link.ends[1].diagnostic(), Diagnostic::NeighborSignaledDown);
    // It is said for a detection time, then nothing but what polls demand.
    let said = link.sent[0].iter().filter(|(_, packet)| !packet.final_);
    let (last, count) = (said.clone().next_back().expect("said").0, said.count());
    assert!((3..=6).contains(&count), "{count}");
    assert!(last.since(now) <= ms(3000));
    assert_eq!(link.ends[0].poll_timeout(), None);
    assert!(link.counters()[0].disabled > 50);
    link.events.clear();
    let now = link.now;
    link.ends[0].enable(now);
    link.run(ms(10_000));
    assert_eq!(link.events.len(), 2);
    assert!(link.events.iter().all(|(_, _, event)| *event == Event::Up));
}

#[test]
fn a_restarted_neighbour_is_noticed_at_once() {
    let mut link = Link::up([config(1), config(2)]);
    link.ends[1] = Session::new(config(77), link.now);
    let now = link.now;
    link.run(ms(2000));
    let down = Event::Down {
        diagnostic: Diagnostic::NeighborSignaledDown,
        remote: Diagnostic::None,
    };
    assert_eq!(link.events[0], (now + ms(5), 0, down));
    assert!(link.ends.iter().all(|end| end.state() == State::Up));
    // What was still sent to the old discriminator.
    assert!(link.counters()[1].unknown_discriminator <= 3);
}

#[test]
fn our_own_stall_is_not_the_neighbours_death() {
    let mut link = Link::up([config(1), config(2)]);
    let end = &mut link.ends[0];
    let planned = end.poll_timeout().expect("a plan");
    // Ten seconds late, and the timer is looked at before the socket.
    let woke = planned + ms(10_000);
    end.handle_timeout(woke);
    assert_eq!((end.state(), end.counters().stalls), (State::Up, 1));
    // The deadline is late by those ten seconds, not more: silence from now on is noticed.
    let mut death = woke;
    while end.state() == State::Up {
        death = end.poll_timeout().expect("a plan");
        end.handle_timeout(death);
    }
    let waited = death.since(woke);
    assert!(waited >= ms(300) && waited <= ms(900), "{waited:?}");
    assert_eq!(end.counters().stalls, 1);
}

#[test]
fn a_packet_read_before_the_late_timer_gives_no_second_pardon() {
    let mut link = Link::up([config(1), config(2)]);
    link.run(ms(300));
    let octets = link.sent[1].last().expect("sent").1.encode();
    let end = &mut link.ends[0];
    let woke = end.poll_timeout().expect("a plan") + ms(10_000);
    end.handle_packet(woke, &octets);
    end.handle_timeout(woke);
    assert_eq!(end.counters().stalls, 1);
    let mut death = woke;
    while end.state() == State::Up {
        death = end.poll_timeout().expect("a plan");
        end.handle_timeout(death);
    }
    assert_eq!(death.since(woke), ms(900));
}

#[test]
fn small_lateness_moves_nothing() {
    let mut link = Link::up([config(1), config(2)]);
    link.run(ms(700));
    let end = &mut link.ends[0];
    let start = link.now;
    let mut now = start;
    while end.state() == State::Up {
        now = end.poll_timeout().expect("a plan") + ms(20);
        end.handle_timeout(now);
    }
    assert!(now.since(start) <= ms(920));
    assert_eq!(end.counters().stalls, 0);
}

/// A session that is up with a neighbour played by hand.
fn up_alone() -> (Session, Packet) {
    let mut session = Session::new(config(1), at(0));
    let mut packet = Packet {
        state: State::Init,
        detect_multiplier: 3,
        my_discriminator: 9,
        your_discriminator: 1,
        desired_min_tx: 300_000,
        required_min_rx: 300_000,
        ..Packet::default()
    };
    session.handle_packet(at(0), &packet.encode());
    assert_eq!(session.poll_event(), Some(Event::Up));
    packet.state = State::Up;
    packet.final_ = true;
    session.handle_packet(at(1), &packet.encode());
    packet.final_ = false;
    while session.poll_transmit().is_some() {}
    (session, packet)
}

#[test]
fn a_poll_is_answered_at_once() {
    let (mut session, packet) = up_alone();
    let poll = Packet {
        poll: true,
        ..packet
    };
    session.handle_packet(at(10), &poll.encode());
    let answer = session.poll_transmit().expect("an answer");
    let answer = Packet::decode(&answer).expect("good");
    assert!(answer.final_ && !answer.poll);
    assert_eq!(session.poll_transmit(), None);
}

#[test]
fn who_wants_no_packets_gets_none() {
    for quiet in [
        |packet: &mut Packet| packet.demand = true,
        |packet: &mut Packet| packet.required_min_rx = 0,
    ] {
        let (mut session, mut packet) = up_alone();
        quiet(&mut packet);
        for n in 1..100 {
            session.handle_packet(at(n * 200), &packet.encode());
            while session
                .poll_timeout()
                .is_some_and(|next| next <= at(n * 200 + 199))
            {
                let next = session.poll_timeout().expect("just seen");
                session.handle_timeout(next);
            }
            assert_eq!(session.poll_transmit(), None);
        }
        // And once it wants them again, they come, without a stall being seen.
        (packet.demand, packet.required_min_rx) = (false, 300_000);
        session.handle_packet(at(20_000), &packet.encode());
        let next = session.poll_timeout().expect("a plan");
        assert!(next.since(at(20_000)) <= ms(300));
        session.handle_timeout(next);
        assert!(session.poll_transmit().is_some());
        assert_eq!((session.state(), session.counters().stalls), (State::Up, 0));
    }
}

#[test]
fn what_is_not_for_us_changes_nothing() {
    let (mut session, packet) = up_alone();
    let before = session.counters();
    let down = Packet {
        state: State::Down,
        ..packet
    };
    let foreign = Packet {
        your_discriminator: 2,
        ..down
    };
    session.handle_packet(at(2), &foreign.encode());
    let mut signed = [&down.encode()[..], &[1; 8]].concat();
    signed[1] |= 0x04;
    signed[3] = 32;
    session.handle_packet(at(2), &signed);
    session.handle_packet(at(2), &[]);
    assert_eq!(session.state(), State::Up);
    let expected = Counters {
        unknown_discriminator: 1,
        authenticated: 1,
        malformed: 1,
        ..before
    };
    assert_eq!(session.counters(), expected);
}

#[test]
fn foreign_octets_never_panic_and_nothing_grows() {
    let mut rng = Rng::new(11);
    let (mut session, packet) = up_alone();
    let mut now = at(0);
    for _ in 0..200_000 {
        let mut octets = Packet {
            state: [State::AdminDown, State::Down, State::Init, State::Up]
                [usize::try_from(rng.below(4)).expect("small")],
            ..packet
        }
        .encode();
        for _ in 0..rng.below(4) {
            let place = usize::try_from(rng.below(24)).expect("small");
            octets[place] = rng.next_u64().to_le_bytes()[0];
        }
        now = now + Duration::from_micros(rng.below(2_000_000));
        session.handle_packet(now, &octets);
        if session.poll_timeout().is_some_and(|next| next <= now) {
            session.handle_timeout(now);
        }
        if rng.chance(1, 3) {
            let mut packets = 0;
            while session.poll_transmit().is_some() {
                packets += 1;
            }
            assert!(packets <= 2);
        }
    }
    assert!(session.counters().lost_events > 0);
    assert!(std::iter::from_fn(|| session.poll_event()).count() <= 16);
}
