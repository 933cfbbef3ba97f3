//! The measurement: one workload, one broken link, two kinds of queue, the same questions put to both.
//!
//! Invariant: everything that is printed was counted here; the run of one queue differs from that of the other in nothing but
//! the queue.

use super::check::{Auditor, Findings, Observer, Tally, Timer};
use super::proxy::Proxy;
use super::random::Random;
use super::station::Station;
use super::workload::{self, Rows};
use super::{grouped, naive};
use anyhow::{Context, Result, bail};
use gbsync_core::change::Payload;
use gbsync_core::id::RecordKey;
use gbsync_core::limits::Limits;
use gbsync_core::wire::OperationLine;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// The rows of the server.
const SERVER_ROWS: &str = "(SELECT entity, id, payload FROM records WHERE payload IS NOT NULL)";
/// The device reaches the server after so many of a hundred bursts of work; in between it is offline.
const ONLINE_PERCENT: u64 = 70;
/// Most operations in a burst.
const BURST: u64 = 6;
/// How long both devices rest between two looks at the network.
const REST: Duration = Duration::from_millis(2);
/// When a queue that does not drain is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device that writes and pushes.
pub(super) trait Sender {
    /// Saves one operation, offline.
    fn save(&mut self, operation: &OperationLine) -> Result<()>;
    /// Tries once to send everything. `false`: the connection broke, or something is left.
    async fn send(&mut self) -> Result<bool>;
}

/// The device that pulls and is looked at.
pub(super) trait Receiver {
    /// Pulls what there is, and has it looked at after every change. `false`: the connection broke or there is more.
    async fn receive(&mut self, observer: &Observer) -> Result<bool>;
}

/// Which queue is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One item a record.
    Naive,
    /// `gbsync`.
    Grouped,
}

/// What is measured.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measurement {
    /// `naive` or `gbsync`.
    pub(super) queue: &'static str,
    /// Operations that the sender saved.
    pub(super) operations: u64,
    /// Requests that both devices began.
    pub(super) requests: u64,
    /// Requests that were cut.
    pub(super) cuts: u64,
    /// How often the receiver's database was looked at.
    pub(super) observations: u64,
    /// How often it showed a payment or entry without its receipt, or a receipt without all of its payments and its entry.
    pub(super) observations_with_an_orphan: u64,
    /// Of these: a payment or entry without its receipt.
    pub(super) payments_or_entries_without_receipt: u64,
    /// Of these: a receipt without all of its payments and its entry.
    pub(super) receipts_that_do_not_add_up: u64,
    /// How often stock and sales did not add up; counted apart.
    pub(super) observations_with_wrong_stock: u64,
    /// Cuts at which the server held an operation in part.
    pub(super) cuts_with_an_incomplete_operation: u64,
    /// Operations incomplete on the server, added up over all cuts.
    pub(super) incomplete_at_cuts: u64,
    /// The most operations incomplete on the server at one cut.
    pub(super) most_incomplete_at_a_cut: u64,
    /// Operations incomplete on the server when everything was sent.
    pub(super) incomplete_at_the_end: u64,
    /// Whether both devices and the server ended with the rows that the operations make.
    pub(super) complete_at_the_end: bool,
    /// How long it took.
    pub(super) milliseconds: u64,
}

impl Measurement {
    /// Whether an operation was seen in part anywhere, or did not arrive.
    pub(super) fn is_torn(&self) -> bool {
        self.observations_with_an_orphan > 0
            || self.observations_with_wrong_stock > 0
            || self.incomplete_at_cuts > 0
            || self.incomplete_at_the_end > 0
            || !self.complete_at_the_end
    }
}

/// Runs the workload through one kind of queue.
pub(super) async fn measure(kind: Kind, seed: u64, operations: &[OperationLine]) -> Result<Measurement> {
    let started = Instant::now();
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let station = Station::start(folder.path()).await?;
    let at_cuts = Observer::new(Auditor::open(&station.database(), SERVER_ROWS)?);
    let mut proxies = Vec::new();
    for stream in [1, 2] {
        let at_cuts = at_cuts.clone();
        let random = Random::new(seed, stream);
        proxies.push(Proxy::start(station.address(), random, move || at_cuts.observe()).await?);
    }
    let (a, b) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let rows = match kind {
        Kind::Naive => naive::ROWS,
        Kind::Grouped => grouped::ROWS,
    };
    let watch = |path: &Path| Ok::<_, anyhow::Error>(Observer::new(Auditor::open(path, rows)?));
    let (link_a, link_b) = (station.transport(&proxies[0].url())?, station.transport(&proxies[1].url())?);
    let observer = match kind {
        Kind::Naive => {
            let sender =
                naive::NaiveSender::create(&a, naive::Link::new(link_a, station.space()), Limits::default().batch_records)?;
            let receiver = naive::NaiveReceiver::create(&b, naive::Link::new(link_b, station.space()))?;
            let observer = watch(&b)?;
            run(seed, operations, sender, receiver, &observer).await?;
            observer
        }
        Kind::Grouped => {
            let sender = grouped::GroupedSender::new(station.device("a.db")?, link_a);
            let receiver = grouped::GroupedReceiver::new(station.device("b.db")?, link_b);
            let observer = watch(&b)?;
            run(seed, operations, sender, receiver, &observer).await?;
            observer
        }
    };
    let (requests, cuts) = proxies.iter().fold((0, 0), |sum, proxy| (sum.0 + proxy.requests(), sum.1 + proxy.cuts()));
    drop(proxies);
    let expected = workload::rows_after(operations);
    let mut complete_at_the_end = true;
    for (path, rows) in [(&a, rows), (&b, rows), (&station.database(), SERVER_ROWS)] {
        complete_at_the_end &= read_rows(path, rows)? == expected;
    }
    let end = Auditor::open(&station.database(), SERVER_ROWS)?.findings()?;
    station.stop().await?;
    let counted = Counted { observed: observer.tally()?, at_cuts: at_cuts.tally()?, end };
    Ok(Measurement {
        queue: match kind {
            Kind::Naive => "naive",
            Kind::Grouped => "gbsync",
        },
        operations: operations.len() as u64,
        requests,
        cuts,
        complete_at_the_end,
        milliseconds: u64::try_from(started.elapsed().as_millis())?,
        ..counted.into()
    })
}

/// What was found on the receiver, on the server at the cuts, and on the server at the end.
struct Counted {
    observed: Tally,
    at_cuts: Tally,
    end: Findings,
}

impl From<Counted> for Measurement {
    fn from(Counted { observed, at_cuts, end }: Counted) -> Self {
        Self {
            queue: "",
            operations: 0,
            requests: 0,
            cuts: 0,
            observations: observed.observations,
            observations_with_an_orphan: observed.with_an_orphan,
            payments_or_entries_without_receipt: observed.without_receipt,
            receipts_that_do_not_add_up: observed.unbalanced,
            observations_with_wrong_stock: observed.with_wrong_stock,
            cuts_with_an_incomplete_operation: at_cuts.with_an_orphan,
            incomplete_at_cuts: at_cuts.incomplete_in_all,
            most_incomplete_at_a_cut: at_cuts.most_incomplete,
            incomplete_at_the_end: end.incomplete(),
            complete_at_the_end: false,
            milliseconds: 0,
        }
    }
}

/// Lets the sender work in bursts, now online and now not, while the receiver pulls, until everything has arrived.
async fn run(
    seed: u64,
    operations: &[OperationLine],
    mut sender: impl Sender,
    mut receiver: impl Receiver,
    observer: &Observer,
) -> Result<()> {
    let _timer = Timer::start(observer.clone());
    let is_sent = Cell::new(false);
    let deadline = Instant::now() + PATIENCE;
    let sending = async {
        let mut random = Random::new(seed, 3);
        let mut rest = operations;
        while !rest.is_empty() {
            let burst = usize::try_from(1 + random.below(BURST))?.min(rest.len());
            for operation in &rest[..burst] {
                sender.save(operation)?;
            }
            rest = &rest[burst..];
            if random.percent(ONLINE_PERCENT) {
                sender.send().await?;
            }
            tokio::time::sleep(REST).await;
        }
        while !sender.send().await? {
            in_time(deadline)?;
            tokio::time::sleep(REST).await;
        }
        is_sent.set(true);
        anyhow::Ok(())
    };
    let receiving = async {
        loop {
            let was_sent = is_sent.get();
            if receiver.receive(observer).await? && was_sent {
                return anyhow::Ok(());
            }
            in_time(deadline)?;
            tokio::time::sleep(REST).await;
        }
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

fn in_time(deadline: Instant) -> Result<()> {
    if Instant::now() > deadline {
        bail!("the workload did not arrive within {} seconds; try again on a machine that is less busy", PATIENCE.as_secs());
    }
    Ok(())
}

fn read_rows(path: &Path, source: &str) -> Result<Rows> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let mut statement = connection.prepare(&format!("SELECT entity, id, payload FROM {source}"))?;
    let mut rows = statement.query([])?;
    let mut read = Rows::new();
    while let Some(row) = rows.next()? {
        let key = RecordKey::new(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?)?;
        read.insert(key, Payload::from_stored(row.get_ref(2)?.as_str()?));
    }
    Ok(read)
}
