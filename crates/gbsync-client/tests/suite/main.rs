//! The client's tests, as one program: a program a file would be linked two dozen times.

#![allow(clippy::unwrap_used)]

mod cascades;
mod clock;
mod common;
mod convergence;
mod damaged;
mod exchange;
mod flags;
mod histories;
mod large;
mod live;
mod meetings;
mod meetings_parked;
mod operations;
mod parked;
mod regressions;
mod resolutions;
mod rules;
mod scopes;
mod sequences;
mod shadows;
mod sign_in;
mod snapshots;
mod sql_bad_input;
mod sql_capture;
mod tables;
mod versions;
