//! `gbsync bench --quick`, run as a user runs it: every part runs, and the figures keep their names and shape.
use serde_json::Value;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gbsync"));
    command.args(["bench", "--quick", "--folder"]).arg(temporary.path()).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "the bench leaves its folders behind");
    output
}

#[test]
fn every_figure_is_measured_and_stands_beside_its_baseline() {
    let shown: Value = serde_json::from_slice(&bench(&["--json"]).stdout).unwrap();
    assert_eq!(shown["quick"], true);
    let figures = shown["figures"].as_array().unwrap();
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    let expected = [
        "planner",
        "planner-growth",
        "local-full",
        "local-normal",
        "push",
        "push-batch-500",
        "devices-16",
        "transactions-a-push",
        "sqlite-16",
        "sqlite-16-all-rows",
        "pull",
        "watch-delay",
        "decide",
        "local-typed",
        "pull-typed",
        "select-typed",
        "live-memory",
        "live-p99",
        "live-postgres-memory",
        "live-postgres-p99",
        "postgres",
        "postgres-all-rows",
        "postgres-one-space",
        "postgres-processor",
        "postgres-processor-all-rows",
        "snapshot",
        "snapshot-client",
        "snapshot-server",
        "snapshot-wait",
        "snapshot-typed-wait",
        "memory-client",
        "memory-server",
        "drain",
    ];
    assert_eq!(names, expected);
    for figure in figures {
        assert!(figure["ours"].as_f64().is_some_and(|ours| ours.is_finite() && ours >= 0.0), "{figure}");
        let (raw, ratio) = (figure["raw"].as_f64(), figure["ratio"].as_f64());
        assert_eq!(raw.is_some(), ratio.is_some(), "{figure}");
        assert_eq!(figure["bar"].is_null(), figure["isMet"].is_null(), "{figure}");
        assert_ne!(figure["note"], "", "{figure}");
    }
}

#[test]
fn one_part_can_be_measured_alone_and_read_as_a_table() {
    let text = String::from_utf8(bench(&["--only", "planner"]).stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("figure"), "{text}");
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[1].starts_with("planner ") && lines[1].contains("changes/s"), "{text}");
}
