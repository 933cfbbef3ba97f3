//! Operations that break a rule of the schema: a stranger sends them, a program calls the client with them, or writes them with plain
//! SQL. The server refuses them, the client refuses to save them, and what was captured is parked; nothing of them shows.
//!
//! Drawn from a stream of its own and beside the other events of a step, so that the other worlds are what they were. That nothing is
//! left is seen by the checks of every step: the reference does not know what was refused.

use super::{World, mix, office};
use crate::action::{self, Wrong};
use crate::model::Operation;
use crate::names;
use crate::random::Random;
use anyhow::{Result, bail, ensure};
use gbsync_client::Error;
use gbsync_core::digest::Digest;
use serde_json::{Value, json};

/// What the root of such an operation begins with.
pub(super) const ROOT: &str = "wrong";

impl World {
    /// In some steps of worlds with rules somebody breaks one.
    pub(super) fn violate(&mut self, step: u64) -> Result<()> {
        if self.schema.is_none() {
            return Ok(());
        }
        let mut random = Random::of(mix(self.seed, 3_000_000 + step));
        let (way, wrong) = (random.below(72), Wrong::ALL[random.below(3)]);
        let place = random.below(self.devices.len());
        self.with_failing_disks(&mut random, |world, _| match way {
            0 | 1 => world.send_wrong(step, wrong),
            2 | 3 => world.save_wrong(place, step, wrong),
            4 => world.save_wrong_by_sql(place, step),
            _ => Ok(()),
        })?;
        Ok(())
    }

    /// A stranger sends it: P1, it is rejected with the code that says why.
    fn send_wrong(&mut self, step: u64, wrong: Wrong) -> Result<()> {
        let version = self.server()?.version();
        let operation = names::written(action::wrong(&format!("{ROOT}{step}"), wrong), version);
        let (status, answer) = self.send("POST", "shop", "push", Some(push(&operation, version)))?;
        let result = &answer["results"][0];
        // Nobody hears the answer of a server that dies.
        if status == 503 {
            return Ok(());
        }
        let is_refused = result["status"] == "rejected" && result["code"] == wrong.code();
        ensure!(status == 200 && is_refused, "P1: a sale with {} was answered {status} {answer}", wrong.what());
        self.note(match wrong {
            Wrong::Invariant => "a stranger broke an invariant",
            Wrong::Missing => "a stranger left out a required field",
            Wrong::Type => "a stranger sent a value of the wrong type",
        });
        Ok(())
    }

    /// A program saves it: the client refuses it.
    fn save_wrong(&mut self, place: usize, step: u64, wrong: Wrong) -> Result<()> {
        let device = &self.devices[place];
        let operation = names::written(action::wrong(&format!("{ROOT}{step}"), wrong), device.version());
        let client = device.client()?.clone();
        match device.mortal.live(&device.folder, || action::write(&client, &operation)) {
            Some(Err(error @ Error::RuleViolated { .. })) => {
                ensure!(error.code() == wrong.code(), "P1: a sale with {} was refused as {error}", wrong.what());
            }
            Some(Ok(())) => bail!("P1: device {place} saved a sale with {}", wrong.what()),
            Some(Err(error)) => return Err(error.into()),
            None => return Ok(()),
        }
        self.note(match wrong {
            Wrong::Invariant => "an app broke an invariant",
            Wrong::Missing => "an app left out a required field",
            Wrong::Type => "an app wrote a value of the wrong type",
        });
        Ok(())
    }

    /// A program without a binding saves it: it is parked, whole and with the reason.
    fn save_wrong_by_sql(&mut self, place: usize, step: u64) -> Result<()> {
        let (token, wrong) = (format!("{ROOT}{step}"), Wrong::Invariant);
        let operation = names::written(action::wrong(&token, wrong), self.devices[place].version());
        self.save_by_sql(place, operation, true)?;
        if !self.devices[place].saved.contains(&token) {
            return Ok(());
        }
        let parked = self.devices[place].client()?.parked()?;
        let parked = parked.iter().find(|parked| parked.group.root.as_ref() == Some(&token));
        let code = parked.and_then(|parked| parked.group.code.as_deref());
        ensure!(code == Some(wrong.code()), "P7: a sale with {} was captured, and is parked as {code:?}", wrong.what());
        self.note("a captured operation that broke an invariant was parked");
        Ok(())
    }
}

/// A push of one sale.
fn push(operation: &Operation, version: u64) -> String {
    let changes = office::wire(operation).to_string();
    let digest = Digest::of(changes.as_bytes());
    let (root, count) = (&operation.token, operation.changes.len());
    format!(
        r#"{{"device":"stranger","epoch":"{root}","groups":[{{"syncGroupId":"sale:{root}:1","syncGroupType":"sale","schemaVersion":{version},"deviceSeq":1,"createdAt":"2026-06-01T00:00:00.000Z","changeCount":{count},"digest":"{digest}","changes":{changes}}}]}}"#,
    )
}

/// Whether a rejection is of something that nobody of this world meant.
pub(super) fn is_of_a_stranger(rejection: &Value) -> bool {
    rejection["syncGroupId"].as_str().is_some_and(|id| id.split(':').nth(1).is_some_and(|root| root.starts_with(ROOT)))
        && rejection["device"] == json!("stranger")
}
