//! Operations that stay open while the world goes on: somebody looks at a form, and meanwhile others save and the device syncs.

use super::World;
use crate::action;
use crate::random::Random;
use anyhow::Result;

impl World {
    /// Begins an operation and stages all of it, or saves the one that was begun before.
    pub(super) fn begin_or_save(&mut self, place: usize, workload: &mut Random) -> Result<()> {
        if let Some((begun, operation)) = self.devices[place].begun.take() {
            let token = operation.token;
            match begun.seal() {
                Ok(_) => {
                    self.devices[place].saved.push(token.clone());
                    self.note("an operation was saved that had been begun before");
                    self.say(format!("  device {place} saved {token} ({}), begun before", operation.kind));
                }
                Err(error) => {
                    self.note("a save that failed");
                    self.say(format!("  device {place} could not save {token}: {}", error.code()));
                }
            }
            return Ok(());
        }
        self.made += 1;
        let token = format!("t{}", self.made);
        let view = self.view(place)?;
        let operation = action::next(&token, &view, workload);
        self.model.begun(&operation, &view);
        self.model.operations.insert(token.clone(), operation.clone());
        let client = self.devices[place].client()?.clone();
        let mut begun = client.begin(operation.kind, &token)?;
        match action::stage(&mut begun, &operation) {
            Ok(()) => {
                self.say(format!("  device {place} began {token} ({})", operation.kind));
                self.devices[place].begun = Some((begun, operation));
            }
            Err(error) => {
                self.note("a save that failed");
                self.say(format!("  device {place} could not begin {token}: {}", error.code()));
            }
        }
        Ok(())
    }
}
