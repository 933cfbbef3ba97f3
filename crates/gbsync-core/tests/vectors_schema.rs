//! `vectors/schema-accepted/` and `vectors/schema-refused.json`.

#![allow(clippy::unwrap_used)]

mod vectors;

use gbsync_core::schema::{Code, Schema};
use std::path::PathBuf;
use vectors::{cases, name};

#[test]
fn refused_schemas_have_the_problems_of_the_vectors_at_their_places() {
    let mut wrong = String::new();
    for case in cases("schema-refused.json", 60) {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<&str> = case["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let found: Vec<String> = match Schema::parse(text) {
            Ok(_) => vec!["accepted".to_owned()],
            Err(problems) => problems
                .iter()
                .map(|problem| {
                    let place = format!("{}:{} {}", problem.line, problem.column, problem.code);
                    if problem.path.is_empty() { place } else { format!("{place} {}", problem.path) }
                })
                .collect(),
        };
        if found != expected {
            wrong.push_str(&format!("{}:\n  expected {expected:?}\n  found    {found:?}\n", name(&case)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_kind_of_problem_has_a_vector() {
    let cases = cases("schema-refused.json", 60);
    let has = |code: Code| {
        let mut problems = cases.iter().flat_map(|case| case["problems"].as_array().unwrap());
        problems.any(|problem| problem.as_str().unwrap().split(' ').nth(1) == Some(code.as_str()))
    };
    for code in Code::ALL {
        assert!(has(*code), "{code}");
    }
}

#[test]
fn accepted_schemas_are_accepted() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../vectors/schema-accepted");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Err(problems) = Schema::parse(&text) {
            panic!("{}\n{problems}", file.display());
        }
    }
}

#[test]
fn a_rule_made_to_be_deep_is_read_or_refused_in_a_moment() {
    let many = |text: &str| text.repeat(4096 / text.len());
    for rule in [
        many("("),
        many("["),
        many("a("),
        many("a.all(x,"),
        many("{1:"),
        many("!"),
        many("a?"),
        format!("a{}", &many(".b")[..4000]),
        format!("{}1", &many("1+")[..4000]),
        format!("{}a", &many("a&&b||")[..4080]),
        format!("{}1{}", "(".repeat(8), ")".repeat(8)),
        format!("{}1{}", "{1:".repeat(8), "}".repeat(8)),
    ] {
        let start = std::time::Instant::now();

        let text = format!("version = 1\n[entities.a]\n[[entities.a.invariants]]\nname = 'n'\ncel = '{rule}'\n");
        let _ = Schema::parse(&text);
        assert!(start.elapsed().as_secs() < 5, "{} took {:?}", &rule[..8], start.elapsed());
    }
    let compile = |rule: String| gbsync_core::schema::Expression::compile(&rule).map(|_| ()).map_err(|error| error.message);
    assert_eq!(compile(format!("{}1{}", "(".repeat(8), ")".repeat(8))), Ok(()));
    assert!(compile(format!("{}1{}", "(".repeat(9), ")".repeat(9))).unwrap_err().contains("brackets"));
    assert!(compile("1+".repeat(100) + "1").unwrap_err().contains("levels"));
}
