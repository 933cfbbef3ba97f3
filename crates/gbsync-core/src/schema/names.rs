//! Names that a schema may give: they become tables and columns of an SQLite file and variables of rules.

use super::problem::{Code, Problems};

/// The keywords of SQLite (<https://sqlite.org/lang_keywords.html>).
const KEYWORDS: &str = "\
    abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade \
    case cast check collate column commit conflict constraint create cross current current_date current_time \
    current_timestamp database default deferrable deferred delete desc detach distinct do drop each else end escape \
    except exclude exclusive exists explain fail filter first following for foreign from full generated glob group \
    groups having if ignore immediate in index indexed initially inner insert instead intersect into is isnull join \
    key last left like limit match materialized natural no not nothing notnull null nulls of offset on or order \
    others outer over partition plan pragma preceding primary query raise range recursive references regexp reindex \
    release rename replace restrict returning right rollback row rows savepoint select set table temp temporary then \
    ties to transaction trigger unbounded union unique update using vacuum values view virtual when where window \
    with without";

/// Names of columns that every table, or every `{entity}_all`, has.
const COLUMNS: [&str; 6] = ["id", "rowid", "oid", "_rowid_", "sync_state", "sync_message"];
/// Bytes that such a name may have.
const NAME_BYTES: usize = 128;

/// Checks the name of an entity.
pub(super) fn check_entity(name: &str, at: usize, path: &str, problems: &mut Problems) {
    if !check_form("an entity", name, at, path, problems) || !check_prefix("an entity", name, at, path, problems) {
        return;
    }
    if KEYWORDS.split(' ').any(|keyword| keyword.eq_ignore_ascii_case(name)) {
        let message = format!("an entity cannot be named {name:?}, which is a keyword of SQL");
        let fix = format!("name it \"{name}_records\" or the like");
        problems.add_with(at, path, Code::ReservedName, message, fix);
    }
}

/// Checks the name of a field.
pub(super) fn check_field(name: &str, at: usize, path: &str, problems: &mut Problems) {
    if !check_form("a field", name, at, path, problems) || !check_prefix("a field", name, at, path, problems) {
        return;
    }
    if COLUMNS.contains(&name.to_ascii_lowercase().as_str()) {
        let message = format!("a field cannot be named {name:?}, which every table has already");
        problems.add_with(at, path, Code::ReservedName, message, "give it another name");
    }
}

fn check_form(what: &str, name: &str, at: usize, path: &str, problems: &mut Problems) -> bool {
    if !is_identifier(name) {
        let message = format!("{what} cannot be named {name:?}");
        problems.add_with(at, path, Code::InvalidName, message, "use letters, digits and _, beginning with a letter or _");
        return false;
    }
    if name.len() > NAME_BYTES {
        problems.add(at, path, Code::InvalidName, format!("a name has at most {NAME_BYTES} bytes, not {}", name.len()));
        return false;
    }
    true
}

fn check_prefix(what: &str, name: &str, at: usize, path: &str, problems: &mut Problems) -> bool {
    let lower = name.to_ascii_lowercase();
    let taken = [("gbsync_", "gbsync's own"), ("sqlite_", "SQLite's own")];
    let Some((prefix, whose)) = taken.into_iter().find(|(prefix, _)| lower.starts_with(prefix)) else { return true };
    let message = format!("{what} cannot be named {name:?}: names that begin with {prefix} are {whose}");
    problems.add_with(at, path, Code::ReservedName, message, "give it another name");
    false
}

/// `[A-Za-z_][A-Za-z0-9_]*`
fn is_identifier(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_is_found_in_any_case() {
        assert_eq!(KEYWORDS.split(' ').count(), 147);
        for (name, is_refused) in [("ABORT", true), ("Order", true), ("without", true), ("orders", false), ("", true)] {
            let mut problems = Problems::default();
            check_entity(name, 0, "", &mut problems);
            assert_eq!(!problems.is_empty(), is_refused, "{name}");
        }
    }
}
