//! The only home of protocol messages (docs/protocol.md): texts in, valid values out, and back.
//!
//! Invariant: everything is read by the strict parser, unknown fields are ignored, unknown words are errors, and an error
//! points at the value at fault (RFC 6901).

mod bearer;
mod flags;
mod handshake;
mod live;
mod log;
mod made_on;
mod operations;
mod parts;
mod place;
mod problem;
mod push;
mod read;
mod rejections;
mod resolution;
mod results;
mod snapshot;
mod verdicts;

pub use bearer::{ActAs, Bearer};
pub(crate) use flags::unseen_flags_json;
pub use flags::{flags_json, parse_flags};
pub use handshake::{Ancestor, DeviceReport, Handshake};
pub use live::{EndReason, Frame, LiveEvent, LiveHead, LivePage, LiveReader, push_group_frame};
pub(crate) use log::leave_json;
pub use log::{
    EntryHeader, LogChange, LogEntry, LogGroup, LogPage, LogParts, LogState, changes_json, committed_at,
    entry_in_parts_json, entry_json, page_json, parse_log_part,
};
pub use made_on::{MadeOn, made_on_another};
pub use operations::OperationLine;
pub(crate) use parts::elements;
pub use parts::{
    Assembly, InParts, change_count, cut, group_in_parts_json, parse_changes, parse_part, parse_part_answer,
    part_answer_json, part_json,
};
pub use place::{LogPlace, offered_again};
pub use problem::{Problem, ProblemCode};
pub use push::{Arrival, Content, PushRequest, group_json, group_json_bytes, push_json, push_json_at};
pub use read::WireError;
pub use rejections::{Closed, RejectedGroup, rejection_json, rejections_json, resolved_json};
pub use resolution::{Remedy, Resolve, resolution_entry_json, resolution_json};
pub use results::{GroupResult, PushAnswer, answer_json, parse_answer, parse_result, result_json};
pub use snapshot::{SnapshotFlag, SnapshotHead, SnapshotLine, SnapshotRow, snapshot_end_json};
pub use verdicts::{DiscardRequest, SealedAs, discard_json, parse_discard, parse_verdicts_request, verdicts_request_json};

/// The version of the protocol that this code speaks.
pub const PROTOCOL: u64 = 1;
