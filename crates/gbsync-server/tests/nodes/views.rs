//! Views for reports follow the schema in force.

use super::common::*;
use gbsync_core::schema::Schema;
use gbsync_server::StoreLocation;
use std::time::{Duration, Instant};

/// Longer than a name of PostgreSQL, alike at its beginning.
const LONG: &str = "a_name_that_is_much_longer_than_the_sixty_three_bytes_that_postgresql_keeps";

fn first_schema() -> String {
    format!(
        r#"
version = 1
[entities.user]
fields.select = "text"
fields.total = {{ type = "decimal", scale = 2 }}
fields.count = "integer"
fields.weight = "real"
fields.paid = "boolean"
fields.day = "date"
fields.at = "timestamp"
fields.more = "json"
[entities.Receipts]
fields.storeId = "text"
[entities.old_things]
fields.a = "text"
[entities.{LONG}_one]
fields.{LONG}_x = "text"
fields.{LONG}_y = "text"
[entities.{LONG}_two]
fields.b = "text"
"#
    )
}

fn url(app: &TestApp) -> (String, String) {
    let StoreLocation::Postgres(url) = &app.store else { panic!("not on PostgreSQL") };
    let (url, schema) = url.split_once("?schema=").unwrap();
    (url.to_owned(), schema.to_owned())
}

/// Texts of all rows.
fn ask(app: &TestApp, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let (url, schema) = url(app);
    let sql = sql.replace("{views}", &format!("{schema}_views")).replace("{tables}", &schema);
    let rows = gbsync_cluster::ask(&url, &sql).map_err(|error| error.to_string())?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect()).collect())
}

/// Waits until the views are those of a version.
async fn wait_for(app: &TestApp, version: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let made = format!("of schema version {version}");
    let sql = "SELECT coalesce(obj_description(to_regnamespace('{views}')::oid, 'pg_namespace'), '')";
    while !ask(app, sql).unwrap()[0][0].ends_with(&made) {
        assert!(Instant::now() < deadline, "the views of version {version} were not made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn parsed(text: &str) -> Schema {
    Schema::parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_record_has_a_view_with_typed_columns() {
    let app = TestApp::with(|config| config.schema = Some(parsed(&first_schema()))).await;
    wait_for(&app, 1).await;
    let whole = r#"{"at":"2026-06-03T20:52:59.123Z","count":7,"day":"2028-02-29","more":{"a":[1]},"paid":true,"select":"it's","total":"0.10","weight":1.5}"#;
    let groups = [
        TestGroup::of("g1", 1, &[upsert("user", "u-1", 0, whole)]),
        TestGroup::of("g2", 2, &[upsert("user", "u-2", 0, r#"{"select":"b","total":"20.00"}"#)]),
        TestGroup::of("g3", 3, &[upsert("user", "u-3", 0, "{}")]),
        TestGroup::of("g4", 4, &[delete("user", "u-3", 3)]),
    ];
    assert_eq!(app.push(&groups).await.verdicts(), ["accepted"; 4]);
    let sql = r#"SELECT id, gbsync_space, gbsync_version, "select", total, count, weight, paid, day, "at" AT TIME ZONE 'UTC', more FROM "{views}"."user" ORDER BY id"#;
    assert_eq!(
        ask(&app, sql).unwrap(),
        [
            ["u-1", SPACE, "1", "it's", "0.10", "7", "1.5", "t", "2028-02-29", "2026-06-03 20:52:59.123", r#"{"a": [1]}"#],
            ["u-2", SPACE, "2", "b", "20.00", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL"],
        ]
    );
    let types = r#"SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY column_name) FROM information_schema.columns
                    WHERE table_schema = '{views}' AND table_name = 'user' AND column_name NOT LIKE 'gbsync%'"#;
    assert_eq!(
        ask(&app, types).unwrap()[0][0],
        "at timestamp with time zone, count bigint, day date, id text, more jsonb, paid boolean, select text, total numeric, weight numeric"
    );
    assert_eq!(ask(&app, r#"SELECT sum(total) FROM "{views}"."user""#).unwrap()[0][0], "20.10");
    let views = "SELECT count(*), count(DISTINCT table_name) FROM information_schema.views WHERE table_schema = '{views}'";
    assert_eq!(ask(&app, views).unwrap(), [["5", "5"]], "names that are cut stay apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_its_type_is_null_and_no_report_fails_of_it() {
    // From before there was a schema.
    let mut app = TestApp::start().await;
    let odd = r#"{"at":"2026-13-03T20:52:59Z","count":1.5,"day":"2026-02-29","paid":"yes","select":7,"total":"a lot","weight":"heavy"}"#;
    let huge =
        r#"{"at":7,"count":9223372036854775807,"day":20260203,"paid":null,"select":null,"total":1e300,"weight":1e-300}"#;
    let groups = [
        TestGroup::of("g1", 1, &[upsert("user", "u-1", 0, odd)]),
        TestGroup::of("g2", 2, &[upsert("user", "u-2", 0, huge)]),
        TestGroup::of("g3", 3, &[upsert("user", "u-3", 0, r#"{"at":"2026-06-03t23:59:59+00:00","count":1e400}"#)]),
    ];
    let verdicts = app.push(&groups[..2]).await.verdicts();
    assert_eq!(verdicts, ["accepted", "accepted"]);
    app.restart_with(|config| config.schema = Some(parsed(&first_schema()))).await.unwrap();
    wait_for(&app, 1).await;
    let sql = r#"SELECT id, "select", total IS NULL, count, weight IS NULL, paid, day, "at", gbsync_payload ->> 'day' FROM "{views}"."user" ORDER BY id"#;
    assert_eq!(
        ask(&app, sql).unwrap(),
        [
            ["u-1", "7", "t", "NULL", "t", "NULL", "NULL", "NULL", "2026-02-29"],
            ["u-2", "NULL", "f", "9223372036854775807", "f", "NULL", "NULL", "NULL", "20260203"],
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_makes_them_anew_and_a_view_of_somebody_else_keeps_only_its_own_back() {
    let app = TestApp::with(|config| config.schema = Some(parsed(&first_schema()))).await;
    wait_for(&app, 1).await;
    let group = TestGroup::of("g1", 1, &[upsert("Receipts", "r-1", 0, r#"{"storeId":"north"}"#)]);
    assert_eq!(app.push(&[group]).await.verdicts(), ["accepted"]);
    ask(&app, r#"CREATE VIEW {tables}.mine AS SELECT a FROM "{views}".old_things"#).unwrap();
    let second = first_schema()
        .replace("version = 1", "version = 2")
        .replace("fields.storeId = \"text\"", "fields.shopId = { type = \"text\", was = \"storeId\", since = 2 }")
        .replace("[entities.old_things]\nfields.a = \"text\"\n", "");
    app.server.as_ref().unwrap().adopt_schema(parsed(&second)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let renamed = r#"SELECT "shopId" FROM "{views}"."Receipts""#;
    while ask(&app, renamed).is_err() {
        assert!(Instant::now() < deadline, "the view did not follow");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ask(&app, renamed).unwrap(), [["north"]]);
    // What somebody's own view needs is left, and the others are as they should be.
    assert_eq!(ask(&app, "SELECT count(*) FROM {tables}.mine").unwrap(), [["0"]]);
    ask(&app, "DROP VIEW {tables}.mine").unwrap();
    let mut app = app;
    app.restart().await;
    wait_for(&app, 2).await;
    assert!(ask(&app, r#"SELECT 1 FROM "{views}".old_things"#).unwrap_err().contains("does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_reports_reads_the_views_and_nothing_else_also_after_they_were_made_anew() {
    let app = TestApp::with(|config| config.schema = Some(parsed(&first_schema()))).await;
    wait_for(&app, 1).await;
    let (_, schema) = url(&app);
    let role = format!("reporting_{schema}");
    let manual = include_str!("../../../../docs/reporting.md");
    let (_, block) = manual.split_once("```sql\n").unwrap();
    let (statements, _) = block.split_once("```").unwrap();
    let statements = statements.replace("gbsync_views", &format!("{schema}_views")).replace("reporting", &role);
    ask(&app, &statements.replace("ROLE gbsync ", "ROLE postgres ")).unwrap();
    let second = first_schema().replace("version = 1", "version = 2").replace("fields.select = \"text\"\n", "");
    app.server.as_ref().unwrap().adopt_schema(parsed(&second)).await.unwrap();
    wait_for(&app, 2).await;
    let as_role = |sql: &str| ask(&app, &format!("SET ROLE {role}; {sql}"));
    assert_eq!(as_role(r#"SELECT count(*) FROM "{views}"."user""#).unwrap(), [["0"]]);
    for forbidden in ["SELECT 1 FROM {tables}.records", "SELECT 1 FROM {tables}.tokens", r#"DELETE FROM "{views}"."user""#] {
        let refused = as_role(forbidden).unwrap_err();
        assert!(["permission denied", "cannot delete"].iter().any(|why| refused.contains(why)), "{forbidden}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_made_while_entries_leave_logs() {
    let app = TestApp::start().await;
    let (url, schema) = url(&app);
    // What a process holds that takes entries out of logs.
    let held = std::thread::spawn(move || {
        let sql = format!("SELECT pg_advisory_lock(1734475779, hashtext('{schema}')), pg_sleep(60)");
        // It is ended below.
        gbsync_cluster::ask(&url, &sql).is_err()
    });
    let is_held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1734475779 AND granted";
    while ask(&app, is_held).unwrap()[0][0] == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.server.as_ref().unwrap().adopt_schema(parsed(&first_schema())).await.unwrap();
    wait_for(&app, 1).await;
    assert!(!held.is_finished(), "the views waited for it");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1734475779";
    ask(&app, end).unwrap();
    assert!(held.join().unwrap());
}
