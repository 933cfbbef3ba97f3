//! `gbsync serve --schema` and `gbsync orphans`, with real processes.

use crate::shop::{Serving, Shop, gbsync, receipt, signal};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const RULES: &str = r#"version = 1
[entities.receipts]
fields.total = { type = "decimal", scale = 2 }
[entities.payments]
fields.receiptId = { type = "text", references = "receipts" }
fields.amount = { type = "decimal", scale = 2 }
[entities.entries]
fields.receiptId = { type = "text", references = "receipts" }
[operations.receipt-create]
shape = { receipts = "1", payments = "1..", entries = "0.." }
"#;

/// A server with the schema of a file, and its standard error line by line.
fn serve(shop: &Shop, file: &str) -> (Serving, impl Iterator<Item = String>) {
    let mut command = gbsync();
    command.current_dir(shop.folder.path());
    command.args(["serve", "--data", "server", "--listen", "127.0.0.1:0", "--schema", file]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    (Serving { child, url, stdout }, stderr)
}

#[test]
fn a_server_refuses_to_start_on_a_schema_that_is_wrong_and_names_every_mistake() {
    let shop = Shop::new();
    shop.write(
        "gbsync.toml",
        "version = 1\n[entities.receipts]\nfields.total = { type = \"decimal\", scael = 2 }\nuniq = [[\"no\"]]\n",
    );
    let ran = shop.run(&["serve", "--data", "server", "--schema", "gbsync.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error[schema]: gbsync.toml is not a schema\n"), "{}", ran.stderr);
    for mistake in ["gbsync.toml:3:36: ", "gbsync.toml:4:1: "] {
        assert!(ran.stderr.contains(mistake), "{mistake}: {}", ran.stderr);
    }
    assert!(!shop.data().exists(), "nothing is made before the schema is read");
    let ran = shop.run(&["serve", "--data", "server", "--schema", "nowhere.toml"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error[schema_file]: nowhere.toml cannot be read"), "{}", ran.stderr);
}

#[test]
fn sighup_reads_the_file_again_and_a_wrong_one_changes_nothing() {
    let shop = Shop::new();
    shop.write("gbsync.toml", RULES);
    let (serving, mut stderr) = serve(&shop, "gbsync.toml");
    let mut said = |end: &str| {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(end)) {
            lines.push(stderr.next().unwrap_or_else(|| panic!("{end:?} was not said: {lines:?}")));
        }
        lines
    };
    said("schema version 1 in force since");
    shop.write("gbsync.toml", &RULES.replace("version = 1", "version = 2\nnonsense = 1"));
    signal(&serving.child, "HUP");
    let lines = said("schema version 1 stays in force");
    assert!(lines.iter().any(|line| line.contains("gbsync.toml:2:1: ")), "{lines:?}");
    // Changed under its version: refused as well.
    shop.write("gbsync.toml", &RULES.replace("scale = 2", "scale = 3"));
    signal(&serving.child, "HUP");
    let lines = said("schema version 1 stays in force");
    assert!(lines.iter().any(|line| line.contains("count its version up to 2")), "{lines:?}");
    shop.write("gbsync.toml", &RULES.replace("version = 1", "version = 2"));
    signal(&serving.child, "HUP");
    said("schema version 2 in force");
    assert_eq!(serving.terminate_quietly(), Some(0));
    // The folder keeps it, and never takes an older one.
    shop.write("old.toml", RULES);
    let older = shop.run(&["serve", "--data", "server", "--listen", "127.0.0.1:0", "--schema", "old.toml"]);
    assert_eq!(older.code, Some(1));
    assert!(older.stderr.starts_with("error[schema_older]: "), "{}", older.stderr);
}

#[test]
fn orphans_lists_what_came_before_the_rules_on_the_server_and_on_a_device() {
    let shop = Shop::new();
    let serving = shop.serve();
    shop.init("till.db", &serving.url);
    let orphan = r#"{"type":"payment-add","root":"p9","changes":[{"entity":"payments","id":"p9","action":"upsert","payload":{"receiptId":"r9","amount":"1.00"}}]}"#;
    let torn = r#"{"type":"receipt-create","root":"r2","changes":[{"entity":"receipts","id":"r2","action":"upsert","payload":{"total":"1.00"}}]}"#;
    shop.apply("till.db", &format!("{}{orphan}\n{torn}\n", receipt("r1")));
    shop.write("gbsync.toml", RULES);

    let device = shop.run(&["orphans", "till.db", "--schema", "gbsync.toml"]);
    assert_eq!(device.code, Some(1));
    assert_eq!(device.stdout.lines().next(), Some("payments:p9 receiptId -> receipts:r9, which is not there"));
    assert!(
        device.stdout.lines().nth(1).unwrap().contains("receipt-create changes at least 1 of payments"),
        "{}",
        device.stdout
    );
    assert!(
        device.stderr.starts_with("error[orphans]: 2 findings in 3 records and 3 undecided groups"),
        "{}",
        device.stderr
    );

    shop.run(&["sync", "till.db"]).done();
    // Beside the running server, which keeps no schema.
    let ran = shop.run(&["orphans", "--data", "server"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error[no_schema]: "), "{}", ran.stderr);
    let ran = shop.run(&["orphans", "--data", "server", "--schema", "gbsync.toml", "--json"]);
    let found: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 2, "{}", ran.stdout);
    assert_eq!((found[0]["kind"].as_str(), found[0]["rule"].as_str()), (Some("orphan"), Some("payments.receiptId")));
    assert_eq!(found[0]["referent"], serde_json::json!({"entity":"receipts","id":"r9"}));
    assert_eq!((found[1]["kind"].as_str(), found[1]["rule"].as_str()), (Some("shape"), Some("receipt-create.shape")));
    assert_eq!(found[1]["seq"], 3);
    drop(serving);

    // With the schema in force nothing new of the kind comes, and what is there is still listed.
    let (serving, _) = serve(&shop, "gbsync.toml");
    let ran = shop.run(&["orphans", "--data", "server", "--space", "shop"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 2), "{}", ran.stderr);
    serving.kill();
    let ran = shop.run(&["orphans", "--data", "server", "--space", "elsewhere"]);
    assert!(ran.stderr.starts_with("error[no_space]: "), "{}", ran.stderr);
}
