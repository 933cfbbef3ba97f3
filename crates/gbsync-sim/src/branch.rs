//! Logs that the server had and lost, as the reference knew them: it was put back to an earlier state.
//!
//! A device goes by such a log until it learns of the loss. Which log it goes by is told by the chain at its cursor: equal chains
//! are equal logs.

use crate::model::{Model, State};
use std::collections::{BTreeMap, BTreeSet};

/// A log: what the reference says of all of it.
#[derive(Debug, Clone)]
pub struct Branch {
    log: Vec<String>,
    states: Vec<State>,
    chains: Vec<String>,
    places: BTreeMap<String, usize>,
    accepted: BTreeMap<String, String>,
    numbers: BTreeMap<(String, String, u64), String>,
}

/// What is remembered of the logs that were lost.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// The chain after each entry of the present log.
    pub chains: Vec<String>,
    branches: Vec<Branch>,
    /// Tokens of operations that such a log had, and that no device has any more.
    excused: BTreeSet<String>,
}

/// The log by which a device goes.
pub struct Known<'m> {
    /// The records at its cursor.
    pub state: &'m State,
    places: &'m BTreeMap<String, usize>,
}

impl Known<'_> {
    /// Where a group stands in it.
    pub fn place(&self, group: &str) -> Option<usize> {
        self.places.get(group).copied()
    }
}

impl Model {
    /// The log as it is now.
    pub fn branch(&self) -> Branch {
        Branch {
            log: self.log.clone(),
            states: self.states.clone(),
            chains: self.past.chains.clone(),
            places: self.places.clone(),
            accepted: self.accepted.clone(),
            numbers: self.numbers.clone(),
        }
    }

    /// The server's log is again what it was then. `kept`: the groups that devices still have.
    pub fn go_back(&mut self, then: &Branch, kept: &BTreeSet<String>) {
        let now = self.branch();
        self.past.branches.push(now);
        let Branch { log, states, chains, places, accepted, numbers } = then.clone();
        (self.log, self.states, self.places, self.accepted, self.numbers) = (log, states, places, accepted, numbers);
        self.past.chains = chains;
        self.refused.go_back();
        self.excuse(kept);
    }

    /// Operations that a lost log had, that the present one lacks, and whose groups no device keeps, are gone for good: they are
    /// older than devices keep what is accepted, or their device was put back itself.
    pub fn excuse(&mut self, kept: &BTreeSet<String>) {
        let lost = self.past.branches.iter().flat_map(|branch| &branch.accepted);
        let gone = lost.filter(|(token, group)| !self.accepted.contains_key(*token) && !kept.contains(*group));
        self.past.excused.extend(gone.map(|(token, _)| token.clone()));
    }

    /// The log that has this chain at `cursor`: the present one, or one that was lost.
    pub fn known(&self, cursor: usize, chain: Option<&str>) -> Option<Known<'_>> {
        let stands = |chains: &[String]| cursor == 0 || chains.get(cursor - 1).is_some_and(|at| Some(&**at) == chain);
        if stands(&self.past.chains) {
            return Some(Known { state: self.states.get(cursor)?, places: &self.places });
        }
        let branch = self.past.branches.iter().rev().find(|branch| stands(&branch.chains))?;
        Some(Known { state: branch.states.get(cursor)?, places: &branch.places })
    }

    /// The chain of the present log at a place after the first.
    pub fn chain(&self, place: usize) -> Option<&str> {
        self.past.chains.get(place.checked_sub(1)?).map(String::as_str)
    }

    /// Whether a group stands, or stood, at this place.
    pub fn stood_at(&self, group: &str, place: usize) -> bool {
        let lost = self.past.branches.iter().map(|branch| branch.places.get(group));
        lost.chain([self.places.get(group)]).any(|at| at == Some(&place))
    }

    /// Whether a group stands in the log, or stood in one that was lost.
    pub fn stood(&self, group: &str) -> bool {
        self.places.contains_key(group) || self.was_lost(group)
    }

    /// Whether a group stood in a log that was lost.
    pub fn was_lost(&self, group: &str) -> bool {
        self.past.branches.iter().any(|branch| branch.places.contains_key(group))
    }

    /// Whether a group of an operation stands in the log, or stood in one that was lost.
    pub fn was_accepted(&self, token: &str) -> bool {
        self.is_accepted(token) || self.past.branches.iter().any(|branch| branch.accepted.contains_key(token))
    }

    /// Whether an operation went with a lost log and nobody had it any more.
    pub fn is_excused(&self, token: &str) -> bool {
        self.past.excused.contains(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, Edit, Fields, Operation};

    fn group(token: &str) -> String {
        format!("sale:{token}:1")
    }

    /// Sells in the present log.
    fn sell(model: &mut Model, token: &str) {
        let change = Change { key: ("notes".into(), token.into()), edit: Edit::Put(Fields::new()) };
        let operation = Operation { token: token.into(), kind: "sale", changes: vec![change] };
        model.operations.insert(token.into(), operation);
        model.accept(&group(token)).expect("it can be accepted");
        let chain = format!("{}{token}", model.past.chains.last().map_or("", String::as_str));
        model.past.chains.push(chain);
    }

    /// A log of `a` and `b` that was put back behind `a` and went on with `c`.
    fn put_back(kept: &[&str]) -> Model {
        let mut model = Model::new(false);
        sell(&mut model, "a");
        let then = model.branch();
        sell(&mut model, "b");
        model.go_back(&then, &kept.iter().map(|token| group(token)).collect());
        sell(&mut model, "c");
        model
    }

    #[test]
    fn a_device_is_held_against_the_log_whose_chain_it_has() {
        let model = put_back(&["b"]);
        let has = |cursor, chain, token| {
            model.known(cursor, Some(chain)).map(|known| known.state.record("notes", token).is_some())
        };
        assert_eq!((has(2, "ab", "b"), has(2, "ab", "c")), (Some(true), Some(false)));
        assert_eq!((has(2, "ac", "b"), has(2, "ac", "c")), (Some(false), Some(true)));
        assert_eq!(has(1, "a", "a"), Some(true));
        assert!(
            model.known(2, Some("a")).is_none() && model.known(2, None).is_none() && model.known(3, Some("ac")).is_none()
        );
        assert_eq!(model.known(2, Some("ab")).and_then(|known| known.place(&group("b"))), Some(2));
        assert!(model.known(2, Some("ac")).is_some_and(|known| known.place(&group("b")).is_none()));
    }

    #[test]
    fn what_a_device_keeps_of_a_lost_log_is_not_excused() {
        let (kept, gone) = (put_back(&["b"]), put_back(&[]));
        assert!(!kept.is_accepted("b") && kept.was_accepted("b") && kept.stood_at(&group("b"), 2));
        assert!(!kept.is_excused("b") && gone.is_excused("b"));
        assert!(!gone.is_excused("a"), "it was not lost");
    }

    #[test]
    fn a_group_may_stand_again_in_the_log_that_lost_it() {
        let mut model = put_back(&["b"]);
        sell(&mut model, "b");
        assert_eq!((model.place(&group("b")), model.head()), (Some(3), 3));
        assert!(model.accept(&group("b")).is_err(), "and once");
    }
}
