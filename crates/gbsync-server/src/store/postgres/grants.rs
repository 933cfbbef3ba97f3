//! Tokens are looked up together where requests arrive together: each request is let in by a row as it stands when it comes, so that a
//! token that is revoked on one node opens nothing on another, and yet a look costs a part of a way to the database.
//!
//! Nobody waits for company: whoever asks while nobody else does is asked for at once, and what arrives meanwhile goes with the next.

use super::{one_more, tokens};
use crate::store::{Grant, StoreError};
use deadpool_postgres::Pool;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Looks that are under way at a time: a second, so that one slow answer does not hold up everybody.
const LOOKS: usize = 2;
/// Tokens of one look.
const MOST: usize = 64;
/// Requests that may wait to be let in; the next one waits for its turn to ask.
const WAITING: usize = 1_024;

type Answer = Result<Option<Grant>, StoreError>;

/// A request that waits to be let in.
struct Waiting {
    hash: [u8; 32],
    answer: oneshot::Sender<Answer>,
}

/// The way to whoever looks tokens up.
#[derive(Clone)]
pub(super) struct Grants(mpsc::Sender<Waiting>);

impl Grants {
    /// Begins to look up what is asked, until nobody can ask any more; `spawn` starts a task.
    pub(super) fn start(pool: &Pool, spawn: impl Fn(super::BoxFuture<'static, ()>)) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..LOOKS {
            spawn(Box::pin(look(pool.clone(), Arc::clone(&receiver))));
        }
        Self(sender)
    }

    /// The token with this hash, also a revoked one.
    pub(super) async fn of(self, hash: [u8; 32]) -> Answer {
        let closed = || StoreError::Lost("the store was closed".into());
        let (answer, answered) = oneshot::channel();
        self.0.send(Waiting { hash, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

async fn look(pool: Pool, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut waiting = Vec::new();
    while receiver.lock().await.recv_many(&mut waiting, MOST).await > 0 {
        let hashes: Vec<[u8; 32]> = waiting.iter().map(|waiting| waiting.hash).collect();
        let found = find(&pool, &hashes).await;
        match found {
            Ok(grants) => {
                for (Waiting { answer, .. }, grant) in waiting.drain(..).zip(grants) {
                    // Whoever asked may have gone.
                    drop(answer.send(Ok(grant)));
                }
            }
            Err(error) => {
                for Waiting { answer, .. } in waiting.drain(..) {
                    drop(answer.send(Err(error.told_again())));
                }
            }
        }
    }
}

/// The tokens with these hashes; a second time on another connection if the first is lost.
async fn find(pool: &Pool, hashes: &[[u8; 32]]) -> Result<Vec<Option<Grant>>, StoreError> {
    let mut attempts = 1;
    loop {
        let connection = pool.get().await?;
        match tokens::grants(&connection, hashes).await {
            Ok(grants) => return Ok(grants),
            Err(error) => attempts = one_more(connection, attempts, error)?,
        }
    }
}
