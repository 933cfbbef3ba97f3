//! The conformance suite on PostgreSQL: every test of routes, decisions and the log that runs on SQLite, word for word.

#![allow(clippy::unwrap_used, clippy::duplicate_mod)]

#[path = "../suite/access.rs"]
mod access;
#[path = "../suite/act_as.rs"]
mod act_as;
#[path = "../suite/bad_input.rs"]
mod bad_input;
#[path = "../suite/common/mod.rs"]
mod common;
#[path = "../suite/decide_vectors/mod.rs"]
mod decide_vectors;
#[path = "../suite/group_commit.rs"]
mod group_commit;
#[path = "../suite/healing.rs"]
mod healing;
#[path = "../suite/hostile_routes.rs"]
mod hostile_routes;
#[path = "../suite/invariants.rs"]
mod invariants;
#[path = "../suite/jwt/mod.rs"]
mod jwt;
#[path = "../suite/large.rs"]
mod large;
#[path = "../suite/limits.rs"]
mod limits;
#[path = "../suite/live.rs"]
mod live;
#[path = "../suite/log.rs"]
mod log;
#[path = "../suite/meetings.rs"]
mod meetings;
#[path = "../suite/quotas.rs"]
mod quotas;
#[path = "../suite/regressions.rs"]
mod regressions;
#[path = "../suite/rejections.rs"]
mod rejections;
#[path = "../suite/retention.rs"]
mod retention;
#[path = "../suite/rights.rs"]
mod rights;
#[path = "../suite/rules.rs"]
mod rules;
#[path = "../suite/schema.rs"]
mod schema;
#[path = "../suite/scoped_routes.rs"]
mod scoped_routes;
#[path = "../suite/scopes.rs"]
mod scopes;
#[path = "../suite/several_spaces.rs"]
mod several_spaces;
#[path = "../suite/snapshot.rs"]
mod snapshot;
#[path = "../suite/supposed.rs"]
mod supposed;
#[path = "../suite/verdicts.rs"]
mod verdicts;
#[path = "../suite/verdicts_by_rule.rs"]
mod verdicts_by_rule;
