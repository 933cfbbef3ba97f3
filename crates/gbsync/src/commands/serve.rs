//! `gbsync serve`: the server, on one folder, until it is told to stop.
//!
//! Invariant: `listening on http://…` is printed, and handed over, only when requests are answered; a signal ends the process
//! with code 0 after every acknowledged push is durable.

mod limits;

use crate::config;
use crate::exit::Exit;
use crate::output::{Output, shell_word};
use anyhow::{Context, Result};
use gbsync_server::{Server, ServerConfig};
use limits::LimitArguments;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};

const EXAMPLE: &str = "\
Examples:
  gbsync serve --data ./server
  gbsync serve --data ./server --listen 0.0.0.0:4680
  gbsync serve --data ./server --schema gbsync.toml
  gbsync serve --data ./server --request-bytes 262144 --group-records 50000

With --schema, operations must look like the file says; the folder keeps it, so that it holds without the argument too. A \
changed file needs a higher version. SIGHUP reads the file again; one that is wrong is reported and changes nothing.

Ctrl-C or SIGTERM stops it: requests under way are answered first. Everything is in the folder; nothing else is needed.";

/// Run a server on a folder, which is made if it is not there
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The folder with everything the server keeps
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4680")]
    listen: SocketAddr,
    /// What operations must look like: a file in TOML or JSON
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do: the address is taken, the folder cannot be used.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let stop = config::stop_signal()?;
    let is_new = !arguments.data.join("gbsync.db").exists();
    let mut hangups = match &arguments.schema {
        Some(_) => Some(signal(SignalKind::hangup())?),
        // Without a file to read again it ends the process, as ever.
        None => None,
    };
    let limits = arguments.limits.limits()?;
    let schema = arguments.schema.as_deref().map(config::schema_file).transpose()?;
    let config = ServerConfig { listen: arguments.listen, limits, schema, ..ServerConfig::new(&arguments.data) };
    let server = Server::start(config).await.map_err(|error| config::server_failure(&error))?;
    if output.is_json() {
        output.json(&json!({ "listening": server.url() }));
    } else {
        output.line(format_args!("listening on {}", server.url()));
    }
    output.flush();
    if let Some((version, since)) = server.schema() {
        let kept = if arguments.schema.is_none() { "; the folder keeps it" } else { "" };
        output.note(format_args!("schema version {version} in force since {since}{kept}"));
    }
    if is_new {
        output.note(next_steps(&arguments.data, &server.url())?);
    }
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = hangup(&mut hangups) => reload(&server, arguments.schema.as_deref(), output).await,
        }
    }
    output.note("stopping: requests under way are finished first");
    server.stop().await.map_err(|error| config::server_failure(&error))?;
    Ok(Exit::Done)
}

/// Resolves at each SIGHUP; never where it is not listened for.
async fn hangup(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => std::future::pending().await,
    }
}

/// Puts what the file says now in force; whatever is wrong with it is said, and the server goes on as before.
async fn reload(server: &Server, path: Option<&Path>, output: &Output) {
    let Some(path) = path else { return };
    let adopted = match config::schema_file(path) {
        Ok(schema) => server.adopt_schema(schema).await.map_err(|error| config::server_failure(&error)),
        Err(failure) => Err(failure),
    };
    let version = server.schema().map_or(0, |(version, _)| version);
    match adopted {
        Ok(()) => output.note(format_args!("schema version {version} in force")),
        Err(failure) => {
            output.failure(&failure);
            output.note(format_args!("schema version {version} stays in force"));
        }
    }
}

/// The commands that make a first device, to paste into another terminal.
fn next_steps(data: &Path, url: &str) -> Result<String> {
    let data = std::path::absolute(data).context("the current folder cannot be found")?;
    let program = std::env::args().next().unwrap_or_else(|| "gbsync".into());
    let program = if program.contains('/') { absolute_text(Path::new(&program))? } else { program };
    let (program, data) = (shell_word(&program), shell_word(&data.display().to_string()));
    Ok(format!(
        "the folder is new; to go on, paste this into another terminal:\n  \
         TOKEN=$({program} token create --data {data} --space shop)\n  \
         {program} init till.db --server {url} --space shop --token \"$TOKEN\"\n  \
         {program} sync till.db"
    ))
}

fn absolute_text(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).context("the current folder cannot be found")?;
    Ok(path.display().to_string())
}
