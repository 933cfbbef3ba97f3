#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]
#[path = "../tests/common/mod.rs"]
mod common;
use common::*;
use std::sync::Arc;
use std::time::Instant;
fn payload(n: u64) -> String { format!(r#"{{"amount":"120.00","customerId":"customer-{n}","note":"a line of text for the record","quantity":{n},"receiptId":"receipt-{n}"}}"#) }
fn group(device: u64, n: u64) -> TestGroup {
    let changes: Vec<String> = (0..5).map(|r| upsert("receipts", &format!("rec-{device}-{n:06}-{r}"), 0, &payload(n))).collect();
    TestGroup::of(&format!("receipt-create:receipt-{device}-{n}:0192d4e0-7b7a-7cc3-8a2f-3c1d5e6f7a8b"), n + 1, &changes)
}
async fn run(app: &TestApp, device: u64, total: u64, size: u64) {
    let bodies: Vec<String> = (0..total / size).map(|b| { let g: Vec<_> = (b * size..(b + 1) * size).map(|n| group(device, n)).collect(); envelope(&format!("till-{device}"), "e1", &g) }).collect();
    for body in bodies { let a = app.post("/push", body).await; assert_eq!(a.status, 200, "{a:?}"); }
}
fn raw(total: u64, size: u64) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let mut c = rusqlite::Connection::open(dir.path().join("x.db")).unwrap();
    c.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).unwrap();
    c.pragma_update(None, "synchronous", "FULL").unwrap();
    c.execute_batch("CREATE TABLE r(entity TEXT, id TEXT, payload TEXT, version INTEGER, PRIMARY KEY(entity,id)) WITHOUT ROWID").unwrap();
    let t = Instant::now();
    for b in 0..total / size {
        let tx = c.transaction().unwrap();
        for n in b * size..(b + 1) * size { for r in 0..5 { tx.prepare_cached("INSERT INTO r VALUES(?,?,?,1)").unwrap().execute(rusqlite::params!["receipts", format!("rec-{n:06}-{r}"), payload(n)]).unwrap(); } }
        tx.commit().unwrap();
    }
    total as f64 * 5.0 / t.elapsed().as_secs_f64()
}
#[tokio::main]
async fn main() {
    for size in [8u64, 100] {
        let app = TestApp::start().await;
        let base = raw(2000, size);
        run(&app, 99, 200, size).await;
        let t = Instant::now();
        run(&app, 0, 2000, size).await;
        let rate = 10_000.0 / t.elapsed().as_secs_f64();
        println!("batch {size}: {rate:.0} rec/s, raw {base:.0}, ratio {:.2} {:?}", rate / base, app.counters());
        let t = Instant::now(); let (mut after, mut bytes) = (0, 0);
        loop { let p = app.get(&format!("/log?after={after}")).await; bytes += p.text.len(); let j = p.json(); after = j["next"].as_u64().unwrap(); if j["next"] == j["head"] { break; } }
        println!("pull {} bytes in {:?}", bytes, t.elapsed());
    }
    let app = Arc::new(TestApp::start().await);
    let t = Instant::now();
    let tasks: Vec<_> = (0..16).map(|d| { let app = Arc::clone(&app); tokio::spawn(async move { run(&app, d, 1000, 8).await }) }).collect();
    for task in tasks { task.await.unwrap(); }
    println!("16 devices: {:.0} rec/s {:?}", 80_000.0 / t.elapsed().as_secs_f64(), app.counters());
}
