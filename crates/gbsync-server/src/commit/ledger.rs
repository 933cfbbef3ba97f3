//! One space inside one transaction: what was loaded, what is decided on it, what is to be written.
//!
//! Later groups of the transaction are decided on what earlier ones left, and a record that several of them touch is
//! written once. Pure: the store does the rest.

mod resolve;

use super::PushOutcome;
use super::family::Families;
use super::flags::{self, Flags};
use super::lineage::{self, Lineage};
use super::parts;
use super::sequences::{self, Highest};
use crate::auth::Rights;
use crate::shown::Shown;
use crate::store::{
    Decided, DecidedAs, EpochKey, Held, HeldRejection, SpaceState, StoreError, StoredEntry, StoredGroup, StoredRejection,
    Wanted, Written,
};
use gbsync_core::change::{Base, Change, Edit};
use gbsync_core::decide::{Accepted, Decision, Facts, Known, Needs, Outcome, Standing, decide, wants};
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{Actor, DeviceSeq, GroupId, RecordKey, Role, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::schema::Schema;
use gbsync_core::scope::{Reach, ScopeSet, Trace};
use gbsync_core::time::Timestamp;
use gbsync_core::verdict::{Flag, Rejection, RejectionCode, Verdict};
use gbsync_core::wire::{Arrival, Content, EntryHeader, GroupResult, MadeOn, PushRequest, changes_json, result_json};
use std::collections::{BTreeMap, BTreeSet};

/// Where facts come from: inside the transaction, as many at a time as core asks for.
pub(super) type Source<'s> = dyn FnMut(&Needs, &mut Facts) -> Result<(), StoreError> + 's;

/// What every group of a transaction is decided under.
#[derive(Clone, Copy)]
pub(super) struct Terms<'t> {
    pub(super) limits: &'t Limits,
    pub(super) schema: Option<&'t Schema>,
    pub(super) now: &'t Timestamp,
    /// How long groups of an earlier log wait for those that other devices bring back.
    pub(super) heal_window_ms: u64,
}

/// One space inside one transaction.
pub(super) struct Ledger<'t> {
    terms: Terms<'t>,
    state: SpaceState,
    /// What the author of the group that is being decided may do. `None` for the back office.
    roles: Option<BTreeSet<Role>>,
    /// The scopes that this author holds.
    scopes: ScopeSet,
    /// Records whose version is above the head that the transaction began with are to be written.
    facts: Facts,
    /// Records that were supposed to be absent.
    supposed: Vec<RecordKey>,
    groups: BTreeMap<GroupId, Decided>,
    numbers: BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>,
    families: Families,
    /// Rejected groups that are to be closed or replaced.
    rejected: BTreeMap<GroupId, HeldRejection>,
    flags: Flags,
    sequences: Highest,
    lineage: Lineage,
    /// The groups of the request that is being decided.
    came_along: BTreeSet<GroupId>,
    first_head: Seq,
    entries: Vec<StoredEntry>,
    decided: Vec<StoredGroup>,
    new_numbers: BTreeMap<EpochKey, BTreeMap<DeviceSeq, GroupId>>,
    /// Of records beside new refusals, by the transaction, and beside repeated ones, by the push.
    shown: Shown,
    shown_again: Shown,
}

/// What is kept of a group that is refused.
struct Refused<'g> {
    header: &'g Header,
    /// The bytes of its changes, where they are not over a limit.
    changes: Option<&'g str>,
    /// The actor of a group that names none.
    actor: Option<&'g Actor>,
}

/// Names everything that deciding these groups needs, as far as they say it themselves.
pub(super) fn want<'r>(wanted: &mut Wanted<'r>, request: &'r PushRequest, schema: Option<&Schema>) {
    let key = EpochKey { device: request.device.clone(), epoch: request.epoch.clone() };
    let numbers = wanted.numbers.entry(key).or_default();
    wanted.chains.extend(request.at.iter().map(|at| at.seq));
    lineage::wanted(&mut wanted.lost, request);
    for arrival in &request.groups {
        numbers.insert(arrival.device_seq);
        wanted.groups.insert(&arrival.id);
        let Some(header) = arrival.content.header() else { continue };
        wanted.groups.extend(&header.depends_on);
        wanted.groups.extend(header.stands_for());
        wanted.rejected.extend(header.stands_for());
        wanted.groups.extend(lineage::named(arrival));
        wanted.flags.extend(flags::wanted(header));
        let Content::Whole(group) = &arrival.content else { continue };
        wanted.supposed.extend(group.changes().iter().filter(|change| is_made(change)).map(|change| &change.key));
        let Needs { records, index } = wants(group, schema);
        wanted.needs.records.extend(records);
        wanted.needs.index.extend(index);
    }
}

/// Whether a change makes its record, as its author sees it.
fn is_made(change: &Change) -> bool {
    matches!(change.edit, Edit::Upsert(_)) && change.base == Base::default()
}

impl<'t> Ledger<'t> {
    pub(super) fn new(held: Held, terms: Terms<'t>) -> Self {
        let Held {
            state,
            groups,
            roots,
            winners,
            closures,
            rejected,
            numbers,
            flags,
            healed,
            chains,
            facts,
            supposed,
            schema: _,
        } = held;
        Self {
            terms,
            roles: None,
            scopes: ScopeSet::All,
            first_head: state.head,
            facts,
            supposed,
            state,
            groups,
            numbers,
            families: Families::new(roots, winners, closures),
            rejected,
            flags: Flags::new(flags),
            sequences: Highest::new(),
            lineage: Lineage::new(healed, chains),
            came_along: BTreeSet::new(),
            entries: Vec::new(),
            decided: Vec::new(),
            new_numbers: BTreeMap::new(),
            shown: Shown::new(),
            shown_again: Shown::new(),
        }
    }

    /// Decides the groups of a request in order, or none of them when one of their numbers is known under another id.
    pub(super) fn push(
        &mut self,
        request: &PushRequest,
        rights: &Rights,
        source: &mut Source<'_>,
    ) -> Result<PushOutcome, StoreError> {
        self.shown_again = Shown::new();
        self.scopes = rights.scopes.clone();
        let held_to = request.at.as_ref().filter(|_| lineage::is_held());
        if let Some(displaced) = held_to.and_then(|at| self.lineage.displaced(at, &self.state, self.first_head)) {
            return Ok(PushOutcome::Displaced(displaced));
        }
        let key = EpochKey { device: request.device.clone(), epoch: request.epoch.clone() };
        if let Some(reused) = self.reused_number(&key, request) {
            return Ok(reused);
        }
        let is_of_another = |arrival: &Arrival| arrival.made_on.is_some();
        self.came_along = match self.state.ancestors.is_empty() && !request.groups.iter().any(is_of_another) {
            true => BTreeSet::new(),
            false => request.groups.iter().map(|arrival| arrival.id.clone()).collect(),
        };
        let results = request.groups.iter().map(|arrival| self.arrival(&key, arrival, rights, source));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        Ok(PushOutcome::Decided { results, head: self.state.head })
    }

    fn reused_number(&self, key: &EpochKey, request: &PushRequest) -> Option<PushOutcome> {
        let known = self.numbers.get(key).filter(|_| !is(Mutant::EpochCloneAccepted))?;
        request.groups.iter().find_map(|arrival| {
            let owner = known.get(&arrival.device_seq).filter(|owner| **owner != arrival.id)?;
            Some(PushOutcome::EpochReused { device_seq: arrival.device_seq, known: owner.clone(), sent: arrival.id.clone() })
        })
    }

    fn arrival(
        &mut self,
        key: &EpochKey,
        arrival: &Arrival,
        rights: &Rights,
        source: &mut Source<'_>,
    ) -> Result<GroupResult, StoreError> {
        #[cfg(feature = "mutants")]
        gbsync_core::mutant::decides_for(key.device.as_str());
        let verdict = match &arrival.content {
            Content::Incomplete(message) => incomplete(message.clone()),
            content => match self.again(arrival) {
                Some(verdict) => verdict,
                None => self.first_time(key, arrival, content, rights, source)?,
            },
        };
        let is_final = match &verdict {
            Verdict::Accepted { .. } => true,
            Verdict::Rejected { rejection, .. } => rejection.code.is_final(),
            Verdict::Blocked { .. } | Verdict::Incomplete { .. } | Verdict::Unknown => false,
        };
        if is_final {
            self.number(key, arrival);
            self.lineage.brought_back(arrival, &verdict, &self.state);
        }
        Ok(GroupResult { id: arrival.id.clone(), verdict: self.told(verdict) })
    }

    /// A verdict as the author is told it.
    fn told(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Rejected { rejection, is_duplicate } => {
                Verdict::Rejected { rejection: rejection.told_to(&self.scopes), is_duplicate }
            }
            other => other,
        }
    }

    /// The answer for a group that was decided before.
    fn again(&mut self, arrival: &Arrival) -> Option<Verdict> {
        let decided = self.groups.get(&arrival.id).filter(|_| !is(Mutant::NoDeduplication))?;
        if !is(Mutant::DedupWithoutDigest) && decided.digest.is_some_and(|digest| digest != arrival.digest) {
            let message = "this id stands for a group with other changes, whose verdict stands; seal a new group";
            return Some(rejected(Rejection {
                code: RejectionCode::GroupIdReused,
                message: message.into(),
                rule: None,
                changes: Vec::new(),
            }));
        }
        let mut verdict = verdict_again(decided);
        if let Verdict::Rejected { rejection, .. } = &mut verdict {
            self.shown_again.fit(rejection);
        }
        Some(verdict)
    }

    fn first_time(
        &mut self,
        key: &EpochKey,
        arrival: &Arrival,
        content: &Content,
        rights: &Rights,
        source: &mut Source<'_>,
    ) -> Result<Verdict, StoreError> {
        let actor = rights.actor.as_ref();
        let refuse = |code, message: String| Rejection { code, message, rule: None, changes: Vec::new() };
        let group = match content {
            Content::Whole(group) => group,
            Content::TooLarge(header, message) => {
                let message = format!("{message}; split the operation, or ask for a higher limit");
                let refused = Refused { header, changes: None, actor };
                return Ok(self.reject(key, arrival, refused, refuse(RejectionCode::TooLarge, message)));
            }
            Content::Missing(missing) => {
                let message = "parts of the group are not here; send them again, then push it again".into();
                return Ok(Verdict::Incomplete { message, missing: missing.clone() });
            }
            Content::Incomplete(message) => return Ok(incomplete(message.clone())),
            Content::InParts(_) => return Ok(incomplete("its parts were not put together; send it again".into())),
        };
        let named = group.header().actor.as_ref();
        self.roles = Some(rights.of(named).clone());
        let refused = Refused { header: group.header(), changes: Some(group.changes_json()), actor };
        if let Some(rejection) = self.not_theirs(key, group.header(), actor).or_else(|| self.closed(group.header())) {
            return Ok(self.reject(key, arrival, refused, rejection));
        }
        Ok(match self.decide(group, arrival.made_on.as_ref(), source)? {
            Decision::Accept(accepted) => self.accept(key, arrival, group, named.or(actor), accepted),
            Decision::Reject(rejection) => self.reject(key, arrival, refused, rejection),
            Decision::Block(by) => Verdict::Blocked { by },
        })
    }

    /// What core needs to know of a group beside the records.
    fn standing(&self, group: &Group, made_on: Option<&MadeOn>) -> Standing {
        let header = group.header();
        let other_log = self.lineage.other_log((group, made_on), &self.state, &self.came_along, &self.terms);
        let known = |id: &GroupId| {
            let known = match &self.groups.get(id)?.outcome {
                DecidedAs::Accepted { seq, .. } => Known::Accepted(*seq),
                DecidedAs::Rejected(_) => Known::Rejected,
            };
            Some((id.clone(), known))
        };
        Standing {
            groups: header
                .depends_on
                .iter()
                .filter_map(known)
                .chain(other_log.iter().flat_map(|other| other.offered.values()).filter_map(known))
                .chain(other_log.iter().flat_map(|_| self.lineage.standings(group)))
                .collect(),
            other_log,
            replaced_by: self.replaced_by(header),
            log: self.state.log.clone(),
            head: self.state.head,
            roles: self.roles.clone(),
            scopes: self.scopes.clone(),
            now_ms: u64::try_from(self.terms.now.unix_ms()).unwrap_or(0),
        }
    }

    /// Asks core, loading what it asks for.
    fn decide(&mut self, group: &Group, made_on: Option<&MadeOn>, source: &mut Source<'_>) -> Result<Decision, StoreError> {
        let (header, Terms { schema, limits, .. }) = (group.header(), self.terms);
        let standing = self.standing(group, made_on);
        loop {
            match decide(group, &standing, &self.facts, schema, limits) {
                Ok(Decision::Accept(accepted)) => {
                    let refused = self.flags.check(header, &self.scopes);
                    return Ok(refused.map_or(Decision::Accept(accepted), Decision::Reject));
                }
                Ok(decision) => return Ok(decision),
                Err(needs) => source(&needs, &mut self.facts)?,
            }
        }
    }

    fn accept(
        &mut self,
        key: &EpochKey,
        arrival: &Arrival,
        group: &Group,
        actor: Option<&Actor>,
        Accepted { outcomes, flags }: Accepted,
    ) -> Verdict {
        let (header, seq) = (group.header(), self.state.head.next());
        #[cfg(feature = "mutants")]
        let seq = crate::planted::drawn(&self.state.log, seq);
        let changes = changes_json(&outcomes);
        let entry_header = EntryHeader {
            seq,
            id: &header.id,
            group_type: header.group_type.as_ref(),
            device: &key.device,
            epoch: &key.epoch,
            device_seq: header.device_seq,
            actor,
            created_at: &header.created_at,
            committed_at: self.terms.now,
            replaces: header.replaces.as_ref(),
            hlc: header.hlc.as_ref(),
            flags: &flags,
            clears: &header.clears,
        };
        let change_count = outcomes.len() as u64;
        let chain = self.state.chain.chained(seq, &header.id, &changes);
        let trace = self.trace(&outcomes);
        let (entry, parts) = parts::entry(&entry_header, change_count, changes, self.terms.limits.request_bytes);
        (self.state.head, self.state.chain) = (seq, chain);
        self.entries.push(StoredEntry { seq, change_count, chain, entry, parts, trace });
        if let Some(schema) = self.terms.schema {
            sequences::learn(schema, &key.device, &self.facts, &outcomes, &mut self.sequences);
        }
        self.facts.apply(outcomes, self.terms.schema);
        let reach = |flag: &Flag| Some(self.facts.found(flag.key.as_ref()?)?.reach.clone());
        let reaches = flags.iter().map(|flag| reach(flag).unwrap_or_else(Reach::nowhere)).collect();
        self.flags.accept(header, seq, reaches);
        self.keep(key, arrival, DecidedAs::Accepted { seq, flags: flags.clone() }, None);
        self.join_family(header);
        self.families.win(&header.id);
        Verdict::Accepted { seq, is_duplicate: false, flags }
    }

    /// Where the changes of an entry are seen; `None` in a space without scopes.
    fn trace(&self, outcomes: &[Outcome]) -> Option<Trace> {
        self.terms.schema.filter(|schema| schema.has_scopes())?;
        let mut trace = Trace::default();
        for outcome in outcomes {
            let before = self.facts.found(&outcome.key).map_or_else(Reach::nowhere, |record| record.reach.clone());
            trace.add(before, outcome.record.reach.clone());
        }
        Some(trace)
    }

    fn reject(&mut self, key: &EpochKey, arrival: &Arrival, refused: Refused<'_>, mut rejection: Rejection) -> Verdict {
        self.shown.fit(&mut rejection);
        if !rejection.code.is_final() {
            return rejected(rejection);
        }
        let verdict = Verdict::Rejected { rejection: rejection.clone(), is_duplicate: true };
        let Refused { header, changes, actor } = refused;
        let is_theirs = self.not_theirs(key, header, actor).is_none();
        let stored = StoredRejection {
            result: result_json(&GroupResult { id: arrival.id.clone(), verdict }),
            group_type: header.group_type.clone(),
            actor: header.actor.as_ref().or(actor).cloned(),
            created_at: Some(header.created_at.clone()),
            replaces: header.replaces.clone().filter(|_| is_theirs),
            changes: changes.map(Into::into),
            scopes: self.scopes.clone(),
        };
        // Somebody may close it in the same transaction.
        let (group_type, actor) = (stored.group_type.clone(), stored.actor.clone());
        let (device, scopes) = (Some(key.device.clone()), self.scopes.clone());
        let held = HeldRejection { group_type, actor, device, scopes };
        self.rejected.insert(arrival.id.clone(), held);
        self.keep(key, arrival, DecidedAs::Rejected(Box::new(rejection.clone())), Some(stored));
        is_theirs.then(|| self.join_family(header));
        rejected(rejection)
    }

    fn keep(&mut self, key: &EpochKey, arrival: &Arrival, outcome: DecidedAs, rejected: Option<StoredRejection>) {
        let (seq, flags) = match &outcome {
            DecidedAs::Accepted { seq, flags } => (Some(*seq), flags.clone()),
            DecidedAs::Rejected(_) => (None, Vec::new()),
        };
        let digest = Some(arrival.digest);
        let source = Some((key.clone(), arrival.device_seq));
        self.decided.push(StoredGroup { id: arrival.id.clone(), digest, source, seq, flags, rejected });
        self.groups.insert(arrival.id.clone(), Decided { digest, outcome });
    }

    fn join_family(&mut self, header: &Header) {
        for replaced in header.stands_for() {
            self.families.join(&header.id, replaced);
            if self.groups.get(replaced).is_some_and(|decided| matches!(decided.outcome, DecidedAs::Accepted { .. })) {
                self.families.win(replaced);
            }
        }
    }

    fn number(&mut self, key: &EpochKey, arrival: &Arrival) {
        let known = self.numbers.entry(key.clone()).or_default();
        if known.insert(arrival.device_seq, arrival.id.clone()).is_none() {
            self.new_numbers.entry(key.clone()).or_default().insert(arrival.device_seq, arrival.id.clone());
        }
    }

    /// Whether everything that was supposed to be absent is to be written, so that its key vouches for what was decided on it.
    pub(super) fn is_borne_out(&self) -> bool {
        let is_written = |key| self.facts.found(key).is_some_and(|record| record.version > self.first_head);
        self.supposed.iter().all(is_written)
    }

    /// What is to be written; `None` when nothing is.
    pub(super) fn finish(self) -> Option<Written> {
        let families = self.families.finish();
        let healed = self.lineage.healed;
        if self.decided.is_empty() && self.new_numbers.is_empty() && families.closures.is_empty() && healed.is_empty() {
            return None;
        }
        let (records, index) = self.facts.into_changed(self.first_head);
        Some(Written {
            decided_at: self.terms.now.clone(),
            head: self.state.head,
            chain: self.state.chain,
            records,
            supposed: self.supposed,
            index,
            entries: self.entries,
            groups: self.decided,
            numbers: self.new_numbers,
            cleared: self.flags.finish(),
            sequences: self.sequences,
            roots: families.roots,
            merges: families.merges,
            healed,
            winners: families.winners,
            closures: families.closures,
        })
    }
}

fn incomplete(message: String) -> Verdict {
    Verdict::Incomplete { message, missing: Vec::new() }
}

fn rejected(rejection: Rejection) -> Verdict {
    Verdict::Rejected { rejection, is_duplicate: false }
}

fn verdict_again(decided: &Decided) -> Verdict {
    match &decided.outcome {
        DecidedAs::Accepted { seq, flags } => Verdict::Accepted { seq: *seq, is_duplicate: true, flags: flags.clone() },
        DecidedAs::Rejected(rejection) => Verdict::Rejected { rejection: (**rejection).clone(), is_duplicate: true },
    }
}
