//! What a group that was made on a history which its device left says of it: up to where that is the present log, and which
//! groups stood at the places behind that its base versions name (docs/protocol.md, "Restored logs").
//!
//! The name of a log does not tell two histories apart: a log that is rolled back by hand keeps its name, and may be rolled
//! back again. A group's id tells what stood at a place, whatever the log was called.

use super::read::{Fields, Read, WireError, each, parse, push_text};
use crate::id::{GroupId, Seq};
use crate::json::Node;
use crate::limits::NAMED_BASES;
use std::collections::BTreeMap;

/// Where the history that a group was made on parts from the present log, and what stood behind that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOn {
    /// The last `seq` that its device knows both to have in common.
    pub shared: Seq,
    /// The groups that stood at base versions above it, where its device knows them.
    pub bases: BTreeMap<Seq, GroupId>,
}

impl MadeOn {
    /// Reads what [`MadeOn::to_json`] wrote.
    ///
    /// # Errors
    /// [`WireError`] when it is something else.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        Self::read(&parse(text.as_bytes(), 8)?.0)
    }

    pub(super) fn read(node: &Node<'_>) -> Read<Self> {
        let fields = Fields::of(node)?;
        let bases = fields.optional_array("bases")?;
        if bases.len() > NAMED_BASES {
            return Err(WireError::new(format!("has more than {NAMED_BASES} places")).within("bases"));
        }
        let base = |node| {
            let fields = Fields::of(node)?;
            Ok((Seq(fields.count("seq")?), fields.id("group", |text| GroupId::new(text))?))
        };
        Ok(Self { shared: Seq(fields.count("shared")?), bases: each("bases", bases, base)?.into_iter().collect() })
    }

    /// It in wire form.
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\"shared\":{}", self.shared);
        for (index, (seq, group)) in self.bases.iter().enumerate() {
            out.push_str(if index > 0 { "},{\"seq\":" } else { ",\"bases\":[{\"seq\":" });
            out.push_str(&seq.to_string());
            push_text(&mut out, "group", group.as_str());
        }
        out.push_str(if self.bases.is_empty() { "}" } else { "}]}" });
        out
    }
}

/// Reads what a group says of the history that it was made on.
pub(super) fn made_on(fields: &Fields<'_, '_>) -> Read<Option<MadeOn>> {
    fields.optional("madeOn").map(MadeOn::read).transpose().map_err(|error| error.within("madeOn"))
}

/// A group in wire form that says on which history it was made.
///
/// ```
/// use gbsync_core::{id::{GroupId, Seq}, wire::{MadeOn, made_on_another}};
/// let made_on = MadeOn { shared: Seq(98), bases: [(Seq(105), GroupId::new("sale:1").unwrap())].into() };
/// let group = made_on_another("{\"syncGroupId\":\"g\"}".to_owned(), Some(&made_on));
/// assert_eq!(group, r#"{"madeOn":{"shared":98,"bases":[{"seq":105,"group":"sale:1"}]},"syncGroupId":"g"}"#);
/// assert_eq!(MadeOn::parse(&made_on.to_json()), Ok(made_on));
/// ```
pub fn made_on_another(group: String, made_on: Option<&MadeOn>) -> String {
    match (group.strip_prefix('{'), made_on) {
        (Some(rest), Some(made_on)) => format!("{{\"madeOn\":{},{rest}", made_on.to_json()),
        _ => group,
    }
}
