//! What was found, for people: lines on the terminal, and the table of docs/proof.md.

use super::hunt::Found;
use anyhow::{Context, Result};
use gbsync_core::mutant::Mutant;
use std::collections::BTreeMap;
use std::path::Path;

const BEGIN: &str = "<!-- planted bugs: written by gbsync-sim --mutants -->";
const END: &str = "<!-- end of planted bugs -->";

/// One bug on the terminal.
pub(super) fn line(mutant: Mutant, found: Option<&Found>) -> String {
    match found {
        Some(found) => {
            let Found { judge, seed, promise, message } = found;
            let message: String = message.chars().take(110).collect();
            format!("{:<34} {promise:<4} {} {seed:>3}  {message}", mutant.name(), judge.name())
        }
        None => format!("{:<34} ESCAPED", mutant.name()),
    }
}

/// Puts the table into docs/proof.md, if that is there: a build may run elsewhere.
pub(super) fn write(hunted: &BTreeMap<Mutant, Option<Found>>) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/proof.md");
    let Ok(page) = std::fs::read_to_string(&path) else { return Ok(()) };
    let page = replaced(&page, &markdown(hunted)).context("docs/proof.md has no place for the table")?;
    std::fs::write(&path, page).context("docs/proof.md")
}

fn markdown(hunted: &BTreeMap<Mutant, Option<Found>>) -> String {
    let mut table = String::from("| planted bug | what is wrong then | found by | seeds |\n|---|---|---|---|\n");
    for (mutant, found) in hunted {
        let (by, seeds) = match found {
            Some(found) => (format!("{}, {}", found.promise, found.judge.name()), found.seed.to_string()),
            None => ("**escaped**".to_owned(), "-".to_owned()),
        };
        table.push_str(&format!("| `{}` | {} | {by} | {seeds} |\n", mutant.name(), mutant.bug()));
    }
    table
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::hunt::Judge;
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_written() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let found = Found { judge: Judge::World, seed: 3, promise: "P4".into(), message: "P4: gone".into() };
        let table = markdown(&BTreeMap::from([(Mutant::AckBeforeCommit, Some(found)), (Mutant::SeqOutsideLock, None)]));
        let page = replaced(&page, &table).unwrap_or_default();
        assert!(page.starts_with("before\n") && page.ends_with("\nafter\n") && !page.contains("old"), "{page}");
        assert!(page.contains("| P4, world | 3 |") && page.contains("| **escaped** | - |"), "{page}");
        assert_eq!(replaced("no marks", &table), None);
    }
}
