//! `GET /v1/spaces/{space}/flags`: soft rules that accepted groups broke, for the back office.

use super::parameters::Parameters;
use super::{App, json};
use crate::auth::Admission;
use crate::error::Refusal;
use crate::store::{FlagId, FlagsRequest};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, Uri};
use gbsync_core::wire::flags_json;
use std::sync::Arc;

/// Flags in an answer: when nothing is said, and at most.
const FLAGS: (u64, u64) = (1_000, 10_000);

pub(super) async fn flags(
    State(app): State<Arc<App>>,
    Extension(admission): Extension<Admission>,
    uri: Uri,
) -> Result<Response<Body>, Refusal> {
    let parameters = Parameters::of(&uri)?;
    let request = FlagsRequest {
        space: admission.space,
        is_open_only: parameters.choice("state", &["open", "all"])? == "open",
        after: parameters.read("after", "the id of a flag, like 42.0", FlagId::parse)?,
        most: parameters.limit("max", FLAGS.0, FLAGS.1)?,
        scopes: admission.scopes,
    };
    let flags = app.read(move |store| store.flags(&request)).await?.ok_or_else(Refusal::no_space)?;
    let mut out = String::from("{\"flags\":[");
    for (index, info) in flags.iter().enumerate() {
        let cleared_by = info.cleared_by.map_or("null".to_owned(), |seq| seq.to_string());
        let flag = flags_json(std::slice::from_ref(&info.flag));
        // The flag as answers and the log have it, with its name and what became of it before.
        let members = flag.trim_start_matches("[{").trim_end_matches("}]");
        let comma = if index > 0 { "," } else { "" };
        out.push_str(&format!("{comma}{{\"flag\":\"{}\",\"clearedBy\":{cleared_by},{members}}}", info.id));
    }
    out.push_str("]}");
    Ok(json(out))
}
