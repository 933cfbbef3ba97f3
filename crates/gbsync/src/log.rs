//! Logs, on standard error: text for people, or JSON for machines; and spans, to a collector that is asked for.
//!
//! Invariant: no token and no payload is ever logged, whatever the filter says. Headers are not logged at all, and tokens travel
//! in no other place. Spans of [`TELEMETRY_TARGET`] are made for a collector alone.

use crate::output::is_stderr_coloured;
use crate::telemetry::Telemetry;
use gbsync_server::TELEMETRY_TARGET;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use std::fmt::Result;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What is logged when nothing else is said: warnings, and how far an upgrade of records is.
pub const FILTER: &str = "warn,gbsync_server::rules=info";

/// Who logs below `info` what it carries for others: the driver of PostgreSQL says the values of every statement. Of hyper, h2,
/// reqwest and rustls no header and no body is told at any level, as gbsync uses them.
const CARRIERS: &[&str] = &["tokio_postgres"];

/// Whether something may be logged at all.
fn is_for_logs(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of = |name: &&str| target.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    target != TELEMETRY_TARGET && (*metadata.level() <= Level::INFO || !CARRIERS.iter().any(is_of))
}

/// Begins to log, and to tell a collector where there is one. `GBSYNC_LOG` or `RUST_LOG` say what is logged, before `filter`.
pub fn start(filter: &str, is_json: bool, telemetry: Option<&Telemetry>) {
    let said =
        ["GBSYNC_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let filter = EnvFilter::new(said.as_deref().unwrap_or(filter)).and(filter_fn(is_for_logs));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match is_json {
        true => log.json().flatten_event(true).map_event_format(Followed).with_filter(filter).boxed(),
        false => log.with_ansi(is_stderr_coloured()).with_filter(filter).boxed(),
    };
    let spans = telemetry.map(|telemetry| {
        let layer = tracing_opentelemetry::layer().with_tracer(telemetry.tracer());
        let layer = layer.with_location(false).with_threads(false).with_target(false).with_tracked_inactivity(false);
        layer.with_filter(Targets::new().with_target(TELEMETRY_TARGET, Level::INFO))
    });
    tracing_subscriber::registry().with(log).with(spans).init();
}

/// Lines of JSON that name the span they were written in, as `trace_id` and `span_id`.
struct Followed<F>(F);

impl<S, N, F> FormatEvent<S, N> for Followed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> Result {
        let around = Context::current();
        let span = around.span().span_context().clone();
        if !span.is_valid() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_suffix("}\n") {
            Some(line) => {
                writeln!(writer, "{line},\"trace_id\":\"{}\",\"span_id\":\"{}\"}}", span.trace_id(), span.span_id())
            }
            None => writer.write_str(&line),
        }
    }
}
