//! Tokens as an administrator sees them. Works beside a running server: on a connection of its own.

use super::secret;
use crate::config::Environment;
use crate::error::ServerError;
use crate::store::{Made, StoreLocation, TokenTable};
use gbsync_core::id::{Actor, DeviceId, LogId, Role, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::ActAs;

/// What a new token is to open.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The space; made if it is new.
    pub space: SpaceId,
    /// What its bearer may do.
    pub roles: Vec<Role>,
    /// The person or service whose token it is.
    pub actor: Option<Actor>,
    /// The only device it may speak for.
    pub device: Option<DeviceId>,
    /// Whose groups it may send beside its own; their roles decide about them.
    pub act_as: Option<ActAs>,
    /// Which part of the space it opens.
    pub scopes: ScopeSet,
    /// How long it is valid, in milliseconds; for ever when absent.
    pub lifetime_ms: Option<u64>,
}

impl NewToken {
    /// A token that opens a space, bound to nobody and without a role.
    pub fn new(space: SpaceId) -> Self {
        Self { space, roles: Vec::new(), actor: None, device: None, act_as: None, scopes: ScopeSet::All, lifetime_ms: None }
    }
}

/// A token just made. This is the only time that it can be seen.
#[derive(Debug, Clone)]
pub struct CreatedToken {
    /// What it is called in lists.
    pub id: String,
    /// The secret.
    pub token: String,
}

/// A token in a list.
#[derive(Debug, Clone)]
pub struct TokenInfo {
    /// What it is called.
    pub id: String,
    /// The space it opens.
    pub space: SpaceId,
    /// What its bearer may do.
    pub roles: Vec<Role>,
    /// The person or service whose token it is.
    pub actor: Option<Actor>,
    /// The only device it may speak for.
    pub device: Option<DeviceId>,
    /// Whose groups it may send beside its own.
    pub act_as: Option<ActAs>,
    /// Which part of the space it opens.
    pub scopes: ScopeSet,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// The tokens of a store.
pub struct Tokens {
    table: Box<dyn TokenTable>,
    environment: Environment,
}

impl Tokens {
    /// Opens a store, and makes it if it is not there. Servers may run on it.
    ///
    /// # Errors
    /// [`ServerError::DataFolder`] when its folder cannot be made, [`ServerError::Store`] when it is no store or a newer one.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// use gbsync_server::{NewToken, Tokens};
    /// let tokens = Tokens::open(folder.path()).unwrap();
    /// let space = gbsync_core::id::SpaceId::new("shop").unwrap();
    /// let made = tokens.create(NewToken::new(space)).unwrap();
    /// assert!(made.token.starts_with("gbt_"));
    /// assert!(tokens.revoke(&made.id).unwrap());
    /// ```
    pub fn open(store: impl Into<StoreLocation>) -> Result<Self, ServerError> {
        Self::open_in(store, Environment::system())
    }

    /// The same under another clock, which must be the server's, and with another source of randomness: for simulators.
    ///
    /// # Errors
    /// As [`Tokens::open`].
    pub fn open_in(store: impl Into<StoreLocation>, environment: Environment) -> Result<Self, ServerError> {
        Ok(Self { table: store.into().tokens()?, environment })
    }

    /// Makes a token, and its space if it is new. A running server takes both from the next request on. The roles of an actor
    /// whose roles nobody said yet are those of the token.
    ///
    /// # Errors
    /// [`ServerError::Store`] when it cannot be stored.
    pub fn create(&self, new: NewToken) -> Result<CreatedToken, ServerError> {
        let created = CreatedToken { id: secret::mint_id(&self.environment), token: secret::mint(&self.environment) };
        let uuid = uuid::Builder::from_unix_timestamp_millis(self.environment.now_ms(), &self.environment.random::<10>())
            .into_uuid();
        let log = LogId::new(uuid.to_string()).expect("a UUID is an id");
        let made = Made {
            token_id: &created.id,
            hash: secret::hash(&created.token),
            log: &log,
            now: self.environment.now(),
            expires_at: new.lifetime_ms.map(|ms| Timestamp::from_unix_ms(self.environment.now_ms().saturating_add(ms))),
        };
        self.table.add(&new, &made)?;
        Ok(created)
    }

    /// Every token, in the order made, revoked ones too.
    ///
    /// # Errors
    /// [`ServerError::Store`] when the store cannot be read.
    pub fn list(&self) -> Result<Vec<TokenInfo>, ServerError> {
        Ok(self.table.list()?)
    }

    /// Revokes a token by its id or a prefix that is its alone; `false` when there is none. A running server refuses it
    /// from the next request on.
    ///
    /// # Errors
    /// [`ServerError::AmbiguousToken`] when several begin so; [`ServerError::Store`] when it cannot be stored.
    pub fn revoke(&self, id: &str) -> Result<bool, ServerError> {
        if id.is_empty() {
            return Ok(false);
        }
        let mut found = self.table.with_prefix(id)?;
        if let Some(exact) = found.iter().position(|token| token.id == id) {
            found = vec![found.swap_remove(exact)];
        }
        match found.as_slice() {
            [] => Ok(false),
            [token] => {
                self.table.revoke(&token.id, &self.environment.now())?;
                Ok(true)
            }
            several => Err(ServerError::AmbiguousToken { prefix: id.into(), count: several.len() }),
        }
    }

    /// Refuses a token that another party signed from the next request on, by its claim `jti`.
    ///
    /// # Errors
    /// [`ServerError::Store`] when it cannot be stored.
    pub fn revoke_jwt(&self, jti: &str) -> Result<(), ServerError> {
        Ok(self.table.revoke_jwt(jti, &self.environment.now())?)
    }
}
