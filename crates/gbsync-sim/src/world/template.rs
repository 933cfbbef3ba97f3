//! Files of new devices, copied: making the tables of a device takes longer than most of what happens in a world.
//!
//! The file is made by the real client, once for each schema. A copy gets a device and an epoch of its own, whose ids are as
//! long as those they replace. Devices that join in the middle of a world are made by the client itself.

use super::time::Time;
use crate::disk;
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Remote};
use gbsync_core::schema::Schema;
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

/// By space and version of the schema.
static TEMPLATES: Mutex<BTreeMap<(String, u64), Template>> = Mutex::new(BTreeMap::new());

/// Writes the file of a new device with these ids.
///
/// # Errors
/// When the template could not be made or the file not be written.
pub(super) fn write(file: &Path, remote: &Remote, schema: Option<&Schema>, ids: &[String; 2]) -> Result<()> {
    let template = {
        let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (remote.space.to_string(), schema.map_or(0, |schema| schema.version));
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
