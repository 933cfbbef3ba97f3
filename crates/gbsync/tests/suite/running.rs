//! What whoever runs a server does with it: signals, logs, backups.

use crate::shop::{Serving, Shop, gbsync, receipt, signal};
use gbsync_cluster::Cluster;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The status that a connection of its own reads; `None` where there is no door.
fn status(server: &str, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(server).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_reload_never_ends_a_server_also_where_it_has_no_file_to_read_again() {
    let shop = Shop::new();
    let serving = shop.serve();
    for _ in 0..3 {
        signal(&serving.child, "HUP");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(status(serving.address(), "/readyz"), Some(200));
    let ran = serving.terminate();
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("nothing to read again"), "{}", ran.stderr);
}

#[test]
fn a_server_that_is_terminated_says_so_to_new_connections_before_it_closes_its_door() {
    let shop = Shop::new();
    shop.write("server.toml", "drain_delay_ms = 2000\n");
    let file = shop.path("server.toml");
    let serving = Serving::start_with(&shop.data(), "127.0.0.1:0", &["--config", file.to_str().unwrap()]);
    let address = serving.address().to_owned();
    assert_eq!(status(&address, "/readyz"), Some(200));
    let ending = std::thread::spawn(move || serving.terminate());
    let deadline = Instant::now() + Duration::from_secs(10);
    while status(&address, "/readyz") != Some(503) {
        assert!(Instant::now() < deadline && !ending.is_finished(), "nobody was told");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(status(&address, "/healthz"), Some(200));
    assert_eq!(ending.join().unwrap().code, Some(0));
    assert_eq!(status(&address, "/readyz"), None);
}

#[test]
fn a_backup_says_which_archives_it_does_not_hold() {
    let shop = Shop::new();
    let serving = shop.serve();
    shop.init("a.db", &serving.url);
    shop.apply("a.db", &(0..30).map(|n| receipt(&format!("r{n}"))).collect::<String>());
    shop.run(&["sync", "a.db"]).done();
    let told = shop.run(&["backup", "--data", "server", "b1", "--json"]).json();
    assert!(told.get("archivesNotInBackup").is_none(), "{told}");
    shop.run(&["retention", "--data", "server", "--entries", "10"]).done();
    let told = shop.run(&["backup", "--data", "server", "b2", "--json"]).json();
    assert_eq!(told["archivesNotInBackup"]["files"], 1);
    assert!(told["archivesNotInBackup"]["bytes"].as_u64().unwrap() > 0);
    assert!(told["archivesNotInBackup"]["folder"].as_str().unwrap().ends_with("archives"));
    assert!(told["sha256"].is_string(), "the manifest as before");
    let ran = shop.run(&["backup", "--data", "server", "b3"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("1 archive (") && ran.stderr.contains("not in the backup"), "{}", ran.stderr);
}

#[test]
fn no_payload_is_logged_on_postgresql_whatever_the_filter_says() {
    let (shop, cluster) = (Shop::new(), Cluster::shared().unwrap_or_else(|error| panic!("{error}")));
    let store = cluster.store();
    let mut command = gbsync();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("GBSYNC_STORE", &store);
    command.env("GBSYNC_LOG", "trace,tokio_postgres=trace,tokio_postgres::query=trace");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let logged = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let token = shop.run(&["token", "create", "--store", &store, "--space", "shop"]).done();
    shop.run(&["init", "a.db", "--server", &url, "--space", "shop", "--token", token.trim()]).done();
    let secret = "4111-1111-1111-1111";
    shop.apply("a.db", &receipt("r1").replace("1.00", secret));
    shop.run(&["sync", "a.db"]).done();
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
    let logged = logged.join().unwrap();
    assert!(logged.contains("DEBUG") && logged.contains("gbsync_server::"), "nothing was logged");
    let found = logged.lines().find(|line| line.contains(secret) || line.contains(token.trim()));
    assert_eq!(found, None);
    // What is printed to be pasted names the same store.
    let error = shop.run(&["token", "revoke", "nothing", "--store", &store, "--json"]).json_error(1);
    let schema = store.split_once("?schema=").unwrap().1;
    assert!(error["help"].as_str().unwrap().contains(&format!("?schema={schema}")), "{error}");
}
