//! Load at a steady rate: open loop, so a slow answer delays no other request.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base::{Instant, WallTime};
use bytes::Bytes;
use http::Request;
use runtime::{Drain, Tasks, Thread};

use crate::{
    client::Blocking,
    connection::{Connection, Story, said},
};

/// Connections kept for each target.
const KEPT: usize = 16;
/// Requests that wait for an answer; more than this is a failure of the test itself.
const IN_FLIGHT: usize = 8192;
/// How long a request may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whom to ask for what.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// And from where, if that matters.
    pub from: Option<IpAddr>,
    /// The `host`.
    pub host: String,
    /// The path.
    pub path: String,
}

/// One request of a [`Load`].
#[derive(Clone, Debug)]
pub struct Record {
    /// The index of its target.
    pub target: usize,
    /// When it began.
    pub start: Instant,
    /// The same on the wall clock.
    pub start_wall: WallTime,
    /// How much later that was than the rate asked for: the tester's own lateness, which says how
    /// busy the machine was.
    pub late: Duration,
    /// When its answer was complete, or it had failed.
    pub end: Instant,
    /// The status code, and who answered; or what went wrong.
    pub outcome: Result<(u16, Option<Story>), String>,
}

impl Record {
    /// Whether the answer was not 200.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(self.outcome, Ok((200, _)))
    }

    /// Who answered with 200.
    #[must_use]
    pub fn story(&self) -> Option<&Story> {
        match &self.outcome {
            Ok((200, story)) => story.as_ref(),
            Ok(_) | Err(_) => None,
        }
    }

    /// From start to end.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.end.since(self.start)
    }
}

/// A load that runs until stopped.
#[derive(Debug)]
pub struct Load {
    thread: Thread,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Load {
    /// Asks the targets in turn, `rate` requests a second all together.
    ///
    /// # Panics
    /// No targets, no rate, or no thread.
    #[must_use]
    pub fn start(targets: Vec<Target>, rate: u32) -> Self {
        assert!(
            !targets.is_empty() && rate > 0,
            "a load needs targets and a rate"
        );
        let records = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&records);
        let thread = runtime::thread("load", move |tasks| drive(tasks, targets, rate, sink));
        Load {
            thread: thread.expect("a thread"),
            records,
        }
    }

    /// The requests that have ended so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops asking, waits for answers, returns everything by start.
    ///
    /// # Panics
    /// The load's thread panicked.
    #[must_use]
    pub fn stop(self) -> Vec<Record> {
        self.thread.start_drain();
        let blocking = Blocking::new();
        let exit = blocking.wait_long(self.thread.exited());
        assert_eq!(exit, runtime::ThreadExit::Finished, "the load's thread");
        let mut records = self.records();
        records.sort_by_key(|record| record.start);
        records
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.thread.start_drain();
    }
}

/// A target and its idle connections.
struct Pool {
    target: Target,
    idle: RefCell<Vec<Connection>>,
}

/// Starts one request each tick of an absolute clock, until told to stop; then waits for answers.
async fn drive(tasks: Tasks, targets: Vec<Target>, rate: u32, sink: Arc<Mutex<Vec<Record>>>) {
    let pool = |target| {
        Rc::new(Pool {
            target,
            idle: RefCell::default(),
        })
    };
    let pools: Vec<Rc<Pool>> = targets.into_iter().map(pool).collect();
    let drain: Drain = tasks.token();
    let requests = Tasks::new("load-requests");
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for index in (0..pools.len()).cycle() {
        let late;
        tokio::select! {
            biased;
            () = drain.draining() => break,
            due = tick.tick() => late = due.elapsed(),
        }
        assert!(requests.live() < IN_FLIGHT, "too many requests wait");
        let Some(pool) = pools.get(index).map(Rc::clone) else {
            break;
        };
        let (tasks, sink) = (tasks.clone(), Arc::clone(&sink));
        let (start, start_wall) = (runtime::now(), runtime::wall());
        requests.spawn_local("request", async move {
            let asked = tokio::time::timeout(PATIENCE, ask(&tasks, &pool)).await;
            let slow = || Err(format!("nothing within {} s", PATIENCE.as_secs()));
            let outcome = asked.unwrap_or_else(|_| slow());
            let end = runtime::now();
            let record = Record {
                target: index,
                start,
                start_wall,
                late,
                end,
                outcome,
            };
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(record);
        });
    }
    requests.drain(PATIENCE + Duration::from_secs(1)).await;
}

async fn ask(tasks: &Tasks, pool: &Pool) -> Result<(u16, Option<Story>), String> {
    let target = &pool.target;
    let request = Request::get(&target.path).header("host", &target.host);
    let request = request.body(Bytes::new()).map_err(said)?;
    let idle = pool.idle.borrow_mut().pop().filter(Connection::is_open);
    let mut connection = match idle {
        Some(connection) => connection,
        None => Connection::plain(tasks, target.from, target.address).await?,
    };
    let reply = connection.send(request).await?;
    let story = if reply.status == 200 {
        Some(reply.story()?)
    } else {
        None
    };
    if pool.idle.borrow().len() < KEPT {
        pool.idle.borrow_mut().push(connection);
    }
    Ok((reply.status, story))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_delays_no_other_request() {
        let (tell, address) = std::sync::mpsc::sync_channel(1);
        let demo = runtime::thread("demo", move |tasks| async move {
            let identity = lab::demo::Identity {
                tenant: "t".to_owned(),
                site: "s".to_owned(),
                endpoint: "e".to_owned(),
            };
            let demo = lab::demo::Demo::bind(identity, ([127, 0, 0, 1], 0).into());
            let demo = demo.expect("bound");
            tell.send(demo.address()).expect("the test waits");
            tokio::select! {
                () = demo.run() => {}
                () = async { tasks.token().draining().await } => {}
            }
        });
        let address: SocketAddr = address.recv().expect("an address");
        let slow = Request::post("/control").header("host", "x");
        let slow = slow.body(Bytes::from_static(b"{\"delay_ms\":200}"));
        let mut client = crate::Client::new();
        let told = client.send(address, slow.expect("a request"));
        assert_eq!(told.expect("an answer").status, 204);
        let target = Target {
            address,
            from: None,
            host: "x".to_owned(),
            path: "/".to_owned(),
        };
        let began = runtime::now();
        let load = Load::start(vec![target], 100);
        crate::wait_until("50 answers", Duration::from_secs(10), || {
            let n = load.records().len();
            if n >= 50 { Ok(()) } else { Err(n) }
        });
        // One after the other they would need 10 s.
        assert!(runtime::now().since(began) < Duration::from_secs(5));
        let records = load.stop();
        assert!(records.iter().all(|record| !record.has_failed()));
        assert!(
            records
                .iter()
                .all(|record| record.took() >= Duration::from_millis(200))
        );
        let story = records.first().and_then(Record::story).expect("a story");
        assert_eq!((story.site.as_str(), story.address), ("s", address));
        demo.expect("a thread").start_drain();
    }
}
