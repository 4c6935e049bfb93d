//! Named tasks and their end.
//!
//! ```text
//!   Running ── drain() ──▶ Draining ── deadline ──▶ Aborting
//!   tasks run              token fires;             what is left is dropped
//!                          tasks finish their work  at its next await point
//! ```
//! A task that panics is logged with its name and ends alone.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::watch;

/// How long aborted tasks get to reach an await point.
const ABORT_GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Aborting,
}

/// A group of named tasks on the current tokio runtime that drains together.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    group: String,
    phase: watch::Sender<Phase>,
    live: AtomicUsize,
    /// Written when `live` falls to zero.
    idle: tokio::sync::Notify,
}

/// What a task watches to learn that it shall stop accepting and finish.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

/// A running task; dropping this leaves it running.
#[derive(Debug)]
pub struct Task(tokio::task::AbortHandle);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tasks still alive at the deadline, which were aborted.
    pub aborted: usize,
}

impl Tasks {
    /// An empty group; `group` stands in front of its tasks' names in logs.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        let (phase, _) = watch::channel(Phase::Running);
        Tasks {
            inner: Arc::new(Inner {
                group: group.into(),
                phase,
                live: AtomicUsize::new(0),
                idle: tokio::sync::Notify::new(),
            }),
        }
    }

    /// The token that fires when this group begins to drain.
    #[must_use]
    pub fn token(&self) -> Drain {
        Drain(self.inner.phase.subscribe())
    }

    /// Tasks alive now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.inner.live.load(Ordering::Acquire)
    }

    /// Runs `task` on the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, task: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Task(tokio::spawn(self.watched(name, Box::pin(task))).abort_handle())
    }

    /// Runs `task` on the current thread's `LocalSet`.
    ///
    /// # Panics
    /// Outside a `LocalSet`.
    #[expect(clippy::disallowed_methods, reason = "this is the place that spawns")]
    pub fn spawn_local<F>(&self, name: &'static str, task: F) -> Task
    where
        F: Future<Output = ()> + 'static,
    {
        Task(tokio::task::spawn_local(self.watched(name, Box::pin(task))).abort_handle())
    }

    /// Tells every task to stop accepting and finish, without waiting for it.
    pub fn start_drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Stop accepting → drain → `deadline` → abort.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.start_drain();
        if tokio::time::timeout(deadline, self.idle()).await.is_ok() {
            return Drained { aborted: 0 };
        }
        let aborted = self.live();
        self.advance(Phase::Aborting);
        if tokio::time::timeout(ABORT_GRACE, self.idle())
            .await
            .is_err()
        {
            tracing::warn!(group = %self.inner.group, left = self.live(), "tasks do not stop");
        }
        Drained { aborted }
    }

    fn advance(&self, to: Phase) {
        self.inner.phase.send_if_modified(|phase| {
            let later = *phase < to;
            *phase = (*phase).max(to);
            later
        });
    }

    async fn idle(&self) {
        loop {
            let notified = self.inner.idle.notified();
            if self.live() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// `task` is boxed before it is moved about: some are thousands of octets.
    fn watched<F: Future<Output = ()>>(
        &self,
        name: &'static str,
        task: Pin<Box<F>>,
    ) -> impl Future<Output = ()> + use<F> {
        self.inner.live.fetch_add(1, Ordering::AcqRel);
        let alive = Alive(Arc::clone(&self.inner));
        let phase = self.inner.phase.subscribe();
        async move {
            let alive = alive;
            let guarded = Guarded(task);
            let outcome = tokio::select! {
                biased;
                () = reached(phase, Phase::Aborting) => Ok(()),
                outcome = guarded => outcome,
            };
            if let Err(panic) = outcome {
                let error = panic_text(&*panic);
                tracing::error!(group = %alive.0.group, task = name, %error, "task panicked");
            }
        }
    }
}

impl Drain {
    /// Has the drain begun?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Waits until the drain begins; also returns when the group is gone.
    pub async fn draining(&self) {
        reached(self.0.clone(), Phase::Draining).await;
    }
}

impl Task {
    /// Ends the task at its next await point.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Has the task ended?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Waits until the phase is `at`, or the group is gone: nobody is left to serve for. This is polled
/// whenever anything stirs in its task; while nothing has changed and the same task polls, it is
/// registered already, and a look at a number tells.
async fn reached(mut phase: watch::Receiver<Phase>, at: Phase) {
    let news = phase.clone();
    // Without a budget that is used up it would wait for the next poll, and not for the phase.
    let waiting = tokio::task::unconstrained(phase.wait_for(|phase| *phase >= at));
    let mut waiting = pin!(waiting);
    let mut registered: Option<Waker> = None;
    poll_fn(|cx| {
        let same = registered.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if same && matches!(news.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        if !same {
            registered = Some(cx.waker().clone());
        }
        waiting.as_mut().poll(cx).map(drop)
    })
    .await;
}

struct Alive(Arc<Inner>);

impl Drop for Alive {
    fn drop(&mut self) {
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// A future whose panic becomes its result.
struct Guarded<F>(Pin<Box<F>>);

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = Result<(), Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that panicked is never polled again: `watched` drops it.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, task::Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn drain_waits_then_aborts() {
        let tasks = Tasks::new("test");
        let token = tasks.token();
        tasks.spawn("good", async move { token.draining().await });
        tasks.spawn("stubborn", std::future::pending());
        tasks.spawn("panics", async { panic!("on purpose") });
        tokio::task::yield_now().await;
        assert_eq!(tasks.live(), 2);
        assert_eq!(
            tasks.drain(Duration::from_secs(3)).await,
            Drained { aborted: 1 }
        );
        assert_eq!(tasks.live(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_heard_by_whoever_waits() {
        let tasks = Tasks::new("test");
        let token = tasks.token();
        let mut draining = pin!(token.draining());
        let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
        let mut poll = |by: &Arc<Woken>| {
            let waker = Waker::from(Arc::clone(by));
            draining.as_mut().poll(&mut Context::from_waker(&waker))
        };
        assert!(poll(&first).is_pending() && poll(&first).is_pending());
        // Another task takes it over: that one is woken.
        assert!(poll(&second).is_pending() && poll(&second).is_pending());
        tasks.start_drain();
        assert!(second.0.load(Ordering::Relaxed));
        assert!(poll(&second).is_ready());
        let late = tasks.token();
        late.draining().await;
        let spent = Tasks::new("spent");
        let token = spent.token();
        let mut draining = pin!(token.draining());
        poll_fn(|cx| {
            // The task has used up what it may do in one poll.
            while tokio::task::coop::has_budget_remaining() {
                let _ = pin!(tokio::task::coop::consume_budget()).poll(cx);
            }
            let waker = Waker::from(Arc::clone(&first));
            let polled = draining.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            Poll::Ready(())
        })
        .await;
        first.0.store(false, Ordering::Relaxed);
        spent.start_drain();
        assert!(first.0.load(Ordering::Relaxed));
        drop(tasks);
        token.draining().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_task_counts_as_gone() {
        let tasks = Tasks::new("test");
        let task = tasks.spawn("waits", std::future::pending());
        task.abort();
        assert_eq!(
            tasks.drain(Duration::from_secs(3)).await,
            Drained { aborted: 0 }
        );
        assert!(task.is_finished());
        let late = tasks.spawn("late", std::future::pending());
        assert_eq!(tasks.drain(Duration::ZERO).await.aborted, 1);
        tokio::task::yield_now().await;
        assert!(late.is_finished());
    }
}
