//! The HTTP/3 server side of one connection (RFC 9114), on QUIC by the `quinn` crate.

mod side;
mod stream;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use base::Instant;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{sync::watch, time::timeout};

use super::{Client, ConnInfo, h2};
use crate::{
    alarm::Alarm,
    exchange,
    http3::{
        Code,
        control::{self, Control},
        frame::goaway,
    },
    worker::Worker,
};
pub(crate) use stream::H3;

/// Receive window of a connection that had a request.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How long a client has to hear that the connection ends before requests are refused.
const LEAVING: Duration = Duration::from_millis(300);
/// The largest ID of a client's request stream (RFC 9114 §5.2).
const ANY_REQUEST: u64 = (1 << 62) - 4;
/// What requests that are given up or malformed may cost, beyond what was earned, in a span of
/// [`SPAN`] (RFC 9114 §10.5); each costs so much, and one that was served earns one.
const ALLOWANCE: u32 = 1_000;
const SPAN: Duration = Duration::from_secs(10);
const COST: u32 = 5;

/// A connection, as its streams see it.
pub(super) struct Shared {
    worker: Rc<Worker>,
    connection: Connection,
    /// The client's control stream, and which of its streams there were.
    control: RefCell<Control>,
    sides: Cell<u8>,
    balance: Cell<u32>,
    /// When the allowance was last given.
    given: Cell<Instant>,
    /// Had it a request?
    begun: Cell<bool>,
}

impl Shared {
    /// End the connection for what its client did.
    fn refuse(&self, code: Code) {
        self.worker.metrics.malformed.inc();
        self.connection.close(error(code), b"");
    }

    /// A request that was worth its while.
    fn earn(&self) {
        let more = self.balance.get().saturating_add(1);
        self.balance.set(more.min(ALLOWANCE));
    }

    /// One that was not. The clock is read only when the allowance is used up.
    fn charge(&self) {
        if self.balance.get() < COST {
            let now = runtime::now();
            if now.since(self.given.get()) < SPAN {
                return self.refuse(Code::ExcessiveLoad);
            }
            self.given.set(now);
            self.balance.set(ALLOWANCE);
        }
        self.balance.set(self.balance.get() - COST);
    }

    /// A request came whole.
    fn begin(&self) {
        self.control.borrow_mut().earn();
        if !self.begun.replace(true) {
            let window = VarInt::from_u32(CONNECTION_WINDOW);
            self.connection.set_receive_window(window);
        }
    }
}

pub(crate) const fn error(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client was asked to go; what is on its way is still served.
    Asked,
    /// What comes now is refused.
    Told,
}

/// Serve a connection until it ends; when it has to go it says GOAWAY and finishes its streams.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    connection: Connection,
    info: ConnInfo,
    mut gone: watch::Receiver<bool>,
) {
    let limits = worker.snapshot().limits;
    let opening = open(&connection, limits.header_bytes);
    let Ok(Some(mut ours)) = timeout(limits.header_timeout, opening).await else {
        worker.metrics.malformed.inc();
        return connection.close(error(Code::StreamCreationError), b"");
    };
    let shared = Rc::new(Shared {
        worker,
        connection: connection.clone(),
        control: RefCell::new(Control::new()),
        sides: Cell::default(),
        balance: Cell::new(ALLOWANCE),
        given: Cell::new(runtime::now()),
        begun: Cell::default(),
    });
    let mut info = Rc::new(info);
    let mut requests = pin!(connection.accept_bi());
    let mut others = pin!(connection.accept_uni());
    let mut gone = pin!(gone.wait_for(|gone| *gone));
    let (mut streams, mut sides) = (FuturesUnordered::new(), FuturesUnordered::new());
    let patience = shared.worker.bear(limits.idle_timeout, info.seat.as_ref());
    let mut alarm = Alarm::new(patience);
    let mut leaving = Leaving::No;
    let mut next = 0;
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
                if leaving == Leaving::No {
                    alarm.set(limits.idle_timeout);
                }
            }
            while let Poll::Ready(Some(())) = sides.poll_next_unpin(cx) {}
            match requests.as_mut().poll(cx) {
                Poll::Ready(Ok((send, recv))) => {
                    requests.set(connection.accept_bi());
                    if leaving == Leaving::Told {
                        stream::reject(send, recv);
                        continue;
                    }
                    next = next.max(u64::from(send.id()) + 4);
                    moved(&mut info, &connection);
                    streams.push(request(Rc::clone(&shared), Rc::clone(&info), send, recv));
                    if shared.worker.turns.is_long(cx) {
                        return Poll::Pending;
                    }
                    continue;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match others.as_mut().poll(cx) {
                Poll::Ready(Ok(recv)) => {
                    others.set(connection.accept_uni());
                    sides.push(side::read(Rc::clone(&shared), recv));
                    continue;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            let rang = alarm.poll(cx).is_ready();
            let (now, id) = match leaving {
                Leaving::No
                    if rang && streams.is_empty()
                        || gone.as_mut().poll(cx).is_ready()
                        || info.poll_leave(cx).is_ready() =>
                {
                    (Leaving::Asked, ANY_REQUEST)
                }
                Leaving::Asked if rang => (Leaving::Told, next),
                // What was said last is on its way by then.
                Leaving::Told if rang && streams.is_empty() => return Poll::Ready(()),
                Leaving::No | Leaving::Asked | Leaving::Told => return Poll::Pending,
            };
            leaving = now;
            alarm.set(LEAVING);
            // A few octets on a stream that has nothing else: there is room, or nobody.
            let _ = pin!(ours.write(&goaway(id))).poll(cx);
        }
    })
    .await;
    connection.close(error(Code::NoError), b"");
    // They have nobody left to answer, and end by that; each still has its record to write.
    while streams.next().await.is_some() {}
}

/// Our control stream, which stays open (RFC 9114 §6.2.1).
async fn open(connection: &Connection, section: usize) -> Option<SendStream> {
    let mut ours = connection.open_uni().await.ok()?;
    ours.write_all(&control::opening(section)).await.ok()?;
    Some(ours)
}

/// The client may have another address by now (RFC 9000 §9), which it has shown to be its own.
fn moved(info: &mut Rc<ConnInfo>, connection: &Connection) {
    let peer = connection.remote_address();
    if info.peer != peer {
        *info = Rc::new(ConnInfo {
            peer,
            local: info.local,
            port: info.port,
            tls: info.tls,
            connect: info.connect,
            sni: info.sni.clone(),
            seat: info.seat.clone(),
            shown: info.shown.clone(),
        });
    }
}

/// The life of a request stream.
async fn request(shared: Rc<Shared>, info: Rc<ConnInfo>, send: SendStream, recv: RecvStream) {
    let worker = Rc::clone(&shared.worker);
    let limits = worker.snapshot().limits;
    let mut stream = H3::new(Rc::clone(&shared), send, recv, limits.header_bytes);
    let head = timeout(limits.header_timeout, poll_fn(|cx| stream.poll_head(cx)));
    let head = match head.await {
        Ok(Some(head)) => head,
        Ok(None) => return,
        Err(_) => return stream.refuse(Code::RequestCancelled),
    };
    shared.begin();
    let checked = head.and_then(|head| h2::request(head, stream.is_done(), stream::PLAIN));
    let request = match checked {
        Ok(mut request) => {
            request.protocol = stream.begin(&request);
            request
        }
        Err(status) => {
            worker.metrics.malformed.inc();
            return stream.answer(status).await;
        }
    };
    let alarm = &mut Alarm::new(limits.request_timeout);
    let client = &mut Client::H3(&mut stream);
    let (worker, info) = (&worker, &info);
    exchange::boxed(move || async move {
        exchange::serve(worker, info, client, alarm, request).await;
    })
    .await;
    stream.finish().await;
}
