//! What a server is told: flags over a file over defaults, key by key.
//!
//! Invariant: each key stands once in [`KEYS`], is documented in docs/operations.md, and a key that is not there is refused with
//! its place and the nearest one that is. Rejected: deserializing into structs, which stops at the first mistake.

use super::file::{Found, Place, read};
use super::{auth, edge};
use crate::commands::store::of_environment;
use crate::config::duration_ms;
use crate::exit::Failure;
use gbsync_core::limits::Limits;
use gbsync_server::{RetentionConfig, ServerConfig, StoreLocation};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Room that one change needs in a request beside its payload: its names, ids and bases.
const CHANGE_BYTES: u64 = 4 * 1024;

/// How long a stream may be silent, as the protocol promises.
const HEARTBEAT_MOST_MS: u64 = 15_000;

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text that may not be empty.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An integer from this on.
    Number(u64),
}

/// Every key of the file, in the order in which it is printed.
pub const KEYS: &[(&str, Kind)] = &[
    ("data", Kind::Text),
    ("store", Kind::Text),
    ("listen", Kind::Text),
    ("schema", Kind::Text),
    ("writers", Kind::Number(2)),
    ("drain_delay_ms", Kind::Number(0)),
    ("drain_ms", Kind::Number(0)),
    ("upload_expiry_ms", Kind::Number(1)),
    ("heal_window_ms", Kind::Number(0)),
    ("limits.request_bytes", Kind::Number(1)),
    ("limits.group_records", Kind::Number(1)),
    ("limits.group_bytes", Kind::Number(1)),
    ("limits.payload_bytes", Kind::Number(1)),
    ("limits.batch_records", Kind::Number(1)),
    ("limits.batch_bytes", Kind::Number(1)),
    ("live.listeners", Kind::Number(0)),
    ("live.heartbeat_ms", Kind::Number(100)),
    ("live.recheck_ms", Kind::Number(0)),
    ("live.buffered_pages", Kind::Number(1)),
    ("live.page_bytes", Kind::Number(1)),
    ("snapshots.folder", Kind::Text),
    ("snapshots.lag_groups", Kind::Number(0)),
    ("snapshots.keep", Kind::Number(1)),
    ("snapshots.bytes", Kind::Number(1)),
    ("retention.age", Kind::Text),
    ("retention.entries", Kind::Number(1)),
    ("retention.archives", Kind::Text),
    ("retention.archive_bytes", Kind::Number(1)),
    ("retention.every_ms", Kind::Number(1_000)),
    ("net.connections", Kind::Number(1)),
    ("net.header_timeout_ms", Kind::Number(1)),
    ("net.stall_timeout_ms", Kind::Number(1)),
    ("net.trusted_proxies", Kind::Text),
    ("net.forwarded_header", Kind::Word(edge::HEADERS)),
    ("tls.certificate", Kind::Text),
    ("tls.key", Kind::Text),
    ("rate.address_requests", Kind::Number(0)),
    ("rate.address_burst", Kind::Number(1)),
    ("rate.device_requests", Kind::Number(0)),
    ("rate.device_burst", Kind::Number(1)),
    ("rate.space_requests", Kind::Number(0)),
    ("rate.space_burst", Kind::Number(1)),
    ("rate.device_push_bytes", Kind::Number(0)),
    ("rate.space_push_bytes", Kind::Number(0)),
    ("quota.space_records", Kind::Number(0)),
    ("quota.space_bytes", Kind::Number(0)),
    ("quota.device_records_a_day", Kind::Number(0)),
    ("quota.device_bytes_a_day", Kind::Number(0)),
    ("auth.jwt_keys", Kind::Text),
    ("auth.jwt_issuer", Kind::Text),
    ("auth.jwt_audience", Kind::Text),
    ("auth.jwt_lifetime_ms", Kind::Number(1)),
    ("auth.jwt_leeway_ms", Kind::Number(0)),
    ("auth.jwt_refresh_ms", Kind::Number(1)),
    ("auth.spaces_claim", Kind::Text),
    ("auth.roles_claim", Kind::Text),
    ("auth.device_claim", Kind::Text),
    ("auth.act_as_claim", Kind::Text),
    ("auth.scopes_claim", Kind::Text),
    ("metrics.listen", Kind::Text),
    ("telemetry.endpoint", Kind::Text),
    ("telemetry.per_mille", Kind::Number(0)),
    ("log.format", Kind::Word(&["text", "json"])),
    ("log.filter", Kind::Text),
];

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// What a server is told, as far as it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, Value>);

impl Settings {
    /// The defaults, and over them what a file says.
    ///
    /// # Errors
    /// A failure with a line for everything that is wrong in the file.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let mut settings = Self::defaults();
        let Some(path) = path else { return Ok(settings) };
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new("config_file", format!("{file} cannot be read: {error}")))?;
        let mut problems = settings.take(read(&text));
        if problems.is_empty() {
            return Ok(settings);
        }
        problems.sort();
        let failure = Failure::new("config", format!("{file} is no configuration of a server"));
        let line = |(place, problem): (Place, String)| format!("{file}:{}:{}: {problem}", place.line, place.column);
        let failure = problems.into_iter().fold(failure, |failure, problem| failure.detail(line(problem)));
        Err(failure.help("docs/operations.md lists the keys; gbsync serve --print-config prints them with their values"))
    }

    fn defaults() -> Self {
        let config = ServerConfig::new(Path::new(""));
        let ServerConfig { listen, limits, live, snapshots, net, .. } = config;
        let retention = RetentionConfig::default();
        let number = |number: usize| number as u64;
        let numbers = [
            ("writers", number(config.writers)),
            ("drain_delay_ms", config.drain_delay_ms),
            ("drain_ms", config.drain_ms),
            ("upload_expiry_ms", config.upload_expiry_ms),
            ("heal_window_ms", config.heal_window_ms),
            ("limits.request_bytes", limits.request_bytes),
            ("limits.group_records", limits.group_records),
            ("limits.group_bytes", limits.group_bytes),
            ("limits.batch_records", limits.batch_records),
            ("limits.batch_bytes", limits.batch_bytes),
            ("live.listeners", number(live.listeners)),
            ("live.heartbeat_ms", live.heartbeat_ms),
            ("live.recheck_ms", live.recheck_ms),
            ("live.buffered_pages", number(live.buffered_pages)),
            ("live.page_bytes", live.page_bytes),
            ("snapshots.lag_groups", snapshots.lag_groups),
            ("snapshots.keep", number(snapshots.keep)),
            ("snapshots.bytes", snapshots.bytes),
            ("retention.archive_bytes", retention.archive_bytes),
            ("retention.every_ms", retention.every_ms),
            ("net.connections", number(net.connections)),
            ("net.header_timeout_ms", net.header_timeout_ms),
            ("net.stall_timeout_ms", net.stall_timeout_ms),
        ];
        let mut values: BTreeMap<_, _> = numbers.into_iter().map(|(key, number)| (key, Value::Number(number))).collect();
        values.extend(auth::defaults());
        values.extend(edge::defaults());
        values.insert("listen", Value::Text(listen.to_string()));
        values.insert("log.format", Value::Text("text".into()));
        values.insert("log.filter", Value::Text(crate::log::FILTER.into()));
        Self(values)
    }

    /// Takes what a file says; answers what is wrong with it.
    fn take(&mut self, found: Vec<Found>) -> Vec<(Place, String)> {
        let mut problems = Vec::new();
        for Found { key, place, value } in found {
            let value = match value {
                Ok(value) => value,
                Err(problem) => {
                    problems.push((place, problem));
                    continue;
                }
            };
            let Some((key, kind)) = KEYS.iter().find(|(name, _)| *name == key) else {
                problems.push((place, unknown(&key)));
                continue;
            };
            match fits(key, *kind, &value) {
                Ok(()) => drop(self.0.insert(key, value)),
                Err(problem) => problems.push((place, problem)),
            }
        }
        problems
    }

    /// Sets a key where a flag says so.
    pub fn set(&mut self, key: &'static str, value: Option<Value>) {
        debug_assert!(KEYS.iter().any(|(name, _)| *name == key), "{key} is no key");
        self.0.extend(value.map(|value| (key, value)));
    }

    /// A text, if it was said.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number; 0 for one that was not said.
    pub fn number(&self, key: &str) -> u64 {
        self.number_if_said(key).unwrap_or(0)
    }

    /// A number, if it was said.
    pub fn number_if_said(&self, key: &str) -> Option<u64> {
        match self.0.get(key) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn size(&self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    /// Takes the store that flags name in the place of the file's.
    pub fn choose(&mut self, store: Option<StoreLocation>) {
        let Some(store) = store else { return };
        self.0.retain(|key, _| !matches!(*key, "data" | "store"));
        let (key, text) = match store {
            StoreLocation::Folder(folder) => ("data", folder.display().to_string()),
            StoreLocation::Postgres(url) => ("store", url),
        };
        self.0.insert(key, Value::Text(text));
    }

    /// Where the store is: a folder or a database, by the environment where neither flags nor the file say it.
    ///
    /// # Errors
    /// A failure when nobody named it, or the file names two.
    pub fn store(&self) -> Result<StoreLocation, Failure> {
        let usage = |message: &str| {
            let help = "give --data DIR or --store URL, or data = \"DIR\" or store = \"URL\" in the file of --config";
            Failure::new("usage", message).help(help).exit(crate::exit::Exit::Usage)
        };
        match (self.text("data"), self.text("store")) {
            (Some(_), Some(_)) => Err(usage("both a folder and a database are named")),
            (Some(folder), None) => Ok(StoreLocation::Folder(PathBuf::from(folder))),
            (None, Some(url)) => Ok(StoreLocation::Postgres(url.to_owned())),
            (None, None) => of_environment().ok_or_else(|| usage("the store of the server is not named")),
        }
    }

    /// What the server is started with; the schema is read by whoever starts it.
    ///
    /// # Errors
    /// A failure that names the key at fault.
    pub fn server(&self) -> Result<ServerConfig, Failure> {
        let mut config = ServerConfig::new(self.store()?);
        config.listen = self.address("listen")?.unwrap_or(config.listen);
        config.metrics_listen = self.address("metrics.listen")?;
        config.writers = self.size("writers");
        (config.drain_delay_ms, config.drain_ms) = (self.number("drain_delay_ms"), self.number("drain_ms"));
        config.upload_expiry_ms = self.number("upload_expiry_ms");
        config.heal_window_ms = self.number("heal_window_ms");
        config.limits = self.limits()?;
        config.auth = auth::of(self)?;
        config.live.listeners = self.size("live.listeners");
        (config.live.heartbeat_ms, config.live.recheck_ms) =
            (self.number("live.heartbeat_ms"), self.number("live.recheck_ms"));
        if config.live.heartbeat_ms > HEARTBEAT_MOST_MS {
            let message =
                format!("live.heartbeat_ms is {} and may be at most {HEARTBEAT_MOST_MS}", config.live.heartbeat_ms);
            return Err(Failure::new("config", message).help("devices are promised to hear something every 15 s"));
        }
        (config.live.buffered_pages, config.live.page_bytes) =
            (self.size("live.buffered_pages"), self.number("live.page_bytes"));
        config.snapshots.folder = self.text("snapshots.folder").map(PathBuf::from);
        config.snapshots.lag_groups = self.number("snapshots.lag_groups");
        (config.snapshots.keep, config.snapshots.bytes) = (self.size("snapshots.keep"), self.number("snapshots.bytes"));
        edge::take(self, &mut config)?;
        config.retention = self.retention()?;
        config.net.connections = self.size("net.connections");
        (config.net.header_timeout_ms, config.net.stall_timeout_ms) =
            (self.number("net.header_timeout_ms"), self.number("net.stall_timeout_ms"));
        Ok(config)
    }

    /// How long logs are kept; for ever where neither an age nor a number is said.
    fn retention(&self) -> Result<Option<RetentionConfig>, Failure> {
        let age = |text: &str| {
            duration_ms(text).map_err(|problem| Failure::new("config", format!("retention.age: {text:?}: {problem}")))
        };
        let retention = RetentionConfig {
            age_ms: self.text("retention.age").map(age).transpose()?,
            entries: Some(self.number("retention.entries")).filter(|entries| *entries > 0),
            archives: self.text("retention.archives").map(PathBuf::from),
            archive_bytes: self.number("retention.archive_bytes"),
            every_ms: self.number("retention.every_ms"),
        };
        Ok((retention.age_ms.is_some() || retention.entries.is_some()).then_some(retention))
    }

    fn address(&self, key: &str) -> Result<Option<SocketAddr>, Failure> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let failure = Failure::new("config", format!("{key}: {text:?} is no address with a port"));
            failure.help("write it like 127.0.0.1:4680, or 0.0.0.0:4680 for every interface")
        })
    }

    /// The limits, unless a payload that is allowed would fit no request: then it could be written and never sent.
    fn limits(&self) -> Result<Limits, Failure> {
        let request_bytes = self.number("limits.request_bytes");
        let room = request_bytes.saturating_sub(CHANGE_BYTES);
        let most = || Limits::default().payload_bytes.min(room);
        let payload_bytes = self.number_if_said("limits.payload_bytes").unwrap_or_else(most);
        if payload_bytes > room || payload_bytes == 0 {
            let message = format!("a payload of {payload_bytes} bytes has no room in a request of {request_bytes}");
            let help = format!("--request-bytes must be at least {CHANGE_BYTES} more than --payload-bytes");
            return Err(Failure::new("limits", message).help(help));
        }
        Ok(Limits {
            batch_records: self.number("limits.batch_records"),
            batch_bytes: self.number("limits.batch_bytes"),
            request_bytes,
            group_records: self.number("limits.group_records"),
            group_bytes: self.number("limits.group_bytes"),
            payload_bytes,
        })
    }

    /// The file that says all of this: every key in its section, what was not said as a comment.
    pub fn to_toml(&self) -> String {
        let (mut out, mut section) = (String::new(), "");
        for (key, _) in KEYS {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                out.push_str(&format!("\n[{of}]\n"));
                section = of;
            }
            match self.0.get(key) {
                Some(Value::Text(text)) => out.push_str(&format!("{name} = {}\n", toml_text(text))),
                Some(Value::Number(number)) => out.push_str(&format!("{name} = {number}\n")),
                None => out.push_str(&format!("# {name} =\n")),
            }
        }
        out
    }
}

/// A text in quotes: TOML's basic strings and JSON's agree on what must be escaped.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn unknown(key: &str) -> String {
    let distance = |name: &str| strsim::damerau_levenshtein(key, name);
    let nearest = KEYS.iter().map(|(name, _)| *name).min_by_key(|name| distance(name));
    match nearest.filter(|name| distance(name) <= (key.len() / 3).max(2)) {
        Some(name) => format!("{key} is no key; did you mean {name}?"),
        None => {
            let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            format!("{key} is no key; there are {}", names.join(", "))
        }
    }
}

fn fits(key: &str, kind: Kind, value: &Value) -> Result<(), String> {
    match (kind, value) {
        (Kind::Text, Value::Text(text)) if !text.is_empty() => Ok(()),
        (Kind::Text, _) => Err(format!("{key} must be a text that is not empty")),
        (Kind::Word(words), Value::Text(text)) if words.contains(&text.as_str()) => Ok(()),
        (Kind::Word(words), _) => Err(format!("{key} must be one of {}", words.join(", "))),
        (Kind::Number(least), Value::Number(number)) if *number >= least => Ok(()),
        (Kind::Number(least), _) => Err(format!("{key} must be an integer from {least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_printed_says_the_same_and_the_manual_names_every_key() {
        let mut settings = Settings::defaults();
        settings.set("data", Some(Value::Text("/srv/a \"b\"".into())));
        let mut again = Settings::defaults();
        assert_eq!(again.take(read(&settings.to_toml())), []);
        assert_eq!(again, settings);
        let manual = include_str!("../../../../../docs/operations.md");
        for (key, _) in KEYS {
            assert!(manual.contains(&format!("| `{key}` |")), "docs/operations.md does not name {key}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place_and_the_nearest_key() {
        let text = "dat = \"x\"\nlisten = 7\n[live]\nlisteners = -1\n  hartbeat_ms = 5\n[log]\nformat = \"xml\"\n[colours]\nred = 1\n";
        let mut problems = Settings::defaults().take(read(text));
        problems.sort();
        let told: Vec<String> =
            problems.iter().map(|(place, problem)| format!("{}:{} {problem}", place.line, place.column)).collect();
        assert_eq!(
            told[..5],
            [
                "1:1 dat is no key; did you mean data?",
                "2:1 listen must be a text that is not empty",
                "4:1 live.listeners must be an integer from 0",
                "5:3 live.hartbeat_ms is no key; did you mean live.heartbeat_ms?",
                "7:1 log.format must be one of text, json",
            ]
        );
        assert!(told[5].starts_with("9:1 colours.red is no key; there are data, "));
        assert!(!Settings::defaults().take(read("listen = \n")).is_empty());
    }
}
