//! Core's tests, as one program: a program a file would be linked two dozen times.

#![allow(clippy::unwrap_used)]

mod decide_bounds;
mod decide_horizon;
mod decide_rules;
mod live;
mod properties;
mod schema_diff;
mod schema_infer;
mod schema_properties;
mod space;
mod vectors;
mod vectors_arrivals;
mod vectors_canonical;
mod vectors_decide;
mod vectors_decide_rules;
mod vectors_digest;
mod vectors_lay;
mod vectors_parts;
mod vectors_plan;
mod vectors_retry;
mod vectors_schema;
mod vectors_snapshot;
mod vectors_wire;
mod vectors_wire_resolutions;
mod vectors_wire_restored;
