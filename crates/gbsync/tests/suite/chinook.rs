//! The main job on data of a real shape: a music store's catalogue and invoices, from one device through a server into
//! another, with batches of two records.

use crate::shop::{Dice, Shop};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[test]
fn a_generated_music_store_arrives_whole_on_another_device() {
    let shop = Shop::new();
    shop.write("catalog.ndjson", &catalog());
    shop.write("invoices.ndjson", &invoices(&mut Dice(412)));
    store_arrives_whole(&shop, &shop.path("catalog.ndjson"), &shop.path("invoices.ndjson"));
}

#[test]
fn the_chinook_music_store_arrives_whole_on_another_device_where_its_data_is_at_hand() {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.is_dir() {
        return;
    }
    store_arrives_whole(&Shop::new(), &data.join("chinook-catalog.ndjson"), &data.join("chinook-invoices.ndjson"));
}

fn store_arrives_whole(shop: &Shop, catalog: &Path, invoices: &Path) {
    let server = shop.serve();
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    for file in [catalog, invoices] {
        shop.run(&["apply", "a.db", file.to_str().unwrap()]).done();
    }
    assert_eq!(shop.run(&["status", "a.db", "--json"]).json()["pending"], 4_240 + 412);

    let trace = shop.run(&["sync", "a.db", "--batch-size", "2", "--trace"]).done();
    let largest = trace.lines().filter(|line| line.ends_with("(3291 records)")).count();
    assert_eq!(largest, 2, "each of the two playlists of 3,291 records travels in one batch");
    shop.run(&["sync", "b.db"]).done();

    for device in ["a.db", "b.db"] {
        for (entity, count) in [("tracks", 3_503), ("invoices", 412), ("invoice_lines", 2_240), ("playlist_tracks", 8_715)] {
            let sql = format!("SELECT count(*) FROM gbsync_records WHERE entity = '{entity}'");
            assert_eq!(shop.value(device, &sql), count, "{entity} on {device}");
        }
        // One position of the log is one group: what it last changed has its number as version.
        let largest = "SELECT max(n) FROM (SELECT count(*) AS n FROM gbsync_base GROUP BY version)";
        assert_eq!(shop.value(device, largest), 3_291, "the largest playlist in one piece on {device}");
        assert_eq!(shop.value(device, HALVED_INVOICES), 0, "invoices whose lines do not sum to their total on {device}");
    }
    let digest = shop.digest("a.db");
    assert!(digest.contains("records=15607 "), "{digest}");
    assert_eq!(digest, shop.digest("b.db"));
    assert_eq!(digest, shop.server_digest());
    assert_eq!(shop.run(&["status", "a.db", "--json"]).json()["pending"], 0);
}

/// Sums in cents, because a sum of binary fractions is not the decimal sum.
const HALVED_INVOICES: &str = "
    WITH line AS (
      SELECT payload ->> 'invoiceId' AS invoice,
             sum(CAST(round(100 * (payload ->> 'unitPrice')) AS INTEGER) * (payload ->> 'quantity')) AS cents
        FROM gbsync_records WHERE entity = 'invoice_lines' GROUP BY 1)
    SELECT count(*) FROM gbsync_records AS i LEFT JOIN line ON line.invoice = i.id
     WHERE i.entity = 'invoices' AND CAST(round(100 * (i.payload ->> 'total')) AS INTEGER) IS NOT line.cents";

fn upsert(entity: &str, id: &str, payload: &str) -> String {
    format!(r#"{{"entity": "{entity}", "id": "{id}", "action": "upsert", "payload": {payload}}}"#)
}

fn catalog() -> String {
    let mut file = String::new();
    let mut single = |entity: &str, count: u64, payload: &dyn Fn(u64) -> String| {
        for id in 1..=count {
            writeln!(file, r#"{{"changes": [{}]}}"#, upsert(entity, &id.to_string(), &payload(id))).unwrap();
        }
    };
    let named = |id: u64| format!(r#"{{"name": "Ñame № {id} “😀”"}}"#);
    single("genres", 25, &named);
    single("media_types", 5, &named);
    single("artists", 275, &named);
    single("albums", 347, &|id| format!(r#"{{"title": "Album {id}", "artistId": "{}"}}"#, id % 275 + 1));
    single("tracks", 3_503, &|id| {
        let (album, bytes) = (id % 347 + 1, id * 7_919);
        format!(r#"{{"name": "Track {id}", "albumId": "{album}", "composer": null, "bytes": {bytes}, "unitPrice": 0.99}}"#)
    });
    single("employees", 8, &|id| format!(r#"{{"name": "Employee {id}", "reportsTo": "{}"}}"#, id.max(2) - 1));
    single("customers", 59, &|id| format!(r#"{{"name": "Customer {id}", "supportRepId": "{}"}}"#, id % 8 + 1));
    // 18 playlists with 8,715 tracks: two of 3,290, the others share the rest, and one is empty.
    let others = 8_715 - 2 * 3_290;
    for list in 1..=18_u64 {
        let tracks = match list {
            1 | 8 => 3_290,
            2 => 0,
            18 => others - 14 * (others / 15),
            _ => others / 15,
        };
        let id = list.to_string();
        let mut changes = vec![upsert("playlists", &id, &named(list))];
        changes.extend((1..=tracks).map(|track| {
            let payload = format!(r#"{{"playlistId": "{list}", "trackId": "{track}"}}"#);
            upsert("playlist_tracks", &format!("{list}-{track}"), &payload)
        }));
        let changes = changes.join(", ");
        writeln!(file, r#"{{"type": "playlist-create", "root": "{list}", "changes": [{changes}]}}"#).unwrap();
    }
    file
}

/// 412 invoices with 2,240 lines: 1 to 14 lines each.
fn invoices(dice: &mut Dice) -> String {
    let mut file = String::new();
    let (mut line, mut left) = (0_u64, 2_240_u64);
    for invoice in 1..=412_u64 {
        let still = 412 - invoice;
        let least = left.saturating_sub(still * 14).max(1);
        let most = (left - still).min(14);
        let lines =
            if still == 0 { left } else { (least + dice.below(most - least + 1)).min((left - still).min(10).max(least)) };
        left -= lines;
        let mut changes = Vec::new();
        let mut cents = 0;
        for _ in 0..lines {
            line += 1;
            let (track, price) = (dice.below(3_503) + 1, [99, 199][dice.below(2) as usize]);
            cents += price;
            let price = format!("{}.{:02}", price / 100, price % 100);
            let payload =
                format!(r#"{{"invoiceId": "{invoice}", "trackId": "{track}", "unitPrice": {price}, "quantity": 1}}"#);
            changes.push(upsert("invoice_lines", &line.to_string(), &payload));
        }
        let total = format!("{}.{:02}", cents / 100, cents % 100);
        let payload = format!(r#"{{"customerId": "{}", "total": {total}}}"#, invoice % 59 + 1);
        changes.insert(0, upsert("invoices", &invoice.to_string(), &payload));
        let changes = changes.join(", ");
        writeln!(file, r#"{{"type": "invoice-create", "root": "{invoice}", "changes": [{changes}]}}"#).unwrap();
    }
    file
}
