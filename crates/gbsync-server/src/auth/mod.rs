//! Who may do what: who bears a token, and one function that decides for every route. Tokens, and the roles of actors, are
//! administered here.
//!
//! Invariant: a token opens its spaces and tells nothing of any other: to it they do not exist.

mod access;
mod actors;
mod admin;
mod jwt;
mod principal;
mod secret;

pub(crate) use access::{Action, Admission, Rights, authorize};
pub use actors::{ActorInfo, Actors};
pub use admin::{CreatedToken, NewToken, TokenInfo, Tokens};
pub(crate) use jwt::JwtGate;
pub use jwt::{AuthConfig, ClaimNames, JwtConfig, KeySource};
pub(crate) use principal::{Presented, of_grant};
