//! Whether the books of a database balance, asked in one SQL statement, so that the answer is about one state of it.
//!
//! Invariant: the same question is put to a device and to the server, to the naive queue and to `gbsync`; only the relation
//! that holds the rows differs.

use anyhow::{Context, Result};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a database is looked at whether it changed or not.
const TIMER: Duration = Duration::from_millis(1);

/// What is wrong in one state of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Findings {
    /// Receipts that payments or entries point at and that are not there.
    pub(super) missing_receipts: u64,
    /// Receipts whose payments, or whose entry, are not there or do not add up to their total.
    pub(super) unbalanced_receipts: u64,
    /// Products whose stock and sales do not add up to what was received.
    pub(super) wrong_stock: u64,
}

impl Findings {
    /// Receipts of which the database holds a part.
    pub(super) fn incomplete(&self) -> u64 {
        self.missing_receipts + self.unbalanced_receipts
    }
}

/// The statement, for rows in `source`, which has the columns `entity`, `id` and `payload`.
fn question(source: &str) -> String {
    format!(
        "WITH receipt(id, total) AS MATERIALIZED (
                SELECT id, payload ->> 'totalCents' FROM {source} WHERE entity = 'receipts'),
              paid(receipt, amount) AS MATERIALIZED (
                SELECT payload ->> 'receiptId', sum(payload ->> 'amountCents') FROM {source}
                 WHERE entity = 'payments' GROUP BY 1),
              booked(receipt, amount) AS MATERIALIZED (
                SELECT payload ->> 'receiptId', sum(payload ->> 'amountCents') FROM {source}
                 WHERE entity = 'financial_entries' GROUP BY 1),
              sold(product, quantity) AS MATERIALIZED (
                SELECT line.value ->> 'product', sum(line.value ->> 'quantity')
                  FROM {source} AS r, json_each(r.payload, '$.lines') AS line WHERE r.entity = 'receipts' GROUP BY 1)
         SELECT (SELECT count(*) FROM (SELECT receipt FROM paid UNION SELECT receipt FROM booked)
                  WHERE receipt NOT IN (SELECT id FROM receipt)),
                (SELECT count(*) FROM receipt LEFT JOIN paid ON paid.receipt = receipt.id
                                              LEFT JOIN booked ON booked.receipt = receipt.id
                  WHERE paid.amount IS NOT total OR booked.amount IS NOT total),
                (SELECT count(*) FROM {source} AS s LEFT JOIN sold ON sold.product = s.id
                  WHERE s.entity = 'stock'
                    AND (s.payload ->> 'quantity') + coalesce(sold.quantity, 0) <> s.payload ->> 'received')"
    )
}

/// A read-only connection that asks the question.
pub(super) struct Auditor {
    connection: Connection,
    question: String,
}

impl Auditor {
    /// Opens the database at `path`, whose rows are in the relation `source`.
    pub(super) fn open(path: &Path, source: &str) -> Result<Self> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let connection = connection.with_context(|| format!("{} cannot be opened to look at it", path.display()))?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(Self { connection, question: question(source) })
    }

    /// What is wrong in the state of this moment.
    pub(super) fn findings(&self) -> Result<Findings> {
        let mut statement = self.connection.prepare_cached(&self.question)?;
        let findings = statement.query_row([], |row| {
            Ok(Findings { missing_receipts: row.get(0)?, unbalanced_receipts: row.get(1)?, wrong_stock: row.get(2)? })
        });
        findings.context("the books could not be read")
    }
}

/// What many looks at one database found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// How often it was looked at.
    pub(super) observations: u64,
    /// How often a payment or entry had no receipt, or a receipt not all of its payments and its entry.
    pub(super) with_an_orphan: u64,
    /// Of these: a payment or entry without its receipt.
    pub(super) without_receipt: u64,
    /// Of these: a receipt without all of its payments and its entry.
    pub(super) unbalanced: u64,
    /// How often stock and sales did not add up. Counted apart: a counter that lags is no orphan.
    pub(super) with_wrong_stock: u64,
    /// Incomplete receipts, added up over all looks.
    pub(super) incomplete_in_all: u64,
    /// The most incomplete receipts seen at once.
    pub(super) most_incomplete: u64,
}

impl Tally {
    fn add(&mut self, findings: Findings) {
        self.observations += 1;
        self.with_an_orphan += u64::from(findings.incomplete() > 0);
        self.without_receipt += u64::from(findings.missing_receipts > 0);
        self.unbalanced += u64::from(findings.unbalanced_receipts > 0);
        self.with_wrong_stock += u64::from(findings.wrong_stock > 0);
        self.incomplete_in_all += findings.incomplete();
        self.most_incomplete = self.most_incomplete.max(findings.incomplete());
    }
}

/// Looks at a database whenever it is asked to, and counts.
#[derive(Clone)]
pub(super) struct Observer {
    state: Arc<Mutex<(Auditor, Tally, Option<anyhow::Error>)>>,
}

impl Observer {
    /// An observer that has not looked yet.
    pub(super) fn new(auditor: Auditor) -> Self {
        Self { state: Arc::new(Mutex::new((auditor, Tally::default(), None))) }
    }

    /// Looks once.
    pub(super) fn observe(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (auditor, tally, failure) = &mut *state;
        match auditor.findings() {
            Ok(findings) => tally.add(findings),
            Err(error) => *failure = Some(error),
        }
    }

    /// What was found, or why looking failed.
    pub(super) fn tally(&self) -> Result<Tally> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.2.take() {
            Some(error) => Err(error),
            None => Ok(state.1),
        }
    }
}

/// A thread that has an observer look again and again, until it is dropped.
pub(super) struct Timer {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Timer {
    /// Starts the thread.
    pub(super) fn start(observer: Observer) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                observer.observe();
                std::thread::sleep(TIMER);
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload;
    use super::*;

    fn balance_after(edits: usize) -> Findings {
        let connection = Connection::open_in_memory().expect("memory");
        connection.execute_batch("CREATE TABLE rows(entity TEXT, id TEXT, payload TEXT)").expect("table");
        let mut operation = workload::operations(1, 2).remove(1);
        operation.edits.truncate(edits);
        let goods = workload::operations(1, 1).remove(0);
        let rows = workload::rows_after(&[goods, operation]);
        for (key, payload) in rows {
            let row = [key.entity.as_str(), key.id.as_str(), payload.as_str()];
            connection.execute("INSERT INTO rows VALUES (?1, ?2, ?3)", row).expect("insert");
        }
        Auditor { connection, question: question("rows") }.findings().expect("findings")
    }

    #[test]
    fn whole_operations_balance_and_every_part_of_one_does_not() {
        let whole = workload::operations(1, 2)[1].edits.len();
        assert_eq!(balance_after(whole), Findings::default());
        assert_eq!(balance_after(0), Findings::default());
        for part in 1..whole {
            assert_ne!(balance_after(part), Findings::default(), "{part} of {whole} changes");
        }
    }
}
