//! `gbsync outbox` and `gbsync rejections`: a refused group from both sides.

use crate::shop::{Ran, Shop, gbsync};

#[test]
fn a_refused_group_is_shown_amended_and_discarded_and_the_back_office_closes_another() {
    let shop = Shop::new();
    let server = shop.serve();
    let run = |arguments: &[&str]| Ran::of(gbsync().args(arguments).current_dir(shop.folder.path()).output().unwrap());
    let token = |role: &[&str]| {
        let create = ["token", "create", "--data", "server", "--space", "shop"];
        run(&[&create[..], role].concat()).done().trim().to_owned()
    };
    let (till, office) = (token(&[]), token(&["--role", "admin", "--actor", "ann"]));
    for file in ["a.db", "b.db"] {
        run(&["init", file, "--server", &server.url, "--space", "shop", "--token", &till]).done();
    }
    let write = |name: &str, text: &str| std::fs::write(shop.path(name), text).unwrap();
    let upsert = |id: &str, total: &str| {
        format!(r#"{{"entity":"receipts","id":"{id}","action":"upsert","payload":{{"total":"{total}"}}}}"#)
    };
    let line =
        |id: &str, total: &str| format!("{{\"type\":\"sale\",\"root\":\"{id}\",\"changes\":[{}]}}\n", upsert(id, total));
    write("a.ndjson", &(line("r1", "1.00") + &line("r2", "2.00") + &line("r3", "3.00")));
    write("b.ndjson", &(line("r1", "9.00") + &line("r2", "9.00") + &line("r3", "9.00")));
    write("amended.ndjson", &line("r1b", "9.00"));
    write("amended.json", &format!("[{}]", upsert("r2b", "9.00")));
    for file in ["a", "b"] {
        run(&["apply", &format!("{file}.db"), &format!("{file}.ndjson")]).done();
        run(&["sync", &format!("{file}.db")]).done();
    }

    let shown = run(&["outbox", "show", "b.db", "1"]).done();
    assert!(shown.contains("code: conflict"), "{shown}");
    assert!(shown.contains(r#"change 0: upsert receipts:r1 {"total":"9.00"}"#), "{shown}");
    assert!(shown.contains(r#"server has: {"total":"1.00"} (version 1)"#), "{shown}");
    let shown = run(&["outbox", "show", "b.db", "sale:r1:", "--json"]).json();
    assert_eq!(shown["changes"][0]["current"]["total"], "1.00");
    assert_eq!(run(&["outbox", "show", "b.db", "sale:", "--json"]).json_error(1)["code"], "ambiguous_group");

    let amended = run(&["outbox", "amend", "b.db", "1", "--changes", "amended.ndjson", "--json"]).json();
    assert_eq!(amended["deviceSeq"], 4);
    assert_eq!(run(&["outbox", "retry", "b.db", "1", "--json"]).json_error(1)["code"], "not_parked");
    run(&["outbox", "discard", "b.db", "3", "--reason", "rung up twice"]).done();

    let ask = |verb: &[&str]| {
        let office = ["--server", &server.url, "--space", "shop", "--token", &office, "--json"];
        run(&[&["rejections"], verb, &office[..]].concat())
    };
    let open = ask(&["list"]).json();
    let second = open["rejections"][1]["syncGroupId"].as_str().unwrap().to_owned();
    assert!(second.starts_with("sale:r2:"), "{open}");
    assert_eq!(ask(&["show", &second]).json()["changes"][0]["payload"]["total"], "9.00");
    let closed = ask(&["amend", &second, "--changes", "amended.json", "--reason", "another number"]).json();
    assert_eq!(closed["resolution"]["actor"], "ann");
    assert_eq!(ask(&["discard", &second, "--reason", "x"]).json_error(1)["code"], "already_closed");

    run(&["sync", "b.db"]).done();
    let states = run(&["outbox", "list", "b.db", "--all", "--json"]).json();
    let states: Vec<_> =
        states.as_array().unwrap().iter().map(|group| group["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["replaced", "replaced", "discarded", "accepted"]);
    assert_eq!(run(&["outbox", "b.db", "--json"]).json(), serde_json::json!([]), "the short form lists what is open");
    assert_eq!(ask(&["list"]).json()["rejections"], serde_json::json!([]));
    run(&["sync", "a.db"]).done();
    assert_eq!(shop.digest("a.db"), shop.server_digest());
}
