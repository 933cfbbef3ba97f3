//! A reading anew with typed tables: rows beside the tables, exchanged at once; whoever is killed goes on, whoever reads sees the
//! old or the new, and what the app made on a table is there afterwards.

use crate::common::app::{SHOP, app, ask, refused, rows};
use crate::common::*;
use gbsync_client::{Error, GroupState};
use gbsync_core::fault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Receipts of the space: several steps, and more than an old table may have to be dropped at once.
const RECEIPTS: u64 = 2_600;

/// Receipts of customers, some of them deleted again.
fn fill(world: &World) -> Device {
    let author = world.shop("author");
    for first in (0..RECEIPTS).step_by(200) {
        let write = |op: &mut gbsync_client::Operation| {
            for n in first..first + 200 {
                let payload = format!(r#"{{"no":"A-{n}","customer":"c{}","total":"{n}.5"}}"#, n % 7);
                op.upsert("receipts", &format!("r{n:05}"), payload)?;
            }
            Ok(())
        };
        author.client.operation::<Error>("fill", &first.to_string(), write).unwrap();
    }
    author.client.operation::<Error>("forget", "r00003", |op| op.delete("receipts", "r00003")).unwrap();
    author.sync();
    author
}

/// A device with tables that loads a snapshot from the first entry on.
fn loader(world: &World, name: &str) -> Device {
    let mut device = if world.path(name).exists() { world.reopen_under(name, SHOP) } else { world.shop(name) };
    device.options.snapshot_groups = 1;
    device
}

/// As a device whose log was replaced.
fn forget_the_log(world: &World, name: &str) {
    app(&world.path(name)).execute_batch("UPDATE gbsync_state SET log = 'another', chain = NULL").unwrap();
}

/// Syncs, and dies at the place number `at` of those where a device may die: its name. `None`: it got to the end.
fn sync_until(device: &Device, at: usize) -> Option<&'static str> {
    let passed = AtomicUsize::new(0);
    let hook: fault::Hook = Arc::new(move |name| {
        if passed.fetch_add(1, Ordering::SeqCst) == at {
            std::panic::panic_any(name);
        }
    });
    let died = catch_unwind(AssertUnwindSafe(|| fault::with_hook(Some(hook), || device.try_sync()))).err()?;
    Some(died.downcast_ref::<&'static str>().expect("it dies of nothing else"))
}

fn assert_whole(world: &World, device: &Device, name: &str) {
    assert_eq!(device.digest(), world.digest());
    let db = app(&world.path(name));
    assert_eq!(ask::<String>(&db, "PRAGMA integrity_check"), "ok");
    let differ = "SELECT count(*) FROM receipts AS t FULL OUTER JOIN
                  (SELECT id, payload FROM gbsync_records WHERE entity = 'receipts') AS r ON r.id = t.id
                   WHERE t.id IS NULL OR r.id IS NULL OR t.no IS NOT json_extract(payload, '$.no')
                      OR CAST(t.total AS REAL) IS NOT CAST(json_extract(payload, '$.total') AS REAL)";
    assert_eq!(device.query::<u64>(differ), 0);
    let left = "SELECT name FROM sqlite_master WHERE name GLOB 'gbsync_*_shadow' OR name GLOB 'gbsync_*_old'";
    assert_eq!(rows(&db, left), Vec::<String>::new());
    let plan = rows(&db, "EXPLAIN QUERY PLAN SELECT * FROM receipts WHERE customer = 'x'").join("");
    assert!(plan.contains("USING INDEX gbsync_receipts_"), "{plan}");
    let twice = "INSERT INTO receipts(id, no, total) VALUES ('again', 'A-5', 1)";
    assert!(refused(&db, twice).contains("another row of receipts has this no"));
}

#[test]
fn a_device_that_is_killed_at_any_step_goes_on_and_shows_the_old_or_the_new() {
    let world = World::new();
    fill(&world);
    for is_new in [true, false] {
        if !is_new {
            // It has rows that have to go.
            forget_the_log(&world, "new");
        }
        let mut died = Vec::new();
        // A step further each time at first, then later and later.
        while let Some(name) = sync_until(&loader(&world, "new"), 1 + died.len() / 4) {
            died.push(name);
            let db = app(&world.path("new"));
            let seen: u64 = ask(&db, "SELECT count(*) FROM receipts");
            assert!(seen == RECEIPTS - 1 || (is_new && seen == 0), "{seen} after {died:?}");
            assert_eq!(ask::<u64>(&db, "SELECT count(*) FROM receipts_all"), seen);
            assert_eq!(ask::<u64>(&db, "SELECT count(*) FROM gbsync_records WHERE entity = 'receipts'"), seen);
        }
        let last = if is_new { "what was read anew shows" } else { "old rows are taken away" };
        for name in ["a unit of a snapshot is stored", "rows are beside the tables", last] {
            assert!(died.contains(&name), "{name}: {died:?}");
        }
        assert_whole(&world, &loader(&world, "new"), "new");
    }
}

#[test]
fn another_program_sees_all_of_the_old_or_all_of_the_new() {
    let world = World::new();
    fill(&world);
    let device = loader(&world, "new");
    let own = device.receipt("r-own", "1.00");
    let (path, seen) = (world.path("new"), Arc::new(std::sync::Mutex::new(Vec::new())));
    let noted = seen.clone();
    let reading = app(&path);
    reading.execute_batch("BEGIN; SELECT * FROM receipts").unwrap();
    device.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    let hook: fault::Hook = Arc::new(move |_| {
        let db = app(&path);
        let count: u64 = ask(&db, "SELECT count(*) FROM receipts");
        let by_index: u64 = ask(&db, "SELECT count(*) FROM receipts WHERE customer >= ''");
        noted.lock().unwrap().push((count, by_index));
    });
    fault::with_hook(Some(hook), || device.try_sync()).unwrap_err();
    let mut seen = seen.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, [(1, 0), (RECEIPTS, RECEIPTS - 1)]);
    // Who began to read before reads on in what was.
    assert_eq!(ask::<u64>(&reading, "SELECT count(*) FROM receipts"), 1);
    reading.execute_batch("COMMIT").unwrap();
    assert_eq!(ask::<u64>(&reading, "SELECT count(*) FROM receipts"), RECEIPTS);
    drop(reading);
    device.transport.heal();
    device.sync();
    assert_eq!(state(&device, &own), GroupState::Accepted);
    assert_whole(&world, &device, "new");
}

#[test]
fn what_waits_and_what_is_written_meanwhile_shows_over_the_exchanged_tables() {
    let world = World::new();
    fill(&world);
    let device = loader(&world, "new");
    device.sync();
    // Pending: a new row, an edit, a delete that takes a payment along, and what a program writes at each step.
    device.receipt("r-own", "1.00");
    let write = |op: &mut gbsync_client::Operation| {
        op.patch("receipts", "r00010", r#"{"note":"mine"}"#)?;
        op.delete("receipts", "r00011")
    };
    device.client.operation::<Error>("edit", "r00010", write).unwrap();
    forget_the_log(&world, "new");
    let (path, steps) = (world.path("new"), Arc::new(AtomicUsize::new(0)));
    let counted = steps.clone();
    device.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    let hook: fault::Hook = Arc::new(move |_| {
        let step = counted.fetch_add(1, Ordering::SeqCst);
        app(&path).execute("INSERT INTO stock(id, name) VALUES (?1, 'x')", [format!("s{step}")]).unwrap();
    });
    fault::with_hook(Some(hook), || device.try_sync()).unwrap_err();
    let written = steps.load(Ordering::SeqCst);
    assert!(written > 6, "{written}");
    let db = app(&world.path("new"));
    assert_eq!(rows(&db, "SELECT note FROM receipts WHERE id = 'r00010'"), ["mine"]);
    assert_eq!(ask::<u64>(&db, "SELECT count(*) FROM receipts WHERE id IN ('r00011', 'r00003')"), 0);
    assert_eq!(rows(&db, "SELECT receiptId FROM payments"), ["r-own"]);
    assert_eq!(ask::<usize>(&db, "SELECT count(*) FROM stock"), written);
    device.transport.heal();
    let report = device.sync();
    assert_eq!((report.accepted as usize, report.parked.len()), (written + 2, 0));
    assert_whole(&world, &device, "new");
}

#[test]
fn what_the_app_made_on_a_table_is_there_after_the_exchange() {
    let world = World::new();
    fill(&world);
    let device = loader(&world, "new");
    let db = app(&world.path("new"));
    db.execute_batch(
        "CREATE TABLE seen(id TEXT);
         CREATE TABLE prints(receipt TEXT REFERENCES receipts(id));
         CREATE INDEX \"by note\" ON receipts(note) WHERE note IS NOT NULL;
         CREATE TRIGGER audit AFTER INSERT ON Receipts BEGIN INSERT INTO seen VALUES (NEW.id); END;
         CREATE VIEW dear AS SELECT id, total_minor FROM receipts WHERE total_minor > 100;
         CREATE TRIGGER on_view INSTEAD OF DELETE ON receipts_all BEGIN DELETE FROM receipts WHERE id = OLD.id; END;
         CREATE TRIGGER by_print AFTER INSERT ON prints BEGIN UPDATE receipts SET paid = 1 WHERE id = NEW.receipt; END;",
    )
    .unwrap();
    let made = "SELECT type, name, sql FROM sqlite_master WHERE name NOT GLOB '*gbsync_*' OR type IN ('trigger', 'view') ORDER BY name";
    let before = rows(&db, made);
    for _ in 0..3 {
        device.sync();
        assert_eq!(rows(&db, made), before);
        assert_whole(&world, &device, "new");
        forget_the_log(&world, "new");
    }
    device.sync();
    assert_eq!(ask::<u64>(&db, "SELECT count(*) FROM seen"), 0, "what others wrote is no INSERT of the app's");
    assert_eq!(ask::<u64>(&db, "SELECT count(*) FROM dear"), RECEIPTS - 2);
    let plan = rows(&db, "EXPLAIN QUERY PLAN SELECT * FROM receipts WHERE note = 'x'").join("");
    assert!(plan.contains("USING INDEX by note"), "{plan}");
    db.execute_batch("INSERT INTO receipts(id, total) VALUES ('mine', 3); INSERT INTO prints VALUES ('mine');").unwrap();
    assert_eq!(rows(&db, "SELECT id FROM seen"), ["mine"]);
    assert_eq!(rows(&db, "SELECT paid FROM receipts WHERE id = 'mine'"), ["1"]);
    assert!(refused(&db, "INSERT INTO prints VALUES ('nobody')").contains("FOREIGN KEY"));
    assert!(refused(&db, "INSERT INTO receipts(id) VALUES ('x')").contains("total is required"));
    db.execute_batch("DELETE FROM receipts_all WHERE id = 'r00020'").unwrap();
    assert_eq!(device.sync().accepted, 3);
    assert_whole(&world, &device, "new");
}

#[test]
fn an_app_that_is_upgraded_while_a_snapshot_is_loaded_shows_all_in_its_new_tables() {
    let world = World::new();
    fill(&world);
    let device = loader(&world, "new");
    let filled = AtomicUsize::new(0);
    let hook: fault::Hook = Arc::new(move |name| {
        if name == "rows are beside the tables" && filled.fetch_add(1, Ordering::SeqCst) == 1 {
            std::panic::panic_any(name);
        }
    });
    catch_unwind(AssertUnwindSafe(|| fault::with_hook(Some(hook), || device.try_sync()))).unwrap_err();
    drop(device);
    let schema = SHOP.replace("version = 1", "version = 2").replace("fields.note = \"text\"", "fields.memo = \"text\"");
    let device = world.reopen_under("new", &schema);
    // It goes on with what was loaded.
    device.sync();
    assert_eq!(device.transport.downloads.lock().unwrap().len(), 0);
    assert_eq!(device.query::<u64>("SELECT count(*) FROM receipts WHERE memo IS NULL"), RECEIPTS - 1);
    assert_whole(&world, &device, "new");
}

#[test]
fn what_the_log_brings_while_the_tables_are_filled_is_in_them() {
    let world = World::new();
    let author = fill(&world);
    let device = loader(&world, "new");
    let filled = AtomicUsize::new(0);
    let hook: fault::Hook = Arc::new(move |name| {
        if name == "rows are beside the tables" && filled.fetch_add(1, Ordering::SeqCst) == 1 {
            std::panic::panic_any(name);
        }
    });
    catch_unwind(AssertUnwindSafe(|| fault::with_hook(Some(hook), || device.try_sync()))).unwrap_err();
    // Some of it lies where the tables are filled already, some behind.
    let write = |op: &mut gbsync_client::Operation| {
        for id in ["r00001", "r02500"] {
            op.patch("receipts", id, r#"{"no":"changed"}"#.replace("changed", id))?;
        }
        op.delete("receipts", "r00002")?;
        op.delete("receipts", "r02501")?;
        op.upsert("receipts", "r00003", r#"{"no":"back","total":"1.00"}"#)?;
        op.upsert("receipts", "a-first", r#"{"no":"first","total":"1.00"}"#)
    };
    author.client.operation::<Error>("edit", "r00001", write).unwrap();
    author.sync();
    let device = loader(&world, "new");
    device.sync();
    assert_whole(&world, &device, "new");
    let db = app(&world.path("new"));
    let shown =
        "SELECT id, no FROM receipts WHERE id IN ('a-first','r00001','r00002','r00003','r02500','r02501') ORDER BY id";
    assert_eq!(rows(&db, shown), ["a-first|first", "r00001|r00001", "r00003|back", "r02500|r02500"]);
}
