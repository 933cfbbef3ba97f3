//! Views for reports: one for each kind of records that the schema in force declares, with a typed column for each field.
//!
//! Invariant: they are never in the way. Nothing that is pushed, pulled or put in force waits for them or fails with them; one
//! that cannot be made is said in the log and tried again.
//!
//! Rejected alternative: making them in the transaction that puts a schema in force. A report that runs for an hour would hold
//! up every device of every space, and a view that somebody built on one of these would keep the schema from ever changing.

mod sql;

use super::adopt;
use super::lock::Lock;
use crate::store::{StoreError, StoredSchema};
use deadpool_postgres::{ClientWrapper, Object, Pool};
use gbsync_core::schema::Schema;
use sql::{Place, identifier, literal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often it is looked whether they fit the schema in force.
const LOOK: Duration = Duration::from_secs(3);
/// How long they are left alone after they could not be made.
const REST: Duration = Duration::from_secs(60);
/// How long one waits for a report that reads it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO 2000";
/// Counts up when what is made of the same schema changes.
const FORM: u64 = 1;
/// How the comment on a view of ours begins.
const OURS: &str = "gbsync: ";

/// Keeps the views as the schema in force wants them, until it is aborted.
pub(super) async fn keep(pool: Pool, schema: String) {
    let place = Place::new(&schema);
    let mut told = String::new();
    loop {
        let rest = match present(&pool, &place).await {
            Ok(()) => {
                told.clear();
                LOOK
            }
            Err(error) => {
                let error = error.to_string();
                if told != error {
                    tracing::warn!(%error, schema = %place.views, "views for reports could not all be made; docs/reporting.md says what to do");
                }
                told = error;
                REST
            }
        };
        tokio::time::sleep(rest).await;
    }
}

/// Makes the views anew if they are not those of the schema in force.
async fn present(pool: &Pool, place: &Place) -> Result<(), StoreError> {
    let connection = pool.get().await?;
    let Some(schema) = wanted(&connection, place).await? else { return Ok(()) };
    let made = make(&connection, place, schema).await;
    match (made, connection.batch_execute("ROLLBACK").await) {
        (made, Ok(())) => made,
        (made, Err(_)) => {
            drop(Object::take(connection));
            made
        }
    }
}

/// The schema in force, if the views are not those of it.
async fn wanted(client: &ClientWrapper, place: &Place) -> Result<Option<StoredSchema>, StoreError> {
    let sql = "SELECT obj_description(to_regnamespace($1)::oid, 'pg_namespace')";
    let statement = client.prepare_cached(sql).await?;
    let made: Option<String> = client.query_one(&statement, &[&identifier(&place.views)]).await?.try_get(0)?;
    let (form, version) = made.as_deref().and_then(read_mark).unwrap_or_default();
    let Some(schema) = adopt::in_force(client).await? else { return Ok(None) };
    // Those of a newer process are left to it.
    Ok((form <= FORM && (form, version) != (FORM, schema.version)).then_some(schema))
}

fn mark(version: u64) -> String {
    format!("{OURS}views for reports, form {FORM}, of schema version {version}")
}

fn read_mark(mark: &str) -> Option<(u64, u64)> {
    let rest = mark.strip_prefix(OURS)?.strip_prefix("views for reports, form ")?;
    let (form, version) = rest.split_once(", of schema version ")?;
    Some((form.parse().ok()?, version.parse().ok()?))
}

/// Makes all of them in one transaction; one that fails leaves the others.
async fn make(client: &ClientWrapper, place: &Place, stored: StoredSchema) -> Result<(), StoreError> {
    let schema = Schema::parse(&stored.text).map_err(|problems| StoreError::Damaged(problems.to_string()))?;
    client.batch_execute(&format!("BEGIN; {LOCK_TIMEOUT}")).await?;
    let lock =
        client.query_one("SELECT pg_try_advisory_xact_lock($1, hashtext(current_schema()))", &[&Lock::Views.key()]).await?;
    if !lock.try_get::<_, bool>(0)? {
        return Ok(());
    }
    if client.query_one("SELECT to_regnamespace($1) IS NULL", &[&identifier(&place.views)]).await?.try_get(0)? {
        client.batch_execute(&format!("CREATE SCHEMA {}", identifier(&place.views))).await?;
    }
    client.batch_execute(&place.functions()).await?;
    let found = found(client, place).await?;
    let mut problems = Vec::new();
    let mut named = BTreeSet::new();
    for (entity, rules) in &schema.entities {
        let name = sql::name(entity.as_str());
        let made = match found.get(&name) {
            Some(false) => Err("something else has its name".to_owned()),
            _ => replace(client, place, &name, &place.view(entity, rules, schema.version)).await?,
        };
        problems.extend(made.err().map(|problem| format!("{name}: {problem}")));
        named.insert(name);
    }
    for gone in found.iter().filter(|(name, is_ours)| **is_ours && !named.contains(*name)).map(|(name, _)| name) {
        let dropped = attempt(client, &format!("DROP VIEW {}", place.at(gone))).await?;
        problems.extend(dropped.err().map(|problem| format!("{gone}: {problem}")));
    }
    if problems.is_empty() {
        let mark = literal(&mark(schema.version));
        client.batch_execute(&format!("COMMENT ON SCHEMA {} IS {mark}", identifier(&place.views))).await?;
        tracing::info!(schema = %place.views, version = schema.version, views = schema.entities.len(), "views for reports made");
    }
    client.batch_execute("COMMIT").await?;
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Postgres(problems.join("; "))) }
}

/// What has a name where the views are, and whether it is one of them.
async fn found(client: &ClientWrapper, place: &Place) -> Result<BTreeMap<String, bool>, StoreError> {
    let sql =
        "SELECT c.relname::text, c.relkind = 'v' AND coalesce(starts_with(obj_description(c.oid, 'pg_class'), $2), false)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1";
    let rows = client.query(sql, &[&place.views, &OURS]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Replaces a view where its columns allow it, because what others built on it stays then; else makes it anew.
async fn replace(client: &ClientWrapper, place: &Place, name: &str, view: &str) -> Result<Result<(), String>, StoreError> {
    if attempt(client, view).await?.is_ok() {
        return Ok(Ok(()));
    }
    attempt(client, &format!("DROP VIEW IF EXISTS {}; {view}", place.at(name))).await
}

/// Runs statements so that, when they fail, what the transaction did before stays.
async fn attempt(client: &ClientWrapper, statements: &str) -> Result<Result<(), String>, StoreError> {
    client.batch_execute("SAVEPOINT view").await?;
    match client.batch_execute(statements).await {
        Ok(()) => {
            client.batch_execute("RELEASE view").await?;
            Ok(Ok(()))
        }
        Err(error) if error.as_db_error().is_some() => {
            client.batch_execute("ROLLBACK TO view").await?;
            Ok(Err(StoreError::from(error).to_string()))
        }
        Err(error) => Err(error.into()),
    }
}
