//! A COMMIT whose sync fails, a process that is killed before the next one, and a loss of power after it saved more: to the letter,
//! because few worlds come to it.

use super::party::put_image;
use super::time::Time;
use crate::disk::{self, Failure, Loss};
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use gbsync_client::{Client, Config, Error, FixedToken, HttpTransport, Remote, SyncOptions};
use gbsync_core::id::SpaceId;
use gbsync_server::{NewToken, Server, ServerConfig, Tokens};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// Operations that are saved after the process was killed.
const AFTER: [&str; 3] = ["after 1", "after 2", "after 3"];

fn remote() -> Result<Remote> {
    Ok(Remote { server: "http://shop".into(), space: SpaceId::new("shop")? })
}

fn config(folder: &Path) -> Config {
    Config::in_environment(folder.join("till.db"), Time::new().party(0).environment())
}

fn save(client: &Client, token: &str) -> Result<(), Error> {
    client.operation("note", token, |operation| operation.upsert("notes", token, serde_json::json!({"text": token})))?;
    Ok(())
}

/// The process that had the files of a folder open is gone, and with it perhaps the power.
fn end(folder: &Path, loss: Loss, party: impl FnOnce()) -> Result<()> {
    disk::cut_after(folder, 0);
    party();
    put_image(folder, loss, &mut Random::of(1))
}

/// A device that was killed after a COMMIT that failed.
fn killed_device(folder: &Path) -> Result<()> {
    disk::install();
    let client = Client::create(config(folder), &remote()?)?;
    save(&client, "before")?;
    disk::fail_next(folder, Failure::Sync);
    ensure!(save(&client, "failed").is_err(), "the disk did not fail");
    end(folder, Loss::None, || drop(client))
}

#[test]
fn what_a_device_saves_behind_a_commit_that_was_not_synced_outlives_the_power() -> Result<()> {
    for loss in Loss::ALL {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        killed_device(folder)?;
        let client = Client::open(config(folder))?;
        AFTER.iter().try_for_each(|token| save(&client, token))?;
        end(folder, loss, || drop(client))?;
        let client = Client::open(config(folder))?;
        for token in ["before"].iter().chain(&AFTER) {
            ensure!(client.read("notes", token)?.is_some(), "P4: {token} was saved and is gone, {loss:?}");
        }
        end(folder, Loss::None, || drop(client))?;
        disk::forget(folder);
    }
    Ok(())
}

#[test]
fn power_may_be_lost_at_any_moment_of_writing_a_log_again() -> Result<()> {
    for changes in 0.. {
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        killed_device(folder)?;
        disk::cut_after(folder, changes);
        let opened = Client::open(config(folder)).ok();
        let is_whole = !disk::is_cut(folder);
        end(folder, Loss::ALL[usize::try_from(changes % 4)?], || drop(opened))?;
        let client = Client::open(config(folder))?;
        ensure!(client.read("notes", "before")?.is_some(), "P4: it was saved and is gone after {changes} changes");
        save(&client, "after")?;
        end(folder, Loss::None, || drop(client))?;
        disk::forget(folder);
        if is_whole {
            ensure!(changes > 2, "nothing was written again");
            return Ok(());
        }
    }
    Ok(())
}

#[test]
fn a_device_whose_log_cannot_be_written_again_is_not_opened_and_is_later() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    killed_device(folder)?;
    for failure in Failure::ALL {
        disk::fail_next(folder, failure);
        let refused = Client::open(config(folder)).err().context("it was opened")?;
        assert_eq!(refused.code(), "unsynced", "{failure:?}: {refused}");
        assert!(refused.to_string().contains("a sync of its log failed"), "{refused}");
    }
    let client = Client::open(config(folder))?;
    save(&client, "after")?;
    end(folder, Loss::All, || drop(client))?;
    let client = Client::open(config(folder))?;
    assert!(client.read("notes", "after")?.is_some());
    end(folder, Loss::None, || drop(client))?;
    disk::forget(folder);
    Ok(())
}

/// A server, its folder, and a device that never rests.
struct Shop<'a> {
    runtime: &'a Runtime,
    folder: &'a Path,
    token: &'a str,
}

impl Shop<'_> {
    fn start(&self) -> Result<Server> {
        let config = ServerConfig { listen: "127.0.0.1:0".parse()?, ..ServerConfig::new(self.folder) };
        Ok(self.runtime.block_on(Server::start(config))?)
    }

    /// Whether the server took what was saved.
    fn sell(&self, server: &Server, client: &Client, token: &str) -> Result<bool> {
        save(client, token)?;
        let transport = HttpTransport::new(&server.url(), Arc::new(FixedToken(self.token.to_owned())))?;
        let options = SyncOptions { attempts: 1, ..SyncOptions::default() };
        Ok(self.runtime.block_on(client.sync(&transport, &options)).is_ok())
    }

    fn end(&self, server: Server, loss: Loss) -> Result<()> {
        // It cannot close its store: that is the point.
        end(self.folder, loss, || drop(self.runtime.block_on(server.stop())))
    }

    /// Somebody who has the store open.
    fn look(&self) -> Result<Connection> {
        let store = Connection::open(self.folder.join("gbsync.db"))?;
        store.query_row("SELECT count(*) FROM records", [], |_| Ok(()))?;
        Ok(store)
    }

    fn holds(&self, token: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM records WHERE entity = 'notes' AND id = ?1 AND payload IS NOT NULL)";
        Ok(self.look()?.query_row(sql, [token], |row| row.get(0))?)
    }
}

#[test]
fn what_a_server_acknowledges_behind_a_commit_that_was_not_synced_outlives_the_power() -> Result<()> {
    disk::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for loss in Loss::ALL {
        let scratch = tempfile::tempdir()?;
        let folder = scratch.path().join("server");
        let token = Tokens::open(&folder)?.create(NewToken::new(remote()?.space))?.token.to_string();
        let shop = Shop { runtime: &runtime, folder: &folder, token: &token };
        let client = Client::create(config(scratch.path()), &remote()?)?;
        let server = shop.start()?;
        ensure!(shop.sell(&server, &client, "before")?, "the server takes what is sold");
        disk::fail_next(&folder, Failure::Sync);
        ensure!(!shop.sell(&server, &client, "failed")?, "the disk did not fail");
        shop.end(server, Loss::None)?;
        // Without it, starting closes the last connection in between, which moves the log into the main file.
        let looking = shop.look()?;
        let server = shop.start()?;
        for token in AFTER {
            ensure!(shop.sell(&server, &client, token)?, "the server takes {token}");
        }
        drop(looking);
        shop.end(server, loss)?;
        for token in ["before", "failed"].iter().chain(&AFTER) {
            ensure!(shop.holds(token)?, "P4: {token} was acknowledged and is gone, {loss:?}");
        }
        drop(client);
        disk::forget(scratch.path());
    }
    Ok(())
}
