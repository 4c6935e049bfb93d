//! Memory that a burst of work needed goes back to the system when the burst is over.
//!
//! The allocator keeps pages for each thread, and what others free of them only that thread looks
//! at, when it next runs short. So after work that took much (a new configuration), every thread
//! looks once, as soon as no more of it has come for a while: never while the burst lasts, and not
//! at all while nothing changes.

use std::{convert::Infallible, future::Future, pin::pin, sync::LazyLock, time::Duration};

use tokio::sync::watch;

use crate::alloc;

/// A burst is over when nothing more was said for so long.
const QUIET: Duration = Duration::from_secs(3);

static CHURNED: LazyLock<watch::Sender<()>> = LazyLock::new(watch::Sender::default);

/// Says that much was allocated and freed: every thread whose work is [`tidied`] gives back what it
/// holds and does not use, 3 s after this was said last. Costs next to nothing.
pub fn churned() {
    CHURNED.send_replace(());
}

/// Does `work`, and gives back the memory of this thread beside it when a burst is over; for the
/// first time once it has started.
pub async fn tidied<F: Future>(work: F) -> F::Output {
    let tidy = tidy(CHURNED.subscribe(), alloc::collect);
    let (work, tidy) = (pin!(work), pin!(tidy));
    tokio::select! {
        biased;
        done = work => done,
        never = tidy => match never {},
    }
}

async fn tidy(mut churned: watch::Receiver<()>, give_back: impl Fn()) -> Infallible {
    churned.mark_changed();
    loop {
        // The sender is never dropped.
        let _ = churned.changed().await;
        loop {
            tokio::time::sleep(QUIET).await;
            if !churned.has_changed().unwrap_or(false) {
                break;
            }
            churned.mark_unchanged();
        }
        give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_at_the_start_and_once_a_burst_is_over() {
        let (churned, heard) = watch::channel(());
        let times = Rc::new(Cell::new(0));
        let counted = Rc::clone(&times);
        let work = async {
            tokio::time::sleep(QUIET * 2).await;
            assert_eq!(times.get(), 1, "at the start");
            for _ in 0..5 {
                churned.send_replace(());
                tokio::time::sleep(QUIET / 2).await;
            }
            assert_eq!(times.get(), 1, "while the burst lasts");
            tokio::time::sleep(QUIET * 2).await;
            assert_eq!(times.get(), 2, "after the burst");
            tokio::time::sleep(QUIET * 100).await;
            assert_eq!(times.get(), 2, "when nothing changes");
        };
        tokio::select! {
            () = work => {}
            never = tidy(heard, move || counted.set(counted.get() + 1)) => match never {},
        }
    }

    #[tokio::test]
    async fn work_beside_it_ends_as_it_would_alone() {
        churned();
        assert_eq!(tidied(async { 7 }).await, 7);
        alloc::collect();
    }
}
