//! What conflict policies remember of a record, as a store keeps it.

use crate::clock::Hlc;
use crate::id::Seq;
use crate::json::{self, Value, push_string};
use std::collections::BTreeMap;

/// What conflict policies remember of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// The `seq` that last changed each top-level field; one that is not named was last changed by the edit version.
    pub fields: BTreeMap<Box<str>, Seq>,
    /// The clock of the group that last edited it.
    pub hlc: Option<Hlc>,
}

/// A text that is no marks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("marks of a record cannot be read")]
pub struct InvalidMarks;

impl Marks {
    /// The marks as JSON.
    ///
    /// ```
    /// use gbsync_core::{decide::Marks, id::Seq};
    /// let marks = Marks { fields: [("name".into(), Seq(7))].into(), hlc: None };
    /// assert_eq!(Marks::parse(&marks.to_json()), Ok(marks));
    /// ```
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"fields\":{");
        for (index, (field, seq)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, field);
            out.push_str(&format!(":{seq}"));
        }
        out.push('}');
        if let Some(hlc) = &self.hlc {
            out.push_str(",\"hlc\":");
            push_string(&mut out, &hlc.to_string());
        }
        out.push('}');
        out
    }

    /// Reads marks that a store kept.
    ///
    /// # Errors
    /// [`InvalidMarks`] when they are none.
    pub fn parse(text: &str) -> Result<Self, InvalidMarks> {
        let node = json::parse(text.as_bytes(), 3).map_err(|_| InvalidMarks)?;
        let fields = match node.member("fields").map(|fields| &fields.value) {
            Some(Value::Object(members)) => {
                let mark = |(field, seq): &(_, json::Node<'_>)| {
                    let field: &std::borrow::Cow<'_, str> = field;
                    Some((Box::from(&**field), Seq(seq.as_count()?)))
                };
                members.iter().map(mark).collect::<Option<_>>().ok_or(InvalidMarks)?
            }
            _ => return Err(InvalidMarks),
        };
        let hlc = node.member("hlc").map(|hlc| hlc.as_str().and_then(|text| Hlc::parse(text).ok()).ok_or(InvalidMarks));
        Ok(Self { fields, hlc: hlc.transpose()? })
    }
}
