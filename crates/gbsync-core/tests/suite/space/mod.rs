//! A space in memory, for tests of what is decided by a schema: it answers what core asks for, and keeps what is accepted.

#![allow(dead_code, clippy::unwrap_used)]

use gbsync_core::decide::{Decision, Facts, IndexKey, Known, Needs, Record, Standing, decide, entries, wants};
use gbsync_core::group::Group;
use gbsync_core::id::{GroupId, LogId, RecordId, RecordKey, Role, Seq};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_core::scope::ScopeSet;
use std::collections::{BTreeMap, BTreeSet};

/// Questions that deciding one group may ask at most.
const ROUNDS: usize = 12;

/// A space with a schema.
pub struct Space {
    pub schema: Schema,
    pub records: BTreeMap<RecordKey, Record>,
    pub groups: BTreeMap<GroupId, Known>,
    pub head: Seq,
    pub limits: Limits,
    /// What was learnt, and followed up with every accepted group.
    pub facts: Facts,
    asked: Needs,
}

impl Space {
    pub fn new(schema: Schema) -> Self {
        Self {
            schema,
            records: BTreeMap::new(),
            groups: BTreeMap::new(),
            head: Seq(0),
            limits: Limits::default(),
            facts: Facts::default(),
            asked: Needs::default(),
        }
    }

    /// The list of an index, found by looking at every record.
    fn list(&self, list: &IndexKey) -> BTreeSet<RecordId> {
        let stands = |(key, record): &(&RecordKey, &Record)| {
            let payload = record.payload.as_ref();
            key.entity == list.entity && payload.is_some_and(|payload| entries(&self.schema, key, payload).contains(list))
        };
        self.records.iter().filter(stands).map(|(key, _)| key.id.clone()).collect()
    }

    pub fn answer(&self, needs: &Needs, facts: &mut Facts) {
        for key in &needs.records {
            facts.learn_record(key.clone(), self.records.get(key).cloned());
        }
        for key in &needs.index {
            facts.learn_index(key.clone(), self.list(key));
        }
    }

    pub fn standing(&self, group: &Group, roles: Option<BTreeSet<Role>>, now_ms: u64) -> Standing {
        let known = |id: &GroupId| Some((id.clone(), *self.groups.get(id)?));
        Standing {
            groups: group.header().depends_on.iter().filter_map(known).collect(),
            replaced_by: None,
            log: LogId::new("log-1").unwrap(),
            other_log: None,
            head: self.head,
            roles,
            scopes: ScopeSet::All,
            now_ms,
        }
    }

    /// Decides on what is learnt from nothing, and how many questions that took.
    pub fn decide_anew(&self, group: &Group, standing: &Standing) -> (Decision, usize) {
        let mut facts = Facts::default();
        self.answer(&wants(group, Some(&self.schema)), &mut facts);
        for round in 1..=ROUNDS {
            match decide(group, standing, &facts, Some(&self.schema), &self.limits) {
                Ok(decision) => return (decision, round),
                Err(needs) => {
                    assert!(!facts.missing(needs.clone()).is_empty(), "core asks for what it knows");
                    self.answer(&needs, &mut facts);
                }
            }
        }
        panic!("core asked more than {ROUNDS} times");
    }

    /// Decides on what was learnt with earlier groups and from nothing, which must be the same; keeps what is accepted.
    pub fn push(&mut self, group: &Group, standing: &Standing) -> Decision {
        let (anew, _) = self.decide_anew(group, standing);
        let decision = loop {
            match decide(group, standing, &self.facts, Some(&self.schema), &self.limits) {
                Ok(decision) => break decision,
                Err(needs) => {
                    let mut facts = std::mem::take(&mut self.facts);
                    self.answer(&needs, &mut facts);
                    self.facts = facts;
                    self.asked.records.extend(needs.records);
                    self.asked.index.extend(needs.index);
                }
            }
        };
        assert_eq!(decision, anew, "facts that earlier groups left are those that a store would load");
        match &decision {
            Decision::Accept(accepted) => {
                self.head = self.head.next();
                self.groups.insert(group.id().clone(), Known::Accepted(self.head));
                for outcome in &accepted.outcomes {
                    self.records.insert(outcome.key.clone(), outcome.record.clone());
                }
                self.facts.apply(accepted.outcomes.clone(), Some(&self.schema));
            }
            Decision::Reject(rejection) if rejection.code.is_final() => {
                self.groups.insert(group.id().clone(), Known::Rejected);
            }
            _ => {}
        }
        self.check_facts();
        decision
    }

    /// What was learnt is what the records say, whatever was accepted or rejected.
    fn check_facts(&self) {
        for key in &self.asked.records {
            assert_eq!(self.facts.record(key), Some(self.records.get(key)), "{key}");
        }
        for key in &self.asked.index {
            assert_eq!(self.facts.list(key), Some(&self.list(key)), "{key:?}");
        }
    }
}
