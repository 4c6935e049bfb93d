//! A second try beside one that takes long, on another endpoint: the first good answer wins.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use balance::{EndpointKey, EndpointSet, InFlight, Retrying};
use base::{Instant, SiteName};
use tokio::time::{sleep, timeout};

use crate::{
    alarm::Alarm,
    attempt::{Again, Failure, Kind, Order, Place, Stop, attempt},
    downstream::Client,
    exchange::Story,
    forward::{To, choose, verdict},
    http1::ResponseHead,
    mirror::Whole,
    relay::Upload,
    upstream::UpConn,
    worker::Worker,
};

/// How a try ends.
pub(crate) type Ended = Result<(Box<UpConn>, ResponseHead), Stop>;

/// A try on its own, within the time that one may take.
pub(crate) async fn alone(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    order: &Order<'_>,
    patience: Option<Duration>,
    client: &mut Client<'_>,
    upload: &mut Upload,
    alarm: &mut Alarm,
) -> Ended {
    let trying = attempt(worker, place, order, client, upload, alarm);
    let Some(patience) = patience else {
        return trying.await;
    };
    let late = Stop::Failure(Failure {
        kind: Kind::Timeout,
        again: Again::Safe,
    });
    // Boxed, so that those without such a limit stay small.
    let in_time = Box::pin(timeout(patience, trying));
    in_time.await.unwrap_or(Err(late))
}

/// A try beside the first.
pub(crate) struct Second<'s, 't> {
    pub(crate) place: Place<'s>,
    pub(crate) site: SiteName,
    pub(crate) in_flight: InFlight,
    pub(crate) permit: Retrying<'t>,
    pub(crate) began: Instant,
}

/// What came of one or two tries.
pub(crate) struct Raced<'s, 't> {
    pub(crate) ended: Ended,
    /// The second, if it is its end.
    pub(crate) second: Option<Second<'s, 't>>,
    /// Who failed meanwhile, and how.
    pub(crate) failed: Option<(EndpointKey, Kind)>,
}

/// What a second try is made with.
pub(crate) struct Beside<'s, 't> {
    pub(crate) worker: &'s Rc<Worker>,
    pub(crate) set: &'s EndpointSet,
    pub(crate) to: To<'t>,
    pub(crate) order: &'s Order<'s>,
    /// Whom not to ask.
    pub(crate) tried: Vec<EndpointKey>,
    pub(crate) after: Duration,
    pub(crate) body: Whole,
}

type Running<'s, 't> = Pin<Box<dyn Future<Output = (Second<'s, 't>, Ended)> + 's>>;

impl<'s, 't: 's> Beside<'s, 't> {
    /// Ready to be used, if the request may be asked twice at a time: it changes nothing, and all
    /// of it is at hand.
    pub(crate) fn of(
        worker: &'s Rc<Worker>,
        set: &'s EndpointSet,
        to: To<'t>,
        order: &'s Order<'s>,
        upload: &Upload,
        tried: &[EndpointKey],
    ) -> Option<Self> {
        let after = to
            .retry
            .hedge
            .filter(|_| order.is_safe() && !order.upgrades)?;
        let body = upload.copied();
        body.is_some().then(|| Beside {
            worker,
            set,
            to,
            order,
            tried: tried.to_vec(),
            after,
            body,
        })
    }

    /// Try, and after a while elsewhere, too.
    pub(crate) async fn race(
        mut self,
        first: &Place<'_>,
        client: &mut Client<'_>,
        upload: &mut Upload,
        alarm: &mut Alarm,
        story: &mut Story,
    ) -> Raced<'s, 't> {
        self.tried.push(first.key.endpoint);
        let left = alarm.left();
        let mut second: Option<Running<'s, 't>> = None;
        let mut waits = pin!(sleep(self.after));
        let mut asked = false;
        let mut failed = None;
        let won = {
            let patience = self.to.patience;
            let trying = alone(
                self.worker,
                first,
                self.order,
                patience,
                client,
                upload,
                alarm,
            );
            let mut trying = pin!(trying);
            poll_fn(|cx| {
                if let Poll::Ready(ended) = trying.as_mut().poll(cx) {
                    return Poll::Ready(Won::First(ended));
                }
                if !asked && waits.as_mut().poll(cx).is_ready() {
                    asked = true;
                    second = self.begin(left, story);
                }
                match poll_second(&mut second, cx) {
                    Poll::Ready((tried, ended)) if self.is_good(&ended) => {
                        Poll::Ready(Won::Second(Box::new(tried), ended))
                    }
                    Poll::Ready((tried, ended)) => {
                        failed = Some(self.blame(&tried.place, &ended));
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        let ended = match won {
            Won::Second(second, ended) => {
                return Raced {
                    ended,
                    second: Some(*second),
                    failed,
                };
            }
            Won::First(ended) => ended,
        };
        // Whoever asked is gone, there is no time left, or nobody else is asked.
        let over = matches!(ended, Err(Stop::Client(_) | Stop::Deadline));
        if over || self.is_good(&ended) || second.is_none() {
            return Raced {
                ended,
                second: None,
                failed,
            };
        }
        let rest = poll_fn(|cx| {
            if let Poll::Ready(error) = client.poll_gone(cx) {
                return Poll::Ready(Err(Stop::Client(error)));
            }
            poll_second(&mut second, cx).map(Ok)
        });
        match rest.await {
            Err(stop) => Raced {
                ended: Err(stop),
                second: None,
                failed,
            },
            Ok((second, other)) if self.is_good(&other) => Raced {
                ended: other,
                second: Some(second),
                failed: Some(self.blame(first, &ended)),
            },
            Ok((second, other)) => Raced {
                ended,
                second: None,
                failed: Some(self.blame(&second.place, &other)),
            },
        }
    }

    fn is_good(&self, ended: &Ended) -> bool {
        let codes = &self.to.retry.codes;
        matches!(ended, Ok((_, head)) if !codes.contains(&head.status))
    }

    /// One failed that is not the end of it.
    fn blame(&self, place: &Place<'_>, ended: &Ended) -> (EndpointKey, Kind) {
        let kind = fault(ended);
        place.stats.failed();
        self.worker.metrics.failures.inc();
        if let Some(most) = self.to.cluster.outlier.filter(|_| kind.blames_endpoint()) {
            verdict(self.worker, most, place, false);
        }
        (place.key.endpoint, kind)
    }

    /// Ask another one, if there is one and the service bears it.
    fn begin(&self, left: Duration, story: &mut Story) -> Option<Running<'s, 't>> {
        if !self.to.cluster.circuit.takes_request(self.set) {
            return None;
        }
        let now = runtime::now();
        let (endpoint, remote) = choose(self.worker, self.set, self.to, now, &self.tried, None)?;
        let Some(permit) = self.to.repeats(self.set) else {
            self.worker.metrics.retries_denied.inc();
            return None;
        };
        self.worker.metrics.hedges.inc();
        let mut place = self.to.place(endpoint, remote);
        place.span = story.begin_try(self.worker, now, endpoint);
        let second = Second {
            in_flight: InFlight::start(&endpoint.stats),
            site: endpoint.site.clone(),
            place,
            permit,
            began: now,
        };
        let (kept, trailers) = self.body.clone().unwrap_or_default();
        let (worker, order, patience) = (self.worker, self.order, self.to.patience);
        Some(Box::pin(async move {
            let mut upload = Upload::of(kept, trailers);
            let (client, alarm) = (&mut Client::Nobody, &mut Alarm::new(left));
            let place = &second.place;
            let ended = alone(worker, place, order, patience, client, &mut upload, alarm);
            let ended = ended.await;
            (second, ended)
        }))
    }
}

enum Won<'s, 't> {
    First(Ended),
    Second(Box<Second<'s, 't>>, Ended),
}

/// How the second ended, once.
fn poll_second<'s, 't>(
    second: &mut Option<Running<'s, 't>>,
    cx: &mut Context<'_>,
) -> Poll<(Second<'s, 't>, Ended)> {
    let Some(running) = second else {
        return Poll::Pending;
    };
    let ended = running.as_mut().poll(cx);
    if ended.is_ready() {
        *second = None;
    }
    ended
}

fn fault(ended: &Ended) -> Kind {
    match ended {
        Ok(_) => Kind::Status,
        Err(Stop::Failure(failure)) => failure.kind,
        Err(Stop::Deadline | Stop::Client(_)) => Kind::Timeout,
    }
}
