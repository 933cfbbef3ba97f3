//! What processes on one database exclude each other by: advisory locks, each beside a number of where the tables are.
//!
//! Invariant: all keys stand here, where the compiler refuses one that stands twice. A key keeps its number for ever, because
//! processes of several versions run beside each other.

/// What is done by one process at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Bringing the tables to their format.
    Migrate = 0x6762_0001,
    /// Putting a schema in force.
    Adopt = 0x6762_0002,
    /// Taking entries out of logs.
    Retain = 0x6762_0003,
    /// Making the views for reports.
    Views = 0x6762_0004,
}

impl Lock {
    pub(super) fn key(self) -> i32 {
        self as i32
    }
}
