//! Files of new devices and of a new server, copied: making their tables takes longer than most of what happens in a world.
//!
//! A file is made by the real client, once for each schema, or by the real server, with its spaces and tokens. A copy gets a device and an epoch of its own, whose ids are as
//! long as those they replace. Devices that join in the middle of a world are made by the client itself.

use super::SPACES;
use super::server::{SpaceTokens, space_id};
use super::time::Time;
use crate::disk;
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Remote};
use gbsync_core::id::{Actor, Role};
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, Tokens};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The file of a device on which nothing happened yet.
#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    /// The ids of its device and its epoch, and where they stand.
    ids: [(usize, Vec<usize>); 2],
}

/// Space, version of the schema, and how many entities and kinds of operations it has rules for.
type Key = (String, u64, usize, usize);

/// The template for each.
static TEMPLATES: Mutex<BTreeMap<Key, Template>> = Mutex::new(BTreeMap::new());

/// Writes the file of a new device with these ids.
///
/// # Errors
/// When the template could not be made or the file not be written.
pub(super) fn write(file: &Path, remote: &Remote, schema: Option<&Schema>, ids: &[String; 2]) -> Result<()> {
    let template = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, entities, kinds) =
            schema.map_or((0, 0, 0), |schema| (schema.version, schema.entities.len(), schema.operations.len()));
        let key = (remote.space.to_string(), version, entities, kinds);
        match templates.get(&key) {
            Some(template) => template.clone(),
            None => templates.entry(key).or_insert(make(remote, schema)?).clone(),
        }
    };
    let mut bytes = template.bytes;
    for ((length, places), new) in template.ids.iter().zip(ids) {
        anyhow::ensure!(*length == new.len(), "an id of another length does not fit the template");
        places.iter().for_each(|&at| bytes[at..at + length].copy_from_slice(new.as_bytes()));
    }
    Ok(std::fs::write(file, bytes)?)
}

fn make(remote: &Remote, schema: Option<&Schema>) -> Result<Template> {
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    let file = folder.path().join("till.db");
    let environment = Time::new().party(0).environment();
    let config = Config { schema: schema.cloned(), ..Config::in_environment(file.clone(), environment) };
    drop(Client::create(config, remote)?);
    let db = Connection::open(&file)?;
    // The copy lies elsewhere on the disk, which must not be taken for an old copy.
    db.execute_batch("UPDATE gbsync_state SET life = NULL")?;
    let ids: [String; 2] =
        db.query_row("SELECT device, epoch FROM gbsync_state", [], |row| Ok([row.get(0)?, row.get(1)?]))?;
    db.close().map_err(|(_, error)| error)?;
    disk::forget(folder.path());
    let bytes = std::fs::read(&file)?;
    let ids = ids.map(|id| {
        let places = bytes.windows(id.len()).enumerate().filter(|(_, found)| *found == id.as_bytes());
        (id.len(), places.map(|(at, _)| at).collect())
    });
    Ok(Template { bytes, ids })
}

/// The file of a server to which nobody came yet.
#[derive(Clone)]
pub(super) struct ServerTemplate {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// The tokens of each space.
    pub(super) tokens: Vec<SpaceTokens>,
    /// The token of a space that has no devices.
    pub(super) annex: String,
}

/// By the number of spaces.
static SERVERS: Mutex<BTreeMap<usize, ServerTemplate>> = Mutex::new(BTreeMap::new());

/// The file of a new server with so many spaces.
///
/// # Errors
/// When it cannot be made.
pub(super) fn server(spaces: usize) -> Result<ServerTemplate> {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = servers.get(&spaces) {
        return Ok(server.clone());
    }
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    // By the worlds' own clock and randomness, so that another process makes the same log and the same tokens.
    let made = Tokens::open_in(folder.path(), Time::new().party(1).server_environment())?;
    let tokens = SPACES[..spaces].iter().map(|space| {
        let new = || NewToken::new(space_id(space));
        let office = NewToken { roles: vec![Role::new("admin")?], actor: Some(Actor::new("ann")?), ..new() };
        let (device, admin) = (made.create(new())?.token.to_string(), made.create(office)?.token.to_string());
        Ok(SpaceTokens { device, admin })
    });
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let annex = made.create(NewToken::new(space_id("annex")))?.token.to_string();
    // The last connection moves the WAL into the file.
    drop(made);
    disk::forget(folder.path());
    let bytes = std::fs::read(folder.path().join("gbsync.db"))?;
    Ok(servers.entry(spaces).or_insert(ServerTemplate { bytes, tokens, annex }).clone())
}
