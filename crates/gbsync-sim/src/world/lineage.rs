//! Worlds whose server is put back to an earlier state: restored from a backup by the product's own code, or its folder copied back by
//! hand and nobody told. What devices saw accepted is lost then, and they bring it back (docs/protocol.md, "Restored logs").
//!
//! What happens is drawn from a stream of its own, so that worlds of other kinds stay what they are.

use super::network::Message;
use super::{SPACES, World, mix};
use crate::branch::Branch;
use crate::invariant;
use crate::random::Random;
use anyhow::{Context, Result};
use gbsync_core::limits::Limits;
use gbsync_core::wire::{Content, PushRequest};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Of so many worlds, one is of this kind.
const ONE_OF: u64 = 8;
/// The one.
const WHICH: u64 = 5;

/// More than how long groups wait for what devices bring back.
const AFTER_HEALING_MS: u64 = 6 * 60 * 60 * 1000;

/// How an earlier state of the server comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `gbsync backup`, and `gbsync restore` into an empty folder.
    Backup,
    /// The folder is copied, and copied back without a word.
    ByHand,
    /// The same, and `gbsync restore --in-place` says so.
    ByHandAndTold,
}

/// An earlier state of the server.
struct Copy {
    folder: PathBuf,
    way: Way,
    /// The log of each space by then.
    branches: Vec<Branch>,
}

/// A place at the end of a log that was lost.
#[derive(Clone)]
struct LostPlace {
    space: usize,
    log: String,
    seq: usize,
    chain: String,
}

/// What a world of this kind remembers.
#[derive(Default)]
pub(super) struct Lineage {
    copies: Vec<Copy>,
    lost: Vec<LostPlace>,
    /// Groups that were sent with a base in a lost log, by space, and are not accepted yet.
    old_bases: BTreeSet<(usize, String)>,
}

/// Whether the server of a world is put back at times.
pub(super) fn is_put_back(seed: u64) -> bool {
    seed % ONE_OF == WHICH
}

impl World {
    /// Whether the server of this world is put back at times.
    pub(super) fn has_lineage(&self) -> bool {
        is_put_back(self.seed)
    }

    /// What happens to the server's past before a step, beside everything else.
    pub(super) fn befall_server(&mut self, step: u64) -> Result<()> {
        let mut random = Random::of(mix(self.seed, 1_000_000 + step));
        match random.below(16) {
            0 | 1 => self.copy_server(&mut random),
            2 => self.put_server_back(&mut random),
            _ => Ok(()),
        }
    }

    fn copy_server(&mut self, random: &mut Random) -> Result<()> {
        let way = [Way::Backup, Way::Backup, Way::ByHand, Way::ByHandAndTold][random.below(4)];
        let folder = self.scratch.path().join(format!("server-{}", self.lineage.copies.len()));
        self.server()?.copy(&folder, way)?;
        let branches = self.models.iter().map(crate::model::Model::branch).collect();
        self.say(format!("  the server's state is kept, {way:?}"));
        self.lineage.copies.push(Copy { folder, way, branches });
        Ok(())
    }

    /// Any state that was kept, also one of a log that was lost itself; rather an early one, so that much is lost.
    fn put_server_back(&mut self, random: &mut Random) -> Result<()> {
        let count = self.lineage.copies.len().max(1);
        let Some(copy) = self.lineage.copies.get(random.below(count).min(random.below(count))) else { return Ok(()) };
        let (folder, way, branches) = (copy.folder.clone(), copy.way, copy.branches.clone());
        // A disk may fail while somebody looks; nothing has happened then.
        let (lost, kept) = (self.ends_of_logs()?, self.kept_groups()?);
        if let Some(server) = &mut self.server {
            server.put_back(&folder, way, &self.runtime).context("P4: the server does not come back from a copy of it")?;
        }
        for ((model, branch), kept) in self.models.iter_mut().zip(&branches).zip(&kept) {
            model.go_back(branch, kept);
        }
        self.note(match way {
            Way::Backup => "the server was restored from a backup",
            Way::ByHand => "the server was rolled back by hand",
            Way::ByHandAndTold => "the server was rolled back and told so",
        });
        let heads: Vec<usize> = self.models.iter().map(crate::model::Model::head).collect();
        self.say(format!("  the server is put back, {way:?}, to {heads:?}"));
        self.lineage.lost.extend(lost);
        self.ask_for_lost_places()?;
        (0..self.devices.len()).for_each(|place| self.has_to_read_anew(place));
        if random.below(3) == 0 {
            self.note("nobody came before healing was over");
            self.time.pass(AFTER_HEALING_MS);
        }
        Ok(())
    }

    /// The groups that devices have, in each space.
    pub(super) fn kept_groups(&self) -> Result<Vec<BTreeSet<String>>> {
        let mut kept = vec![BTreeSet::new(); self.models.len()];
        for device in &self.devices {
            kept[device.space].extend(device.kept_groups()?);
        }
        Ok(kept)
    }

    /// What no device has any more after one of them was put back is gone, where the server lost it too.
    pub(super) fn excuse_what_nobody_has(&mut self) -> Result<()> {
        if self.has_lineage() {
            let kept = self.kept_groups()?;
            self.models.iter_mut().zip(&kept).for_each(|(model, kept)| model.excuse(kept));
        }
        Ok(())
    }

    fn ends_of_logs(&self) -> Result<Vec<LostPlace>> {
        let mut ends = Vec::new();
        for (space, model) in self.models.iter().enumerate() {
            let (log, _) = log_of(self.server()?.reader()?, SPACES[space])?;
            if let Some(chain) = model.chain(model.head()) {
                ends.push(LostPlace { space, log, seq: model.head(), chain: chain.to_owned() });
            }
        }
        Ok(ends)
    }

    /// P6: whoever stands in a log that is no more is told so, and not that there is nothing new.
    pub(super) fn ask_for_lost_places(&self) -> Result<()> {
        for LostPlace { space, log, seq, chain } in &self.lineage.lost {
            if self.models[*space].chain(*seq) == Some(chain) {
                continue;
            }
            let server = self.server()?;
            // A commit whose sync failed may have been in the files that were kept, though nobody saw it there.
            if is_in_log(server.reader()?, SPACES[*space], *seq, chain)? {
                continue;
            }
            let path = format!("/v1/spaces/{}/log?after={seq}&log={log}&chain={chain}", SPACES[*space]);
            let token = &server.tokens[*space].device;
            let answer = server.answer(&self.runtime, "GET", &path, token, None)?;
            invariant::p6_lost_place_refused(answer.map(|answer| answer.status), *seq)?;
        }
        Ok(())
    }

    /// Takes note of groups that are sent with a base in a lost log.
    pub(super) fn note_old_bases(&mut self, message: &Message) -> Result<()> {
        if self.lineage.lost.is_empty() || !message.request.path.ends_with("/push") {
            return Ok(());
        }
        let (space, body) = (message.space, message.request.body.as_deref().unwrap_or_default());
        let Ok(request) = PushRequest::parse(body, &Limits::default()) else { return Ok(()) };
        let (present, ancestors) = log_of(self.server()?.reader()?, SPACES[space])?;
        for arrival in &request.groups {
            let Content::Whole(group) = &arrival.content else { continue };
            let Some(log) = group.header().log.as_ref().filter(|log| log.as_str() != present) else { continue };
            let ancestor = ancestors.iter().find(|(ancestor, _)| ancestor == log.as_str());
            let up_to = ancestor.map_or(0, |(_, up_to)| *up_to);
            let bases = group.changes().iter().filter(|change| !change.edit.is_increment() && change.base.group.is_none());
            if bases.into_iter().any(|change| change.base.version.0 > up_to) {
                self.lineage.old_bases.insert((space, arrival.id.to_string()));
            }
        }
        Ok(())
    }

    /// Counts what came back, of the entries of a log after this place.
    pub(super) fn note_what_came_back(&mut self, before: &[usize]) {
        if self.lineage.lost.is_empty() {
            return;
        }
        let came_back = |(model, before): (&crate::model::Model, &usize)| {
            model.log[(*before).min(model.head())..].iter().filter(|group| model.was_lost(group)).count()
        };
        let count: usize = self.models.iter().zip(before).map(came_back).sum();
        (0..count).for_each(|_| self.note("a group that the log had lost came back"));
        let (models, sent) = (&self.models, std::mem::take(&mut self.lineage.old_bases));
        let is_accepted = |(space, group): &(usize, String)| models[*space].place(group).is_some();
        let (accepted, waiting): (BTreeSet<_>, BTreeSet<_>) = sent.into_iter().partition(is_accepted);
        self.lineage.old_bases = waiting;
        accepted.iter().for_each(|_| self.note("a version of a lost log was translated"));
    }
}

/// Whether the log of a space has this chain at this place.
fn is_in_log(db: &Connection, space: &str, seq: usize, chain: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM spaces AS s JOIN log AS l ON l.place = (s.space_no << 40 | ?2)
                               WHERE s.space = ?1 AND lower(hex(l.chain)) = ?3)";
    Ok(db.prepare_cached(sql)?.query_row((space, seq, chain), |row| row.get(0))?)
}

/// The name of a space's log, and those that it came from, each up to where both agree.
fn log_of(db: &Connection, space: &str) -> Result<(String, Vec<(String, u64)>)> {
    let sql = "SELECT log, ancestors FROM spaces WHERE space = ?1";
    let (log, ancestors): (String, Option<String>) =
        db.prepare_cached(sql)?.query_row([space], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let ancestors: Value = serde_json::from_str(ancestors.as_deref().unwrap_or("[]"))?;
    let ancestor = |kept: &Value| Some((kept["log"].as_str()?.to_owned(), kept["upTo"].as_u64()?));
    Ok((log, ancestors.as_array().into_iter().flatten().filter_map(ancestor).collect()))
}
