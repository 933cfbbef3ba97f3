//! Schema files, in TOML and JSON.

use crate::stand::{device, scratch};
use gbsync_client::Error;
use gbsync_core::schema::{Schema, diff};

/// A schema is refused with a place for each mistake, or it is the same after it was written and read again, and tables
/// can be made of it or it says why not.
///
/// # Panics
/// When not.
pub fn schema_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let schema = match Schema::parse(text) {
        Ok(schema) => schema,
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(problems.iter().count() > 0, "refused without a reason");
            for problem in problems.iter() {
                assert!((1..=lines).contains(&problem.line) && problem.column > 0, "{problem} is nowhere in the text");
                assert!(!problem.message.is_empty(), "no sentence");
            }
            return;
        }
    };
    let json = schema.to_json();
    let again = Schema::parse(&json).unwrap_or_else(|problems| panic!("{json}\n{problems}"));
    assert_eq!(again.to_json(), json, "a schema is written as it was read");
    let changes = diff(&schema, &again);
    assert!(changes.is_empty(), "a schema differs from itself: {changes:?}");
    let folder = scratch();
    match device(folder.path(), Some(schema)) {
        Ok(client) => {
            client.status().expect("a device under the schema works");
            client
                .with_reader(|db| db.query_row("SELECT count(*) FROM gbsync_records", [], |row| row.get::<_, i64>(0)))
                .expect("its views can be read");
        }
        Err(Error::UnusableSchema(_) | Error::TableTaken { .. }) => {}
        Err(error) => panic!("no tables can be made: {error}"),
    }
}
