//! Tests of the command line, as one program: real processes, real files, real HTTP.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod bench;
mod chaos_nodes;
mod chinook;
mod chinook_rules;
mod demo;
mod init_schema;
mod interface;
mod jwt;
mod kill;
mod large;
mod must_show;
mod offline;
mod online;
mod parked;
mod restore;
mod retention;
mod rights;
mod rolling;
mod running;
mod schema;
mod scopes;
mod serve_config;
mod serve_schema;
mod shop;
mod telemetry;
