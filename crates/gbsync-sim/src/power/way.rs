//! What whoever looks at an image needs to know of the run: who had which records, and the way to the server that went on.

use super::log::History;
use super::script::Witnesses;
use anyhow::{Context, Result};
use gbsync_client::{Client, FixedToken, HttpTransport, Remote, SyncOptions, Transport};
use gbsync_core::limits::Limits;
use gbsync_core::schema::Schema;
use gbsync_server::{LocalServer, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;

/// Bytes of a request that a sale fits into, and a large group does not.
const REQUEST_BYTES: u64 = 4_096;

/// The way to the server, and what is known of the run.
pub struct Way {
    /// The records of each operation, whoever made it.
    pub records: Witnesses,
    /// What the server's log says, as the run left it.
    pub history: History,
    /// What devices call the server.
    pub remote: Remote,
    /// Where it listens.
    pub address: String,
    /// What opens its space.
    pub token: String,
    /// The newest schema of the run, if it has rules.
    pub schema: Option<Schema>,
    /// Where the folders are.
    pub folder: PathBuf,
    /// What drives the server.
    pub runtime: Handle,
    /// Held while an image syncs and is compared: others would move the end of the log meanwhile.
    pub syncing: Mutex<()>,
}

impl Way {
    /// Nobody else syncs until the guard is dropped.
    pub fn sync_alone(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way to the server.
    pub fn transport(&self) -> Result<Arc<dyn Transport>> {
        let http = HttpTransport::new(&self.address, Arc::new(FixedToken(self.token.clone())));
        Ok(Arc::new(http.context("HTTP cannot be set up")?))
    }

    /// Runs a round of a client.
    pub fn sync_client(&self, client: &Client) -> Result<()> {
        let transport = self.transport()?;
        self.runtime.block_on(client.sync(transport.as_ref(), &SyncOptions::default()))?;
        Ok(())
    }

    /// How the server of a folder runs.
    pub fn server_config(&self, folder: &Path) -> ServerConfig {
        let limits = Limits { request_bytes: REQUEST_BYTES, ..Limits::default() };
        ServerConfig { limits, schema: self.schema.clone(), ..ServerConfig::new(folder) }
    }

    /// Starts a server on a folder, which finishes what a crash left half done, and stops it.
    pub fn start_server(&self, folder: &Path) -> Result<()> {
        let server = self.runtime.block_on(LocalServer::open(self.server_config(folder)))?;
        Ok(self.runtime.block_on(server.close())?)
    }

    /// Where the device under test has its file.
    pub fn device_folder(&self) -> PathBuf {
        self.folder.join("device")
    }

    /// Where the server has its file.
    pub fn server_folder(&self) -> PathBuf {
        self.folder.join("server")
    }
}
