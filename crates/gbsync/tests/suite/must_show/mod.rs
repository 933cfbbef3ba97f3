//! What the project says it can show, each as a sceptic would run it: real `gbsync` processes, real files, real HTTP, and
//! programs that know nothing of `gbsync`.

mod bad_reference;
mod chinook;
mod conflicts;
mod last_item;
mod receipt_rule;
mod restored;
mod sql;
mod upgrade;
mod voided;

use crate::shop::{Serving, Shop};
use std::path::PathBuf;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The schema of the shop example, as the file `shop.toml` of a folder.
fn with_shop_schema(shop: &Shop) -> &'static str {
    std::fs::copy(repository("examples/shop/gbsync.toml"), shop.path("shop.toml")).unwrap();
    "shop.toml"
}

/// A server with a schema.
fn serve(shop: &Shop, schema: &str) -> Serving {
    Serving::start_with(&shop.data(), "127.0.0.1:0", &["--schema", shop.path(schema).to_str().unwrap()])
}

/// A device with a schema, whose person has every role.
fn init(shop: &Shop, file: &str, url: &str, schema: &str) {
    let token =
        shop.run(&["token", "create", "--data", "server", "--space", "shop", "--role", "cashier", "--role", "manager"]);
    shop.run(&["init", file, "--server", url, "--space", "shop", "--token", token.done().trim(), "--schema", schema]).done();
}

/// Syncs devices one after the other.
fn sync(shop: &Shop, files: &[&str]) {
    for file in files {
        shop.run(&["sync", file]).done();
    }
}

/// A line of an operations file.
fn operation(group_type: &str, root: &str, changes: &[String]) -> String {
    let changes = changes.join(",");
    format!("{{\"type\":\"{group_type}\",\"root\":\"{root}\",\"changes\":[{changes}]}}\n")
}

/// One change of an operations file.
fn change(entity: &str, id: &str, action: &str, payload: &str) -> String {
    match payload {
        "" => format!(r#"{{"entity":"{entity}","id":"{id}","action":"{action}"}}"#),
        payload => format!(r#"{{"entity":"{entity}","id":"{id}","action":"{action}","payload":{payload}}}"#),
    }
}

/// A sale of one item, paid in full.
fn sale(receipt: &str, product: &str, amount: &str) -> String {
    operation(
        "receipt-create",
        receipt,
        &[
            change("receipts", receipt, "upsert", &format!(r#"{{"total":"{amount}"}}"#)),
            change(
                "payments",
                &format!("{receipt}-p"),
                "upsert",
                &format!(r#"{{"receiptId":"{receipt}","amount":"{amount}"}}"#),
            ),
            change("stock", product, "increment", r#"{"quantity":-1}"#),
        ],
    )
}

/// Products with so many on the shelf, of which each costs 2.50.
fn shelf(products: &[(&str, u64)]) -> String {
    let line = |(id, quantity): &(&str, u64)| {
        let product = change("products", id, "upsert", &format!(r#"{{"name":"{id}","price":"2.50"}}"#));
        let stock = change("stock", id, "upsert", &format!(r#"{{"productId":"{id}","quantity":{quantity}}}"#));
        operation("product-create", id, &[product, stock])
    };
    products.iter().map(line).collect()
}

/// The id of the group of a root on a device.
#[track_caller]
fn group_of(shop: &Shop, file: &str, root: &str) -> String {
    let sql = format!("SELECT group_id FROM gbsync_group WHERE root = '{root}' ORDER BY device_seq LIMIT 1");
    shop.value(file, &sql).as_str().unwrap().to_owned()
}

/// Three digests that must be one: of two devices and the server.
#[track_caller]
fn converged(shop: &Shop, devices: [&str; 2]) {
    let digests = devices.map(|device| shop.digest(device));
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], shop.server_digest());
}
