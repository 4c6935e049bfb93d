//! The tries of a request of which a collector is told.

use std::time::Duration;

use balance::EndpointKey;
use base::{Instant, Rng, SiteName};
use l7::{Attempt, headers::SpanId};

use crate::{attempt::Stop, hedge::Ended};

/// Of one request no more are told; others are made all the same.
const MOST: usize = 16;
/// How a try ended that another one has made needless, or whose client is gone.
const GIVEN_UP: &str = "given-up";

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Tries {
    started: Instant,
    all: Vec<One>,
}

#[derive(Debug)]
struct One {
    span: SpanId,
    endpoint: EndpointKey,
    site: SiteName,
    after: Duration,
    /// `None`: it runs.
    end: Option<(Duration, Result<u16, &'static str>)>,
}

impl Tries {
    /// Of a request that has begun then.
    pub(crate) const fn new(started: Instant) -> Self {
        Tries {
            started,
            all: Vec::new(),
        }
    }

    /// One more; `None`: it is one too many.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        endpoint: EndpointKey,
        site: &SiteName,
        rng: &mut Rng,
    ) -> Option<SpanId> {
        if self.all.len() >= MOST {
            return None;
        }
        let span = SpanId::drawn(rng);
        self.all.push(One {
            span,
            endpoint,
            site: site.clone(),
            after: now.since(self.started),
            end: None,
        });
        Some(span)
    }

    /// The last one on this endpoint is over.
    pub(crate) fn end(&mut self, endpoint: EndpointKey, end: Result<u16, &'static str>) {
        let running = |one: &&mut One| one.endpoint == endpoint && one.end.is_none();
        if let Some(one) = self.all.iter_mut().rev().find(running) {
            let over = runtime::now().since(self.started);
            one.end = Some((over.saturating_sub(one.after), end));
        }
    }

    /// All of them, of a request that took so long. One that has no end yet was given up.
    pub(crate) fn told(&self, took: Duration) -> impl Iterator<Item = Attempt<'_>> {
        self.all.iter().zip(0..).map(move |(one, before)| {
            let given_up = (took.saturating_sub(one.after), Err(GIVEN_UP));
            let (took, end) = one.end.unwrap_or(given_up);
            Attempt {
                span: one.span,
                endpoint: one.endpoint.address,
                site: &one.site,
                before,
                after: one.after,
                took,
                end,
            }
        })
    }
}

/// The status of an answer, or what there was instead.
pub(crate) fn end_of(ended: &Ended) -> Result<u16, &'static str> {
    match ended {
        Ok((_, head)) => Ok(head.status.as_u16()),
        Err(Stop::Failure(failure)) => Err(failure.kind.code()),
        Err(Stop::Deadline) => Err("timeout"),
        Err(Stop::Client(_)) => Err(GIVEN_UP),
    }
}

#[cfg(test)]
mod tests {
    use base::{NetworkId, SiteId};

    use super::*;

    #[test]
    fn tries_are_told_in_order_and_no_more_than_so_many() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let site: SiteName = "par.fabric".parse().expect("a site");
        let key = |port| EndpointKey {
            site: SiteId(1),
            network: NetworkId(0),
            address: ([10, 0, 0, 1], port).into(),
        };
        let mut tries = Tries::new(at(5));
        let rng = &mut Rng::new(1);
        for port in 1..20 {
            let told = tries.begin(at(5 + u64::from(port)), key(port), &site, rng);
            assert_eq!(told.is_some(), usize::from(port) <= MOST);
        }
        tries.end(key(2), Ok(200));
        tries.end(key(3), Err("refused"));
        // There is none such, or not any more.
        tries.end(key(3), Ok(200));
        tries.end(key(99), Ok(200));
        let told: Vec<_> = tries.told(Duration::from_millis(100)).collect();
        assert_eq!(told.len(), MOST);
        let ends: Vec<_> = told.iter().map(|one| one.end).collect();
        assert_eq!(ends[..3], [Err(GIVEN_UP), Ok(200), Err("refused")]);
        assert_eq!(told[0].after, Duration::from_millis(1));
        assert_eq!(told[0].took, Duration::from_millis(99));
        assert_eq!((told[0].before, told[1].before), (0, 1));
        assert_ne!(told[0].span, told[1].span);
    }
}
