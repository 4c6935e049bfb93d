//! Threads that own a single-threaded tokio runtime.

use std::{future::Future, io, thread, time::Duration};

use tokio::{sync::watch, task::LocalSet};

use crate::{Tasks, memory, tasks::panic_text};

/// What the tasks of a thread get to finish after its main future has ended.
const DRAIN: Duration = Duration::from_secs(5);
/// Threads for what blocks end after so long without work, and leave their memory to others.
const IDLE: Duration = Duration::from_secs(1);

/// How a thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThreadExit {
    /// Its main future ended.
    Finished,
    /// It panicked, with this text.
    Panicked(String),
}

/// A running thread; dropping this leaves it running.
#[derive(Debug)]
pub struct Thread {
    tasks: Tasks,
    exit: watch::Receiver<Option<ThreadExit>>,
}

/// Starts the OS thread `name` (15 bytes are visible to the system) with a `current_thread`
/// runtime and a `LocalSet`, and runs `main` on it. `main` gets the thread's task group; when it
/// returns, what is left of the group is drained for 5 s and the thread ends.
///
/// # Errors
/// The system refused a thread, an epoll or a timer.
pub fn thread<F, Fut>(name: &str, main: F) -> io::Result<Thread>
where
    F: FnOnce(Tasks) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(IDLE)
        .build()?;
    let tasks = Tasks::new(name);
    let (sender, exit) = watch::channel(None);
    let group = tasks.clone();
    let title = name.to_owned();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let work = || {
                let main = async {
                    main(group.clone()).await;
                    group.drain(DRAIN).await;
                };
                LocalSet::new().block_on(&runtime, memory::tidied(main));
            };
            let exit = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                Ok(()) => ThreadExit::Finished,
                Err(panic) => {
                    let error = panic_text(&*panic).to_owned();
                    tracing::error!(thread = %title, %error, "thread panicked");
                    ThreadExit::Panicked(error)
                }
            };
            sender.send_replace(Some(exit));
        })?;
    Ok(Thread { tasks, exit })
}

impl Thread {
    /// Tells the thread's tasks to stop accepting and finish.
    pub fn start_drain(&self) {
        self.tasks.start_drain();
    }

    /// Waits until the thread has ended.
    pub async fn exited(&self) -> ThreadExit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(ThreadExit::Finished),
            Err(_) => ThreadExit::Panicked("the thread vanished".to_owned()),
        }
    }

    /// Has the thread ended?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.exit.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_drains_and_reports() {
        let worker = thread("worker", |tasks| async move {
            let token = tasks.token();
            tasks.spawn_local("local", async move { token.draining().await });
            tasks.token().draining().await;
        })
        .expect("a thread");
        worker.start_drain();
        assert_eq!(worker.exited().await, ThreadExit::Finished);
        let bad = thread("bad", |_| async { panic!("on purpose") }).expect("a thread");
        assert_eq!(
            bad.exited().await,
            ThreadExit::Panicked("on purpose".to_owned())
        );
    }
}
