//! A snapshot into a new device: how fast, in how much memory on both sides, and how long an app that writes meanwhile waits.
//!
//! The store is filled with its records directly, as one whose log has left for an archive: pushing a million would measure
//! pushing. Making the file is part of what is measured: it is removed before each round.

use super::memory::{end, gbsync, peak_mib, peak_until_end, serve};
use super::raw::Raw;
use super::report::{Bar, Figure, median};
use super::rows::{RECORDS, Row, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::{new_device, new_device_with};
use crate::config::{TOKEN_SETTING, client_failure, server_failure};
use anyhow::{Context, Result, anyhow, bail};
use gbsync_client::{Client, Durability, FixedToken, HttpTransport, Remote, SyncOptions};
use gbsync_core::change::Payload;
use gbsync_core::digest::Digest;
use gbsync_core::id::SpaceId;
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, StoreLocation, Tokens};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the app writes.
const PAUSE: Duration = Duration::from_millis(5);
/// Sales that are made at a time.
const CHUNK: u64 = 10_000;

/// What a round came to.
struct Loaded {
    seconds: f64,
    client_mib: f64,
    server_mib: f64,
}

/// Measures snapshots.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let folder = folders.create()?;
    let rows = rows(sizes.snapshot_records / RECORDS);
    let records = rows.len() as f64;
    let (data, space) = (folder.path().join("server"), SpaceId::new("bench")?);
    let token = fill(&data, &space, &rows)?;
    let rows_each = rows_of_a_frame(&rows);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let (mut client_mib, mut server_mib): (f64, f64) = (0.0, 0.0);
    for round in 0..sizes.rounds.min(3) {
        let file = folder.path().join(format!("device-{round}.db"));
        let loaded = load(&data, &space, &token, &file, rows.len() as u64).await?;
        ours.push(records / loaded.seconds);
        (client_mib, server_mib) = (client_mib.max(loaded.client_mib), server_mib.max(loaded.server_mib));
        let mut baseline = Raw::create(&folder.path().join(format!("raw-{round}.db")), Durability::Full)?;
        raw.push(records / baseline.insert_rows(&rows, rows_each)?.as_secs_f64());
    }
    drop(rows);
    let app = |name: &str, schema| App { data: &data, space: &space, token: &token, file: folder.path().join(name), schema };
    let untyped = app("app.db", None).write_meanwhile().await?;
    let typed = app("typed.db", Some(super::typed::schema()?)).write_meanwhile().await?;
    let peak = |name, mib| Figure::new(name, "MiB").ours(mib).bar(Bar::AtMost(200.0));
    Ok(vec![
        Figure::new("snapshot", "records/s")
            .ours(median(&mut ours))
            .raw(median(&mut raw))
            .bar(Bar::RatioAtLeast(0.3))
            .note(format!(
                "{records} records into a new device, the file made too; raw: the same rows in order into the same kind of table, \
                 {rows_each} a durable transaction, as the device stores them"
            )),
        peak("snapshot-client", client_mib).note("peak resident set of the device"),
        peak("snapshot-server", server_mib).note("peak resident set of the server"),
        untyped.figure("snapshot-wait", "without typed tables"),
        typed.figure("snapshot-typed-wait", "into typed tables, each filled beside the one in use and exchanged"),
    ])
}

/// About how many rows a frame of a snapshot has: what a device stores in one transaction.
fn rows_of_a_frame(rows: &[Row]) -> usize {
    const FRAME_BYTES: usize = 256 * 1024;
    // The names of a line's members, and its versions.
    const LINE_BYTES: usize = 64;
    let bytes: usize = rows.iter().map(|row| LINE_BYTES + row.entity.len() + row.id.len() + row.payload.len()).sum();
    (rows.len() * FRAME_BYTES / bytes.max(1)).max(1)
}

/// The rows of so many sales, in the order of their keys: what a snapshot has, and the best for the baseline.
fn rows(count: u64) -> Vec<Row> {
    let chunks = (0..count).step_by(usize::try_from(CHUNK).unwrap_or(usize::MAX));
    let sold = chunks.flat_map(|from| sales(1, from, CHUNK.min(count - from)));
    let mut rows: Vec<Row> = sold.flat_map(|sale| sale.rows).collect();
    rows.sort_by(|a, b| (a.entity, &a.id).cmp(&(b.entity, &b.id)));
    rows
}

/// A store with these records and a log that has nothing any more; its token.
fn fill(data: &Path, space: &SpaceId, rows: &[Row]) -> Result<String> {
    let tokens = Tokens::open(data).map_err(|error| server_failure(&error))?;
    let token = tokens.create(NewToken::new(space.clone())).map_err(|error| server_failure(&error))?.token;
    drop(tokens);
    let mut store = Connection::open(data.join("gbsync.db"))?;
    let tx = store.transaction()?;
    let sql = "INSERT INTO records (space_no, entity, id, version, edit_version, payload) VALUES (1, ?1, ?2, 1, 1, ?3)";
    let mut insert = tx.prepare(sql)?;
    for row in rows {
        let payload = Payload::parse(&row.payload, &Limits::default()).map_err(|error| anyhow!("{error}"))?;
        insert.execute([row.entity, &row.id, payload.as_str()])?;
    }
    drop(insert);
    let chain = Digest::of(b"bench");
    let sql = "UPDATE spaces SET head = 1, chain = ?1, horizon = 1, horizon_chain = ?1";
    tx.execute(sql, params![chain.as_bytes()])?;
    tx.commit()?;
    Ok(token.to_string())
}

async fn load(data: &Path, space: &SpaceId, token: &str, file: &Path, records: u64) -> Result<Loaded> {
    forget_snapshots(data)?;
    let (server, url) = serve(&StoreLocation::from(data)).await?;
    let device = new_device(file, &Remote { server: url, space: space.clone() }, Durability::Full)?;
    device.set_setting(TOKEN_SETTING, Some(token)).map_err(|error| client_failure(&error))?;
    let started = Instant::now();
    let mut client = gbsync()?.arg("sync").arg(file).spawn().context("gbsync sync does not start")?;
    let client_mib = peak_until_end(&mut client).await?;
    let seconds = started.elapsed().as_secs_f64();
    let server_mib = peak_mib(&server)?.ok_or_else(|| anyhow!("the server ended early"))?;
    check(&device, records)?;
    drop(device);
    end(server).await?;
    Ok(Loaded { seconds, client_mib, server_mib })
}

fn forget_snapshots(data: &Path) -> Result<()> {
    let folder = data.join("snapshots");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    Ok(())
}

fn check(device: &Client, records: u64) -> Result<()> {
    let digest = device.digest().map_err(|error| client_failure(&error))?;
    if digest.records != records {
        bail!("{} of {records} records arrived", digest.records);
    }
    Ok(())
}

/// An app that writes while its device loads.
struct App<'a> {
    data: &'a Path,
    space: &'a SpaceId,
    token: &'a str,
    file: PathBuf,
    schema: Option<Schema>,
}

/// How long its writes took.
struct Waits {
    longest: Duration,
    writes: u64,
    seconds: f64,
}

impl Waits {
    fn figure(&self, name: &'static str, how: &str) -> Figure {
        let Self { longest, writes, seconds } = self;
        Figure::new(name, "ms")
            .ours(longest.as_secs_f64() * 1_000.0)
            .bar(Bar::AtMost(100.0))
            .note(format!("the longest of {writes} writes of an app in {seconds:.1} s of loading, {how}"))
    }
}

impl App<'_> {
    async fn write_meanwhile(self) -> Result<Waits> {
        let (server, url) = serve(&StoreLocation::from(self.data)).await?;
        let remote = Remote { server: url.clone(), space: self.space.clone() };
        let device = new_device_with(&self.file, &remote, Durability::Full, self.schema)?;
        let transport =
            HttpTransport::new(&url, Arc::new(FixedToken(self.token.to_owned()))).context("HTTP cannot be set up")?;
        let is_done = Arc::new(AtomicBool::new(false));
        let (app, is_over) = (device.clone(), is_done.clone());
        let writing = std::thread::spawn(move || write_until(&app, &is_over));
        let (syncing, started) = (device.clone(), Instant::now());
        let synced = tokio::task::spawn_blocking(move || syncing.sync_blocking(&transport, &SyncOptions::default())).await;
        let seconds = started.elapsed().as_secs_f64();
        is_done.store(true, Ordering::SeqCst);
        let (longest, writes) = writing.join().map_err(|_| anyhow!("the writing thread ended"))??;
        synced?.map_err(|error| anyhow!("[{}] {error}", error.code()))?;
        end(server).await?;
        Ok(Waits { longest, writes, seconds })
    }
}

fn write_until(app: &Client, is_over: &AtomicBool) -> Result<(Duration, u64)> {
    let (mut longest, mut writes) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let id = format!("product-{writes}");
        let write = |op: &mut gbsync_client::Operation| op.upsert("products", &id, r#"{"name":"Paper roll"}"#);
        app.operation::<gbsync_client::Error>("product", &id, write).map_err(|error| client_failure(&error))?;
        longest = longest.max(begun.elapsed());
        writes += 1;
        std::thread::sleep(PAUSE);
    }
    Ok((longest, writes))
}
