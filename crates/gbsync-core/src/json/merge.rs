//! JSON merge patch (RFC 7396): applying one, and putting two together where that is possible.

use super::{Node, Value};
use std::borrow::Cow;

type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// Applies a merge patch to a value (RFC 7396 section 2).
///
/// ```
/// use gbsync_core::json::{canonical, merge_patch, parse};
/// let (old, patch) = (parse(br#"{"a":1,"b":2}"#, 64).unwrap(), parse(br#"{"b":null,"c":3}"#, 64).unwrap());
/// assert_eq!(canonical(&merge_patch(Some(old), patch)), r#"{"a":1,"c":3}"#);
/// ```
pub fn merge_patch<'a>(target: Option<Node<'a>>, patch: Node<'a>) -> Node<'a> {
    let Value::Object(patch) = patch.value else { return patch };
    let target = match target.map(|node| node.value) {
        Some(Value::Object(members)) => members,
        _ => Vec::new(),
    };
    let merged = zip(target, patch, |old, new| match new {
        None => old,
        Some(new) if new.is_null() => None,
        Some(new) => Some(merge_patch(old, new)),
    });
    Node::computed(Value::Object(merged))
}

/// One merge patch that does the work of `first` and then `second`, or `None` where no merge patch can.
///
/// It cannot where `first` replaces or removes a member that `second` then reaches into: a merge patch has no way to say
/// "an object with exactly these members".
pub fn compose_patches<'a>(first: Node<'a>, second: Node<'a>) -> Option<Node<'a>> {
    let (Value::Object(first), Value::Object(second)) = (first.value, second.value) else { return None };
    let mut is_expressible = true;
    let composed = zip(first, second, |old, new| match (old, new) {
        (old, None) => old,
        (None, new) => new,
        (Some(old), Some(new)) if new.is_object() => {
            let composed = if old.is_object() { compose_patches(old, new) } else { None };
            is_expressible &= composed.is_some();
            composed
        }
        (Some(_), new) => new,
    });
    is_expressible.then(|| Node::computed(Value::Object(composed)))
}

/// Walks two member lists by key; members for which `combine` answers `None` are left out.
fn zip<'a>(
    mut old: Members<'a>,
    mut new: Members<'a>,
    mut combine: impl FnMut(Option<Node<'a>>, Option<Node<'a>>) -> Option<Node<'a>>,
) -> Members<'a> {
    old.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    new.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let mut out = Vec::with_capacity(old.len() + new.len());
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return out,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.0.as_bytes().cmp(b.0.as_bytes()),
        };
        let from_old = if order.is_le() { old.next() } else { None };
        let from_new = if order.is_ge() { new.next() } else { None };
        let (old_key, old_node) = from_old.unzip();
        let (new_key, new_node) = from_new.unzip();
        let key = old_key.or(new_key).expect("one side was peeked");
        if let Some(node) = combine(old_node, new_node) {
            out.push((key, node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{canonical, parse};
    use super::*;

    fn node(text: &str) -> Node<'_> {
        parse(text.as_bytes(), 64).expect(text)
    }

    #[test]
    fn the_examples_of_rfc_7396_appendix_a() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(canonical(&merge_patch(Some(node(target)), node(patch))), expected, "{target} {patch}");
        }
    }

    #[test]
    fn patches_compose_only_where_a_patch_can_say_it() {
        let composed = |a, b| compose_patches(node(a), node(b)).map(|node| canonical(&node));
        assert_eq!(composed(r#"{"a":1}"#, r#"{"a":null,"b":2}"#).as_deref(), Some(r#"{"a":null,"b":2}"#));
        assert_eq!(composed(r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#).as_deref(), Some(r#"{"a":{"x":1,"y":2}}"#));
        assert_eq!(composed(r#"{"a":null}"#, r#"{"a":{"y":2}}"#), None);
    }
}
