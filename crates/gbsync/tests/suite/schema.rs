//! `gbsync check`, `gbsync schema infer` and `gbsync schema diff`, as a person runs them.

use crate::shop::{Ran, gbsync};
use std::path::{Path, PathBuf};

fn run(arguments: &[&str], folder: &Path) -> Ran {
    Ran::of(gbsync().args(arguments).current_dir(folder).output().unwrap())
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const GOOD: &str = "version = 1\n[entities.notes]\nfields.text = { type = \"text\", required = true }\n";
const BAD: &str = "version = 1\n[entities.notes]\nfields.total = { type = \"decimal\", scael = 2 }\nfields.no = \"txet\"\n";

#[test]
fn check_names_every_mistake_with_line_and_fix() {
    let folder = folder_with(&[("gbsync.toml", BAD)]);
    let ran = run(&["check", "gbsync.toml"], folder.path());
    assert_eq!(ran.code, Some(1));
    let expected = "gbsync.toml:3:36: unknown key \"scael\"; did you mean \"scale\"?\n\
        gbsync.toml:4:13: \"txet\" is no type; did you mean \"text\"?\n";
    assert_eq!(ran.stdout, expected);
    assert!(ran.stderr.contains("error[schema]: gbsync.toml is no schema: 2 mistakes"), "{}", ran.stderr);

    let ran = run(&["check", "gbsync.toml", "--json"], folder.path());
    let data: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(data["problems"][0]["line"], 3);
    assert_eq!(data["problems"][0]["path"], "entities.notes.fields.total.scael");
    assert_eq!(data["problems"][1]["code"], "unknown_value");
    assert_eq!(ran.json_error(1)["code"], "schema");
}

#[test]
fn check_sums_up_a_schema() {
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/chinook/gbsync.toml");
    let file = example.to_str().unwrap();
    let text = run(&["check", file], Path::new(".")).done();
    assert!(text.contains("a schema, version 1 (11 entities, 2 operation types)"), "{text}");
    let data = run(&["check", file, "--json"], Path::new(".")).json();
    let entities = data["entities"].as_array().unwrap();
    let references: usize = entities.iter().map(|entity| entity["references"].as_array().unwrap().len()).sum();
    assert_eq!(references, 11, "all references of Chinook");
    assert_eq!(data["operations"][0]["invariants"][0], "lines-make-the-total");
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    assert_eq!(run(&["check", "none.toml", "--json"], folder.path()).json_error(1)["code"], "schema_file");
    assert_eq!(run(&["check", "binary", "--json"], folder.path()).json_error(1)["code"], "schema");
    assert_eq!(
        run(&["schema", "diff", "none.toml", "none.toml", "--json"], folder.path()).json_error(1)["code"],
        "schema_file"
    );
}

#[test]
fn an_inferred_schema_is_written_once_and_passes_the_check() {
    let lines = "{\"type\":\"sell\",\"root\":\"r1\",\"changes\":[\
        {\"entity\":\"receipts\",\"id\":\"r1\",\"action\":\"upsert\",\"payload\":{\"total\":\"1.50\"}}]}\n\n";
    let folder = folder_with(&[("operations.ndjson", lines)]);
    let printed = run(&["schema", "infer", "operations.ndjson"], folder.path()).done();
    assert!(printed.contains("fields.total = { type = \"decimal\", scale = 2, required = true }"), "{printed}");
    let ran = run(&["schema", "infer", "operations.ndjson", "--out", "gbsync.toml"], folder.path());
    assert!(ran.stderr.contains("1 entity and 1 operation type inferred from 1 line"), "{}", ran.stderr);
    ran.done();
    assert_eq!(std::fs::read_to_string(folder.path().join("gbsync.toml")).unwrap(), printed);
    run(&["check", "gbsync.toml"], folder.path()).done();
    let again = run(&["schema", "infer", "operations.ndjson", "--out", "gbsync.toml", "--json"], folder.path());
    assert_eq!(again.json_error(1)["code"], "file_exists");
}

#[test]
fn a_line_that_cannot_be_read_stops_the_inference_and_is_named() {
    let folder = folder_with(&[("operations.ndjson", "{\"changes\":[]}\n")]);
    let error = run(&["schema", "infer", "operations.ndjson", "--out", "s.toml", "--json"], folder.path()).json_error(1);
    assert!(error["message"].as_str().unwrap().starts_with("operations.ndjson:1: "), "{error}");
    assert!(!folder.path().join("s.toml").exists());
}

#[test]
fn diff_says_what_breaks_old_devices_and_can_fail_on_it() {
    let new = GOOD.replace("version = 1", "version = 2") + "fields.day = { type = \"date\", required = true }\n";
    let folder = folder_with(&[("old.toml", GOOD), ("new.toml", &new), ("bad.toml", BAD)]);
    let text = run(&["schema", "diff", "old.toml", "new.toml"], folder.path()).done();
    assert!(text.contains("entities.notes.fields.day: breaks old devices: "), "{text}");
    let data = run(&["schema", "diff", "old.toml", "new.toml", "--json"], folder.path()).json();
    assert_eq!(data["changes"][0]["severity"], "breaks_old_devices");
    assert_eq!(data["changes"][0]["fix"], "add default");
    let failed = run(&["schema", "diff", "old.toml", "new.toml", "--fail-on-break", "--json"], folder.path());
    assert_eq!(failed.json_error(1)["code"], "breaks_old_devices");
    assert_eq!(run(&["schema", "diff", "old.toml", "old.toml"], folder.path()).done(), "nothing changes\n");
    let error = run(&["schema", "diff", "old.toml", "bad.toml", "--json"], folder.path()).json_error(1);
    assert_eq!(error["details"].as_array().unwrap().len(), 2, "every mistake of a schema that is none");
}
