use std::{path::Path, sync::Arc};

use runtime::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant, timeout},
};

use super::*;

/// No wait of these tests lasts longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The relay promises 1.5 ms a direction; tests ask for twice that.
const ERROR_BOUND: Duration = Duration::from_millis(3);

struct Bench {
    target: TcpListener,
    listen: SocketAddr,
    control: std::path::PathBuf,
    _home: tempfile::TempDir,
    tasks: Tasks,
}

impl Bench {
    async fn new(rtt: Duration) -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("a target");
        let home = tempfile::tempdir().expect("a folder");
        let control = home.path().join("relay.sock");
        let pair = Pair {
            name: "aws-par".to_owned(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            target: target.local_addr().expect("an address"),
            one_way: rtt / 2,
        };
        let config = Config {
            control: Some(control.clone()),
            pairs: vec![pair],
        };
        let relay = Relay::bind(config).expect("binds");
        let listen = relay.listening().next().expect("one pair").1;
        let tasks = Tasks::new("test");
        tasks.spawn("relay", relay.run());
        Bench {
            target,
            listen,
            control,
            _home: home,
            tasks,
        }
    }

    /// The two ends of a connection through the relay.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(self.listen)
            .await
            .expect("the relay accepts");
        let (far, _) = within(self.target.accept()).await.expect("the relay dials");
        near.set_nodelay(true).expect("alive");
        far.set_nodelay(true).expect("alive");
        (near, far)
    }

    async fn tell(&self, what: Command) -> Result<Reply, RelayError> {
        tell(&self.control, what).await
    }

    async fn connections(&self) -> usize {
        match self.tell(Command::List {}).await.expect("a list") {
            Reply::Pairs(pairs) => pairs.iter().map(|pair| pair.connections).sum(),
            reply @ (Reply::Ok {} | Reply::Error(_)) => panic!("{reply:?}"),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.start_drain();
    }
}

async fn tell(socket: &Path, what: Command) -> Result<Reply, RelayError> {
    let socket = socket.to_owned();
    tokio::task::spawn_blocking(move || command(&socket, &what))
        .await
        .expect("no panic")
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

fn pair() -> String {
    "aws-par".to_owned()
}

fn set(rtt_ms: f64) -> Command {
    Command::Set {
        pair: pair(),
        rtt_ms,
    }
}

/// The median of 41 round trips of one byte.
async fn median_rtt(near: &mut TcpStream, far: &mut TcpStream) -> Duration {
    let mut times = Vec::new();
    for byte in 0..41_u8 {
        let start = Instant::now();
        near.write_all(&[byte]).await.expect("alive");
        let mut got = [0];
        within(far.read_exact(&mut got)).await.expect("alive");
        far.write_all(&got).await.expect("alive");
        within(near.read_exact(&mut got)).await.expect("alive");
        assert_eq!(got, [byte]);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn assert_near(measured: Duration, wanted: Duration) {
    println!("asked for {wanted:?}, measured {measured:?}");
    assert!(measured >= wanted, "{measured:?} is under {wanted:?}");
    assert!(
        measured <= wanted + 2 * ERROR_BOUND,
        "{measured:?} is far over {wanted:?}"
    );
}

#[tokio::test]
async fn each_direction_takes_half_the_round_trip_and_follows_changes() {
    let bench = Bench::new(Duration::from_millis(40)).await;
    let (mut near, mut far) = bench.connect().await;
    assert_near(
        median_rtt(&mut near, &mut far).await,
        Duration::from_millis(40),
    );
    for ms in [5_u32, 20, 0] {
        bench.tell(set(f64::from(ms))).await.expect("set");
        let wanted = Duration::from_millis(u64::from(ms));
        assert_near(median_rtt(&mut near, &mut far).await, wanted);
    }
}

#[tokio::test]
async fn setting_up_takes_its_time() {
    let bench = Bench::new(Duration::from_millis(60)).await;
    let start = Instant::now();
    let mut near = TcpStream::connect(bench.listen).await.expect("accepted");
    near.write_all(b"x").await.expect("alive");
    let (mut far, _) = within(bench.target.accept()).await.expect("dialled");
    let dialled = start.elapsed();
    assert_near(dialled, Duration::from_millis(30));
    far.read_exact(&mut [0]).await.expect("a byte");
    assert_near(start.elapsed(), Duration::from_millis(90));
}

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    let mut rng = base::Rng::new(7);
    std::iter::repeat_with(|| rng.next_u64().to_le_bytes())
        .flatten()
        .take(length)
        .collect()
}

#[tokio::test]
async fn bulk_keeps_its_order_both_ways_at_once() {
    let bench = Bench::new(Duration::from_millis(10)).await;
    let (near, far) = bench.connect().await;
    let sent = Arc::new(pattern(24 << 20));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let send = |mut to: tokio::net::tcp::OwnedWriteHalf| {
        let sent = Arc::clone(&sent);
        async move {
            for piece in sent.chunks(70_001) {
                to.write_all(piece).await.expect("alive");
            }
            to.shutdown().await.expect("alive");
        }
    };
    let receive = |mut from: tokio::net::tcp::OwnedReadHalf| async move {
        let mut got = Vec::new();
        from.read_to_end(&mut got).await.expect("alive");
        got
    };
    let start = Instant::now();
    let ((), (), one, other) = within(async {
        tokio::join!(
            send(near_write),
            send(far_write),
            receive(far_read),
            receive(near_read)
        )
    })
    .await;
    println!("2 x 24 MiB in {:?}", start.elapsed());
    assert!(one == *sent && other == *sent, "every byte, in order");
}

#[tokio::test]
async fn fin_is_a_half_close_and_takes_its_time() {
    let bench = Bench::new(Duration::from_millis(40)).await;
    let (mut near, mut far) = bench.connect().await;
    median_rtt(&mut near, &mut far).await;
    near.write_all(b"last").await.expect("alive");
    let start = Instant::now();
    near.shutdown().await.expect("alive");
    let mut got = Vec::new();
    within(far.read_to_end(&mut got))
        .await
        .expect("a clean end");
    assert_eq!(got, b"last");
    assert_near(start.elapsed(), Duration::from_millis(20));
    far.write_all(b"answer")
        .await
        .expect("the other half is open");
    drop(far);
    let mut got = Vec::new();
    within(near.read_to_end(&mut got))
        .await
        .expect("a clean end");
    assert_eq!(got, b"answer");
    while bench.connections().await > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn rst_is_passed_on_in_both_directions_and_takes_its_time() {
    let bench = Bench::new(Duration::from_millis(40)).await;
    for dialler_resets in [true, false] {
        let (mut near, mut far) = bench.connect().await;
        median_rtt(&mut near, &mut far).await;
        let (one, mut other) = if dialler_resets {
            (near, far)
        } else {
            (far, near)
        };
        let start = Instant::now();
        pair::abort(one);
        let error = within(other.read(&mut [0]))
            .await
            .expect_err("a reset, not an end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_near(start.elapsed(), Duration::from_millis(20));
    }
}

#[tokio::test]
async fn rst_is_seen_behind_a_full_queue() {
    let bench = Bench::new(Duration::ZERO).await;
    let (mut near, far) = bench.connect().await;
    // Nobody reads at the far end; write until everything between is full.
    let piece = vec![0; 1 << 20];
    let mut total = 0;
    while let Ok(n) = timeout(Duration::from_millis(500), near.write(&piece)).await {
        total += n.expect("alive");
        assert!(total < 256 << 20, "somewhere between it is bounded");
    }
    println!("{total} bytes fit between two ends");
    pair::abort(near);
    let mut far = far;
    let mut sink = vec![0; 1 << 20];
    let error = loop {
        match within(far.read(&mut sink)).await {
            Ok(n) => assert!(n > 0, "a reset, not an end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_target_that_refuses_is_a_reset() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let target = gone.local_addr().expect("an address");
    drop(gone);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let pair = Pair {
        name: pair(),
        listen,
        target,
        one_way: Duration::from_millis(5),
    };
    let relay = Relay::bind(Config {
        control: None,
        pairs: vec![pair],
    })
    .expect("binds");
    let listen = relay.listening().next().expect("one pair").1;
    let tasks = Tasks::new("test");
    tasks.spawn("relay", relay.run());
    let mut near = TcpStream::connect(listen).await.expect("accepted");
    within(near.read(&mut [0])).await.expect_err("reset");
}

#[tokio::test]
async fn cut_resets_until_healed() {
    let bench = Bench::new(Duration::from_millis(10)).await;
    let (mut near, mut far) = bench.connect().await;
    bench
        .tell(Command::Cut { pair: pair() })
        .await
        .expect("cut");
    for end in [&mut near, &mut far] {
        let error = within(end.read(&mut [0])).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    if let Ok(mut refused) = TcpStream::connect(bench.listen).await {
        within(refused.read(&mut [0])).await.expect_err("reset");
    }
    bench
        .tell(Command::Heal { pair: pair() })
        .await
        .expect("healed");
    let (mut near, mut far) = bench.connect().await;
    median_rtt(&mut near, &mut far).await;
}

#[tokio::test]
async fn stall_is_silence_until_healed() {
    let bench = Bench::new(Duration::from_millis(10)).await;
    let (mut near, mut far) = bench.connect().await;
    median_rtt(&mut near, &mut far).await;
    bench
        .tell(Command::Stall { pair: pair() })
        .await
        .expect("stalled");
    near.write_all(b"held").await.expect("the kernel takes it");
    let mut late = TcpStream::connect(bench.listen)
        .await
        .expect("the kernel accepts");
    late.write_all(b"late").await.expect("the kernel takes it");
    let quiet = Duration::from_millis(100);
    timeout(quiet, far.read(&mut [0]))
        .await
        .expect_err("nothing passes");
    timeout(quiet, late.read(&mut [0]))
        .await
        .expect_err("nothing is closed");
    timeout(quiet, bench.target.accept())
        .await
        .expect_err("nothing is dialled");
    bench
        .tell(Command::Heal { pair: pair() })
        .await
        .expect("healed");
    let mut got = [0; 4];
    within(far.read_exact(&mut got)).await.expect("alive");
    assert_eq!(&got, b"held");
    let (mut far, _) = within(bench.target.accept()).await.expect("dialled");
    within(far.read_exact(&mut got)).await.expect("alive");
    assert_eq!(&got, b"late");
}

#[tokio::test]
async fn control_answers_and_refuses() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(Duration::from_millis(10)).await;
    let mode = std::fs::metadata(&bench.control)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    bench.tell(set(7.5)).await.expect("set");
    let Reply::Pairs(pairs) = bench.tell(Command::List {}).await.expect("a list") else {
        panic!("a list answers list")
    };
    assert_eq!(pairs.len(), 1);
    assert_eq!(
        (pairs[0].rtt_ms, pairs[0].mode, pairs[0].connections),
        (7.5, Mode::Open, 0)
    );
    for bad in [
        set(-1.0),
        set(20_001.0),
        Command::Cut {
            pair: "par-aws".to_owned(),
        },
    ] {
        let error = bench.tell(bad).await.expect_err("refused");
        assert!(matches!(error, RelayError::Refused(_)), "{error}");
    }
    for (line, word) in [
        ("{\"cut\":{\"pair\":\"aws-par\",\"x\":1}}\n", "x"),
        ("nonsense\n", "not a command"),
        (&"x".repeat(5000), "at most"),
    ] {
        let mut client = tokio::net::UnixStream::connect(&bench.control)
            .await
            .expect("listens");
        client.write_all(line.as_bytes()).await.expect("alive");
        client.shutdown().await.ok();
        let mut answer = String::new();
        within(client.read_to_string(&mut answer)).await.ok();
        assert!(
            answer.starts_with("{\"error\":") && answer.contains(word),
            "{answer}"
        );
    }
}

#[test]
fn a_configuration_is_json_of_the_same_shape() {
    let text = r#"{"control":"/run/r.sock","pairs":[{"name":"aws-par",
        "listen":"127.0.0.1:1","target":"127.0.0.1:2","one_way_us":2500}]}"#;
    let config: Config = serde_json::from_str(text).expect("valid");
    assert_eq!(config.pairs[0].one_way, Duration::from_micros(2_500));
    let again = serde_json::to_string(&config).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Config>(&again).expect("valid"),
        config
    );
    serde_json::from_str::<Config>(r#"{"pairs":[],"pears":[]}"#).expect_err("unknown field");
}

#[test]
fn names_and_delays_are_checked() {
    let pair = |name: &str, one_way| Pair {
        name: name.to_owned(),
        listen: "127.0.0.1:0".parse().expect("an address"),
        target: "127.0.0.1:1".parse().expect("an address"),
        one_way,
    };
    let twice = vec![pair("a", Duration::ZERO), pair("a", Duration::ZERO)];
    let config = Config {
        control: None,
        pairs: twice,
    };
    assert!(matches!(Relay::bind(config), Err(RelayError::Duplicate(_))));
    let config = Config {
        control: None,
        pairs: vec![pair("a", Duration::from_secs(11))],
    };
    assert!(matches!(Relay::bind(config), Err(RelayError::Delay(_))));
}
