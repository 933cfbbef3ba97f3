//! `gbsync-sim`: crashes gbsync and looks at what is left.
//!
//! Without a verb it runs worlds of devices and a server in virtual time. `power` loses power at every write and sync of a scripted run and opens each image of the files.
//! `horizon` retains logs past cursors and loads snapshots.
//! `tpcc` judges devices and server by TPC-C's consistency conditions, `shops` who sees which part of a divided space,
//! `streams` devices that only listen.

mod action;
mod branch;
mod disk;
mod horizon;
mod invariant;
mod model;
mod mutants;
mod names;
mod power;
mod random;
mod refused;
mod run;
mod seeds;
mod shops;
mod streams;
mod tpcc;
mod world;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p gbsync-sim -- --seeds 1000
  cargo run --release -p gbsync-sim -- --seed 7 --profile storm --trace
  cargo run --release -p gbsync-sim --features mutants -- --mutants
  cargo run --release -p gbsync-sim --features mutants -- --mutant ack-before-commit
  cargo run --release -p gbsync-sim -- power
  cargo run --release -p gbsync-sim -- power --images 20000 --first-seed 1
  cargo run --release -p gbsync-sim -- power --seed 7 --image 1234     # one image again, kept for a look
  cargo run --release -p gbsync-sim -- horizon --seeds 100
  cargo run --release -p gbsync-sim -- tpcc --seeds 50
  cargo run --release -p gbsync-sim -- tpcc --seed 7 --devices 6 --operations 200";

/// Run worlds in which everything goes wrong, and hold every promise against a reference after every step
#[derive(Parser)]
#[command(name = "gbsync-sim", after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Arguments,
    #[command(flatten)]
    mutants: mutants::Arguments,
}

#[derive(Subcommand)]
enum Command {
    Power(power::Arguments),
    Horizon(horizon::Arguments),
    Tpcc(tpcc::Arguments),
    Shops(shops::Arguments),
    Streams(streams::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran: Result<bool> = match &cli.command {
        None if cli.mutants.is_asked() => mutants::run(&cli.mutants),
        None => run::run(&cli.run),
        Some(Command::Power(arguments)) => power::run(arguments),
        Some(Command::Horizon(arguments)) => horizon::run(arguments),
        Some(Command::Tpcc(arguments)) => tpcc::run(arguments),
        Some(Command::Shops(arguments)) => shops::run(arguments),
        Some(Command::Streams(arguments)) => streams::run(arguments),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
