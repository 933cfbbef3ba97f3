//! `gbsync-sim`: crashes gbsync and looks at what is left.
//!
//! `power` loses power at every write and sync of a scripted run and opens each image of the files.

mod disk;
mod power;
mod random;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  cargo run --release -p gbsync-sim -- power
  cargo run --release -p gbsync-sim -- power --images 20000 --first-seed 1
  cargo run --release -p gbsync-sim -- power --seed 7 --image 1234     # one image again, kept for a look";

/// Crash gbsync and look at what is left
#[derive(Parser)]
#[command(name = "gbsync-sim", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Power(power::Arguments),
}

fn main() -> ExitCode {
    let ran: Result<bool> = match &Cli::parse().command {
        Command::Power(arguments) => power::run(arguments),
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
