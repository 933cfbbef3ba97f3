//! Peak memory of client and server while a long outbox drains, each a process of its own, beside a tenth of that outbox:
//! memory that does not grow with the queue is the same in both.

use super::push::fill;
use super::report::{Bar, Figure};
use super::rows::{RECORDS, sales};
use super::{Folders, Sizes};
use crate::commands::demo::station::new_device;
use crate::config::{TOKEN_SETTING, client_failure, server_failure};
use anyhow::{Context, Result, anyhow, bail};
use gbsync_client::{Durability, Remote};
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, StoreLocation, Tokens};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How often the kernel is asked for the peak.
const POLL: Duration = Duration::from_millis(10);
/// Sales put into the outbox at a time, so that filling it keeps nothing in memory either.
const CHUNK: u64 = 2_000;

/// Peaks in MiB and how long draining took.
struct Drained {
    client_mib: f64,
    server_mib: f64,
    seconds: f64,
}

/// Measures memory.
pub(super) async fn measure(sizes: &Sizes, folders: &Folders) -> Result<Vec<Figure>> {
    let (groups, few) = (sizes.outbox_groups, sizes.outbox_groups / 10);
    let small = drain(folders, few).await?;
    let large = drain(folders, groups).await?;
    let peak = |name, ours, raw| {
        let note = format!("peak resident set while {groups} groups drain; raw: while {few} do");
        Figure::new(name, "MiB").ours(ours).raw(raw).bar(Bar::AtMost(150.0)).note(note)
    };
    Ok(vec![
        peak("memory-client", large.client_mib, small.client_mib),
        peak("memory-server", large.server_mib, small.server_mib),
        Figure::new("drain", "records/s")
            .ours((groups * RECORDS) as f64 / large.seconds)
            .raw((few * RECORDS) as f64 / small.seconds)
            .note(format!("pushed and pulled, {groups} groups; raw: {few} groups")),
    ])
}

async fn drain(folders: &Folders, groups: u64) -> Result<Drained> {
    let folder = folders.create()?;
    let (data, file) = (folder.path().join("server"), folder.path().join("device.db"));
    let space = SpaceId::new("bench")?;
    let tokens = Tokens::open(&data).map_err(|error| server_failure(&error))?;
    let new = NewToken::new(space.clone());
    let token = tokens.create(new).map_err(|error| server_failure(&error))?.token;
    drop(tokens);
    let (server, url) = serve(&StoreLocation::from(&data)).await?;
    let device = new_device(&file, &Remote { server: url, space }, Durability::Full)?;
    device.set_setting(TOKEN_SETTING, Some(&token)).map_err(|error| client_failure(&error))?;
    for from in (0..groups).step_by(usize::try_from(CHUNK)?) {
        fill(&device, &sales(1, from, CHUNK.min(groups - from)))?;
    }
    drop(device);
    let started = Instant::now();
    let mut client = gbsync()?.arg("sync").arg(&file).spawn().context("gbsync sync does not start")?;
    let client_mib = peak_until_end(&mut client).await?;
    let seconds = started.elapsed().as_secs_f64();
    let server_mib = peak_mib(&server)?.ok_or_else(|| anyhow!("the server ended early"))?;
    check_arrived(&data, groups)?;
    end(server).await?;
    Ok(Drained { client_mib, server_mib, seconds })
}

/// This program, as another process that ends with this one.
pub(super) fn gbsync() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program's file cannot be found")?);
    command.kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null());
    // What this process was given for its own devices is not for these.
    command.env_remove(crate::config::TOKEN_VARIABLE);
    Ok(command)
}

/// A server that is a process of its own, and its URL.
pub(super) async fn serve(store: &StoreLocation) -> Result<(Child, String)> {
    let mut command = gbsync()?;
    command.arg("serve");
    match store {
        StoreLocation::Folder(data) => command.arg("--data").arg(data),
        StoreLocation::Postgres(url) => command.arg("--store").arg(url),
    };
    command.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().context("gbsync serve does not start")?;
    let stdout = server.stdout.take().context("the server's output is not connected")?;
    let line = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
    let url = line.strip_prefix("listening on ").with_context(|| format!("gbsync serve said {line:?}"))?;
    Ok((server, url.to_owned()))
}

pub(super) async fn peak_until_end(client: &mut Child) -> Result<f64> {
    let mut peak: f64 = 0.0;
    loop {
        if let Some(mib) = peak_mib(client)? {
            peak = peak.max(mib);
        }
        match client.try_wait()? {
            None => tokio::time::sleep(POLL).await,
            Some(status) if status.success() => return Ok(peak),
            Some(status) => bail!("gbsync sync ended with {status}"),
        }
    }
}

/// The highest resident set so far; `None` once the process is gone.
pub(super) fn peak_mib(process: &Child) -> Result<Option<f64>> {
    status_mib(process, "VmHWM:")
}

/// The resident set of the moment; `None` once the process is gone.
pub(super) fn resident_mib(process: &Child) -> Result<Option<f64>> {
    status_mib(process, "VmRSS:")
}

fn status_mib(process: &Child, name: &str) -> Result<Option<f64>> {
    let Some(id) = process.id() else { return Ok(None) };
    let path = format!("/proc/{id}/status");
    let status = match std::fs::read_to_string(&path) {
        Ok(status) => status,
        Err(_) if Path::new("/proc/self/status").exists() => return Ok(None),
        Err(error) => bail!("memory is read from {path}, which this system does not have: {error}; use --only for the rest"),
    };
    let kib =
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    Ok(kib.map(|kib| kib / 1024.0))
}

fn check_arrived(data: &Path, groups: u64) -> Result<()> {
    let digest = gbsync_server::space_digest(data, &SpaceId::new("bench")?).map_err(|error| server_failure(&error))?;
    if digest.records != groups * RECORDS {
        bail!("{} of {} records arrived", digest.records, groups * RECORDS);
    }
    Ok(())
}

/// Stops the server as its supervisor would not: everything it acknowledged is durable, and its folder goes next.
pub(super) async fn end(mut server: Child) -> Result<()> {
    server.kill().await.context("the server does not end")
}
