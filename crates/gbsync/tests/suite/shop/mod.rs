//! A shop in a temporary folder: real `gbsync` processes, real SQLite files, real HTTP on 127.0.0.1.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// The binary under test, with nothing of the surrounding environment that it reads.
pub fn gbsync() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gbsync"));
    for name in ["GBSYNC_TOKEN", "GBSYNC_LOG", "RUST_LOG", "NO_COLOR", "TRACEPARENT"] {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

/// How a process ended and what it printed.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Standard output of a process that must have ended with 0.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// The error object on standard error of a process that must have ended with `code`.
    #[track_caller]
    pub fn json_error(self, code: i32) -> serde_json::Value {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        let line = self.stderr.lines().last().unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["error"].clone()
    }
}

/// A running `gbsync serve`, killed when it is dropped.
pub struct Serving {
    pub child: Child,
    pub url: String,
    pub stdout: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts a server on a folder and waits until it listens.
    pub fn start(data: &Path, listen: &str) -> Self {
        Self::start_with(data, listen, &[])
    }

    /// The same with more arguments.
    pub fn start_with(data: &Path, listen: &str, arguments: &[&str]) -> Self {
        let mut command = gbsync();
        command.args(["serve", "--listen", listen]).args(arguments).arg("--data").arg(data);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("listening on ").map(str::to_owned) else {
            let output = child.wait_with_output().unwrap();
            panic!("the server did not start: {line}{}", String::from_utf8_lossy(&output.stderr));
        };
        Self { child, url, stdout }
    }

    /// The address it listens on.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end, where standard error is read elsewhere.
    pub fn terminate_quietly(mut self) -> Option<i32> {
        signal(&self.child, "TERM");
        self.child.wait().unwrap().code()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(mut self) -> Ran {
        signal(&self.child, "TERM");
        let status = self.child.wait().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        std::io::Read::read_to_string(&mut self.stdout, &mut stdout).unwrap();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut stderr).unwrap();
        Ran { code: status.code(), stdout, stderr }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

/// A folder with a server's data, devices and operations files.
pub struct Shop {
    pub folder: TempDir,
}

impl Shop {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The server's folder.
    pub fn data(&self) -> PathBuf {
        self.path("server")
    }

    pub fn serve(&self) -> Serving {
        Serving::start(&self.data(), "127.0.0.1:0")
    }

    /// `gbsync` in the folder, with the arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = gbsync();
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    /// Runs `gbsync` in the folder to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs `gbsync` in the folder with a text as standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// A new token for space `shop`.
    pub fn token(&self) -> String {
        self.run(&["token", "create", "--data", "server", "--space", "shop"]).done().trim().to_owned()
    }

    /// Makes `file` a device of space `shop` at `url`, with a token of its own.
    pub fn init(&self, file: &str, url: &str) {
        self.run(&["init", file, "--server", url, "--space", "shop", "--token", &self.token()]).done();
    }

    /// Makes `file` a device of a server that is not there.
    pub fn init_offline(&self, file: &str) {
        self.run(&["init", file, "--server", "http://127.0.0.1:9", "--space", "shop", "--token", "none"]).done();
    }

    /// Applies lines to a device.
    #[track_caller]
    pub fn apply(&self, file: &str, lines: &str) {
        let ran = self.run_with_input(&["apply", file, "-"], lines);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }

    /// The one value that a query answers.
    #[track_caller]
    pub fn value(&self, file: &str, sql: &str) -> serde_json::Value {
        let rows = self.run(&["query", file, sql, "--json"]).json();
        rows[0].as_object().unwrap().values().next().unwrap().clone()
    }

    /// The line of `gbsync digest` of a device.
    #[track_caller]
    pub fn digest(&self, file: &str) -> String {
        self.run(&["digest", file]).done()
    }

    /// The line of `gbsync digest` of the server.
    #[track_caller]
    pub fn server_digest(&self) -> String {
        self.run(&["digest", "--data", "server", "--space", "shop"]).done()
    }
}

/// The operation of a receipt and its payment.
pub fn receipt(root: &str) -> String {
    format!(
        r#"{{"type":"receipt-create","root":"{root}","changes":[{{"entity":"receipts","id":"{root}","action":"upsert","payload":{{"total":"1.00"}}}},{{"entity":"payments","id":"p-{root}","action":"upsert","payload":{{"receiptId":"{root}","amount":"1.00"}}}},{{"entity":"entries","id":"e-{root}","action":"upsert","payload":{{"receiptId":"{root}"}}}}]}}
"#
    )
}

/// A single change of one field, outside any operation.
pub fn single(entity: &str, id: &str, name: &str) -> String {
    format!(
        r#"{{"changes":[{{"entity":"{entity}","id":"{id}","action":"upsert","payload":{{"name":"{name}"}}}}]}}
"#
    )
}

/// Numbers that are the same in every run with one seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
