//! The ambient face: inside an operation scope every write of a client, however deep and across `await`, joins one
//! operation.

use super::{Operation, Sealed};
use crate::client::Client;
use crate::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

struct Scope {
    group_type: String,
    root: String,
    operation: Mutex<Option<Operation>>,
}

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

/// Runs `work` as one operation: what it writes with a client becomes one group when it answers `Ok`, and nothing when it
/// answers `Err`, panics or is dropped.
///
/// A scope inside a scope joins the outer one. The answer carries the sealed group, or `None` when nothing was written or
/// the outer scope seals it. An explicit [`Client::operation`] inside stays a group of its own.
///
/// # Errors
/// What `work` answers, or why sealing failed; nothing is stored then.
///
/// ```
/// # use gbsync_client::{Client, Config, Remote, operation_scope};
/// # let folder = tempfile::tempdir().unwrap();
/// # let remote = Remote { server: "http://127.0.0.1:1".into(), space: gbsync_core::id::SpaceId::new("shop").unwrap() };
/// # let client = Client::create(Config::new(folder.path().join("till.db")), &remote).unwrap();
/// async fn pay(client: &Client) -> Result<(), gbsync_client::Error> {
///     client.upsert("payments", "payment-001", r#"{"amount":"120.00"}"#).map(|_| ())
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (_, sealed) = operation_scope("receipt-create", "receipt-001", async {
///     client.upsert("receipts", "receipt-001", r#"{"total":"120.00"}"#)?;
///     pay(&client).await
/// }).await?;
/// assert_eq!(sealed.unwrap().device_seq.0, 1);
/// # Ok::<(), gbsync_client::Error>(()) }).unwrap();
/// ```
pub async fn operation_scope<T, E: From<Error>>(
    group_type: &str,
    root: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<(T, Option<Sealed>), E> {
    if SCOPE.try_with(|_| ()).is_ok() {
        return Ok((work.await?, None));
    }
    let scope = Arc::new(Scope::new(group_type, root));
    let value = SCOPE.scope(scope.clone(), work).await?;
    Ok((value, scope.seal()?))
}

/// [`operation_scope`] for a program without futures.
///
/// # Errors
/// What `work` answers, or why sealing failed; nothing is stored then.
pub fn operation_scope_sync<T, E: From<Error>>(
    group_type: &str,
    root: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Option<Sealed>), E> {
    if SCOPE.try_with(|_| ()).is_ok() {
        return Ok((work()?, None));
    }
    let scope = Arc::new(Scope::new(group_type, root));
    let value = SCOPE.sync_scope(scope.clone(), work)?;
    Ok((value, scope.seal()?))
}

impl Scope {
    fn new(group_type: &str, root: &str) -> Self {
        Self { group_type: group_type.into(), root: root.into(), operation: Mutex::new(None) }
    }

    fn seal(&self) -> Result<Option<Sealed>, Error> {
        let operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner).take();
        match operation {
            Some(operation) if !operation.is_empty() => operation.seal().map(Some),
            _ => Ok(None),
        }
    }
}

/// Gives `work` the operation of the scope around it, if there is one.
pub(crate) fn in_scope<T>(
    client: &Client,
    work: impl FnOnce(&mut Operation) -> Result<T, Error>,
) -> Option<Result<T, Error>> {
    let scope = SCOPE.try_with(Arc::clone).ok()?;
    let mut operation = scope.operation.lock().unwrap_or_else(PoisonError::into_inner);
    if operation.is_none() {
        match client.begin(&scope.group_type, &scope.root) {
            Ok(begun) => *operation = Some(begun),
            Err(error) => return Some(Err(error)),
        }
    }
    let operation = operation.as_mut().expect("begun above");
    if !operation.client().is_same(client) {
        return Some(Err(Error::AnotherClient));
    }
    Some(work(operation))
}
