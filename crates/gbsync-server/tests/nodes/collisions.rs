//! A transaction that PostgreSQL ends because of another one is begun again, and its groups take effect once.

use super::common::*;
use gbsync_server::StoreLocation;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the app's tables.
async fn connect(app: &TestApp) -> Client {
    let StoreLocation::Postgres(url) = &app.store else { panic!("not on PostgreSQL") };
    let (url, schema) = url.split_once("?schema=").unwrap();
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {schema}")).await.unwrap();
    client
}

/// Of two groups that were pushed at once everything is there, and once.
async fn assert_once(app: &TestApp, answer: &Answer, groups: &[TestGroup]) {
    assert_eq!(answer.verdicts(), ["accepted", "accepted"]);
    let stands = |index| (answer.result(index)["seq"].as_u64(), answer.result(index)["duplicate"].as_bool());
    assert_eq!([stands(0), stands(1)], [(Some(1), Some(false)), (Some(2), Some(false))]);
    assert_eq!(app.stored("SELECT count(*), max(seq) FROM log"), ["2", "2"]);
    assert_eq!(app.stored("SELECT count(*), max(version) FROM records"), ["2", "2"]);
    assert_eq!(app.stored("SELECT count(*) FROM groups"), ["2"]);
    assert_eq!(app.stored("SELECT payload FROM records WHERE entity = 'stock'"), [r#"{"quantity":2}"#]);
    let again = app.push(groups).await;
    assert_eq!(again.result(1)["duplicate"], true);
    assert_eq!(app.stored("SELECT payload FROM records WHERE entity = 'stock'"), [r#"{"quantity":2}"#]);
    assert_eq!(app.counters().failed_transactions, 0);
}

/// A receipt and a thing in stock, and one more of it: taking effect twice would show.
fn deliveries() -> [TestGroup; 2] {
    let first = [upsert("receipts", "r-1", 0, r#"{"total":"1.00"}"#), upsert("stock", "roll", 0, r#"{"quantity":1}"#)];
    [TestGroup::of("g1", 1, &first), TestGroup::of("g2", 2, &[increment("stock", "roll", r#"{"quantity":1}"#)])]
}

/// Makes the next transaction that writes to the log fail with a code, while it writes or at its COMMIT. Numbers of a sequence are
/// not given back when a transaction is undone: so it happens once.
fn planted(code: &str, when: &str) -> String {
    let trigger = match when {
        "while it writes" => "CREATE TRIGGER collide AFTER INSERT ON log",
        _ => "CREATE CONSTRAINT TRIGGER collide AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED",
    };
    format!(
        "CREATE SEQUENCE attempts;
         CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'planted' USING ERRCODE = '{code}'; END IF;
           RETURN NULL;
         END $$;
         {trigger} FOR EACH ROW EXECUTE FUNCTION collide()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_postgresql_gives_up_is_begun_again_and_takes_effect_once() {
    for code in ["40001", "40P01"] {
        for when in ["while it writes", "at its COMMIT"] {
            let app = TestApp::start().await;
            connect(&app).await.batch_execute(&planted(code, when)).await.unwrap();
            let answer = app.push(&deliveries()).await;
            assert_once(&app, &answer, &deliveries()).await;
            // Once in vain, and then once for each entry.
            assert_eq!(app.stored("SELECT last_value FROM attempts"), ["3"], "{code} {when}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_the_victim_of_a_deadlock_takes_effect_once() {
    let app = Arc::new(TestApp::start().await);
    let other = connect(&app).await;
    // PostgreSQL ends whoever looks for a deadlock first: that is not this one.
    other.batch_execute("SET deadlock_timeout = '1h'").await.unwrap();
    let group =
        "INSERT INTO groups (space_no, group_id, decided_at) SELECT space_no, 'g1', '' FROM spaces WHERE space = 'shop'";
    other.batch_execute(&format!("BEGIN; {group}")).await.unwrap();
    let pushing = Arc::clone(&app);
    let pushing = tokio::spawn(async move { pushing.push(&deliveries()).await });
    // It holds the space, and waits for the group.
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                  WHERE NOT l.granted AND l.locktype = 'transactionid' AND a.application_name = 'gbsync'
                    AND l.transactionid = (SELECT transactionid FROM pg_locks WHERE pid = $1 AND granted AND locktype = 'transactionid')";
    let this: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let begun = Instant::now();
    while other.query_one(waits, &[&this]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(begun.elapsed() < PATIENCE && !pushing.is_finished(), "the push does not wait");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The circle closes; whoever is let in here was given the lock of a transaction that was ended.
    let locked = other.query("SELECT head FROM spaces WHERE space = 'shop' FOR UPDATE", &[]).await.unwrap();
    assert_eq!((locked[0].get::<_, i64>(0), pushing.is_finished()), (0, false));
    other.batch_execute("ROLLBACK").await.unwrap();
    let answer = pushing.await.unwrap();
    assert_once(&app, &answer, &deliveries()).await;
}
