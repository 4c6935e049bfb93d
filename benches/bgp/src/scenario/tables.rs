//! Whole tables: in, out, to many, and away again.

use anyhow::Result;

use super::{Cast, Figures, Setting, Stage, wait};
use crate::wire::{self, Family};

/// Sessions of `sessions11` that announce.
const TEN: u8 = 10;

/// Receivers of `fanout50`.
const FIFTY: u8 = 50;

/// One session announces, another receives; then everything is withdrawn.
pub(super) fn load(setting: &Setting<'_>) -> Result<Figures> {
    let routes = setting.routes(500_000);
    let mut stage = Stage::set(setting, &cast(Family::Ipv4, 2, routes, routes))?;
    let mut figures = one_to_one(setting, &mut stage, Family::Ipv4, routes)?;
    let withdrawals = [wire::withdraw(Family::Ipv4, 0..routes)];
    let cost = stage.measure(|stage| {
        stage.sessions[1].expect(0);
        let start = stage.send_all(&withdrawals)?;
        Ok((start, wait(&stage.sessions[1..], setting.deadline())?))
    })?;
    figures.insert("withdraw_s", cost.s);
    figures.insert("withdraw_cpu_s", cost.cpu_s);
    Ok(figures)
}

/// The same between clients of a reflector.
pub(super) fn reflected(setting: &Setting<'_>, family: Family, whole: u32) -> Result<Figures> {
    let routes = setting.routes(whole);
    let mut stage = Stage::set(setting, &cast(family, 2, routes, routes))?;
    one_to_one(setting, &mut stage, family, routes)
}

fn cast(family: Family, sessions: u8, routes: u32, each: u32) -> Cast {
    Cast {
        family,
        sessions,
        routes,
        each,
        watched: None,
    }
}

fn one_to_one(
    setting: &Setting<'_>,
    stage: &mut Stage,
    family: Family,
    routes: u32,
) -> Result<Figures> {
    let announcements = [wire::announce(stage.origins[0], family, 0..routes, 0)];
    let before = stage.pss()?;
    let cost = stage.measure(|stage| {
        stage.sessions[1].expect(routes);
        let start = stage.send_all(&announcements)?;
        Ok((start, wait(&stage.sessions[1..], setting.deadline())?))
    })?;
    let after = stage.pss()?;
    let mut figures = cost.figures();
    figures.extend([
        ("pss_before_mb", before / 1e6),
        ("pss_after_mb", after / 1e6),
        ("bytes_per_route", (after - before) / f64::from(routes)),
        ("routes_per_s", f64::from(routes) / cost.s),
    ]);
    Ok(figures)
}

/// Ten announce their own; everybody receives what all others announced.
pub(super) fn sessions11(setting: &Setting<'_>) -> Result<Figures> {
    let each = setting.routes(100_000);
    let all = each * u32::from(TEN);
    let mut stage = Stage::set(setting, &cast(Family::Ipv4, TEN + 1, all, each))?;
    let ranges = (0..u32::from(TEN)).map(|number| number * each..(number + 1) * each);
    let announcements: Vec<_> = ranges
        .zip(&stage.origins)
        .map(|(range, &origin)| wire::announce(origin, Family::Ipv4, range, 0))
        .collect();
    let cost = stage.measure(|stage| {
        let monitor = usize::from(TEN);
        for (number, session) in stage.sessions.iter().enumerate() {
            session.expect(if number == monitor { all } else { all - each });
        }
        let start = stage.send_all(&announcements)?;
        Ok((start, wait(&stage.sessions, setting.deadline())?))
    })?;
    let mut figures = cost.figures();
    figures.insert("pss_after_mb", stage.pss()? / 1e6);
    Ok(figures)
}

/// One announces, many receive.
pub(super) fn fanout50(setting: &Setting<'_>) -> Result<Figures> {
    let routes = setting.routes(200_000);
    let mut stage = Stage::set(setting, &cast(Family::Ipv4, FIFTY + 1, routes, routes))?;
    let announcements = [wire::announce(stage.origins[0], Family::Ipv4, 0..routes, 0)];
    let cost = stage.measure(|stage| {
        for session in &stage.sessions[1..] {
            session.expect(routes);
        }
        let start = stage.send_all(&announcements)?;
        Ok((start, wait(&stage.sessions[1..], setting.deadline())?))
    })?;
    let mut figures = cost.figures();
    figures.insert("pss_after_mb", stage.pss()? / 1e6);
    Ok(figures)
}
