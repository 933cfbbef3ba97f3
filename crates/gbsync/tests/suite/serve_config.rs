//! A server that is told by a file what to do, and what it tells of itself.

use crate::shop::{Ran, Serving, Shop, receipt};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// A server with pipes of its own.
struct Told {
    child: Child,
    url: String,
    metrics: String,
}

/// Starts a server by a file; its first note says where the metrics are.
fn told(shop: &Shop, file: &str, filter: &str) -> Told {
    shop.write("server.toml", file);
    let mut command = shop.command(&["serve", "--config", "server.toml"]);
    let mut child = command.env("GBSYNC_LOG", filter).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    Told { child, url, metrics: String::new() }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Terminates the server; everything it wrote to standard error.
fn ended(mut told: Told) -> String {
    crate::shop::signal(&told.child, "TERM");
    let mut text = String::new();
    told.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(told.child.wait().unwrap().success(), "{text}");
    text
}

#[test]
fn flags_beat_the_file_and_the_file_beats_the_defaults() {
    let shop = Shop::new();
    shop.write("server.toml", "data = \"from-file\"\nlisten = \"127.0.0.1:1\"\n[limits]\nbatch_records = 7\n");
    let printed = shop.run(&["serve", "--config", "server.toml", "--listen", "127.0.0.1:2", "--print-config"]).done();
    for line in
        ["data = \"from-file\"", "listen = \"127.0.0.1:2\"", "batch_records = 7", "request_bytes = 1048576", "# schema ="]
    {
        assert!(printed.lines().any(|printed| printed == line), "{line} is missing in:\n{printed}");
    }
    shop.write("again.toml", &printed);
    assert_eq!(shop.run(&["serve", "--config", "again.toml", "--print-config"]).done(), printed);
    assert!(!shop.path("from-file").exists());
}

#[test]
fn a_file_that_is_wrong_is_told_of_line_by_line_and_nothing_is_started() {
    let shop = Shop::new();
    shop.write("server.toml", "data = \"server\"\n[live]\n  listners = 5\nheartbeat_ms = \"often\"\n");
    let ran = shop.run(&["serve", "--config", "server.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("server.toml:3:3: live.listners is no key; did you mean live.listeners?"), "{}", ran.stderr);
    assert!(ran.stderr.contains("server.toml:4:1: live.heartbeat_ms must be an integer from 100"), "{}", ran.stderr);
    assert!(!shop.path("server").exists());
    shop.write("server.toml", "listen = \"somewhere\"\ndata = \"server\"\n");
    assert_eq!(shop.run(&["serve", "--config", "server.toml", "--json"]).json_error(1)["code"], "config");
    shop.write("server.toml", "data = \"server\"\n[live]\nheartbeat_ms = 15001\n");
    let refused = shop.run(&["serve", "--config", "server.toml", "--json"]).json_error(1);
    assert_eq!(refused["message"], "live.heartbeat_ms is 15001 and may be at most 15000");
    assert_eq!(shop.run(&["serve", "--config", "nowhere.toml", "--json"]).json_error(1)["code"], "config_file");
    shop.write("server.toml", "drain_ms = 5\n");
    assert_eq!(shop.run(&["serve", "--config", "server.toml"]).code, Some(2));
    assert_eq!(shop.run(&["serve"]).code, Some(2));
}

#[test]
fn a_server_tells_its_metrics_on_an_address_of_their_own_and_never_a_token() {
    let shop = Shop::new();
    let file =
        "data = \"server\"\nlisten = \"127.0.0.1:0\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
    let mut server = told(&shop, file, "trace");
    // Everything is logged: a thread takes it, so that the server never waits for a reader.
    let mut stderr = BufReader::new(server.child.stderr.take().unwrap());
    let mut first = String::new();
    while !first.starts_with("metrics on ") {
        first.clear();
        assert!(stderr.read_line(&mut first).unwrap() > 0, "no metrics");
    }
    server.metrics = first.trim().trim_start_matches("metrics on ").trim_end_matches("/metrics").to_owned();
    let logged = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });

    let token = shop.token();
    shop.run(&["init", "till.db", "--server", &server.url, "--space", "shop", "--token", &token]).done();
    shop.apply("till.db", &receipt("r-1"));
    shop.run(&["sync", "till.db"]).done();
    shop.run(&["init", "other.db", "--server", &server.url, "--space", "shop", "--token", "gbt_wrong-secret"]).done();
    assert_eq!(shop.run(&["sync", "other.db"]).code, Some(1));

    let metrics = get(&server.metrics, "/metrics");
    for line in [
        "gbsync_groups_total{operation=\"receipt-create\",outcome=\"accepted\",code=\"\"} 1",
        "gbsync_head{space=\"shop\"} 1",
        "gbsync_listeners 0",
        "gbsync_queue_depth 0",
        "gbsync_failed_transactions 0",
        "gbsync_requests_total{route=\"/v1/spaces/{space}/push\",method=\"POST\",status=\"200\"} 1",
        "gbsync_push_seconds_count{operation=\"receipt-create\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} is missing in:\n{metrics}");
    }
    assert!(get(&server.metrics, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(&server.url, "/metrics").starts_with("HTTP/1.1 404"));
    crate::shop::signal(&server.child, "TERM");
    assert!(server.child.wait().unwrap().success());

    let logged = logged.join().unwrap();
    let events = logged.lines().filter(|line| line.starts_with('{'));
    let events: Vec<serde_json::Value> = events.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.len() >= 9, "{logged}");
    for secret in [token.trim(), "gbt_wrong-secret"] {
        assert!(
            !logged.contains(secret),
            "a token was logged: {}",
            logged.lines().find(|line| line.contains(secret)).unwrap()
        );
    }
}

#[test]
fn a_stopping_server_ends_its_streams_and_exits_in_time() {
    let shop = Shop::new();
    let server = told(&shop, "data = \"server\"\nlisten = \"127.0.0.1:0\"\n", "warn");
    let token = shop.token();
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let head = format!("GET /v1/spaces/shop/live HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", token.trim());
    stream.write_all(head.as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    let started = std::time::Instant::now();
    ended(server);
    assert!(started.elapsed().as_secs() < 8, "{:?}", started.elapsed());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("event: end\ndata: {\"reason\":\"stopping\"}"), "{rest}");
}

#[test]
fn a_watch_hears_what_happens_around_a_server_that_is_killed() {
    let shop = Shop::new();
    let mut server = shop.serve();
    let (url, address) = (server.url.clone(), server.address().to_owned());
    let token = shop.token();
    for file in ["till.db", "office.db"] {
        shop.run(&["init", file, "--server", &url, "--space", "shop", "--token", &token]).done();
    }
    let mut watching =
        shop.command(&["sync", "office.db", "--watch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for n in 0..4 {
        shop.apply("till.db", &receipt(&format!("r-{n}")));
        shop.run(&["sync", "till.db"]).done();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while shop.digest("office.db") != shop.server_digest() {
            assert!(std::time::Instant::now() < deadline, "round {n}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        server = Serving::start(&shop.path("server"), &address);
    }
    assert!(watching.try_wait().unwrap().is_none(), "the watch ended");
    watching.kill().unwrap();
    let ran: Ran = server.terminate();
    assert_eq!(ran.code, Some(0));
    watching.wait().unwrap();
}
