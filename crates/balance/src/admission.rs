//! How much of what it would get a loaded site is given.

use std::time::Duration;

use base::Instant;

/// A share of all requests, in thousandths.
pub const WHOLE: u16 = 1000;

/// No site gets less than this, in thousandths: of what comes nowhere nothing is learnt.
const LEAST: u16 = 10;
/// From this load upward it is given less …
const HIGH: u16 = part(15);
/// … and below this one more; in between it stays as it is.
const LOW: u16 = part(11);
/// An eighth less at a time, a sixteenth more: with all that passes between a step and what is
/// heard of it (it is smoothed, and said every five seconds at most), neither leads across the
/// whole gap between the two marks.
const LESS: u16 = 8;
const MORE: u16 = 16;
/// A quarter less where nobody knows how much more it is than can be taken well: as long as it is,
/// requests wait there, and have to be answered before anything is better.
const FULL: u16 = part(16);
const MUCH_LESS: u16 = 4;
/// Half as much more again where hardly anything is in use.
const IDLE: u16 = part(4);
const MUCH_MORE: u16 = 2;
/// From one step to the next.
const STEP: Duration = Duration::from_secs(5);

const fn part(sixteenths: u16) -> u16 {
    sixteenths * (u16::MAX / 16)
}

/// What one ingress gives one site of one service, by what the site says of its load. Every ingress
/// hears the same and does the same, so that all of them give way together.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    share: u16,
    /// None: what was said was said too long ago.
    load: Option<u16>,
    heard: Instant,
    stepped: Option<Instant>,
}

impl Admission {
    /// A load that keeps requests away counts so long, and is to be said again before. (Of one that
    /// does not, nobody cares how old it is.)
    pub const EXPIRY: Duration = Duration::from_secs(60);

    /// The site says for the first time how loaded it is, in 1/65535 of its capacity. It is given
    /// all that it would get.
    #[must_use]
    pub const fn new(now: Instant, load: u16) -> Self {
        Admission {
            share: WHOLE,
            load: Some(load),
            heard: now,
            stepped: None,
        }
    }

    /// Does a load, in 1/65535, keep requests away, so that it has to be said again?
    #[must_use]
    pub const fn is_kept(load: u16) -> bool {
        load >= LOW
    }

    /// What it is given, in thousandths of what it would get: 10 to [`WHOLE`].
    #[must_use]
    pub const fn share(&self) -> u16 {
        self.share
    }

    /// How loaded it is, in 1/65535 of its capacity; `None`: that was said too long ago.
    #[must_use]
    pub const fn load(&self) -> Option<u16> {
        self.load
    }

    /// It says how loaded it is now.
    pub const fn hear(&mut self, now: Instant, load: u16) {
        self.load = Some(load);
        self.heard = now;
    }

    /// Do what is due; true if the share is another now.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.expiry().is_some_and(|at| at <= now) {
            self.load = None;
        }
        if self.step().is_none_or(|at| at > now) {
            return false;
        }
        self.share = self.next();
        self.stepped = Some(now);
        true
    }

    /// When [`Admission::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.step().into_iter().chain(self.expiry()).min()
    }

    fn step(&self) -> Option<Instant> {
        let pause = self.stepped.map_or(self.heard, |last| last + STEP);
        let at = pause.max(self.heard);
        (self.next() != self.share).then_some(at)
    }

    fn expiry(&self) -> Option<Instant> {
        let kept = self.load.is_some_and(Admission::is_kept);
        kept.then(|| self.heard + Admission::EXPIRY)
    }

    /// The share after one step. Where nobody knows the load nothing is kept away because of it.
    fn next(&self) -> u16 {
        let more = |part: u16| (self.share + (self.share / part).max(1)).min(WHOLE);
        match self.load {
            Some(FULL..) => (self.share - self.share / MUCH_LESS).max(LEAST),
            Some(HIGH..) => (self.share - self.share / LESS).max(LEAST),
            Some(LOW..) => self.share,
            Some(IDLE..) | None => more(MORE),
            Some(_) => more(MUCH_MORE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    /// The share after each step that is due until then.
    fn run(admission: &mut Admission, until: Instant) -> Vec<(u64, u16)> {
        let mut steps = Vec::new();
        while let Some(next) = admission.poll_timeout().filter(|next| *next <= until) {
            if admission.handle_timeout(next) {
                steps.push((next.as_nanos() / 1_000_000_000, admission.share()));
            }
        }
        steps
    }

    #[test]
    fn it_gives_way_stays_and_comes_back() {
        let mut admission = Admission::new(at(0), part(8));
        assert_eq!(
            admission.poll_timeout(),
            None,
            "nothing is due while all is well"
        );
        admission.hear(at(7), part(15) + 1);
        let less = run(&mut admission, at(18));
        assert_eq!(
            less,
            [(7, 875), (12, 766), (17, 671)],
            "and no word more is needed"
        );
        for sixteenths in [14, 11] {
            admission.hear(at(20), part(sixteenths));
            assert_eq!(run(&mut admission, at(60)), []);
        }
        admission.hear(at(61), part(10));
        let more = run(&mut admission, at(200));
        assert_eq!(more[..3], [(61, 712), (66, 756), (71, 803)]);
        assert_eq!(more.last(), Some(&(91, 1000)));
        assert_eq!(admission.poll_timeout(), None);
    }

    #[test]
    fn who_is_full_is_given_much_less() {
        let mut admission = Admission::new(at(0), u16::MAX);
        assert_eq!(run(&mut admission, at(9)), [(0, 750), (5, 563)]);
    }

    #[test]
    fn where_nothing_is_in_use_it_comes_back_sooner() {
        let mut admission = Admission::new(at(0), part(15));
        run(&mut admission, at(59));
        assert_eq!(admission.share(), 204);
        admission.hear(at(60), part(3));
        let more = run(&mut admission, at(200));
        assert_eq!(more, [(60, 306), (65, 459), (70, 688), (75, 1000)]);
    }

    #[test]
    fn it_never_comes_to_nothing() {
        let mut admission = Admission::new(at(0), u16::MAX);
        for s in 0..60 {
            admission.hear(at(s * 5), u16::MAX);
            run(&mut admission, at(s * 5));
        }
        assert_eq!(admission.share(), LEAST);
        admission.hear(at(300), 0);
        assert!(run(&mut admission, at(400)).len() < 14);
        assert_eq!(admission.share(), WHOLE);
    }

    #[test]
    fn what_keeps_requests_away_is_forgotten_when_nobody_says_it_any_more() {
        for (sixteenths, least) in [(15, 204), (11, 1000)] {
            let mut admission = Admission::new(at(0), part(sixteenths));
            run(&mut admission, at(59));
            assert_eq!(
                (admission.share(), admission.load()),
                (least, Some(part(sixteenths)))
            );
            run(&mut admission, at(59) + 3 * Admission::EXPIRY);
            assert_eq!((admission.share(), admission.load()), (WHOLE, None));
            assert_eq!(admission.poll_timeout(), None);
        }
    }
}
