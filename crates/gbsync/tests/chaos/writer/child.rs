//! A writer as a process of its own, to be killed: operations through the library or through plain SQL, and a line on standard
//! output for each one that is saved.

use crate::deeds::{Deed, Terms};
use crate::hands::{LibraryHand, SqlHand};
use crate::shop::Dice;
use gbsync_client::{Client, Config};
use rusqlite::{Connection, OpenFlags};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// What a burst of operations is made of.
pub struct Burst<'a> {
    /// `library` or `sql`.
    pub kind: &'a str,
    pub file: &'a str,
    pub device: &'a str,
    pub has_schema: bool,
    pub first: u64,
    pub count: u64,
    pub seed: u64,
}

impl<'a> Burst<'a> {
    pub fn arguments(&self) -> Vec<String> {
        let texts = [self.kind, self.file, self.device].map(str::to_owned);
        let numbers = [u64::from(self.has_schema), self.first, self.count, self.seed].map(|number| number.to_string());
        std::iter::once("writer".to_owned()).chain(texts).chain(numbers).collect()
    }

    fn from(arguments: &'a [String]) -> Self {
        let number = |index: usize| arguments[index].parse().unwrap();
        let (kind, file, device) = (&arguments[0], &arguments[1], &arguments[2]);
        Self { kind, file, device, has_schema: number(3) == 1, first: number(4), count: number(5), seed: number(6) }
    }
}

/// The process itself.
pub fn run(arguments: &[String]) {
    let burst = Burst::from(arguments);
    let mut writer = Writer::open(&burst);
    let mut dice = Dice(burst.seed);
    for number in burst.first..burst.first + burst.count {
        let receipts = receipts(writer.reader());
        let terms = Terms { device: burst.device, receipts: &receipts, reads: true, voids: writer.voids() };
        let deed = Deed::draw(&mut dice, number, &terms);
        match writer.write(&deed, burst.has_schema) {
            Ok(()) => {
                let mut output = std::io::stdout().lock();
                writeln!(output, "{}", deed.root).and_then(|()| output.flush()).unwrap();
            }
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "{} {}: {error}", deed.group_type(), deed.root);
            }
        }
        std::thread::sleep(Duration::from_millis(30 + dice.below(200)));
    }
}

/// The receipts that a device shows, by plain SQL.
pub fn receipts(connection: &Connection) -> Vec<String> {
    let mut statement = connection.prepare("SELECT id FROM gbsync_records WHERE entity = 'receipts' ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A connection of a program that knows nothing of `gbsync`.
fn open(file: &str) -> Connection {
    let connection = Connection::open_with_flags(Path::new(file), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    connection
}

enum Writer {
    Library(Client, Connection),
    Sql(Connection),
}

impl Writer {
    fn open(burst: &Burst<'_>) -> Self {
        let connection = open(burst.file);
        match burst.kind {
            "library" => Self::Library(Client::open(Config::new(burst.file)).unwrap(), connection),
            _ => Self::Sql(connection),
        }
    }

    fn reader(&self) -> &Connection {
        match self {
            Self::Library(_, connection) | Self::Sql(connection) => connection,
        }
    }

    fn voids(&self) -> bool {
        matches!(self, Self::Library(..))
    }

    fn write(&mut self, deed: &Deed, has_schema: bool) -> Result<(), String> {
        match self {
            Self::Library(client, _) => {
                let mut operation = client.begin(deed.group_type(), &deed.root).map_err(|error| error.to_string())?;
                deed.write(&mut LibraryHand { client, operation: &mut operation }, has_schema)?;
                operation.seal().map(|_| ()).map_err(|error| error.to_string())
            }
            Self::Sql(connection) => {
                let written = bracketed(connection, deed, has_schema);
                if written.is_err() && !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK").map_err(|error| error.to_string())?;
                }
                written
            }
        }
    }
}

fn bracketed(connection: &Connection, deed: &Deed, has_schema: bool) -> Result<(), String> {
    let run = |sql: &str| connection.execute_batch(sql).map_err(|error| error.to_string());
    run("BEGIN IMMEDIATE")?;
    let open = "INSERT INTO gbsync_operation(type, root) VALUES (?1, ?2)";
    connection.execute(open, [deed.group_type(), &deed.root]).map_err(|error| error.to_string())?;
    deed.write(&mut SqlHand(connection), has_schema)?;
    run("DELETE FROM gbsync_operation; COMMIT")
}
