//! Backups of a folder, made while the server runs, and what becomes of them.

use crate::common::{SPACE, TestApp, receipt};
use gbsync_core::id::SpaceId;
use gbsync_server::{Environment, ServerError, backup, read_manifest, restore, space_digest};
use std::fs;
use std::path::Path;

fn reason(error: ServerError) -> String {
    match error {
        ServerError::Backup { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_is_made_beside_a_running_server_and_restored_with_a_new_log() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1"), receipt("g2", 2, "r-2")]).await;
    let (before, shake) = (app.digest(), app.get("").await.json());
    let folder = tempfile::tempdir().unwrap();
    let (to, data) = (folder.path().join("backup"), folder.path().join("data"));
    let made = backup(app.folder.path(), &to, &Environment::system(), |_, _| ()).unwrap();
    assert_eq!(files(&to), ["gbsync.db", "manifest.json"]);
    assert_eq!(made, read_manifest(&to).unwrap());
    assert_eq!((made.spaces[0].head, made.spaces[0].records), (2, 2));
    assert_eq!(made.spaces[0].digest, before.digest.to_string());
    // What comes after is not in it.
    app.push(&[receipt("g3", 3, "r-3")]).await;
    let (_, restored) = restore(&to, &data, &Environment::system(), |_, _| ()).unwrap();
    assert_eq!(files(&data), ["gbsync.db", "gbsync.lock"]);
    assert_eq!((restored[0].ancestor.as_str(), restored[0].up_to.0), (shake["log"].as_str().unwrap(), 2));
    assert_ne!(restored[0].log, restored[0].ancestor);
    assert_eq!(space_digest(data.as_path(), &SpaceId::new(SPACE).unwrap()).unwrap().digest, before.digest);
    // The backup is as it was, and may be restored again.
    assert_eq!(files(&to), ["gbsync.db", "manifest.json"]);
    restore(&to, &folder.path().join("again"), &Environment::system(), |_, _| ()).unwrap();
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_damaged_is_restored() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let folder = tempfile::tempdir().unwrap();
    let (to, data) = (folder.path().join("backup"), folder.path().join("data"));
    let environment = Environment::system();
    backup(app.folder.path(), &to, &environment, |_, _| ()).unwrap();
    let again = backup(app.folder.path(), &to, &environment, |_, _| ()).unwrap_err();
    assert!(reason(again).contains("already"));
    let running = restore(&to, app.folder.path(), &environment, |_, _| ()).unwrap_err();
    assert!(matches!(running, ServerError::Locked { .. }), "{running}");
    restore(&to, &data, &environment, |_, _| ()).unwrap();
    let over = restore(&to, &data, &environment, |_, _| ()).unwrap_err();
    assert!(reason(over).contains("nothing is ever overwritten"));

    let file = to.join("gbsync.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let other = folder.path().join("other");
    assert!(reason(restore(&to, &other, &environment, |_, _| ()).unwrap_err()).contains("damaged or changed"));
    assert_eq!(files(&other), ["gbsync.lock"]);
    fs::write(to.join("manifest.json"), "{}").unwrap();
    assert!(reason(restore(&to, &other, &environment, |_, _| ()).unwrap_err()).contains("manifest"));
    let none = backup(&folder.path().join("nowhere"), &folder.path().join("b"), &environment, |_, _| ()).unwrap_err();
    assert!(matches!(none, ServerError::NoStore { .. }), "{none}");
}

/// What a restore leaves that is killed while it marks the logs: a file, and beside it what is not in the file yet.
fn interrupted(to: &Path, data: &Path) {
    fs::create_dir_all(data).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("gbsync.db");
    fs::copy(to.join("gbsync.db"), &file).unwrap();
    let db = rusqlite::Connection::open(&file).unwrap();
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
    db.execute("UPDATE spaces SET log = 'a-log-of-the-first-attempt'", []).unwrap();
    for end in ["", "-wal", "-shm"] {
        fs::copy(scratch.path().join(format!("gbsync.db{end}")), data.join(format!("gbsync.db.restoring{end}"))).unwrap();
    }
}

#[tokio::test]
async fn what_a_killed_restore_left_is_no_part_of_the_next_one() {
    let app = TestApp::start().await;
    app.push(&[receipt("g1", 1, "r-1")]).await;
    let folder = tempfile::tempdir().unwrap();
    let (first, second, data) = (folder.path().join("first"), folder.path().join("second"), folder.path().join("data"));
    let environment = Environment::system();
    backup(app.folder.path(), &first, &environment, |_, _| ()).unwrap();
    app.push(&[receipt("g2", 2, "r-2")]).await;
    backup(app.folder.path(), &second, &environment, |_, _| ()).unwrap();
    for backup in [&first, &second] {
        let data = data.join(backup.file_name().unwrap());
        interrupted(&first, &data);
        let (made, restored) = restore(backup, &data, &environment, |_, _| ()).unwrap();
        assert_eq!(restored[0].up_to.0, made.spaces[0].head);
        assert_eq!(restored[0].ancestor.as_str(), made.spaces[0].log);
        assert_eq!(files(&data), ["gbsync.db", "gbsync.lock"]);
    }
}
