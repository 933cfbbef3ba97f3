//! A device of a world: its file, its link, what syncs it and what writes into it.

use crate::ledger::Ledger;
use crate::link::Link;
use crate::process::Process;
use crate::server::Backend;
use crate::shop::{Shop, gbsync};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A device.
pub struct Device {
    pub name: String,
    pub file: PathBuf,
    pub link: Link,
    pub ledger: Ledger,
    /// `gbsync sync --watch`.
    pub sync: Mutex<Option<Process>>,
    /// Whoever writes just now.
    pub writer: Mutex<Option<Process>>,
}

impl Device {
    /// A new device of space `shop`, with a token for every role.
    pub fn new(shop: &Shop, server: &Backend, name: &str, link: Link, schema: Option<&Path>) -> Self {
        let file = format!("{name}.db");
        let token = ["token", "create", "--space", "shop", "--role", "cashier", "--role", "manager"];
        let token = server.run(shop, &token);
        let url = format!("http://{}", link.address);
        let mut arguments = vec!["init", &file, "--server", &url, "--space", "shop", "--token", token.trim()];
        if let Some(schema) = schema {
            arguments.extend(["--schema", schema.to_str().unwrap()]);
        }
        shop.run(&arguments).done();
        let (file, ledger) = (shop.path(&file), Ledger::default());
        Self { name: name.into(), file, link, ledger, sync: Mutex::default(), writer: Mutex::default() }
    }

    /// Starts `sync --watch`.
    pub fn start_sync(&self, logs: &Path) {
        let mut command = gbsync();
        command.arg("sync").arg(&self.file).args(["--watch", "--batch-records", "9"]);
        let mut process = Process::start(command, logs, &format!("{}-sync", self.name));
        // It ends when nobody reads what it prints.
        let mut output = process.take_stdout();
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        self.sync.lock().unwrap().replace(process);
    }

    /// `kill -9` of what syncs; whether it was that which ended it.
    pub fn kill_sync(&self) -> bool {
        self.sync.lock().unwrap().take().is_some_and(|mut process| process.kill())
    }

    /// `kill -9` of what writes, if something does; whether it was that which ended it.
    pub fn kill_writer(&self) -> bool {
        self.writer.lock().unwrap().as_mut().is_some_and(Process::kill)
    }
}
