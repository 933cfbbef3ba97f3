//! A PostgreSQL of one's own, for the tests and the bench: made by `initdb`, reached by a socket in its folder alone, gone with
//! whoever started it.
//!
//! Invariant: it never runs as root, its process is a child that is waited for, and it ends and its folder is removed also when
//! the process that started it is killed.

mod person;
mod programs;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use person::Person;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest folder in which a socket has room for its name.
const LONGEST_FOLDER: usize = 80;

/// Starts the program in its arguments and says its process id. Ends it when a line or the end of standard input comes; after
/// the end, nobody is left to remove the folder.
const GUARD: &str = r#"
"$@" & pid=$!
echo "$pid"
word=gone; read -r word
kill -QUIT "$pid" 2>/dev/null
wait "$pid"
[ "$word" = keep ] || rm -rf -- "$CLUSTER_FOLDER"
"#;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The programs are not there.
    #[error(
        "initdb and postgres (15 or newer) were not found in PATH, /usr/lib/postgresql/*/bin or /usr/local/bin; on Debian: apt-get install postgresql"
    )]
    NotInstalled,
    /// Root has nobody to be instead.
    #[error("PostgreSQL must not run as root, and there is neither a user postgres nor nobody")]
    NoPerson,
    /// A program or a file failed.
    #[error("PostgreSQL cannot be started: {0}")]
    Failed(String),
}

impl From<std::io::Error> for ClusterError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A running PostgreSQL.
pub struct Cluster {
    programs: PathBuf,
    folder: TempDir,
    person: Option<Person>,
    settings: Vec<String>,
    /// Where it listens beside its socket, encrypted.
    port: Option<u16>,
    running: Option<Running>,
    stores: AtomicU64,
}

struct Running {
    guard: Child,
    postmaster: String,
}

impl Cluster {
    /// Makes one and starts it. `settings` are lines of `postgresql.conf`.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn start(settings: &[&str]) -> Result<Self, ClusterError> {
        Self::begin(settings, None)
    }

    /// Makes one that also listens on a port of the loopback, with a certificate and its key as PEM, and starts it.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn start_encrypted(certificate: &str, key: &str) -> Result<Self, ClusterError> {
        Self::begin(&[], Some((certificate, key)))
    }

    fn begin(settings: &[&str], encryption: Option<(&str, &str)>) -> Result<Self, ClusterError> {
        let programs = programs::folder().ok_or(ClusterError::NotInstalled)?;
        let mut folder = tempfile::Builder::new().prefix("gbsync-pg-").tempdir()?;
        if folder.path().as_os_str().len() > LONGEST_FOLDER {
            folder = tempfile::Builder::new().prefix("gbsync-pg-").tempdir_in("/tmp")?;
        }
        let person = Person::instead_of_root(folder.path())?;
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        let stores = AtomicU64::new(0);
        let mut cluster = Self { programs, folder, person, settings, port: None, running: None, stores };
        if encryption.is_some() {
            // The port of a listener that is gone is free for a moment.
            let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            cluster.settings.extend([format!("port = {port}"), "listen_addresses = '127.0.0.1'".into(), "ssl = on".into()]);
            cluster.port = Some(port);
        }
        cluster.make()?;
        if let Some((certificate, key)) = encryption {
            cluster.put("server.crt", certificate)?;
            cluster.put("server.key", key)?;
        }
        cluster.restart()?;
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8");
        if let Some(person) = &self.person {
            person.be(&mut command);
        }
        command
    }

    fn make(&self) -> Result<(), ClusterError> {
        let mut command = self.command(&self.programs.join("initdb"));
        command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"]);
        let made = command.arg(self.data()).output()?;
        if !made.status.success() {
            return Err(ClusterError::Failed(String::from_utf8_lossy(&made.stderr).into_owned()));
        }
        let mut file = std::fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf"))?;
        writeln!(file, "listen_addresses = ''\nunix_socket_directories = '{}'", self.folder.path().display())?;
        self.settings.iter().try_for_each(|line| writeln!(file, "{line}"))?;
        Ok(())
    }

    /// Puts a file that nobody else may read beside its data.
    fn put(&self, name: &str, text: &str) -> Result<(), ClusterError> {
        let path = self.data().join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        self.person.as_ref().map_or(Ok(()), |person| person.own(&path))
    }

    /// Starts it again after [`Cluster::kill`]; when this returns it answers.
    ///
    /// # Errors
    /// [`ClusterError`] when it does not come up.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.running = Some(self.run()?);
            loop {
                match self.say("postgres", "SELECT 1") {
                    Ok(()) => return Ok(()),
                    Err(error) if Instant::now() > deadline => {
                        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                        return Err(ClusterError::Failed(format!("{error}\n{log}")));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
                // One that was killed may leave processes behind that end a moment later; until then no other starts.
                if !self.is_running() {
                    self.kill();
                    break;
                }
            }
        }
    }

    fn run(&self) -> Result<Running, ClusterError> {
        let mut command = self.command(Path::new("/bin/sh"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        command.args(["-c", GUARD, "gbsync-cluster"]).arg(self.programs.join("postgres")).arg("-D").arg(self.data());
        command.env("CLUSTER_FOLDER", self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut guard = command.spawn()?;
        let mut postmaster = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut postmaster)?;
        }
        Ok(Running { guard, postmaster: postmaster.trim().to_owned() })
    }

    fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| is_alive(&running.postmaster))
    }

    /// Kills it as a crash would: without a checkpoint and without a word to anybody. Waits for its end.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        signal("-KILL", &running.postmaster);
        if let Some(mut input) = running.guard.stdin.take() {
            let _ = input.write_all(b"keep\n");
        }
        let _ = running.guard.wait();
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        let socket = utf8_percent_encode(&self.folder.path().display().to_string(), NON_ALPHANUMERIC).to_string();
        let port = self.port.map_or_else(String::new, |port| format!(":{port}"));
        format!("postgres://postgres@{socket}{port}/{database}")
    }

    /// The id of its first process, the parent of all others; `None` while it does not run.
    pub fn postmaster(&self) -> Option<&str> {
        self.running.as_ref().map(|running| running.postmaster.as_str())
    }

    /// The folder of its socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port of the loopback on which it listens; `None` for one that is not encrypted.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URL of a new place for a store: a schema of its own in one database, because a database is a thousand files.
    pub fn store(&self) -> String {
        format!("{}?schema=s{}", self.url("postgres"), self.stores.fetch_add(1, Ordering::Relaxed))
    }

    /// The cluster that all tests of a process share: made with the first, gone with the last.
    ///
    /// # Errors
    /// [`ClusterError`] says what is missing.
    pub fn shared() -> Result<Arc<Self>, ClusterError> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Ok(cluster);
        }
        let cluster = Arc::new(Self::start(&["max_connections = 400"])?);
        *shared = Arc::downgrade(&cluster);
        Ok(cluster)
    }

    /// Runs statements in a database.
    ///
    /// # Errors
    /// [`ClusterError::Failed`] with what PostgreSQL says.
    pub fn say(&self, database: &str, statements: &str) -> Result<(), ClusterError> {
        ask(&self.url(database), statements).map(drop)
    }
}

/// Runs statements in the database, or the schema of it, of a URL; the rows of the last one, as texts.
///
/// # Errors
/// [`ClusterError::Failed`] with what PostgreSQL says.
pub fn ask(url: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>, ClusterError> {
    let (url, schema) = url.split_once("?schema=").unwrap_or((url, "public"));
    let statements = &format!("SET search_path TO {schema}; {statements}");
    // On a thread of its own: whoever calls may be on a runtime's.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let answered = runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
                let connection = tokio::spawn(connection);
                let answered = client.simple_query(statements).await;
                drop(client);
                let _ = connection.await;
                answered
            });
            let answered = answered.map_err(|error| {
                let refusal = error.as_db_error().map(|refusal| refusal.message().to_owned());
                ClusterError::Failed(refusal.unwrap_or_else(|| error.to_string()))
            })?;
            let row = |message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(ToOwned::to_owned)).collect())
                }
                _ => None,
            };
            Ok(answered.into_iter().filter_map(row).collect())
        });
        asking.join().unwrap_or_else(|_| Err(ClusterError::Failed("a thread panicked".into())))
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a process is there and has not ended. One that ended can be signalled until its parent, which reads, waits for it.
fn is_alive(process: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{process}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')),
        // Where there is no such file system.
        Err(_) => signal("-0", process),
    }
}

fn signal(signal: &str, process: &str) -> bool {
    let sent = Command::new("kill").args([signal, process]).stderr(Stdio::null()).status();
    sent.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ended_at_once_is_not_taken_for_running() {
        let mut cluster = Cluster::start(&[]).unwrap_or_else(|error| panic!("{error}"));
        let first = cluster.running.take();
        // A second on the same data ends by itself.
        cluster.running = Some(cluster.run().expect("a shell that starts it"));
        let begun = Instant::now();
        while cluster.is_running() {
            assert!(begun.elapsed() < PATIENCE, "it has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster.kill();
        cluster.running = first;
        assert!(cluster.is_running());
    }
}
