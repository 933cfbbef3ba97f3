//! The one decision about access: what a request does, and whether its bearer may.
//!
//! The table of routes names an action for each, and the decision is made before a route sees the request. What only the body
//! tells, the device and the actors, the route hands to the [`Admission`] that it was given.

use super::principal::Principal;
use crate::error::Refusal;
use crate::store::EpochKey;
use gbsync_core::id::{Actor, DeviceId, GroupId, Role, SpaceId};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::{Arrival, Bearer, ProblemCode, PushRequest};
use std::collections::{BTreeMap, BTreeSet};

/// The role of the back office.
const ADMIN: &str = "admin";

/// What a request does in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    ShakeHands,
    ReadSchema,
    ReadLog,
    Push,
    AskVerdicts,
    Discard,
    StagePart,
    ReadFlags,
    ReadRejections,
    Resolve,
}

impl Action {
    /// What only the back office may do.
    fn is_of_the_office(self) -> bool {
        match self {
            Self::ReadFlags | Self::ReadRejections | Self::Resolve => true,
            Self::ShakeHands
            | Self::ReadSchema
            | Self::ReadLog
            | Self::Push
            | Self::AskVerdicts
            | Self::Discard
            | Self::StagePart => false,
        }
    }
}

/// What a request that was let in may do.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) space: SpaceId,
    /// In whose names it may speak.
    pub(crate) bearer: Bearer,
    /// From when on its token is refused, in milliseconds after 1970.
    pub(crate) ends_ms: Option<u64>,
    /// The only device it may speak for.
    pub(crate) device: Option<DeviceId>,
    /// What its bearer may do.
    pub(crate) roles: BTreeSet<Role>,
    /// Which part of the space it sees, and may write.
    pub(crate) scopes: ScopeSet,
}

/// Whose rights decide about the groups of a push.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// The actor of a group that names none.
    pub(crate) actor: Option<Actor>,
    /// Where it may write, whoever made a group.
    pub(crate) scopes: ScopeSet,
    /// Of the token.
    roles: BTreeSet<Role>,
    /// Of those for whom the token acts.
    others: BTreeMap<Actor, BTreeSet<Role>>,
}

/// Decides whether somebody may do something in the space that a path names, which is perhaps no valid name.
///
/// # Errors
/// 404 for a space that the token does not open, 403 where it has not the role.
pub(crate) fn authorize(principal: Principal, action: Action, space: &str) -> Result<Admission, Refusal> {
    let Principal { name, mut spaces, bearer, ends_ms, device, scopes } = principal;
    let space = SpaceId::new(space).map_err(|_| Refusal::no_space())?;
    let Some(roles) = spaces.remove(&space) else { return Err(Refusal::no_space()) };
    if action.is_of_the_office() && !roles.iter().any(|role| role.as_str() == ADMIN) {
        let detail = format!("this token has not the role {ADMIN}; make one with `gbsync token create --role {ADMIN}`");
        return Err(Refusal::new(ProblemCode::Forbidden, detail));
    }
    tracing::debug!(token = %name, %space, ?action, ?roles, "admitted");
    Ok(Admission { space, bearer, ends_ms, device, roles, scopes })
}

impl Admission {
    /// A token that is bound to a device speaks for no other.
    pub(crate) fn check_device(&self, device: &DeviceId) -> Result<(), Refusal> {
        match &self.device {
            _ if device.as_str() == EpochKey::SERVER => Err(Refusal::new(
                ProblemCode::Forbidden,
                format!("{device} is the name of the server's own groups; give the device another id"),
            )),
            Some(bound) if bound != device => Err(Refusal::new(
                ProblemCode::Forbidden,
                format!("this token belongs to another device than {device}; use the token that was made for it"),
            )),
            _ => Ok(()),
        }
    }

    /// A group of another device or person is theirs to discard. `None` where it is not known whose it is.
    pub(crate) fn check_owner(&self, device: Option<&DeviceId>, actor: Option<&Actor>) -> Result<(), Refusal> {
        device.map_or(Ok(()), |device| self.check_device(device))?;
        self.check_actor(actor)
    }

    /// A rejected group whose author saw more than this token does.
    pub(crate) fn sees_not(&self, group: &GroupId) -> Refusal {
        let detail =
            format!("{group} reaches beyond the scopes of this token; use one of somebody who sees as much as its author");
        Refusal::new(ProblemCode::Forbidden, detail)
    }

    /// A token speaks in its actor's name, and in those it may act as.
    pub(crate) fn check_actor(&self, actor: Option<&Actor>) -> Result<(), Refusal> {
        match actor.filter(|_| !self.bearer.may_send(actor)) {
            Some(other) => Err(Refusal::new(ProblemCode::Forbidden, self.speaks_not_for(other))),
            None => Ok(()),
        }
    }

    fn speaks_not_for(&self, other: &Actor) -> String {
        let who = self.bearer.actor.as_ref().map_or("whom it was made to act as", Actor::as_str);
        format!("the token speaks for {who}, not for {other}; use that one's token, or one that may act as {other}")
    }

    /// The person who acts: the one that the request names, or the token's.
    pub(crate) fn person(&self, named: Option<&Actor>) -> Result<Actor, Refusal> {
        self.check_actor(named)?;
        named.or(self.bearer.actor.as_ref()).cloned().ok_or_else(|| {
            let detail = "the token has no actor, so the request must say in `actor` who decides";
            Refusal::new(ProblemCode::Malformed, detail).pointing_at("/actor".into())
        })
    }

    /// Refuses a push with a group of somebody for whom the token does not speak, before anything is decided: with that
    /// one's token the group is welcome, so it must not be rejected for ever.
    pub(crate) fn check_actors(&self, request: &PushRequest) -> Result<(), Refusal> {
        match first_of(request, |named| !self.bearer.may_send(Some(named))) {
            Some((index, other)) => Err(not_now(index, self.speaks_not_for(other))),
            None => Ok(()),
        }
    }

    /// The actors of a push whose own roles decide, and not those of the token.
    pub(crate) fn acts_as(&self, request: &PushRequest) -> BTreeSet<Actor> {
        let named = request.groups.iter().filter_map(named);
        named.filter(|named| !self.bearer.has_roles_of_its_own_for(named)).cloned().collect()
    }

    /// Whose rights decide, given the roles of those whom [`Self::acts_as`] named. One whose roles nobody knows is refused
    /// before anything is decided: as soon as they are known, the group is welcome.
    pub(crate) fn rights(&self, request: &PushRequest, others: BTreeMap<Actor, BTreeSet<Role>>) -> Result<Rights, Refusal> {
        let is_unknown = |named: &Actor| !self.bearer.has_roles_of_its_own_for(named) && !others.contains_key(named);
        if let Some((index, other)) = first_of(request, is_unknown) {
            let detail = format!("the roles of {other} are not known here; say them with `gbsync actor set {other}`");
            return Err(not_now(index, detail));
        }
        let (actor, scopes) = (self.bearer.actor.clone(), self.scopes.clone());
        Ok(Rights { actor, scopes, roles: self.roles.clone(), others })
    }
}

impl Rights {
    /// The roles that decide about a group which names this actor, or none.
    pub(crate) fn of(&self, named: Option<&Actor>) -> &BTreeSet<Role> {
        let others = named.filter(|_| !is(Mutant::RolesOfTheSender)).and_then(|named| self.others.get(named));
        others.unwrap_or(&self.roles)
    }
}

fn named(arrival: &Arrival) -> Option<&Actor> {
    arrival.content.header()?.actor.as_ref()
}

fn first_of(request: &PushRequest, is_meant: impl Fn(&Actor) -> bool) -> Option<(usize, &Actor)> {
    let actors = request.groups.iter().enumerate().filter_map(|(index, arrival)| Some((index, named(arrival)?)));
    actors.into_iter().find(|(_, actor)| is_meant(actor))
}

fn not_now(index: usize, detail: String) -> Refusal {
    Refusal::new(ProblemCode::Forbidden, detail).pointing_at(format!("/groups/{index}/actor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str) -> SpaceId {
        SpaceId::new(name).expect("a name")
    }

    fn principal(roles: &[&str]) -> Principal {
        let roles = roles.iter().map(|role| Role::new(*role).expect("a word")).collect();
        Principal {
            name: "t".into(),
            spaces: [(space("shop"), roles)].into(),
            bearer: Bearer::default(),
            ends_ms: None,
            device: Some(DeviceId::new("till-1").expect("an id")),
            scopes: ScopeSet::All,
        }
    }

    fn status(roles: &[&str], action: Action, space_name: &str) -> u16 {
        match authorize(principal(roles), action, space_name) {
            Ok(_) => 200,
            Err(refusal) => refusal.problem.code.status(),
        }
    }

    #[test]
    fn a_token_opens_its_spaces_and_nothing_else() {
        assert_eq!(status(&[], Action::ReadLog, "shop"), 200);
        assert_eq!(status(&[], Action::ReadLog, "other"), 404);
        assert_eq!(status(&["admin"], Action::Resolve, "other"), 404);
        assert_eq!(status(&["admin"], Action::ReadLog, "\u{1}"), 404);
    }

    #[test]
    fn only_the_office_resolves() {
        for action in [Action::ReadFlags, Action::ReadRejections, Action::Resolve] {
            assert_eq!(status(&["cashier", "manager"], action, "shop"), 403, "{action:?}");
            assert_eq!(status(&["admin"], action, "shop"), 200, "{action:?}");
        }
    }

    #[test]
    fn a_device_speaks_for_no_other() {
        let admission = authorize(principal(&[]), Action::Push, "shop").expect("let in");
        let check = |device: &str| admission.check_device(&DeviceId::new(device).expect("an id")).is_ok();
        assert_eq!(["till-1", "till-2", "server"].map(check), [true, false, false]);
    }
}
