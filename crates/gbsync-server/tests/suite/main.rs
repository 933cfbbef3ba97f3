//! The server's tests on a folder, as one program. `on_postgres` holds PostgreSQL to most of them, word for word.

#![allow(clippy::unwrap_used)]

mod access;
mod act_as;
mod backup;
mod bad_input;
mod common;
mod decide_vectors;
mod draining;
mod encrypted;
mod formats;
mod group_commit;
mod healing;
mod hostile_routes;
mod invariants;
mod jwt;
mod large;
mod lifecycle;
mod limits;
mod live;
mod log;
mod meetings;
mod quotas;
mod regressions;
mod rejections;
mod retention;
mod rights;
mod rules;
mod schema;
mod scoped_routes;
mod scopes;
mod several_spaces;
mod snapshot;
mod supposed;
mod verdicts;
mod verdicts_by_rule;
