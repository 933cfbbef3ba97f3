//! Apps of different ages meet one server.

use super::{change, converged, init, operation, serve, sync};
use crate::shop::{Serving, Shop};
use serde_json::json;

const ONE: &str = r#"
version = 1
[entities.products]
fields.name = { type = "text", required = true }
fields.price = { type = "decimal", scale = 2 }
[entities.stock]
fields.productId = { type = "text", required = true, references = "products" }
fields.quantity = { type = "integer", counter = true }
"#;

/// Two versions later: `name` is called `title`, and every product has a unit.
const THREE: &str = r#"
version = 3
[entities.products]
fields.title = { type = "text", required = true, was = "name", since = 2 }
fields.price = { type = "decimal", scale = 2 }
fields.unit = { type = "text", required = true, default = "piece", since = 3 }
[entities.stock]
fields.productId = { type = "text", required = true, references = "products" }
fields.quantity = { type = "integer", counter = true }
"#;

/// So many operations under the old names.
fn products(numbers: std::ops::Range<u32>) -> String {
    let line = |number: u32| {
        let product =
            change("products", &format!("p-{number}"), "upsert", &format!(r#"{{"name":"Product {number}","price":"1.5"}}"#));
        let stock =
            change("stock", &format!("p-{number}"), "upsert", &format!(r#"{{"productId":"p-{number}","quantity":7}}"#));
        operation("product-create", &format!("p-{number}"), &[product, stock])
    };
    numbers.map(line).collect()
}

fn shop_with_both_schemas() -> Shop {
    let shop = Shop::new();
    shop.write("one.toml", ONE);
    shop.write("three.toml", THREE);
    shop
}

/// The three fields of a product as another device shows them.
fn product(shop: &Shop, device: &str, id: &str) -> serde_json::Value {
    let sql = format!("SELECT title, price, unit FROM products WHERE id = '{id}'");
    shop.run(&["query", device, &sql, "--json"]).json()[0].clone()
}

#[test]
fn a_device_on_schema_1_with_a_thousand_pending_groups_meets_a_server_on_schema_3_and_all_are_accepted() {
    let shop = shop_with_both_schemas();
    let server = serve(&shop, "three.toml");
    init(&shop, "old.db", &server.url, "one.toml");
    init(&shop, "new.db", &server.url, "three.toml");
    shop.apply("old.db", &products(0..1_000));
    let report = shop.run(&["sync", "old.db", "--json"]).json();
    assert_eq!([&report["accepted"], &report["waiting"]], [1_000, 0], "{report}");
    assert_eq!(report["parked"], json!([]));
    sync(&shop, &["new.db"]);

    assert_eq!(product(&shop, "new.db", "p-7"), json!({"title": "Product 7", "price": "1.50", "unit": "piece"}));
    assert_eq!(shop.value("new.db", "SELECT count(*) FROM products WHERE unit = 'piece'"), 1_000);
    assert_eq!(shop.value("old.db", "SELECT name FROM products WHERE id = 'p-7'"), "Product 7", "the old app's own name");
    converged(&shop, ["old.db", "new.db"]);

    // The old app goes on: it edits what it knows and does not touch what it never heard of.
    let rename = change("products", "p-7", "patch", r#"{"name":"Seven"}"#);
    shop.apply("old.db", &operation("product-rename", "p-7", &[rename]));
    sync(&shop, &["old.db", "new.db"]);
    assert_eq!(product(&shop, "new.db", "p-7"), json!({"title": "Seven", "price": "1.50", "unit": "piece"}));
    // Its own tables still say what refers to what, under the newer rules.
    let gone = operation("product-delete", "p-8", &[change("products", "p-8", "delete", "")]);
    let error = shop.run_with_input(&["apply", "old.db", "-", "--json"], &gone).json_error(1);
    assert_eq!(error["code"], "still_referenced", "{error}");
    converged(&shop, ["old.db", "new.db"]);
}

#[test]
fn a_server_goes_from_schema_1_to_3_with_records_in_it_and_pending_edits_of_old_devices_still_fit() {
    let shop = shop_with_both_schemas();
    let server = serve(&shop, "one.toml");
    init(&shop, "old.db", &server.url, "one.toml");
    shop.apply("old.db", &products(0..10));
    sync(&shop, &["old.db"]);
    let rename = change("products", "p-7", "patch", r#"{"name":"Seven"}"#);
    shop.apply("old.db", &operation("product-rename", "p-7", &[rename]));
    let address = server.address().to_owned();
    server.terminate();

    let schema = shop.path("three.toml");
    let server = Serving::start_with(&shop.data(), &address, &["--schema", schema.to_str().unwrap()]);
    init(&shop, "new.db", &server.url, "three.toml");
    sync(&shop, &["old.db", "new.db"]);
    assert_eq!(shop.run(&["status", "old.db", "--json"]).json()["parked"], 0);
    assert_eq!(product(&shop, "new.db", "p-7"), json!({"title": "Seven", "price": "1.50", "unit": "piece"}));
    assert_eq!(product(&shop, "new.db", "p-8"), json!({"title": "Product 8", "price": "1.50", "unit": "piece"}));
    converged(&shop, ["old.db", "new.db"]);
}

#[test]
fn an_app_that_is_upgraded_offline_with_a_full_outbox_drops_nothing() {
    let shop = shop_with_both_schemas();
    let server = serve(&shop, "three.toml");
    init(&shop, "till.db", &server.url, "one.toml");
    init(&shop, "new.db", &server.url, "three.toml");
    shop.apply("till.db", &products(0..200));
    // A program that knows no binding has written one more, which the engine has not seen yet.
    let app = rusqlite::Connection::open(shop.path("till.db")).unwrap();
    app.execute("INSERT INTO products(id, name, price) VALUES ('p-sql', 'By hand', 2)", []).unwrap();
    drop(app);

    init(&shop, "till.db", &server.url, "three.toml");
    assert_eq!(shop.run(&["status", "till.db", "--json"]).json()["pending"], 201);
    assert_eq!(product(&shop, "till.db", "p-7")["title"], "Product 7", "shown under the new name at once");
    let later = change("products", "p-new", "upsert", r#"{"title":"New","unit":"box"}"#);
    shop.apply("till.db", &format!("{{\"changes\":[{later}]}}\n"));

    sync(&shop, &["till.db", "new.db"]);
    let status = shop.run(&["status", "till.db", "--json"]).json();
    assert_eq!([&status["pending"], &status["parked"], &status["sealedThrough"]], [0, 0, 202]);
    assert_eq!(shop.value("new.db", "SELECT count(*) FROM products"), 202);
    assert_eq!(product(&shop, "new.db", "p-sql"), json!({"title": "By hand", "price": "2.00", "unit": "piece"}));
    assert_eq!(product(&shop, "new.db", "p-new"), json!({"title": "New", "price": null, "unit": "box"}));
    converged(&shop, ["till.db", "new.db"]);
}
