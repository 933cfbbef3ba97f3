//! A music store whose schema has all its references, and the rule that an invoice is the sum of its lines.

use super::{change, converged, init, operation, repository, serve, sync};
use crate::shop::Shop;
use std::path::PathBuf;

/// Catalogue and invoices, as files of a folder.
struct Store {
    shop: Shop,
    invoices: String,
    /// How many invoices there are.
    count: usize,
    /// The one whose price is changed.
    changed: &'static str,
}

fn with_schema(shop: &Shop) -> &'static str {
    std::fs::copy(repository("examples/chinook/gbsync.toml"), shop.path("chinook.toml")).unwrap();
    "chinook.toml"
}

/// The data of this project's authors, where it is at hand.
fn chinook() -> Option<Store> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let shop = Shop::new();
    std::fs::copy(data.join("chinook-catalog.ndjson"), shop.path("catalog.ndjson")).ok()?;
    let invoices = std::fs::read_to_string(data.join("chinook-invoices.ndjson")).unwrap();
    let count = invoices.lines().count();
    Some(Store { shop, invoices, count, changed: "200" })
}

/// A store of the same kind, made here.
fn generated() -> Store {
    let shop = Shop::new();
    let single =
        |entity: &str, id: &str, payload: &str| format!("{{\"changes\":[{}]}}\n", change(entity, id, "upsert", payload));
    let mut catalog = String::new();
    catalog += &single("genres", "1", r#"{"name":"Rock"}"#);
    catalog += &single("media_types", "1", r#"{"name":"MPEG audio file"}"#);
    catalog += &single("artists", "1", r#"{"name":"AC/DC"}"#);
    catalog += &single("albums", "1", r#"{"title":"Let There Be Rock","artistId":"1"}"#);
    for track in 1..=20 {
        let payload = format!(
            r#"{{"name":"Track {track}","albumId":"1","mediaTypeId":"1","genreId":"1","composer":null,"milliseconds":1000,"bytes":1000,"unitPrice":0.99}}"#
        );
        catalog += &single("tracks", &track.to_string(), &payload);
    }
    catalog += &single("employees", "1", r#"{"firstName":"Ada","lastName":"Adams","title":"Manager","reportsTo":null}"#);
    catalog +=
        &single("customers", "1", r#"{"firstName":"Leo","lastName":"K","email":"leo@example.com","supportRepId":"1"}"#);
    // A hundred lists of every track in one group: many records that refer to few.
    let mut lists = Vec::new();
    for list in 1..=100 {
        lists.push(change("playlists", &list.to_string(), "upsert", r#"{"name":"Music"}"#));
        lists.extend((1..=20).map(|track| {
            let payload = format!(r#"{{"playlistId":"{list}","trackId":"{track}"}}"#);
            change("playlist_tracks", &format!("{list}-{track}"), "upsert", &payload)
        }));
    }
    catalog += &operation("playlists-import", "1", &lists);
    shop.write("catalog.ndjson", &catalog);
    let invoices = (1..=40).map(invoice).collect();
    Store { shop, invoices, count: 40, changed: "20" }
}

fn invoice(number: u32) -> String {
    let lines = number % 3 + 1;
    let total = format!("{}.{:02}", lines * 99 / 100, lines * 99 % 100);
    let payload = format!(r#"{{"customerId":"1","invoiceDate":"2021-01-01 00:00:00","total":{total}}}"#);
    let mut changes = vec![change("invoices", &number.to_string(), "upsert", &payload)];
    changes.extend((0..lines).map(|line| {
        let payload = format!(r#"{{"invoiceId":"{number}","trackId":"{}","unitPrice":0.99,"quantity":1}}"#, line + 1);
        change("invoice_lines", &format!("{number}-{line}"), "upsert", &payload)
    }));
    operation("invoice-create", &number.to_string(), &changes)
}

impl Store {
    /// The invoices, with one price of one of them changed.
    fn with_one_price_changed(&self) -> String {
        let root = format!("\"root\": \"{}\"", self.changed);
        let is_it = |line: &str| line.contains(&root) || line.contains(&root.replace(": ", ":"));
        let changed = |line: &str| {
            if !is_it(line) {
                return format!("{line}\n");
            }
            let price = if line.contains("\"unitPrice\": ") { "\"unitPrice\": " } else { "\"unitPrice\":" };
            let place = line.find(price).unwrap() + price.len();
            let end = place + line[place..].find(',').unwrap();
            format!("{}0.98{}\n", &line[..place], &line[end..])
        };
        let text: String = self.invoices.lines().map(changed).collect();
        assert_ne!(text, self.invoices);
        text
    }

    fn everything_is_accepted(&self) {
        let Self { shop, count, .. } = self;
        let schema = with_schema(shop);
        let server = serve(shop, schema);
        init(shop, "a.db", &server.url, schema);
        init(shop, "b.db", &server.url, schema);
        shop.run(&["apply", "a.db", "catalog.ndjson"]).done();
        shop.apply("a.db", &self.invoices);
        sync(shop, &["a.db", "b.db"]);
        let status = shop.run(&["status", "a.db", "--json"]).json();
        assert_eq!([&status["pending"], &status["parked"]], [0, 0], "{status}");
        assert_eq!(shop.value("b.db", "SELECT count(*) FROM invoices"), *count);
        let halved = "SELECT count(*) FROM invoices AS i WHERE total_minor IS NOT
                      (SELECT sum(unitPrice_minor * quantity) FROM invoice_lines WHERE invoiceId = i.id)";
        assert_eq!(shop.value("b.db", halved), 0, "exact, in SQL, on the other device");
        converged(shop, ["a.db", "b.db"]);
    }

    /// On the device, before it is sent; that the server refuses it is in chinook_rules.rs.
    fn the_changed_invoice_is_refused(&self) {
        let shop = &self.shop;
        let schema = with_schema(shop);
        let invoices = self.with_one_price_changed();

        init(shop, "ruled.db", "http://127.0.0.1:9", schema);
        shop.run(&["apply", "ruled.db", "catalog.ndjson"]).done();
        shop.write("invoices.ndjson", &invoices);
        let error = shop.run(&["apply", "ruled.db", "invoices.ndjson", "--json"]).json_error(1);
        let message = error["message"].as_str().unwrap();
        let line = invoices.lines().position(|line| line.contains("0.98")).unwrap() + 1;
        assert!(message.contains(&format!(":{line}:")) && message.contains("lines-make-the-total"), "{message}");
        assert_eq!(shop.value("ruled.db", "SELECT count(*) FROM invoices"), line - 1, "the lines before it are there");
    }
}

#[test]
fn a_generated_store_with_all_its_rules_is_accepted_in_full() {
    generated().everything_is_accepted();
}

#[test]
fn with_one_price_changed_exactly_that_invoice_of_a_generated_store_is_refused_on_the_device_and_named() {
    generated().the_changed_invoice_is_refused();
}

#[test]
fn chinook_with_all_its_references_and_the_rule_of_its_totals_is_accepted_in_full_where_its_data_is_at_hand() {
    if let Some(store) = chinook() {
        store.everything_is_accepted();
    }
}

#[test]
fn with_one_price_changed_exactly_that_invoice_of_chinook_is_refused_on_the_device_and_named_where_its_data_is_at_hand() {
    if let Some(store) = chinook() {
        store.the_changed_invoice_is_refused();
    }
}
