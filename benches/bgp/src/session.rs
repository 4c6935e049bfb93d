//! One BGP session: a blocking reader thread, and a writer who comes when there is something.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bench_kit::clock::{Deadline, now};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    counter::{Counter, Sight},
    wire::{self, Family, HEADER, KEEPALIVE, Origin},
};

/// What is written at once, about.
const CHUNK: usize = 256 * 1024;

/// What is read at once, at most.
const BUFFER: usize = 1024 * 1024;

/// What is little.
const LITTLE: usize = 64 * 1024;

/// What the kernel may hold for a reader that sleeps.
const RECEIVE: usize = 4 * 1024 * 1024;

/// How often a KEEPALIVE is written. The daemons are asked for a hold time of minutes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Sightings that may wait for their reader; more means nobody is watching, and they are dropped.
const SIGHTS: usize = 4096;

/// How a session is opened and what it counts.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) origin: Origin,
    pub(crate) daemon: SocketAddr,
    pub(crate) families: &'a [Family],
    /// What is counted: the family, and how many routes it has at most.
    pub(crate) counted: (Family, u32),
    /// The route whose changes are told by [`Session::sight`].
    pub(crate) watched: Option<u32>,
    /// How long the reader sleeps after it got little, so that a daemon that writes message by
    /// message does not pay for waking it each time.
    pub(crate) nap: Option<Duration>,
    /// What this session announces itself; not counted.
    pub(crate) own: Range<u32>,
}

/// An established session.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Held while whole messages are written.
    writer: Mutex<TcpStream>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    have: u32,
    goal: Option<u32>,
    reached: Option<Instant>,
    foreign: u64,
    sights: VecDeque<(Instant, Sight)>,
    ended: Option<String>,
}

impl Session {
    /// Dials until the daemon takes the session or `patience` ends, then reads in the background.
    pub(crate) fn establish(
        spec: &Spec<'_>,
        mut patience: impl FnMut() -> bool,
    ) -> Result<Session> {
        let stream = loop {
            match handshake(spec) {
                Ok(stream) => break stream,
                Err(error) if !patience() => {
                    return Err(error).context(format!("no session from {}", spec.origin.address));
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        };
        let (family, limit) = spec.counted;
        let reader = Reader {
            stream: stream.try_clone().context("a second handle")?,
            counter: Counter::new(family, limit, spec.watched, spec.own.clone()),
            nap: spec.nap,
        };
        let shared = Arc::new(Shared {
            writer: Mutex::new(stream),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let there = Arc::clone(&shared);
        let reader = thread::Builder::new()
            .name("reader".to_owned())
            .spawn(move || reader.run(&there))
            .context("a reader thread")?;
        Ok(Session {
            shared,
            reader: Some(reader),
        })
    }

    /// From now on, [`Session::wait`] waits until there are exactly so many routes.
    pub(crate) fn expect(&self, goal: u32) {
        let mut state = lock(&self.shared.state);
        state.goal = Some(goal);
        state.reached = (state.have == goal).then(now);
    }

    /// When the last expected route was there.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Instant> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(reached) = state.reached {
                ensure!(state.foreign == 0, "{} foreign routes", state.foreign);
                return Ok(reached);
            }
            if let Some(ended) = &state.ended {
                bail!("the session ended with {} routes: {ended}", state.have);
            }
            if deadline.passed() {
                bail!("only {} of {:?} routes in time", state.have, state.goal);
            }
            let waited = self.shared.changed.wait_timeout(state, deadline.left());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes whole messages; returns when the first octet was about to be written.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<Instant> {
        let start = now();
        let mut rest = messages;
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(whole(rest));
            let mut writer = lock(&self.shared.writer);
            writer.write_all(chunk).context("writing")?;
            rest = more;
        }
        Ok(start)
    }

    /// The next change of the watched route.
    pub(crate) fn sight(&self, deadline: Deadline) -> Result<(Instant, Sight)> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(sight) = state.sights.pop_front() {
                return Ok(sight);
            }
            if deadline.passed() || state.ended.is_some() {
                bail!("the watched route was not seen ({:?})", state.ended);
            }
            let waited = self.shared.changed.wait_timeout(state, deadline.left());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An error says that the daemon was faster.
        let _ = lock(&self.shared.writer).shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

struct Reader {
    stream: TcpStream,
    counter: Counter,
    nap: Option<Duration>,
}

impl Reader {
    fn run(mut self, shared: &Shared) {
        let ended = match self.read(shared) {
            Ok(()) => "closed".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        lock(&shared.state).ended = Some(ended);
        shared.changed.notify_all();
    }

    fn read(&mut self, shared: &Shared) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut filled = 0;
        let mut kept_alive = now();
        loop {
            let length = match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if idle(error.kind()) => 0,
                Err(error) => return Err(error).context("reading"),
            };
            filled += length;
            let taken = self.counter.feed(&buffer[..filled])?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
            let at = now();
            self.tell(shared, at);
            if at - kept_alive > KEEPALIVE_INTERVAL {
                // Somebody writing is as good as a KEEPALIVE, and waiting here could block both.
                if let Ok(mut writer) = shared.writer.try_lock() {
                    writer.write_all(&KEEPALIVE).context("keeping alive")?;
                }
                kept_alive = at;
            }
            if let Some(nap) = self.nap
                && (1..LITTLE).contains(&length)
            {
                thread::sleep(nap);
            }
        }
    }

    fn tell(&mut self, shared: &Shared, at: Instant) {
        let mut state = lock(&shared.state);
        for sight in self.counter.sights.drain(..) {
            if state.sights.len() < SIGHTS {
                state.sights.push_back((at, sight));
            }
            shared.changed.notify_all();
        }
        state.have = self.counter.have();
        state.foreign = self.counter.foreign;
        if state.reached.is_none() && state.goal == Some(state.have) {
            state.reached = Some(at);
            shared.changed.notify_all();
        }
    }
}

fn idle(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// The length of whole messages that are together about a chunk; all if less are there.
fn whole(messages: &[u8]) -> usize {
    let mut length = 0;
    while length < CHUNK
        && let Some(header) = messages[length..].first_chunk::<HEADER>()
    {
        length += usize::from(u16::from_be_bytes([header[16], header[17]]));
    }
    length.min(messages.len())
}

/// OPEN and KEEPALIVE both ways; afterwards the daemon has the session established.
fn handshake(spec: &Spec<'_>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = SocketAddr::from((spec.origin.address, 0));
    socket.bind(&SockAddr::from(source))?;
    socket.set_recv_buffer_size(RECEIVE)?;
    socket.connect_timeout(&SockAddr::from(spec.daemon), Duration::from_secs(2))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&wire::open(spec.origin, spec.families))?;
    for kind in [1, 4] {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(HEADER)];
        stream.read_exact(&mut body)?;
        ensure!(header[18] == kind, "{header:02x?} {body:02x?}");
        if kind == 1 {
            stream.write_all(&KEEPALIVE)?;
        }
    }
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(stream)
}

/// A thread that panicked leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
