//! Edits made under an older version of the schema, in the words of this one: fields under their present names, and
//! defaults where an older app could not know a field.
//!
//! Invariant: an edit of the present version is left as it is, byte for byte. A group's own bytes are never changed: what
//! is translated is what the group is understood to say.
//!
//! Rejected alternative: keeping every older schema and converting from each; two declarations a field, `was` and
//! `default`, say the same.

use super::{EntityRules, Field, Schema};
use crate::change::{Edit, Payload};
use crate::id::Entity;
use crate::json::{self, Node, Value};
use std::borrow::Cow;

impl Schema {
    /// The edit as this schema says it. `made_under` is the version that its author's app had; 0 where it had none.
    ///
    /// Renames apply to every edit that names the old field and not the new one; defaults to upserts, which give a whole
    /// record. `made_under` 0 counts as older than every version.
    ///
    /// ```
    /// use gbsync_core::{change::{Edit, Payload}, id::Entity, schema::Schema};
    /// let schema = "version = 2\n[entities.c]\nfields.phone = { type = \"text\", was = \"tel\" }\n\
    ///     fields.active = { type = \"boolean\", default = true }\n";
    /// let schema = Schema::parse(schema).unwrap();
    /// let edit = Edit::Upsert(Payload::from_stored(r#"{"tel":"1"}"#));
    /// let translated = schema.translate(&Entity::new("c").unwrap(), &edit, 1);
    /// assert_eq!(translated.payload().unwrap().as_str(), r#"{"active":true,"phone":"1"}"#);
    /// ```
    pub fn translate<'e>(&self, entity: &Entity, edit: &'e Edit, made_under: u64) -> Cow<'e, Edit> {
        let Some(rules) = self.entity(entity).filter(|rules| self.is_translated(rules, made_under)) else {
            return Cow::Borrowed(edit);
        };
        let (payload, make): (_, fn(Payload) -> Edit) = match edit {
            Edit::Upsert(payload) => (payload, Edit::Upsert),
            Edit::Patch(payload) => (payload, Edit::Patch),
            Edit::Increment(payload) => (payload, Edit::Increment),
            Edit::Delete => return Cow::Borrowed(edit),
        };
        match self.translate_payload(rules, payload, made_under, matches!(edit, Edit::Upsert(_))) {
            Some(payload) => Cow::Owned(make(payload)),
            None => Cow::Borrowed(edit),
        }
    }

    /// A whole record that was stored under an older version of the schema, as this one says it; `None` where it says the
    /// same.
    pub fn translate_record(&self, entity: &Entity, record: &Payload, stored_under: u64) -> Option<Payload> {
        let rules = self.entity(entity).filter(|rules| self.is_translated(rules, stored_under))?;
        self.translate_payload(rules, record, stored_under, true)
    }

    /// The version in which a field appeared or was renamed.
    fn since(&self, field: &Field) -> u64 {
        field.since.unwrap_or(self.version)
    }

    /// Whether anything of these rules is newer than a version.
    fn is_translated(&self, rules: &EntityRules, made_under: u64) -> bool {
        let mut fields = rules.fields.values().filter(|field| field.was.is_some() || field.default.is_some());
        fields.any(|field| made_under < self.since(field))
    }

    fn translate_payload(&self, rules: &EntityRules, payload: &Payload, made_under: u64, is_whole: bool) -> Option<Payload> {
        let mut node = payload.node();
        let Value::Object(members) = &mut node.value else { return None };
        let mut is_changed = false;
        for (name, field) in rules.fields.iter().filter(|(_, field)| made_under < self.since(field)) {
            // Where both are there, the author knew the new name, and the old one is a field that is not declared.
            let has_name = members.iter().any(|(key, _)| key == name);
            let old = field.was.as_ref().filter(|was| !has_name && !rules.fields.contains_key(*was));
            if let Some((key, _)) = old.and_then(|was| members.iter_mut().find(|(key, _)| key == was)) {
                *key = Cow::Owned(name.clone());
                is_changed = true;
            } else if let Some(default) = field.default.as_deref().filter(|_| is_whole && !has_name) {
                members.push((Cow::Owned(name.clone()), default_node(default)));
                is_changed = true;
            }
        }
        is_changed.then(|| Payload::from_stored(json::canonical(&node)))
    }
}

fn default_node(default: &str) -> Node<'_> {
    json::parse(default.as_bytes(), crate::limits::PAYLOAD_DEPTH).expect("a default is canonical JSON")
}
