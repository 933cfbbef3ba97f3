//! `gbsync`, the command line: every verb of the product over the client and server crates.
//!
//! A verb reads its arguments, asks a library and prints; it decides nothing that core decides. Everything printed goes
//! through [`output`], every failure through [`exit`].

mod cli;
mod commands;
mod config;
mod exit;
mod log;
mod output;
mod telemetry;
mod trace;

/// Requests and rows are many small allocations: this allocator takes a tenth off the time of a push. Without huge pages, of which
/// every listener would hold twice as much as it touches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// Cargo's features add up over a build; a program that people use must not be one with planted bugs.
const _: () = assert!(!gbsync_core::mutant::CAN_BE_PLANTED, "gbsync cannot be built with the feature `mutants`");

fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os()).into()
}
