//! A process of this test: its standard error is in a file, and it never outlives the test.

use crate::{guard, shop};
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running process.
pub struct Process {
    child: Child,
    /// Stopped by a signal, and not yet going on.
    is_stopped: bool,
    is_guarded: bool,
}

impl Process {
    /// Starts it; what it says on standard error is added to `logs/NAME.log`.
    pub fn start(mut command: Command, logs: &Path, name: &str) -> Self {
        let log = OpenOptions::new().create(true).append(true).open(logs.join(format!("{name}.log"))).unwrap();
        command.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let child = command.spawn().unwrap();
        guard::watch(&child);
        Self { child, is_stopped: false, is_guarded: true }
    }

    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        if status.is_some() && std::mem::take(&mut self.is_guarded) {
            guard::forget(&self.child);
        }
        status
    }

    /// `kill -9`; whether it was that which ended it.
    pub fn kill(&mut self) -> bool {
        if self.ended().is_some() {
            return false;
        }
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        self.ended();
        status.signal() == Some(9)
    }

    /// `SIGSTOP`.
    pub fn stop(&mut self) {
        if self.ended().is_none() {
            shop::signal(&self.child, "STOP");
            self.is_stopped = true;
        }
    }

    /// `SIGCONT`.
    pub fn go_on(&mut self) {
        if self.ended().is_none() && std::mem::take(&mut self.is_stopped) {
            shop::signal(&self.child, "CONT");
        }
    }

    /// Asks it to end; its code, or `None` when it did not within a while.
    pub fn terminate(&mut self, within: Duration) -> Option<i32> {
        shop::signal(&self.child, "TERM");
        let begun = Instant::now();
        while begun.elapsed() < within {
            if let Some(status) = self.ended() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_guarded {
            self.kill();
        }
    }
}
