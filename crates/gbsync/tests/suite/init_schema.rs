//! `gbsync init --schema` and what `gbsync apply` says of a line that breaks a rule.

use crate::shop::Shop;

const SCHEMA: &str = "version = 1\n[entities.receipts]\nfields.total = { type = \"decimal\", scale = 2, required = true }\n";

fn init(shop: &Shop, space: &str) -> crate::shop::Ran {
    shop.run(&[
        "init",
        "a.db",
        "--server",
        "http://127.0.0.1:9",
        "--space",
        space,
        "--token",
        "t",
        "--schema",
        "gbsync.toml",
    ])
}

#[test]
fn a_file_has_tables_before_any_server_is_asked_and_follows_a_newer_schema() {
    let shop = Shop::new();
    shop.write("gbsync.toml", SCHEMA);
    init(&shop, "shop").done();
    shop.apply(
        "a.db",
        "{\"changes\":[{\"entity\":\"receipts\",\"id\":\"r1\",\"action\":\"upsert\",\"payload\":{\"total\":\"2.5\"}}]}\n",
    );
    assert_eq!(shop.value("a.db", "SELECT total FROM receipts"), "2.50");
    shop.write(
        "gbsync.toml",
        &SCHEMA.replace("version = 1", "version = 2").replace("total =", "sum =").replace("}", ", was = \"total\" }"),
    );
    let again = init(&shop, "shop");
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("schema version 2"), "{}", again.stderr);
    assert_eq!(shop.value("a.db", "SELECT sum FROM receipts"), "2.50");
    assert_eq!(shop.value("a.db", "SELECT count(*) FROM gbsync_group WHERE state = 'sealed'"), 1);
}

#[test]
fn a_schema_with_mistakes_makes_no_file_and_one_for_another_space_changes_nothing() {
    let shop = Shop::new();
    shop.write("gbsync.toml", &SCHEMA.replace("decimal", "decimel"));
    let refused = init(&shop, "shop");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("gbsync.toml:3:25: ") && refused.stderr.contains("\"decimal\""), "{}", refused.stderr);
    assert!(!shop.path("a.db").exists());
    shop.write("gbsync.toml", SCHEMA);
    init(&shop, "shop").done();
    shop.write("gbsync.toml", &SCHEMA.replace("version = 1", "version = 2").replace("receipts", "sales"));
    assert_eq!(init(&shop, "other").code, Some(1));
    assert_eq!(shop.value("a.db", "SELECT count(*) FROM receipts"), 0);
}

#[test]
fn a_line_that_breaks_a_rule_is_named_with_its_rule_and_code() {
    let shop = Shop::new();
    shop.write("gbsync.toml", SCHEMA);
    init(&shop, "shop").done();
    let line = |total: &str| {
        format!(
            "{{\"changes\":[{{\"entity\":\"receipts\",\"id\":\"{total}\",\"action\":\"upsert\",\"payload\":{{\"total\":\"{total}\"}}}}]}}\n"
        )
    };
    shop.write("operations.ndjson", &(line("1.00") + &line("2.005")));
    let ran = shop.run(&["apply", "a.db", "operations.ndjson"]);
    assert_eq!(ran.code, Some(1));
    for said in ["error[schema_violation]", "operations.ndjson:2:", "receipts.total"] {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    assert_eq!(shop.value("a.db", "SELECT count(*) FROM receipts"), 1);
}
