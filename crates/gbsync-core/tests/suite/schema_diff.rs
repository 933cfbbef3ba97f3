//! What the next version of a schema means for devices that have the old one.

use gbsync_core::schema::{Schema, diff};

const OLD: &str = r#"version = 1
[entities.customers]
fields.name = "text"
[entities.receipts]
unique = [["no"]]
fields.no = { type = "text", required = true }
fields.total = { type = "decimal", scale = 2 }
fields.customerId = { type = "text", references = "customers" }
fields.points = { type = "integer", counter = true, min = 0 }
[[entities.receipts.invariants]]
name = "positive"
cel = "receipts.all(r, r.total >= 0)"
[operations.sell]
roles = ["cashier"]
shape = { receipts = "1", customers = "0..1" }
"#;

/// The changes after `from` became `to` in the old text, with version 2 where it is not said otherwise.
fn changes(from: &str, to: &str) -> Vec<String> {
    assert!(OLD.contains(from), "{from}");
    let new = OLD.replacen(from, to, 1);
    let new = if from.starts_with("version") { new } else { new.replacen("version = 1", "version = 2", 1) };
    let parse = |text: &str| Schema::parse(text).map_err(|problems| format!("{problems}\n{text}")).unwrap();
    let changes = diff(&parse(OLD), &parse(&new));
    changes.iter().map(|change| format!("{} {}", change.severity.as_str(), change.path)).collect()
}

#[test]
fn each_change_has_its_severity() {
    let (name, no) = ("fields.name = \"text\"", "fields.no = { type = \"text\", required = true }");
    let total = "fields.total = { type = \"decimal\", scale = 2 }";
    let field = |path: &str, severity: &str| vec![format!("{severity} entities.{path}")];
    for (from, to, expected) in [
        ("version = 1", "version = 1", vec![]),
        ("version = 1", "version = 2", vec![]),
        (
            "version = 1",
            "version = 1\nundeclared_operations = \"refuse\"",
            vec!["breaks_old_devices undeclared_operations".to_owned(), "breaks_old_devices version".to_owned()],
        ),
        (name, "fields.name = \"text\"\nfields.phone = \"text\"", field("customers.fields.phone", "harmless")),
        (
            name,
            "fields.name = \"text\"\nfields.vip = { type = \"boolean\", required = true }",
            field("customers.fields.vip", "breaks_old_devices"),
        ),
        (
            name,
            "fields.name = \"text\"\nfields.vip = { type = \"boolean\", required = true, default = false }",
            field("customers.fields.vip", "translated"),
        ),
        (
            name,
            "fields.name = \"text\"\nfields.vip = { type = \"boolean\", required = true, default = false, since = 1 }",
            field("customers.fields.vip", "breaks_old_devices"),
        ),
        (name, "fields.fullName = { type = \"text\", was = \"name\" }", field("customers.fields.fullName", "translated")),
        (
            name,
            "fields.fullName = { type = \"text\", was = \"name\", since = 1 }",
            field("customers.fields.fullName", "breaks_old_devices"),
        ),
        (name, "fields.name = { type = \"text\", required = true }", field("customers.fields.name", "breaks_old_devices")),
        (
            name,
            "fields.name = { type = \"text\", required = true, default = \"?\" }",
            field("customers.fields.name", "translated"),
        ),
        (name, "fields.name = \"json\"", field("customers.fields.name", "harmless")),
        (name, "fields.name = \"integer\"", field("customers.fields.name", "breaks_old_devices")),
        (name, "", field("customers.fields.name", "harmless")),
        (
            name,
            "additional = false",
            vec![
                "breaks_old_devices entities.customers.additional".to_owned(),
                "breaks_old_devices entities.customers.fields.name".to_owned(),
            ],
        ),
        (total, "fields.total = { type = \"decimal\", scale = 3 }", field("receipts.fields.total", "harmless")),
        (total, "fields.total = { type = \"decimal\", scale = 1 }", field("receipts.fields.total", "breaks_old_devices")),
        (
            total,
            "fields.total = { type = \"decimal\", scale = 2, counter = true }",
            field("receipts.fields.total", "breaks_old_devices"),
        ),
        ("counter = true, min = 0", "counter = true, min = 1", field("receipts.fields.points", "breaks_old_devices")),
        ("counter = true, min = 0", "counter = true, min = -1", field("receipts.fields.points", "harmless")),
        (
            "counter = true, min = 0",
            "counter = true, min = 1, on_violation = \"flag\"",
            field("receipts.fields.points", "harmless"),
        ),
        (", counter = true, min = 0", "", field("receipts.fields.points", "breaks_old_devices")),
        (", references = \"customers\"", "", field("receipts.fields.customerId", "harmless")),
        (
            "references = \"customers\"",
            "references = \"customers\", on_delete = \"cascade\"",
            field("receipts.fields.customerId", "harmless"),
        ),
        (
            "unique = [[\"no\"]]",
            "unique = [[\"no\", \"total\"]]",
            vec!["breaks_old_devices entities.receipts.unique".to_owned(), "harmless entities.receipts.unique".to_owned()],
        ),
        ("r.total >= 0", "r.total > 0", field("receipts.invariants.positive", "breaks_old_devices")),
        (no, "fields.no = \"text\"", field("receipts.fields.no", "harmless")),
        ("[\"cashier\"]", "[\"cashier\", \"manager\"]", vec!["harmless operations.sell.roles".to_owned()]),
        ("[\"cashier\"]", "[\"manager\"]", vec!["breaks_old_devices operations.sell.roles".to_owned()]),
        ("customers = \"0..1\"", "customers = \"1\"", vec!["breaks_old_devices operations.sell.shape.customers".to_owned()]),
        ("receipts = \"1\"", "receipts = \"1..\"", vec!["harmless operations.sell.shape.receipts".to_owned()]),
        ("[operations.sell]", "[operations.buy]\n[operations.sell]", vec!["harmless operations.buy".to_owned()]),
        (
            "[operations.sell]",
            "[operations.buy]\nroles = [\"a\"]\n[operations.sell]",
            vec!["breaks_old_devices operations.buy".to_owned()],
        ),
        ("[entities.customers]", "[entities.notes]\n[entities.customers]", field("notes", "harmless")),
        ("unique = [[\"no\"]]", "unique = [[\"no\"]]\nscope = \"no\"", field("receipts.scope", "breaks_old_devices")),
        (
            "roles = [\"cashier\"]",
            "roles = [\"cashier\"]\nscope = \"closure\"",
            vec!["harmless operations.sell.scope".to_owned()],
        ),
    ] {
        assert_eq!(changes(from, to), expected, "{from} -> {to}");
    }
}

#[test]
fn a_change_of_scopes_says_what_devices_do() {
    let divided = |version: u64, field: &str, operation: &str| {
        let entity = format!(
            "[entities.receipts]\n{field}fields.a = {{ type = \"text\", required = true }}\nfields.b = {{ type = \"text\", required = true }}\n"
        );
        Schema::parse(&format!("version = {version}\n{entity}[operations.move]\n{operation}")).unwrap()
    };
    let said = |old: &Schema, new: &Schema| diff(old, new).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let (by_a, by_b) = (divided(1, "scope = \"a\"\n", ""), divided(2, "scope = \"b\"\n", ""));
    let other = said(&by_a, &by_b);
    assert!(other.starts_with("entities.receipts.scope: breaks old devices: b says where records lie now"), "{other}");
    assert!(other.contains("bootstrap again"), "{other}");
    let open = said(&by_a, &divided(2, "", ""));
    assert!(open.starts_with("entities.receipts.scope: harmless: everybody sees all of them now"), "{open}");
    let closed = said(&divided(1, "", "scope = \"closure\"\n"), &divided(2, "", ""));
    assert!(closed.starts_with("operations.move.scope: breaks old devices"), "{closed}");
}

#[test]
fn a_change_says_why_it_breaks_and_what_to_do() {
    let new = OLD.replacen("version = 1", "version = 2", 1).replacen(
        "fields.name = \"text\"",
        "fields.name = \"text\"\nfields.vip = { type = \"boolean\", required = true }",
        1,
    );
    let changes = diff(&Schema::parse(OLD).unwrap(), &Schema::parse(&new).unwrap());
    assert_eq!(
        changes[0].to_string(),
        "entities.customers.fields.vip: breaks old devices: a new required field without default: groups of devices on \
         version 1 will be refused; add default"
    );
}
