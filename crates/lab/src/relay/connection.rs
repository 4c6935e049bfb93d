//! One connection: two sockets and two lanes in one task.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::Interest,
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    lane::{CHUNK, Lane, Step},
    pair::{Mode, State, abort},
};
use crate::timer::Timer;

/// The longest wait for the target's kernel to answer.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// Reads of one lane in one turn, so that neither direction starves the other.
const READS_A_TURN: usize = 16;

/// Carries one accepted connection to its end.
pub(super) async fn carry(near: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let accepted = Instant::now();
    let Ok(mut timer) = Timer::new() else {
        return abort(near);
    };
    if !travel(accepted, 1, &mut state, &mut timer).await {
        return abort(near);
    }
    let far = timeout(DIAL_LIMIT, TcpStream::connect(target)).await;
    let answered = Instant::now();
    let Ok(Ok(far)) = far else {
        // The refusal takes its way back too; whatever the way brings, the end is a reset.
        travel(answered, 1, &mut state, &mut timer).await;
        return abort(near);
    };
    if !travel(accepted, 2, &mut state, &mut timer).await {
        abort(far);
        return abort(near);
    }
    let nodelay = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
    if nodelay.is_err() {
        abort(far);
        return abort(near);
    }
    let mut connection = Connection {
        near: End::new(near),
        far: End::new(far),
    };
    connection.run(&mut state, &mut timer).await;
}

/// Waits until `hops` delays have passed `since` and the pair is open; false if it was cut.
async fn travel(
    since: Instant,
    hops: u32,
    state: &mut watch::Receiver<State>,
    timer: &mut Timer,
) -> bool {
    loop {
        let State { one_way, mode } = *state.borrow_and_update();
        let due = since + one_way * hops;
        let at = match mode {
            Mode::Cut => return false,
            Mode::Stall => None,
            Mode::Open if due <= Instant::now() => return true,
            Mode::Open => Some(due),
        };
        tokio::select! {
            () = timer.until(at) => {}
            changed = state.changed() => if changed.is_err() { return false },
        }
    }
}

/// One socket and the lane of what it sent.
struct End {
    stream: TcpStream,
    sent: Lane,
    /// The last write to this socket found its buffer full.
    full: bool,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        End {
            stream,
            sent: Lane::default(),
            full: false,
        }
    }

    /// What to wait for at this socket: `None` once it is aborted.
    fn interest(&self) -> Option<Interest> {
        let read = self.sent.wants_more().then_some(Interest::READABLE);
        let write = self.full.then_some(Interest::WRITABLE);
        match (read, write) {
            (Some(read), Some(write)) => Some(read | write),
            (Some(one), None) | (None, Some(one)) => Some(one),
            // Not reading, an RST would stay unseen.
            (None, None) if !self.sent.was_reset() => Some(Interest::ERROR),
            (None, None) => None,
        }
    }

    /// Takes what the socket has, as far as the lane has room.
    fn read(&mut self) {
        for _ in 0..READS_A_TURN {
            if !self.sent.wants_more() {
                return;
            }
            let mut bytes = Vec::with_capacity(CHUNK);
            match self.stream.try_read_buf(&mut bytes) {
                Ok(0) => self.sent.finish(Instant::now()),
                Ok(n) => {
                    if n < CHUNK / 2 {
                        bytes.shrink_to_fit();
                    }
                    self.sent.push(Instant::now(), bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.sent.reset(Instant::now()),
            }
        }
    }

    /// Waits until the socket may be ready for what [`End::interest`] says.
    async fn ready(&self) -> bool {
        let Some(interest) = self.interest() else {
            return std::future::pending().await;
        };
        match self.stream.ready(interest).await {
            Ok(ready) => ready.is_error(),
            Err(_) => true,
        }
    }
}

/// What a turn of one direction left behind.
enum Turn {
    Wait(Option<Instant>),
    Over,
    Reset,
}

struct Connection {
    near: End,
    far: End,
}

impl Connection {
    async fn run(&mut self, state: &mut watch::Receiver<State>, timer: &mut Timer) {
        loop {
            let State { one_way, mode } = *state.borrow_and_update();
            match mode {
                Mode::Open => {}
                Mode::Cut => return self.abort(),
                Mode::Stall => match state.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            self.near.read();
            self.far.read();
            let up = deliver(&mut self.near, &mut self.far, one_way);
            let down = deliver(&mut self.far, &mut self.near, one_way);
            let at = match (up, down) {
                (Turn::Reset, _) | (_, Turn::Reset) => return self.abort(),
                (Turn::Over, Turn::Over) => return,
                (Turn::Over, Turn::Wait(at)) | (Turn::Wait(at), Turn::Over) => at,
                (Turn::Wait(one), Turn::Wait(other)) => one.into_iter().chain(other).min(),
            };
            tokio::select! {
                failed = self.near.ready() => if failed { self.near.fail() },
                failed = self.far.ready() => if failed { self.far.fail() },
                () = timer.until(at) => {}
                changed = state.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Resets both sockets when they are dropped.
    fn abort(&mut self) {
        for end in [&self.near, &self.far] {
            // Only a socket that is gone refuses; then there is nothing left to reset.
            socket2::SockRef::from(&end.stream)
                .set_linger(Some(Duration::ZERO))
                .ok();
        }
    }
}

impl End {
    /// The socket reported an error while nobody read it. If bytes may still be read, reading
    /// finds the error behind them.
    fn fail(&mut self) {
        if !self.sent.wants_more() {
            self.sent.reset(Instant::now());
        }
    }
}

/// Gives `to` what `from` sent and what is due.
fn deliver(from: &mut End, to: &mut End, one_way: Duration) -> Turn {
    to.full = false;
    loop {
        let rst = from.sent.reset_due(one_way);
        match from.sent.step(Instant::now(), one_way) {
            Step::Idle => return Turn::Wait(None),
            Step::Wait(at) => return Turn::Wait(Some(rst.map_or(at, |rst| at.min(rst)))),
            Step::Over => return Turn::Over,
            Step::Reset => return Turn::Reset,
            Step::Finish => {
                from.sent.finished();
                let socket = socket2::SockRef::from(&to.stream);
                if socket.shutdown(std::net::Shutdown::Write).is_err() {
                    to.sent.reset(Instant::now());
                }
            }
            Step::Write(bytes) => match to.stream.try_write(bytes) {
                Ok(n) => from.sent.wrote(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    to.full = true;
                    return Turn::Wait(rst);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // `to` is gone: its RST goes back to `from`; what `from` sent is lost.
                    to.sent.reset(Instant::now());
                    from.sent.discard(Instant::now());
                }
            },
        }
    }
}
