//! Closing rejections: the back office amends, discards or compensates them, and a device discards its own.
//!
//! Invariant: the first to close wins. A family that has a winner or a closure takes no other, so that of a rejected group
//! and all that are sent in its place at most one is ever accepted, on whichever side it was made.
//!
//! Rejected alternative: a remedy as a push of its own. Between push and closing, a device could do the same.

use super::{Ledger, Source, rejected, verdict_again};
use crate::commit::{Discard, DiscardOutcome, Resolving, ResolvingOutcome};
use crate::store::{Decided, DecidedAs, EpochKey, HeldRejection, StoreError, StoredEntry, StoredGroup, StoredRejection};
use gbsync_core::change::{Base, Change, Edit};
use gbsync_core::clock::Hlc;
use gbsync_core::decide::{Accepted, Decision, Needs};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{Actor, DeviceSeq, GroupId, RecordKey, Seq};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::schema::Schema;
use gbsync_core::scope::{Reach, ScopeSet, Trace};
use gbsync_core::verdict::{Rejection, RejectionCode, Resolution, ResolvedAs, Verdict};
use gbsync_core::wire::{Arrival, Content, GroupResult, Remedy, SealedAs, resolution_entry_json, result_json};
use std::collections::btree_map::Entry;

impl Ledger<'_> {
    /// Why nothing can be sent in the place of a group any more, if somebody closed its family.
    pub(super) fn closed(&self, header: &Header) -> Option<Rejection> {
        let of = |id: &GroupId| self.families.closure(id).filter(|_| !is(Mutant::GroupAndReplacementAccepted));
        let resolution = header.stands_for().chain([&header.id]).find_map(of)?;
        let (code, rule, changes) = (RejectionCode::AlreadyReplaced, None, Vec::new());
        Some(Rejection { code, message: sentence(resolution), rule, changes })
    }

    /// The accepted group in whose family this one is, or would be.
    pub(super) fn replaced_by(&self, header: &Header) -> Option<GroupId> {
        let is_accepted = |id: &&GroupId| {
            self.groups.get(*id).is_some_and(|decided| matches!(decided.outcome, DecidedAs::Accepted { .. }))
        };
        if is(Mutant::GroupAndReplacementAccepted) {
            return None;
        }
        header
            .stands_for()
            .find(is_accepted)
            .or_else(|| header.stands_for().chain([&header.id]).find_map(|id| self.families.winner(id)))
            .cloned()
    }

    /// Why a group cannot be sent in the place of another: that was rejected, and neither this device nor this person made it,
    /// nor does the sender see all that its author saw. Before anything is said of what became of that one.
    pub(super) fn not_theirs(&self, key: &EpochKey, header: &Header, actor: Option<&Actor>) -> Option<Rejection> {
        let person = header.actor.as_ref().or(actor);
        let is_theirs = |of: &HeldRejection| {
            let is_own = of.device.as_ref() == Some(&key.device) || person.is_some() && of.actor.as_ref() == person;
            is_own || self.scopes.covers(&of.scopes)
        };
        let of = header.stands_for().find(|id| self.rejected.get(*id).is_some_and(|of| !is_theirs(of)))?;
        let (code, rule, changes) = (RejectionCode::NotPermitted, None, Vec::new());
        let message = format!("it is sent in the place of {of}, which is not for this device and person to replace");
        Some(Rejection { code, message, rule, changes })
    }

    /// Closes a rejection for the back office, with what is done instead.
    pub(in crate::commit) fn resolve(
        &mut self,
        work: &Resolving,
        source: &mut Source<'_>,
    ) -> Result<ResolvingOutcome, StoreError> {
        self.scopes = work.scopes.clone();
        let author = self.rejected.get(&work.of).map(|rejected| rejected.scopes.clone()).unwrap_or_default();
        match self.groups.get(&work.of).map(|decided| &decided.outcome) {
            // What somebody sees nothing of is not theirs to close.
            _ if !work.scopes.covers(&author) => return Ok(ResolvingOutcome::Unknown),
            None => return Ok(ResolvingOutcome::Unknown),
            Some(DecidedAs::Accepted { seq, .. }) => {
                return Ok(ResolvingOutcome::AlreadyClosed(format!("{} was accepted as {seq}", work.of)));
            }
            Some(DecidedAs::Rejected(_)) => {}
        }
        if let Some(closed) = self.families.closure(&work.of) {
            return Ok(ResolvingOutcome::AlreadyClosed(sentence(closed)));
        }
        if let Some(winner) = self.families.winner(&work.of) {
            return Ok(ResolvingOutcome::AlreadyClosed(format!("{winner} already took effect in its place")));
        }
        let result = match &work.request.remedy {
            None => None,
            Some(remedy) => match self.remedy(work, remedy, source)? {
                Ok(result) => Some(result),
                Err(refused) => return Ok(refused),
            },
        };
        let resolution = Resolution {
            of: work.of.clone(),
            resolved_as: work.request.resolved_as,
            by: result.as_ref().map(|result| result.id.clone()),
            actor: Some(work.person.clone()),
            reason: Some(work.request.reason.clone()),
        };
        let seq = self.log_resolution(&resolution, author);
        self.families.close(&work.of, resolution.clone());
        Ok(ResolvingOutcome::Closed { resolution, seq, result, head: self.state.head })
    }

    /// Those hear of it who hold a scope of the group's author, and so perhaps the device that has it parked.
    fn log_resolution(&mut self, resolution: &Resolution, author: ScopeSet) -> Seq {
        let seq = self.state.head.next();
        let chain = self.state.chain.chained(seq, &resolution.of, "[]");
        (self.state.head, self.state.chain) = (seq, chain);
        let entry = resolution_entry_json(seq, resolution);
        let reach = match author {
            ScopeSet::All => Reach::nowhere(),
            ScopeSet::These(scopes) => Reach::In(scopes),
        };
        let has_scopes = self.terms.schema.is_some_and(Schema::has_scopes);
        let trace = has_scopes.then(|| Trace::of_entry(reach));
        self.entries.push(StoredEntry { seq, change_count: 0, chain, entry, parts: None, trace });
        seq
    }

    /// Makes and decides the group that is to take effect. One that is refused leaves no trace: no number is used up.
    fn remedy(
        &mut self,
        work: &Resolving,
        remedy: &Remedy,
        source: &mut Source<'_>,
    ) -> Result<Result<GroupResult, ResolvingOutcome>, StoreError> {
        let malformed = |message: String| Ok(Err(ResolvingOutcome::Malformed(message)));
        let records = remedy.edits.iter().map(|(key, _)| key.clone()).collect();
        let needs = self.facts.missing(Needs { records, ..Needs::default() });
        if !needs.is_empty() {
            source(&needs, &mut self.facts)?;
        }
        let key = EpochKey::of_server(&self.state.log);
        let header = match self.remedy_header(work, remedy, &key) {
            Ok(header) => header,
            Err(invalid) => return malformed(invalid.to_string()),
        };
        let changes = remedy.edits.iter().map(|(key, edit)| self.on_current(key, edit)).collect();
        let group = match Group::seal(header, changes, self.terms.limits) {
            Ok(group) => group,
            Err(invalid) => return malformed(invalid.to_string()),
        };
        // The role of the back office is right enough.
        self.roles = None;
        let verdict = match self.decide(&group, None, source)? {
            Decision::Accept(accepted) => self.accept_remedy(&key, &group, accepted),
            Decision::Reject(rejection) => rejected(rejection),
            Decision::Block(by) => Verdict::Blocked { by },
        };
        let result = GroupResult { id: group.id().clone(), verdict: self.told(verdict) };
        match result.verdict {
            Verdict::Accepted { .. } => Ok(Ok(result)),
            _ => Ok(Err(ResolvingOutcome::Refused(Box::new(result)))),
        }
    }

    fn accept_remedy(&mut self, key: &EpochKey, group: &Group, accepted: Accepted) -> Verdict {
        let header = group.header();
        let content = Content::Whole(Box::new(group.clone()));
        let arrival = Arrival {
            id: header.id.clone(),
            device_seq: header.device_seq,
            digest: group.digest(),
            content,
            accepted_as: Vec::new(),
            made_on: None,
        };
        let verdict = self.accept(key, &arrival, group, header.actor.as_ref(), accepted);
        self.number(key, &arrival);
        verdict
    }

    fn remedy_header(
        &self,
        work: &Resolving,
        remedy: &Remedy,
        key: &EpochKey,
    ) -> Result<Header, gbsync_core::id::InvalidId> {
        let of = self.rejected.get(&work.of);
        let group_type = remedy.group_type.clone().or_else(|| of.and_then(|of| of.group_type.clone()));
        let first = &remedy.edits[0].0;
        let id = match &group_type {
            None => GroupId::mint_single(first, &work.uuid),
            Some(group_type) => {
                let root = remedy.root.clone().unwrap_or_else(|| first.id.as_str().to_owned());
                GroupId::mint(group_type, &root, &work.uuid)?
            }
        };
        let known = self.numbers.get(key).and_then(|known| known.last_key_value()).map(|(last, _)| *last);
        let now_ms = u64::try_from(self.terms.now.unix_ms()).unwrap_or(0);
        Ok(Header {
            id,
            group_type,
            device_seq: known.unwrap_or(DeviceSeq(0)).next(),
            actor: Some(work.person.clone()),
            created_at: self.terms.now.clone(),
            schema_version: self.terms.schema.map_or(0, |schema| schema.version),
            depends_on: Vec::new(),
            replaces: (work.request.resolved_as == ResolvedAs::Amended).then(|| work.of.clone()),
            family: None,
            log: None,
            hlc: self.terms.schema.map(|_| Hlc::after(None, now_ms, &key.device)),
            clears: Vec::new(),
        })
    }

    /// An edit made on the record as it is now.
    fn on_current(&self, key: &RecordKey, edit: &Edit) -> Change {
        let record = self.facts.found(key);
        let version = record.map_or(Seq(0), |record| match record.payload {
            Some(_) => record.edit_version,
            None => record.version,
        });
        let base = Base { version, group: None };
        Change::new(key.clone(), edit.clone(), base).expect("the edit was checked when it was read")
    }

    /// Records that nobody wants a group any more, or says what was decided of it before.
    pub(in crate::commit) fn discard(&mut self, work: &Discard) -> DiscardOutcome {
        let of = self.rejected.get(&work.id);
        let (device, actor) = match (of, &work.request.sealed_as) {
            (Some(of), _) => (of.device.as_ref(), of.actor.as_ref()),
            (None, Some(sealed_as)) => (Some(&sealed_as.device), sealed_as.actor.as_ref()),
            (None, None) => (None, None),
        };
        let scopes = &work.admission.scopes;
        if let Err(refusal) = work.admission.check_owner(device, actor) {
            return DiscardOutcome::Refused(Box::new(refusal));
        }
        // A device discards its own also when its scopes are others now.
        let is_own = device.is_some() && device == work.request.sealed_as.as_ref().map(|sealed_as| &sealed_as.device);
        if of.is_some_and(|of| !is_own && !scopes.covers(&of.scopes)) {
            return DiscardOutcome::Refused(Box::new(work.admission.sees_not(&work.id)));
        }
        let is_accepted = matches!(self.groups.get(&work.id), Some(Decided { outcome: DecidedAs::Accepted { .. }, .. }));
        if is_accepted && *scopes != ScopeSet::All && !self.has_number(work) {
            return DiscardOutcome::AsSeen;
        }
        self.scopes = scopes.clone();
        let verdict = match self.groups.get(&work.id) {
            Some(decided) => verdict_again(decided),
            None => self.discard_unknown(work),
        };
        if let Some(sealed_as) = &work.request.sealed_as {
            self.account(sealed_as, &work.id);
        }
        let is_open = self.families.closure(&work.id).is_none() && self.families.winner(&work.id).is_none();
        if is_open && matches!(verdict, Verdict::Rejected { .. }) {
            let resolution = Resolution {
                of: work.id.clone(),
                resolved_as: ResolvedAs::Discarded,
                by: None,
                actor: work.person(),
                reason: Some(work.request.reason.clone()),
            };
            self.families.close(&work.id, resolution);
        }
        DiscardOutcome::Result(Box::new(GroupResult { id: work.id.clone(), verdict: self.told(verdict) }))
    }

    /// Whether the group is the one under the number that it is said to have been sealed with.
    fn has_number(&self, work: &Discard) -> bool {
        work.request.sealed_as.as_ref().is_some_and(|sealed_as| {
            let key = EpochKey { device: sealed_as.device.clone(), epoch: sealed_as.epoch.clone() };
            self.numbers.get(&key).and_then(|numbers| numbers.get(&sealed_as.device_seq)) == Some(&work.id)
        })
    }

    /// Remembers the number of a group that never came, unless another has it.
    fn account(&mut self, sealed_as: &SealedAs, id: &GroupId) {
        let key = EpochKey { device: sealed_as.device.clone(), epoch: sealed_as.epoch.clone() };
        let known = self.numbers.entry(key.clone()).or_default();
        if let Entry::Vacant(free) = known.entry(sealed_as.device_seq) {
            free.insert(id.clone());
            self.new_numbers.entry(key).or_default().insert(sealed_as.device_seq, id.clone());
        }
    }

    fn discard_unknown(&mut self, work: &Discard) -> Verdict {
        let (code, message) = match (self.families.closure(&work.id), self.families.winner(&work.id)) {
            (Some(closed), _) => (RejectionCode::AlreadyReplaced, sentence(closed)),
            (None, Some(winner)) => (RejectionCode::AlreadyReplaced, format!("{winner} already took effect in its place")),
            (None, None) => (RejectionCode::Discarded, work.request.reason.clone()),
        };
        let rejection = Rejection { code, message, rule: None, changes: Vec::new() };
        let verdict = Verdict::Rejected { rejection: rejection.clone(), is_duplicate: true };
        let sealed_as = work.request.sealed_as.as_ref();
        let stored = StoredRejection {
            result: result_json(&GroupResult { id: work.id.clone(), verdict }),
            group_type: sealed_as.and_then(|sealed_as| sealed_as.group_type.clone()),
            actor: sealed_as.and_then(|sealed_as| sealed_as.actor.clone()),
            created_at: None,
            replaces: None,
            changes: None,
            scopes: self.scopes.clone(),
        };
        let source = sealed_as.map(|sealed_as| {
            let key = EpochKey { device: sealed_as.device.clone(), epoch: sealed_as.epoch.clone() };
            (key, sealed_as.device_seq)
        });
        let id = work.id.clone();
        self.decided.push(StoredGroup { id, digest: None, source, seq: None, flags: Vec::new(), rejected: Some(stored) });
        let outcome = DecidedAs::Rejected(Box::new(rejection.clone()));
        self.groups.insert(work.id.clone(), Decided { digest: None, outcome });
        rejected(rejection)
    }
}

/// Who closed a rejection, how and why.
fn sentence(resolution: &Resolution) -> String {
    let Resolution { of, resolved_as, by, actor, reason } = resolution;
    let who = actor.as_ref().map_or("somebody", |actor| actor.as_str());
    let how = match (resolved_as, by) {
        (ResolvedAs::Amended, Some(by)) => format!("amended {of} as {by}"),
        (ResolvedAs::Compensated, Some(by)) => format!("made up for {of} with {by}"),
        (_, _) => format!("{} {of}", resolved_as.as_str()),
    };
    let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{who} {how}{why}")
}
