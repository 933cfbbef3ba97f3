//! What rules see: the records that a group changes, with those that they refer to and those that refer to them, after the
//! group and before it. Nothing is copied or parsed that no rule asks for.

use super::cascade::referring;
use super::working::{FEW, Slot, Working};
use super::{IndexKey, Needs};
use crate::id::{Entity, RecordId, RecordKey};
use crate::json::Node;
use crate::lay::decimal_of;
use crate::rule::{Halt, RecordValue, Rule, Value, World};
use crate::schema::{FieldKind, Reference, Schema};
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A field that refers to records: its entity, its name, its rules.
type Referrer<'a> = (&'a Entity, &'a str, &'a Reference);
/// The records that the group makes refer to another: entity and field that refer, and the id that they refer to.
type Joined<'a> = BTreeMap<(&'a str, &'a str, String), Vec<&'a RecordKey>>;

/// The records of one group.
pub(super) struct Records<'w, 'a> {
    working: &'w Working<'a>,
    schema: &'a Schema,
    /// Records that the group does not touch, parsed.
    untouched: RefCell<BTreeMap<&'a RecordKey, Option<Rc<Node<'a>>>>>,
    joined: OnceCell<Joined<'a>>,
    /// Lists that were asked for: entity, whether it is that before the group, its records.
    lists: RefCell<Vec<(Box<str>, bool, Value<'a>)>>,
}

impl<'w, 'a> Records<'w, 'a> {
    pub(super) fn new(working: &'w Working<'a>, schema: &'a Schema) -> Self {
        Self { working, schema, untouched: RefCell::default(), joined: OnceCell::new(), lists: RefCell::default() }
    }

    /// The records of an entity that the group changes, and those that one of its records refers to or referred to.
    pub(super) fn keys(&self, entity: &str, needs: &mut Needs) -> BTreeSet<&'a RecordKey> {
        let mut keys = BTreeSet::new();
        for slot in &self.working.slots {
            if slot.key.entity.as_str() == entity {
                keys.insert(slot.key);
            }
            for (field, reference) in slot.rules.into_iter().flat_map(|rules| rules.references()) {
                if reference.entity.as_str() != entity {
                    continue;
                }
                for node in [slot.after(), slot.before()].into_iter().flatten() {
                    let Some(id) = node.member(field).and_then(Reference::id_in) else { continue };
                    if let Some(slot) = self.working.named(&reference.entity, id) {
                        keys.insert(slot.key);
                        continue;
                    }
                    let Ok(id) = RecordId::new(id) else { continue };
                    let key = RecordKey { entity: reference.entity.clone(), id };
                    match self.working.facts.entry(&key) {
                        Some((key, _)) => {
                            keys.insert(key);
                        }
                        None => {
                            needs.records.insert(key);
                        }
                    }
                }
            }
        }
        keys
    }

    /// Whether no record of an entity is seen after the group, as far as is known.
    pub(super) fn has_none(&self, entity: &Entity) -> bool {
        matches!(self.records(entity.as_str(), false), Ok(Value::List(records)) if records.is_empty())
    }

    /// The key as the group or the facts hold it.
    fn known(&self, key: &RecordKey) -> Option<&'a RecordKey> {
        self.working.slot(key).map(|slot| slot.key).or_else(|| Some(self.working.facts.entry(key)?.0))
    }

    fn node(&self, key: &'a RecordKey, is_before: bool) -> Option<Rc<Node<'a>>> {
        if let Some(slot) = self.working.slot(key) {
            return if is_before { slot.before() } else { slot.after() }.cloned();
        }
        let parse = || Some(Rc::new(self.working.facts.found(key)?.payload.as_ref()?.node()));
        self.untouched.borrow_mut().entry(key).or_insert_with(parse).clone()
    }

    fn value(&self, keys: impl IntoIterator<Item = &'a RecordKey>, is_before: bool) -> Value<'a> {
        let record = |key: &'a RecordKey| {
            let node = self.node(key, is_before)?;
            let rules = self.schema.entity(&key.entity);
            Some(Value::Record(Rc::new(RecordValue { key, rules, node, is_before })))
        };
        Value::list(keys.into_iter().filter_map(record).collect())
    }

    /// The records that refer to one by a field.
    fn referring(
        &self,
        to: &'a RecordKey,
        referrer: Referrer<'a>,
        is_before: bool,
        needs: &mut Needs,
    ) -> BTreeSet<&'a RecordKey> {
        let (entity, field, _) = referrer;
        let mut keys = BTreeSet::new();
        let mut take = |key: RecordKey, needs: &mut Needs| match self.known(&key) {
            Some(key) => {
                keys.insert(key);
            }
            None => {
                needs.records.insert(key);
            }
        };
        if is_before {
            let list = IndexKey { entity: entity.clone(), fields: field.into(), value: to.id.as_str().into() };
            match self.working.facts.list(&list) {
                None => {
                    needs.index.insert(list);
                }
                Some(ids) => {
                    let key = |id: &RecordId| RecordKey { entity: entity.clone(), id: id.clone() };
                    ids.iter().for_each(|id| take(key(id), needs));
                }
            }
            return keys;
        }
        let mut more = Needs::default();
        referring(self.working, to, referrer, &mut more).for_each(|key| take(key, needs));
        needs.index.append(&mut more.index);
        if self.working.slots.len() <= FEW {
            let refers = |slot: &&Slot<'a>| {
                slot.key.entity == *entity && reference(slot, field).is_some_and(|id| id == to.id.as_str())
            };
            keys.extend(self.working.slots.iter().filter(refers).map(|slot| slot.key));
        } else {
            let joined = self.joined.get_or_init(|| joined(self.working));
            keys.extend(joined.get(&(entity.as_str(), field, to.id.as_str().to_owned())).into_iter().flatten());
        }
        keys
    }

    /// All that a rule may ask for, as far as it is not known: everything that it can reach from the lists that it names.
    pub(super) fn needed(&self, rule: &Rule) -> Needs {
        let mut needs = Needs::default();
        let mut seen: BTreeSet<&RecordKey> = BTreeSet::new();
        let mut level: Vec<&'a RecordKey> = rule.entities.iter().flat_map(|entity| self.keys(entity, &mut needs)).collect();
        while !level.is_empty() && seen.len() as u64 <= self.working.limits.group_records {
            let mut next = Vec::new();
            for key in level {
                if !seen.insert(key) {
                    continue;
                }
                for referrer in rule.members.iter().flat_map(|member| self.schema.listed(&key.entity, member)) {
                    next.extend(self.referring(key, referrer, true, &mut needs));
                    next.extend(self.referring(key, referrer, false, &mut needs));
                }
            }
            level = next;
        }
        needs
    }

    /// The slot that stands for a record in a refusal: its own, or that of a record that refers to it.
    pub(super) fn blamed(&self, key: &RecordKey) -> Option<&Slot<'a>> {
        let refers = |slot: &&Slot<'a>| {
            let mut references = slot.rules.into_iter().flat_map(|rules| rules.references());
            references.any(|(field, reference)| {
                let nodes = [slot.after(), slot.before()].into_iter().flatten();
                let mut ids = nodes.filter_map(|node| node.member(field).and_then(Reference::id_in));
                reference.entity == key.entity && ids.any(|id| id == key.id.as_str())
            })
        };
        self.working.slot(key).or_else(|| self.working.slots.iter().find(refers))
    }
}

impl<'a> World<'a> for Records<'_, 'a> {
    fn records(&self, entity: &str, is_before: bool) -> Result<Value<'a>, Halt> {
        let mut lists = self.lists.borrow_mut();
        if let Some((.., list)) = lists.iter().find(|(name, before, _)| **name == *entity && *before == is_before) {
            return Ok(list.clone());
        }
        let mut needs = Needs::default();
        let keys = self.keys(entity, &mut needs);
        if !needs.is_empty() {
            return Err(Halt::Needs(needs));
        }
        let list = self.value(keys, is_before);
        lists.push((entity.into(), is_before, list.clone()));
        Ok(list)
    }

    fn member(&self, record: &RecordValue<'a>, name: &str) -> Result<Value<'a>, Halt> {
        if name == "id" {
            return Ok(Value::Text(Cow::Borrowed(record.key.id.as_str())));
        }
        let field = record.rules.and_then(|rules| rules.fields.get(name));
        let mut needs = Needs::default();
        let mut keys: Option<BTreeSet<&'a RecordKey>> = None;
        if field.is_none() {
            for referrer in self.schema.listed(&record.key.entity, name) {
                let referring = self.referring(record.key, referrer, record.is_before, &mut needs);
                keys.get_or_insert_default().extend(referring);
            }
        }
        if !needs.is_empty() {
            return Err(Halt::Needs(needs));
        }
        if let Some(keys) = keys {
            let most = self.working.limits.group_records;
            if keys.len() as u64 > most {
                let of = self.working.name_of(record.key, &mut needs);
                return Err(Halt::Error(format!("{of} has over {most} {name}")));
            }
            return Ok(self.value(keys, record.is_before));
        }
        let Some(node) = record.node.member(name) else { return Ok(Value::Null) };
        let value = match field.map(|field| field.kind) {
            Some(FieldKind::Decimal { .. } | FieldKind::Real) if !node.is_null() => {
                decimal_of(&node.value).map(Value::Decimal)
            }
            _ => Value::of_json(node),
        };
        let of = || self.working.name_of(record.key, &mut Needs::default());
        value.ok_or_else(|| Halt::Error(format!("{name} of {} cannot be calculated with", of())))
    }
}

/// The id that a record refers to by a field after the group.
fn reference<'s>(slot: &'s Slot<'_>, field: &str) -> Option<&'s str> {
    slot.after()?.member(field).and_then(Reference::id_in)
}

fn joined<'a>(working: &Working<'a>) -> Joined<'a> {
    let mut joined = Joined::new();
    for slot in &working.slots {
        for (field, _) in slot.rules.into_iter().flat_map(|rules| rules.references()) {
            if let Some(id) = reference(slot, field) {
                joined.entry((slot.key.entity.as_str(), field, id.to_owned())).or_default().push(slot.key);
            }
        }
    }
    joined
}
