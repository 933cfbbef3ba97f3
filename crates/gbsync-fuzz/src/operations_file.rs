//! Operations files, as `gbsync apply` takes them.

use crate::stand::{config, device, scratch};
use gbsync_client::{GroupFilter, LineResult};
use gbsync_core::limits::Limits;
use gbsync_core::schema::{Schema, infer};
use gbsync_core::wire::OperationLine;

/// Lines are refused, or applied whole: each sealed group is there with its bytes, now and after the file was closed, and
/// what was inferred from them is a schema.
///
/// # Panics
/// When not.
pub fn operations_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = Limits::default();
    let lines: Vec<OperationLine> = text.lines().map_while(|line| OperationLine::parse(line, &limits).ok()).collect();
    if lines.is_empty() {
        return;
    }
    let inferred = infer(&lines).to_toml();
    Schema::parse(&inferred).unwrap_or_else(|problems| panic!("{inferred}\n{problems}"));
    let folder = scratch();
    let client = device(folder.path(), None).expect("a new device");
    let applied = client.apply(&lines).expect("the database works");
    let mut sealed = Vec::new();
    for (line, result) in lines.iter().zip(&applied.results) {
        if let LineResult::Sealed(groups) = result {
            let expected = if line.group_type.is_some() { 1 } else { line.edits.len() };
            assert_eq!(groups.len(), expected, "P1: so many groups of one line");
            sealed.extend(groups.iter().map(|group| group.group_id.clone()));
        }
    }
    let before: Vec<_> = sealed.iter().map(|id| client.changes_of(id).expect("its bytes are there")).collect();
    let shown = shown(&client);
    drop(client);
    let client = gbsync_client::Client::open(config(folder.path().join("till.db"), None)).expect("the file opens again");
    let groups = client.groups(GroupFilter::All, usize::MAX).expect("the outbox can be listed");
    assert_eq!(groups.len(), sealed.len(), "P4: groups are missing or too many");
    for (id, changes) in sealed.iter().zip(before) {
        assert_eq!(client.changes_of(id).expect("its bytes are there"), changes, "P4: {id} changed");
    }
    assert_eq!(self::shown(&client), shown, "P4: the view changed");
}

fn shown(client: &gbsync_client::Client) -> Vec<(String, String, String)> {
    let read = client.with_reader(|db| {
        let mut statement = db.prepare("SELECT entity, id, payload FROM gbsync_records ORDER BY 1, 2")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
    });
    read.expect("the view can be read")
}
