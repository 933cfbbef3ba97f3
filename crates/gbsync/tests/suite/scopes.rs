//! Two shops of one chain, with real processes: each sees its own receipts, both see the products.

use crate::shop::{Serving, Shop};
use serde_json::{Value, json};

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
scope = "storeId"
fields.storeId = { type = "text", required = true }
fields.total = "text"
[entities.products]
fields.name = "text"
"#;

fn receipt(id: &str, store: &str) -> String {
    let changes =
        json!([{"entity": "receipts", "id": id, "action": "upsert", "payload": {"storeId": store, "total": "1.00"}}]);
    format!("{}\n", json!({"type": "sale", "root": id, "changes": changes}))
}

fn ids(shop: &Shop, device: &str) -> Vec<String> {
    let rows = shop.run(&["query", device, "SELECT id FROM receipts ORDER BY id", "--json"]).json();
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_receipt_that_moves_to_another_shop_disappears_from_one_till_and_arrives_on_the_other() {
    let shop = Shop::new();
    shop.write("schema.toml", SCHEMA);
    let schema = shop.path("schema.toml").display().to_string();
    let server = Serving::start_with(&shop.data(), "127.0.0.1:0", &["--schema", &schema]);
    let token = |scopes: &[&str]| {
        let create = ["token", "create", "--data", "server", "--space", "shop"];
        shop.run(&[&create, scopes].concat()).done().trim().to_owned()
    };
    let tills = [("north.db", &["--scope", "north"][..]), ("south.db", &["--scope", "south"]), ("office.db", &[])];
    for (device, scopes) in tills {
        let token = token(scopes);
        let init = ["init", device, "--server", &server.url, "--space", "shop", "--schema", &schema, "--token", &token];
        shop.run(&init).done();
    }
    let listed = shop.run(&["token", "list", "--data", "server", "--json"]).json();
    let scopes: Vec<&Value> = listed.as_array().unwrap().iter().map(|token| &token["scopes"]).collect();
    assert_eq!(scopes, [&json!(["north"]), &json!(["south"]), &Value::Null]);
    assert!(shop.run(&["token", "list", "--data", "server"]).done().contains("SCOPES"));
    let sync =
        || ["north.db", "south.db", "office.db", "north.db", "south.db"].map(|device| shop.run(&["sync", device]).done());
    shop.apply("north.db", &receipt("n-1", "north"));
    shop.apply("south.db", &receipt("s-1", "south"));
    sync();
    assert_eq!((ids(&shop, "north.db"), ids(&shop, "south.db")), (vec!["n-1".into()], vec!["s-1".into()]));
    assert_eq!(ids(&shop, "office.db"), ["n-1", "s-1"]);
    let changes = json!([{"entity": "receipts", "id": "n-1", "action": "patch", "payload": {"storeId": "south"}}]);
    shop.apply("office.db", &format!("{}\n", json!({"type": "move", "root": "n-1", "changes": changes})));
    shop.run(&["sync", "office.db"]).done();
    sync();
    assert_eq!((ids(&shop, "north.db"), ids(&shop, "south.db")), (vec![], vec!["n-1".to_owned(), "s-1".into()]));
    server.terminate();
}
