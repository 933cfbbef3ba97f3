//! A till that a cashier and a manager share, with real processes: whose groups go when, and under whose roles.

use crate::shop::{Serving, Shop};
use serde_json::{Value, json};

const SCHEMA: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
[operations.sale]
roles = ["cashier", "manager"]
[operations.void]
roles = ["manager"]
"#;

struct Till {
    shop: Shop,
    server: Serving,
}

impl Till {
    fn new() -> Self {
        let shop = Shop::new();
        shop.write("schema.toml", SCHEMA);
        let schema = shop.path("schema.toml").display().to_string();
        let server = Serving::start_with(&shop.data(), "127.0.0.1:0", &["--schema", &schema]);
        Self { shop, server }
    }

    fn token(&self, arguments: &[&str]) -> String {
        let create = ["token", "create", "--data", "server", "--space", "shop"];
        self.shop.run(&[&create, arguments].concat()).done().trim().to_owned()
    }

    /// The person at the till from now on, and the token it has.
    fn at_the_till(&self, actor: &str, token: &str) {
        let init = ["init", "till.db", "--server", &self.server.url, "--space", "shop"];
        self.shop.run(&[&init[..], &["--actor", actor, "--token", token]].concat()).done();
    }

    fn write(&self, kind: &str, id: &str) {
        let line = json!({"type": kind, "root": id, "changes":
            [{"entity": "receipts", "id": format!("{kind}-{id}"), "action": "upsert", "payload": {"total": "1.00"}}]});
        self.shop.apply("till.db", &format!("{line}\n"));
    }

    fn sync(&self) {
        self.shop.run(&["sync", "till.db"]).done();
    }

    /// Type, author and state of every group.
    fn groups(&self) -> Vec<String> {
        let sql = "SELECT type || ' by ' || actor || ': ' || state AS g FROM gbsync_group ORDER BY device_seq";
        let rows = self.shop.run(&["query", "till.db", sql, "--json"]).json();
        rows.as_array().unwrap().iter().map(|row| row["g"].as_str().unwrap().to_owned()).collect()
    }

    fn status(&self) -> Value {
        self.shop.run(&["status", "till.db", "--json"]).json()
    }
}

#[test]
fn what_a_manager_did_offline_waits_for_the_manager_and_the_cashiers_sales_go_on() {
    let till = Till::new();
    let cashier = till.token(&["--actor", "cid", "--role", "cashier", "--expires", "12h"]);
    let manager = till.token(&["--actor", "mia", "--role", "manager"]);
    till.at_the_till("mia", &manager);
    till.write("void", "r-1");
    till.at_the_till("cid", &cashier);
    till.write("sale", "r-2");
    till.sync();
    assert_eq!(till.groups(), ["void by mia: waiting_for_sign_in", "sale by cid: accepted"]);
    assert_eq!(till.status()["waitingForSignIn"][0]["actor"], "mia");
    let told = till.shop.run(&["status", "till.db"]).done();
    assert!(told.contains("waiting    1 for mia to sign in"), "{told}");
    till.at_the_till("mia", &manager);
    till.sync();
    assert_eq!(till.groups(), ["void by mia: accepted", "sale by cid: accepted"]);
    assert_eq!(till.status()["waitingForSignIn"], json!([]));
    till.server.terminate();
}

#[test]
fn a_tills_own_token_acts_as_those_whose_roles_are_known_and_their_roles_decide() {
    let till = Till::new();
    let own = till.token(&["--actor", "till-3", "--act-as", "cid", "--act-as", "mia", "--act-as", "nan"]);
    let set = |actor: &str, role: &str| {
        till.shop.run(&["actor", "set", "--data", "server", "--space", "shop", actor, "--role", role]).done();
    };
    set("cid", "cashier");
    set("mia", "manager");
    for (actor, kind, id) in [("mia", "void", "r-1"), ("cid", "void", "r-2"), ("nan", "void", "r-3"), ("cid", "sale", "r-4")]
    {
        till.at_the_till(actor, &own);
        till.write(kind, id);
    }
    till.sync();
    let decided =
        ["void by mia: accepted", "void by cid: parked", "void by nan: waiting_for_sign_in", "sale by cid: accepted"];
    assert_eq!(till.groups(), decided);
    set("nan", "manager");
    till.sync();
    assert_eq!(till.groups()[2], "void by nan: accepted");
    let actors = till.shop.run(&["actor", "list", "--data", "server"]).done();
    assert_eq!(actors.lines().count(), 4, "{actors}");
    till.shop.run(&["actor", "remove", "--data", "server", "--space", "shop", "nan"]).done();
    let again = till.shop.run(&["actor", "remove", "--data", "server", "--space", "shop", "nan", "--json"]);
    assert_eq!(again.json_error(1)["code"], "actor_not_found");
    till.server.terminate();
}

#[test]
fn a_revoked_token_keeps_everything_until_there_is_another() {
    let till = Till::new();
    let cashier = till.token(&["--actor", "cid", "--role", "cashier"]);
    till.at_the_till("cid", &cashier);
    till.write("sale", "r-1");
    let tokens = till.shop.run(&["token", "list", "--data", "server", "--json"]).json();
    till.shop.run(&["token", "revoke", "--data", "server", tokens[0]["id"].as_str().unwrap()]).done();
    let refused = till.shop.run(&["sync", "till.db", "--json"]);
    assert_eq!(refused.json_error(1)["code"], "sign_in");
    assert_eq!(till.groups(), ["sale by cid: waiting_for_sign_in"]);
    till.at_the_till("cid", &till.token(&["--actor", "cid", "--role", "cashier"]));
    till.sync();
    assert_eq!(till.groups(), ["sale by cid: accepted"]);
    till.server.terminate();
}
