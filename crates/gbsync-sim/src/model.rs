//! The reference: what records are after operations, in a few lines that share nothing with the engine.

use crate::branch::Past;
use crate::names;
use crate::refused::Refused;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a record holds.
pub type Fields = Map<String, Value>;
/// What names a record.
pub type Key = (String, String);

/// One edit.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// The record is this.
    Put(Fields),
    /// These fields are this.
    Set(Fields),
    /// This field is so much more.
    Add(&'static str, i64),
    /// The record is gone.
    Delete,
}

/// One edit of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The record.
    pub key: Key,
    /// What is done to it.
    pub edit: Edit,
}

/// One operation, under a token that nothing else has.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its token, which is its root too.
    pub token: String,
    /// Its type.
    pub kind: &'static str,
    /// Its changes.
    pub changes: Vec<Change>,
}

impl Operation {
    /// Whether it may have to wait for another one: a record that one of them changes is one that the other changes or refers
    /// to, and they do not only add to it.
    pub fn shares_with(&self, other: &Self) -> bool {
        let theirs = other.touched();
        self.touched().iter().any(|(key, adds)| theirs.iter().any(|(other, also)| key == other && !(*adds && *also)))
    }

    /// The records that it changes or refers to, and whether it only adds to them.
    fn touched(&self) -> Vec<(Key, bool)> {
        let mut touched = Vec::new();
        for Change { key, edit } in &self.changes {
            touched.push((key.clone(), matches!(edit, Edit::Add(..))));
            if let Edit::Put(fields) | Edit::Set(fields) = edit
                && fields.contains_key("receiptId")
            {
                touched.push((("receipts".into(), receipt_of(fields).into()), false));
            }
        }
        touched
    }
}

/// A record: its fields, its payload as it must be stored, to the byte, and the place of the log that last changed it.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Its fields.
    pub fields: Fields,
    /// The fields in order, without white space.
    pub text: String,
    /// Where it was last changed.
    pub version: usize,
}

/// All records at one moment, and whether there are rules. A copy shares what it does not change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    entities: BTreeMap<String, Arc<BTreeMap<String, Arc<Record>>>>,
    /// The records that were there and are deleted, each with the place of the log that deleted it.
    pub deleted: Arc<BTreeMap<Key, usize>>,
    /// Whether there are rules.
    pub has_rules: bool,
    /// Whether the schema was upgraded: edits are understood as the second version says them.
    pub is_upgraded: bool,
    /// The place of the log that is being written.
    place: usize,
}

impl State {
    /// No records, under rules or without.
    pub fn new(has_rules: bool) -> Self {
        Self { has_rules, ..Self::default() }
    }

    /// All of it as the second version of the schema says it.
    pub fn renewed(&self) -> Self {
        let mut state = Self { is_upgraded: true, ..self.clone() };
        for (entity, id, fields) in self.not_renewed() {
            state.put(&entity, &id, fields);
        }
        state
    }

    /// The records that the second version of the schema says otherwise, and how.
    fn not_renewed(&self) -> impl Iterator<Item = (String, String, Fields)> {
        let otherwise = |(entity, id, record): (&str, &str, &Arc<Record>)| {
            let fields = names::renewed(entity, &record.fields);
            (fields != record.fields).then(|| (entity.to_owned(), id.to_owned(), fields))
        };
        self.all().filter_map(otherwise)
    }

    /// A record.
    pub fn record(&self, entity: &str, id: &str) -> Option<&Arc<Record>> {
        self.entities.get(entity)?.get(id)
    }

    /// The records of an entity.
    pub fn of(&self, entity: &str) -> impl Iterator<Item = (&String, &Fields)> {
        self.entities.get(entity).into_iter().flat_map(|records| records.iter().map(|(id, record)| (id, &record.fields)))
    }

    /// All records.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &Arc<Record>)> {
        self.entities.iter().flat_map(|(entity, records)| records.iter().map(move |(id, r)| (&**entity, &**id, r)))
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entities.values().map(|records| records.len()).sum()
    }

    /// Makes a record what `fields` says.
    pub fn put(&mut self, entity: &str, id: &str, fields: Fields) {
        let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
        let text = serde_json::to_string(&sorted).unwrap_or_default();
        let record = Record { fields, text, version: self.place };
        let key = (entity.to_owned(), id.to_owned());
        if self.deleted.contains_key(&key) {
            Arc::make_mut(&mut self.deleted).remove(&key);
        }
        let records = self.entities.entry(entity.to_owned()).or_default();
        Arc::make_mut(records).insert(id.to_owned(), Arc::new(record));
    }

    /// Applies an operation entirely or, where one of its changes makes no sense, not at all.
    pub fn apply(&mut self, operation: &Operation) -> bool {
        let before = self.clone();
        let is_laid = operation.changes.iter().all(|change| self.change(change));
        if !is_laid {
            *self = before;
        }
        is_laid
    }

    fn change(&mut self, change: &Change) -> bool {
        let understood = self.is_upgraded.then(|| names::understood(change));
        let Change { key: (entity, id), edit } = understood.as_ref().unwrap_or(change);
        let before = self.record(entity, id).map(|record| record.fields.clone());
        match (edit, before) {
            (Edit::Put(fields), _) => self.put(entity, id, fields.clone()),
            (_, None) => return false,
            (Edit::Set(fields), Some(mut record)) => {
                record.extend(fields.clone());
                self.put(entity, id, record);
            }
            (Edit::Add(field, delta), Some(mut record)) => {
                let before = record.get(*field).and_then(Value::as_i64).unwrap_or(0);
                record.insert((*field).to_owned(), Value::from(before + delta));
                self.put(entity, id, record);
            }
            (Edit::Delete, Some(_)) => {
                self.delete(entity, id);
                if self.has_rules && entity == "receipts" {
                    self.delete_what_refers_to(id);
                }
            }
        }
        true
    }

    fn delete(&mut self, entity: &str, id: &str) {
        self.entities.get_mut(entity).map(|records| Arc::make_mut(records).remove(id));
        Arc::make_mut(&mut self.deleted).insert((entity.to_owned(), id.to_owned()), self.place);
    }

    fn delete_what_refers_to(&mut self, receipt: &str) {
        for entity in ["payments", "entries"] {
            let refers = self.of(entity).filter(|(_, fields)| receipt_of(fields) == receipt);
            for id in refers.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
                self.delete(entity, &id);
            }
        }
    }

    /// What no accepted group may leave where there are rules: a receipt that is not paid for, a reference that points
    /// nowhere, less than nothing in stock, one code on two coupons.
    pub fn broken_rule(&self) -> Option<String> {
        let cents = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_str)?.replace('.', "").parse().ok();
        let mut paid: BTreeMap<&str, i64> = BTreeMap::new();
        for (_, payment) in self.of("payments") {
            *paid.entry(receipt_of(payment)).or_default() += cents(payment, "amount").unwrap_or(0);
        }
        let is_there = |id: &str| self.record("receipts", id).is_some();
        let dangling = ["payments", "entries"]
            .into_iter()
            .find_map(|entity| self.of(entity).find(|(_, fields)| !is_there(receipt_of(fields))))
            .map(|(id, _)| format!("{id} refers to no receipt"));
        let unpaid = self
            .of("receipts")
            .find(|(id, fields)| cents(fields, "total") != Some(paid.get(id.as_str()).copied().unwrap_or(0)))
            .map(|(id, _)| format!("receipt {id} is not paid for"));
        let sold_out = self
            .of("stock")
            .find(|(_, fields)| fields.get("quantity").and_then(Value::as_i64).unwrap_or(0) < 0)
            .map(|(id, _)| format!("stock {id} is below 0"));
        let mut codes = BTreeSet::new();
        let twice = self
            .of("coupons")
            .find(|(_, fields)| !codes.insert(fields.get("code").and_then(Value::as_str)))
            .map(|(id, _)| format!("coupon {id} has the code of another one"));
        dangling.or(unpaid).or(sold_out).or(twice)
    }

    /// Whether an operation left a till with less than nothing, which is flagged and not refused.
    pub fn is_flagged(&self, operation: &Operation) -> bool {
        let cash = |id: &str| self.record("tills", id)?.fields.get("cash")?.as_i64();
        operation.changes.iter().any(|change| change.key.0 == "tills" && cash(&change.key.1).is_some_and(|cash| cash < 0))
    }
}

/// The receipt that a payment or an entry is of.
fn receipt_of(fields: &Fields) -> &str {
    fields.get("receiptId").and_then(Value::as_str).unwrap_or_default()
}

/// The log as the reference knows it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Everything that was ever saved, or tried to be.
    pub operations: BTreeMap<String, Operation>,
    /// The accepted operations in the order of the log, by group id.
    pub log: Vec<String>,
    /// The records after each of them; the first is before all.
    pub states: Vec<State>,
    /// Where each group stands in the log.
    pub(crate) places: BTreeMap<String, usize>,
    /// Tokens of operations that stand in the log.
    pub(crate) accepted: BTreeMap<String, String>,
    /// Which group was sealed in the place of which, and where.
    replaces: BTreeMap<String, (String, Author)>,
    /// What a person wanted instead of a group.
    pub amended: BTreeMap<(String, Author), Operation>,
    /// What the author of an operation saw of the records that it edits, by token.
    pub(crate) seen: BTreeMap<String, BTreeMap<Key, Fields>>,
    /// Whose number is which, by device and epoch.
    pub numbers: BTreeMap<(String, String, u64), String>,
    /// Operations whose bracket nobody closed, by token.
    pub abandoned: BTreeSet<String>,
    /// Whether the server has the second version of the schema.
    pub may_upgrade: bool,
    /// Groups that say something in the words of the first version and were accepted under the second.
    pub translated: usize,
    /// Groups that were refused.
    pub refused: Refused,
    /// Logs that the server lost.
    pub past: Past,
}

/// Where a group was made: on a device, by its place, or in the office.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// On this device.
    Device(usize),
    /// In the back office.
    Office,
}

impl Model {
    /// Before anything, with rules or without.
    pub fn new(has_rules: bool) -> Self {
        Self { states: vec![State::new(has_rules)], ..Self::default() }
    }

    /// The operation of a group: what a person wanted instead of the group that it replaces, else that group's own, else
    /// the one whose token is its root.
    pub fn operation(&self, group: &str) -> Option<&Operation> {
        match self.replaces.get(group) {
            Some(replaced) => self.amended.get(replaced).or_else(|| self.operation(&replaced.0)),
            None => self.operations.get(token_of(group)?),
        }
    }

    /// Takes note of what somebody sees who begins an operation.
    pub fn begun(&mut self, operation: &Operation, view: &State) {
        let edited = operation.changes.iter().filter(|change| matches!(change.edit, Edit::Set(_) | Edit::Delete));
        let fields = |key: &Key| Some(names::renewed(&key.0, &view.record(&key.0, &key.1)?.fields));
        let seen = edited.filter_map(|Change { key, .. }| Some((key.clone(), fields(key)?)));
        self.seen.insert(operation.token.clone(), seen.collect());
    }

    /// A record that the operation would change though somebody edited it since its author saw it: the field, where edits
    /// of different fields are merged.
    fn overlooked(&self, operation: &Operation, state: &State) -> Option<String> {
        let seen = self.seen.get(&operation.token)?;
        let overlooks = |Change { key, edit }: &&Change| {
            let (Some(before), Some(now)) = (seen.get(key), state.record(&key.0, &key.1)) else { return false };
            let now = names::renewed(&key.0, &now.fields);
            match edit {
                Edit::Set(fields) if state.has_rules && key.0 == "products" => {
                    names::renamed(&key.0, fields).keys().any(|field| before.get(field) != now.get(field))
                }
                Edit::Set(_) | Edit::Delete => *before != now,
                Edit::Put(_) | Edit::Add(..) => false,
            }
        };
        operation.changes.iter().find(overlooks).map(|change| format!("{}:{}", change.key.0, change.key.1))
    }

    /// Whether a group was sealed in the place of another.
    pub fn is_replacement(&self, group: &str) -> bool {
        self.replaces.contains_key(group)
    }

    /// Takes note that a group was sealed in the place of another; `false` when that was known. A copy of a device has its
    /// groups too.
    pub fn replaced(&mut self, group: String, by: String, author: Author) -> bool {
        let is_new = !self.replaces.contains_key(&by);
        self.replaces.entry(by).or_insert((group, author));
        is_new
    }

    /// Takes an entry of the log that changes no record.
    pub fn pass(&mut self) {
        self.log.push(String::new());
        self.states.push(self.states.last().cloned().unwrap_or_default());
    }

    /// Takes an entry of the log that brings records to the second version of the schema.
    ///
    /// # Errors
    /// When nobody gave the server one, or a record needs no such thing.
    pub fn upgrade<'k>(&mut self, records: impl Iterator<Item = (&'k str, &'k str)>) -> Result<(), String> {
        if !self.may_upgrade {
            return Err("P1: records were upgraded, and nobody gave the server another schema".into());
        }
        let mut state = self.states.last().cloned().unwrap_or_default();
        (state.is_upgraded, state.place) = (true, self.log.len() + 1);
        for (entity, id) in records {
            let Some(record) = state.record(entity, id) else {
                return Err(format!("P1: {entity}:{id} was upgraded and is not there"));
            };
            let fields = names::renewed(entity, &record.fields);
            if fields == record.fields {
                return Err(format!("P1: {entity}:{id} was upgraded and is what it was"));
            }
            state.put(entity, id, fields);
        }
        self.log.push(String::new());
        self.states.push(state);
        Ok(())
    }

    /// Takes the next entry of the log.
    ///
    /// # Errors
    /// When it is twice there, unknown, or cannot have been accepted.
    pub fn accept(&mut self, group: &str) -> Result<(), String> {
        if self.places.contains_key(group) {
            return Err(format!("P3: {group} stands twice in the log"));
        }
        let operation = self.operation(group).ok_or_else(|| format!("P1: nobody made {group}"))?.clone();
        if let Some(other) = self.accepted.get(&operation.token) {
            return Err(format!("P3: {group} was accepted, and {other} of the same operation too"));
        }
        let mut state = self.states.last().cloned().unwrap_or_default();
        if !self.is_replacement(group) {
            if self.abandoned.contains(&operation.token) {
                return Err(format!("P1: {group} was accepted, and nobody closed its bracket"));
            }
            if let Some(record) = self.overlooked(&operation, &state) {
                return Err(format!("P7: {group} was accepted over an edit of {record} that its author had not seen"));
            }
        }
        state.place = self.log.len() + 1;
        if !state.apply(&operation) {
            return Err(format!("P1: {group} was accepted and cannot be applied"));
        }
        if let Some(rule) = state.broken_rule().filter(|_| state.has_rules) {
            return Err(format!("P1: {group} was accepted, and {rule}"));
        }
        if let Some((entity, id, _)) = state.not_renewed().next().filter(|_| state.is_upgraded) {
            return Err(format!("P6: {group} was accepted, and {entity}:{id} is in the words of the schema before"));
        }
        let says_otherwise = |change: &Change| names::understood(change) != *change;
        self.translated += usize::from(state.is_upgraded && operation.changes.iter().any(says_otherwise));
        self.log.push(group.to_owned());
        self.places.insert(group.to_owned(), self.log.len());
        self.accepted.insert(operation.token, group.to_owned());
        self.states.push(state);
        Ok(())
    }

    /// Whether a group of an operation stands in the log.
    pub fn is_accepted(&self, token: &str) -> bool {
        self.accepted.contains_key(token)
    }

    /// Where a group stands in the log.
    pub fn place(&self, group: &str) -> Option<usize> {
        self.places.get(group).copied()
    }

    /// The last place of the log.
    pub fn head(&self) -> usize {
        self.log.len()
    }
}

/// The root of a group's id, which is the token of its operation.
fn token_of(group: &str) -> Option<&str> {
    group.split(':').nth(1)
}
