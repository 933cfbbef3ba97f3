//! Which earlier group of the same device a group waits for (docs/decisions/0003).
//!
//! Invariant: the rule looks at no more than the summary that the latest earlier toucher of a record left behind, so
//! sealing costs the same with one pending sale of an item and with a hundred thousand.

use crate::mutant::{Mutant, is};

/// What a group does to one record, all its changes of that record taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touch {
    /// Only adds to fields.
    Increment,
    /// Upserts or patches a record that was there.
    Edit,
    /// Makes a record that was not there, or makes a deleted one anew.
    Create,
    /// Deletes the record.
    Delete,
}

impl Touch {
    /// The word under which a store keeps it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Increment => "increment",
            Self::Edit => "edit",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    /// The touch kept under a word.
    pub fn from_stored(word: &str) -> Option<Self> {
        [Self::Increment, Self::Edit, Self::Create, Self::Delete].into_iter().find(|touch| touch.as_str() == word)
    }

    /// Whether this is an edit in the sense of `baseGroup`: anything but an increment.
    pub fn is_edit(self) -> bool {
        self != Self::Increment
    }

    /// Whether this begins or ends the record's life.
    pub fn is_birth_or_death(self) -> bool {
        matches!(self, Self::Create | Self::Delete)
    }
}

/// The overlay groups that last touched one record. `G` names a group: a local number on a device, an id in a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trail<G> {
    /// The latest that touched it at all.
    pub touched: Option<G>,
    /// The latest that edited it.
    pub edited: Option<G>,
    /// The latest that created or deleted it.
    pub born_or_died: Option<G>,
}

impl<G> Default for Trail<G> {
    fn default() -> Self {
        Self { touched: None, edited: None, born_or_died: None }
    }
}

impl<G: Copy + PartialEq> Trail<G> {
    /// The trail after `group` touched the record.
    #[must_use]
    pub fn after(self, group: G, touch: Touch) -> Self {
        Self {
            touched: Some(group),
            edited: if touch.is_edit() { Some(group) } else { self.edited },
            born_or_died: if touch.is_birth_or_death() { Some(group) } else { self.born_or_died },
        }
    }

    /// The groups that a group touching the record like this waits for: at most two.
    ///
    /// An increment waits only for the birth or death of its record. Anything else waits for the latest toucher, and for
    /// the latest editor too when that is another one, because that is the base it was made on.
    ///
    /// ```
    /// use gbsync_core::depend::{Touch, Trail};
    /// let sold_twice = Trail::default().after(1, Touch::Edit).after(2, Touch::Increment);
    /// assert!(sold_twice.dependencies(Touch::Increment).is_empty());
    /// assert_eq!(sold_twice.dependencies(Touch::Edit), vec![2, 1]);
    /// ```
    pub fn dependencies(&self, touch: Touch) -> Vec<G> {
        if touch == Touch::Increment && is(Mutant::IncrementsDependent) {
            return self.touched.into_iter().collect();
        }
        if touch == Touch::Increment {
            return self.born_or_died.into_iter().collect();
        }
        let edited = self.edited.filter(|edited| Some(*edited) != self.touched);
        self.touched.into_iter().chain(edited).collect()
    }
}
