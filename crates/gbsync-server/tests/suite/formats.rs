//! A store that an earlier version wrote keeps everything when this one opens it.

use crate::common::*;
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, Seq};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::path::Path;

/// The tables as the first format had them.
const FIRST: &str = "
CREATE TABLE gbsync_meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE spaces (
  space TEXT PRIMARY KEY, space_no INTEGER NOT NULL UNIQUE, log TEXT NOT NULL, head INTEGER NOT NULL, chain BLOB NOT NULL,
  horizon INTEGER NOT NULL, created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
  space_no INTEGER NOT NULL, entity TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
  edit_version INTEGER NOT NULL, payload TEXT, PRIMARY KEY (space_no, entity, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE log (
  place INTEGER PRIMARY KEY, change_count INTEGER NOT NULL, chain BLOB NOT NULL, entry TEXT NOT NULL
) STRICT;
CREATE TABLE groups (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, digest BLOB, seq INTEGER, epoch_no INTEGER, device_seq INTEGER,
  decided_at TEXT NOT NULL, PRIMARY KEY (space_no, group_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE rejections (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, result TEXT NOT NULL, group_type TEXT, actor TEXT, created_at TEXT,
  replaces TEXT, changes TEXT, PRIMARY KEY (space_no, group_id)
) STRICT;
CREATE TABLE devices (
  space_no INTEGER NOT NULL, device TEXT NOT NULL, epoch TEXT NOT NULL, epoch_no INTEGER NOT NULL,
  highest_seq INTEGER NOT NULL, first_seen TEXT NOT NULL, pushed_at TEXT, previous_epoch TEXT, previous_seq INTEGER,
  PRIMARY KEY (space_no, device, epoch)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX devices_by_number ON devices (space_no, epoch_no);
CREATE TABLE numbers (
  space_no INTEGER NOT NULL, epoch_no INTEGER NOT NULL, device_seq INTEGER NOT NULL, group_id TEXT NOT NULL,
  PRIMARY KEY (space_no, epoch_no, device_seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE families (
  space_no INTEGER NOT NULL, group_id TEXT NOT NULL, root TEXT NOT NULL, PRIMARY KEY (space_no, group_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX families_by_root ON families (space_no, root);
CREATE TABLE family_winners (
  space_no INTEGER NOT NULL, root TEXT NOT NULL, group_id TEXT NOT NULL, PRIMARY KEY (space_no, root)
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
  space_no INTEGER NOT NULL, token_id TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, roles TEXT NOT NULL, actor TEXT,
  device TEXT, created_at TEXT NOT NULL, revoked_at TEXT, PRIMARY KEY (space_no, token_id)
) STRICT, WITHOUT ROWID;
INSERT INTO gbsync_meta VALUES ('format', 1);
";

const AT: &str = "2026-06-03T20:53:00.000Z";
const CHANGES: &str =
    r#"[{"entity":"receipts","id":"r1","action":"upsert","version":1,"editVersion":1,"payload":{"total":"1.00"}}]"#;

fn result(id: &str, code: &str, message: &str) -> String {
    format!(
        r#"{{"syncGroupId":"{id}","status":"rejected","code":"{code}","message":"{message}","rule":null,"changes":[],"duplicate":true}}"#
    )
}

/// `g1` made `r1`; `bad` was refused; `never` was discarded before it came; `old` was amended as `g1`.
fn write_first_format(folder: &Path) {
    let store = Connection::open(folder.join("gbsync.db")).unwrap();
    store.execute_batch(FIRST).unwrap();
    let chain = Digest::ZERO.chained(Seq(1), &GroupId::new("g1").unwrap(), CHANGES);
    store.execute("INSERT INTO spaces VALUES (?1, 1, 'log-1', 1, ?2, 0, ?3)", params![SPACE, chain.as_bytes(), AT]).unwrap();
    store.execute(r#"INSERT INTO records VALUES (1, 'receipts', 'r1', 1, 1, '{"total":"1.00"}')"#, []).unwrap();
    let entry = format!(
        r#"{{"seq":1,"syncGroupId":"g1","syncGroupType":"receipt-create","device":"till-1","epoch":"e1","deviceSeq":1,"createdAt":"{AT}","committedAt":"{AT}","replaces":null,"flags":[],"changeCount":1,"changes":{CHANGES}}}"#
    );
    store.execute("INSERT INTO log VALUES ((1 << 40) + 1, 1, ?1, ?2)", params![chain.as_bytes(), entry]).unwrap();
    store.execute("INSERT INTO devices VALUES (1, 'till-1', 'e1', 1, 4, ?1, ?1, NULL, NULL)", [AT]).unwrap();
    let sent = |id: &str, n, record: &str| Digest::of(receipt(id, n, record).changes.as_bytes());
    let group = |id: &str, digest: Option<Digest>, seq: Option<i64>, number: Option<i64>, refused: Option<&str>| {
        let values = params![id, digest.as_ref().map(|digest| digest.as_bytes().as_slice()), seq, number, AT];
        store.execute("INSERT INTO groups VALUES (1, ?1, ?2, ?3, CASE WHEN ?4 THEN 1 END, ?4, ?5)", values).unwrap();
        if let Some(number) = number {
            store.execute("INSERT INTO numbers VALUES (1, 1, ?1, ?2)", params![number, id]).unwrap();
        }
        if let Some(code) = refused {
            let result = result(id, code, "typed twice");
            let insert = "INSERT INTO rejections VALUES (1, ?1, ?2, 'receipt-create', NULL, ?3, NULL, '[]')";
            store.execute(insert, params![id, result, AT]).unwrap();
        }
    };
    group("g1", Some(sent("g1", 1, "r1")), Some(1), Some(1), None);
    group("bad", Some(sent("bad", 2, "r1")), None, Some(2), Some("conflict"));
    group("old", Some(sent("old", 3, "r1")), None, Some(3), Some("conflict"));
    group("never", None, None, None, Some("discarded"));
    for id in ["old", "g1"] {
        store.execute("INSERT INTO families VALUES (1, ?1, 'old')", [id]).unwrap();
    }
    store.execute("INSERT INTO family_winners VALUES (1, 'old', 'g1')", []).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_format_keeps_everything_and_is_decided_on_as_before() {
    let app = TestApp::with(|config| write_first_format(config.store.folder().unwrap())).await;
    let handshake = app.get("").await.json();
    assert_eq!((handshake["log"].as_str(), handshake["head"].as_u64()), (Some("log-1"), Some(1)));
    let page = app.get("/log").await.json();
    let changes: Value = serde_json::from_str(CHANGES).unwrap();
    assert_eq!((&page["groups"][0]["changes"], &page["chain"]), (&changes, &handshake["chain"]));
    assert_eq!(app.digest().records, 1);
    let again = app.push(&[receipt("g1", 1, "r1"), receipt("bad", 2, "r1"), receipt("never", 5, "r5")]).await;
    assert_eq!(again.verdicts(), ["accepted", "rejected conflict", "rejected discarded"]);
    assert_eq!(again.result(1), serde_json::from_str::<Value>(&result("bad", "conflict", "typed twice")).unwrap());
    app.push(&[receipt("g9", 3, "r9")]).await.assert_problem(409, "epoch_reused");

    let mut app = app;
    app.token = token_with_roles(&app.store, SPACE, &["admin"]);
    let listed = app.get("/rejections?state=all").await.json();
    let state = |r: &Value| json!([r["syncGroupId"], r["state"], r["resolution"]["as"], r["resolution"]["by"]]);
    let listed: Vec<Value> = listed["rejections"].as_array().unwrap().iter().map(state).collect();
    let expected =
        json!([["bad", "open", null, null], ["old", "closed", "amended", "g1"], ["never", "closed", "discarded", null]]);
    assert_eq!(json!(listed), expected);
    let amendment = r#"{"actor":"ann","reason":"x","changes":[{"entity":"notes","id":"n","action":"upsert","payload":{}}]}"#;
    for (id, status) in [("old", 409), ("never", 409), ("bad", 200)] {
        assert_eq!(app.post(&format!("/rejections/{id}/amend"), amendment).await.status, status, "{id}");
    }
    let late = receipt("late", 6, "r6").replaces("never");
    assert_eq!(app.push(&[late]).await.verdicts(), ["rejected already_replaced"]);
    assert_eq!(app.digest().records, 2);
}
