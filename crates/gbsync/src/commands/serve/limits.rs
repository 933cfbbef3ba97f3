//! The bounds that a server sets, as flags. What is not given keeps its default of docs/protocol.md, "Limits".

use crate::exit::Failure;
use gbsync_core::limits::Limits;

/// Room that one change needs in a request beside its payload: its names, ids and bases.
const CHANGE_BYTES: u64 = 4 * 1024;

/// The bounds that a server sets and reports to devices.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits, reported to devices")]
pub struct LimitArguments {
    /// Bytes of one request; a larger group travels in parts [default: 1048576]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    request_bytes: Option<u64>,
    /// Changes in one group; more are refused when they are written [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    group_records: Option<u64>,
    /// Bytes of one group's changes [default: 67108864]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    group_bytes: Option<u64>,
    /// Bytes of one payload [default: 262144, or what a request has room for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    payload_bytes: Option<u64>,
    /// Changes after which a device closes a batch [default: 40]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_records: Option<u64>,
    /// Bytes after which a device closes a batch [default: 524288]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_bytes: Option<u64>,
}

impl LimitArguments {
    /// The limits.
    ///
    /// # Errors
    /// A failure when a payload that is allowed would fit no request: then it could be written and never sent.
    pub fn limits(&self) -> Result<Limits, Failure> {
        let default = Limits::default();
        let request_bytes = self.request_bytes.unwrap_or(default.request_bytes);
        let room = request_bytes.saturating_sub(CHANGE_BYTES);
        let payload_bytes = self.payload_bytes.unwrap_or(default.payload_bytes.min(room));
        if payload_bytes > room || payload_bytes == 0 {
            let message = format!("a payload of {payload_bytes} bytes has no room in a request of {request_bytes}");
            let help = format!("--request-bytes must be at least {CHANGE_BYTES} more than --payload-bytes");
            return Err(Failure::new("limits", message).help(help));
        }
        Ok(Limits {
            batch_records: self.batch_records.unwrap_or(default.batch_records),
            batch_bytes: self.batch_bytes.unwrap_or(default.batch_bytes),
            request_bytes,
            group_records: self.group_records.unwrap_or(default.group_records),
            group_bytes: self.group_bytes.unwrap_or(default.group_bytes),
            payload_bytes,
        })
    }
}
