//! `examples/chinook/gbsync.toml` in force: what keeps every reference and the rule of its invoices is accepted, and one
//! price that was changed is found.

use crate::shop::{Serving, Shop};
use std::path::PathBuf;

const RECORDS: [(&str, &str, &str); 9] = [
    ("genres", "1", r#"{"name":"Rock"}"#),
    ("media_types", "1", r#"{"name":"MPEG"}"#),
    ("artists", "1", r#"{"name":"AC/DC"}"#),
    ("albums", "1", r#"{"title":"Let There Be Rock","artistId":"1"}"#),
    (
        "tracks",
        "1",
        r#"{"name":"Go Down","albumId":"1","mediaTypeId":"1","genreId":"1","milliseconds":331180,"unitPrice":0.99}"#,
    ),
    ("employees", "1", r#"{"lastName":"Adams","firstName":"Andrew","reportsTo":null}"#),
    ("employees", "2", r#"{"lastName":"Edwards","firstName":"Nancy","reportsTo":1}"#),
    ("customers", "1", r#"{"firstName":"Luís","lastName":"Gonçalves","email":"l@example.org","supportRepId":"2"}"#),
    ("playlists", "1", r#"{"name":"Music"}"#),
];

/// A small store in the form of the sample database.
fn lines() -> (String, String) {
    let change = |entity: &str, id: &str, payload: &str| {
        format!(r#"{{"entity":"{entity}","id":"{id}","action":"upsert","payload":{payload}}}"#)
    };
    let single = |(entity, id, payload): (&str, &str, &str)| format!("{{\"changes\":[{}]}}\n", change(entity, id, payload));
    let invoice = |id: usize| {
        let line = |n: usize| {
            let payload = format!(r#"{{"invoiceId":"{id}","trackId":"1","unitPrice":0.99,"quantity":{n}}}"#);
            change("invoice_lines", &format!("{id}-{n}"), &payload)
        };
        let total = r#"{"customerId":"1","invoiceDate":"2021-01-01 00:00:00","total":2.97}"#;
        let changes = [change("invoices", &id.to_string(), total), line(1), line(2)].join(",");
        format!("{{\"type\":\"invoice-create\",\"root\":\"{id}\",\"changes\":[{changes}]}}\n")
    };
    (RECORDS.into_iter().map(single).collect(), (1..=20).map(invoice).collect())
}

/// Pushes both files through a server with the schema; answers what was said on standard error, and the outbox.
fn refused(catalog: &str, invoices: &str) -> (String, Outbox) {
    let shop = Shop::new();
    let schema = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/chinook/gbsync.toml");
    let server = Serving::start_with(&shop.data(), "127.0.0.1:0", &["--schema", schema.to_str().unwrap()]);
    shop.init("a.db", &server.url);
    shop.apply("a.db", catalog);
    shop.apply("a.db", invoices);
    let stderr = shop.run(&["sync", "a.db"]).stderr;
    let list = shop.run(&["outbox", "list", "a.db"]).stdout;
    let json = shop.run(&["outbox", "list", "a.db", "--json"]).json();
    let show = json[0]["syncGroupId"].as_str().map(|id| shop.run(&["outbox", "show", "a.db", id]).done());
    (stderr, Outbox { list, json, show })
}

/// What `gbsync outbox` says of the device.
struct Outbox {
    list: String,
    json: serde_json::Value,
    show: Option<String>,
}

/// Changes one price of one invoice: exactly that invoice is refused, and the rule named.
fn check_change(catalog: &str, invoices: &str, changed: usize) {
    let with_change = |(index, line): (usize, &str)| {
        let line = if index + 1 == changed { line.replacen("0.99", "1.09", 1) } else { line.to_owned() };
        line + "\n"
    };
    // The first 0.99 of these invoices is the price of a line.
    let invoices: String = invoices.lines().enumerate().map(with_change).collect();
    let (stderr, outbox) = refused(catalog, &invoices);
    assert_eq!(stderr.matches("error[").count(), 1, "{stderr}");
    let (rule, first) = ("lines-make-the-total", stderr.lines().next().unwrap());
    assert!(first.starts_with(&format!("error[invariant_violation]: invoice-create {changed} refused whole (")), "{first}");
    assert!(first.contains(&format!(" records): rule {rule}: the rule \"{rule}\" would not hold for invoices:")), "{first}");
    assert_eq!((outbox.json.as_array().unwrap().len(), outbox.json[0]["rule"].as_str()), (1, Some(rule)));
    assert!(outbox.list.contains(&format!("invariant_violation  {rule}  the rule")), "{}", outbox.list);
    let show = outbox.show.unwrap();
    assert!(show.contains(&format!("  rule: {rule}\n")), "{show}");
}

#[test]
fn a_store_that_keeps_its_references_is_accepted_and_one_changed_price_is_found() {
    let (catalog, invoices) = lines();
    assert_eq!(refused(&catalog, &invoices).0, "", "everything keeps the rules");
    check_change(&catalog, &invoices, 7);
}

#[test]
fn all_of_chinook_but_one_changed_price_is_accepted_where_its_data_is_at_hand() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.is_dir() {
        return;
    }
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    check_change(&read("chinook-catalog.ndjson"), &read("chinook-invoices.ndjson"), 100);
}
