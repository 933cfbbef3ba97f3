//! What files, flags and the environment say: a server's address, names, tokens, and the device file of a verb.
//!
//! Invariant: a text from outside becomes a typed value here, or a sentence about what is wrong with it. The token is looked
//! up when a request is sent, never earlier, so that a renewed one is used by a running `sync --watch`.

use crate::exit::Failure;
use crate::output::shell_word;
use crate::telemetry;
use anyhow::Result;
use gbsync_client::{BoxFuture, Client, Config, HttpTransport, TokenProvider};
use gbsync_core::id::{Actor, DeviceId, InvalidId, Role, Scope, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_core::wire::ActAs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable that beats every token a device file keeps.
pub const TOKEN_VARIABLE: &str = "GBSYNC_TOKEN";
/// The setting of a device file that holds a token.
pub const TOKEN_SETTING: &str = "token";
/// The setting of a device file that holds the path of a file with a token.
pub const TOKEN_FILE_SETTING: &str = "token-file";
/// The setting of a device file that holds the actor of operations that name none.
pub const ACTOR_SETTING: &str = "actor";

/// Reads the name of a space.
///
/// # Errors
/// What is wrong with it.
pub fn space(text: &str) -> Result<SpaceId, InvalidId> {
    SpaceId::new(text)
}

/// Reads the name of a role.
///
/// # Errors
/// What is wrong with it.
pub fn role(text: &str) -> Result<Role, InvalidId> {
    Role::new(text)
}

/// Reads the name of a person or service.
///
/// # Errors
/// What is wrong with it.
pub fn actor(text: &str) -> Result<Actor, InvalidId> {
    Actor::new(text)
}

/// Reads a device's id.
///
/// # Errors
/// What is wrong with it.
pub fn device(text: &str) -> Result<DeviceId, InvalidId> {
    DeviceId::new(text)
}

/// Reads how long something lasts, such as `30d`, in milliseconds.
///
/// # Errors
/// A sentence when it is none.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let unit_ms: Option<u64> = match unit {
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        "w" => Some(604_800_000),
        _ => None,
    };
    // A hundred years: what is meant to last longer is meant to last for ever.
    let is_sane = |ms: &u64| (1..=100 * 366 * 86_400_000).contains(ms);
    let ms = number.parse::<u64>().ok().zip(unit_ms).and_then(|(number, unit_ms)| number.checked_mul(unit_ms));
    ms.filter(is_sane).ok_or_else(|| "write a number and one of s, m, h, d, w, like 12h or 30d".into())
}

/// Reads whom a token may act as: `*` for everybody whose roles the server knows, or an actor.
///
/// # Errors
/// What is wrong with the name.
pub fn act_as(text: &str) -> Result<ActAs, InvalidId> {
    if text == "*" { Ok(ActAs::Anyone) } else { Ok(ActAs::These([Actor::new(text)?].into())) }
}

/// Reads the name of a scope.
///
/// # Errors
/// What is wrong with the name.
pub fn scope(text: &str) -> Result<Scope, InvalidId> {
    Scope::new(text)
}

/// Reads a server's address, without the slash at its end.
///
/// # Errors
/// A sentence when it is no http or https URL.
pub fn server_url(text: &str) -> Result<String, String> {
    let example = "write it like http://127.0.0.1:4680 or https://sync.example.com";
    let url = reqwest::Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("the server must be an http or https URL; {example}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("the URL must end with the path, without ? and #; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not hold a name or password; give a token with --token-file".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A device's database, opened for a verb.
pub struct DeviceFile {
    /// The database.
    pub client: Client,
    /// Where it is.
    pub path: PathBuf,
}

impl DeviceFile {
    /// Opens a file that `gbsync init` has set up.
    ///
    /// # Errors
    /// A failure that says what to do; the file is untouched.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            let failure = Failure::new("file_not_found", format!("{} does not exist", path.display()));
            let file = shell_word(&path.display().to_string());
            let help = format!("gbsync init {file} --server URL --space SPACE makes it");
            return Err(failure.help(help).into());
        }
        let open = |actor| Client::open(Config { actor, ..Config::new(path) }).map_err(|error| client_failure(&error));
        let mut client = open(None)?;
        // Who makes the operations is written in the file itself, so it takes a first look to know.
        if let Some(name) = client.setting(ACTOR_SETTING).map_err(|error| client_failure(&error))? {
            client = open(Some(actor(&name)?))?;
        }
        Ok(Self { client, path: path.to_owned() })
    }

    /// The transport to the file's server, with the token of the moment.
    ///
    /// # Errors
    /// A failure that says what to do.
    pub fn transport(&self) -> Result<HttpTransport> {
        let remote = self.client.remote().map_err(|error| client_failure(&error))?;
        let tokens = StoredToken { client: self.client.clone() };
        HttpTransport::new(&remote.server, Arc::new(tokens))
            .map(|transport| transport.with_trace_parent(telemetry::trace_parent))
            .map_err(|error| Failure::new("transport", error.to_string()).into())
    }
}

/// Finds the token each time one is sent: the environment, then the file's setting, then the file that a setting names.
struct StoredToken {
    client: Client,
}

impl StoredToken {
    fn find(&self) -> Option<String> {
        if let Some(token) = environment_token() {
            return Some(token);
        }
        let setting =
            |key| self.client.setting(key).inspect_err(|error| tracing::warn!(%error, "the token cannot be read")).ok();
        if let Some(token) = setting(TOKEN_SETTING).flatten() {
            return Some(token);
        }
        let path = setting(TOKEN_FILE_SETTING).flatten()?;
        token_in_file(Path::new(&path)).inspect_err(|failure| tracing::warn!("{failure}")).ok()
    }
}

impl TokenProvider for StoredToken {
    fn token(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { self.find() })
    }
}

/// The environment's token, if there is one.
pub fn environment_token() -> Option<String> {
    std::env::var(TOKEN_VARIABLE).ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Reads a file that holds a token and nothing else.
///
/// # Errors
/// A failure when it cannot be read or is empty.
pub fn token_in_file(path: &Path) -> Result<String, Failure> {
    let unusable = |reason: String| {
        let failure = Failure::new("token_file", format!("the token file {} {reason}", path.display()));
        failure.help("write the token into it: gbsync token create --data DIR --space SPACE > FILE")
    };
    let text = std::fs::read_to_string(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(unusable("is empty".into()));
    }
    Ok(token.to_owned())
}

/// What the client says of a device file, as a failure: its sentences already say what to do.
pub fn client_failure(error: &gbsync_client::Error) -> Failure {
    Failure::new(error.code(), error.to_string())
}

/// What the server says of its folder or address, as a failure: its sentences already say what to do.
pub fn server_failure(error: &gbsync_server::ServerError) -> Failure {
    use gbsync_server::ServerError;
    let code = match error {
        ServerError::DataFolder { .. } => "data_folder",
        ServerError::Locked { .. } => "locked",
        ServerError::AddressInUse { .. } => "address_in_use",
        ServerError::Listen { .. } => "listen",
        ServerError::NoStore { .. } => "no_store",
        ServerError::NoSpace { .. } => "no_space",
        ServerError::Keys { .. } => "keys",
        ServerError::AmbiguousToken { .. } => "ambiguous_token",
        ServerError::Backup { .. } => "backup",
        ServerError::NoSchema => "no_schema",
        ServerError::NoArchive => "no_archive",
        ServerError::SnapshotFolder { .. } => "snapshot_folder",
        ServerError::SchemaOlder { .. } => "schema_older",
        ServerError::SchemaChanged { .. } => "schema_changed",
        ServerError::Store(_) => "store",
        _ => "server",
    };
    Failure::new(code, error.to_string())
}

/// Reads a schema from a file.
///
/// # Errors
/// A failure with every problem, its line and its column.
pub fn schema_file(path: &Path) -> Result<Schema, Failure> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new("schema_file", format!("{file} cannot be read: {error}")))?;
    Schema::parse(&text).map_err(|problems| {
        let failure = Failure::new("schema", format!("{file} is not a schema"));
        let failure = problems.iter().fold(failure, |failure, problem| failure.detail(problem.in_file(&file)));
        failure.help(format!("mend it; gbsync check {} shows what is left", shell_word(&file)))
    })
}

/// Resolves when the process is asked to stop: Ctrl-C or SIGTERM. The handlers stand when this returns.
///
/// # Errors
/// When the system lets no handler be set.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::duration_ms;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(
            ["90s", "15m", "12h", "30d", "2w"].map(duration_ms),
            [90_000, 900_000, 43_200_000, 2_592_000_000, 1_209_600_000].map(Ok)
        );
        for text in ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "1y", "99999999999w", "٣d"] {
            assert!(duration_ms(text).is_err(), "{text:?}");
        }
    }
}
