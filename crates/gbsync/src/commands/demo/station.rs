//! A server of our own: in this process, on a free port of the loopback interface, with a folder and a token for one space.
//! The demo and the bench measure against it.

use crate::config::{client_failure, server_failure};
use anyhow::{Context, Result};
use gbsync_client::{Client, Config, Durability, FixedToken, HttpTransport, Remote};
use gbsync_core::id::SpaceId;
use gbsync_core::schema::Schema;
use gbsync_server::{Counters, NewToken, Server, ServerConfig, Tokens};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A running server and what a device needs to reach it.
pub struct Station {
    server: Arc<Server>,
    folder: PathBuf,
    remote: Remote,
    token: String,
}

impl Station {
    /// Starts a server with a new folder inside `folder`.
    ///
    /// # Errors
    /// When the server does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, None).await
    }

    /// The same, with a schema.
    ///
    /// # Errors
    /// When the server does not start.
    pub async fn start_with(folder: &Path, schema: Option<Schema>) -> Result<Self> {
        let (data, space) = (folder.join("server"), SpaceId::new("demo")?);
        let config = ServerConfig { listen: "127.0.0.1:0".parse()?, schema, ..ServerConfig::new(&data) };
        let server = Server::start(config).await.map_err(|error| server_failure(&error))?;
        let tokens = Tokens::open(&data).map_err(|error| server_failure(&error))?;
        let new = NewToken::new(space.clone());
        let token = tokens.create(new).map_err(|error| server_failure(&error))?.token.to_string();
        let remote = Remote { server: server.url(), space };
        Ok(Self { server: Arc::new(server), folder: folder.to_owned(), remote, token })
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.remote.server
    }

    /// The space of the token.
    pub fn space(&self) -> &SpaceId {
        &self.remote.space
    }

    /// What the server did since its start.
    pub fn counters(&self) -> Counters {
        self.server.counters()
    }

    /// The server's database.
    pub fn database(&self) -> PathBuf {
        self.folder.join("server").join("gbsync.db")
    }

    /// A transport that reaches the server through `url`.
    ///
    /// # Errors
    /// When HTTP cannot be set up.
    pub fn transport(&self, url: &str) -> Result<HttpTransport> {
        HttpTransport::new(url, Arc::new(FixedToken(self.token.clone()))).context("HTTP cannot be set up")
    }

    /// A new device with its database `name` in the folder.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub fn device(&self, name: &str) -> Result<Client> {
        self.device_with(name, None)
    }

    /// The same, with a schema.
    ///
    /// # Errors
    /// When the database cannot be made.
    pub fn device_with(&self, name: &str, schema: Option<Schema>) -> Result<Client> {
        new_device_with(&self.folder.join(name), &self.remote, Durability::Full, schema)
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it does not stop well.
    pub async fn stop(self) -> Result<()> {
        let server = Arc::into_inner(self.server).context("the server is still in use")?;
        server.stop().await.map_err(|error| server_failure(&error).into())
    }
}

/// A new device with its database at `path`.
///
/// # Errors
/// When the database cannot be made.
pub fn new_device(path: &Path, remote: &Remote, durability: Durability) -> Result<Client> {
    new_device_with(path, remote, durability, None)
}

/// The same, with a schema.
///
/// # Errors
/// When the database cannot be made.
pub fn new_device_with(path: &Path, remote: &Remote, durability: Durability, schema: Option<Schema>) -> Result<Client> {
    let client = Client::create(Config { durability, schema, ..Config::new(path) }, remote);
    Ok(client.map_err(|error| client_failure(&error))?)
}
