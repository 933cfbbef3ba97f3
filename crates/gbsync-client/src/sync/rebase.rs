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
use crate::{epoch, pull};
use gbsync_core::fault;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::retry::Step;
use gbsync_core::wire::LogPage;

/// How often a round reads anew before it gives up.
const REBASES: u32 = 3;

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
            let applied = self.client.store().write(|tx| {
                let applied = pull::apply_next(tx, &page, now)?;
                if is_done {
                    pull::flip(tx)?;
                }
                Ok::<_, Error>((applied, self.requeue_if(tx, is_done)?))
            })?;
            fault::point("a page was read anew");
            self.has_requeued |= applied.1;
            self.count(applied.0);
        }
        self.client.store().write(|tx| match state::read(tx)?.wants_new_epoch {
            true => epoch::begin(tx, self.client.environment()),
            false => Ok(()),
        })?;
        self.client.notify();
        Ok(())
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
