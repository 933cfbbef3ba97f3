//! The tables, and how a database comes to have them: numbered files, each applied once.
//!
//! Invariant: a step does nothing that a process of the version before minds, so that old processes go on while a newer one
//! brings the database to its format. One process at a time does so.

use super::lock::Lock;
use crate::store::StoreError;
use tokio_postgres::Client;

mod steps {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// Brings the store to the newest format known here; refuses a newer one. `store`: what it is called in sentences.
pub(super) async fn migrate(client: &mut Client, schema: &str, store: &str) -> Result<(), StoreError> {
    client.execute("SELECT pg_advisory_lock($1, hashtext($2))", &[&Lock::Migrate.key(), &schema]).await?;
    let migrated = migrate_alone(client, schema, store).await;
    client.execute("SELECT pg_advisory_unlock($1, hashtext($2))", &[&Lock::Migrate.key(), &schema]).await?;
    migrated
}

async fn migrate_alone(client: &mut Client, schema: &str, store: &str) -> Result<(), StoreError> {
    let row = client.query_one("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", &[&schema]).await?;
    if !row.try_get::<_, bool>(0)? {
        client.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    client.batch_execute(&format!("SET search_path TO \"{schema}\"; SET client_min_messages TO warning")).await?;
    let runner = steps::migrations::runner().set_grouped(false);
    let known = runner.get_migrations().iter().map(|step| i64::from(step.version())).max().unwrap_or(0);
    let failed = |error: refinery::Error| StoreError::Postgres(format!("its tables cannot be made: {error}"));
    let has_any = client.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[]).await?;
    if has_any.try_get::<_, bool>(0)? {
        let applied = runner.get_last_applied_migration_async(client).await.map_err(failed)?;
        let found = applied.map_or(0, |step| i64::from(step.version()));
        if found > known {
            return Err(StoreError::Newer { store: store.into(), found, known });
        }
        if found == known {
            return Ok(());
        }
    }
    runner.run_async(client).await.map_err(failed)?;
    Ok(())
}
