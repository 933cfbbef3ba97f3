//! A newer schema on a writer's thread, between two transactions of pushes.
//!
//! Invariant: after an adoption that failed nothing is decided before one that did not: some records may be of the newer
//! schema already.

use super::Work;
use super::writer::WriterLoop;
use crate::error::ServerError;
use crate::rules::Adoption;
use gbsync_core::id::{Seq, SpaceId};
use gbsync_core::schema::Schema;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl WriterLoop {
    /// Puts the schemas among the works in force, finishes what failed before, and returns the other works; none of them
    /// when they cannot be decided now.
    pub(super) fn adopt(&mut self, works: Vec<Work>) -> Vec<Work> {
        let mut others = Vec::with_capacity(works.len());
        for work in works {
            match work {
                Work::Adopt(schema, sender) => drop(sender.send(self.put_in_force(Some(&schema)))),
                other => others.push(other),
            }
        }
        if !self.must_adopt || others.is_empty() {
            return others;
        }
        match self.put_in_force(None) {
            Ok(()) => others,
            Err(error) => {
                self.fail(others, &error.to_string());
                Vec::new()
            }
        }
    }

    pub(super) fn put_in_force(&mut self, given: Option<&Schema>) -> Result<(), ServerError> {
        let adopted = catch_unwind(AssertUnwindSafe(|| self.try_put_in_force(given)));
        let adopted = adopted.unwrap_or_else(|_| Err(ServerError::Broken("putting the schema in force panicked".into())));
        match &adopted {
            Ok(()) => self.must_adopt = false,
            // Refused before anything was written.
            Err(ServerError::SchemaOlder { .. } | ServerError::SchemaChanged { .. }) => {}
            Err(_) => {
                self.must_adopt = true;
                if let Some(mut writer) = self.writer.take() {
                    writer.rollback();
                }
            }
        }
        adopted
    }

    fn try_put_in_force(&mut self, given: Option<&Schema>) -> Result<(), ServerError> {
        let shared = self.shared.clone();
        let mut told = |space: &SpaceId, head: Seq| {
            shared.feed.advance(space, head);
            shared.store.announce(space, head);
        };
        let (environment, limits) = (&shared.environment, &shared.limits);
        let in_force = Adoption { writer: self.writer()?, environment, limits, told: &mut told }.run(given)?;
        self.shared.rules.replace(in_force);
        Ok(())
    }
}
