//! A device's file in which values were exchanged: by a bad disk, a bad copy, or somebody with a database browser.

mod damage;
mod template;

use crate::stand::{NOW_MS, Played, answered, config, handshake, run, scratch};
use damage::Damage;
use gbsync_client::{Client, GroupFilter, Request, Response, SyncOptions};
use gbsync_core::digest::Digest;
use gbsync_core::id::Seq;
use gbsync_core::limits::Limits;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{Content, GroupResult, PushRequest, answer_json};
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use template::Template;

thread_local! {
    static TEMPLATE: Template = Template::make();
}

/// The bytes of changes that a device may send.
type Known = Arc<Mutex<BTreeSet<String>>>;

/// A damaged file is refused, or each thing that an app does with it works or says why not; what was not damaged stays, and
/// nothing is sent that was never sealed. The input says which values are exchanged: see `damage`.
///
/// # Panics
/// When not.
pub fn outbox_rows(data: &[u8]) {
    TEMPLATE.with(|template| {
        let folder = scratch();
        let file = folder.path().join("till.db");
        template.put(&file);
        let damaged = {
            let db = Connection::open(&file).expect("the file opens");
            Damage::read(data).iter().filter_map(|damage| damage.apply(&db)).collect::<BTreeSet<i64>>()
        };
        let is_said = match Client::open(config(file.clone(), None)) {
            Ok(client) => use_all(&client, template),
            Err(error) => !error.to_string().is_empty(),
        };
        nothing_else_is_lost(&file, template, &damaged);
        damage_is_said(&file, template, is_said);
    });
}

/// Everything that an app does. Each may fail, none may panic. Answers whether a round said that something is wrong.
fn use_all(client: &Client, template: &Template) -> bool {
    let _ = client.status();
    let _ = client.digest();
    let _ = client.parked();
    for view in ["gbsync_records", "gbsync_group", "gbsync_record_state", "gbsync_parked_change", "gbsync_flag"] {
        let _ =
            client.with_reader(|db| db.query_row(&format!("SELECT count(*) FROM {view}"), [], |row| row.get::<_, i64>(0)));
    }
    let _ = client.groups(GroupFilter::All, usize::MAX);
    let parked: Vec<_> = template.groups.iter().filter(|group| group.state == "parked").collect();
    for group in &template.groups {
        let _ = client.group(&group.id);
        let _ = client.changes_of(&group.id);
    }
    let _ = client.operation("sale", "new", |operation| {
        operation.upsert("receipts", "new", r#"{"total":"1.00"}"#)?;
        operation.patch("receipts", "r-1", r#"{"note":"new"}"#)?;
        operation.increment("stock", "p-1", r#"{"quantity":-1}"#)
    });
    let mut is_said = sync(client, template);
    if let [first, .., last] = parked.as_slice() {
        let _ = client.retry(&first.id);
        let _ = client.discard(&last.id, "nobody wants it");
        let _ = client.amend(&last.id, |operation| operation.upsert("receipts", "amended", r#"{"total":"1.00"}"#));
    }
    is_said |= sync(client, template);
    let _ = client.status();
    is_said
}

/// A round with a server that accepts what arrives whole. Answers whether it failed with a sentence.
fn sync(client: &Client, template: &Template) -> bool {
    let sealed = client.with_reader(|db| {
        let mut statement = db.prepare("SELECT changes FROM gbsync_outbox WHERE typeof(changes) = 'text'")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    });
    // Groups may be sealed on the way to the first request; by then they are in the outbox too.
    let known: Known = Arc::new(Mutex::new(sealed.unwrap_or_default().into_iter().collect()));
    let (log, head) = (template.log.clone(), template.head);
    let transport = Played(move |request: &Request| answer(request, &log, head, &known));
    let synced = run(client.sync(&transport, &SyncOptions { attempts: 1, ..SyncOptions::default() }));
    synced.is_err_and(|error| !error.to_string().is_empty())
}

fn answer(request: &Request, log: &str, head: u64, known: &Known) -> Option<Response> {
    if request.path.contains("/log?") {
        let after: u64 = request.path.split("after=").nth(1)?.split('&').next()?.parse().ok()?;
        let chain = Digest::of(b"");
        return Some(answered(200, gbsync_core::wire::page_json([], Seq(after.max(head)), chain, Seq(after.max(head)))));
    }
    if request.path.ends_with("/push") {
        let push = PushRequest::parse(request.body.as_deref()?, &Limits::default()).ok()?;
        let known = known.lock().expect("no panic before");
        let result = |(place, arrival): (usize, &gbsync_core::wire::Arrival)| {
            let verdict = match &arrival.content {
                Content::Whole(group) => {
                    // What is new was sealed in this round, of changes that programs captured or a parked group left.
                    let is_known =
                        known.contains(group.changes_json()) || group.header().created_at.unix_ms() == NOW_MS as i64;
                    assert!(is_known, "P1: a group arrives whole that was never sealed: {}", group.changes_json());
                    Verdict::Accepted { seq: Seq(head + 1 + place as u64), is_duplicate: false, flags: Vec::new() }
                }
                _ => Verdict::Incomplete { message: "damaged".into(), missing: Vec::new() },
            };
            GroupResult { id: arrival.id.clone(), verdict }
        };
        let results: Vec<GroupResult> = push.groups.iter().enumerate().map(result).collect();
        return Some(answered(200, answer_json(&results, Some(Seq(head)))));
    }
    let is_handshake = request.path.split('?').next()?.ends_with("/spaces/shop");
    is_handshake.then(|| handshake(log, Seq(head)))
}

/// P4 and P7: rows that nobody damaged are there, with their bytes, whatever was done with the others.
fn nothing_else_is_lost(file: &Path, template: &Template, damaged: &BTreeSet<i64>) {
    let db = Connection::open(file).expect("the file opens");
    for group in template.groups.iter().filter(|group| !damaged.contains(&group.local_no) && group.state != "accepted") {
        let sql = "SELECT changes FROM gbsync_outbox WHERE local_no = ?1 AND group_id = ?2";
        let kept = db.query_row(sql, rusqlite::params![group.local_no, group.id.as_str()], |row| row.get::<_, String>(0));
        assert_eq!(kept.as_ref(), Ok(&group.changes), "P4: {} is gone or changed", group.id);
    }
}

/// P1 and P10: a group whose bytes are not those that were sealed is never accepted, and somebody hears of it.
fn damage_is_said(file: &Path, template: &Template, is_said: bool) {
    let db = Connection::open(file).expect("the file opens");
    let sql = "SELECT group_id, state, code, digest, changes FROM gbsync_outbox WHERE state IN ('sealed', 'accepted') AND attempts > 0";
    let Ok(mut statement) = db.prepare(sql) else { return };
    let mut rows = statement.query([]).expect("the outbox can be read");
    while let Ok(Some(row)) = rows.next() {
        let text = |place| row.get::<_, String>(place).unwrap_or_default();
        let (digest, changes) = (row.get::<_, Vec<u8>>(3).unwrap_or_default(), text(4));
        let (id, state, code) = (text(0), text(1), text(2));
        // What the server had before is none of its business now.
        let was_accepted = template.groups.iter().any(|group| group.id.as_str() == id && group.state == "accepted");
        if was_accepted || Digest::of(changes.as_bytes()).as_bytes().as_slice() == digest.as_slice() {
            continue;
        }
        assert!(state != "accepted", "P1: {id} was accepted with other bytes");
        assert!(is_said || !code.is_empty(), "P10: {id} is damaged, and nobody says so");
    }
}
