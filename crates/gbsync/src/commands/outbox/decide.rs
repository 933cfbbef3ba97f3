//! `gbsync outbox show|amend|retry|discard`: one parked group, and what a person decides about it.

use super::GroupLine;
use crate::config::{DeviceFile, client_failure};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use anyhow::{Context, Result};
use gbsync_client::{Client, Error, GroupFilter, GroupInfo, GroupState, ParkedGroup, Sealed};
use gbsync_core::change::{Edit, Payload};
use gbsync_core::id::RecordKey;
use gbsync_core::wire::OperationLine;
use serde_json::value::RawValue;
use std::io::Read as _;
use std::path::{Path, PathBuf};

const SHOW: &str = "\
Examples:
  gbsync outbox show till.db 17                       # by its number, or the beginning of its id
  gbsync outbox show till.db receipt-create:r-1 --json";
const AMEND: &str = "\
Examples:
  gbsync outbox amend till.db 17 --changes changes.ndjson
  echo '{\"changes\":[{\"entity\":\"receipts\",\"id\":\"r-2\",\"action\":\"upsert\",\"payload\":{}}]}' |
    gbsync outbox amend till.db 17 --changes -";
const RETRY: &str = "\
Examples:
  gbsync outbox retry till.db 17";
const DISCARD: &str = "\
Examples:
  gbsync outbox discard till.db 17 --reason 'rung up twice'";

/// A group of a device.
#[derive(clap::Args)]
pub struct Named {
    /// The device's database
    file: PathBuf,
    /// The group: its number, its id, or the beginning of its id
    id: String,
}

/// What to do about a group.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// List the groups that wait to be sent and those that are parked
    List(super::ListArguments),
    /// Show one group: what was tried, why it was refused, and both versions of each record
    #[command(after_help = SHOW)]
    Show(Named),
    /// Send other changes in the place of a parked group
    #[command(after_help = AMEND)]
    Amend {
        /// The group
        #[command(flatten)]
        named: Named,
        /// Operations file with the changes, or - for standard input
        #[arg(long, value_name = "OPS")]
        changes: PathBuf,
    },
    /// Send the same changes again, on what the device has now
    #[command(after_help = RETRY)]
    Retry(Named),
    /// Close a parked group that nobody wants
    #[command(after_help = DISCARD)]
    Discard {
        /// The group
        #[command(flatten)]
        named: Named,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// Runs a verb about one group.
///
/// # Errors
/// A failure that says what to do.
pub fn run(verb: &Verb, output: &Output) -> Result<Exit> {
    let failure = |error: Error| client_failure(&error);
    match verb {
        Verb::List(arguments) => return super::list(arguments, output),
        Verb::Show(named) => {
            let (device, group) = find(named)?;
            show(&device.client, &group, output)?;
        }
        Verb::Amend { named, changes } => {
            let (device, group) = find(named)?;
            let edits = edits(changes, &device.client)?;
            let amended = device.client.amend::<Error>(&group.group_id, |operation| {
                edits.iter().try_for_each(|(key, edit)| stage(operation, key, edit))
            });
            sealed(&group, &amended.map_err(failure)?, output);
        }
        Verb::Retry(named) => {
            let (device, group) = find(named)?;
            sealed(&group, &device.client.retry(&group.group_id).map_err(failure)?, output);
        }
        Verb::Discard { named, reason } => {
            let (device, group) = find(named)?;
            device.client.discard(&group.group_id, reason).map_err(failure)?;
            match output.is_json() {
                true => output.json(&serde_json::json!({ "discarded": group.group_id.as_str() })),
                false => output.line(format_args!("discarded {}; the server is told at the next sync", group.group_id)),
            }
        }
    }
    Ok(Exit::Done)
}

/// Opens the file and finds the group by number, id, or a beginning of its id that is its alone.
fn find(named: &Named) -> Result<(DeviceFile, GroupInfo)> {
    let device = DeviceFile::open(&named.file)?;
    let groups = device.client.groups(GroupFilter::All, usize::MAX).map_err(|error| client_failure(&error))?;
    let number: Option<u64> = named.id.parse().ok();
    // After a new epoch a number may stand twice: then the parked group is meant.
    let is_exact = |group: &&GroupInfo| group.group_id.as_str() == named.id || Some(group.device_seq.0) == number;
    let mut found: Vec<&GroupInfo> = groups.iter().filter(is_exact).collect();
    if found.is_empty() {
        found = groups.iter().filter(|group| group.group_id.as_str().starts_with(&named.id)).collect();
    }
    if found.len() > 1 {
        let parked: Vec<&GroupInfo> = found.iter().copied().filter(|group| group.state == GroupState::Parked).collect();
        found = if parked.len() == 1 { parked } else { found };
    }
    match found.as_slice() {
        [one] => {
            let one = (*one).clone();
            Ok((device, one))
        }
        [] => {
            let failure = Failure::new("unknown_group", format!("no group here is {:?}", named.id));
            Err(failure.help("gbsync outbox list FILE --all shows numbers; --json shows ids").into())
        }
        several => {
            let message = format!("{} groups begin with {:?}; give more of the id", several.len(), named.id);
            let failure = Failure::new("ambiguous_group", message);
            Err(several.iter().take(5).fold(failure, |failure, group| failure.detail(group.group_id.as_str())).into())
        }
    }
}

/// The edits of all lines of an operations file.
fn edits(path: &Path, client: &Client) -> Result<Vec<(RecordKey, Edit)>> {
    let mut text = String::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?,
        false => std::fs::File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("{} cannot be read", path.display()))?,
    };
    let mut edits = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line = OperationLine::parse(line, &client.limits());
        let wrong = |error| Failure::new("malformed", format!("line {}: {error}", index + 1));
        edits.extend(line.map_err(wrong)?.edits);
    }
    Ok(edits)
}

fn stage(operation: &mut gbsync_client::Operation, key: &RecordKey, edit: &Edit) -> Result<(), Error> {
    let (entity, id) = (key.entity.as_str(), key.id.as_str());
    match edit {
        Edit::Upsert(payload) => operation.upsert(entity, id, payload),
        Edit::Patch(payload) => operation.patch(entity, id, payload),
        Edit::Increment(payload) => operation.increment(entity, id, payload),
        Edit::Delete => operation.delete(entity, id),
    }
}

fn sealed(old: &GroupInfo, sealed: &Sealed, output: &Output) {
    let (replaces, id, number) = (old.group_id.as_str(), sealed.group_id.as_str(), sealed.device_seq.0);
    match output.is_json() {
        true => output.json(&serde_json::json!({ "syncGroupId": id, "deviceSeq": number, "replaces": replaces })),
        false => output.line(format_args!("sealed as {number} {id}, in the place of {replaces}")),
    }
}

fn raw(text: Option<&str>) -> Option<&RawValue> {
    text.and_then(|text| serde_json::from_str(text).ok())
}

fn show(client: &Client, group: &GroupInfo, output: &Output) -> Result<()> {
    let failure = |error: Error| client_failure(&error);
    let parked = client.parked_group(&group.group_id).map_err(failure)?;
    let changes = client.changes_of(&group.group_id).map_err(failure)?;
    let of = |index: usize| parked.as_ref().and_then(|parked: &ParkedGroup| parked.changes.get(index));
    if output.is_json() {
        let line = GroupLine::of(group);
        let changes: Vec<_> = changes
            .iter()
            .enumerate()
            .map(|(index, change)| {
                let told = of(index);
                let current = told.and_then(|told| told.current.as_ref());
                serde_json::json!({
                    "entity": change.key.entity.as_str(), "id": change.key.id.as_str(), "action": change.edit.action(),
                    "payload": raw(change.edit.payload().map(Payload::as_str)),
                    "code": told.and_then(|told| told.code.as_deref()),
                    "base": raw(told.and_then(|told| told.base.as_ref()).map(Payload::as_str)),
                    "currentVersion": current.map(|current| current.version.0),
                    "current": raw(current.and_then(|current| current.payload.as_deref())),
                })
            })
            .collect();
        output.json(&serde_json::json!({ "group": line, "changes": changes }));
        return Ok(());
    }
    let kind = group.group_type.as_ref().map_or("no-group", |group_type| group_type.as_str());
    output.line(format_args!("{} {}: {kind}, {}", group.device_seq, group.group_id, group.state.as_str()));
    for (name, text) in [
        ("code", group.code.as_deref()),
        ("why", group.message.as_deref()),
        ("rule", parked.as_ref().and_then(|parked| parked.rule.as_deref())),
        ("replaces", group.replaces.as_ref().map(|id| id.as_str())),
        ("replaced by", group.replaced_by.as_ref().map(|id| id.as_str())),
        ("closed by", group.closed_by.as_ref().map(|actor| actor.as_str())),
        ("reason", group.reason.as_deref()),
    ] {
        if let Some(text) = text {
            output.line(format_args!("  {name}: {text}"));
        }
    }
    for (index, change) in changes.iter().enumerate() {
        let payload = change.edit.payload().map_or("", Payload::as_str);
        output.line(format_args!("change {index}: {} {} {payload}", change.edit.action(), change.key));
        let Some(told) = of(index) else { continue };
        if let Some(base) = &told.base {
            output.line(format_args!("  made on:    {}", base.as_str()));
        }
        match &told.current {
            Some(current) => {
                let payload = current.payload.as_deref().unwrap_or("deleted");
                output.line(format_args!("  server has: {payload} (version {})", current.version));
            }
            None => output.line("  server has: nothing"),
        }
    }
    Ok(())
}
