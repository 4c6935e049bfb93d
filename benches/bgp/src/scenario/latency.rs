//! How late one change is, alone and beside many others.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bench_kit::clock::{Deadline, now};

use super::{Cast, Figures, Setting, Stage, wait};
use crate::{
    counter::Sight,
    session::Session,
    wire::{self, Family, Origin},
};

/// Changes of the one route.
const CHANGES: u32 = 1_000;

/// Between two changes, so that the daemon is at rest.
const GAP: Duration = Duration::from_millis(2);

/// Routes of the background, each changed again and again.
const BACKGROUND: u32 = 50_000;

/// Changes of background routes a second; five in one UPDATE.
const RATE: u32 = 50_000;

/// How long the background lasts.
const SECONDS: u32 = 5;

/// The longest a single change may take.
const LOST: Duration = Duration::from_secs(10);

/// The first session changes route 0, the second sees it, the third is the background.
pub(super) fn latency(setting: &Setting<'_>) -> Result<Figures> {
    let background = setting.routes(BACKGROUND);
    let cast = Cast {
        family: Family::Ipv4,
        sessions: 3,
        routes: 5 + background,
        each: 0,
        watched: Some(0),
    };
    let mut stage = Stage::set(setting, &cast)?;
    let (source, sink) = ((&stage.sessions[0], stage.origins[0]), &stage.sessions[1]);
    let idle = flap(source, sink, Family::Ipv4, || false)?;
    let table = wire::announce(stage.origins[2], Family::Ipv4, 5..5 + background, 0);
    stage.measure(|stage| {
        stage.sessions[1].expect(background);
        let start = stage.sessions[2].send(&table)?;
        Ok((start, wait(&stage.sessions[1..2], setting.deadline())?))
    })?;
    let over = AtomicBool::new(false);
    let (busy, rate) = thread::scope(|scope| {
        let pace = scope.spawn(|| {
            let rate = pace(
                &stage.sessions[2],
                stage.origins[2],
                background,
                (Family::Ipv4, RATE),
            );
            over.store(true, Ordering::Relaxed);
            rate
        });
        let (source, sink) = ((&stage.sessions[0], stage.origins[0]), &stage.sessions[1]);
        let busy = flap(source, sink, Family::Ipv4, || over.load(Ordering::Relaxed));
        let rate = pace.join().expect("the background does not panic");
        busy.and_then(|busy| Ok((busy, rate?)))
    })
    .with_context(|| stage.daemon.last_words())?;
    let beside = u32::try_from(busy.len()).unwrap_or(0);
    Ok(Figures::from([
        ("idle_p50_ms", quantile(&idle, 50)),
        ("idle_p99_ms", quantile(&idle, 99)),
        ("busy_p50_ms", quantile(&busy, 50)),
        ("busy_p99_ms", quantile(&busy, 99)),
        ("busy_changes", f64::from(beside)),
        ("background_per_s", rate),
    ]))
}

/// Announces and withdraws in turn, each once the one before was seen; sorted, in ms.
pub(super) fn flap(
    (source, origin): (&Session, Origin),
    sink: &Session,
    family: Family,
    over: impl Fn() -> bool,
) -> Result<Vec<f64>> {
    let announcement = wire::announce(origin, family, 0..1, 0);
    let withdrawal = wire::withdraw(family, 0..1);
    let mut times = Vec::new();
    for number in 0..CHANGES {
        if number % 2 == 0 && over() {
            break;
        }
        let (message, wanted) = if number % 2 == 0 {
            (&announcement, Sight::Announced)
        } else {
            (&withdrawal, Sight::Withdrawn)
        };
        let start = source.send(message)?;
        let deadline = Deadline::after(LOST);
        let end = loop {
            let (at, sight) = sink.sight(deadline)?;
            if sight == wanted {
                break at;
            }
        };
        times.push(end.saturating_duration_since(start).as_secs_f64() * 1e3);
        thread::sleep(GAP);
    }
    ensure!(!times.is_empty(), "no change was seen");
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Changes all routes of the background again and again; returns the changes a second.
pub(super) fn pace(
    session: &Session,
    origin: Origin,
    routes: u32,
    (family, rate): (Family, u32),
) -> Result<f64> {
    let per_ms = rate / 1_000;
    let mut next = 0;
    let pieces: Vec<_> = (0..SECONDS * 1_000)
        .map(|number| {
            let at = next;
            next = if next + 2 * per_ms > routes {
                0
            } else {
                next + per_ms
            };
            let range = 5 + at..5 + (at + per_ms).min(routes);
            wire::announce(origin, family, range, number + 1)
        })
        .collect();
    let start = now();
    for (number, piece) in (0..).zip(&pieces) {
        let due = start + Duration::from_millis(number);
        thread::sleep(due.saturating_duration_since(now()));
        session.send(piece)?;
    }
    Ok(f64::from(rate * SECONDS) / start.elapsed().as_secs_f64())
}

/// Of sorted values: the smallest that is not less than so many percent.
pub(super) fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=1_000).map(f64::from).collect();
        assert_eq!(quantile(&values, 50), 500.0);
        assert_eq!(quantile(&values, 99), 990.0);
        assert_eq!(quantile(&[7.0], 99), 7.0);
        assert!(quantile(&[], 50).is_nan());
    }
}
