//! Bugs that are planted on purpose: only where the build says so, and found where it does.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gbsync-sim")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_bug_of_the_list_has_a_name() {
    let output = sim(&["--mutants", "--list"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output).lines().count(), gbsync_core::mutant::Mutant::ALL.len());
}

#[cfg(not(feature = "mutants"))]
#[test]
fn a_build_without_the_feature_cannot_plant_a_bug() {
    for arguments in [&["--mutants"][..], &["--mutant", "parked-payload-lost"]] {
        let output = sim(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("this build cannot plant bugs"), "{}", text(&output));
    }
    assert!(gbsync_core::mutant::Mutant::ALL.iter().all(|mutant| !gbsync_core::mutant::is(*mutant)));
}

#[cfg(feature = "mutants")]
#[test]
fn a_planted_bug_is_found_and_no_bug_is_not() {
    let output = sim(&["--mutant", "parked-payload-lost", "--mutant-seeds", "5"]);
    assert!(output.status.success() && text(&output).contains("P7: "), "{}", text(&output));
    let output = sim(&["--mutant", "none", "--mutant-seeds", "2"]);
    assert!(output.status.success() && text(&output).contains("escaped"), "{}", text(&output));
    let output = sim(&["--mutant", "a-name-of-none"]);
    assert!(!output.status.success(), "{}", text(&output));
}
