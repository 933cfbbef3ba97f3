//! The verbs and what is common to them: arguments in, one exit code out.
//!
//! Invariant: exactly one place turns an error into a printed failure and an exit code, so that every verb fails alike. An
//! asynchronous runtime is made only for the verbs that talk over a network.

use crate::commands::{
    actor, apply, backup, bench, check, demo, digest, init, orphans, outbox, query, rejections, restore, retention, schema,
    serve, status, sync, token,
};
use crate::exit::{Exit, Failure};
use crate::log;
use crate::output::Output;
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::future::Future;

const OVERVIEW: &str = "\
Grouped Batch Sync: the changes of one business operation travel as one group, from a device's own database through the \
outbox, the network and the server's transaction into every other device's database. Whole, or not at all.";

const EXAMPLES: &str = "\
Examples:
  gbsync serve --data ./server                        # a server, nothing else to set up
  gbsync token create --data ./server --space shop    # prints a token, also while the server runs
  gbsync init till.db --server http://127.0.0.1:4680 --space shop --token TOKEN
  gbsync apply till.db operations.ndjson              # works offline
  gbsync sync till.db                                 # push, pull, exit
  gbsync query till.db 'SELECT entity, count(*) FROM gbsync_records GROUP BY entity'

Exit codes: 0 done, 1 failed, 2 usage, 3 parked groups with --fail-on-parked, 4 server not reached and everything \
kept.
Environment: GBSYNC_TOKEN (beats the token a file keeps), GBSYNC_LOG or RUST_LOG (what is logged), NO_COLOR.";

#[derive(Parser)]
#[command(name = "gbsync", version, about = OVERVIEW, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// Print data, and errors, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Token(token::Arguments),
    Actor(actor::Arguments),
    Init(init::Arguments),
    Apply(apply::Arguments),
    Sync(sync::Arguments),
    Query(query::Arguments),
    Status(status::Arguments),
    Orphans(orphans::Arguments),
    Outbox(outbox::Arguments),
    Rejections(rejections::Arguments),
    Retention(retention::Arguments),
    Digest(digest::Arguments),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    Check(check::Arguments),
    Schema(schema::Arguments),
    Demo(demo::Arguments),
    Bench(bench::Arguments),
}

/// Runs the verb that the arguments name and reports how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = Cli::command().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return explain(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    let output = Output::new(cli.json);
    // A server's file says how it logs, and both may tell a collector.
    if !matches!(cli.command, Command::Serve(_) | Command::Sync(_)) {
        log::start(log::FILTER, false, None);
    }
    let mut exit = dispatch(&cli.command, &output).unwrap_or_else(|error| {
        let failure = Failure::of(&error);
        output.failure(&failure);
        failure.exit
    });
    if let Some(failure) = output.finish() {
        output.failure(&failure);
        exit = Exit::Failed;
    }
    exit
}

fn dispatch(command: &Command, output: &Output) -> Result<Exit> {
    match command {
        Command::Serve(arguments) => many_threads(serve::run(arguments, output)),
        Command::Token(arguments) => token::run(arguments, output),
        Command::Actor(arguments) => actor::run(arguments, output),
        Command::Init(arguments) => init::run(arguments, output),
        Command::Apply(arguments) => apply::run(arguments, output),
        Command::Sync(arguments) => one_thread(sync::run(arguments, output)),
        Command::Query(arguments) => query::run(arguments, output),
        Command::Status(arguments) => status::run(arguments, output),
        Command::Orphans(arguments) => orphans::run(arguments, output),
        Command::Outbox(arguments) => outbox::run(arguments, output),
        Command::Rejections(arguments) => one_thread(rejections::run(arguments, output)),
        Command::Retention(arguments) => retention::run(arguments, output),
        Command::Digest(arguments) => digest::run(arguments, output),
        Command::Backup(arguments) => backup::run(arguments, output),
        Command::Restore(arguments) => restore::run(arguments, output),
        Command::Check(arguments) => check::run(arguments, output),
        Command::Schema(arguments) => schema::run(arguments, output),
        Command::Demo(arguments) => many_threads(demo::run(arguments, output)),
        Command::Bench(arguments) => many_threads(bench::run(arguments, output)),
    }
}

fn one_thread(verb: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("the asynchronous runtime could not start")?.block_on(verb)
}

fn many_threads(verb: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("the asynchronous runtime could not start")?.block_on(verb)
}

/// Prints help, the version, or what was not understood.
fn explain(error: &clap::Error, is_json: bool) -> Exit {
    let output = Output::new(is_json);
    if !error.use_stderr() {
        // Help and version are data that was asked for; clap knows whether to colour them.
        return if error.print().is_ok() { Exit::Done } else { Exit::Failed };
    }
    if is_json {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        output.failure(&Failure::new("usage", message).help("gbsync --help lists the verbs and their arguments"));
    } else if error.print().is_err() {
        return Exit::Usage;
    }
    Exit::Usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_every_verb_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("gbsync "), "{} has no example", verb.get_name());
                check(verb);
            }
        }
        check(&Cli::command());
    }
}
