//! Real processes under chaos: `gbsync serve`, devices with `gbsync sync --watch`, writers beside them, and between each device and
//! the server a proxy that spoils messages. Anybody is killed, stopped or cut off at any moment.
//!
//! While it goes on, plain SQL looks into every file: no operation is anywhere in part (P1, P2), and what a writer was told is
//! saved stays there (P4). When all is healed, every device comes to rest by itself (P10); then each acknowledged operation is
//! in the log exactly once or parked with a reason (P3, P7, P11), in the order of dependencies (P5), and all digests are equal
//! (P6). There are three worlds side by side: without and with a schema on SQLite, and with it on a PostgreSQL that is killed as well.
//!
//! `GBSYNC_CHAOS_CYCLES` kills (20) and `GBSYNC_CHAOS_PARTITIONS` partitions (a quarter of it) are shared by the worlds on SQLite;
//! that on PostgreSQL, where each takes longer, goes through a quarter as many, at least ten and three.
//! `GBSYNC_CHAOS_SEED` draws others. The seed fixes what is drawn, and the machine when it happens. The folder of a world that
//! failed is kept, with all files and logs; with `GBSYNC_CHAOS_KEEP` every folder is. A program of its own, because its
//! writers are the same program, and because what it did must be printed whether it failed or not.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod books;
mod database;
mod deeds;
mod device;
mod fate;
mod guard;
mod hands;
mod http;
mod ledger;
mod link;
mod process;
mod rest;
mod server;
mod storm;
mod verdict;
mod world;
mod writer;

#[path = "../suite/shop/mod.rs"]
mod shop;

use std::process::ExitCode;
use std::time::Instant;
use world::Plan;

/// What is drawn when nobody says otherwise.
const SEED: u64 = 20_260_603;
/// Kills in an ordinary test run.
const CYCLES: u64 = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("guard") => guard::run(),
        Some("writer") => writer::child::run(&arguments[1..]),
        _ => return run(&arguments),
    }
    ExitCode::SUCCESS
}

/// Runs the worlds whose names hold one of the filters that `cargo test` passed on.
fn run(arguments: &[String]) -> ExitCode {
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |plan: &Plan| filters.is_empty() || filters.iter().any(|filter| plan.name().contains(*filter));
    let plans: Vec<Plan> = plans().into_iter().filter(is_wanted).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        plans.iter().for_each(|plan| println!("{}: test", plan.name()));
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    for plan in &plans {
        println!("{plan}");
    }
    let running: Vec<_> = plans.into_iter().map(|plan| std::thread::spawn(move || world::run(plan))).collect();
    let mut failed = 0;
    for world in running {
        match world.join() {
            Ok(report) => println!("{report}"),
            // What it panicked of is on standard error by now.
            Err(_) => failed += 1,
        }
    }
    println!("chaos: {failed} failed, {:.1} s", begun.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn plans() -> Vec<Plan> {
    let seed = setting("GBSYNC_CHAOS_SEED").unwrap_or(SEED);
    let cycles = setting("GBSYNC_CHAOS_CYCLES").unwrap_or(CYCLES);
    let partitions = setting("GBSYNC_CHAOS_PARTITIONS").unwrap_or(cycles.div_ceil(4));
    let half = |whole: u64, has_schema| if has_schema { whole.div_ceil(2) } else { whole / 2 };
    let plan = |has_schema| {
        let (cycles, partitions) = (half(cycles, has_schema), half(partitions, has_schema));
        Plan { has_schema, is_on_postgresql: false, seed, cycles, partitions }
    };
    let (cycles, partitions) = ((cycles / 4).max(cycles.min(10)), (partitions / 4).max(partitions.min(3)));
    vec![plan(false), plan(true), Plan { has_schema: true, is_on_postgresql: true, seed, cycles, partitions }]
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
