//! The server of a world: how it is started, and how plain SQL looks into what it keeps.
//!
//! Everything that depends on the kind of store is in [`Backend`], so that another store is another variant.

use crate::database::Database;
use crate::process::Process;
use crate::shop::{Shop, gbsync};
use rusqlite::{Connection, OpenFlags};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Small requests, so that batches are many and a large group travels in parts.
const LIMITS: &[&str] = &["--request-bytes", "49152", "--batch-records", "12"];

/// Where the server keeps everything.
#[derive(Clone)]
pub enum Backend {
    /// One folder with a SQLite file.
    Folder(PathBuf),
    /// A PostgreSQL.
    Database(Arc<Database>),
}

impl Backend {
    /// What names it on the command line.
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => vec!["--data".into(), folder.display().to_string()],
            Self::Database(database) => vec!["--store".into(), database.url.clone()],
        }
    }

    /// What a verb of the command line that ends well says about it.
    pub fn run(&self, shop: &Shop, verb: &[&str]) -> String {
        let arguments = self.arguments();
        let arguments: Vec<&str> = verb.iter().copied().chain(arguments.iter().map(String::as_str)).collect();
        shop.run(&arguments).done()
    }

    /// A look at one state of the store; of a PostgreSQL at these tables, see [`Database::look`].
    pub fn look(&self, tables: &[&str]) -> Connection {
        match self {
            Self::Folder(folder) => look_into(&folder.join("gbsync.db")),
            Self::Database(database) => database.look(tables),
        }
    }
}

/// A server that is killed and started again on one address.
pub struct Station {
    pub backend: Backend,
    pub address: SocketAddr,
    arguments: Vec<String>,
    logs: PathBuf,
    serving: Option<Process>,
}

impl Station {
    /// Starts it on a free port.
    pub fn start(backend: Backend, schema: Option<&Path>, logs: &Path) -> Self {
        let mut arguments = backend.arguments();
        arguments.extend(LIMITS.iter().map(ToString::to_string));
        if let Some(schema) = schema {
            arguments.extend(["--schema".to_owned(), schema.display().to_string()]);
        }
        let address = "127.0.0.1:0".parse().unwrap();
        let mut station = Self { backend, address, arguments, logs: logs.to_owned(), serving: None };
        station.start_again();
        station
    }

    /// Starts it on the address that it had, and waits until it listens.
    pub fn start_again(&mut self) {
        let mut command = gbsync();
        command.arg("serve").arg("--listen").arg(self.address.to_string()).args(&self.arguments);
        let mut serving = Process::start(command, &self.logs, "server");
        let mut line = String::new();
        BufReader::new(serving.take_stdout()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").map(str::parse);
        self.address = address.expect("the server did not start: see logs/server.log").unwrap();
        self.serving = Some(serving);
    }

    pub fn process(&mut self) -> &mut Process {
        self.serving.as_mut().expect("it is started again after each kill")
    }

    /// `kill -9`; whether it was that which ended it.
    pub fn kill(&mut self) -> bool {
        self.serving.take().is_some_and(|mut serving| serving.kill())
    }
}

/// A connection that reads a file as any program would, and leaves recovery and checkpoints to the programs that write.
pub fn look_into(file: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}
