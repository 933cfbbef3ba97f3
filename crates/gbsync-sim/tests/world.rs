//! Worlds in which everything goes wrong, as a user runs them.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gbsync-sim")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_promise_holds_in_a_few_worlds_of_each_kind() {
    let output = sim(&["--seeds", "9", "--first-seed", "1"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("9 seeds, every promise held"), "{}", text(&output));
    for what in ["a part was sent", "a part was fetched"] {
        assert!(text(&output).contains(what), "no large group travelled: {}", text(&output));
    }
}

#[test]
fn one_seed_is_one_run_to_the_letter() {
    let storm = ["--seed", "44", "--profile", "storm", "--trace"];
    let (first, second) = (sim(&storm), sim(&storm));
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).lines().count() > 50, "{}", text(&first));
    assert_eq!(text(&first), text(&second));
}
