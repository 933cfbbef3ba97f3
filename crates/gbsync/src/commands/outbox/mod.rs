//! `gbsync outbox`: the groups that wait, and those that were refused, with the reason.

mod decide;

use crate::config::{DeviceFile, client_failure};
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::Result;
use decide::Verb;
use gbsync_client::{GroupFilter, GroupInfo};
use gbsync_core::id::{Actor, GroupId, GroupType, Seq};
use gbsync_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::time::SystemTime;

const EXAMPLE: &str = "\
Examples:
  gbsync outbox till.db
  gbsync outbox till.db --all --limit 20
  gbsync outbox show till.db 17                       # what was tried, why it was refused, both versions
  gbsync outbox amend till.db 17 --changes changes.ndjson
  gbsync outbox retry till.db 17
  gbsync outbox discard till.db 17 --reason 'rung up twice'";
const LIST: &str = "\
Examples:
  gbsync outbox list till.db --all --limit 20
  gbsync outbox list till.db --json";

/// List the groups that wait and those that are parked, and decide about the latter
#[derive(clap::Args)]
#[command(after_help = EXAMPLE, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: Option<ListArguments>,
}

/// What to list.
#[derive(clap::Args)]
#[command(after_help = LIST)]
pub struct ListArguments {
    /// The device's database
    file: PathBuf,
    /// List every group the device still keeps, accepted ones too
    #[arg(long)]
    all: bool,
    /// The most groups to list
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    match (&arguments.verb, &arguments.list) {
        (Some(verb), _) => decide::run(verb, output),
        (None, Some(arguments)) => list(arguments, output),
        (None, None) => Err(Failure::new("usage", "name the device's database").exit(Exit::Usage).into()),
    }
}

fn list(arguments: &ListArguments, output: &Output) -> Result<Exit> {
    let device = DeviceFile::open(&arguments.file)?;
    let read = |filter, limit| device.client.groups(filter, limit).map_err(|error| client_failure(&error));
    let mut groups = Vec::new();
    let filters: &[GroupFilter] =
        if arguments.all { &[GroupFilter::All] } else { &[GroupFilter::Parked, GroupFilter::Pending] };
    // One more than is shown, to know whether something is left out.
    for filter in filters {
        groups.extend(read(*filter, (arguments.limit + 1).saturating_sub(groups.len()))?);
    }
    let is_cut = groups.len() > arguments.limit;
    groups.truncate(arguments.limit);
    groups.sort_by_key(|group| group.device_seq);
    if output.is_json() {
        output.json(&groups.iter().map(GroupLine::of).collect::<Vec<_>>());
    } else if groups.is_empty() {
        output.note("the outbox is empty: nothing waits and nothing is parked");
    } else {
        let headings = ["NO", "STATE", "TYPE", "ROOT", "RECORDS", "AGE", "CODE", "RULE", "MESSAGE"];
        output.line(table(&headings, &groups.iter().map(row).collect::<Vec<_>>()));
    }
    if is_cut {
        output.note(format_args!("only the first {} are listed; --limit N lists more", arguments.limit));
    }
    Ok(Exit::Done)
}

/// A group of this device as an object with stable fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupLine<'a> {
    sync_group_id: &'a str,
    sync_group_type: Option<&'a str>,
    root: Option<&'a str>,
    actor: Option<&'a str>,
    device_seq: u64,
    state: &'a str,
    records: u64,
    code: Option<&'a str>,
    /// The rule at fault, where a rule is.
    rule: Option<String>,
    message: Option<&'a str>,
    sealed_at: &'a str,
    decided_at: Option<&'a str>,
    attempts: u32,
    replaces: Option<&'a str>,
    replaced_by: Option<&'a str>,
    closed_by: Option<&'a str>,
    reason: Option<&'a str>,
    seq: Option<u64>,
    /// The server's result as it came, numbers as written.
    verdict: Option<&'a RawValue>,
}

impl<'a> GroupLine<'a> {
    /// What is printed of a group.
    pub fn of(group: &'a GroupInfo) -> Self {
        Self {
            sync_group_id: group.group_id.as_str(),
            sync_group_type: group.group_type.as_ref().map(GroupType::as_str),
            root: group.root.as_deref(),
            actor: group.actor.as_ref().map(Actor::as_str),
            device_seq: group.device_seq.0,
            state: group.state.as_str(),
            records: group.records,
            code: group.code.as_deref(),
            rule: rule(group),
            message: group.message.as_deref(),
            sealed_at: group.sealed_at.as_str(),
            decided_at: group.decided_at.as_ref().map(Timestamp::as_str),
            attempts: group.attempts,
            replaces: group.replaces.as_ref().map(GroupId::as_str),
            replaced_by: group.replaced_by.as_ref().map(GroupId::as_str),
            closed_by: group.closed_by.as_ref().map(Actor::as_str),
            reason: group.reason.as_deref(),
            seq: group.seq.map(|Seq(seq)| seq),
            verdict: group.verdict.as_deref().and_then(|verdict| serde_json::from_str(verdict).ok()),
        }
    }
}

fn rule(group: &GroupInfo) -> Option<String> {
    group.rejection().and_then(|rejection| rejection.rule)
}

fn row(group: &GroupInfo) -> Vec<String> {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    vec![
        group.device_seq.to_string(),
        group.state.as_str().to_owned(),
        group.group_type.as_ref().map_or("no-group", GroupType::as_str).to_owned(),
        or_dash(group.root.as_deref()),
        group.records.to_string(),
        age(&group.sealed_at, SystemTime::now()),
        or_dash(group.code.as_deref()),
        or_dash(rule(group).as_deref()),
        or_dash(group.message.as_deref()),
    ]
}

/// How long ago, in one unit.
fn age(sealed_at: &Timestamp, now: SystemTime) -> String {
    let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let seconds = now_ms.saturating_sub(sealed_at.unix_ms()).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_age_is_said_in_the_largest_unit_that_fits() {
        let sealed_at = Timestamp::from_unix_ms(1_000_000);
        let after = |seconds: u64| age(&sealed_at, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + seconds));
        assert_eq!([after(0), after(59), after(60), after(7_199), after(200_000)], ["0s", "59s", "1m", "1h", "2d"]);
        assert_eq!(age(&sealed_at, SystemTime::UNIX_EPOCH), "0s");
    }
}
