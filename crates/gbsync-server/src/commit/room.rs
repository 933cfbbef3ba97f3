//! One space inside one transaction: what its works need to know, and what they come to.

use super::ledger::{Ledger, Terms, want};
use super::lineage::ForkingOutcome;
use super::parts;
use super::writer::Outcome;
use super::{DiscardOutcome, PushOutcome, ResolvingOutcome, Work};
use crate::store::{EpochKey, Held, StoreError, Wanted, Writer, Written};
use gbsync_core::decide::{Facts, Needs};
use gbsync_core::id::{Seq, SpaceId};
use gbsync_core::wire::PushRequest;

/// The works of a space.
pub(super) struct Room<'w> {
    pub(super) space: &'w SpaceId,
    /// Each with its place among all works of the transaction.
    works: Vec<(usize, &'w Work)>,
    /// Of each that has a group in parts, the request with them.
    assembled: Vec<Option<PushRequest>>,
}

impl<'w> Room<'w> {
    /// Puts together what was sent in parts, before anything is loaded: only the parts say which records a group touches.
    pub(super) fn enter(
        writer: &mut dyn Writer,
        space: &'w SpaceId,
        works: Vec<(usize, &'w Work)>,
        terms: Terms<'_>,
    ) -> Result<Self, StoreError> {
        let assembled = works.iter().map(|(_, work)| match work {
            Work::Push(push, _) => parts::assemble(writer, push, terms.limits),
            _ => Ok(None),
        });
        let assembled = assembled.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { space, works, assembled })
    }

    /// What deciding the works needs, as far as they say it themselves.
    pub(super) fn wanted(&self, terms: Terms<'_>, supposes: bool) -> Wanted<'_> {
        let mut wanted = Wanted::default();
        for ((_, work), assembled) in self.works.iter().zip(&self.assembled) {
            match work {
                Work::Push(push, _) => want(&mut wanted, assembled.as_ref().unwrap_or(&push.request), terms.schema),
                Work::Discard(discard, _) => {
                    wanted.groups.insert(&discard.id);
                    wanted.rejected.insert(&discard.id);
                    if let Some(sealed_as) = &discard.request.sealed_as {
                        let key = EpochKey { device: sealed_as.device.clone(), epoch: sealed_as.epoch.clone() };
                        wanted.numbers.entry(key).or_default().insert(sealed_as.device_seq);
                    }
                }
                Work::Resolve(resolving, _) => {
                    wanted.groups.insert(&resolving.of);
                    wanted.rejected.insert(&resolving.of);
                    wanted.makes_groups = true;
                }
                Work::Fork(forking, _) => wanted.chains.extend(forking.places()),
                Work::Tell(..) | Work::Stage(..) | Work::Adopt(..) | Work::Probe(_) => {}
            }
        }
        // Only pushes leave nothing in the transaction before they are written, so that they can be decided twice.
        if !supposes || !self.works.iter().all(|(_, work)| matches!(work, Work::Push(..))) {
            wanted.supposed.clear();
        }
        wanted
    }

    /// Decides the works: on what is supposed first, where that may be, and on looks at everything where that is not borne out.
    pub(super) fn transact(
        &self,
        writer: &mut dyn Writer,
        (held, mut wanted): (Option<Held>, Wanted<'_>),
        outcomes: &mut [Option<Outcome>],
        terms: Terms<'_>,
        now_ms: u64,
    ) -> Result<Option<Written>, StoreError> {
        let mut ledger = self.decide(writer, held, outcomes, terms, now_ms)?;
        if ledger.as_ref().is_some_and(|ledger| !ledger.is_borne_out()) {
            wanted.supposed.clear();
            let held = writer.load(self.space, &wanted)?;
            ledger = self.decide(writer, held, outcomes, terms, now_ms)?;
        }
        for (index, work) in &self.works {
            if let (Work::Push(push, _), Some(Outcome::Push(outcome))) = (work, &outcomes[*index]) {
                parts::clear(writer, push, outcome)?;
            }
        }
        Ok(ledger.and_then(Ledger::finish))
    }

    fn decide<'t>(
        &self,
        writer: &mut dyn Writer,
        mut held: Option<Held>,
        outcomes: &mut [Option<Outcome>],
        terms: Terms<'t>,
        now_ms: u64,
    ) -> Result<Option<Ledger<'t>>, StoreError> {
        let version = terms.schema.map_or(0, |schema| schema.version);
        if held.as_ref().is_some_and(|held| !held.schema.is(version)) {
            return Err(StoreError::OtherSchema);
        }
        self.fork(writer, &mut held, outcomes, now_ms)?;
        let mut ledger = held.map(|held| Ledger::new(held, terms));
        for ((index, work), assembled) in self.works.iter().zip(&self.assembled) {
            let mut source = |needs: &Needs, facts: &mut Facts| writer.learn(self.space, needs, facts);
            let outcome = match (work, &mut ledger) {
                (Work::Push(push, _), Some(ledger)) => {
                    let request = assembled.as_ref().unwrap_or(&push.request);
                    Outcome::Push(ledger.push(request, &push.rights, &mut source)?)
                }
                (Work::Push(..), None) => Outcome::Push(PushOutcome::NoSpace),
                (Work::Discard(discard, _), Some(ledger)) => Outcome::Discard(ledger.discard(discard)),
                (Work::Discard(..), None) => Outcome::Discard(DiscardOutcome::NoSpace),
                (Work::Resolve(resolving, _), Some(ledger)) => Outcome::Resolve(ledger.resolve(resolving, &mut source)?),
                (Work::Resolve(..), None) => Outcome::Resolve(ResolvingOutcome::NoSpace),
                (Work::Tell(told, _), _) => {
                    writer.tell(told, terms.now)?;
                    Outcome::Told
                }
                (Work::Stage(part, _), _) => Outcome::Staged(writer.stage(part, terms.limits.group_bytes, now_ms)?),
                (Work::Adopt(..) | Work::Probe(_) | Work::Fork(..), _) => continue,
            };
            outcomes[*index] = Some(outcome);
        }
        Ok(ledger)
    }

    /// Begins new logs before anything is decided: what comes with them is held to them.
    fn fork(
        &self,
        writer: &mut dyn Writer,
        held: &mut Option<Held>,
        outcomes: &mut [Option<Outcome>],
        now_ms: u64,
    ) -> Result<(), StoreError> {
        for (index, work) in &self.works {
            let Work::Fork(forking, _) = work else { continue };
            let outcome = match held {
                Some(held) => forking.fork(writer, held, now_ms)?,
                None => ForkingOutcome::Done(Seq(0)),
            };
            outcomes[*index] = Some(Outcome::Forked(outcome));
        }
        Ok(())
    }
}
