//! The book by a clock of its own, and a load against a demo application.

use super::*;
use crate::demo::{Demo, Identity};

fn at(ms: u64) -> base::Instant {
    base::Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn by(endpoint: &str) -> Result<Option<(String, String)>, String> {
    Ok(Some((endpoint.to_owned(), "aws".to_owned())))
}

#[test]
fn figures_are_of_what_began_in_their_stretches() {
    let mut book = Book::open(at(0));
    let first = book.begin(at(10), Duration::from_millis(2)).expect("begun");
    let slow = book.begin(at(20), Duration::ZERO).expect("begun");
    book.end(at(15), first, by("cart-1"));
    assert_eq!(book.mark(at(100)), Some(1));
    let failed = book.begin(at(150), Duration::ZERO).expect("begun");
    let good = book.begin(at(160), Duration::ZERO).expect("begun");
    book.end(at(170), failed, Err("status 502".to_owned()));
    book.end(at(180), good, by("cart-2"));

    let before = book.figures(at(200), 0, Some(1));
    let counts = (before.sent, before.good, before.failed, before.waiting);
    assert_eq!(counts, (2, 1, 0, 1));
    assert_eq!((before.waits_us, before.late_us), (180_000, 2_000));
    assert_eq!(before.failed_until_us, None);

    let since = book.figures(at(200), 1, None);
    let counts = (since.sent, since.good, since.failed, since.waiting);
    assert_eq!(counts, (2, 1, 1, 0));
    assert_eq!(since.failed_until_us, Some(50_000));
    assert_eq!(since.failed_ago_us, Some(50_000));
    assert_eq!(since.good_ago_us, Some(40_000));
    assert_eq!((since.slowest_us, since.p99_us), (20_000, 20_000));
    assert_eq!(since.by, BTreeMap::from([("cart-2.aws".to_owned(), 1)]));
    assert_eq!(since.errors, BTreeMap::from([("status 502".to_owned(), 1)]));

    // What began in a stretch counts there, whenever it ends.
    book.end(at(520), slow, by("cart-1"));
    let before = book.figures(at(600), 0, Some(1));
    assert_eq!((before.good, before.slowest_us), (2, 500_000));
    assert_eq!(book.figures(at(600), 0, None).sent, 4);
    book.stop();
    assert_eq!(book.begin(at(600), Duration::ZERO), None);
}

#[test]
fn shares_are_known_to_one_part_in_64() {
    let mut book = Book::open(at(0));
    for ms in 1..=100 {
        let id = book.begin(at(0), Duration::ZERO).expect("begun");
        book.end(at(ms), id, Ok(None));
    }
    let figures = book.figures(at(200), 0, None);
    for (us, exact) in [
        (figures.p50_us, 50_000),
        (figures.p90_us, 90_000),
        (figures.p99_us, 99_000),
    ] {
        assert!(
            (exact..=exact + exact / 32).contains(&us),
            "{us} of {exact}"
        );
    }
    assert_eq!(figures.slowest_us, 100_000);
}

fn identity() -> Identity {
    Identity {
        tenant: "t".to_owned(),
        site: "s".to_owned(),
        endpoint: "e-1".to_owned(),
    }
}

#[tokio::test]
async fn a_load_is_told_and_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Demo::bind(identity(), ([127, 0, 0, 1], 0).into()).expect("bound");
    let target = |path: &str| Target {
        address: demo.address(),
        host: "x.example".to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
    };
    let socket = folder.path().join("load.sock");
    let config = Config {
        control: socket.clone(),
        // One of two is refused by the application.
        targets: vec![target("/"), target("/control")],
        rate: 500,
        timeout_ms: 5_000,
        status: 200,
    };
    let text = serde_json::to_vec(&config).expect("JSON");
    std::fs::write(folder.path().join("load.json"), text).expect("written");
    let read = Config::read(&folder.path().join("load.json")).expect("read");
    assert_eq!(read, config);
    let load = Load::bind(config).expect("bound");
    let told = |order: Command| {
        let socket = socket.clone();
        async move {
            let said = tokio::task::spawn_blocking(move || command(&socket, &order));
            said.await.expect("no panic").expect("a reply")
        }
    };
    let figures = async |since| match told(Command::Figures { since, until: None }).await {
        Reply::Figures(figures) => *figures,
        other @ (Reply::Ok {} | Reply::Marked(_) | Reply::Error(_)) => panic!("{other:?}"),
    };
    let talk = async {
        let first = loop {
            let figures = figures(0).await;
            if figures.good >= 20 && figures.failed >= 20 {
                break figures;
            }
        };
        assert_eq!(first.by.keys().collect::<Vec<_>>(), ["e-1.s"]);
        assert_eq!(first.errors.keys().collect::<Vec<_>>(), ["status 400"]);
        assert_eq!(told(Command::Mark {}).await, Reply::Marked(1));
        assert_eq!(told(Command::Stop {}).await, Reply::Ok {});
        while figures(0).await.waiting > 0 {}
        let ended = figures(0).await;
        assert_eq!(ended.sent, ended.good + ended.failed);
    };
    tokio::select! {
        () = demo.run() => panic!("it runs for ever"),
        () = load.run() => panic!("it runs for ever"),
        talked = tokio::time::timeout(Duration::from_secs(30), talk) => talked.expect("in time"),
    }
}

#[tokio::test]
async fn one_question() {
    let demo = Demo::bind(identity(), ([127, 0, 0, 1], 0).into()).expect("bound");
    let target = Target {
        address: demo.address(),
        host: "x.example".to_owned(),
        path: "/".to_owned(),
        headers: BTreeMap::new(),
    };
    let patience = Duration::from_secs(5);
    let answer = tokio::select! {
        () = demo.run() => panic!("it runs for ever"),
        answer = ask(&target, patience) => answer.expect("an answer"),
    };
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.by, Some(("e-1".to_owned(), "s".to_owned())));
    assert!(ask(&target, patience).await.is_err(), "it is gone");
}
