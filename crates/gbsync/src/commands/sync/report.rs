//! What a round did: one line on standard output, and every refused group whole on standard error.

use crate::commands::outbox::GroupLine;
use crate::config::DeviceFile;
use crate::exit::Failure;
use crate::output::{Output, counted, shell_word};
use gbsync_client::{GroupInfo, SyncReport};
use gbsync_core::change::Change;
use gbsync_core::verdict::RefusedChange;
use serde::Serialize;

/// Refused groups that are told of one by one; the outbox lists them all.
const MOST_GROUPS: usize = 20;
/// Changes at fault that are shown of one group.
const MOST_CHANGES: usize = 10;
/// Characters shown of a payload.
const MOST_CHARACTERS: usize = 200;

/// Prints a round.
pub fn print(device: &DeviceFile, report: &SyncReport, output: &Output) {
    if output.is_json() {
        output.json(&ReportLine::of(report));
    } else {
        output.line(summary(report));
    }
    output.flush();
    for group in report.parked.iter().take(MOST_GROUPS) {
        output.failure(&refusal(device, group));
    }
    let more = report.parked.len().saturating_sub(MOST_GROUPS);
    if more > 0 {
        output.note(format_args!(
            "{} more; gbsync outbox {} lists them",
            counted(more as u64, "parked group"),
            device.path.display()
        ));
    }
}

/// A round as an object with stable fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportLine<'a> {
    pushed: u64,
    accepted: u64,
    parked: Vec<GroupLine<'a>>,
    waiting: u64,
    pulled_groups: u64,
    pulled_records: u64,
    cursor: u64,
    requests: u64,
}

impl<'a> ReportLine<'a> {
    fn of(report: &'a SyncReport) -> Self {
        Self {
            pushed: report.pushed,
            accepted: report.accepted,
            parked: report.parked.iter().map(GroupLine::of).collect(),
            waiting: report.waiting,
            pulled_groups: report.pulled_groups,
            pulled_records: report.pulled_records,
            cursor: report.cursor.0,
            requests: report.requests,
        }
    }
}

fn summary(report: &SyncReport) -> String {
    let (pushed, pulled) = (counted(report.pushed, "group"), counted(report.pulled_groups, "group"));
    let (accepted, parked, cursor) = (report.accepted, report.parked.len(), report.cursor);
    let records = counted(report.pulled_records, "record");
    let waiting = if report.waiting > 0 { format!(", {} waiting", report.waiting) } else { String::new() };
    format!("{pushed} pushed, {accepted} accepted, {parked} parked{waiting}, {pulled} ({records}) pulled; cursor {cursor}")
}

/// A refused group: what it was, the rule and the changes at fault, what the server holds, and the next step.
fn refusal(device: &DeviceFile, group: &GroupInfo) -> Failure {
    let changes = device.client.changes_of(&group.group_id).unwrap_or_default();
    let name = match (&group.group_type, &group.root) {
        (Some(group_type), root) => format!("{group_type} {}", root.as_deref().unwrap_or_default()),
        (None, _) => changes.first().map_or_else(|| group.group_id.to_string(), |change| change.key.to_string()),
    };
    let code = group.code.as_deref().unwrap_or("parked");
    let mut sentence = format!("{name} refused whole ({})", counted(group.records, "record"));
    // None where the group was not refused by a verdict of its own.
    let (rule, refused) = group.rejection().map_or_else(Default::default, |rejection| (rejection.rule, rejection.changes));
    let message = group.message.as_deref();
    if let Some(rule) = &rule {
        sentence.push_str(&format!(": rule {rule}"));
        sentence.extend(message.map(|message| format!(": {message}")));
    }
    let mut failure = Failure::new(code, sentence);
    if rule.is_none() && refused.is_empty() {
        failure.details.extend(group.message.clone());
    }
    failure.details.extend(refused.iter().take(MOST_CHANGES).map(|refused| refused_line(refused, &changes)));
    if refused.len() > MOST_CHANGES {
        failure.details.push(format!("and {} more changes", refused.len() - MOST_CHANGES));
    }
    failure.help(format!("gbsync outbox {}", shell_word(&device.path.display().to_string())))
}

fn refused_line(refused: &RefusedChange, changes: &[Change]) -> String {
    let action = changes.get(refused.index).map_or("change", |change| change.edit.action());
    let mut line = format!("{} {action}: {}", refused.key, refused.code);
    if let Some(current) = &refused.current {
        let held = match &current.payload {
            Some(payload) => shortened(payload),
            None => "nothing, it was deleted".to_owned(),
        };
        line.push_str(&format!("; the server holds version {}: {held}", current.version));
    }
    line
}

fn shortened(payload: &str) -> String {
    match payload.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &payload[..end]),
        None => payload.to_owned(),
    }
}
