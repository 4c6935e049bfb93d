//! Where control streams cross the data half: from its control half outward, and from other sites
//! to its control half. Nothing is understood here but the authority.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
};

use base::{Name, SiteName};
use http::StatusCode;
use runtime::{
    Tasks,
    log::Limiter,
    metrics::{Counter, Metrics},
    tls::Credentials,
};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tunnel::{Incoming, JoinStream, Joining, Links, StreamHead};

use super::{Trust, controller::Controller};
use crate::authority::Ask;

/// The most control streams of one kind from one node: one and its successor, twice over.
const MAX_INSIDE: usize = 4;

/// The door of a data half.
pub(crate) struct Door {
    me: SiteName,
    links: Links,
    /// Of a PoP.
    controller: Option<Rc<Controller>>,
    tasks: Tasks,
    quiet: RefCell<Limiter<SiteName>>,
    refused: Counter,
    inside: Inside,
    /// Whose turn it is to be asked as any PoP.
    turn: Cell<usize>,
}

impl Door {
    pub(super) fn new(
        me: &SiteName,
        links: &Links,
        trust: Option<&Trust>,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Self {
        let controller = trust.filter(|_| me.is_pop()).map(|trust| {
            Rc::new(Controller::new(
                trust.bootstrap.clone(),
                trust.verifier.anchors().to_vec(),
                trust.credentials.clone(),
                tasks.clone(),
            ))
        });
        Door {
            me: me.clone(),
            links: links.clone(),
            controller,
            tasks: tasks.clone(),
            quiet: RefCell::new(Limiter::new(std::time::Duration::from_secs(60))),
            refused: metrics.counter("control_streams_refused", "Control streams refused"),
            inside: Inside::default(),
            turn: Cell::new(0),
        }
    }

    /// Use a renewed certificate toward the controller.
    pub(super) fn renew(&self, credentials: Credentials) {
        if let Some(controller) = &self.controller {
            controller.renew(credentials);
        }
    }

    /// Pass a control stream on.
    pub(super) fn pass(&self, incoming: Incoming) {
        if !incoming.head.via.is_empty() {
            return self.onward(incoming);
        }
        let from_us = incoming.peer.site() == Some(&self.me);
        // Gateways that are meshed have nothing to tell each other.
        let is_heard = self.me.is_pop() || incoming.peer.site().is_some_and(SiteName::is_pop);
        let ask = Ask::parse(&incoming.head.authority);
        match ask {
            Some(ask @ (Ask::Sync | Ask::Bgp)) if !from_us && is_heard => {
                self.inward(incoming, &ask)
            }
            Some(Ask::SyncOf(site)) if from_us => self.outward(incoming, site, &Ask::Sync),
            Some(Ask::BgpOf(site)) if from_us => self.outward(incoming, site, &Ask::Bgp),
            Some(Ask::SyncOfAnyPop) if from_us => {
                let table = self.links.table();
                let pops: Vec<_> = table
                    .sites()
                    .map(|(site, _)| site)
                    .filter(|s| s.is_pop())
                    .collect();
                // Another one each time: the first may have nothing to give.
                let turn = self.turn.get();
                self.turn.set(turn.wrapping_add(1));
                let pop = turn.checked_rem(pops.len()).map(|at| pops[at].clone());
                match pop {
                    Some(pop) => self.outward(incoming, pop, &Ask::Sync),
                    None => incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "no PoP is linked"),
                }
            }
            Some(Ask::SyncOfController) if from_us => self.to_controller(incoming),
            Some(_) | None => {
                self.refuse(incoming, StatusCode::NOT_FOUND, "no such control stream");
            }
        }
    }

    /// Counted, and logged once a peer.
    fn refuse(&self, incoming: Incoming, status: StatusCode, reason: &str) {
        self.refused.inc();
        let peer = incoming.peer.site().unwrap_or(&self.me).clone();
        let now = runtime::now();
        if self.quiet.borrow().allow(now, peer.clone()).is_some() {
            let authority = &incoming.head.authority;
            tracing::warn!(%peer, authority, reason, "a control stream is refused");
        }
        incoming.refuse(status, reason);
    }

    fn inward(&self, incoming: Incoming, ask: &Ask) {
        let Some((peer, node)) = asker(&incoming) else {
            return;
        };
        let Some(place) = self
            .inside
            .enter((peer.clone(), node.clone(), ask.authority()))
        else {
            self.refuse(
                incoming,
                StatusCode::SERVICE_UNAVAILABLE,
                "too many control streams",
            );
            return;
        };
        let head = StreamHead {
            origin: Some(peer),
            node,
            ..StreamHead::to(ask.authority())
        };
        self.splice_to(incoming, self.me.clone(), head, Some(place));
    }

    /// From one PoP to another that has no link to it.
    fn onward(&self, mut incoming: Incoming) {
        let mut via = std::mem::take(&mut incoming.head.via);
        let asker = asker(&incoming).filter(|(site, _)| site.is_pop());
        let fits = self.me.is_pop()
            && incoming.peer.site().is_some_and(SiteName::is_pop)
            && via.iter().all(SiteName::is_pop)
            && Ask::parse(&incoming.head.authority) == Some(Ask::Bgp);
        let (Some((origin, node)), true) = (asker, fits) else {
            return self.refuse(
                incoming,
                StatusCode::FORBIDDEN,
                "only routes between PoPs are passed on",
            );
        };
        let next = via.remove(0);
        let head = StreamHead {
            origin: Some(origin),
            node,
            via,
            ..StreamHead::to(Ask::Bgp.authority())
        };
        self.splice_to(incoming, next, head, None);
    }

    fn outward(&self, incoming: Incoming, site: SiteName, ask: &Ask) {
        if site == self.me {
            incoming.refuse(StatusCode::NOT_FOUND, "this is that site");
            return;
        }
        self.splice_to(incoming, site, StreamHead::to(ask.authority()), None);
    }

    fn splice_to(
        &self,
        incoming: Incoming,
        site: SiteName,
        head: StreamHead,
        place: Option<Place>,
    ) {
        let (links, me) = (self.links.clone(), self.me.clone());
        let routes = Ask::Bgp.authority();
        self.tasks.spawn_local("control-stream", async move {
            let _place = place;
            // PoPs pass the routes of PoPs on, and nothing else.
            let opened = match site.is_pop() && me.is_pop() && head.authority == routes {
                true => links.open_control_over(&site, &head).await,
                false => links.open_control(&site, &head).await,
            };
            match opened {
                Ok(onward) => {
                    let Ok(stream) = incoming.accept() else { return };
                    splice(stream, onward).await;
                }
                Err(error) => {
                    tracing::debug!(peer = %site, error = %base::Chain(&error), "no control stream");
                    incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "the site cannot be reached");
                }
            }
        });
    }

    fn to_controller(&self, incoming: Incoming) {
        let Some(controller) = self.controller.clone() else {
            incoming.refuse(StatusCode::NOT_FOUND, "only a PoP talks to the controller");
            return;
        };
        self.tasks.spawn_local("controller-stream", async move {
            match controller.open(api::sync::AUTHORITY).await {
                Ok(onward) => {
                    let Ok(stream) = incoming.accept() else {
                        return;
                    };
                    splice(stream, onward).await;
                }
                Err(error) => {
                    controller.forget();
                    tracing::debug!(%error, "the controller cannot be reached");
                    incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "no controller");
                }
            }
        });
    }

    /// Somebody with a Token: the controller decides.
    pub(super) fn join(&self, joining: Joining) {
        let Joining { address, stream } = joining;
        let Some(controller) = self.controller.clone() else {
            return;
        };
        self.tasks.spawn_local("join", async move {
            match controller.open(api::sync::JOIN_AUTHORITY).await {
                Ok(onward) => splice(stream, onward).await,
                Err(error) => {
                    controller.forget();
                    tracing::warn!(%address, %error, "a join cannot be passed on");
                    refuse_join(stream).await;
                }
            }
        });
    }
}

/// Who asks: the node at the other end, or for whom a PoP passes it on.
fn asker(incoming: &Incoming) -> Option<(SiteName, Option<Name>)> {
    let peer = incoming.peer.site()?;
    match &incoming.head.origin {
        Some(origin) if peer.is_pop() && origin.is_pop() => {
            Some((origin.clone(), incoming.head.node.clone()))
        }
        Some(_) | None => Some((peer.clone(), incoming.peer.node_name().cloned())),
    }
}

/// Who is inside: control streams of one authority that a peer's node has open to us.
#[derive(Clone, Default)]
struct Inside(Rc<RefCell<BTreeMap<Visitor, usize>>>);

type Visitor = (SiteName, Option<Name>, String);

/// One of them; leaves when it is dropped.
struct Place(Inside, Visitor);

impl Inside {
    fn enter(&self, visitor: Visitor) -> Option<Place> {
        let mut inside = self.0.borrow_mut();
        let count = inside.entry(visitor.clone()).or_default();
        if *count >= MAX_INSIDE {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), visitor))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.0.0.borrow_mut();
        if let Some(count) = inside.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.1);
            }
        }
    }
}

async fn refuse_join(mut stream: JoinStream) {
    let reply = api::sync::JoinReply::Refused {
        code: "unavailable".to_owned(),
        reason: "the controller cannot be reached from this PoP: try again".to_owned(),
        time: runtime::wall(),
    };
    let sent: io::Result<()> = crate::lines::send(&mut stream, &reply).await;
    if let Err(error) = sent {
        tracing::debug!(%error, "a join refusal was not delivered");
    }
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
}

async fn splice(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) {
    if let Err(error) = copy_bidirectional(&mut a, &mut b).await {
        tracing::debug!(%error, "a control stream ended");
    }
}
