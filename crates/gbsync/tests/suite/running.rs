//! What whoever runs a server does with it: signals, logs, backups.

use crate::shop::{Serving, Shop};
use std::io::{Read, Write};
use std::net::TcpStream;
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
