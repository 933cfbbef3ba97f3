//! A PostgreSQL that a server keeps everything in, and that is killed as well.
//!
//! Rejected alternative: each look written a second time in PostgreSQL's SQL. What is asked would be two things that may differ; so
//! one transaction's state is copied, and asked what a SQLite file is asked.

use gbsync_cluster::{Cluster, ask};
use rusqlite::{Connection, params_from_iter};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a look waits for a PostgreSQL that was killed.
const PATIENCE: Duration = Duration::from_secs(90);

/// The database of one world.
pub struct Database {
    cluster: Mutex<Cluster>,
    pub url: String,
}

/// A table of the store: its name in a look, as what it is made there, what is read for it, and the values of a row.
type Copied = (&'static str, &'static str, &'static str, &'static str);

/// What looks ask for. `places` is the log without what stands in it.
const TABLES: [Copied; 6] = [
    ("spaces", "spaces(head INTEGER, chain BLOB)", "head, encode(chain, 'hex') FROM spaces", "?1, unhex(?2)"),
    ("records", "records(entity TEXT, id TEXT, payload TEXT)", "entity, id, payload FROM records", "?1, ?2, ?3"),
    ("places", "log(place INTEGER)", "seq FROM log", "?1"),
    ("log", "log(place INTEGER, entry TEXT, chain BLOB)", "seq, entry, encode(chain, 'hex') FROM log", "?1, ?2, unhex(?3)"),
    ("log_parts", "log_parts(place INTEGER, part INTEGER, body TEXT)", "seq, part, body FROM log_parts", "?1, ?2, ?3"),
    ("groups", "groups(group_id TEXT, seq INTEGER)", "group_id, seq FROM groups", "?1, ?2"),
];

impl Database {
    pub fn start() -> Self {
        let cluster = Cluster::start(&[]).unwrap_or_else(|error| panic!("{error}"));
        Self { url: cluster.store(), cluster: Mutex::new(cluster) }
    }

    /// Kills it as a crash would, and starts it again.
    pub fn crash(&self) {
        self.cluster.lock().unwrap().restart().unwrap();
    }

    /// What stands in these tables in one state of the store, with the columns that looks ask for, named as in a SQLite file.
    pub fn look(&self, tables: &[&str]) -> Connection {
        let copied = || TABLES.iter().filter(|(name, ..)| tables.contains(name));
        let reads: Vec<String> = copied().map(|(name, _, from, _)| format!("SELECT '{name}', {from}")).collect();
        let reads = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}; COMMIT", reads.join("; "));
        let begun = Instant::now();
        let rows = loop {
            match ask(&self.url, &reads) {
                Ok(rows) => break rows,
                // It was killed, and is about to come back.
                Err(error) => assert!(begun.elapsed() < PATIENCE, "PostgreSQL does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let copy = Connection::open_in_memory().unwrap();
        copied().for_each(|(_, made, ..)| copy.execute_batch(&format!("CREATE TABLE {made}")).unwrap());
        let transaction = copy.unchecked_transaction().unwrap();
        for row in rows {
            let (_, made, _, values) = copied().find(|(name, ..)| row[0].as_deref() == Some(name)).unwrap();
            let insert = format!("INSERT INTO {} VALUES ({values})", made.split('(').next().unwrap());
            copy.prepare_cached(&insert).unwrap().execute(params_from_iter(&row[1..])).unwrap();
        }
        transaction.commit().unwrap();
        copy
    }
}
