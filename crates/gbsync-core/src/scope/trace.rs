//! What is stored beside an entry of the log: where each of its changes was seen before, and where after.
//!
//! Invariant: it says of every change of the entry, in order; of a group whose records all lie in one scope that is one run,
//! so that whether somebody sees the entry is one look.

use super::{InvalidScopes, Reach, ScopeSet, scopes_json, scopes_of};
use crate::json::{self, Node, Value};

/// Where the changes of a log entry are seen.
///
/// ```
/// use gbsync_core::{id::Scope, scope::{Reach, Trace}};
/// let north = Reach::of(Scope::new("north").unwrap());
/// let mut trace = Trace::default();
/// trace.add(Reach::nowhere(), north.clone());
/// trace.add(Reach::nowhere(), north.clone());
/// trace.add(Reach::Everywhere, Reach::Everywhere);
/// assert_eq!(trace.to_json(), r#"[[2,[],["north"]],[1,null]]"#);
/// assert_eq!(Trace::parse(&trace.to_json()), Ok(trace));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    runs: Vec<Run>,
}

/// Changes that follow each other and are seen alike.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    count: u64,
    before: Reach,
    after: Reach,
}

/// What somebody sees of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// All of it.
    Whole,
    /// That the record is out of sight from now on.
    Leaving,
    Nothing,
}

impl Trace {
    /// Of an entry without changes that is seen there.
    pub fn of_entry(reach: Reach) -> Self {
        Self { runs: vec![Run { count: 0, before: reach.clone(), after: reach }] }
    }

    /// Adds the next change.
    pub fn add(&mut self, before: Reach, after: Reach) {
        match self.runs.last_mut() {
            Some(run) if run.before == before && run.after == after => run.count += 1,
            _ => self.runs.push(Run { count: 1, before, after }),
        }
    }

    /// As the store keeps it: runs of changes, each with where it is seen before and after, once where both are the same.
    pub fn to_json(&self) -> String {
        let reach = |reach: &Reach| match reach {
            Reach::Everywhere => "null".to_owned(),
            Reach::In(scopes) => scopes_json(scopes),
        };
        let run = |Run { count, before, after }: &Run| match before == after {
            true => format!("[{count},{}]", reach(before)),
            false => format!("[{count},{},{}]", reach(before), reach(after)),
        };
        format!("[{}]", self.runs.iter().map(run).collect::<Vec<_>>().join(","))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`InvalidScopes`] when it is something else.
    pub fn parse(text: &str) -> Result<Self, InvalidScopes> {
        let node = json::parse(text.as_bytes(), 4).map_err(|_| InvalidScopes)?;
        let runs = node.as_array().and_then(|runs| runs.iter().map(run).collect());
        runs.map(|runs| Self { runs }).ok_or(InvalidScopes)
    }

    /// Whether somebody is told anything of the entry.
    pub fn is_told(&self, set: &ScopeSet) -> bool {
        self.runs.iter().any(|run| run.seen(set) != Seen::Nothing)
    }

    /// Whether somebody sees the entry whole.
    pub fn is_whole(&self, set: &ScopeSet) -> bool {
        self.runs.iter().all(|run| run.seen(set) == Seen::Whole)
    }

    /// What somebody sees of every change, where that is the same of all.
    pub(super) fn of_all(&self, set: &ScopeSet) -> Option<Seen> {
        let mut seen = self.runs.iter().map(|run| run.seen(set));
        let first = seen.next()?;
        seen.all(|other| other == first).then_some(first)
    }

    /// What somebody sees of each change.
    pub(super) fn of_each(&self, set: &ScopeSet) -> impl Iterator<Item = Seen> {
        self.runs.iter().flat_map(move |run| {
            let count = usize::try_from(run.count).unwrap_or(usize::MAX);
            std::iter::repeat_n(run.seen(set), count)
        })
    }

    /// How many changes somebody is told of.
    pub(super) fn told(&self, set: &ScopeSet) -> u64 {
        self.runs.iter().filter(|run| run.seen(set) != Seen::Nothing).map(|run| run.count).sum()
    }
}

impl Run {
    fn seen(&self, set: &ScopeSet) -> Seen {
        if set.sees(&self.after) {
            Seen::Whole
        } else if set.sees(&self.before) {
            Seen::Leaving
        } else {
            Seen::Nothing
        }
    }
}

fn run(node: &Node<'_>) -> Option<Run> {
    let reach = |node: &Node<'_>| match node.value {
        Value::Null => Some(Reach::Everywhere),
        _ => scopes_of(node).map(Reach::In),
    };
    match node.as_array()? {
        [count, both] => Some(Run { count: count.as_count()?, before: reach(both)?, after: reach(both)? }),
        [count, before, after] => Some(Run { count: count.as_count()?, before: reach(before)?, after: reach(after)? }),
        _ => None,
    }
}
