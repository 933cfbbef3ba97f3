//! The reference: what records are after operations, in a few lines that share nothing with the engine.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

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

/// All records at one moment, and whether there are rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State(pub BTreeMap<Key, Fields>, pub bool);

impl State {
    /// Applies an operation entirely or, where one of its changes makes no sense, not at all.
    pub fn apply(&mut self, operation: &Operation) -> bool {
        let mut next = self.clone();
        let is_laid = operation.changes.iter().all(|change| next.change(change));
        if is_laid {
            *self = next;
        }
        is_laid
    }

    fn change(&mut self, change: &Change) -> bool {
        match (&change.edit, self.0.get_mut(&change.key)) {
            (Edit::Put(fields), _) => {
                self.0.insert(change.key.clone(), fields.clone());
                true
            }
            (_, None) => false,
            (Edit::Set(fields), Some(record)) => {
                record.extend(fields.clone());
                true
            }
            (Edit::Add(field, delta), Some(record)) => {
                let before = record.get(*field).and_then(Value::as_i64).unwrap_or(0);
                record.insert((*field).to_owned(), Value::from(before + delta));
                true
            }
            (Edit::Delete, Some(_)) => {
                self.0.remove(&change.key);
                if self.1 && change.key.0 == "receipts" {
                    self.0.retain(|key, fields| !is_of_receipt(key, fields, &change.key.1));
                }
                true
            }
        }
    }

    /// What no accepted group may leave where there are rules: a receipt that is not paid for, a reference that points
    /// nowhere, less than nothing in stock.
    pub fn broken_rule(&self) -> Option<String> {
        let decimal =
            |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_str)?.replace('.', "").parse::<i64>().ok();
        self.0.iter().find_map(|((entity, id), fields)| match entity.as_str() {
            "stock" if fields.get("quantity").and_then(Value::as_i64).unwrap_or(0) < 0 => {
                Some(format!("stock {id} is below 0"))
            }
            "payments" | "entries" => {
                let receipt = fields.get("receiptId").and_then(Value::as_str).unwrap_or_default();
                let is_there = self.0.contains_key(&("receipts".to_owned(), receipt.to_owned()));
                (!is_there).then(|| format!("{entity}:{id} refers to no receipt"))
            }
            "receipts" => {
                let paid = self.0.iter().filter(|(key, fields)| key.0 == "payments" && is_of_receipt(key, fields, id));
                let paid: i64 = paid.filter_map(|(_, fields)| decimal(fields, "amount")).sum();
                (decimal(fields, "total") != Some(paid)).then(|| format!("receipt {id} is paid {paid}"))
            }
            _ => None,
        })
    }

    /// Where this differs from `other`, for a message.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let keys: std::collections::BTreeSet<&Key> = self.0.keys().chain(other.0.keys()).collect();
        let key = keys.into_iter().find(|key| self.0.get(*key) != other.0.get(*key))?;
        let shown =
            |state: &Self| state.0.get(key).map_or("nothing".to_owned(), |fields| Value::from(fields.clone()).to_string());
        Some(format!("{}:{} is {} and should be {}", key.0, key.1, shown(self), shown(other)))
    }
}

/// Whether a record goes when a receipt goes.
fn is_of_receipt(key: &Key, fields: &Fields, receipt: &str) -> bool {
    let is_referrer = key.0 == "payments" || key.0 == "entries";
    is_referrer && fields.get("receiptId").and_then(Value::as_str) == Some(receipt)
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
    /// Which group was sealed in the place of which, and where.
    replaces: BTreeMap<String, (String, Author)>,
    /// What a person wanted instead of a group.
    pub amended: BTreeMap<(String, Author), Operation>,
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
        Self { states: vec![State(BTreeMap::new(), has_rules)], ..Self::default() }
    }

    /// The operation of a group: what a person wanted instead of the group that it replaces, else that group's own, else
    /// the one whose token is its root.
    pub fn operation(&self, group: &str) -> Option<&Operation> {
        match self.replaces.get(group) {
            Some(replaced) => self.amended.get(replaced).or_else(|| self.operation(&replaced.0)),
            None => self.operations.get(group.split(':').nth(1)?),
        }
    }

    /// Takes note that a group was sealed in the place of another.
    pub fn replaced(&mut self, group: String, by: String, author: Author) {
        // A copy of a device has its groups too.
        self.replaces.entry(by).or_insert((group, author));
    }

    /// Takes an entry of the log that changes no record.
    pub fn pass(&mut self) {
        self.log.push(String::new());
        self.states.push(self.states.last().cloned().unwrap_or_default());
    }

    /// Takes the next entry of the log.
    ///
    /// # Errors
    /// When it is twice there, unknown, or cannot have been accepted.
    pub fn accept(&mut self, group: &str) -> Result<(), String> {
        if self.log.iter().any(|known| known == group) {
            return Err(format!("P3: {group} stands twice in the log"));
        }
        let operation = self.operation(group).ok_or_else(|| format!("P1: nobody made {group}"))?.clone();
        if self.is_accepted(&operation.token) {
            return Err(format!("P3: {group} was accepted, and another one in whose place it was sealed too"));
        }
        let mut state = self.states.last().cloned().unwrap_or_default();
        if !state.apply(&operation) {
            return Err(format!("P1: {group} was accepted and cannot be applied"));
        }
        if let Some(rule) = state.broken_rule().filter(|_| state.1) {
            return Err(format!("P1: {group} was accepted, and {rule}"));
        }
        self.log.push(group.to_owned());
        self.states.push(state);
        Ok(())
    }

    /// Whether a group of an operation stands in the log.
    pub fn is_accepted(&self, token: &str) -> bool {
        self.log.iter().any(|group| group.split(':').nth(1) == Some(token))
    }

    /// The last place of the log.
    pub fn head(&self) -> usize {
        self.log.len()
    }
}
