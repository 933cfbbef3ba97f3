//! Counters stay within their bounds. One that is beyond a bound already may be brought nearer to it, never further away.

use super::refusal::{Stop, invalid, violated};
use super::types::rule;
use super::working::{Slot, Working};
use crate::json::{Decimal, Node};
use crate::lay::decimal_of;
use crate::schema::Counter;
use crate::verdict::{Flag, RejectionCode};

/// Judges every counter of the records that the group leaves.
pub(super) fn check(working: &Working<'_>, flags: &mut Vec<Flag>) -> Result<(), Stop> {
    for slot in &working.slots {
        for (field, _, counter) in slot.rules.into_iter().flat_map(|rules| rules.counters()) {
            if let Some(problem) = beyond(slot, field, counter) {
                let message = format!("change {} would leave {} with {field} {problem}", slot.index, slot.key);
                let rule = rule(&slot.key.entity, field);
                let rejection = invalid(RejectionCode::BoundViolation, rule, message, slot.place(), working.facts);
                violated(flags, counter.on_violation, rejection)?;
            }
        }
    }
    Ok(())
}

/// How a counter lies beyond a bound because of this group.
fn beyond(slot: &Slot<'_>, field: &str, counter: &Counter) -> Option<String> {
    let value = |node: &Node<'_>| node.member(field).and_then(|member| decimal_of(&member.value));
    let after = value(slot.after()?)?;
    let is_below = |value: Decimal| counter.min.filter(|min| value.compare(*min).is_lt());
    let is_above = |value: Decimal| counter.max.filter(|max| value.compare(*max).is_gt());
    let (below, above) = (is_below(after), is_above(after));
    if below.is_none() && above.is_none() {
        return None;
    }
    let before = slot.before().and_then(|before| value(before));
    if let Some(min) = below {
        let is_worse = before.is_none_or(|before| is_below(before).is_none() || after.compare(before).is_lt());
        return is_worse.then(|| format!("{after}, below the least {min}"));
    }
    let max = above?;
    let is_worse = before.is_none_or(|before| is_above(before).is_none() || after.compare(before).is_gt());
    is_worse.then(|| format!("{after}, above the greatest {max}"))
}
