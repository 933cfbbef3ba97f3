//! Files in which a value is not what the engine wrote: said, and nothing else is lost. `gbsync-fuzz` exchanges values at random.

use crate::common::World;
use gbsync_client::{Client, Config};

#[test]
fn a_group_with_a_number_that_none_can_have_is_damage_and_no_overflow() {
    let world = World::new();
    world.device("a").client.upsert("notes", "n1", "{}").unwrap();
    for (column, number) in [("local_no", i64::MAX), ("local_no", -5), ("device_seq", i64::MAX)] {
        let db = rusqlite::Connection::open(world.path("a")).unwrap();
        let before: i64 = db.query_row(&format!("SELECT {column} FROM gbsync_outbox"), [], |row| row.get(0)).unwrap();
        let set = format!("UPDATE gbsync_outbox SET {column} = ?1");
        db.execute(&set, [number]).unwrap();
        let error = Client::open(Config::new(world.path("a"))).err().unwrap();
        assert_eq!(error.code(), "damaged", "{column} = {number}: {error}");
        db.execute(&set, [before]).unwrap();
        assert_eq!(Client::open(Config::new(world.path("a"))).unwrap().status().unwrap().pending_groups, 1);
    }
}
