//! `gbsync orphans`: what breaks the rules in data that came before them, of a server's store or of a device's file.
//!
//! Invariant: it only reads, and holds one record at a time.

mod device;

use super::store::StoreArguments;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, counted};
use anyhow::Result;
use gbsync_core::id::{RecordKey, SpaceId};
use gbsync_server::Finding;
use serde_json::{Value, json};
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync orphans --data ./server
  gbsync orphans --data ./server --space shop --schema gbsync.toml
  gbsync orphans till.db --schema gbsync.toml

Lists references that point nowhere, unique values that several records have, and operations of another shape than the \
schema says; of a device, operations that are not decided yet. Without --schema, the schema that the folder or the file keeps. \
Works beside a running server. Exit code 1 when anything was found.";

/// List what breaks the schema's rules in data that came before them
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database
    #[arg(conflicts_with_all = ["data", "store", "space"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
    /// The one space of a server's store to look through; all without it
    #[arg(long, value_parser = config::space)]
    space: Option<SpaceId>,
    /// The schema, in TOML or JSON
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do, and one that says how much was found.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let schema = arguments.schema.as_deref().map(config::schema_file).transpose()?;
    let mut found = 0;
    let looked = match (&arguments.file, arguments.store.given()) {
        (Some(file), _) => device::scan(file, schema, &mut |finding| {
            found += 1;
            print(output, None, &finding);
        })?,
        (None, Some(store)) => {
            let mut print = |space: &SpaceId, finding: Finding| {
                found += 1;
                print(output, Some(space), &Found::of(finding));
            };
            let scanned = gbsync_server::scan(store, arguments.space.as_ref(), schema.as_ref(), &mut print);
            let scanned = scanned.map_err(|error| config::server_failure(&error))?;
            format!("{} and {}", counted(scanned.records, "record"), counted(scanned.groups, "group"))
        }
        _ => return Err(Failure::new("usage", "give a FILE, or --data or --store").exit(Exit::Usage).into()),
    };
    if found == 0 {
        output.note(format_args!("nothing breaks the rules in {looked}"));
        return Ok(Exit::Done);
    }
    let failure = Failure::new("orphans", format!("{} in {looked}", counted(found, "finding")));
    Err(failure.help("mend the records with operations of your app, then look again").into())
}

/// A finding as it is printed.
struct Found {
    kind: &'static str,
    text: String,
    members: Value,
}

impl Found {
    fn of(finding: Finding) -> Self {
        match finding {
            Finding::Orphan { key, field, referent, was_deleted: true } => {
                Self::orphan(&key, &field, &referent, "was deleted")
            }
            Finding::Orphan { key, field, referent, .. } => Self::orphan(&key, &field, &referent, "never was"),
            Finding::Double { entity, fields, value, records } => {
                let text = format!("{entity}.{fields} {value} is in {records} records");
                let members = json!({ "entity": entity.as_str(), "rule": format!("{entity}.{fields}"), "value": value, "records": records });
                Self { kind: "double", text, members }
            }
            Finding::Shape { seq, group_id, rule, message } => {
                let place = format!("entry {seq}, {group_id}");
                Self::shape(&place, &rule, &message, json!({ "seq": seq.0, "group": group_id }))
            }
            other => Self { kind: "other", text: format!("{other:?}"), members: json!({}) },
        }
    }

    fn orphan(key: &RecordKey, field: &str, referent: &RecordKey, why: &str) -> Self {
        let members = json!({
            "entity": key.entity.as_str(),
            "id": key.id.as_str(),
            "rule": format!("{}.{field}", key.entity),
            "referent": { "entity": referent.entity.as_str(), "id": referent.id.as_str() },
        });
        Self { kind: "orphan", text: format!("{key} {field} -> {referent}, which {why}"), members }
    }

    fn shape(place: &str, rule: &str, message: &str, members: Value) -> Self {
        let mut all = json!({ "rule": rule, "message": message });
        if let (Some(all), Some(members)) = (all.as_object_mut(), members.as_object()) {
            all.extend(members.clone());
        }
        Self { kind: "shape", text: format!("{place}: {message}"), members: all }
    }
}

fn print(output: &Output, space: Option<&SpaceId>, found: &Found) {
    if output.is_json() {
        let mut line = json!({ "kind": found.kind });
        if let (Some(line), Some(members)) = (line.as_object_mut(), found.members.as_object()) {
            line.extend(space.map(|space| ("space".to_owned(), space.as_str().into())));
            line.extend(members.clone());
        }
        output.json(&line);
    } else {
        let space = space.map(|space| format!("{space}: ")).unwrap_or_default();
        output.line(format_args!("{space}{}", found.text));
    }
}
