//! A process that outlives this one by a moment, to end what this one started: also when it is killed itself.
//!
//! It reads ids from its standard input, which ends with the writer's life, and kills those it was not told to forget.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

static GUARD: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// Lets a process die with this one.
pub fn watch(child: &Child) {
    tell(&format!("+{}\n", child.id()));
}

/// Takes that back: the process has ended.
pub fn forget(child: &Child) {
    tell(&format!("-{}\n", child.id()));
}

fn tell(line: &str) {
    let guard = GUARD.get_or_init(|| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // In a group of its own: Ctrl-C must not end it first.
        command.arg("guard").process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Mutex::new(command.spawn().unwrap().stdin.take().unwrap())
    });
    guard.lock().unwrap().write_all(line.as_bytes()).unwrap();
}

/// The process itself.
pub fn run() {
    let mut watched = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at(1) {
            ("+", id) => watched.insert(id.to_owned()),
            (_, id) => watched.remove(id),
        };
    }
    for id in watched {
        let _ = Command::new("kill").args(["-KILL", &id]).status();
    }
}
