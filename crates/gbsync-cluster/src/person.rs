//! Who PostgreSQL runs as, where the tests run as root.

use crate::ClusterError;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Somebody without rights.
pub(crate) struct Person {
    user: u32,
    group: u32,
}

impl Person {
    /// Nobody else where root is not at work; otherwise somebody who is given the folder.
    pub(crate) fn instead_of_root(folder: &Path) -> Result<Option<Self>, ClusterError> {
        if std::fs::metadata(folder)?.uid() != 0 {
            return Ok(None);
        }
        let people = std::fs::read_to_string("/etc/passwd")?;
        let person = ["postgres", "nobody"].iter().find_map(|name| Self::named(&people, name));
        let person = person.ok_or(ClusterError::NoPerson)?;
        chown(folder, Some(person.user), Some(person.group))?;
        Ok(Some(person))
    }

    fn named(people: &str, name: &str) -> Option<Self> {
        let mut fields = people
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
        let mut number = |skipped| fields.nth(skipped)?.parse().ok();
        Some(Self { user: number(1)?, group: number(0)? })
    }

    /// Gives a file to this one.
    pub(crate) fn own(&self, path: &Path) -> Result<(), ClusterError> {
        Ok(chown(path, Some(self.user), Some(self.group))?)
    }

    /// Makes a program run as this one.
    pub(crate) fn be(&self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }
}
