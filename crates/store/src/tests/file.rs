//! The SQLite file: kept, locked, and refused when it is not as it should be.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base::Revision;

use super::{fresh, next, open, revision};
use crate::*;

fn refused(path: &Path) -> OpenError {
    Store::open_sqlite(path, Options::default()).expect_err("refused")
}

#[tokio::test]
async fn a_file_keeps_everything() {
    let (folder, store) = fresh(Options::default());
    store
        .transact(vec![Op::put("a", "1"), Op::put("b", "1")])
        .await
        .expect("put");
    store
        .transact(vec![Op::put("a", "2"), Op::delete("b")])
        .await
        .expect("put");
    let before = store.list("").await.expect("a listing");
    store.close().await;
    let store = open(folder.path(), Options::default());
    assert_eq!(store.list("").await.expect("a listing"), before);
    let mut watch = store.watch("", Revision(0)).await.expect("a watch");
    assert_eq!(next(&mut watch).await, "1 a=1 b=1");
    assert_eq!(next(&mut watch).await, "2 a=2 b-");
    assert_eq!(
        store.transact(vec![Op::put("c", "3")]).await.expect("put"),
        Revision(3)
    );
    for name in ["store.db", "store.db-wal", "store.db.lock"] {
        let mode = fs::metadata(folder.path().join(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_file_has_one_owner() {
    let (folder, store) = fresh(Options::default());
    let path = folder.path().join("store.db");
    assert!(matches!(refused(&path), OpenError::InUse { .. }));
    // Another program that does not know our lock is kept out by SQLite's.
    let foreign = rusqlite::Connection::open(&path).expect("opens lazily");
    assert!(foreign.execute_batch("DELETE FROM entry").is_err());
    store.close().await;
    drop(foreign);
    assert!(Store::open_sqlite(&path, Options::default()).is_ok());
}

#[tokio::test]
async fn damaged_files_are_refused_and_left_alone() {
    let (folder, store) = fresh(Options::default());
    let path = folder.path().join("store.db");
    for n in 0..200 {
        store
            .transact(vec![Op::put(format!("key{n}"), vec![b'x'; 900])])
            .await
            .expect("put");
    }
    store.close().await;
    let good = fs::read(&path).expect("the file");
    let mut header = good.clone();
    header[..100].fill(b'?');
    let mut middle = good.clone();
    let half = middle.len() / 2 / 4096 * 4096;
    middle[half..half + 8192].fill(0xaa);
    for (what, bytes) in [
        ("header", header),
        ("middle", middle),
        ("truncated", good[..good.len() / 2].to_vec()),
        (
            "text",
            b"this is not a database, it is a text that is long enough".repeat(100),
        ),
    ] {
        fs::write(&path, &bytes).expect("written");
        let error = refused(&path);
        assert!(
            matches!(error, OpenError::Corrupt { .. }),
            "{what}: {error:?}"
        );
        assert!(
            fs::read(&path).expect("the file") == bytes,
            "{what} was changed"
        );
    }
    fs::write(&path, &good).expect("written");
    assert_eq!(
        revision(&open(folder.path(), Options::default())).await,
        Revision(200)
    );
}

#[tokio::test]
async fn newer_and_foreign_files_are_refused() {
    let (folder, store) = fresh(Options::default());
    let path = folder.path().join("store.db");
    store.close().await;
    let edit = |sql: &str| {
        let connection = rusqlite::Connection::open(&path).expect("a database");
        connection.execute_batch(sql).expect("an edit");
    };
    edit("PRAGMA user_version = 2");
    assert!(matches!(
        refused(&path),
        OpenError::Newer {
            found: 2,
            known: 1,
            ..
        }
    ));
    edit("PRAGMA user_version = 1; PRAGMA application_id = 7");
    assert!(matches!(refused(&path), OpenError::Foreign { .. }));
    edit("PRAGMA application_id = 0x5345414c; UPDATE meta SET compacted = 5");
    assert!(matches!(refused(&path), OpenError::Corrupt { .. }));
    edit("DELETE FROM meta");
    assert!(matches!(refused(&path), OpenError::Corrupt { .. }));
    let other = folder.path().join("other.db");
    let connection = rusqlite::Connection::open(&other).expect("a database");
    connection
        .execute_batch("CREATE TABLE t (x)")
        .expect("a table");
    drop(connection);
    assert!(matches!(refused(&other), OpenError::Foreign { .. }));
    let absent = folder.path().join("absent/store.db");
    assert!(matches!(refused(&absent), OpenError::File { .. }));
}

#[tokio::test]
async fn a_full_database_refuses_and_goes_on() {
    let options = Options {
        max_bytes: 1 << 20,
        ..Options::default()
    };
    let (_folder, store) = fresh(options);
    store
        .transact(vec![Op::put("small", "1")])
        .await
        .expect("put");
    let large = Op::put("large", vec![0; MAX_VALUE_BYTES]);
    let error = store.transact(vec![large]).await.expect_err("full");
    assert!(
        matches!(error, TransactError::Store(StoreError::Backend { .. })),
        "{error:?}"
    );
    assert_eq!(revision(&store).await, Revision(1));
    assert_eq!(store.get("large").await.expect("get"), None);
    assert_eq!(
        store
            .transact(vec![Op::put("small", "2")])
            .await
            .expect("put"),
        Revision(2)
    );
    let mut watch = store.watch("", Revision(0)).await.expect("a watch");
    assert_eq!(next(&mut watch).await, "1 small=1");
    assert_eq!(next(&mut watch).await, "2 small=2");
}
