//! The sweep of lost power, as a user runs it: sound as it is, and able to find what it is there for.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn power(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gbsync-sim")).arg("power").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn no_image_of_a_run_breaks_a_promise() {
    let output = power(&["--images", "1200", "--first-seed", "2", "--sync-every", "40"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("1200 images opened"), "{}", text(&output));
}

/// Power was lost while the file was being made: a transaction had to be rolled back before the file could be looked at.
#[test]
fn a_file_whose_making_was_cut_off_can_be_opened() {
    let output = power(&["--seed", "1", "--images", "60"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_device_that_does_not_wait_for_the_disk_is_found_out() {
    let output = power(&["--seed", "1", "--images", "3000", "--plant", "synchronous-normal"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("P4: "), "{}", text(&output));
}
