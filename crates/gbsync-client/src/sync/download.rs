//! Entries of the log that no page holds: their parts are fetched and kept one by one, before the page is applied.
//!
//! Invariant: each part is durable before the next is asked for, so a crash costs one part.

use super::options::{SyncError, Transfer};
use super::round::{Round, encoded, scope_set_parameter};
use crate::error::Error;
use crate::store::download;
use crate::transport::Method;
use gbsync_core::fault;
use gbsync_core::id::{LogId, Seq};
use gbsync_core::retry::Step;
use gbsync_core::wire::{LogPage, LogParts, WireError, parse_log_part};

/// Whether the parts of a page are here.
pub(super) enum Fetched {
    All,
    /// The log is another one than the page came from; the text says why.
    Resync(String),
}

impl Round<'_> {
    /// Fetches what is not here yet of a page's entries in parts.
    pub(super) async fn fetch_parts(&mut self, page: &LogPage, log: Option<&LogId>) -> Result<Fetched, SyncError> {
        if download::in_parts(page).next().is_none() {
            return Ok(Fetched::All);
        }
        let log = log.ok_or_else(|| Error::Damaged("a page of no log".into()))?;
        self.client.store().write(|tx| download::begin(tx, page, log))?;
        for (entry, parts) in download::in_parts(page) {
            let Some(group) = &entry.group else { continue };
            while let Some(part) = self.first_missing(entry.seq, parts)? {
                if let Some(reason) = self.fetch_part(entry.seq, part, log).await? {
                    return Ok(Fetched::Resync(reason));
                }
                if let Some(on_transfer) = &self.options.on_transfer {
                    let (group_id, done) = (group.id.clone(), part + 1);
                    on_transfer(&Transfer { group_id, is_upload: false, done, parts: parts.parts });
                }
            }
            if !self.client.store().write(|tx| download::fits(tx, entry.seq, parts))? {
                let reason = format!("the parts of entry {} do not fit what it says of itself", entry.seq);
                return Err(SyncError::NotReached { reason });
            }
        }
        Ok(Fetched::All)
    }

    fn first_missing(&self, seq: Seq, parts: LogParts) -> Result<Option<u64>, Error> {
        download::first_missing(&self.client.store().writer(), seq, parts.parts)
    }

    /// Fetches and keeps one part; the reason when the log has changed.
    async fn fetch_part(&mut self, seq: Seq, part: u64, log: &LogId) -> Result<Option<String>, SyncError> {
        let state = self.state()?;
        let scope_set = state.rebase.as_ref().map_or(&state.scope_set, |rebase| &rebase.scope_set);
        let scope_set = scope_set_parameter(scope_set.as_deref());
        let path = format!("{}/log/{seq}/parts/{part}?log={}{scope_set}", self.space_path(&state), encoded(log));
        let read = |answer: &[u8]| {
            let changes = parse_log_part(answer)?.len() as u64;
            let not_utf8 = |_| WireError { pointer: String::new(), message: "is not UTF-8".into() };
            Ok((changes, String::from_utf8(answer.to_vec()).map_err(not_utf8)?))
        };
        let mut exchanged = self.ask(Method::Get, path, None, read).await?;
        match exchanged.answer.take() {
            Some((changes, body)) => {
                fault::point("a part of the log arrived");
                self.client.store().write(|tx| {
                    #[cfg(feature = "mutants")]
                    crate::planted::apply_part(tx, &body)?;
                    download::keep(tx, seq, part, changes, &body)
                })?;
                Ok(None)
            }
            None if exchanged.step == Step::Resync => Ok(Some(exchanged.reason)),
            None => Err(self.stopped("a part of the log was refused", &exchanged)?),
        }
    }
}
