//! The story is a test, too.

#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn everything_in_the_shop_is_as_the_story_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_shop")).output().unwrap();
    let (told, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{complaint}");
    let chapters = told.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).count();
    assert_eq!(chapters, 7, "{told}");
}
