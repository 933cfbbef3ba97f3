//! A server and its tills in a temporary folder: real HTTP on 127.0.0.1, one real SQLite file a till.

use anyhow::{Context, Result};
use gbsync_client::{Client, Config, FixedToken, HttpTransport, Remote, SyncOptions, SyncReport};
use gbsync_core::id::{Actor, Role, SpaceId};
use gbsync_core::schema::Schema;
use gbsync_server::{NewToken, Server, ServerConfig, Tokens};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The server and the folder that everything is in.
pub struct Shop {
    folder: TempDir,
    schema: Schema,
    runtime: Runtime,
    server: Server,
}

/// One device and the way to the server.
pub struct Till {
    pub client: Client,
    transport: HttpTransport,
}

impl Shop {
    /// Starts a server with the schema on a free port.
    pub fn open(schema: Schema) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let runtime = Runtime::new()?;
        let mut config = ServerConfig::new(folder.path().join("server"));
        config.listen.set_port(0);
        config.schema = Some(schema.clone());
        let server = runtime.block_on(Server::start(config))?;
        Ok(Self { folder, schema, runtime, server })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("server")
    }

    /// A new device of a person with a role. It asks the server nothing: its tables come from the schema that the app brings.
    pub fn till(&self, name: &str, person: &str, role: &str) -> Result<Till> {
        let (space, actor) = (SpaceId::new("shop")?, Actor::new(person)?);
        let rights = NewToken { roles: vec![Role::new(role)?], actor: Some(actor.clone()), ..NewToken::new(space.clone()) };
        let token = Tokens::open(self.data())?.create(rights)?.token;
        let mut config = Config::new(self.folder.path().join(format!("{name}.db")));
        config.actor = Some(actor);
        config.schema = Some(self.schema.clone());
        let client = Client::create(config, &Remote { server: self.server.url(), space })?;
        let transport = HttpTransport::new(&self.server.url(), Arc::new(FixedToken(token)))?;
        Ok(Till { client, transport })
    }

    /// Cursor, count and digest of the server's rows, as [`Till::digest`] says it.
    pub fn digest(&self) -> Result<String> {
        let digest = gbsync_server::space_digest(self.data(), &SpaceId::new("shop")?)?;
        Ok(format!("{} {} {}", digest.head, digest.records, digest.digest))
    }

    /// Stops the server.
    pub fn close(self) -> Result<()> {
        Ok(self.runtime.block_on(self.server.stop())?)
    }
}

impl Till {
    /// Pushes what waits, and pulls.
    pub fn sync(&self) -> Result<SyncReport> {
        self.client.sync_blocking(&self.transport, &SyncOptions::default()).context("the till could not sync")
    }

    /// The first column of the first row, as text; what any program sees that opens the file.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let value =
            self.client.with_reader(|db| db.query_row(&format!("SELECT CAST(({sql}) AS TEXT)"), [], |row| row.get(0)));
        let value: Option<String> = value.with_context(|| sql.to_owned())?;
        Ok(value.unwrap_or_else(|| "nothing".into()))
    }

    /// Cursor, count and digest of the confirmed rows: equal on every device at one cursor.
    pub fn digest(&self) -> Result<String> {
        let digest = self.client.digest()?;
        Ok(format!("{} {} {}", digest.cursor, digest.records, digest.digest))
    }
}
