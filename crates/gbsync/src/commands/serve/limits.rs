//! The bounds that a server sets, as flags. What is not given keeps its default of docs/protocol.md, "Limits".

use super::settings::{Settings, Value};

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
    /// Puts what was given over what a file says.
    pub fn set(&self, settings: &mut Settings) {
        let given = [
            ("limits.request_bytes", self.request_bytes),
            ("limits.group_records", self.group_records),
            ("limits.group_bytes", self.group_bytes),
            ("limits.payload_bytes", self.payload_bytes),
            ("limits.batch_records", self.batch_records),
            ("limits.batch_bytes", self.batch_bytes),
        ];
        for (key, number) in given {
            settings.set(key, number.map(Value::Number));
        }
    }
}
