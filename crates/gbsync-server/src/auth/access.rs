//! The one decision about access.

use super::secret;
use crate::error::Refusal;
use crate::store::{EpochKey, Grant};
use axum::http::{HeaderMap, header};
use gbsync_core::id::{Actor, DeviceId, Role, SpaceId};
use gbsync_core::wire::{Arrival, ProblemCode, PushRequest};
use std::collections::BTreeSet;

/// The role of the back office.
const ADMIN: &str = "admin";

/// What a request wants to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// As the path names it; perhaps no valid name.
    pub(crate) space: &'a str,
    /// The device it speaks for, where it names one.
    pub(crate) device: Option<&'a DeviceId>,
}

/// What a request that was let in may do.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) space: SpaceId,
    /// The only actor whose groups it may send, and the one of groups that name none.
    pub(crate) actor: Option<Actor>,
    /// The only device it may speak for.
    pub(crate) device: Option<DeviceId>,
    /// What its bearer may do.
    pub(crate) roles: BTreeSet<Role>,
}

/// Decides access: `grant` is what the store knows of the request's token, if it knows any.
///
/// # Errors
/// 401 without a token that is valid, 404 for another space than the token's, 403 for another device than the token's.
pub(crate) fn admit(grant: Option<Grant>, asked: Asked<'_>) -> Result<Admission, Refusal> {
    let Some(grant) = grant.filter(|grant| !grant.is_revoked) else {
        return Err(Refusal::new(
            ProblemCode::Unauthenticated,
            "a valid token is needed as `Authorization: Bearer TOKEN`; make one with `gbsync token create`",
        ));
    };
    if grant.space.as_str() != asked.space {
        return Err(Refusal::no_space());
    }
    let Grant { token_id, space, roles, actor, device, .. } = grant;
    tracing::debug!(token = %token_id, %space, ?roles, "admitted");
    let admission = Admission { space, actor, device, roles: roles.into_iter().collect() };
    if let Some(device) = asked.device {
        admission.check_device(device)?;
    }
    Ok(admission)
}

impl Admission {
    /// The same rule for a device that a body names.
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

    /// A token that is bound to an actor speaks for no other.
    pub(crate) fn check_actor(&self, actor: Option<&Actor>) -> Result<(), Refusal> {
        match (&self.actor, actor) {
            (Some(bound), Some(other)) if bound != other => Err(Refusal::new(
                ProblemCode::Forbidden,
                format!("the token speaks for {bound}, not for {other}; use that one's token"),
            )),
            _ => Ok(()),
        }
    }

    /// The person who acts: the token's, or the one that the request names.
    pub(crate) fn person(&self, named: Option<&Actor>) -> Result<Actor, Refusal> {
        self.check_actor(named)?;
        self.actor.clone().or_else(|| named.cloned()).ok_or_else(|| {
            let detail = "the token has no actor, so the request must say in `actor` who decides";
            Refusal::new(ProblemCode::Malformed, detail).pointing_at("/actor".into())
        })
    }

    /// What only the back office may see.
    pub(crate) fn check_admin(&self) -> Result<(), Refusal> {
        if self.roles.iter().any(|role| role.as_str() == ADMIN) {
            return Ok(());
        }
        let detail = format!("this token has not the role {ADMIN}; make one with `gbsync token create --role {ADMIN}`");
        Err(Refusal::new(ProblemCode::Forbidden, detail))
    }
}

impl Admission {
    /// A token that is bound to an actor sends that one's groups alone. Refused before anything is decided: with its own
    /// actor's token the group is welcome, so it must not be rejected for ever.
    pub(crate) fn check_actors(&self, request: &PushRequest) -> Result<(), Refusal> {
        let Some(bound) = &self.actor else { return Ok(()) };
        let named = |arrival: &Arrival| arrival.content.header()?.actor.clone().filter(|named| named != bound);
        let others = request.groups.iter().enumerate().find_map(|(index, arrival)| Some((index, named(arrival)?)));
        let Some((index, other)) = others else { return Ok(()) };
        let detail = format!("the token sends groups of {bound}, not of {other}; send them with that one's token");
        Err(Refusal::new(ProblemCode::Forbidden, detail).pointing_at(format!("/groups/{index}/actor")))
    }
}

/// The hash of the token that a request bears.
pub(crate) fn bearer_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret::hash(token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str) -> SpaceId {
        SpaceId::new(name).expect("a name")
    }

    fn grant() -> Grant {
        Grant {
            token_id: "t".into(),
            space: space("shop"),
            roles: vec![],
            actor: None,
            device: Some(DeviceId::new("till-1").expect("an id")),
            is_revoked: false,
        }
    }

    fn status(grant: Option<Grant>, space_name: &str, device: Option<&str>) -> u16 {
        let device = device.map(|device| DeviceId::new(device).expect("an id"));
        match admit(grant, Asked { space: space_name, device: device.as_ref() }) {
            Ok(_) => 200,
            Err(refusal) => refusal.problem.code.status(),
        }
    }

    #[test]
    fn a_token_opens_its_space_for_its_device_and_nothing_else() {
        assert_eq!(status(Some(grant()), "shop", None), 200);
        assert_eq!(status(Some(grant()), "shop", Some("till-1")), 200);
        assert_eq!(status(Some(grant()), "shop", Some("till-2")), 403);
        assert_eq!(status(Some(grant()), "other", Some("till-1")), 404);
        assert_eq!(status(None, "shop", None), 401);
        assert_eq!(status(Some(Grant { is_revoked: true, ..grant() }), "other", None), 401);
    }
}
