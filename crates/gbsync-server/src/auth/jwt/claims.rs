//! What a signed token says of its bearer.

use super::config::ClaimNames;
use crate::auth::principal::Principal;
use gbsync_core::id::{Actor, DeviceId, InvalidId, Role, Scope, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{ActAs, Bearer};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The claims, as JSON.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A NumericDate in whole seconds; a fraction is dropped.
    pub(super) fn time(&self, name: &str) -> Option<i128> {
        let number = self.0.get(name)?.as_number()?.to_string();
        let (whole, _) = number.split_once('.').unwrap_or((&number, ""));
        whole.parse().ok()
    }

    /// Who bears the token, which is refused from `ends_ms` on, or what is wrong with what it says.
    pub(super) fn principal(&self, names: &ClaimNames, ends_ms: u64) -> Result<Principal, String> {
        let subject = self.text("sub").ok_or("the claim \"sub\" must be the name of the actor")?;
        let of_all = self.roles(&names.roles, self.0.get(&names.roles))?;
        let spaces = match self.0.get(&names.spaces) {
            Some(Value::Array(items)) => {
                let open = |item| Ok((id(&names.spaces, item, |text| SpaceId::new(text))?, of_all.clone()));
                items.iter().map(open).collect::<Result<_, String>>()?
            }
            Some(Value::Object(members)) => {
                let open = |(space, roles): (&String, &Value)| {
                    let space = SpaceId::new(space.as_str()).map_err(|error| wrong(&names.spaces, &error))?;
                    let roles = self.roles(&names.spaces, Some(roles))?;
                    Ok((space, roles.union(&of_all).cloned().collect()))
                };
                members.iter().map(open).collect::<Result<_, String>>()?
            }
            _ => return Err(format!("the claim {:?} must list the spaces that the token opens", names.spaces)),
        };
        let device = self.0.get(&names.device).filter(|value| !value.is_null());
        let expires_at = self.time("exp").and_then(|exp| u64::try_from(exp).ok()?.checked_mul(1_000));
        Ok(Principal {
            name: format!("jwt of {subject}"),
            spaces,
            bearer: Bearer {
                actor: Some(Actor::new(subject).map_err(|error| wrong("sub", &error))?),
                act_as: self.act_as(&names.act_as)?,
                expires_at: expires_at.map(Timestamp::from_unix_ms),
            },
            ends_ms: Some(ends_ms),
            device: device.map(|device| id(&names.device, device, |text| DeviceId::new(text))).transpose()?,
            scopes: self.scopes(&names.scopes)?,
        })
    }

    fn roles(&self, name: &str, value: Option<&Value>) -> Result<BTreeSet<Role>, String> {
        match value {
            None | Some(Value::Null) => Ok(BTreeSet::new()),
            Some(Value::Array(items)) => items.iter().map(|item| id(name, item, |text| Role::new(text))).collect(),
            Some(_) => Err(format!("the roles in the claim {name:?} must be a list")),
        }
    }

    fn scopes(&self, name: &str) -> Result<ScopeSet, String> {
        match self.0.get(name) {
            None => Ok(ScopeSet::All),
            Some(Value::String(word)) if word == "*" => Ok(ScopeSet::All),
            Some(Value::Array(items)) => {
                let scopes = items.iter().map(|item| id(name, item, |text| Scope::new(text)));
                scopes.collect::<Result<_, _>>().map(ScopeSet::These)
            }
            // Null too: whoever says something of scopes and names none must not be let in everywhere.
            Some(_) => Err(format!("the claim {name:?} must be \"*\" or a list of scopes")),
        }
    }

    fn act_as(&self, name: &str) -> Result<Option<ActAs>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(word)) if word == "*" => Ok(Some(ActAs::Anyone)),
            Some(Value::Array(items)) => {
                let actors = items.iter().map(|item| id(name, item, |text| Actor::new(text)));
                actors.collect::<Result<_, _>>().map(|actors| Some(ActAs::These(actors)))
            }
            Some(_) => Err(format!("the claim {name:?} must be \"*\" or a list of actors")),
        }
    }
}

fn id<T>(name: &str, value: &Value, new: impl Fn(&str) -> Result<T, InvalidId>) -> Result<T, String> {
    let text = value.as_str().ok_or_else(|| format!("the claim {name:?} must hold texts"))?;
    new(text).map_err(|error| wrong(name, &error))
}

fn wrong(name: &str, error: &InvalidId) -> String {
    format!("the claim {name:?} holds a name that {}", error.problem)
}
