//! What every verb has in common: help, version, exit codes, the form of errors, and readers that go away.

use crate::shop::{Shop, gbsync, single};
use expect_test::expect;
use std::process::Stdio;

const VERBS: [&[&str]; 20] = [
    &[],
    &["serve"],
    &["token"],
    &["token", "create"],
    &["token", "list"],
    &["token", "revoke"],
    &["actor"],
    &["actor", "set"],
    &["actor", "list"],
    &["actor", "remove"],
    &["init"],
    &["apply"],
    &["sync"],
    &["query"],
    &["status"],
    &["orphans"],
    &["outbox"],
    &["digest"],
    &["demo"],
    &["bench"],
];

#[test]
fn every_verb_answers_help_with_an_example_on_standard_output() {
    let shop = Shop::new();
    for verb in VERBS {
        let ran = shop.run(&[verb, &["--help"]].concat());
        assert!(ran.stderr.is_empty(), "{verb:?}: {}", ran.stderr);
        let help = ran.done();
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{verb:?} has no example"));
        assert!(example.contains("gbsync "), "{verb:?}");
        assert!(!help.contains('\x1b'), "{verb:?}: no colours in a pipe");
    }
}

#[test]
fn the_version_is_printed() {
    let version = format!("gbsync {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Shop::new().run(&["--version"]).done(), version);
}

#[test]
fn what_is_not_understood_ends_with_2_and_says_why() {
    let shop = Shop::new();
    let refused: [&[&str]; 8] = [
        &["no-such-verb"],
        &["sync"],
        &["init", "x.db", "--server", "ftp://example.com", "--space", "shop"],
        &["init", "x.db", "--server", "http://a", "--space", ""],
        &["sync", "x.db", "--batch-records", "0"],
        &["apply", "x.db", "ops.ndjson", "--from-line", "0"],
        &["digest"],
        &["digest", "x.db", "--data", "server", "--space", "shop"],
    ];
    for arguments in refused {
        let ran = shop.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error"), "{arguments:?}: {ran:?}");
    }
    assert!(!shop.path("x.db").exists());
}

#[test]
fn an_error_under_json_is_an_object_on_standard_error() {
    let shop = Shop::new();
    let error = shop.run(&["status", "nowhere.db", "--json"]).json_error(1);
    expect![[r#"
        {
          "code": "file_not_found",
          "message": "nowhere.db does not exist",
          "details": [],
          "help": "gbsync init nowhere.db --server URL --space SPACE makes it"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&error).unwrap());
    assert_eq!(shop.run(&["sync", "--json"]).json_error(2)["code"], "usage");
}

#[test]
fn an_error_names_its_code_and_the_next_step() {
    let ran = Shop::new().run(&["digest", "nowhere.db"]);
    assert_eq!(ran.code, Some(1));
    expect![[r#"
        error[file_not_found]: nowhere.db does not exist
          help: gbsync init nowhere.db --server URL --space SPACE makes it
    "#]]
    .assert_eq(&ran.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i FROM n";
    for form in [&["query", "till.db", many][..], &["query", "till.db", many, "--json"]] {
        let mut child = shop.command(form).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = crate::shop::Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    }
    // Work that changes something is finished although nobody listens.
    let lines: String = (0..1000).map(|n| single("notes", &n.to_string(), "text")).collect();
    shop.write("notes.ndjson", &lines);
    let mut command = shop.command(&["apply", "till.db", "notes.ndjson", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(shop.value("till.db", "SELECT count(*) FROM gbsync_records"), 1000);
}

#[test]
fn a_full_disk_under_standard_output_is_told() {
    let shop = Shop::new();
    shop.init_offline("till.db");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let ran = shop.command(&["digest", "till.db"]).stdout(full).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8(ran.stderr).unwrap().starts_with("error[output]: standard output could not be written"));
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let output = gbsync().args(["status", "nowhere.db"]).env("CLICOLOR_FORCE", "0").output().unwrap();
    assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
}
