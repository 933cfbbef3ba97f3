//! `gbsync serve`: the server, on one folder, until it is told to stop.
//!
//! Invariant: `listening on http://…` is printed, and handed over, only when requests are answered; a signal ends the process
//! with code 0 after every acknowledged push is durable.

use crate::config;
use crate::exit::Exit;
use crate::output::{Output, shell_word};
use anyhow::{Context, Result};
use gbsync_server::{Server, ServerConfig};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const EXAMPLE: &str = "\
Examples:
  gbsync serve --data ./server
  gbsync serve --data ./server --listen 0.0.0.0:4680

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
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do: the address is taken, the folder cannot be used.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let signal = config::stop_signal()?;
    let is_new = !arguments.data.join("gbsync.db").exists();
    let config = ServerConfig { listen: arguments.listen, ..ServerConfig::new(&arguments.data) };
    let server = Server::start(config).await.map_err(|error| config::server_failure(&error))?;
    if output.is_json() {
        output.json(&json!({ "listening": server.url() }));
    } else {
        output.line(format_args!("listening on {}", server.url()));
    }
    output.flush();
    if is_new {
        output.note(next_steps(&arguments.data, &server.url())?);
    }
    signal.await;
    output.note("stopping: requests under way are finished first");
    server.stop().await.map_err(|error| config::server_failure(&error))?;
    Ok(Exit::Done)
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
