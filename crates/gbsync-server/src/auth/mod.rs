//! Who may do what. One function decides access for every route; tokens are made, listed and revoked here.
//!
//! Invariant: a token opens one space and tells nothing of any other: to it they do not exist.

mod access;
mod admin;
mod secret;

pub(crate) use access::{Admission, Asked, admit, bearer_hash};
pub use admin::{CreatedToken, NewToken, TokenInfo, Tokens};
