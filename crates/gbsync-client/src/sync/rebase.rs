//! Reading anew: the whole state beside the base, from a snapshot or from the log, then put in its place at once.
//!
//! Invariant (P2): what users see stays what it was until the flip, which moves base, cursor and overlay in one transaction.

use super::download::Fetched;
use super::options::SyncError;
use super::round::Round;
use super::schema::still_upgrading;
use crate::error::Error;
use crate::store::{snapshot, state};
use crate::transport::Method;
use crate::{epoch, pull, tables};
use gbsync_core::fault;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::retry::Step;
use gbsync_core::wire::LogPage;

/// How often a round reads anew before it gives up.
const REBASES: u32 = 3;
/// Steps of a long work after which what they wrote is moved into the main file: long before a COMMIT does it.
const CHECKPOINT_STEPS: u64 = 8;
/// Milliseconds between two steps of a long work.
const PAUSE_MS: u64 = 1;
/// Such pauses after which a step is made although somebody waits.
const PAUSES: u32 = 50;

impl Round<'_> {
    /// Reads the whole state anew beside the base, then puts it in its place; begins a new epoch if one is wanted.
    pub(super) async fn rebase(&mut self) -> Result<(), SyncError> {
        self.rebases += 1;
        if self.rebases > REBASES {
            return Err(SyncError::NotReached { reason: "the log changes faster than it can be read".into() });
        }
        let log = self.log.clone().ok_or_else(|| Error::Damaged("no handshake before a reading anew".into()))?;
        self.client.store().write(|tx| match state::read(tx)?.rebase {
            Some(rebase)
                if rebase.log.as_ref() == Some(&log)
                    && rebase.scope_set.as_ref() == Some(&self.scope_set)
                    && (rebase.chain.is_some() || self.wants_snapshot) =>
            {
                Ok(())
            }
            _ => pull::begin_rebase(tx, &log, &self.scope_set),
        })?;
        if !self.begin_with_snapshot(&log).await? {
            return Ok(());
        }
        loop {
            let state = self.state()?;
            let Some(rebase) = &state.rebase else { break };
            let chain = rebase.chain.as_ref().map(|chain| chain.to_string());
            let path = self.log_path(&state, (rebase.cursor, self.options.page_records), rebase.log.as_ref(), chain);
            let mut exchanged = self.ask(Method::Get, path, None, LogPage::parse).await?;
            let Some(page) = exchanged.answer.take() else {
                if exchanged.step != Step::Resync {
                    return Err(self.stopped("the log was refused", &exchanged)?);
                }
                return Err(self.begin_anew(&log, &exchanged.reason)?);
            };
            // The next round knows it, and goes on here.
            if let Some(version) = self.unknown_schema(&page) {
                return Err(still_upgrading(version));
            }
            let is_done = self.check_progress(&page, rebase.cursor)?;
            if let Fetched::Resync(reason) = self.fetch_parts(&page, rebase.log.as_ref()).await? {
                return Err(self.begin_anew(&log, &reason)?);
            }
            let now = self.now();
            let applied = self.client.store().write(|tx| pull::apply_next(tx, &page, now))?;
            fault::point("a page was read anew");
            self.count(applied);
            if is_done {
                self.flip().await?;
                break;
            }
        }
        self.client.store().write(|tx| match state::read(tx)?.wants_new_epoch {
            true => epoch::begin(tx, self.client.environment()),
            false => Ok(()),
        })?;
        self.client.notify();
        Ok(())
    }

    /// Fills the tables beside the tables, a step at a time, then shows what was read anew in one transaction.
    async fn flip(&mut self) -> Result<(), SyncError> {
        let mut after = None;
        loop {
            let is_whole = self.client.store().write(|tx| tables::fill(tx, &mut after))?;
            fault::point("rows are beside the tables");
            if !is_whole {
                self.step_is_written()?;
                self.let_others_write().await;
                continue;
            }
            let requeued = self.client.store().write(|tx| match pull::flip(tx)? {
                true => self.requeue_if(tx, true).map(Some),
                false => Ok::<_, Error>(None),
            })?;
            // Otherwise another program gave the file other tables meanwhile.
            if let Some(has_requeued) = requeued {
                fault::point("what was read anew shows");
                self.has_requeued |= has_requeued;
                return Ok(());
            }
        }
    }

    /// Takes away what a flip left of the tables before it, a step at a time.
    pub(super) async fn sweep(&mut self) -> Result<(), SyncError> {
        while tables::has_old(&self.client.store().writer())? {
            self.client.store().write(|tx| tables::sweep(tx))?;
            self.step_is_written()?;
            fault::point("old rows are taken away");
            self.let_others_write().await;
        }
        Ok(())
    }

    /// Counts the steps of a long work, and moves what they wrote into the main file every few of them.
    pub(super) fn step_is_written(&mut self) -> Result<(), Error> {
        self.steps += 1;
        if self.steps.is_multiple_of(CHECKPOINT_STEPS) { self.client.store().checkpoint() } else { Ok(()) }
    }

    /// Between two steps: whoever waits to write is let in. One that waits in another process finds the file free now and then.
    pub(super) async fn let_others_write(&self) {
        for _ in 0..PAUSES {
            self.client.environment().timer.sleep(PAUSE_MS).await;
            if !self.client.store().is_awaited() {
                return;
            }
        }
    }

    /// The log changed while it was read: the next round begins with the new one.
    fn begin_anew(&self, log: &LogId, reason: &str) -> Result<SyncError, Error> {
        self.client.store().write(|tx| pull::begin_rebase(tx, log, &self.scope_set))?;
        Ok(SyncError::NotReached { reason: format!("the log changed while it was read: {reason}") })
    }

    /// Loads a snapshot where one is wanted and nothing was read yet, and settles what it does not tell. `false`: nothing is read
    /// anew, because there is neither a snapshot nor anything beside which to read the log.
    async fn begin_with_snapshot(&mut self, log: &LogId) -> Result<bool, SyncError> {
        let is_at_start = self.state()?.rebase.is_some_and(|rebase| rebase.chain.is_none());
        if is_at_start && self.wants_snapshot && !self.load_snapshot(log).await? {
            let is_read_anew = self.client.store().write(|tx| {
                // What was loaded before the server stopped to offer them is of no use to the log.
                pull::begin_rebase(tx, log, &self.scope_set)?;
                let state = state::read(tx)?;
                let is_another = state.log.as_ref() != Some(log) || state.scope_set.as_ref() != Some(&self.scope_set);
                if state.cursor > Seq(0) || state.wants_new_epoch || is_another {
                    return Ok(true);
                }
                state::cancel_rebase(tx)?;
                Ok::<_, Error>(false)
            })?;
            return Ok(is_read_anew);
        }
        let loaded = snapshot::read(&self.client.store().writer())?.filter(|loaded| loaded.is_done);
        if let Some(loaded) = loaded {
            // As with a page: the next round knows it, and goes on here.
            if loaded.head.schema_version > self.client.store().schemas().server.version {
                return Err(still_upgrading(loaded.head.schema_version));
            }
            self.settle_by_verdicts(loaded.head.seq).await?;
        }
        Ok(true)
    }
}
