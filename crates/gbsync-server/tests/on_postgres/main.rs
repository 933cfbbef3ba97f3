//! The conformance suite on PostgreSQL: every test of routes, decisions and the log that runs on SQLite, word for word.

#![allow(clippy::unwrap_used, clippy::duplicate_mod)]

#[path = "../access.rs"]
mod access;
#[path = "../act_as.rs"]
mod act_as;
#[path = "../bad_input.rs"]
mod bad_input;
#[path = "../decide_vectors/main.rs"]
mod decide_vectors;
#[path = "../group_commit.rs"]
mod group_commit;
#[path = "../healing.rs"]
mod healing;
#[path = "../hostile_routes.rs"]
mod hostile_routes;
#[path = "../invariants.rs"]
mod invariants;
#[path = "../large.rs"]
mod large;
#[path = "../limits.rs"]
mod limits;
#[path = "../live.rs"]
mod live;
#[path = "../log.rs"]
mod log;
#[path = "../meetings.rs"]
mod meetings;
#[path = "../regressions.rs"]
mod regressions;
#[path = "../rejections.rs"]
mod rejections;
#[path = "../retention.rs"]
mod retention;
#[path = "../rights.rs"]
mod rights;
#[path = "../rules.rs"]
mod rules;
#[path = "../schema.rs"]
mod schema;
#[path = "../scopes.rs"]
mod scopes;
#[path = "../snapshot.rs"]
mod snapshot;
#[path = "../verdicts.rs"]
mod verdicts;
#[path = "../verdicts_by_rule.rs"]
mod verdicts_by_rule;
