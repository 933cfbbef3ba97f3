//! What the server refused, as the reference knows it: for ever, and a conflict for a reason alone.

use crate::model::{Change, Edit, Model, Operation, State};
use crate::names;
use std::collections::BTreeMap;

/// The groups that were refused so far.
#[derive(Debug, Clone, Default)]
pub struct Refused {
    /// What each was told; `None` since the server was put back, and may have forgotten it.
    answers: BTreeMap<String, Option<String>>,
    /// Conflicts that were held against what their authors had seen.
    pub judged: usize,
}

impl Refused {
    /// The server is again what it was, and may decide anew what it refused since.
    pub fn go_back(&mut self) {
        self.answers.values_mut().for_each(|answer| *answer = None);
    }
}

impl Model {
    /// Takes note of what the server says for ever of a group that it refused; the log ended at `head` at most when it was last
    /// looked at.
    ///
    /// # Errors
    /// When it once said something else, or there is no such conflict.
    pub fn refuse(&mut self, group: &str, code: &str, answer: &str, head: usize) -> Result<(), String> {
        match self.refused.answers.get_mut(group) {
            Some(Some(known)) if known != answer => {
                return Err(format!("P3: {group} was refused with {known} and now with {answer}"));
            }
            Some(known) => {
                known.get_or_insert_with(|| answer.to_owned());
                return Ok(());
            }
            None => self.refused.answers.insert(group.to_owned(), Some(answer.to_owned())),
        };
        let is_known = !self.is_replacement(group);
        let operation = if is_known { self.operation(group) } else { None };
        let Some(operation) = operation.filter(|made| code == "conflict" && self.seen.contains_key(&made.token)) else {
            return Ok(());
        };
        // It was decided at one of these places.
        if !self.states[head.min(self.head())..].iter().any(|state| self.is_contested(operation, state)) {
            return Err(format!("P7: {group} was refused as a conflict, and nobody edited what its author had seen"));
        }
        self.refused.judged += 1;
        Ok(())
    }

    /// Whether a record that the operation edits is another than its author saw: the fields that it sets, where edits of different
    /// fields are merged.
    fn is_contested(&self, operation: &Operation, state: &State) -> bool {
        let Some(seen) = self.seen.get(&operation.token) else { return true };
        operation.changes.iter().any(|Change { key, edit }| {
            // What its author did not see, or makes, the reference cannot judge.
            let Some(before) = seen.get(key).filter(|_| matches!(edit, Edit::Set(_) | Edit::Delete)) else {
                return matches!(edit, Edit::Set(_) | Edit::Delete);
            };
            let Some(now) = state.record(&key.0, &key.1) else { return true };
            let now = names::renewed(&key.0, &now.fields);
            match edit {
                Edit::Set(fields) if state.has_rules && key.0 == "products" => {
                    names::renamed(&key.0, fields).keys().any(|field| before.get(field) != now.get(field))
                }
                _ => *before != now,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operation(token: &str, edit: fn(crate::model::Fields) -> Edit, note: &str) -> Operation {
        let fields = json!({"note": note}).as_object().cloned().unwrap_or_default();
        let change = Change { key: ("receipts".into(), "r".into()), edit: edit(fields) };
        Operation { token: token.into(), kind: "edit", changes: vec![change] }
    }

    /// A log in which a receipt was made, and two saw it and edit it.
    fn model() -> Model {
        let mut model = Model::new(false);
        let made = operation("made", Edit::Put, "new");
        model.operations.insert("made".into(), made);
        model.accept("edit:made:1").expect("it can be accepted");
        for token in ["a", "b"] {
            let edit = operation(token, Edit::Set, token);
            let view = model.states[1].clone();
            model.begun(&edit, &view);
            model.operations.insert(token.into(), edit);
        }
        model
    }

    #[test]
    fn a_conflict_needs_an_edit_that_its_author_had_not_seen() {
        let mut model = model();
        let refused = model.clone().refuse("edit:b:1", "conflict", "conflict", 1);
        assert!(refused.is_err_and(|why| why.starts_with("P7: ")), "nobody edited it");
        model.accept("edit:a:1").expect("it can be accepted");
        assert_eq!(model.refuse("edit:b:1", "conflict", "conflict", 2), Ok(()));
        assert_eq!(model.refused.judged, 1);
    }

    #[test]
    fn a_refusal_is_for_ever_unless_the_server_is_put_back() {
        let mut model = model();
        assert_eq!(model.refuse("edit:b:1", "invalid", "invalid", 1), Ok(()));
        assert!(model.clone().refuse("edit:b:1", "missing", "missing", 1).is_err_and(|why| why.starts_with("P3: ")));
        model.refused.go_back();
        assert_eq!(model.refuse("edit:b:1", "missing", "missing", 1), Ok(()));
        assert!(model.refuse("edit:b:1", "invalid", "invalid", 1).is_err(), "and then again for ever");
    }
}
