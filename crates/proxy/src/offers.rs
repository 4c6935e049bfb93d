//! What is offered by ports of its own, and when what was carried for it has to end.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use l7::{Fault, ListenerProtocol};
use tokio::{sync::watch, time::timeout};

use crate::guard::{DENIED, Denial};

/// Its load balancer is not there any more, and it has had its time.
pub(crate) const WITHDRAWN: (&str, Fault) = ("withdrawn", Fault::Us);

/// Why something that was carried has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is not offered any more, and has had its time.
    Withdrawn,
    /// It would not be let through any more.
    Denied(Denial),
}

impl Ending {
    /// As records tell it.
    pub(crate) const fn error(&self) -> (&'static str, Fault) {
        match self {
            Ending::Withdrawn => WITHDRAWN,
            Ending::Denied(_) => (DENIED, Fault::Client),
        }
    }
}

/// What a worker offers at the moment.
#[derive(Debug)]
pub(crate) struct Offers {
    /// By logical port.
    listeners: RefCell<BTreeSet<(u16, ListenerProtocol)>>,
    changed: watch::Sender<()>,
}

impl Default for Offers {
    fn default() -> Self {
        Offers {
            listeners: RefCell::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Offers {
    /// From now on these are, and the snapshot may be another.
    pub(crate) fn set(&self, listeners: impl Iterator<Item = (u16, ListenerProtocol)>) {
        *self.listeners.borrow_mut() = listeners.collect();
        self.changed.send_replace(());
    }

    pub(crate) fn has(&self, port: u16, protocol: ListenerProtocol) -> bool {
        self.listeners.borrow().contains(&(port, protocol))
    }

    /// Ready when something has to end: at once when it is denied, and when it has not been offered
    /// for as long as `drain`. Both are looked at when something has changed.
    pub(crate) async fn ending(
        &self,
        drain: Duration,
        is_offered: impl Fn() -> bool,
        denied: impl Fn() -> Option<Denial>,
    ) -> Ending {
        let denied = async {
            let mut changed = self.changed.subscribe();
            loop {
                if let Some(denial) = denied() {
                    return denial;
                }
                let _ = changed.changed().await;
            }
        };
        tokio::select! {
            biased;
            denial = denied => Ending::Denied(denial),
            () = self.withdrawn(drain, is_offered) => Ending::Withdrawn,
        }
    }

    /// Ready when something has not been offered for as long as `drain`, without a break. It is
    /// looked at when something has changed, and not otherwise.
    pub(crate) async fn withdrawn(&self, drain: Duration, is_offered: impl Fn() -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            // Its sender lives as long as this does.
            while is_offered() {
                let _ = changed.changed().await;
            }
            let again = async {
                while !is_offered() {
                    let _ = changed.changed().await;
                }
            };
            if timeout(drain, again).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, rc::Rc};

    use base::LbId;
    use futures_util::FutureExt;
    use tokio::time::{Instant, advance};

    use super::*;

    const DRAIN: Duration = Duration::from_secs(5);
    const OURS: (u16, ListenerProtocol) = (5432, ListenerProtocol::Tcp(LbId(1)));
    const OTHER: (u16, ListenerProtocol) = (5432, ListenerProtocol::Tcp(LbId(2)));

    fn carried(offers: &Rc<Offers>) -> impl Future<Output = ()> + Unpin + use<> {
        let offers = Rc::clone(offers);
        Box::pin(async move {
            let is_offered = || offers.has(OURS.0, OURS.1);
            offers.withdrawn(DRAIN, is_offered).await;
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_withdrawn_goes_on_for_a_while() {
        let offers = Rc::new(Offers::default());
        offers.set([OURS].into_iter());
        let mut carried = carried(&offers);
        assert_eq!((&mut carried).now_or_never(), None);
        advance(1000 * DRAIN).await;
        assert_eq!((&mut carried).now_or_never(), None);
        offers.set([OTHER].into_iter());
        let began = Instant::now();
        carried.await;
        assert_eq!(began.elapsed().as_secs(), DRAIN.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_offered_again_stays() {
        let offers = Rc::new(Offers::default());
        offers.set([OURS, OTHER].into_iter());
        let mut carried = carried(&offers);
        for _ in 0..3 {
            assert_eq!((&mut carried).now_or_never(), None);
            offers.set([OTHER].into_iter());
            assert_eq!((&mut carried).now_or_never(), None);
            advance(DRAIN / 2).await;
            // A change that does not concern it gives it no more time, and takes none.
            offers.set([].into_iter());
            assert_eq!((&mut carried).now_or_never(), None);
            advance(DRAIN / 4).await;
            offers.set([OURS].into_iter());
        }
        assert_eq!((&mut carried).now_or_never(), None);
        offers.set([].into_iter());
        assert_eq!((&mut carried).now_or_never(), None);
        advance(DRAIN / 2).await;
        offers.set([OTHER].into_iter());
        assert_eq!((&mut carried).now_or_never(), None);
        let began = Instant::now();
        carried.await;
        assert_eq!(began.elapsed(), DRAIN / 2);
    }
}
