//! `gbsync demo`, run as a user runs it, with a smaller workload.
use expect_test::expect;
use serde_json::Value;
use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gbsync"));
    let output = command.arg("demo").args(arguments).env("TMPDIR", temporary.path()).output().unwrap();
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "the demo leaves its folders behind");
    output
}

fn measured(output: &Output) -> (Value, Value) {
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    (shown["measurements"][0].clone(), shown["measurements"][1].clone())
}

/// Every UUID as `<uuid>`.
fn masked(text: &str) -> String {
    let is_uuid = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let has_form = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
        has_form && parts.iter().all(|part| part.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let mask = |line: &str| match line.rsplit_once(':') {
        Some((before, uuid)) if is_uuid(uuid) => format!("{before}:<uuid>"),
        _ => line.to_owned(),
    };
    text.lines().map(mask).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_operation_larger_than_a_batch_is_shown_whole_and_the_table_follows() {
    let output = demo(&["--operations", "40"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    expect![[r#"
        Batch 1 (3 records)
        - receipts:receipt-001 action=upsert group=receipt-create / receipt-create:receipt-001:<uuid>
        - payments:payment-001 action=upsert group=receipt-create / receipt-create:receipt-001:<uuid>
        - financial_entries:entry-001 action=upsert group=receipt-create / receipt-create:receipt-001:<uuid>

        Batch 2 (2 records)
        - products:product-001 action=upsert group=no-group
        - customers:customer-001 action=upsert group=no-group
    "#]]
    .assert_eq(&(masked(&lines[..8].join("\n")) + "\n"));
    let row = |name: &str| lines.iter().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>();
    let (naive, grouped) = (row("naive "), row("gbsync "));
    assert_eq!((naive[1], grouped[1]), ("40", "40"));
    assert_eq!((grouped[5], grouped[6]), ("0", "0"), "gbsync shows an operation in part");
    assert_ne!(naive[5], "0", "the naive queue shows no orphan");
}

#[test]
fn only_the_queue_of_single_records_shows_orphans_and_both_arrive() {
    let output = demo(&["--operations", "80", "--seed", "7", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (naive, grouped) = measured(&output);
    assert_eq!((&naive["queue"], &grouped["queue"]), (&"naive".into(), &"gbsync".into()));
    for measured in [&naive, &grouped] {
        assert_eq!(measured["operations"], 80);
        assert_eq!(measured["completeAtTheEnd"], true, "{measured}");
        assert_eq!(measured["incompleteAtTheEnd"], 0, "{measured}");
        assert!(measured["cuts"].as_u64().unwrap() > 0, "the link did not break: {measured}");
        assert!(measured["requests"].as_u64().unwrap() > measured["cuts"].as_u64().unwrap(), "{measured}");
        assert!(measured["observations"].as_u64().unwrap() > 50, "{measured}");
    }
    assert!(naive["observationsWithAnOrphan"].as_u64().unwrap() > 0, "{naive}");
    for zero in ["observationsWithAnOrphan", "observationsWithWrongStock", "incompleteAtCuts", "mostIncompleteAtACut"] {
        assert_eq!(grouped[zero], 0, "{zero}: {grouped}");
    }
}
