//! Sixteen devices push to a server on PostgreSQL, beside raw PostgreSQL inserting the same rows: over fifty spaces, and to one.
//!
//! PostgreSQL is the bench's own, with its settings as they come: every COMMIT is durable on both sides.

mod raw;

use super::Sizes;
use super::processor::Worked;
use super::pushes::{Batch, DEVICES, GROUPS, SPACES, batches};
use super::report::{Bar, Figure, median};
use super::rows::RECORDS;
use anyhow::Result;
use gbsync_cluster::{Cluster, ClusterError};
use gbsync_server::StoreLocation;
use std::time::Duration;

/// Measures pushing to PostgreSQL.
pub(super) async fn measure(sizes: &Sizes) -> Result<Vec<Figure>> {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(&[])).await??;
    let pushes = DEVICES * sizes.postgres_pushes;
    let (mut many, mut one) = (Course::default(), Course::default());
    let (mut raw, mut all_rows) = (Course::default(), Course::default());
    for _ in 0..sizes.rounds.min(3) {
        raw.add(&cluster, pushes, raw::insert(&cluster, batches(sizes, SPACES))).await?;
        all_rows.add(&cluster, pushes, raw::insert_all(&cluster, batches(sizes, SPACES))).await?;
        many.add(&cluster, pushes, push(&cluster, batches(sizes, SPACES))).await?;
        one.add(&cluster, pushes, push(&cluster, batches(sizes, 1))).await?;
    }
    let (raw_rate, many_rate) = (median(&mut raw.records_per_s), median(&mut many.records_per_s));
    let batch = format!("{DEVICES} devices, batches of {GROUPS} operations of {RECORDS} records");
    let of_all_rows = "the same records, log entries, verdicts and numbers into the server's tables, one commit a batch";
    let mut figures = vec![
        Figure::new("postgres", "records/s").ours(many_rate).raw(raw_rate).bar(Bar::RatioAtLeast(0.3)).note(format!(
            "{batch}, {SPACES} spaces; raw: the same rows, one INSERT and one commit a batch, {DEVICES} connections"
        )),
        Figure::new("postgres-all-rows", "records/s")
            .ours(many_rate)
            .raw(median(&mut all_rows.records_per_s))
            .note(format!("the same pushes; raw: {of_all_rows}, without a look at anything")),
        Figure::new("postgres-one-space", "records/s")
            .ours(median(&mut one.records_per_s))
            .raw(many_rate)
            .bar(Bar::RatioAtLeast(0.5))
            .note(format!("{batch}, all in one space; raw: over {SPACES} spaces")),
    ];
    if let (Some(ours), Some(of_raw), Some(of_all)) = (many.worked(), raw.worked(), all_rows.worked()) {
        let split = |worked: Worked| format!("{:.2} PostgreSQL's and {:.2} other", worked.database_ms, worked.here_ms);
        let figure = |name, raw: Worked, what: &str| {
            let note = format!("processors' time of a push: {}; raw: of {what}, {}", split(ours), split(raw));
            Figure::new(name, "ms/push").ours(ours.total_ms()).raw(raw.total_ms()).note(note)
        };
        figures.push(figure("postgres-processor", of_raw, "an INSERT and its commit"));
        figures.push(figure("postgres-processor-all-rows", of_all, of_all_rows));
    }
    Ok(figures)
}

/// Rounds of one kind.
#[derive(Default)]
struct Course {
    records_per_s: Vec<f64>,
    worked: Vec<Worked>,
}

impl Course {
    /// Measures one more round.
    async fn add(&mut self, cluster: &Cluster, pushes: u64, round: impl Future<Output = Result<Duration>>) -> Result<()> {
        let until_now = || cluster.postmaster().and_then(Worked::until_now);
        let before = until_now();
        let took = round.await?;
        self.records_per_s.push((pushes * GROUPS as u64 * RECORDS) as f64 / took.as_secs_f64());
        self.worked.extend(until_now().zip(before).map(|(after, before)| after.each(before, pushes as f64)));
        Ok(())
    }

    /// The middle of what processors worked for a push.
    fn worked(&self) -> Option<Worked> {
        let middle = |of: fn(&Worked) -> f64| median(&mut self.worked.iter().map(of).collect::<Vec<_>>());
        let worked = Worked { here_ms: middle(|worked| worked.here_ms), database_ms: middle(|worked| worked.database_ms) };
        (!self.worked.is_empty()).then_some(worked)
    }
}

/// Whether the reason is that there is no PostgreSQL on this machine.
pub(super) fn is_not_installed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClusterError::NotInstalled))
}

/// How long a new server takes for all batches.
async fn push(cluster: &Cluster, batches: Vec<Vec<Batch>>) -> Result<Duration> {
    Ok(super::pushes::push(StoreLocation::Postgres(cluster.store()), batches).await?.took)
}
