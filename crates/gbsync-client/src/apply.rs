//! Operations files: many operations in one durable transaction.

use crate::client::Client;
use crate::error::Error;
use crate::operation::staging::Staging;
use crate::operation::{Sealed, seal};
use crate::store::{Tx, outbox};
use gbsync_core::wire::OperationLine;

/// What became of the lines.
#[derive(Debug)]
pub struct Applied {
    /// One result a line, up to the one that failed.
    pub results: Vec<LineResult>,
    /// The place of the line that could not be applied, and why. Nothing of it is stored; the lines before it are.
    pub failed: Option<(usize, Error)>,
}

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineResult {
    /// Its groups are durable: one, or one a change when it has no type.
    Sealed(Vec<Sealed>),
    /// The id it gives was applied before.
    AlreadyApplied,
}

impl Client {
    /// Applies lines of an operations file, each whole, all in one durable transaction.
    ///
    /// # Errors
    /// [`Error`] when the database fails: then nothing of these lines is stored. A line that cannot be applied is no
    /// error here: see [`Applied::failed`].
    pub fn apply(&self, lines: &[OperationLine]) -> Result<Applied, Error> {
        let applied = self.store().write(|tx| {
            let mut applied = Applied { results: Vec::with_capacity(lines.len()), failed: None };
            for (index, line) in lines.iter().enumerate() {
                tx.prepare_cached("SAVEPOINT line")?.execute([])?;
                match self.apply_line(tx, line) {
                    Ok(result) => {
                        tx.prepare_cached("RELEASE line")?.execute([])?;
                        applied.results.push(result);
                    }
                    Err(error @ (Error::Database(_) | Error::Damaged(_) | Error::Locked)) => return Err(error),
                    Err(error) => {
                        tx.execute_batch("ROLLBACK TO line; RELEASE line")?;
                        applied.failed = Some((index, error));
                        break;
                    }
                }
            }
            Ok(applied)
        })?;
        self.notify();
        Ok(applied)
    }

    fn apply_line(&self, tx: &Tx<'_>, line: &OperationLine) -> Result<LineResult, Error> {
        if let Some(id) = &line.group_id
            && outbox::is_known(tx, id)?
        {
            return Ok(LineResult::AlreadyApplied);
        }
        let environment = self.environment();
        let stage = |edits: &[(gbsync_core::id::RecordKey, gbsync_core::change::Edit)]| {
            let root = line.group_type.is_some().then(|| line.root.clone());
            let mut staging = Staging::new(line.group_type.clone(), root, self.actor(), self.terms());
            staging.given_id = line.group_id.clone();
            for (key, edit) in edits {
                staging.stage(tx, key.clone(), edit.clone())?;
            }
            // Nothing can come between staging and sealing: both are inside this transaction.
            seal::seal(tx, environment, &staging, true)
        };
        let sealed = match line.group_type {
            Some(_) => vec![stage(&line.edits)?],
            None => line.edits.iter().map(|edit| stage(std::slice::from_ref(edit))).collect::<Result<_, _>>()?,
        };
        Ok(LineResult::Sealed(sealed))
    }
}
