//! kill -9 under a writer: everything acknowledged is there, byte for byte.
//!
//! The test runs its own binary again as the writer ([`child_writer`]), reads the acknowledged
//! revisions from its output, kills it after a random number of them, and opens the file.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use base::{Revision, Rng};
use bytes::Bytes;

use super::open;
use crate::*;

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
const VARIABLE: &str = "SEALANE_STORE_CRASH_FOLDER";

/// What transaction `number` of a writer puts: recomputable, and of 0–3,999 bytes.
fn value(round: u64, writer: u64, number: u64) -> Bytes {
    let mut rng = Rng::new(round << 40 | writer << 32 | number);
    let length = rng.next_u64() % 4000;
    (0..length)
        .map(|_| rng.next_u64().to_be_bytes()[0])
        .collect::<Vec<u8>>()
        .into()
}

fn key(writer: u64, number: u64) -> String {
    format!("writer{writer}/{}", number % 50)
}

/// Not a test by itself: the process that is killed.
#[tokio::test]
async fn child_writer() {
    let (Ok(folder), Ok(round)) = (
        std::env::var(VARIABLE),
        std::env::var("SEALANE_STORE_ROUND"),
    ) else {
        return;
    };
    let round: u64 = round.parse().expect("a number");
    let store = open(Path::new(&folder), Options::default());
    let writer = |writer: u64| {
        let store = store.clone();
        async move {
            for number in 0.. {
                let ops = vec![
                    Op::put(key(writer, number), value(round, writer, number)),
                    Op::put(format!("last/{writer}"), number.to_string()),
                ];
                let revision = store.transact(ops).await.expect("a revision");
                let line = format!("ack {revision} {writer} {number}\n");
                std::io::stdout()
                    .lock()
                    .write_all(line.as_bytes())
                    .expect("stdout");
            }
        }
    };
    tokio::join!(writer(0), writer(1), writer(2), writer(3));
}

fn spawn(folder: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "tests::crash::child_writer",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(VARIABLE, folder)
        .env("SEALANE_STORE_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Reads acknowledgements, kills after `count` of them, and reads what was still in the pipe:
/// `(revision, writer, number)` each.
fn acknowledged(mut child: Child, count: u64) -> Vec<(u64, u64, u64)> {
    let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
    let mut all = Vec::new();
    let mut line = String::new();
    let mut killed = false;
    while lines.read_line(&mut line).expect("a line") > 0 {
        // A line cut by the kill was not acknowledged as far as anybody can tell.
        if let (Some(ack), true) = (line.find("ack "), line.ends_with('\n')) {
            let numbers: Vec<u64> = line[ack + 4..]
                .split_whitespace()
                .map(|n| n.parse().expect("a number"))
                .collect();
            let [revision, writer, number] = numbers[..] else {
                panic!("{line}")
            };
            all.push((revision, writer, number));
        }
        line.clear();
        if !killed && all.len() as u64 >= count {
            child.kill().expect("SIGKILL");
            killed = true;
        }
    }
    child.wait().expect("the child's end");
    assert!(
        killed,
        "the writer ended by itself after {} acknowledgements",
        all.len()
    );
    all
}

async fn check(store: &Store, before: Revision, round: u64, acks: &[(u64, u64, u64)]) -> Revision {
    let mut acks: BTreeMap<u64, (u64, u64)> = acks
        .iter()
        .map(|(revision, writer, number)| (*revision, (*writer, *number)))
        .collect();
    let listing = store.list("").await.expect("a listing");
    let mut watch = store.watch("", before).await.expect("a watch");
    let mut present = BTreeMap::new();
    for revision in before.0 + 1..=listing.revision.0 {
        let events = watch.next().await.expect("no gap");
        assert_eq!((events.len(), events[0].revision), (2, Revision(revision)));
        if let Some((writer, number)) = acks.remove(&revision) {
            assert_eq!(*events[0].key, key(writer, number));
            assert_eq!(
                events[0].value,
                Some(value(round, writer, number)),
                "{revision}"
            );
            assert_eq!(
                events[1].value,
                Some(number.to_string().into()),
                "{revision}"
            );
        }
        for event in events {
            present.insert(event.key.to_string(), (event.value, revision));
        }
    }
    assert!(acks.is_empty(), "acknowledged and lost: {acks:?}");
    // The present is what the history adds up to.
    for (key, (value, revision)) in present {
        let entry = store.get(&key).await.expect("get").expect("an entry");
        assert_eq!(
            (Some(entry.value), entry.modified),
            (value, Revision(revision)),
            "{key}"
        );
    }
    listing.revision
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rng = Rng::new(2);
    let mut revision = Revision(0);
    for round in 0..ROUNDS {
        let count = 1 + rng.next_u64() % 120;
        let acks = acknowledged(spawn(folder.path(), round), count);
        assert!(acks.iter().all(|(_, writer, _)| *writer < WRITERS));
        let store = open(folder.path(), Options::default());
        revision = check(&store, revision, round, &acks).await;
        store.close().await;
    }
    assert!(revision.0 > ROUNDS, "{revision}");
}
