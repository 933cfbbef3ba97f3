//! Which part of a space somebody sees: the scopes that a token holds, and where a record is seen.
//!
//! A record of an entity with a scope lies in one scope, the value of the field that the schema names. It is seen there, and
//! where a group with the reach `closure` brought it. A record of any other entity is seen by everybody.
//!
//! Invariant: one function says whether somebody sees a record ([`ScopeSet::sees`]), for push, log, stream, snapshot and
//! verdicts alike. Who holds no scope of a record is told nothing of what is in it.
//!
//! Rejected alternative: a filter that reads payloads when it serves them. What a deleted or moved record was is not in them
//! any more, and serving would parse everything.

mod seen;
mod trace;

pub use seen::{Sight, Unreadable};
pub use trace::Trace;

use crate::digest::Digest;
use crate::id::{Entity, Scope};
use crate::json::{self, push_string};
use crate::schema::Schema;
use std::collections::BTreeSet;

/// The scopes that a token holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum ScopeSet {
    /// Everything.
    #[default]
    All,
    /// These, and what everybody sees.
    These(BTreeSet<Scope>),
}

/// Where a record is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// By everybody.
    #[default]
    Everywhere,
    /// By those who hold one of these scopes, and by those who see everything.
    In(BTreeSet<Scope>),
}

/// A text that is no list of scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a list of scopes cannot be read")]
pub struct InvalidScopes;

impl ScopeSet {
    /// Whether its holder sees a record that is seen there.
    ///
    /// ```
    /// use gbsync_core::{id::Scope, scope::{Reach, ScopeSet}};
    /// let north = Scope::new("north").unwrap();
    /// let till = ScopeSet::These([north.clone()].into());
    /// assert!(till.sees(&Reach::Everywhere) && till.sees(&Reach::of(north)));
    /// assert!(!till.sees(&Reach::of(Scope::new("south").unwrap())));
    /// assert!(ScopeSet::All.sees(&Reach::In([].into())));
    /// ```
    pub fn sees(&self, reach: &Reach) -> bool {
        match (self, reach) {
            (Self::All, _) | (_, Reach::Everywhere) => true,
            (Self::These(held), Reach::In(scopes)) => !held.is_disjoint(scopes),
        }
    }

    /// Whether its holder may write what lies in a scope; `None`: in none.
    pub fn holds(&self, scope: Option<&Scope>) -> bool {
        match self {
            Self::All => true,
            Self::These(held) => scope.is_some_and(|scope| held.contains(scope)),
        }
    }

    /// Whether its holder sees whatever the holder of another set sees.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::These(_), Self::All) => false,
            (Self::These(held), Self::These(others)) => held.is_superset(others),
        }
    }

    /// The scopes as a JSON array; `None` for all.
    pub fn to_json(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::These(scopes) => Some(scopes_json(scopes)),
        }
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`InvalidScopes`] when it is something else.
    pub fn parse(text: Option<&str>) -> Result<Self, InvalidScopes> {
        text.map_or(Ok(Self::All), |text| parse_scopes(text).map(Self::These))
    }

    /// What names the part of a space that its holder sees: two devices with the same name see the same. It is another one
    /// when a schema puts other records into scopes. `all` for who sees everything, whatever the schema.
    ///
    /// ```
    /// use gbsync_core::scope::ScopeSet;
    /// assert_eq!(ScopeSet::All.name(None), "all");
    /// assert_ne!(ScopeSet::These([].into()).name(None), "all");
    /// ```
    pub fn name(&self, schema: Option<&Schema>) -> String {
        let Self::These(scopes) = self else { return "all".to_owned() };
        let mut text = scopes_json(scopes);
        for (entity, field) in schema.into_iter().flat_map(Schema::scoped) {
            text.push('\n');
            push_string(&mut text, entity.as_str());
            push_string(&mut text, field);
        }
        Digest::of(text.as_bytes()).to_string()
    }
}

impl Reach {
    /// Seen in one scope.
    pub fn of(scope: Scope) -> Self {
        Self::In([scope].into())
    }

    /// Seen by nobody but those who see everything: a record that is not there, or that lies in no scope.
    pub fn nowhere() -> Self {
        Self::In(BTreeSet::new())
    }

    /// The scopes as a JSON array; `None` for everywhere.
    pub fn to_json(&self) -> Option<String> {
        match self {
            Self::Everywhere => None,
            Self::In(scopes) => Some(scopes_json(scopes)),
        }
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`InvalidScopes`] when it is something else.
    pub fn parse(text: Option<&str>) -> Result<Self, InvalidScopes> {
        text.map_or(Ok(Self::Everywhere), |text| parse_scopes(text).map(Self::In))
    }
}

impl Schema {
    /// The entities whose records lie in scopes, each with the field that says in which.
    pub fn scoped(&self) -> impl Iterator<Item = (&Entity, &str)> {
        self.entities.iter().filter_map(|(entity, rules)| Some((entity, rules.scope.as_deref()?)))
    }

    /// Whether any record lies in a scope.
    pub fn has_scopes(&self) -> bool {
        self.scoped().next().is_some()
    }
}

fn scopes_json(scopes: &BTreeSet<Scope>) -> String {
    let mut out = String::from("[");
    for (index, scope) in scopes.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        push_string(&mut out, scope.as_str());
    }
    out.push(']');
    out
}

fn parse_scopes(text: &str) -> Result<BTreeSet<Scope>, InvalidScopes> {
    let node = json::parse(text.as_bytes(), 1).map_err(|_| InvalidScopes)?;
    scopes_of(&node).ok_or(InvalidScopes)
}

fn scopes_of(node: &json::Node<'_>) -> Option<BTreeSet<Scope>> {
    node.as_array()?.iter().map(|item| Scope::new(item.as_str()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(names: &[&str]) -> BTreeSet<Scope> {
        names.iter().map(|name| Scope::new(*name).expect("a name")).collect()
    }

    #[test]
    fn what_is_stored_is_read_back() {
        for set in [ScopeSet::All, ScopeSet::These(scopes(&[])), ScopeSet::These(scopes(&["a\"b", "ü"]))] {
            assert_eq!(ScopeSet::parse(set.to_json().as_deref()), Ok(set));
        }
        for reach in [Reach::Everywhere, Reach::nowhere(), Reach::In(scopes(&["a", "b"]))] {
            assert_eq!(Reach::parse(reach.to_json().as_deref()), Ok(reach));
        }
        for damaged in ["", "{}", "[1]", "[\"\"]", "\"a\""] {
            assert_eq!(Reach::parse(Some(damaged)), Err(InvalidScopes), "{damaged}");
        }
    }

    #[test]
    fn who_covers_another_sees_all_that_the_other_sees() {
        let (all, a, ab) = (ScopeSet::All, ScopeSet::These(scopes(&["a"])), ScopeSet::These(scopes(&["a", "b"])));
        assert!(all.covers(&ab) && ab.covers(&a) && a.covers(&a) && a.covers(&ScopeSet::These(scopes(&[]))));
        assert!(!a.covers(&ab) && !ab.covers(&all));
        assert!(a.holds(scopes(&["a"]).first()) && !a.holds(scopes(&["b"]).first()) && !a.holds(None) && all.holds(None));
    }

    #[test]
    fn the_name_of_a_set_changes_with_the_schema_that_divides_the_space() {
        let schema = |field: &str| {
            let text = format!(
                "version = 1\n[entities.receipts]\nscope = \"{field}\"\nfields.a = {{ type = \"text\", required = true }}\nfields.b = {{ type = \"text\", required = true }}\n"
            );
            Schema::parse(&text).expect("a schema")
        };
        let (a, b) = (ScopeSet::These(scopes(&["a"])), ScopeSet::These(scopes(&["b"])));
        let names = [a.name(None), b.name(None), a.name(Some(&schema("a"))), a.name(Some(&schema("b")))];
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(ScopeSet::All.name(Some(&schema("a"))), "all");
    }
}
