use tonic::Code;

use super::*;
use crate::{Handle, Listing};

fn letters() -> Listing<String> {
    Listing {
        sql: "WITH letters (letter) AS (VALUES ('a'), ('b'), ('c'), ('d'), ('e'))
              SELECT letter FROM letters WHERE letter > ?1 ORDER BY letter LIMIT ?2",
        item: |row| row.get(0),
        key: |letter| letter,
    }
}

#[tokio::test]
async fn rows_are_listed_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let handle = Handle { store: bench.engine.store.clone() };
    let (mut all, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (page, next) = handle.list(2, token, letters()).await.unwrap();
        all.extend(page);
        pages += 1;
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((all.concat().as_str(), pages), ("abcde", 3));
    assert_eq!(handle.list(5, String::new(), letters()).await.unwrap().1, "");
    assert_eq!(handle.list(0, String::new(), letters()).await.unwrap().0.len(), 5);
    let status = handle.list(1001, String::new(), letters()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("page_size is 1001"), "{status}");
    bench.close().await;
}

#[tokio::test]
async fn a_write_that_is_refused_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::open(&folder).await;
    let handle = Handle { store: bench.engine.store.clone() };
    let write = |transaction: &Transaction<'_>| -> Result<(), Error> {
        transaction.execute("UPDATE till SET balance = 0", [])?;
        Err(Refusal::new("NO", "balance: as the test wants").into())
    };
    let status = handle.write(write).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(bench.till().await, (100, 0));
    let sql = "SELECT name FROM sqlite_schema WHERE name = ?1";
    let item: fn(&rusqlite::Row<'_>) -> rusqlite::Result<String> = |row| row.get(0);
    assert_eq!(handle.get("table", "till".into(), sql, item).await.unwrap(), "till");
    let status = handle.get("table", "drawer".into(), sql, item).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "table 'drawer' is unknown"));
    bench.close().await;
}
