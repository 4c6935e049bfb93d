//! Bounds on what became of requests.

use std::time::Duration;

use lab::load::Figures;

use crate::text::micros;

/// What is wanted of a load's figures; what is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Good answers, at least.
    pub(super) answers: Option<u64>,
    /// Failed requests, at most.
    pub(super) failed: Option<u64>,
    /// After so long, nothing failed any more.
    pub(super) recovered: Option<Duration>,
    pub(super) p50: Option<Duration>,
    pub(super) p90: Option<Duration>,
    pub(super) p99: Option<Duration>,
    /// How long any good answer took, at most.
    pub(super) slowest: Option<Duration>,
    /// Who alone may have answered: sites, or endpoints as `cart-1.aws`.
    pub(super) answered_by: Vec<String>,
}

impl Bounds {
    pub(super) fn is_empty(&self) -> bool {
        *self == Bounds::default()
    }

    /// What is out of bounds, each in a sentence.
    pub(super) fn broken(&self, figures: &Figures) -> Vec<String> {
        let mut broken = Vec::new();
        let least = self.answers.unwrap_or(1);
        if figures.good < least {
            broken.push(format!("{} good answers, {least} at least", figures.good));
        }
        if let Some(most) = self.failed
            && figures.failed > most
        {
            let (failed, sent) = (figures.failed, figures.sent);
            let why = errors(figures);
            broken.push(format!("{failed} of {sent} failed, {most} at most{why}"));
        }
        self.recovery(figures, &mut broken);
        for (what, bound, us) in [
            ("the median", self.p50, figures.p50_us),
            ("p90", self.p90, figures.p90_us),
            ("p99", self.p99, figures.p99_us),
            ("the slowest answer", self.slowest, figures.slowest_us),
        ] {
            if let Some(most) = bound
                && Duration::from_micros(us) > most
            {
                let (us, most) = (micros(us), shown(most));
                broken.push(format!("{what} took {us}, {most} at most"));
            }
        }
        let wanted = |by: &str| {
            let is = |name: &String| {
                by == name || by.split_once('.').is_some_and(|(_, site)| site == name)
            };
            self.answered_by.iter().any(is)
        };
        if !self.answered_by.is_empty() {
            let others = figures.by.iter().filter(|(by, _)| !wanted(by));
            let others: Vec<String> = others.map(|(by, n)| format!("{by} × {n}")).collect();
            if !others.is_empty() {
                let wanted = self.answered_by.join(" and ");
                broken.push(format!(
                    "answered by {}, not by {wanted} alone",
                    others.join(", ")
                ));
            } else if figures.by.is_empty() {
                broken.push("no demo application said who it is".to_owned());
            }
        }
        broken
    }

    fn recovery(&self, figures: &Figures, broken: &mut Vec<String>) {
        let (Some(most), Some(until)) = (self.recovered, figures.failed_until_us) else {
            return;
        };
        let is_good_again = figures.good_ago_us < figures.failed_ago_us && figures.good > 0;
        if Duration::from_micros(until) > most || !is_good_again {
            let (until, most, why) = (micros(until), shown(most), errors(figures));
            let again = if is_good_again { "" } else { " and still do" };
            broken.push(format!(
                "requests failed until {until} after it{again}, until {most} at most{why}"
            ));
        }
    }
}

/// ` (status 502 × 3, …)`, or nothing.
fn errors(figures: &Figures) -> String {
    let errors = figures.errors.iter();
    let errors: Vec<String> = errors.map(|(why, n)| format!("{why} × {n}")).collect();
    match errors.as_slice() {
        [] => String::new(),
        some => format!(" ({})", some.join(", ")),
    }
}

/// A duration as a script says it.
pub(super) fn shown(time: Duration) -> String {
    api::Span(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_told() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let figures = Figures {
            sent: 100,
            good: 97,
            failed: 3,
            slowest_us: 612_000,
            p99_us: 50_000,
            failed_until_us: Some(900_000),
            failed_ago_us: Some(4_000_000),
            good_ago_us: Some(10_000),
            by: BTreeMap::from([
                ("cart-1.aws".to_owned(), 90),
                ("cart-1.factory".to_owned(), 7),
            ]),
            errors: BTreeMap::from([("status 502".to_owned(), 3)]),
            ..Figures::default()
        };
        let by = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let none = Bounds::default;
        for (bounds, wanted) in [
            (
                Bounds {
                    failed: Some(3),
                    recovered: ms(900),
                    slowest: ms(612),
                    p99: ms(50),
                    ..none()
                },
                None,
            ),
            (
                Bounds {
                    answers: Some(97),
                    answered_by: by(&["aws", "cart-1.factory"]),
                    ..none()
                },
                None,
            ),
            (
                Bounds {
                    answers: Some(98),
                    ..none()
                },
                Some("97 good answers, 98 at least"),
            ),
            (
                Bounds {
                    failed: Some(2),
                    ..none()
                },
                Some("3 of 100 failed, 2 at most (status 502 × 3)"),
            ),
            (
                Bounds {
                    recovered: ms(899),
                    ..none()
                },
                Some(
                    "requests failed until 900.0ms after it, until 899ms at most (status 502 × 3)",
                ),
            ),
            (
                Bounds {
                    slowest: ms(500),
                    ..none()
                },
                Some("the slowest answer took 612.0ms, 500ms at most"),
            ),
            (
                Bounds {
                    answered_by: by(&["aws"]),
                    ..none()
                },
                Some("answered by cart-1.factory × 7, not by aws alone"),
            ),
        ] {
            let broken = bounds.broken(&figures);
            assert_eq!(broken, wanted.into_iter().collect::<Vec<_>>(), "{bounds:?}");
        }
        let nothing = none().broken(&Figures::default());
        assert_eq!(nothing, ["0 good answers, 1 at least"]);
        let still = Figures {
            good_ago_us: Some(5_000_000),
            ..figures
        };
        let broken = Bounds {
            recovered: ms(1_000),
            ..none()
        }
        .broken(&still);
        assert!(broken[0].contains("and still do"), "{broken:?}");
    }
}
