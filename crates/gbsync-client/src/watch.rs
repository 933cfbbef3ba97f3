//! Queries that answer again whenever their answer changes, and hearing what other processes write.
//!
//! Rejected alternative: SQLite's update hook, which tells nothing of other processes.

use crate::client::Client;
use crate::error::Error;
use rusqlite::types::ValueRef;
use serde_json::{Map, Number, Value};
use tokio::sync::watch;

/// A row: its columns by name. A blob is written as hexadecimal digits.
pub type WatchedRow = Map<String, Value>;

/// A query that is being watched: see [`Client::watch`].
pub struct Watch {
    client: Client,
    sql: String,
    changes: watch::Receiver<u64>,
    last: Option<Vec<WatchedRow>>,
}

impl Client {
    /// Watches a query over the tables and relations of the file.
    ///
    /// # Errors
    /// What SQLite says of the query.
    ///
    /// ```
    /// # use gbsync_client::{Client, Config, Remote};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let remote = Remote { server: "http://127.0.0.1:1".into(), space: gbsync_core::id::SpaceId::new("shop").unwrap() };
    /// # let client = Client::create(Config::new(folder.path().join("till.db")), &remote).unwrap();
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut waiting = client.watch("SELECT count(*) AS groups FROM gbsync_group WHERE state = 'sealed'")?;
    /// assert_eq!(waiting.next().await?[0]["groups"], 0);
    /// client.upsert("receipts", "r1", "{}")?;
    /// assert_eq!(waiting.next().await?[0]["groups"], 1);
    /// # Ok::<(), gbsync_client::Error>(()) }).unwrap();
    /// ```
    pub fn watch(&self, sql: &str) -> Result<Watch, Error> {
        self.with_reader(|db| db.prepare_cached(sql).map(|_| ()))?;
        Ok(Watch { client: self.clone(), sql: sql.to_owned(), changes: self.subscribe(), last: None })
    }
}

impl Watch {
    /// The rows: at once the first time, then as soon as they are others. What changes in quick succession is shown once.
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn next(&mut self) -> Result<Vec<WatchedRow>, Error> {
        loop {
            self.changes.borrow_and_update();
            let rows = self.client.with_reader(|db| rows(db, &self.sql))?;
            if self.last.as_ref() != Some(&rows) {
                self.last = Some(rows.clone());
                return Ok(rows);
            }
            // The sender lives in the client, which is held here.
            let _ = self.changes.changed().await;
        }
    }
}

fn rows(db: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<WatchedRow>> {
    let mut statement = db.prepare_cached(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let row = |row: &rusqlite::Row<'_>| {
        let columns = names.iter().enumerate().map(|(place, name)| Ok((name.clone(), json(row.get_ref(place)?))));
        columns.collect::<rusqlite::Result<WatchedRow>>()
    };
    statement.query_map([], row)?.collect()
}

fn json(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Number(number.into()),
        ValueRef::Real(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        ValueRef::Text(text) => Value::String(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// Notifies subscribers of what other processes write, while there are any.
#[cfg(feature = "native")]
pub(crate) mod others {
    use crate::client::{Client, Inner};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Weak};
    use std::time::Duration;

    /// How often the file is asked whether another process wrote to it.
    const POLL: Duration = Duration::from_millis(100);

    /// Whether somebody listens.
    #[derive(Default)]
    pub(crate) struct Listening(AtomicBool);

    /// Begins to listen, unless somebody does. Ends with the last subscriber or the client.
    pub(crate) fn listen(client: &Client) {
        if client.inner().listening.0.swap(true, Ordering::AcqRel) {
            return;
        }
        let seen = client.store().others_version();
        let inner = Arc::downgrade(client.inner());
        let thread = std::thread::Builder::new().name("gbsync-listen".into()).spawn(move || poll(&inner, seen));
        if thread.is_err() {
            client.inner().listening.0.store(false, Ordering::Release);
        }
    }

    fn poll(inner: &Weak<Inner>, mut seen: Option<i64>) {
        loop {
            std::thread::sleep(POLL);
            let Some(client) = inner.upgrade().map(Client::of) else { return };
            if client.has_no_subscriber() {
                client.inner().listening.0.store(false, Ordering::Release);
                // Somebody may have subscribed in between and found a listener.
                if client.has_no_subscriber() || client.inner().listening.0.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
            let version = client.store().others_version();
            if version.is_some() && version != seen {
                seen = version;
                let _ = client.complete_captured();
                client.notify();
            }
        }
    }
}
