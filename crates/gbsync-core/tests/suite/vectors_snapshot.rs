//! `vectors/wire/snapshot.ndjson`: a golden snapshot, byte for byte what core writes, and read back.

use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, LogId, RecordKey, Seq};
use gbsync_core::verdict::{Flag, RejectionCode};
use gbsync_core::wire::*;

fn row<'r>(key: (&'r str, &'r str), versions: (u64, u64), payload: Option<&'r str>) -> SnapshotRow<'r> {
    let (version, edit_version) = (Seq(versions.0), Seq(versions.1));
    SnapshotRow { entity: key.0, id: key.1, version, edit_version, payload }
}

fn head() -> SnapshotHead {
    let group = GroupId::new("receipt-create:receipt-001:0192-b").unwrap();
    let chain = Digest::ZERO.chained(Seq(57), &group, "[]");
    SnapshotHead { seq: Seq(57), log: LogId::new("log-1").unwrap(), chain, records: 3, horizon: Seq(20), schema_version: 2 }
}

fn open_flag() -> SnapshotFlag {
    let flag = Flag {
        code: RejectionCode::BoundViolation,
        rule: "stock.quantity.min".into(),
        message: "stock:paper-roll: quantity is below 0".into(),
        key: Some(RecordKey::new("stock", "paper-roll").unwrap()),
    };
    let group = GroupId::new("receipt-create:receipt-001:0192-b").unwrap();
    SnapshotFlag { seq: Seq(57), place: 0, group, flag }
}

#[test]
fn a_snapshot_is_written_and_read_as_the_golden_one() {
    let mut out = head().to_json() + "\n";
    row(("notes", "n\"1"), (42, 42), None).push_json(&mut out);
    row(("receipts", "receipt-001"), (42, 42), Some(r#"{"total":"120.00"}"#)).push_json(&mut out);
    row(("stock", "paper-roll"), (57, 5), Some(r#"{"quantity":-3}"#)).push_json(&mut out);
    open_flag().push_json(&mut out);
    out.push_str(&(snapshot_end_json(3) + "\n"));
    assert_eq!(out, crate::vectors::text("wire/snapshot.ndjson"));

    let mut lines = out.lines();
    assert_eq!(SnapshotHead::parse(lines.next().unwrap().as_bytes()).unwrap(), head());
    let lines: Vec<SnapshotLine> = lines.map(|line| SnapshotLine::parse(line.as_bytes()).unwrap()).collect();
    let record = |entity, id, version, edit_version, state| {
        let key = RecordKey::new(entity, id).unwrap();
        let (version, edit_version) = (Seq(version), Seq(edit_version));
        SnapshotLine::Record(LogChange { key, version, edit_version, state, is_cascade: false })
    };
    let live = |payload: &str| LogState::Live(payload.into());
    assert_eq!(
        lines,
        [
            record("notes", "n\"1", 42, 42, LogState::Deleted),
            record("receipts", "receipt-001", 42, 42, live(r#"{"total":"120.00"}"#)),
            record("stock", "paper-roll", 57, 5, live(r#"{"quantity":-3}"#)),
            SnapshotLine::Flag(open_flag()),
            SnapshotLine::End { records: 3 },
        ]
    );
}

#[test]
fn a_line_that_is_none_is_refused_where_it_is_wrong() {
    for (line, pointer) in [
        (r#"{"entity":"a","id":"b","version":1}"#, "/payload"),
        (r#"{"entity":"a","id":"b","version":1,"payload":[]}"#, "/payload"),
        (r#"{"entity":"a","id":"b","version":-1,"payload":{}}"#, "/version"),
        (r#"{"entity":"a","version":1,"payload":{}}"#, "/id"),
        (r#"{"end":false,"records":1}"#, "/end"),
        (r#"{"end":true}"#, "/records"),
        (r#"{"entity":"a","id":"b","version":1,"payload":{}"#, ""),
        ("", ""),
    ] {
        assert_eq!(SnapshotLine::parse(line.as_bytes()).unwrap_err().pointer, pointer, "{line}");
    }
    assert_eq!(SnapshotLine::parse(br#"{"later":{"entity":1}}"#).unwrap(), SnapshotLine::Other);
    let line = head().to_json().replace("\"chain\":\"", "\"chain\":\"x");
    assert_eq!(SnapshotHead::parse(line.as_bytes()).unwrap_err().pointer, "/chain");
    let older = r#"{"seq":1,"log":"l","chain":"C","records":0,"later":1}"#.replace('C', &Digest::ZERO.to_string());
    assert_eq!(SnapshotHead::parse(older.as_bytes()).unwrap().horizon, Seq(0));
}
