//! The end of a connection, with a client that takes its time.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep},
};

use super::*;

/// The preface, empty settings, and `GET /` for `a.example`, whose stream ends with it.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
                       \0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x01\x09a.example";
const BODY: usize = 40_000;
/// What a stream in memory holds.
const ROOM: usize = 2_048;

/// A connection whose only request is answered; no octet of that is written.
fn answered() -> Shared {
    let limits = l7::Limits::default();
    let mut connection = Connection::new(&limits, base::Instant::ZERO);
    assert!(connection.receive(BEGIN, || base::Instant::ZERO));
    let place = connection.next().expect("a request").place;
    let head = connection.head(place, StatusCode::OK, &Fields::default(), false);
    head.expect("it is there");
    let (mut body, mut end) = (Bytes::from(vec![b'x'; BODY]), Some(None));
    let cx = Context::from_waker(std::task::Waker::noop());
    let sent = connection.poll_send(place, &mut body, &mut end, &cx);
    assert!(sent.is_ready(), "there is room for all of it");
    connection.release(place);
    assert!(connection.is_at_rest());
    Rc::new(RefCell::new(connection))
}

/// What a client takes that reads so much at a time.
async fn read(mut client: DuplexStream, pause: Duration) -> Vec<u8> {
    let mut taken = Vec::new();
    loop {
        sleep(pause).await;
        let mut piece = [0; ROOM];
        match client.read(&mut piece).await {
            Ok(0) | Err(_) => return taken,
            Ok(count) => taken.extend_from_slice(&piece[..count]),
        }
    }
}

/// The end of a connection that a client reads so slowly: what it has got, and how long it took.
async fn ended(connection: &Shared, pause: Duration) -> (Vec<u8>, Duration) {
    let (near, far) = duplex(ROOM);
    let mut wire = Wire {
        io: Io::Other(Box::new(near)),
        early: BytesMut::new(),
        flushed: true,
    };
    let began = Instant::now();
    let finishing = async move {
        finish(&mut wire, connection).await;
        began.elapsed()
    };
    let (took, taken) = tokio::join!(finishing, read(far, pause));
    (taken, took)
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_the_last_answer() {
    let (taken, took) = ended(&answered(), Duration::from_millis(400)).await;
    let body = taken.iter().filter(|octet| **octet == b'x').count();
    assert_eq!(body, BODY, "after {took:?}");
    // The last frame is GOAWAY: nobody is told anything after it.
    let (_, last) = taken.split_last_chunk::<17>().expect("a frame");
    assert_eq!(last[..4], [0, 0, 8, 7]);
    assert!(took > Duration::from_secs(7), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_is_waited_for_as_long_as_there_is_an_answer() {
    let pause = Duration::from_secs(3600);
    let (_, took) = ended(&answered(), pause).await;
    assert_eq!(took, LONG_GOODBYE);
    // What is malformed has none to wait for.
    let connection = answered();
    connection
        .borrow_mut()
        .receive(&[0xff; 9], || base::Instant::ZERO);
    assert!(connection.borrow().ended().is_some());
    let (_, took) = ended(&connection, pause).await;
    assert_eq!(took, GOODBYE);
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_not_waited_for() {
    let (near, mut far) = duplex(ROOM);
    far.shutdown().await.expect("ended");
    drop(far);
    let mut wire = Wire {
        io: Io::Other(Box::new(near)),
        early: BytesMut::new(),
        flushed: true,
    };
    let began = Instant::now();
    finish(&mut wire, &answered()).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}
