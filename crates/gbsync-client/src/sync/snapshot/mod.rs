//! A snapshot into the table beside the base: a file of the server, a unit at a time, each with the place where the next one
//! begins in one transaction. What a cut or a crash leaves is gone on from.
//!
//! Invariant: nothing of it shows before the flip, and without its last line it is never flipped: only that line moves the
//! cursor of the reading anew from nothing to the snapshot's `seq`.
//!
//! Rejected alternative: keeping the file and reading it when it is whole. A device would need room for it three times.

mod settle;
mod units;

use super::options::SyncError;
use super::round::{Round, scope_set_parameter};
use crate::error::{Error, damaged};
use crate::store::base::{Applier, BaseTable};
use crate::store::snapshot::{self, Loading};
use crate::store::{Tx, flag, state};
use crate::transport::{Download, DownloadFrom, Method, Request};
use gbsync_core::fault;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::mutant::{Mutant, is};
use gbsync_core::retry::Backoff;
use gbsync_core::wire::{LogChange, Problem, SnapshotFlag, SnapshotHead, SnapshotLine};
use units::{Unit, Units};

/// Waits between downloads that broke off.
const BACKOFF: Backoff = Backoff { first_ms: 200, most_ms: 5_000 };
/// How long a download may be silent, in milliseconds.
const SILENCE_MS: u64 = 60_000;

/// What asking for a snapshot came to.
enum Asked {
    /// Bytes come.
    Body(Download),
    /// There is none: the log is read.
    NoSnapshots,
    /// It may come later. `is_refused`: the server itself says so, and not somebody between.
    Later { reason: String, retry_after_ms: Option<u64>, is_refused: bool },
}

/// How a download ended.
enum Ended {
    Complete,
    Broken(String),
}

impl Round<'_> {
    /// Loads a snapshot beside the base. `false` where server or transport have none, or the log is to be read anyway.
    pub(super) async fn load_snapshot(&mut self, log: &LogId) -> Result<bool, SyncError> {
        let mut breaks = 0;
        loop {
            let loading = snapshot::read(&self.client.store().writer())?;
            if loading.as_ref().is_some_and(|loading| loading.is_done) {
                return Ok(true);
            }
            let begun = loading.map(|loading| (loading.etag, loading.at));
            let at = begun.clone();
            let (reason, retry_after_ms, is_refused) = match self.ask_snapshot(begun).await? {
                Asked::NoSnapshots => return Ok(false),
                Asked::Later { reason, retry_after_ms, is_refused } => (reason, retry_after_ms, is_refused),
                Asked::Body(download) => match self.take_snapshot(download, log).await? {
                    Ended::Complete => return Ok(true),
                    Ended::Broken(reason) => (reason, None, false),
                },
            };
            // One that brought something on is no failure: a line that breaks every minute loads it all the same.
            let now = snapshot::read(&self.client.store().writer())?.map(|loading| (loading.etag, loading.at));
            breaks = if now.is_some() && now != at { 0 } else { breaks + 1 };
            if breaks >= self.attempts {
                // A server whose disk is full makes none, and yet has the whole log: nothing waits for its repair.
                if is_refused && state::horizon(&self.client.store().writer())? == Seq(0) {
                    return Ok(false);
                }
                return Err(SyncError::NotReached { reason });
            }
            let random = self.client.environment().random_u64();
            let wait_ms = BACKOFF.wait_ms(breaks.max(1), random, retry_after_ms).min(BACKOFF.most_ms);
            self.client.environment().timer.sleep(wait_ms).await;
        }
    }

    async fn ask_snapshot(&mut self, begun: Option<(String, u64)>) -> Result<Asked, SyncError> {
        self.report.requests += 1;
        let scope_set = scope_set_parameter(Some(&self.scope_set));
        let path = format!("{}/snapshot?{}", self.space_path(&self.state()?), scope_set.trim_start_matches('&'));
        let timeout_ms = self.options.request_timeout_ms;
        let request = Request { method: Method::Get, path, body: None, timeout_ms, token: None };
        let from = DownloadFrom { takes_zstd: cfg!(feature = "native"), begun };
        let mut download = match self.transport.download(request, from).await {
            Ok(None) => return Ok(Asked::NoSnapshots),
            Ok(Some(download)) => download,
            Err(error) => {
                return Ok(Asked::Later { reason: error.message, retry_after_ms: None, is_refused: false });
            }
        };
        let is_lines = |kind: &str| kind.trim_start().to_ascii_lowercase().starts_with("application/x-ndjson");
        match download.streamed.status {
            200 | 206 if download.streamed.content_type.as_deref().is_some_and(is_lines) => Ok(Asked::Body(download)),
            404 | 405 => Ok(Asked::NoSnapshots),
            status => {
                let retry_after_ms = download.streamed.retry_after_ms;
                let body = download.streamed.body.next().await.ok().flatten().unwrap_or_default();
                let problem = Problem::parse(&body).ok();
                let is_refused = status == 503 && problem.is_some();
                let reason =
                    problem.map_or_else(|| format!("status {status} instead of a snapshot"), |problem| problem.detail);
                // A token that is not taken any more shows at the next request of the round.
                Ok(Asked::Later { reason, retry_after_ms, is_refused })
            }
        }
    }

    async fn take_snapshot(&mut self, download: Download, log: &LogId) -> Result<Ended, SyncError> {
        let Some(etag) = download.etag else {
            return Ok(Ended::Broken("a snapshot came without a name; is a proxy between?".into()));
        };
        let mut loading = snapshot::read(&self.client.store().writer())?.filter(|kept| kept.etag == etag);
        if download.from != loading.as_ref().map_or(0, |kept| kept.at) {
            if download.from > 0 {
                return Ok(Ended::Broken("another part of a snapshot came than was asked for".into()));
            }
            loading = None;
        }
        let (mut units, mut body) = (Units::new(download.is_zstd), download.streamed.body);
        loop {
            let piece = tokio::select! {
                biased;
                piece = body.next() => piece,
                () = self.client.environment().timer.sleep(SILENCE_MS) => return Ok(Ended::Broken("a snapshot fell silent".into())),
            };
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return Ok(Ended::Broken(error.message)),
            };
            units.feed(piece.as_deref().unwrap_or_default());
            loop {
                let unit = match units.next(piece.is_none()) {
                    Ok(Some(unit)) => unit,
                    Ok(None) => break,
                    Err(reason) => return self.discard_snapshot(log, reason),
                };
                if self.client.store().is_awaited() {
                    self.let_others_write().await;
                }
                match self.store_unit(&etag, loading.take(), &unit, log)? {
                    Ok(stored) if stored.is_done => return Ok(Ended::Complete),
                    Ok(stored) => loading = Some(stored),
                    Err(reason) => return self.discard_snapshot(log, reason),
                }
            }
            #[cfg(feature = "mutants")]
            if piece.is_none()
                && is(Mutant::SnapshotFlippedUnfinished)
                && let Some(kept) = loading.take()
            {
                let done = Loading { is_done: true, ..kept };
                self.client.store().write(|tx| {
                    store(tx, &Lines { loading: done, is_first: false, records: Vec::new(), flags: Vec::new() })
                })?;
                return Ok(Ended::Complete);
            }
            if piece.is_none() {
                return Ok(Ended::Broken("a snapshot ended before its last line".into()));
            }
        }
    }

    /// What came is no snapshot, or not of this log: nothing of it is kept.
    fn discard_snapshot(&self, log: &LogId, reason: String) -> Result<Ended, SyncError> {
        self.client.store().write(|tx| crate::pull::begin_rebase(tx, log, &self.scope_set))?;
        Ok(Ended::Broken(reason))
    }

    /// Stores a unit and where the next one begins. A sentence when it is none of a snapshot of this log.
    fn store_unit(
        &mut self,
        etag: &str,
        before: Option<Loading>,
        unit: &Unit,
        log: &LogId,
    ) -> Result<Result<Loading, String>, Error> {
        // Read before the transaction: an app that writes waits for the storing alone.
        let read = match Lines::read(etag, before, unit, log) {
            Ok(read) => read,
            Err(reason) => return Ok(Err(reason)),
        };
        fault::point("a unit of a snapshot arrived");
        self.client.store().write(|tx| store(tx, &read))?;
        self.step_is_written()?;
        self.report.pulled_records += read.records.len() as u64;
        fault::point("a unit of a snapshot is stored");
        Ok(Ok(read.loading))
    }
}

/// A unit that was read.
struct Lines {
    /// How far the snapshot is with it.
    loading: Loading,
    /// Whether it is the first.
    is_first: bool,
    records: Vec<LogChange>,
    flags: Vec<SnapshotFlag>,
}

impl Lines {
    fn read(etag: &str, before: Option<Loading>, unit: &Unit, log: &LogId) -> Result<Self, String> {
        let wrong = |error: gbsync_core::wire::WireError| format!("a line of a snapshot cannot be read: {error}");
        let mut lines = unit.lines.split_inclusive(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
        let is_first = before.is_none();
        let mut loading = match before {
            Some(loading) => loading,
            None => {
                let first = lines.next().ok_or("a snapshot does not begin with its first line")?;
                let head = SnapshotHead::parse(first).map_err(wrong)?;
                Loading { etag: etag.to_owned(), head, at: 0, loaded: 0, is_done: false }
            }
        };
        if loading.head.log != *log {
            return Err(format!("a snapshot of the log {} came, and not of {log}", loading.head.log));
        }
        let (mut records, mut flags) = (Vec::new(), Vec::new());
        for line in lines {
            match SnapshotLine::parse(line).map_err(wrong)? {
                _ if loading.is_done => return Err("a snapshot goes on behind its last line".into()),
                SnapshotLine::Record(record) => records.push(record),
                SnapshotLine::Flag(flag) => flags.push(flag),
                SnapshotLine::Other => {}
                SnapshotLine::End { records: counted } => {
                    let came = loading.loaded + records.len() as u64;
                    if counted != came || loading.head.records != came {
                        return Err(format!("a snapshot says that it has {counted} records, and {came} came"));
                    }
                    loading.is_done = true;
                }
            }
        }
        loading.at += unit.bytes;
        loading.loaded += records.len() as u64;
        Ok(Self { loading, is_first, records, flags })
    }
}

fn store(tx: &Tx<'_>, lines: &Lines) -> Result<(), Error> {
    if lines.is_first {
        // Of the part of the space that this reading anew was begun for.
        let begun = state::read(tx)?.rebase.and_then(|rebase| rebase.scope_set);
        let scope_set = begun.ok_or_else(|| damaged("gbsync_state", "a snapshot came that nobody began to load"))?;
        crate::pull::begin_rebase(tx, &lines.loading.head.log, &scope_set)?;
    }
    let mut base = Applier::new(tx, BaseTable::Next)?;
    for record in &lines.records {
        base.apply(record)?;
    }
    for SnapshotFlag { seq, place, group, flag } in &lines.flags {
        flag::raise_one(tx, true, (*seq, *place), group, flag)?;
    }
    snapshot::keep(tx, &lines.loading)?;
    if lines.loading.is_done {
        let SnapshotHead { seq, chain, .. } = lines.loading.head;
        let seq = if is(Mutant::SnapshotCursorWrong) { seq.next() } else { seq };
        state::set_next_cursor(tx, seq, chain)?;
    }
    Ok(())
}
