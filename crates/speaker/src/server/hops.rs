//! Next hops, asked of the system: new ones at once, all of them from time to time.

use std::{net::IpAddr, rc::Rc, time::Duration};

use runtime::net::router;
use tokio::time::MissedTickBehavior;

use super::worker::Worker;

impl Worker {
    /// Tell this thread's shard which next hops the system has a way to.
    pub(super) async fn track_next_hops(self: Rc<Self>, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => self.shard.borrow().next_hops(),
                () = self.fresh_hops.notified() => self.shard.borrow_mut().take_fresh_next_hops(),
            };
            if asked.is_empty() {
                continue;
            }
            // A system call each: not on the thread that routes wait for.
            let ask = move || {
                asked
                    .into_iter()
                    .map(|hop| (hop, router::has_route(hop)))
                    .collect()
            };
            let answers: Vec<(IpAddr, bool)> = match tokio::task::spawn_blocking(ask).await {
                Ok(answers) => answers,
                Err(_) => return,
            };
            for (hop, reachable) in answers {
                if self.shard.borrow_mut().set_next_hop(hop, reachable) {
                    tracing::info!(next_hop = %hop, reachable, "a next hop has changed");
                }
            }
            self.work.notify_one();
        }
    }
}
