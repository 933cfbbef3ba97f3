//! What anybody may send to gbsync, or leave in its files, and what must come of it: a refusal that says where and why, or
//! an effect that keeps the promises, and never a panic.
//!
//! Each target is a plain function of bytes that panics when something is wrong. `fuzz/` runs them under libFuzzer, the
//! tests here replay what it found and make inputs of it on their own.

mod canonical_form;
mod gzip_body;
mod live_frames;
mod log_page;
mod mutate;
mod operations_file;
mod outbox_rows;
mod push_body;
mod reference;
mod schema_file;
mod snapshot_file;
mod stand;
mod token;

pub use canonical_form::canonical_form;
pub use gzip_body::gzip_body;
pub use live_frames::live_frames;
pub use log_page::log_page;
pub use mutate::Mutator;
pub use operations_file::operations_file;
pub use outbox_rows::outbox_rows;
pub use push_body::push_body;
pub use schema_file::schema_file;
pub use snapshot_file::snapshot_file;
pub use token::token;

/// A function that looks at one input.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("canonical_form", canonical_form),
    ("push_body", push_body),
    ("log_page", log_page),
    ("live_frames", live_frames),
    ("token", token),
    ("gzip_body", gzip_body),
    ("schema_file", schema_file),
    ("operations_file", operations_file),
    ("outbox_rows", outbox_rows),
    ("snapshot_file", snapshot_file),
];
