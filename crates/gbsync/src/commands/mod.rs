//! One file a verb: its arguments, its example, and what it prints.

pub mod actor;
pub mod apply;
pub mod backup;
pub mod bench;
pub mod check;
pub mod demo;
pub mod digest;
pub mod init;
pub mod orphans;
pub mod outbox;
pub mod query;
pub mod rejections;
pub mod restore;
pub mod retention;
pub mod schema;
pub mod serve;
pub mod status;
pub mod store;
pub mod sync;
pub mod token;
