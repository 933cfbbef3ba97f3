//! The roles of people, as an administrator sees them: what decides about groups that a device sends in their names.

use crate::config::Environment;
use crate::error::ServerError;
use crate::store::{StoreLocation, TokenTable};
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_core::time::Timestamp;
use std::collections::BTreeSet;

/// Somebody in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorInfo {
    /// In which space.
    pub space: SpaceId,
    /// Who.
    pub actor: Actor,
    /// What this one may do.
    pub roles: BTreeSet<Role>,
    /// When that was said.
    pub since: Timestamp,
}

/// The actors whose roles a store knows. A token that may act as somebody sends that one's groups; their roles decide.
pub struct Actors {
    table: Box<dyn TokenTable>,
    environment: Environment,
}

impl Actors {
    /// Opens a store. Servers may run on it.
    ///
    /// # Errors
    /// [`ServerError::Store`] when it is no store or a newer one.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// use gbsync_core::id::{Actor, Role, SpaceId};
    /// use gbsync_server::{Actors, NewToken, Tokens};
    /// let space = SpaceId::new("shop").unwrap();
    /// Tokens::open(folder.path()).unwrap().create(NewToken::new(space.clone())).unwrap();
    /// let actors = Actors::open(folder.path()).unwrap();
    /// let manager = Actor::new("manager-1").unwrap();
    /// actors.set(&space, &manager, &[Role::new("manager").unwrap()].into()).unwrap();
    /// assert_eq!(actors.list().unwrap()[0].actor, manager);
    /// assert!(actors.remove(&space, &manager).unwrap());
    /// ```
    pub fn open(store: impl Into<StoreLocation>) -> Result<Self, ServerError> {
        Ok(Self { table: store.into().tokens()?, environment: Environment::system() })
    }

    /// Says which roles somebody has from now on, instead of those said before.
    ///
    /// # Errors
    /// [`ServerError::NoSpace`] when there is no such space; [`ServerError::Store`] when it cannot be stored.
    pub fn set(&self, space: &SpaceId, actor: &Actor, roles: &BTreeSet<Role>) -> Result<(), ServerError> {
        match self.table.set_actor(space, actor, roles, &self.environment.now())? {
            true => Ok(()),
            false => Err(ServerError::NoSpace { space: space.as_str().into() }),
        }
    }

    /// Everybody, by space and name.
    ///
    /// # Errors
    /// [`ServerError::Store`] when the store cannot be read.
    pub fn list(&self) -> Result<Vec<ActorInfo>, ServerError> {
        Ok(self.table.actors()?)
    }

    /// Forgets somebody's roles; `false` when they were not known. Groups that a device sends in this name wait from now on.
    ///
    /// # Errors
    /// [`ServerError::Store`] when it cannot be stored.
    pub fn remove(&self, space: &SpaceId, actor: &Actor) -> Result<bool, ServerError> {
        Ok(self.table.remove_actor(space, actor)?)
    }
}
