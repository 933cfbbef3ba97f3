//! Logs, on standard error: text for people, or JSON for machines.
//!
//! Invariant: no token is ever logged. Headers are not logged at all, and tokens travel in no other place.

use crate::output::is_stderr_coloured;
use tracing_subscriber::EnvFilter;

/// What is logged when nothing else is said: warnings, and how far an upgrade of records is.
pub const FILTER: &str = "warn,gbsync_server::rules=info";

/// Begins to log. `GBSYNC_LOG` or `RUST_LOG` say what, before `filter`.
pub fn start(filter: &str, is_json: bool) {
    let said =
        ["GBSYNC_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let filter = EnvFilter::new(said.as_deref().unwrap_or(filter));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if is_json {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(is_stderr_coloured()).init();
    }
}
