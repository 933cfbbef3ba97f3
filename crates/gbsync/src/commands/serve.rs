//! `gbsync serve`: the server, on one folder or one of several on a database, until it is told to stop.
//!
//! Invariant: `listening on http://…` is printed, and handed over, only when requests are answered; a signal ends the process
//! with code 0 after every acknowledged push is durable.

mod auth;
mod edge;
mod file;
mod limits;
mod settings;

use super::store::{self, StoreArguments};
use crate::config;
use crate::exit::Exit;
use crate::log;
use crate::output::{Output, shell_word};
use crate::telemetry::Telemetry;
use anyhow::{Context, Result};
use auth::AuthArguments;
use gbsync_server::{Server, ServerConfig, StoreLocation};
use limits::LimitArguments;
use serde_json::json;
use settings::{Settings, Value};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What collectors call a server.
const SERVICE: &str = "gbsync-server";

const EXAMPLE: &str = "\
Examples:
  gbsync serve --data ./server
  gbsync serve --data ./server --listen 0.0.0.0:4680
  gbsync serve --data ./server --schema gbsync.toml
  gbsync serve --store postgres://gbsync@db.example.com/shops --listen 0.0.0.0:4680
  gbsync serve --data ./server --request-bytes 262144 --group-records 50000
  gbsync serve --config server.toml
  gbsync serve --data ./server --print-config > server.toml

With --schema, operations must look like the file says; the folder keeps it, so that it holds without the argument too. A \
changed file needs a higher version. SIGHUP reads it and the certificate again; one that is wrong is reported and changes nothing.

Ctrl-C or SIGTERM stops it: requests under way are answered first. Behind a load balancer set drain_delay_ms in the file: for so \
long it goes on answering while /readyz says 503. Everything is in the folder; nothing else is needed. Any \
number of servers may run on one database (PostgreSQL 15 or newer).";

/// Run a server on a folder, which is made if it is not there, or on a PostgreSQL database
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// What the server is told, in TOML; flags beat it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print what the server would be told, and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    store: StoreArguments,
    /// The address to listen on; port 0 takes a free one [default: 127.0.0.1:4680]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The address on which metrics are told; nowhere when absent
    #[arg(long, value_name = "ADDR")]
    metrics_listen: Option<SocketAddr>,
    /// Where spans are sent, by OTLP over HTTP, like http://127.0.0.1:4318/v1/traces; without it where OTEL_EXPORTER_OTLP_ENDPOINT says
    #[arg(long, value_name = "URL")]
    telemetry_endpoint: Option<String>,
    /// What operations must look like: a file in TOML or JSON
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    auth: AuthArguments,
}

impl Arguments {
    /// Flags over the file over defaults.
    fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::read(self.config.as_deref())?;
        let text = |path: &PathBuf| Value::Text(path.display().to_string());
        settings.choose(self.store.named());
        settings.set("listen", self.listen.map(|listen| Value::Text(listen.to_string())));
        settings.set("metrics.listen", self.metrics_listen.map(|listen| Value::Text(listen.to_string())));
        settings.set("telemetry.endpoint", self.telemetry_endpoint.clone().map(Value::Text));
        settings.set("schema", self.schema.as_ref().map(text));
        self.limits.set(&mut settings);
        self.auth.set(&mut settings);
        Ok(settings)
    }
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do: the address is taken, the folder cannot be used.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    // Before anything else: from here on it never ends the process, also where there is nothing to read again.
    let hangups = signal(SignalKind::hangup())?;
    let settings = arguments.settings()?;
    if arguments.print_config {
        output.line(settings.to_toml().trim_end());
        return Ok(Exit::Done);
    }
    let per_mille = settings.number_if_said("telemetry.per_mille");
    let telemetry = match settings.text("telemetry.endpoint") {
        Some(endpoint) => Telemetry::start(endpoint, per_mille, SERVICE)?,
        None => Telemetry::of_environment(per_mille, SERVICE, output),
    };
    let filter = settings.text("log.filter").unwrap_or(log::FILTER);
    log::start(filter, settings.text("log.format") == Some("json"), telemetry.as_ref());
    let ended = serve(settings, hangups, output).await;
    if let Some(telemetry) = telemetry {
        tokio::task::spawn_blocking(move || telemetry.end()).await.context("the last spans")?;
    }
    ended
}

/// Serves until a signal comes.
async fn serve(settings: Settings, mut hangups: Signal, output: &Output) -> Result<Exit> {
    let stop = config::stop_signal()?;
    let (store, schema_path) = (settings.store()?, settings.text("schema").map(PathBuf::from));
    let is_new = store.folder().is_some_and(|folder| !folder.join("gbsync.db").exists());
    let has_files = schema_path.is_some() || settings.text("tls.certificate").is_some();
    let schema = schema_path.as_deref().map(config::schema_file).transpose()?;
    let config = ServerConfig { schema, ..settings.server()? };
    let server = Server::start(config).await.map_err(|error| config::server_failure(&error))?;
    if output.is_json() {
        output.json(&json!({ "listening": server.url() }));
    } else {
        output.line(format_args!("listening on {}", server.url()));
    }
    if let Some(address) = server.metrics_addr() {
        output.note(format_args!("metrics on http://{address}/metrics"));
    }
    output.flush();
    if let Some((version, since)) = server.schema() {
        let kept = if schema_path.is_none() { "; the store keeps it" } else { "" };
        output.note(format_args!("schema version {version} in force since {since}{kept}"));
    }
    if is_new {
        output.note(next_steps(&store, &server.url())?);
    }
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(()) = hangups.recv() => match has_files {
                true => reload(&server, schema_path.as_deref(), output).await,
                false => output.note("SIGHUP: neither a schema nor a certificate is a file, so there is nothing to read again"),
            },
        }
    }
    output.note("stopping: requests under way are finished first");
    server.stop().await.map_err(|error| config::server_failure(&error))?;
    Ok(Exit::Done)
}

/// Puts what the files say now in force; whatever is wrong with them is said, and the server goes on as before.
async fn reload(server: &Server, path: Option<&Path>, output: &Output) {
    if let Err(error) = server.reload_tls() {
        output.failure(&config::server_failure(&error));
        output.note("the certificate before stays in use");
    }
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
fn next_steps(location: &StoreLocation, url: &str) -> Result<String> {
    let program = std::env::args().next().unwrap_or_else(|| "gbsync".into());
    let program = if program.contains('/') { absolute_text(Path::new(&program))? } else { program };
    let (program, store) = (shell_word(&program), store::argument(location));
    Ok(format!(
        "the folder is new; to go on, paste this into another terminal:\n  \
         TOKEN=$({program} token create {store} --space shop)\n  \
         {program} init till.db --server {url} --space shop --token \"$TOKEN\"\n  \
         {program} sync till.db"
    ))
}

fn absolute_text(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).context("the current folder cannot be found")?;
    Ok(path.display().to_string())
}
