//! A schema as canonical JSON: what a server hands out and a device keeps.
//!
//! Invariant: reading it back gives an equal schema, and equal schemas have the same bytes. What has its default is left
//! out, so that a later version of this product may add keys without changing the bytes of what does not use them.

use super::{
    Count, Counter, EntityRules, Field, FieldKind, Invariant, OnConflict, OnDelete, OnDeleteConflict, OnViolation,
    OperationRules, OperationScope, Schema, Undeclared,
};
use crate::json::{self, Node, Value};
use std::borrow::Cow;

type Members<'s> = Vec<(Cow<'s, str>, Node<'s>)>;

impl Schema {
    /// The canonical JSON of this schema.
    ///
    /// ```
    /// use gbsync_core::schema::Schema;
    /// let schema = Schema::parse("version = 1\n[entities.notes]\nfields.text = \"text\"\n").unwrap();
    /// let json = r#"{"entities":{"notes":{"fields":{"text":"text"}}},"version":1}"#;
    /// assert_eq!(schema.to_json(), json);
    /// assert_eq!(Schema::parse(json).unwrap(), schema);
    /// ```
    pub fn to_json(&self) -> String {
        let mut members = vec![member("version", number(self.version))];
        if self.undeclared_operations == Undeclared::Refuse {
            members.push(member("undeclared_operations", text("refuse")));
        }
        let entities = self.entities.iter().map(|(name, rules)| (Cow::Borrowed(name.as_str()), entity(rules)));
        push_object(&mut members, "entities", entities.collect());
        let sequence = |format: String| object(vec![member("format", string(format)), member("per", text("device"))]);
        let sequences = self.sequences.iter();
        let sequences = sequences.map(|(name, known)| (Cow::Borrowed(name.as_str()), sequence(known.format.to_string())));
        push_object(&mut members, "sequences", sequences.collect());
        let operations = self.operations.iter().map(|(name, rules)| (Cow::Borrowed(name.as_str()), operation(rules)));
        push_object(&mut members, "operations", operations.collect());
        json::canonical(&object(members))
    }
}

fn entity(rules: &EntityRules) -> Node<'_> {
    let mut members = Members::new();
    let fields = rules.fields.iter().map(|(name, rules)| (Cow::Borrowed(name.as_str()), field(rules)));
    push_object(&mut members, "fields", fields.collect());
    if rules.additional == Undeclared::Refuse {
        members.push(member("additional", Node::computed(Value::Bool(false))));
    }
    if rules.ungrouped == Undeclared::Refuse {
        members.push(member("ungrouped", text("refuse")));
    }
    if rules.on_conflict != OnConflict::default() {
        members.push(member("on_conflict", text(rules.on_conflict.as_str())));
    }
    if rules.on_delete_conflict != OnDeleteConflict::default() {
        members.push(member("on_delete_conflict", text(rules.on_delete_conflict.as_str())));
    }
    for (key, lists) in [("unique", &rules.unique), ("indexes", &rules.indexes)] {
        let names = |list: &Vec<String>| array(list.iter().map(|name| string(name.clone())).collect());
        if !lists.is_empty() {
            members.push(member(key, array(lists.iter().map(names).collect())));
        }
    }
    push_invariants(&mut members, &rules.invariants);
    members.extend(rules.scope.as_deref().map(|field| member("scope", text(field))));
    object(members)
}

fn field(rules: &Field) -> Node<'_> {
    let mut members = vec![member("type", text(rules.kind.as_str()))];
    if let FieldKind::Decimal { scale } = rules.kind {
        members.push(member("scale", number(scale.into())));
    }
    if rules.required {
        members.push(member("required", Node::computed(Value::Bool(true))));
    }
    if let Some(Counter { min, max, on_violation }) = &rules.counter {
        members.push(member("counter", Node::computed(Value::Bool(true))));
        // As strings: an integer in JSON would have to fit 64 bits.
        members.extend(min.map(|min| member("min", string(min.to_string()))));
        members.extend(max.map(|max| member("max", string(max.to_string()))));
        push_violation(&mut members, *on_violation);
    }
    if let Some(reference) = &rules.reference {
        members.push(member("references", text(reference.entity.as_str())));
        if reference.on_delete != OnDelete::default() {
            members.push(member("on_delete", text(reference.on_delete.as_str())));
        }
        push_violation(&mut members, reference.on_violation);
    }
    members.extend(rules.sequence.as_deref().map(|sequence| member("sequence", text(sequence))));
    if let Some(default) = &rules.default {
        let node = json::parse(default.as_bytes(), crate::limits::PAYLOAD_DEPTH).expect("a default is canonical JSON");
        members.push(member("default", node));
    }
    members.extend(rules.was.as_deref().map(|was| member("was", text(was))));
    members.extend(rules.since.map(|since| member("since", number(since))));
    if members.len() == 1 { text(rules.kind.as_str()) } else { object(members) }
}

fn operation(rules: &OperationRules) -> Node<'_> {
    let mut members = Members::new();
    if !rules.roles.is_empty() {
        members.push(member("roles", array(rules.roles.iter().map(|role| text(role.as_str())).collect())));
    }
    if let Some(shape) = &rules.shape {
        let count = |count: &Count| string(count.to_string());
        let counts = shape.iter().map(|(entity, most)| (Cow::Borrowed(entity.as_str()), count(most)));
        members.push(member("shape", object(counts.collect())));
    }
    push_invariants(&mut members, &rules.invariants);
    if rules.scope != OperationScope::default() {
        members.push(member("scope", text(rules.scope.as_str())));
    }
    object(members)
}

fn push_invariants<'s>(members: &mut Members<'s>, invariants: &'s [Invariant]) {
    let of = |invariant: &'s Invariant| {
        let mut members = vec![member("name", text(&invariant.name)), member("cel", text(invariant.cel.source()))];
        push_violation(&mut members, invariant.on_violation);
        object(members)
    };
    if !invariants.is_empty() {
        members.push(member("invariants", array(invariants.iter().map(of).collect())));
    }
}

fn push_violation(members: &mut Members<'_>, on_violation: OnViolation) {
    if on_violation == OnViolation::Flag {
        members.push(member("on_violation", text("flag")));
    }
}

fn push_object<'s>(members: &mut Members<'s>, key: &'static str, inner: Members<'s>) {
    if !inner.is_empty() {
        members.push(member(key, object(inner)));
    }
}

fn member<'s>(key: &'static str, node: Node<'s>) -> (Cow<'s, str>, Node<'s>) {
    (Cow::Borrowed(key), node)
}

fn text(text: &str) -> Node<'_> {
    Node::computed(Value::String(Cow::Borrowed(text)))
}

fn string<'s>(text: String) -> Node<'s> {
    Node::computed(Value::String(Cow::Owned(text)))
}

fn number<'s>(number: u64) -> Node<'s> {
    Node::computed(Value::Number(Cow::Owned(number.to_string())))
}

fn array(items: Vec<Node<'_>>) -> Node<'_> {
    Node::computed(Value::Array(items))
}

fn object(members: Members<'_>) -> Node<'_> {
    Node::computed(Value::Object(members))
}
