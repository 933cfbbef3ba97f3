//! Where a device or a group stands in which log: what tells a log that was restored, or rolled back, from the one that a
//! device knows (docs/protocol.md, "Restored logs").

use super::read::{Fields, Read, WireError, each, push_count, push_text};
use crate::digest::Digest;
use crate::id::{LogId, Seq};
use crate::json::{Node, push_string};
use crate::limits::LOST_PLACES;

/// A place in a log, with what proves which log that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The log.
    pub log: LogId,
    /// The last `seq` that was applied.
    pub seq: Seq,
    /// The chain there.
    pub chain: Digest,
}

impl LogPlace {
    pub(super) fn read(node: &Node<'_>) -> Read<Self> {
        let fields = Fields::of(node)?;
        Ok(Self {
            log: fields.id("log", |text| LogId::new(text))?,
            seq: Seq(fields.count("seq")?),
            chain: Digest::from_hex(fields.text("chain")?).ok_or_else(|| WireError::new("is no SHA-256").within("chain"))?,
        })
    }

    /// Appends the place in wire form.
    pub(super) fn push(&self, out: &mut String) {
        out.push_str("{\"log\":");
        push_string(out, self.log.as_str());
        push_count(out, "seq", self.seq.0);
        push_text(out, "chain", &self.chain.to_string());
        out.push('}');
    }
}

/// Reads where a group stood in logs that lost it.
pub(super) fn accepted_as(fields: &Fields<'_, '_>) -> Read<Vec<(LogId, Seq)>> {
    let places = fields.optional_array("acceptedAs")?;
    if places.len() > LOST_PLACES {
        return Err(WireError::new(format!("has more than {LOST_PLACES} places")).within("acceptedAs"));
    }
    let place = |node| {
        let fields = Fields::of(node)?;
        match fields.count("seq")? {
            0 => Err(WireError::new("places begin at 1").within("seq")),
            seq => Ok((fields.id("log", |text| LogId::new(text))?, Seq(seq))),
        }
    };
    each("acceptedAs", places, place)
}

/// A group in wire form that says where it stood in logs that lost it; of many, the last ones.
///
/// ```
/// use gbsync_core::{id::{LogId, Seq}, wire::offered_again};
/// let places = [(LogId::new("a").unwrap(), Seq(7))];
/// let group = offered_again("{\"syncGroupId\":\"g\"}".to_owned(), &places);
/// assert_eq!(group, "{\"acceptedAs\":[{\"log\":\"a\",\"seq\":7}],\"syncGroupId\":\"g\"}");
/// ```
pub fn offered_again(group: String, places: &[(LogId, Seq)]) -> String {
    let Some(rest) = group.strip_prefix('{').filter(|_| !places.is_empty()) else { return group };
    let mut out = String::from("{\"acceptedAs\":[");
    for (index, (log, seq)) in places.iter().skip(places.len().saturating_sub(LOST_PLACES)).enumerate() {
        out.push_str(if index > 0 { ",{\"log\":" } else { "{\"log\":" });
        push_string(&mut out, log.as_str());
        push_count(&mut out, "seq", seq.0);
        out.push('}');
    }
    out + "]," + rest
}
