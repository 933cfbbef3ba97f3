//! `vectors/schema-accepted/` and `vectors/schema-refused.json`.

use crate::vectors::{cases, name};
use gbsync_core::schema::{Code, Schema};
use std::path::PathBuf;

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

#[test]
fn every_example_of_the_page_is_a_schema() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema.md");
    let page = std::fs::read_to_string(path).unwrap();
    let examples = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let (schemas, rules): (Vec<&str>, Vec<&str>) = examples.partition(|example| example.starts_with("version"));
    assert!(schemas.len() >= 2 && rules.len() == 1);
    for schema in schemas {
        if let Err(problems) = Schema::parse(schema) {
            panic!("{problems}\n{schema}");
        }
    }
    let entities = "version = 1\n[entities.invoices]\n[entities.invoice_lines.fields]\n\
        invoiceId = { type = \"text\", references = \"invoices\" }\n[entities.receipts]\n";
    for (index, rule) in rules[0].lines().filter(|line| line.starts_with("cel")).enumerate() {
        let text = format!("{entities}[[entities.receipts.invariants]]\nname = \"rule {index}\"\n{rule}\n");
        if let Err(problems) = Schema::parse(&text) {
            panic!("{problems}\n{rule}");
        }
    }
}

#[test]
fn a_schema_within_every_limit_is_read_in_a_moment_and_one_beyond_is_refused() {
    let entities = |count: usize, fields: usize| {
        let mut text = String::from("version = 1\n");
        for entity in 0..count {
            text.push_str(&format!("[entities.e{entity}]\n"));
            (0..fields).for_each(|field| text.push_str(&format!("fields.f{field}=\"text\"\n")));
        }
        text
    };
    let start = std::time::Instant::now();
    assert_eq!(Schema::parse(&entities(1000, 40)).unwrap().entities.len(), 1000);
    assert_eq!(Schema::parse(&entities(1, 500)).unwrap().entities.len(), 1);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let long = "n".repeat(100);
    let mut unknown = entities(1000, 1);
    (0..300).for_each(|n| unknown.push_str(&format!("[operations.o{n}]\nshape = {{ {long}{n} = \"1\" }}\n")));
    assert_eq!(Schema::parse(&unknown).unwrap_err().iter().count(), 300);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    for text in [entities(1001, 1), entities(1, 501), format!("# {}\nversion = 1\n", "x".repeat(1 << 20))] {
        let problems = Schema::parse(&text).unwrap_err();
        assert!(problems.iter().all(|problem| problem.code == Code::TooLarge), "{problems}");
    }
}
