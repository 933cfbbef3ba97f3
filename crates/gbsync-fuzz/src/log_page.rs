//! Pages of the log, as a device applies them: a server may be wrong, the device must not break of it.

use crate::stand::{Played, answered, device, handshake, run, scratch};
use gbsync_client::{Client, SyncOptions};
use gbsync_core::id::Seq;
use gbsync_core::schema::Schema;
use gbsync_core::wire::{LogPage, LogState};
use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Requests after which a round goes nowhere.
const MOST_REQUESTS: usize = 50;
const RULES: &str = include_str!("../../../vectors/schema-accepted/shop.toml");

type Records = BTreeMap<(String, String), String>;

thread_local! {
    /// A device that took nothing yet: one that refuses a page is the same as before.
    static UNTOUCHED: LazyCell<(TempDir, Client)> = LazyCell::new(|| new_device(None));
}

/// A page is refused and leaves nothing, or it is applied whole: the records of the device are those that it tells of.
///
/// # Panics
/// When not, or the device asks for ever.
pub fn log_page(data: &[u8]) {
    match LogPage::parse(data) {
        Err(_) => UNTOUCHED.with(|untouched| applies(data, None, &untouched.1)),
        // Records of another form than the tables, too.
        Ok(page) => {
            for schema in [None, Some(Schema::parse(RULES).expect("the schema of the vectors"))] {
                let (_folder, client) = new_device(schema);
                applies(data, Some(&page), &client);
            }
        }
    }
}

fn new_device(schema: Option<Schema>) -> (TempDir, Client) {
    let folder = scratch();
    let client = device(folder.path(), schema).expect("a new device");
    (folder, client)
}

fn applies(data: &[u8], page: Option<&LogPage>, client: &Client) {
    let head = page.map_or(Seq(1), |page| page.head);
    let body = data.to_vec();
    let requests = AtomicUsize::new(0);
    let transport = Played(move |request: &gbsync_client::Request| {
        assert!(requests.fetch_add(1, Ordering::Relaxed) < MOST_REQUESTS, "P10: the device asks for ever");
        match request.path.as_str() {
            path if path.contains("/parts/") => None,
            path if path.contains("/log?") => Some(answered(200, body.clone())),
            path if path.ends_with("/schema") => None,
            _ => Some(handshake("log-1", head)),
        }
    });
    let synced = run(client.sync(&transport, &SyncOptions { attempts: 1, ..SyncOptions::default() }));
    let cursor = client.status().expect("the device works").cursor;
    match page.map(told) {
        None => {
            assert!(synced.is_err(), "a page that is none is taken");
            assert_eq!((cursor, shown(client)), (Seq(0), Records::new()), "P2: part of a page is applied");
        }
        // What comes in parts does not come here.
        Some(None) => {}
        Some(Some(records)) => {
            let next = page.map_or(Seq(0), |page| page.next);
            if synced.is_ok() || cursor > Seq(0) {
                assert_eq!(cursor, next, "the cursor is elsewhere");
                assert_eq!(shown(client), records, "P2: the view is not what the page tells");
            } else {
                assert_eq!(shown(client), Records::new(), "P2: part of a page is applied");
            }
        }
    }
}

/// The records that a page leaves; `None` where it does not say.
fn told(page: &LogPage) -> Option<Records> {
    let mut records = Records::new();
    for group in page.entries.iter().filter_map(|entry| entry.group.as_ref()) {
        if group.in_parts.is_some() {
            return None;
        }
        for change in &group.changes {
            let key = (change.key.entity.as_str().to_owned(), change.key.id.as_str().to_owned());
            match &change.state {
                LogState::Live(payload) => records.insert(key, payload.to_string()),
                LogState::Deleted | LogState::Left => records.remove(&key),
            };
        }
    }
    Some(records)
}

fn shown(client: &Client) -> Records {
    let read = client.with_reader(|db| {
        let mut statement = db.prepare("SELECT entity, id, payload FROM gbsync_records")?;
        statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?.collect()
    });
    read.expect("the view can be read")
}
