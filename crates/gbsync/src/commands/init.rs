//! `gbsync init`: makes a database a device of a space. Nothing is asked of the server, so it works offline.
//!
//! Invariant: a file that belongs to another space is refused untouched; doing it again for the same space only renews the
//! token, so that a script may repeat it.

use crate::config::{self, ACTOR_SETTING, TOKEN_FILE_SETTING, TOKEN_SETTING, client_failure};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Error, Remote};
use gbsync_core::id::{Actor, SpaceId};
use serde_json::json;
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync init till.db --server http://127.0.0.1:4680 --space shop --token TOKEN
  gbsync init till.db --server https://sync.example.com --space shop --token-file /run/secrets/gbsync --actor cashier-7
  gbsync init till.db --server http://127.0.0.1:4680 --space shop --schema gbsync.toml

FILE may be new, or an SQLite database of the app. A token given by --token or GBSYNC_TOKEN is kept in the file; of \
--token-file only the path is. GBSYNC_TOKEN beats both at sync.

With --schema every entity of it has a real table at once. Run again with a newer one: groups that wait are kept and \
understood under both.";

/// Make a database a device of a space; works offline
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The device's database: a new file, or the app's
    file: PathBuf,
    /// The server, e.g. http://127.0.0.1:4680
    #[arg(long, value_name = "URL", value_parser = config::server_url)]
    server: String,
    /// The space
    #[arg(long, value_parser = config::space)]
    space: SpaceId,
    /// The token to keep in the file
    #[arg(long, value_name = "T", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token, read at each sync
    #[arg(long, value_name = "F")]
    token_file: Option<PathBuf>,
    /// What operations must look like; the file keeps it
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The person or service that operations are made by
    #[arg(long, value_name = "NAME", value_parser = config::actor)]
    actor: Option<Actor>,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do; the file is untouched.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let token = TokenSetting::from(arguments)?;
    let remote = Remote { server: arguments.server.clone(), space: arguments.space.clone() };
    let schema = arguments.schema.as_deref().map(config::schema_file).transpose()?;
    let with_schema = Config { schema, ..Config::new(&arguments.file) };
    let (client, is_new) = match Client::create(with_schema.clone(), &remote) {
        Ok(client) => (client, true),
        Err(Error::AlreadyInitialized { .. }) => (reopened(arguments, &remote, with_schema)?, false),
        Err(error) => return Err(client_failure(&error).into()),
    };
    token.store(&client)?;
    if let Some(actor) = &arguments.actor {
        client.set_setting(ACTOR_SETTING, Some(actor.as_str())).map_err(|error| client_failure(&error))?;
    }
    let version = client.schema().map(|schema| schema.version);
    report(arguments, &token, is_new, version, output);
    Ok(Exit::Done)
}

fn reopened(arguments: &Arguments, remote: &Remote, with_schema: Config) -> Result<Client> {
    // Whose file it is comes first: another space's keeps its schema too.
    let client = Client::open(Config::new(&arguments.file)).map_err(|error| client_failure(&error))?;
    let present = client.remote().map_err(|error| client_failure(&error))?;
    if present.server == remote.server && present.space == remote.space {
        if with_schema.schema.is_none() {
            return Ok(client);
        }
        drop(client);
        return Client::open(with_schema).map_err(|error| client_failure(&error).into());
    }
    let (file, server, space) = (arguments.file.display(), present.server, present.space);
    let failure = Failure::new("already_initialized", format!("{file} already belongs to space {space} on {server}"));
    Err(failure.help("name another file: a database belongs to one space for ever").into())
}

fn report(arguments: &Arguments, token: &TokenSetting, is_new: bool, version: Option<u64>, output: &Output) {
    let (file, space, server) = (arguments.file.display(), &arguments.space, &arguments.server);
    if output.is_json() {
        let mut line = json!({ "file": file.to_string(), "server": server, "space": space.as_str(), "isNew": is_new });
        if let Some(version) = version {
            line["schemaVersion"] = version.into();
        }
        return output.json(&line);
    }
    if is_new {
        output.note(format_args!("{file} is now a device of space {space} on {server}"));
    } else {
        output.note(format_args!("{file} already is a device of space {space} on {server}; {}", token.outcome()));
    }
    if let Some(version) = version.filter(|_| arguments.schema.is_some()) {
        output.note(format_args!("its tables follow schema version {version}"));
    }
    if is_new && matches!(token, TokenSetting::None) {
        output.note("no token yet: set GBSYNC_TOKEN at sync, or run this again with --token or --token-file");
    }
}

/// What the arguments and the environment say about a token.
enum TokenSetting {
    Text(String),
    File(String),
    None,
}

impl TokenSetting {
    fn from(arguments: &Arguments) -> Result<Self> {
        if let Some(path) = &arguments.token_file {
            config::token_in_file(path)?;
            let path = std::path::absolute(path).context("the current folder cannot be found")?;
            let path = path.to_str().context("the path of the token file must be UTF-8")?;
            return Ok(Self::File(path.to_owned()));
        }
        let text = arguments.token.as_deref().map(|token| token.trim().to_owned()).or_else(config::environment_token);
        match text {
            Some(text) if text.is_empty() => Err(Failure::new("usage", "the token is empty")
                .help("gbsync token create prints one")
                .exit(Exit::Usage)
                .into()),
            Some(text) => Ok(Self::Text(text)),
            None => Ok(Self::None),
        }
    }

    /// Keeps the token; of two ways to give one only the last stands.
    fn store(&self, client: &Client) -> Result<()> {
        let (text, file) = match self {
            Self::Text(text) => (Some(text.as_str()), None),
            Self::File(path) => (None, Some(path.as_str())),
            Self::None => return Ok(()),
        };
        client.set_setting(TOKEN_SETTING, text).map_err(|error| client_failure(&error))?;
        client.set_setting(TOKEN_FILE_SETTING, file).map_err(|error| client_failure(&error))?;
        Ok(())
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::File(_) => "its token is renewed",
            Self::None => "nothing changed",
        }
    }
}
