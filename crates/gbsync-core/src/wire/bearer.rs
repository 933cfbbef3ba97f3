//! In whose names a token may speak: the server decides by it, and tells it at the handshake, so that a device need not send
//! what would be refused.
//!
//! Invariant: one function says whose groups may be sent, for device and server alike.

use super::read::{Fields, Read, WireError, each, id_item, push_text, wrong};
use crate::id::Actor;
use crate::json::{Node, Value, push_string};
use crate::time::Timestamp;
use std::collections::BTreeSet;

/// For whom a token may act beside its own actor. What is sent for them is decided by their roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActAs {
    /// Everybody whose roles the server knows.
    Anyone,
    /// These.
    These(BTreeSet<Actor>),
}

/// Who bears a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bearer {
    /// The person or service that it was made for.
    pub actor: Option<Actor>,
    /// For whom it may act beside that one.
    pub act_as: Option<ActAs>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

impl Bearer {
    /// Whether it may send a group that names this actor, or none.
    ///
    /// A token that names nobody is a device's own: it speaks in any name, with its own roles and no others.
    ///
    /// ```
    /// use gbsync_core::{id::Actor, wire::Bearer};
    /// let cashier = Bearer { actor: Some(Actor::new("cashier-7").unwrap()), ..Bearer::default() };
    /// assert!(cashier.may_send(None));
    /// assert!(!cashier.may_send(Some(&Actor::new("manager-1").unwrap())));
    /// ```
    pub fn may_send(&self, named: Option<&Actor>) -> bool {
        named.is_none_or(|named| self.has_roles_of_its_own_for(named) || self.may_act_as(named))
    }

    /// Whether a group that names this actor has the roles of the token, and not those of the actor.
    pub fn has_roles_of_its_own_for(&self, named: &Actor) -> bool {
        match (&self.actor, &self.act_as) {
            (Some(actor), _) => actor == named,
            (None, act_as) => act_as.is_none(),
        }
    }

    /// Whether it may act as this actor beside its own.
    pub fn may_act_as(&self, named: &Actor) -> bool {
        match &self.act_as {
            Some(ActAs::Anyone) => true,
            Some(ActAs::These(actors)) => actors.contains(named),
            None => false,
        }
    }

    pub(super) fn read(node: &Node<'_>) -> Read<Self> {
        let fields = Fields::of(node)?;
        let expires_at = fields.optional_text("expiresAt")?.map(Timestamp::new).transpose();
        Ok(Self {
            actor: fields.optional_id("actor", |text| Actor::new(text))?,
            act_as: fields.optional("actAs").map(act_as).transpose()?,
            expires_at: expires_at.map_err(|error| WireError::new(error.to_string()).within("expiresAt"))?,
        })
    }

    pub(super) fn push(&self, out: &mut String) {
        out.push_str("{\"actor\":");
        match &self.actor {
            Some(actor) => push_string(out, actor.as_str()),
            None => out.push_str("null"),
        }
        match &self.act_as {
            None => {}
            Some(ActAs::Anyone) => push_text(out, "actAs", "*"),
            Some(ActAs::These(actors)) => {
                out.push_str(",\"actAs\":[");
                for (index, actor) in actors.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    push_string(out, actor.as_str());
                }
                out.push(']');
            }
        }
        if let Some(expires_at) = &self.expires_at {
            push_text(out, "expiresAt", expires_at.as_str());
        }
        out.push('}');
    }
}

fn act_as(node: &Node<'_>) -> Read<ActAs> {
    match &node.value {
        Value::String(word) if word == "*" => Ok(ActAs::Anyone),
        Value::Array(items) => {
            let actors = each("actAs", items, |item| id_item(item, |text| Actor::new(text)))?;
            Ok(ActAs::These(actors.into_iter().collect()))
        }
        _ => Err(wrong(node, "\"*\" or a list of actors").within("actAs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(name: &str) -> Actor {
        Actor::new(name).expect("a name")
    }

    #[test]
    fn a_token_speaks_for_its_actor_and_those_it_may_act_as() {
        let these = Some(ActAs::These([actor("bob")].into()));
        let sends = |actor: Option<Actor>, act_as: Option<ActAs>| {
            let bearer = Bearer { actor, act_as, expires_at: None };
            [None, Some("ann"), Some("bob"), Some("cid")].map(|named| bearer.may_send(named.map(self::actor).as_ref()))
        };
        assert_eq!(sends(Some(actor("ann")), None), [true, true, false, false]);
        assert_eq!(sends(Some(actor("ann")), these.clone()), [true, true, true, false]);
        assert_eq!(sends(None, these), [true, false, true, false]);
        assert_eq!(sends(None, Some(ActAs::Anyone)), [true; 4]);
        assert_eq!(sends(None, None), [true; 4]);
    }

    #[test]
    fn only_a_token_that_names_nobody_lends_its_own_roles_to_others() {
        let own = |actor: Option<Actor>, act_as| Bearer { actor, act_as, expires_at: None };
        assert!(own(Some(actor("ann")), Some(ActAs::Anyone)).has_roles_of_its_own_for(&actor("ann")));
        assert!(!own(Some(actor("ann")), Some(ActAs::Anyone)).has_roles_of_its_own_for(&actor("bob")));
        assert!(!own(None, Some(ActAs::Anyone)).has_roles_of_its_own_for(&actor("bob")));
        assert!(own(None, None).has_roles_of_its_own_for(&actor("bob")));
    }
}
