//! What every backend must do: each case gets fresh stores from `fresh` and knows no backend.

use base::Revision;
use bytes::Bytes;

use super::{fresh, next, revision};
use crate::*;

fn small(history_revisions: u64) -> Options {
    Options {
        history_revisions,
        ..Options::default()
    }
}

#[tokio::test]
async fn puts_gets_and_deletes() {
    let (_folder, store) = fresh(Options::default());
    assert_eq!(store.get("a").await.expect("get"), None);
    assert_eq!(
        store.transact(vec![Op::put("a", "1")]).await.expect("put"),
        Revision(1)
    );
    assert_eq!(
        store.transact(vec![Op::put("a", "2")]).await.expect("put"),
        Revision(2)
    );
    let entry = store.get("a").await.expect("get").expect("an entry");
    let value = Bytes::from("2");
    assert_eq!(
        entry,
        Entry {
            value,
            created: Revision(1),
            modified: Revision(2)
        }
    );
    assert_eq!(
        store.transact(vec![Op::delete("a")]).await.expect("delete"),
        Revision(3)
    );
    assert_eq!(store.get("a").await.expect("get"), None);
    store.transact(vec![Op::put("a", "")]).await.expect("put");
    let entry = store.get("a").await.expect("get").expect("an entry");
    assert_eq!((entry.created, entry.value.len()), (Revision(4), 0));
}

#[tokio::test]
async fn nothing_changed_is_no_revision() {
    let (_folder, store) = fresh(Options::default());
    assert_eq!(store.transact(vec![]).await.expect("nothing"), Revision(0));
    assert_eq!(
        store
            .transact(vec![Op::delete("a")])
            .await
            .expect("nothing"),
        Revision(0)
    );
    store.transact(vec![Op::put("a", "1")]).await.expect("put");
    let check = Op::Check {
        key: "a".into(),
        expect: Expect::Revision(Revision(1)),
    };
    assert_eq!(
        store.transact(vec![check]).await.expect("nothing"),
        Revision(1)
    );
    assert_eq!(revision(&store).await, Revision(1));
}

#[tokio::test]
async fn lists_by_prefix_in_order_of_bytes() {
    let (_folder, store) = fresh(Options::default());
    for key in [
        "b",
        "a/b",
        "a/",
        "a",
        "a/\u{10ffff}",
        "a/é",
        "a/a",
        "a0",
        "a/b/c",
    ] {
        store.transact(vec![Op::put(key, "")]).await.expect("put");
    }
    let keys = async |prefix| {
        let listing = store.list(prefix).await.expect("a listing");
        assert_eq!(listing.revision, Revision(9));
        listing
            .entries
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(keys("a/").await, "a/ a/a a/b a/b/c a/é a/\u{10ffff}");
    assert_eq!(keys("").await, "a a/ a/a a/b a/b/c a/é a/\u{10ffff} a0 b");
    assert_eq!(keys("c").await, "");
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not() {
    let (_folder, store) = fresh(Options::default());
    store
        .transact(vec![Op::put("a", "1"), Op::put("b", "1")])
        .await
        .expect("put");
    let conflicts: [(Op, Option<Revision>); 6] = [
        (Op::put("a", "x").expect(Expect::Absent), Some(Revision(1))),
        (
            Op::put("a", "x").expect(Expect::Revision(Revision(2))),
            Some(Revision(1)),
        ),
        (
            Op::put("c", "x").expect(Expect::Revision(Revision(1))),
            None,
        ),
        (Op::delete("c").expect(Expect::Revision(Revision(1))), None),
        (Op::delete("a").expect(Expect::Absent), Some(Revision(1))),
        (
            Op::Check {
                key: "a".into(),
                expect: Expect::Absent,
            },
            Some(Revision(1)),
        ),
    ];
    for (op, expected) in conflicts {
        let key_expected = op.key().to_owned();
        let refused = store
            .transact(vec![Op::put("d", "x"), Op::delete("b"), op])
            .await;
        let Err(TransactError::Conflict { key, current }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((key, current), (key_expected, expected));
    }
    let listing = store.list("").await.expect("a listing");
    assert_eq!(listing.revision, Revision(1));
    assert_eq!(listing.entries.len(), 2);
    let ops = vec![
        Op::put("a", "2").expect(Expect::Revision(Revision(1))),
        Op::put("c", "2").expect(Expect::Absent),
        Op::delete("b").expect(Expect::Revision(Revision(1))),
    ];
    assert_eq!(store.transact(ops).await.expect("all hold"), Revision(2));
}

#[tokio::test]
async fn only_one_of_many_wins() {
    let (_folder, store) = fresh(Options::default());
    let attempts: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            async move {
                let op = Op::put("one", n.to_string()).expect(Expect::Absent);
                store.transact(vec![op]).await.is_ok()
            }
        })
        .collect();
    let won = join_all(attempts)
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!((won, revision(&store).await), (1, Revision(1)));
}

#[tokio::test]
async fn concurrent_transactions_get_a_revision_each() {
    let (_folder, store) = fresh(Options::default());
    let mut watch = store.watch("", Revision(0)).await.expect("a watch");
    let puts: Vec<_> = (0..300)
        .map(|n| {
            let store = store.clone();
            async move {
                store
                    .transact(vec![Op::put(format!("k{n}"), "v")])
                    .await
                    .expect("put")
                    .0
            }
        })
        .collect();
    let mut revisions = join_all(puts).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=300).collect::<Vec<_>>());
    for revision in 1..=300 {
        assert_eq!(
            watch.next().await.expect("changes")[0].revision,
            Revision(revision)
        );
    }
}

/// Polls all at once on this one thread.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures
        .into_iter()
        .filter_map(|(_, output)| output)
        .collect()
}

#[tokio::test]
async fn watches_past_and_present_without_gap() {
    let (_folder, store) = fresh(Options::default());
    store
        .transact(vec![Op::put("a/1", "x"), Op::put("b/1", "x")])
        .await
        .expect("put");
    store
        .transact(vec![Op::put("b/2", "x")])
        .await
        .expect("put");
    store
        .transact(vec![Op::put("a/2", "y"), Op::delete("a/1")])
        .await
        .expect("put");
    let mut all = store.watch("a/", Revision(0)).await.expect("a watch");
    let mut late = store.watch("a/", Revision(1)).await.expect("a watch");
    store
        .transact(vec![Op::put("a/3", "z")])
        .await
        .expect("put");
    let mut live = store.watch("a/", Revision(4)).await.expect("a watch");
    store
        .transact(vec![Op::put("b/3", "z")])
        .await
        .expect("put");
    store
        .transact(vec![Op::delete("a/3")])
        .await
        .expect("delete");
    assert_eq!(next(&mut all).await, "1 a/1=x");
    for watch in [&mut all, &mut late] {
        assert_eq!(next(watch).await, "3 a/2=y a/1-");
        assert_eq!(next(watch).await, "4 a/3=z");
    }
    for watch in [&mut all, &mut late, &mut live] {
        assert_eq!(next(watch).await, "6 a/3-");
        assert_eq!(watch.position(), Revision(6));
    }
    // Dropping a waiting future loses nothing.
    tokio::select! {
        biased;
        changes = all.next() => panic!("{changes:?}"),
        () = std::future::ready(()) => {}
    }
    store
        .transact(vec![Op::put("a/4", "w")])
        .await
        .expect("put");
    assert_eq!(next(&mut all).await, "7 a/4=w");
}

#[tokio::test]
async fn a_long_history_comes_in_pages() {
    let (_folder, store) = fresh(Options::default());
    for n in 1..=600 {
        let value = if n % 100 == 0 {
            vec![b'x'; MAX_VALUE_BYTES]
        } else {
            vec![b'x']
        };
        let ops = vec![Op::put("a", value), Op::put(format!("b{}", n % 7), "y")];
        store.transact(ops).await.expect("put");
    }
    let mut watch = store.watch("", Revision(0)).await.expect("a watch");
    for n in 1..=600 {
        let events = watch.next().await.expect("changes");
        assert_eq!((events[0].revision, events.len()), (Revision(n), 2));
    }
}

#[tokio::test]
async fn the_history_ends_somewhere() {
    let (_folder, store) = fresh(small(10));
    for n in 1..=25 {
        store
            .transact(vec![Op::put("a", n.to_string())])
            .await
            .expect("put");
    }
    let refused = store.watch("a", Revision(14)).await;
    let Err(WatchError::Compacted { after, oldest }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((after, oldest), (Revision(14), Revision(15)));
    let mut watch = store.watch("a", Revision(15)).await.expect("a watch");
    assert_eq!(next(&mut watch).await, "16 a=16");
    let refused = store.watch("a", Revision(26)).await;
    assert!(
        matches!(refused, Err(WatchError::Future { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_history_is_bounded_in_bytes() {
    let options = Options {
        history_bytes: 1000,
        ..Options::default()
    };
    let (_folder, store) = fresh(options);
    for _ in 1..=10 {
        store
            .transact(vec![Op::put("a", vec![b'x'; 299])])
            .await
            .expect("put");
    }
    let refused = store.watch("a", Revision(0)).await;
    assert!(matches!(
        refused,
        Err(WatchError::Compacted {
            oldest: Revision(7),
            ..
        })
    ));
    store
        .transact(vec![Op::put("a", vec![b'x'; 5000])])
        .await
        .expect("larger than the history");
    assert!(store.watch("a", Revision(10)).await.is_err());
    assert!(store.watch("a", Revision(11)).await.is_ok());
}

#[tokio::test]
async fn a_slow_watch_reads_the_history() {
    let (_folder, store) = fresh(Options::default());
    let mut slow = store.watch("a", Revision(0)).await.expect("a watch");
    let mut large = store.watch("b", Revision(0)).await.expect("a watch");
    for n in 1..=1500 {
        store
            .transact(vec![Op::put("a", n.to_string())])
            .await
            .expect("put");
    }
    for _ in 0..30 {
        store
            .transact(vec![Op::put("b", vec![0; MAX_VALUE_BYTES])])
            .await
            .expect("put");
    }
    for n in 1..=1500 {
        assert_eq!(next(&mut slow).await, format!("{n} a={n}"));
    }
    for n in 1501..=1530 {
        assert_eq!(
            large.next().await.expect("changes")[0].revision,
            Revision(n)
        );
    }
    store
        .transact(vec![Op::put("a", "live again")])
        .await
        .expect("put");
    assert_eq!(next(&mut slow).await, "1531 a=live again");
}

#[tokio::test]
async fn a_watch_slower_than_the_history_is_told() {
    let (_folder, store) = fresh(small(100));
    let mut watch = store.watch("a", Revision(0)).await.expect("a watch");
    for n in 1..=1200 {
        store
            .transact(vec![Op::put("a", n.to_string())])
            .await
            .expect("put");
    }
    for n in 1..=1024 {
        assert_eq!(next(&mut watch).await, format!("{n} a={n}"));
    }
    let refused = watch.next().await;
    assert!(matches!(
        refused,
        Err(WatchError::Compacted {
            after: Revision(1024),
            oldest: Revision(1100)
        })
    ));
}

#[tokio::test]
async fn limits_are_kept() {
    let (_folder, store) = fresh(Options::default());
    let is_limit = |result| matches!(result, Err(TransactError::Store(StoreError::Limit { .. })));
    let large = vec![0; MAX_VALUE_BYTES];
    let many = |n: usize, value: &[u8]| {
        (0..n)
            .map(|i| Op::put(format!("k{i}"), value.to_vec()))
            .collect::<Vec<_>>()
    };
    for ops in [
        vec![Op::put("", "x")],
        vec![Op::delete("k".repeat(MAX_KEY_BYTES + 1))],
        vec![Op::put("k", vec![0; MAX_VALUE_BYTES + 1])],
        many(MAX_OPS + 1, b""),
        many(4, &large),
    ] {
        assert!(is_limit(store.transact(ops).await));
    }
    let twice = vec![Op::put("k", "1"), Op::delete("k")];
    assert!(matches!(
        store.transact(twice).await,
        Err(TransactError::Duplicate(_))
    ));
    assert!(store.get("").await.is_err());
    assert!(store.list(&"k".repeat(MAX_KEY_BYTES + 1)).await.is_err());
    assert_eq!(revision(&store).await, Revision(0));
    store
        .transact(many(MAX_OPS, b""))
        .await
        .expect("as many as allowed");
    store
        .transact(vec![Op::put("k".repeat(MAX_KEY_BYTES), large)])
        .await
        .expect("the largest");
}

#[tokio::test]
async fn closing_closes_for_all() {
    let (_folder, store) = fresh(Options::default());
    let mut watch = store.watch("", Revision(0)).await.expect("a watch");
    store.close().await;
    store.close().await;
    assert!(matches!(store.get("a").await, Err(StoreError::Closed)));
    assert!(matches!(
        store.transact(vec![Op::put("a", "1")]).await,
        Err(TransactError::Store(StoreError::Closed))
    ));
    assert!(matches!(
        watch.next().await,
        Err(WatchError::Store(StoreError::Closed))
    ));
}
