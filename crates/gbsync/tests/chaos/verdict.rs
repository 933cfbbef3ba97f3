//! What must be true of a world at rest.

use crate::books;
use crate::ledger::root_of;
use crate::server::look_into;
use crate::world::{Device, LONG_CYCLES, World};
use gbsync_core::digest::Digest;
use gbsync_core::id::{GroupId, Seq};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest that a process may take to end when it is asked to.
const END_MOST: Duration = Duration::from_secs(20);

/// What became of the operations that writers were told are saved.
#[derive(Default)]
pub struct Operations {
    pub acknowledged: usize,
    pub accepted: usize,
    pub parked: usize,
}

/// Checks everything; panics at what is wrong.
pub fn judge(world: &mut World) -> Operations {
    let server = world.server.backend.look(&["spaces", "records", "log", "log_parts", "groups"]);
    let log = read_log(&server);
    let mut operations = Operations::default();
    for device in &world.devices {
        let connection = look_into(&device.file);
        all_is_accounted_for(device, &connection, &log, &mut operations);
        order_was_kept(device, &connection, &log);
        refusals_are_parked(device, &server, &connection);
        tables_show_the_records(device, &connection, world.plan.has_schema);
        let torn = books::look_at(&world.shared, device);
        assert!(torn.is_empty(), "{torn:?}");
    }
    assert_eq!(books::of_server(&server), Vec::<String>::new());
    let is_long = world.plan.cycles >= LONG_CYCLES;
    let accepted = operations.accepted as u64;
    assert!(
        accepted >= world.plan.cycles && (operations.parked > 0 || !is_long),
        "hardly anything happened: {accepted} accepted"
    );
    drop(server);
    all_agree(world);
    end_well(world);
    operations
}

/// The group ids of the log with their places.
type Log = BTreeMap<String, u64>;

#[derive(Deserialize)]
struct Entry<'a> {
    seq: u64,
    #[serde(rename = "syncGroupId")]
    group_id: String,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
}

/// The log has every number once, every group once, and its chain fits what it says.
fn read_log(server: &Connection) -> Log {
    let mut log = Log::new();
    let mut chain = Digest::from_bytes(&[0; 32]).unwrap();
    let mut statement = server.prepare("SELECT place, entry, chain FROM log ORDER BY place").unwrap();
    let mut parts = server.prepare("SELECT body FROM log_parts WHERE place = ?1 ORDER BY part").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (place, text): (u64, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let entry: Entry<'_> = serde_json::from_str(&text).unwrap();
        assert_eq!(entry.seq, log.len() as u64 + 1, "the log has no gap");
        let changes = entry.changes.map(|changes| changes.get().to_owned()).unwrap_or_else(|| {
            let bodies = parts.query_map([place], |row| row.get::<_, String>(0)).unwrap();
            let bodies: Vec<String> = bodies.map(|body| body.unwrap()[1..].trim_end_matches(']').to_owned()).collect();
            format!("[{}]", bodies.join(","))
        });
        chain = chain.chained(Seq(entry.seq), &GroupId::new(entry.group_id.as_str()).unwrap(), &changes);
        let stored: Vec<u8> = row.get(2).unwrap();
        assert_eq!(chain.as_bytes().as_slice(), stored, "the chain at {}", entry.seq);
        assert_eq!(log.insert(entry.group_id.clone(), entry.seq), None, "{} is in the log twice", entry.group_id);
    }
    let head = "SELECT head, chain FROM spaces";
    let (head, stored): (u64, Vec<u8>) = server.query_row(head, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!((head, stored.as_slice()), (log.len() as u64, chain.as_bytes().as_slice()), "the end of the log");
    let decided = "SELECT group_id, seq FROM groups WHERE seq IS NOT NULL";
    let mut statement = server.prepare(decided).unwrap();
    let decided = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(decided.collect::<Result<Log, _>>().unwrap(), log, "what was accepted is what the log has");
    log
}

/// Every operation of a device is in the log once, or parked with a reason (P3, P11).
fn all_is_accounted_for(device: &Device, file: &Connection, log: &Log, operations: &mut Operations) {
    let mut accepted: BTreeMap<&str, u64> = BTreeMap::new();
    for root in log.keys().filter_map(|id| root_of(id)) {
        *accepted.entry(root).or_default() += 1;
    }
    let mut parked: BTreeMap<String, u64> = BTreeMap::new();
    let sql = "SELECT g.group_id, g.state, coalesce(g.code, ''), x.seq
                 FROM gbsync_group AS g JOIN gbsync_outbox AS x ON x.group_id = g.group_id";
    let mut statement = file.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (id, state): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let (code, seq): (String, Option<u64>) = (row.get(2).unwrap(), row.get(3).unwrap());
        match state.as_str() {
            "accepted" => assert_eq!(log.get(&id).copied(), seq, "{id} is accepted on {}", device.name),
            "parked" => {
                assert!(!code.is_empty(), "{id} is parked without a reason");
                assert!(!log.contains_key(&id), "{id} is parked and in the log");
                *parked.entry(root_of(&id).unwrap().to_owned()).or_default() += 1;
            }
            other => panic!("{id} is {other} at rest"),
        }
    }
    for root in device.ledger.acknowledged() {
        operations.acknowledged += 1;
        match (accepted.get(root.as_str()).copied(), parked.contains_key(&root)) {
            (Some(1), _) => operations.accepted += 1,
            (None, true) => operations.parked += 1,
            (accepted, parked) => panic!("{root} of {} is accepted {accepted:?} times, parked: {parked}", device.name),
        }
    }
    for (root, times) in accepted {
        assert_eq!(times, 1, "{root} took effect {times} times");
    }
}

/// What an accepted group depends on was accepted before it (P5).
fn order_was_kept(device: &Device, file: &Connection, log: &Log) {
    let sql = "SELECT x.group_id, d.value FROM gbsync_outbox AS x, json_each(x.depends_on) AS d WHERE x.state = 'accepted'";
    let mut statement = file.prepare(sql).unwrap();
    let pairs = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    for (dependent, parent) in pairs.map(Result::unwrap) {
        assert!(
            log.get(&parent).is_some_and(|seq| *seq < log[&dependent]),
            "{dependent} of {} is at {}, and what it depends on, {parent}, at {:?}",
            device.name,
            log[&dependent],
            log.get(&parent)
        );
    }
}

/// What the server refused is parked on the device that wrote it (P7).
fn refusals_are_parked(device: &Device, server: &Connection, file: &Connection) {
    let refused = "SELECT group_id FROM groups WHERE seq IS NULL";
    let mut statement = server.prepare(refused).unwrap();
    let refused = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
    for id in refused.filter(|id| root_of(id).is_some_and(|root| root.starts_with(&device.name))) {
        let parked = "SELECT count(*) FROM gbsync_group WHERE group_id = ?1 AND state = 'parked'";
        let parked: u64 = file.query_row(parked, [&id], |row| row.get(0)).unwrap();
        assert_eq!(parked, 1, "{id} was refused and is not parked on {}", device.name);
    }
}

/// The typed tables show exactly the records.
fn tables_show_the_records(device: &Device, file: &Connection, has_schema: bool) {
    let integrity: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok", "device {}", device.name);
    if !has_schema {
        return;
    }
    let columns = [
        ("receipts", "total"),
        ("receipts", "note"),
        ("payments", "amount"),
        ("entries", "amount"),
        ("stock", "quantity"),
        ("products", "price"),
        ("counts", "note"),
    ];
    for (entity, column) in columns {
        let table = format!("SELECT id, {column} FROM {entity}");
        let records = format!("SELECT id, payload ->> '{column}' FROM gbsync_records WHERE entity = '{entity}'");
        let sql = format!(
            "SELECT count(*) FROM (SELECT * FROM ({table} EXCEPT {records}) UNION ALL SELECT * FROM ({records} EXCEPT {table}))"
        );
        let differing: u64 = file.query_row(&sql, [], |row| row.get(0)).unwrap();
        assert_eq!(differing, 0, "{entity}.{column} of {}", device.name);
    }
}

/// Everybody has the same rows, a device that never knew trouble too (P6); status and orphans of the command line agree.
fn all_agree(world: &World) {
    let (shop, server) = (&world.shop, &world.server.backend);
    let digest = server.run(shop, &["digest", "--space", "shop"]);
    for device in &world.devices {
        let file = format!("{}.db", device.name);
        assert_eq!(shop.digest(&file), digest, "digest of {}", device.name);
        let status = shop.run(&["status", &file, "--json"]).json();
        let open = [&status["pending"], &status["inFlight"], &status["accepted"]];
        assert_eq!(open, [0, 0, 0], "{status}");
        assert_eq!((&status["isStopped"], &status["cursor"]), (&false.into(), &status["head"]), "{status}");
        if world.plan.has_schema {
            shop.run(&["orphans", &file]).done();
        }
    }
    if world.plan.has_schema {
        server.run(shop, &["orphans"]);
    }
    let (url, token) =
        (format!("http://{}", world.server.address), server.run(shop, &["token", "create", "--space", "shop"]));
    shop.run(&["init", "late.db", "--server", &url, "--space", "shop", "--token", token.trim()]).done();
    shop.run(&["sync", "late.db"]).done();
    assert_eq!(shop.digest("late.db"), digest, "digest of a device that came late");
}

/// Everybody ends well when asked to.
fn end_well(world: &mut World) {
    for device in &world.devices {
        let mut sync = device.sync.lock().unwrap().take().unwrap();
        assert_eq!(sync.terminate(END_MOST), Some(0), "sync --watch of {}", device.name);
    }
    assert_eq!(world.server.process().terminate(END_MOST), Some(0), "the server");
}
