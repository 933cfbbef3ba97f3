//! The part of a round that is about parked groups: the server is told what is not sent any more, and the app's resolver is
//! asked about what was refused.
//!
//! Invariant: neither holds the queue up. A discard that gets no answer is told again in the next round, and the resolver
//! runs while no transaction and no lock of the database is held.

use super::exchange::exchange;
use super::options::SyncError;
use super::round::{Round, encoded};
use crate::closing;
use crate::error::Error;
use crate::operation::staging::MadeBy;
use crate::requeue::requeue;
use crate::resolver::{RESOLVER_ATTEMPTS, Resolution};
use crate::settle::accept;
use crate::store::{discards, outbox, parked, state};
use crate::transport::Method;
use gbsync_core::id::GroupId;
use gbsync_core::retry::Step;
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{GroupResult, WireError, discard_json, parse_result};

impl Round<'_> {
    /// Tells the server which groups are not sent any more.
    pub(super) async fn tell_discards(&mut self) -> Result<(), SyncError> {
        let intents = discards::all(&self.client.store().writer())?;
        if intents.is_empty() {
            return Ok(());
        }
        let space = self.space_path(&self.state()?);
        for (id, request) in intents {
            // Another person's: told when that one is back.
            if !self.senders.may_send(request.actor.as_ref()) {
                continue;
            }
            let path = format!("{space}/groups/{}/discard", encoded(&id));
            let body = Some(discard_json(&request).into_bytes());
            let timeout_ms = self.options.request_timeout_ms;
            self.report.requests += 1;
            let read = |answer: &[u8]| read_answer(&id, answer);
            let exchanged = exchange(self.transport, Method::Post, path, body, timeout_ms, read).await;
            match exchanged.answer {
                Some(result) => self.take_discard(&id, &result)?,
                // Nothing comes through now; the requests that matter more will find out why.
                None if exchanged.step == Step::Retry => break,
                // Perhaps another person's token is needed: it is told again in the next round.
                None => {}
            }
        }
        Ok(())
    }

    fn take_discard(&mut self, id: &GroupId, result: &GroupResult) -> Result<(), Error> {
        let now = self.now();
        let (environment, limits) = (self.client.environment(), self.client.limits());
        self.client.store().write(|tx| {
            discards::forget(tx, id)?;
            let Verdict::Accepted { seq, .. } = result.verdict else { return Ok(()) };
            // It had arrived before: that stands.
            let (generation, cursor) = state::generation_and_cursor(tx)?;
            let Some(standing) = outbox::standing(tx, id)? else { return Ok(()) };
            accept(tx, standing.local_no, (seq, generation, cursor), now)?;
            match closing::by_winner(tx, standing.local_no, now)? {
                true => requeue(tx, environment, limits).map(drop),
                false => Ok(()),
            }
        })?;
        self.client.notify();
        Ok(())
    }

    /// Asks the resolver about what was refused. Answers whether there is something to send now.
    pub(super) fn ask_resolver(&mut self) -> Result<bool, SyncError> {
        let Some(resolver) = self.client.resolver() else { return Ok(false) };
        let unasked = parked::unasked(&self.client.store().writer(), RESOLVER_ATTEMPTS)?;
        let mut has_sealed = false;
        for id in unasked {
            let Some(group) = self.client.parked_group(&id)? else { continue };
            let answered = match resolver.resolve(&group) {
                Resolution::Amend(edits) => self.client.seal_instead(&id, Some(edits), MadeBy::Resolver).map(|_| true),
                Resolution::Retry => self.client.seal_instead(&id, None, MadeBy::Resolver).map(|_| true),
                Resolution::Discard(reason) => self.client.discard(&id, &reason).map(|()| false),
                Resolution::Leave => self.leave(&id, None).map(|()| false),
            };
            match answered {
                Ok(sealed) => has_sealed |= sealed,
                Err(error @ (Error::Database(_) | Error::Damaged(_) | Error::Locked)) => return Err(error.into()),
                // Somebody decided meanwhile.
                Err(Error::NotParked { .. } | Error::UnknownGroup(_)) => {}
                Err(error) => {
                    let refused = group.group.message.unwrap_or_default();
                    self.leave(&id, Some(&format!("{refused}; what the resolver answered cannot be sealed: {error}")))?;
                }
            }
        }
        Ok(has_sealed)
    }

    fn leave(&self, id: &GroupId, message: Option<&str>) -> Result<(), Error> {
        self.client.store().write(|tx| {
            let Some(standing) = outbox::standing(tx, id)? else { return Ok(()) };
            parked::leave(tx, standing.local_no)?;
            message.map_or(Ok(()), |message| parked::set_message(tx, standing.local_no, message))
        })
    }
}

fn read_answer(id: &GroupId, answer: &[u8]) -> Result<GroupResult, WireError> {
    let result = parse_result(answer)?;
    match result.id == *id && matches!(result.verdict, Verdict::Accepted { .. } | Verdict::Rejected { .. }) {
        true => Ok(result),
        false => Err(WireError { pointer: "/syncGroupId".into(), message: "is not the answer about this group".into() }),
    }
}
