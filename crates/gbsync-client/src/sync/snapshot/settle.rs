//! What a snapshot does not tell: which groups of this outbox are in it.
//!
//! A device that reads the log meets its own groups there. One that loads a snapshot asks for their verdicts, after it is
//! loaded: what took effect up to its `seq` was decided by then. So a group whose answer got lost is not laid over a base
//! that has it already, and one that the log lost is offered again.
//!
//! Invariant: only the server's word makes a group accepted. An id that its author gave may be another device's with other
//! bytes; of such a group only an answer to its own bytes says anything.

use crate::closing;
use crate::error::Error;
use crate::store::{Tx, outbox, snapshot, state};
use crate::sync::options::SyncError;
use crate::sync::round::Round;
use crate::transport::Method;
use gbsync_core::id::{GroupId, Seq};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{PushAnswer, parse_answer, verdicts_request_json};

/// Groups that are asked for at a time.
const ASKED: u32 = 500;

impl Round<'_> {
    /// Asks what became of the groups of this outbox, and notes those that took effect up to `seq` as known from this reading.
    pub(in crate::sync) async fn settle_by_verdicts(&mut self, seq: Seq) -> Result<(), SyncError> {
        let mut after = 0;
        loop {
            let asked = snapshot::ids_after(&self.client.store().writer(), after, ASKED)?;
            let Some((last, _)) = asked.last() else { return Ok(()) };
            after = *last;
            let ids: Vec<GroupId> = asked.into_iter().map(|(_, id)| id).collect();
            let path = format!("{}/verdicts", self.space_path(&self.state()?));
            let body = verdicts_request_json(&ids).into_bytes();
            let mut exchanged = self.ask(Method::Post, path, Some(body), parse_answer).await?;
            let Some(answer) = exchanged.answer.take() else {
                return Err(self.stopped("the question for verdicts was refused", &exchanged)?);
            };
            if !answer.results.iter().map(|result| &result.id).eq(&ids) {
                return Err(SyncError::NotReached { reason: "an answer is about other groups than were asked for".into() });
            }
            let now = self.now();
            self.client.store().write(|tx| note(tx, &answer, seq, now))?;
        }
    }
}

fn note(tx: &Tx<'_>, answer: &PushAnswer, up_to: Seq, now: u64) -> Result<(), Error> {
    let generation = state::read(tx)?.generation + 1;
    for result in &answer.results {
        let Verdict::Accepted { seq, .. } = &result.verdict else { continue };
        let Some(standing) = outbox::standing(tx, &result.id)?.filter(|_| *seq <= up_to) else { continue };
        outbox::set_accepted(tx, standing.local_no, (*seq, generation), 0, now)?;
        closing::by_winner(tx, standing.local_no, now)?;
    }
    Ok(())
}
