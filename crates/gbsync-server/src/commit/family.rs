//! Which groups stand for one another: a group and all its replacements are a family, and at most one of them is accepted.
//!
//! A family is named by one of its members, its root. Groups may arrive in any order, so that a group may be named as
//! replaced before it arrives, and two families may turn out to be one.
//!
//! Rejected alternative: following `replaces` from group to group; a chain of amendments would make each next one dearer.

use gbsync_core::id::GroupId;
use gbsync_core::verdict::Resolution;
use std::collections::BTreeMap;

/// The families that a transaction touches.
pub(super) struct Families {
    roots: BTreeMap<GroupId, GroupId>,
    winners: BTreeMap<GroupId, GroupId>,
    closures: BTreeMap<GroupId, Resolution>,
    changes: FamilyChanges,
}

/// What is to be written of them.
#[derive(Default)]
pub(super) struct FamilyChanges {
    /// New members, with their root.
    pub(super) roots: BTreeMap<GroupId, GroupId>,
    /// Families that became part of another: `(from, into)`, in this order.
    pub(super) merges: Vec<(GroupId, GroupId)>,
    /// New winners, by root.
    pub(super) winners: BTreeMap<GroupId, GroupId>,
    /// New closures, by root.
    pub(super) closures: BTreeMap<GroupId, Resolution>,
}

impl Families {
    pub(super) fn new(
        roots: BTreeMap<GroupId, GroupId>,
        winners: BTreeMap<GroupId, GroupId>,
        closures: BTreeMap<GroupId, Resolution>,
    ) -> Self {
        Self { roots, winners, closures, changes: FamilyChanges::default() }
    }

    fn root(&self, group: &GroupId) -> Option<&GroupId> {
        let mut root = self.roots.get(group)?;
        // A root that was merged away leads to the one it went into.
        while let Some((_, into)) = self.changes.merges.iter().find(|(from, _)| from == root) {
            root = into;
        }
        Some(root)
    }

    /// The accepted group of the family that this one belongs to.
    pub(super) fn winner(&self, group: &GroupId) -> Option<&GroupId> {
        self.winners.get(self.root(group)?)
    }

    /// How somebody closed the family that this group belongs to.
    pub(super) fn closure(&self, group: &GroupId) -> Option<&Resolution> {
        self.closures.get(self.root(group)?)
    }

    /// Notes that somebody closed the family of this group; the first to close it stays.
    pub(super) fn close(&mut self, group: &GroupId, resolution: Resolution) {
        let root = match self.root(group) {
            Some(root) => root.clone(),
            None => {
                self.add(group, group.clone());
                group.clone()
            }
        };
        if !self.closures.contains_key(&root) {
            self.closures.insert(root.clone(), resolution.clone());
            self.changes.closures.insert(root, resolution);
        }
    }

    /// Notes that `group` is sent instead of `replaced`.
    pub(super) fn join(&mut self, group: &GroupId, replaced: &GroupId) {
        let into = match self.root(replaced) {
            Some(root) => root.clone(),
            None => {
                self.add(replaced, replaced.clone());
                replaced.clone()
            }
        };
        match self.root(group).cloned() {
            None => self.add(group, into),
            Some(from) if from != into => self.merge(from, into),
            Some(_) => {}
        }
    }

    fn add(&mut self, group: &GroupId, root: GroupId) {
        self.roots.insert(group.clone(), root.clone());
        self.changes.roots.insert(group.clone(), root);
    }

    fn merge(&mut self, from: GroupId, into: GroupId) {
        if let Some(winner) = self.winners.remove(&from) {
            self.changes.winners.remove(&from);
            self.crown(&into, &winner);
        }
        if let Some(resolution) = self.closures.remove(&from) {
            self.changes.closures.remove(&from);
            self.close(&into, resolution);
        }
        self.changes.merges.push((from, into));
    }

    /// Notes that this group took effect, if it is of a family.
    pub(super) fn win(&mut self, group: &GroupId) {
        if let Some(root) = self.root(group).cloned() {
            self.crown(&root, group);
        }
    }

    fn crown(&mut self, root: &GroupId, group: &GroupId) {
        if !self.winners.contains_key(root) {
            self.winners.insert(root.clone(), group.clone());
            self.changes.winners.insert(root.clone(), group.clone());
        }
    }

    pub(super) fn finish(self) -> FamilyChanges {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> GroupId {
        GroupId::new(text).expect("an id")
    }

    #[test]
    fn a_chain_of_replacements_is_one_family_in_any_order_of_arrival() {
        for order in [["b>a", "c>b", "d>c"], ["d>c", "c>b", "b>a"], ["c>b", "b>a", "d>c"], ["d>c", "b>a", "c>b"]] {
            let mut families = Families::new(BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for step in order {
                let (group, replaced) = step.split_once('>').expect("a step");
                families.join(&id(group), &id(replaced));
            }
            families.win(&id("c"));
            for member in ["a", "b", "c", "d"] {
                assert_eq!(families.winner(&id(member)), Some(&id("c")), "{order:?} {member}");
            }
        }
    }

    #[test]
    fn a_winner_survives_the_merge_of_its_family() {
        let mut families = Families::new(BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        families.join(&id("c"), &id("b"));
        families.win(&id("c"));
        families.join(&id("b"), &id("a"));
        assert_eq!(families.winner(&id("a")), Some(&id("c")));
    }

    #[test]
    fn groups_that_replace_nothing_have_no_family() {
        let mut families = Families::new(BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        families.win(&id("a"));
        assert_eq!(families.winner(&id("a")), None);
        assert!(families.finish().winners.is_empty());
    }
}
