//! The log as a naive program reads it, whatever lies behind the last number that it saw, while sixteen devices push to two nodes.
//!
//! Without the lock of the space transactions meet in the middle, and one that drew a lower number may commit later: that bug is
//! planted by `./test` (`GBSYNC_PLANT_UNLOCKED=1 cargo test -p gbsync-server --features mutants --test nodes naive`), and must
//! be seen here as an entry that the reader passed over.

use super::common::*;
use super::{another, push};
use gbsync_server::StoreLocation;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres::NoTls;

const WRITERS: u64 = 16;
const PUSHES: u64 = 20;
/// How often a push is sent again: without the lock, some meet a row of another transaction.
const TRIES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_naive_reader_over_sixteen_writers_on_two_nodes_skips_nothing() {
    let is_planted = std::env::var_os("GBSYNC_PLANT_UNLOCKED").is_some();
    assert!(!is_planted || cfg!(feature = "mutants"), "a bug is planted with the feature `mutants` alone");
    let found = run_naively(is_planted).await;
    let skipped: Vec<i64> = found.committed.difference(&found.seen).copied().collect();
    assert!(found.looks > 10, "the reader looked only {} times", found.looks);
    if is_planted {
        assert!(
            !skipped.is_empty(),
            "without the lock nothing was skipped, so this test proves nothing: {:?}",
            found.failures
        );
        return;
    }
    assert_eq!((skipped, found.failures), (Vec::new(), Vec::new()));
    assert_eq!(found.committed, (1..=i64::try_from(WRITERS * PUSHES * 2).unwrap()).collect());
}

/// What came of it.
struct Found {
    /// The numbers that the reader saw, and those that the log holds in the end.
    seen: BTreeSet<i64>,
    committed: BTreeSet<i64>,
    looks: u64,
    /// What did not go as it should.
    failures: Vec<String>,
}

async fn run_naively(is_planted: bool) -> Found {
    let app = Arc::new(TestApp::start().await);
    let other = Arc::new(another(&app, |_| {}).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn(read_naively(app.store.clone(), Arc::clone(&is_over)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (app, other) = (Arc::clone(&app), Arc::clone(&other));
        writers.push(tokio::spawn(async move {
            let mut failures = Vec::new();
            for number in 0..PUSHES {
                let node = if (writer + number) % 2 == 0 { app.server.as_ref().unwrap() } else { &other };
                let groups = [0, 1].map(|half| {
                    let seq = number * 2 + half;
                    receipt(&format!("g-{writer}-{seq}"), seq + 1, &format!("r-{writer}-{number}-{half}"))
                });
                for _ in 0..TRIES {
                    let answer = push(&app, node, &format!("till-{writer}"), &groups).await;
                    if answer.status == 200 && answer.verdicts() == ["accepted", "accepted"] {
                        break;
                    }
                    failures.push(format!("a push was answered {} {}", answer.status, answer.text));
                    if !is_planted {
                        break;
                    }
                }
            }
            failures
        }));
    }
    let mut failures = Vec::new();
    for writer in writers {
        failures.extend(writer.await.unwrap());
    }
    is_over.store(true, Ordering::SeqCst);
    let (seen, looks) = reading.await.unwrap();
    let failed = (app.counters().failed_transactions, other.counters().failed_transactions);
    if failed != (0, 0) {
        failures.push(format!("{failed:?} transactions failed"));
    }
    let committed = app.stored("SELECT coalesce(string_agg(seq::text, ' '), '') FROM log").remove(0);
    let committed = committed.split_whitespace().map(|seq| seq.parse().unwrap()).collect();
    Found { seen, committed, looks, failures }
}

/// Every number that a reader saw, and how often it looked.
async fn read_naively(store: StoreLocation, is_over: Arc<AtomicBool>) -> (BTreeSet<i64>, u64) {
    let StoreLocation::Postgres(url) = store else { panic!("not on PostgreSQL") };
    let (url, schema) = url.split_once("?schema=").unwrap();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {schema}")).await.unwrap();
    let (mut seen, mut looks) = (BTreeSet::new(), 0);
    loop {
        let is_last = is_over.load(Ordering::SeqCst);
        let cursor = seen.last().copied().unwrap_or(0_i64);
        let rows = client.query("SELECT seq FROM log WHERE seq > $1 ORDER BY seq", &[&cursor]).await.unwrap();
        seen.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        looks += 1;
        if is_last {
            return (seen, looks);
        }
    }
}
