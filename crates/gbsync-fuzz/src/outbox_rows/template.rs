//! A device's file with something of everything in it: groups sealed, accepted, refused, waiting for one that was refused,
//! discarded, and rows that a program wrote and nobody has looked at.

#[cfg(test)]
use crate::stand::config;
use crate::stand::{Played, Stand, device, run, scratch};
use gbsync_client::{Client, Method, Request, Response, SyncOptions};
use gbsync_core::id::GroupId;
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex};

const RULES: &str = r#"
version = 1
[entities.receipts]
fields.total = { type = "decimal", scale = 2, required = true }
fields.note = "text"
[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
[entities.stock]
fields.quantity = { type = "integer", counter = true }
"#;

/// The files, and what is in them.
pub(super) struct Template {
    database: Vec<u8>,
    life: Vec<u8>,
    /// What the companion of the database says of it.
    #[cfg(unix)]
    token: String,
    pub(super) log: String,
    pub(super) head: u64,
    pub(super) groups: Vec<KnownGroup>,
}

/// A group of the outbox.
pub(super) struct KnownGroup {
    pub(super) local_no: i64,
    pub(super) id: GroupId,
    pub(super) state: String,
    pub(super) changes: String,
}

impl Template {
    pub(super) fn make() -> Self {
        let folder = scratch();
        let (other, ours) = (folder.path().join("other"), folder.path().join("ours"));
        for folder in [&other, &ours] {
            std::fs::create_dir(folder).expect("a folder");
        }
        let schema = || Some(Schema::parse(RULES).expect("a schema"));
        let stand = Arc::new(Mutex::new(Stand::new(Limits::default(), schema())));
        let (other, client) = (device(&other, schema()).expect("a device"), device(&ours, schema()).expect("a device"));
        sale(&client, "r-1");
        sale(&client, "r-2");
        sale(&client, "r-3");
        sync(&client, &stand);
        sync(&other, &stand);
        for receipt in ["r-1", "r-2"] {
            note(&other, receipt, "theirs");
            note(&client, receipt, "ours");
            note(&client, receipt, "ours again");
        }
        sync(&other, &stand);
        sync(&client, &stand);
        let parked = client.parked().expect("groups were refused");
        assert_eq!(parked.len(), 4, "two edits were refused, and what waits for them");
        client.discard(&parked[0].group.group_id, "nobody wants it").expect("a discard");
        sale(&client, "r-4");
        note(&client, "r-4", "waits for its sale");
        client.operation("void", "r-3", |operation| operation.delete("receipts", "r-3")).expect("a void");
        drop(client);
        let file = ours.join("till.db");
        written_by_a_program(&file);
        Self::of(&file)
    }

    fn of(file: &Path) -> Self {
        let db = Connection::open(file).expect("the file opens");
        let (log, head) = db
            .query_row("SELECT log, head FROM gbsync_state", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("the device has synced");
        let sql = "SELECT local_no, group_id, state, changes FROM gbsync_outbox ORDER BY local_no";
        let mut statement = db.prepare(sql).expect("an outbox");
        let group = |row: &rusqlite::Row<'_>| {
            let id: String = row.get(1)?;
            let id = GroupId::new(id).expect("an id");
            Ok(KnownGroup { local_no: row.get(0)?, id, state: row.get(2)?, changes: row.get(3)? })
        };
        let groups = statement.query_map([], group).expect("groups").collect::<Result<_, _>>().expect("groups");
        drop(statement);
        db.close().expect("the file closes");
        let read = |path: &Path| std::fs::read(path).expect("the file is there");
        let life = read(&life_of(file));
        #[cfg(unix)]
        let token = String::from_utf8_lossy(&life).split(' ').next().unwrap_or_default().to_owned();
        Self {
            database: read(file),
            life,
            #[cfg(unix)]
            token,
            log,
            head,
            groups,
        }
    }

    /// Puts the files there, as if they had been there all the time: a copy would want a new epoch.
    pub(super) fn put(&self, file: &Path) {
        std::fs::write(file, &self.database).expect("room for the file");
        std::fs::write(life_of(file), &self.life).expect("room for the file");
        #[cfg(unix)]
        {
            let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(file).expect("the file is there"));
            let db = Connection::open(file).expect("the file opens");
            let life = format!("{} {inode}", self.token);
            db.execute("UPDATE gbsync_state SET life = ?1", [life]).expect("a device's file");
        }
    }
}

fn life_of(file: &Path) -> std::path::PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-gbsync-life");
    name.into()
}

fn sale(client: &Client, receipt: &str) {
    let sold = client.operation("sale", receipt, |operation| {
        operation.upsert("receipts", receipt, r#"{"total":"1.00"}"#)?;
        operation.upsert("payments", receipt, format!(r#"{{"receiptId":"{receipt}"}}"#))?;
        match operation.read("stock", "p-1")? {
            Some(_) => operation.increment("stock", "p-1", r#"{"quantity":-1}"#),
            None => operation.upsert("stock", "p-1", r#"{"quantity":9}"#),
        }
    });
    sold.expect("a sale");
}

fn note(client: &Client, receipt: &str, text: &str) {
    let edited = client
        .operation("note", receipt, |operation| operation.patch("receipts", receipt, format!(r#"{{"note":"{text}"}}"#)));
    edited.expect("an edit");
}

fn written_by_a_program(file: &Path) {
    let db = Connection::open(file).expect("the file opens");
    db.execute_batch(
        "PRAGMA foreign_keys = ON; BEGIN;
         INSERT INTO gbsync_operation(type, root) VALUES ('sale', 'r-5');
         INSERT INTO receipts(id, total) VALUES ('r-5', '5.00');
         UPDATE stock SET quantity = quantity - 1 WHERE id = 'p-1';
         DELETE FROM gbsync_operation; COMMIT;",
    )
    .expect("a program writes");
}

fn sync(client: &Client, stand: &Arc<Mutex<Stand>>) {
    let stand = stand.clone();
    let transport = Played(move |request: &Request| {
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
        };
        let headers: &[(&str, &[u8])] = &[("content-type", b"application/json")];
        let stand = stand.lock().expect("no panic before");
        let answer = stand.ask(method, &request.path, headers, request.body.clone().unwrap_or_default());
        let gbsync_server::LocalAnswer { status, content_type, body, .. } = answer;
        Some(Response { status, content_type, retry_after_ms: None, body })
    });
    run(client.sync(&transport, &SyncOptions::default())).expect("a round");
}

/// The configuration is the same in every run, so the file is.
#[cfg(test)]
#[test]
fn the_template_has_something_of_everything() {
    let template = Template::make();
    let states: std::collections::BTreeSet<&str> = template.groups.iter().map(|group| group.state.as_str()).collect();
    assert_eq!(states.into_iter().collect::<Vec<_>>(), ["accepted", "discarded", "parked", "sealed"]);
    let folder = scratch();
    let file = folder.path().join("till.db");
    template.put(&file);
    let client = Client::open(config(file, None)).expect("the file opens");
    assert_eq!(client.status().expect("the device works").pending_groups, 4);
    let epochs: (String, Option<String>) = client
        .with_reader(|db| {
            db.query_row("SELECT epoch, wanted_epoch FROM gbsync_state", [], |row| Ok((row.get(0)?, row.get(1)?)))
        })
        .expect("a state");
    assert_eq!(epochs.1, None, "the file is taken for a copy");
}
