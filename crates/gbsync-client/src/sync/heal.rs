//! Whether the log is still the one that this device knows, and what becomes of what it lost (docs/protocol.md, "Restored logs").
//!
//! Invariant (P4): a group that the server acknowledged and no longer has is offered again, and nothing is sent while it is not
//! known which log it would be judged on.

use super::exchange::Exchanged;
use super::options::SyncError;
use super::round::{Round, encoded};
use crate::error::Error;
use crate::store::state::State;
use crate::store::{lost, outbox};
use crate::transport::Method;
use gbsync_core::id::{GroupId, LogId};
use gbsync_core::verdict::Verdict;
use gbsync_core::wire::{Handshake, WireError, parse_answer, verdicts_request_json};

/// How often a round asks at a handshake where the log stands.
const RESYNCS: u32 = 6;
/// Groups asked for at a time.
const ASKED: usize = 100;

impl Round<'_> {
    /// A handshake that says where this device stands. Where the log does not stand there, it asks once more and says which
    /// places it knows: the server says up to where that is its log, and gives two logs of one name two names.
    pub(super) async fn shake_hands(&mut self, state: &State, mut path: String) -> Result<Exchanged<Handshake>, SyncError> {
        // Where somebody between mixes up two spaces, this device would take its log for replaced and read all of it anew.
        let read = |body: &[u8]| match Handshake::parse(body)? {
            shake if shake.space == state.space => Ok(shake),
            shake => Err(WireError { pointer: "/space".into(), message: format!("it is about the space {}", shake.space) }),
        };
        let Some(log) = &state.log else { return self.ask(Method::Get, path, None, read).await };
        if let Some(at) = state.place() {
            path.push_str(&format!("&log={}&after={}&chain={}", encoded(log), at.seq, at.chain));
        }
        let shake = self.ask(Method::Get, path.clone(), None, read).await?;
        let is_other = |answer: &Handshake| answer.agrees == Some(false);
        if !shake.answer.as_ref().is_some_and(is_other) {
            return Ok(shake);
        }
        path.push_str(&format!("&known={}", lost::known_places(&self.client.store().writer())?));
        self.ask(Method::Get, path, None, read).await
    }

    /// Goes on in a log that has another name and the same past. Answers whether that is so.
    pub(super) fn take_name(&mut self, state: &State, log: &LogId, agrees: bool) -> Result<bool, Error> {
        let is_renamed = state.log.as_ref().is_some_and(|known| known != log);
        if !is_renamed || !agrees || state.rebase.is_some() || state.wants_new_epoch {
            return Ok(false);
        }
        self.client.store().write(|tx| lost::take_name(tx, log))?;
        self.client.notify();
        Ok(true)
    }

    /// The server says that this device stands elsewhere than in its log: finds out at a handshake what that log is.
    pub(super) async fn resync(&mut self) -> Result<(), SyncError> {
        self.resyncs += 1;
        if self.resyncs > RESYNCS {
            return Err(SyncError::NotReached { reason: "the log changes faster than it can be read".into() });
        }
        let before = self.state()?;
        self.handshake().await?;
        let now = self.state()?;
        match now.generation == before.generation && now.log == before.log {
            true => self.rebase().await,
            false => Ok(()),
        }
    }

    /// Offers again what was accepted behind the end of the log, now that it was read to there: the server was rolled back behind
    /// it before this device had read it.
    pub(super) async fn offer_missed(&mut self, awaited: &[i64]) -> Result<(), SyncError> {
        let mut missed: Vec<(i64, GroupId)> = Vec::new();
        for local_no in awaited {
            let connection = self.client.store().writer();
            if lost::is_missed(&connection, *local_no)?
                && let Some(id) = outbox::id_of(&connection, *local_no)?
            {
                missed.push((*local_no, id));
            }
        }
        for asked in missed.chunks(ASKED) {
            let ids: Vec<GroupId> = asked.iter().map(|(_, id)| id.clone()).collect();
            let path = format!("{}/verdicts", self.space_path(&self.state()?));
            let body = verdicts_request_json(&ids).into_bytes();
            let exchanged = self.ask(Method::Post, path, Some(body), parse_answer).await?;
            // Whoever cannot say may say it in the next round.
            let Some(answer) = exchanged.answer else { return Ok(()) };
            let is_unknown =
                |id: &GroupId| answer.results.iter().any(|result| result.id == *id && result.verdict == Verdict::Unknown);
            for (local_no, _) in asked.iter().filter(|(_, id)| is_unknown(id)) {
                self.client.store().write(|tx| lost::reoffer_one(tx, *local_no))?;
                // One more turn of the round sends it.
                self.has_requeued = true;
            }
        }
        self.client.notify();
        Ok(())
    }
}
