//! TPC-C's conditions, as a user has them judged.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn the_conditions_hold_in_a_few_worlds() {
    let arguments = ["tpcc", "--seeds", "4", "--devices", "3", "--operations", "25"];
    let output = Command::new(env!("CARGO_BIN_EXE_gbsync-sim")).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("4 seeds, every condition held"), "{text}");
    for what in ["an entry of the log was judged", "a commit of the server was judged", "a state of a device was judged"] {
        assert!(text.contains(what), "never: {what}: {text}");
    }
}
