//! Statements are planned once (`connect`), perhaps while every table is empty, and must still find what they look for by its
//! whole key when a space holds millions.
//!
//! Where a table is empty all ways through it cost about the same, and the planner may as well read all of a space for each push,
//! which nobody notices in a test. So a statement looks rows up in a `LATERAL` subquery with `OFFSET 0`, which the planner does not
//! turn round, and here each is planned on empty tables and held to it.
//!
//! Rejected alternative: custom plans. Planning these statements takes longer than running them.

use super::{PostgresStore, fates, index, learn, lineage, load, parts, read, tokens, write, writer};
use crate::store::StoreError;
use deadpool_postgres::ClientWrapper;
use gbsync_cluster::Cluster;
use std::time::Duration;

/// Ways through a table that grow with it, and joins that take all of one side.
const WRONG: [&str; 6] = ["Seq Scan", "Bitmap", "Materialize", "Hash Join", "Merge Join", "Join Filter"];

/// What is read whole: it has a row a version, and belongs to no space.
const WHOLE: &str = " on schemas";

/// The generic plan of a statement.
async fn plan(client: &ClientWrapper, sql: &str) -> Result<Vec<String>, StoreError> {
    client.batch_execute(&format!("PREPARE planned AS {sql}")).await?;
    let values = client.prepare(sql).await?.params().len();
    let values = if values == 0 { String::new() } else { format!("({})", vec!["NULL"; values].join(",")) };
    let rows = client.query(&format!("EXPLAIN (COSTS OFF) EXECUTE planned{values}"), &[]).await?;
    client.batch_execute("DEALLOCATE planned").await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// What is wrong with a plan.
fn faults(plan: &[String]) -> Vec<String> {
    let mut faults: Vec<String> = plan
        .iter()
        .filter(|line| WRONG.iter().any(|wrong| line.contains(wrong)) && !line.ends_with(WHOLE))
        .map(|line| line.trim().to_owned())
        .collect();
    for (place, line) in
        plan.iter().enumerate().filter(|(_, line)| line.contains("Index Scan") || line.contains("Index Only Scan"))
    {
        let behind = |more: usize| plan.get(place + more).map_or("", |line| line.trim());
        let is_by_key = ["space_no = ", "(space = ", "(hash = "].iter().any(|key| behind(1).contains(key));
        let is_filtered = behind(2).starts_with("Filter:") && !behind(2).contains(" IS ");
        if !behind(1).starts_with("Index Cond:") || !is_by_key || is_filtered {
            faults.push(format!("{} / {} / {}", line.trim(), behind(1), behind(2)));
        }
    }
    faults
}

#[test]
fn statements_that_were_planned_on_empty_tables_find_rows_by_their_whole_key() {
    let cluster = Cluster::shared().expect("a PostgreSQL");
    let store = PostgresStore::open(&cluster.store(), Duration::from_secs(5), 1, None).expect("a store");
    let modules = [
        load::PLANNED,
        fates::PLANNED,
        learn::PLANNED,
        write::PLANNED,
        index::PLANNED,
        lineage::PLANNED,
        parts::PLANNED,
        read::PLANNED,
    ];
    let statements = modules.iter().chain(&[tokens::PLANNED, writer::PLANNED]).flat_map(|module| module.iter().copied());
    let found = store.read(async |client| {
        let mut found = Vec::new();
        for sql in statements.clone() {
            let plan = plan(client, sql).await?;
            found.extend(faults(&plan).into_iter().map(|fault| format!("{fault}\n in {sql}")));
        }
        Ok(found)
    });
    let found = found.expect("plans");
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn a_plan_that_reads_all_of_a_space_is_seen() {
    let cluster = Cluster::shared().expect("a PostgreSQL");
    let store = PostgresStore::open(&cluster.store(), Duration::from_secs(5), 1, None).expect("a store");
    let sql = "SELECT r.payload FROM unnest($2::text[]) AS w(id) JOIN records AS r ON r.space_no = $1 AND r.id = w.id";
    let plan = store.read(async |client| plan(client, sql).await).expect("a plan");
    assert!(!faults(&plan).is_empty(), "{plan:?}");
}
