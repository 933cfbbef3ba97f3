//! Lists of indexes, as far as they are known.
//!
//! Sorted by entity, then fields, then value: there are few of the first two and very many of the last, so that a look-up
//! compares one text at a step.

use super::facts::{IndexKey, IndexMoves};
use crate::id::{Entity, RecordId};
use std::collections::{BTreeMap, BTreeSet};

/// One list.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    /// What stands on it, with what accepted groups changed; `None` when it was not asked for.
    pub(super) ids: Option<BTreeSet<RecordId>>,
    /// What accepted groups added (`true`) or took off.
    moved: BTreeMap<RecordId, bool>,
}

impl List {
    /// Takes what the store holds; what accepted groups changed of it is added.
    pub(super) fn learn(&mut self, mut ids: BTreeSet<RecordId>) {
        for (id, is_added) in &self.moved {
            put(&mut ids, id, *is_added);
        }
        self.ids = Some(ids);
    }

    /// Puts a record on the list or takes it off.
    pub(super) fn shift(&mut self, id: &RecordId, is_added: bool) {
        if let Some(ids) = &mut self.ids {
            put(ids, id, is_added);
        }
        self.moved.insert(id.clone(), is_added);
    }
}

fn put(ids: &mut BTreeSet<RecordId>, id: &RecordId, is_added: bool) {
    if is_added {
        ids.insert(id.clone());
    } else {
        ids.remove(id);
    }
}

/// Lists by their values.
type Values = BTreeMap<Box<str>, List>;

/// All lists asked for or changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists(BTreeMap<Entity, BTreeMap<Box<str>, Values>>);

impl Lists {
    /// A list, where it was asked for or changed.
    pub(super) fn find(&self, key: &IndexKey) -> Option<&List> {
        self.0.get(&key.entity)?.get(&key.fields)?.get(&key.value)
    }

    /// A list, made where there is none.
    pub(super) fn open(&mut self, IndexKey { entity, fields, value }: IndexKey) -> &mut List {
        self.0.entry(entity).or_default().entry(fields).or_default().entry(value).or_default()
    }

    /// What moved.
    pub(super) fn into_moves(self) -> IndexMoves {
        let mut moves = IndexMoves::new();
        for (entity, of_fields) in self.0 {
            for (fields, of_values) in of_fields {
                for (value, List { moved, .. }) in of_values {
                    if !moved.is_empty() {
                        moves.insert(IndexKey { entity: entity.clone(), fields: fields.clone(), value }, moved);
                    }
                }
            }
        }
        moves
    }
}
