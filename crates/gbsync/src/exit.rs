//! How a run ends: the exit code, and the failure that a person reads.
//!
//! Invariant: every failure has a stable code, one sentence and, where there is one, a next step. Libraries say what went
//! wrong, this module gives it the form; `anyhow` carries it through the verbs, so that no verb maps errors of others.

use std::fmt;
use std::process::ExitCode;

/// How a run ended. The numbers are part of the interface and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed; standard error says why.
    Failed,
    /// 2: the command was not understood.
    Usage,
    /// 3: done, but groups are parked and `--fail-on-parked` was given.
    Parked,
    /// 4: the server was not reached; everything is kept.
    NotReached,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Parked => 3,
            Exit::NotReached => 4,
        })
    }
}

/// Why a run failed, in the form that is printed: `error[code]: sentence`, indented lines, and a next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable word, e.g. `conflict`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// More, a line each.
    pub details: Vec<String>,
    /// What to do next.
    pub help: Option<String>,
    /// The exit code that goes with it.
    pub exit: Exit,
}

impl Failure {
    /// A failure with exit code 1.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), details: Vec::new(), help: None, exit: Exit::Failed }
    }

    /// Adds a line below the sentence.
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn help(mut self, sentence: impl Into<String>) -> Self {
        self.help = Some(sentence.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The failure in an error: itself, or one with the code `failed` that says the whole chain of causes.
    pub fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Self>() {
            Some(failure) => failure.clone(),
            None => Self::new("failed", format!("{error:#}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
