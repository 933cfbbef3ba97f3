//! `[operations.TYPE]`: who may do it, what it changes, what must hold afterwards.

use super::super::problem::{Code, Problems};
use super::super::source::Entry;
use super::super::{Count, OperationRules, OperationScope};
use super::keys::{self, Keys};
use super::rule::{self, Names};
use crate::id::{Entity, GroupType, Role};
use crate::limits::{SCHEMA_ENTITIES, SCHEMA_RULES};
use std::collections::{BTreeMap, BTreeSet};

const SCOPES: [OperationScope; 2] = [OperationScope::AllOrNone, OperationScope::Closure];

/// Reads one operation type.
pub(super) fn read(
    entry: &Entry,
    entities: &[&Entry],
    text: &str,
    problems: &mut Problems,
) -> Option<(GroupType, OperationRules)> {
    let path = keys::join("operations", &entry.key);
    let group_type = GroupType::new(entry.key.as_str());
    if let Err(error) = &group_type {
        problems.add(entry.at, &path, Code::InvalidName, format!("an operation's name {}", error.problem));
    }
    let keys = Keys::of(&entry.item, entry.at, path, problems)?;
    keys.only(&["roles", "shape", "invariants", "scope"], problems);
    let names = Names { entities, text };
    let rules = OperationRules {
        roles: read_roles(&keys, problems),
        shape: read_shape(&keys, entities, problems),
        invariants: rule::read_list(&keys, &names, problems),
        scope: keys.choice("scope", &SCOPES.map(|scope| (scope.as_str(), scope)), problems).unwrap_or_default(),
    };
    Some((group_type.ok()?, rules))
}

fn read_roles(keys: &Keys<'_>, problems: &mut Problems) -> BTreeSet<Role> {
    let mut roles = BTreeSet::new();
    let path = keys.path_of("roles");
    let Some(items) = keys.list("roles", SCHEMA_RULES, problems) else { return roles };
    if items.is_empty() {
        let message = "nobody has one of no roles";
        problems.add_with(keys.place("roles"), &path, Code::OutOfRange, message, "leave roles out if everybody may do it");
    }
    for item in items {
        let Some(name) = keys::text_in_list(item, &path, problems) else { continue };
        match Role::new(name) {
            Ok(role) => {
                if !roles.insert(role) {
                    problems.add(item.at, &path, Code::Contradiction, format!("{name:?} stands here twice"));
                }
            }
            Err(error) => problems.add(item.at, &path, Code::InvalidName, format!("a role's name {}", error.problem)),
        }
    }
    roles
}

fn read_shape(keys: &Keys<'_>, entities: &[&Entry], problems: &mut Problems) -> Option<BTreeMap<Entity, Count>> {
    let entry = keys.find("shape")?;
    let path = keys.path_of("shape");
    let counts = keys.named("shape", SCHEMA_ENTITIES, problems);
    let is_table = matches!(&entry.item.value, super::super::source::Value::Table(_));
    if is_table && counts.is_empty() {
        let message = "an empty shape lets the operation change nothing";
        problems.add_with(entry.at, &path, Code::OutOfRange, message, "name what it changes, or leave shape out");
    }
    let mut shape = BTreeMap::new();
    for entry in counts {
        let path = keys::join(&path, &entry.key);
        rule::check_entity_name(&entry.key, entry.at, &path, entities, problems);
        let Some(text) = keys::text(&entry.item, &path, problems) else { continue };
        match parse_count(text) {
            Some(count) => {
                if let Ok(entity) = Entity::new(entry.key.as_str()) {
                    shape.insert(entity, count);
                }
            }
            None => {
                let message = format!("{text:?} is no count");
                let fix = "write \"1\", \"0..\", \"1..\" or \"1..5\"";
                problems.add_with(entry.item.at, &path, Code::InvalidCount, message, fix);
            }
        }
    }
    Some(shape)
}

/// Reads `1`, `1..` or `1..5`, both ends included.
fn parse_count(text: &str) -> Option<Count> {
    let number = |digits: &str| {
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|count| is_plain && *count < (1 << 53))
    };
    let count = match text.split_once("..") {
        None => Count { least: number(text)?, most: Some(number(text)?) },
        Some((least, "")) => Count { least: number(least)?, most: None },
        Some((least, most)) => Count { least: number(least)?, most: Some(number(most)?) },
    };
    count.most.is_none_or(|most| most >= count.least).then_some(count)
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.most {
            Some(most) if most == self.least => write!(f, "{most}"),
            Some(most) => write!(f, "{}..{most}", self.least),
            None => write!(f, "{}..", self.least),
        }
    }
}
