//! Copies of requests to other services, whose answers are thrown away.

use std::{rc::Rc, sync::Arc};

use base::LbId;
use bytes::Bytes;
use http::{HeaderMap, Method};
use l7::{Cluster, Fields, Forward, Limits, Retry};

use crate::{
    alarm::Alarm,
    attempt::{Order, Told},
    counted::Counted,
    downstream::Client,
    exchange::Story,
    forward::{To, clean, deliver, tries},
    http1::Framing,
    relay::Upload,
    turns::Line,
    worker::Worker,
};

/// Copies a worker has on the way; more are dropped and counted.
const MOST: usize = 256;

/// A request's body, whole; `None`: it was too long to be kept, or did not end.
pub(crate) type Whole = Option<(Vec<Bytes>, Option<HeaderMap>)>;

/// Who gets a copy.
pub(crate) struct Mirror {
    pub(crate) cluster: Arc<Cluster>,
    lb: LbId,
    lb_name: String,
}

/// The mirrors of a request: upgrades are not copied.
pub(crate) fn drawn(worker: &Worker, to: Forward<'_>, upgrades: bool) -> Vec<Mirror> {
    let mirrors = to.route.filters.mirrors.iter();
    let mirrors =
        mirrors.filter(|mirror| !upgrades && mirror.percent.is_drawn(&mut worker.rng.borrow_mut()));
    mirrors
        .map(|mirror| Mirror {
            cluster: Arc::clone(&mirror.cluster),
            lb: to.host.lb,
            lb_name: to.host.lb_name.clone(),
        })
        .collect()
}

/// Send the copies; nobody waits for them.
pub(crate) fn send(worker: &Rc<Worker>, mirrors: Vec<Mirror>, order: &Order<'_>, body: Whole) {
    if mirrors.is_empty() {
        return;
    }
    for mirror in mirrors {
        let (Some(body), true) = (&body, worker.mirrors.get() < MOST) else {
            worker.metrics.mirrors_dropped.inc();
            continue;
        };
        let copy = Copy {
            mirror,
            method: order.method.clone(),
            target: order.target.to_owned(),
            fields: order.fields.clone(),
            framing: order.framing,
            limits: *order.limits,
            client: order.client.clone(),
            upload: Upload::of(body.0.clone(), body.1.clone()),
            seat: Counted::one(&worker.mirrors),
        };
        worker.metrics.mirrored.inc();
        let whose = copy.mirror.cluster.tenant;
        let run = copy.run(Rc::clone(worker));
        worker.spawn("mirror", (whose, Line::default()), run);
    }
}

struct Copy {
    mirror: Mirror,
    method: Method,
    target: String,
    fields: Fields,
    framing: Framing,
    limits: Limits,
    client: Option<Told>,
    upload: Upload,
    seat: Counted,
}

impl Copy {
    async fn run(mut self, worker: Rc<Worker>) {
        let order = Order {
            method: &self.method,
            target: &self.target,
            fields: &self.fields,
            framing: self.framing,
            upgrades: false,
            limits: &self.limits,
            client: self.client.clone(),
            patience: None,
        };
        let once = Retry {
            tries: 1,
            ..Retry::default()
        };
        let to = To {
            cluster: &self.mirror.cluster,
            lb: self.mirror.lb,
            lb_name: &self.mirror.lb_name,
            retry: &once,
            patience: None,
            hash: None,
            client: None,
        };
        let (client, mut story) = (&mut Client::Nobody, Story::default());
        let alarm = &mut Alarm::new(self.limits.request_timeout);
        let upload = &mut self.upload;
        let tried = tries(&worker, client, &order, to, upload, alarm, &mut story).await;
        if let Ok((key, up, mut head, _in_flight)) = tried {
            clean(&mut head, false);
            deliver(
                &worker,
                client,
                alarm,
                up,
                key,
                head,
                upload,
                &self.limits,
                &mut story,
            )
            .await;
        }
        drop(self.seat);
    }
}
