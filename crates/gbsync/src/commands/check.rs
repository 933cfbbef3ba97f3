//! `gbsync check`: whether a file is a schema, and everything that is wrong with it.
//!
//! Invariant: a file that passes here is one that `gbsync serve --schema` takes: both read it with the same function.

use crate::exit::{Exit, Failure};
use crate::output::{Output, counted, table};
use anyhow::Result;
use gbsync_core::id::Role;
use gbsync_core::schema::{EntityRules, OperationRules, Schema, SchemaProblems};
use serde_json::{Value, json};
use std::path::PathBuf;

const EXAMPLE: &str = "\
Examples:
  gbsync check gbsync.toml
  gbsync check gbsync.toml --json

Every mistake is a line, in the form that editors know:
  gbsync.toml:12:8: unknown key \"scael\"; did you mean \"scale\"?

Ends with 0 for a schema, with 1 and every mistake otherwise. docs/schema.md says what a schema may say.";

/// Check a schema, and name every mistake with its line
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The schema, in TOML or JSON
    file: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// A failure when the file cannot be read or is no schema; the mistakes are printed before.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    let file = arguments.file.display().to_string();
    let bytes = std::fs::read(&arguments.file)
        .map_err(|error| Failure::new("schema_file", format!("{file} cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to() + 1;
        Failure::new("schema", format!("{file} is not UTF-8: see byte {place}")).help("save it as UTF-8")
    })?;
    match Schema::parse(&text) {
        Ok(schema) => print_summary(&file, &schema, output),
        Err(problems) => return Err(print_problems(&file, &problems, output).into()),
    }
    Ok(Exit::Done)
}

fn print_problems(file: &str, problems: &SchemaProblems, output: &Output) -> Failure {
    if output.is_json() {
        let problem = |problem: &gbsync_core::schema::SchemaProblem| {
            json!({
                "line": problem.line, "column": problem.column, "path": problem.path, "code": problem.code.as_str(),
                "message": problem.message, "fix": problem.fix,
            })
        };
        output.json(&json!({ "file": file, "problems": problems.iter().map(problem).collect::<Vec<_>>() }));
    } else {
        problems.iter().for_each(|problem| output.line(problem.in_file(file)));
    }
    let count = counted(problems.iter().count() as u64, "mistake");
    Failure::new("schema", format!("{file} is no schema: {count}"))
}

fn print_summary(file: &str, schema: &Schema, output: &Output) {
    if output.is_json() {
        let entities: Vec<Value> = schema.entities.iter().map(|(name, rules)| entity_json(name.as_str(), rules)).collect();
        let operations: Vec<Value> =
            schema.operations.iter().map(|(name, rules)| operation_json(name.as_str(), rules)).collect();
        let sequences: Vec<&String> = schema.sequences.keys().collect();
        return output.json(&json!({
            "file": file, "version": schema.version, "entities": entities, "operations": operations, "sequences": sequences,
        }));
    }
    let (entities, operations) = (schema.entities.len() as u64, schema.operations.len() as u64);
    let (entities, operations) = (plural(entities, "entity", "entities"), counted(operations, "operation type"));
    output.line(format_args!("{file}: a schema, version {} ({entities}, {operations})", schema.version));
    let rows: Vec<Vec<String>> = schema.entities.iter().map(|(name, rules)| entity_row(name.as_str(), rules)).collect();
    if !rows.is_empty() {
        output.line(format_args!("\n{}", table(&["ENTITY", "FIELDS", "REFERS TO", "ON CONFLICT"], &rows)));
    }
    let rows: Vec<Vec<String>> = schema.operations.iter().map(|(name, rules)| operation_row(name.as_str(), rules)).collect();
    if !rows.is_empty() {
        output.line(format_args!("\n{}", table(&["OPERATION", "ROLES", "SHAPE", "RULES"], &rows)));
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn entity_row(name: &str, rules: &EntityRules) -> Vec<String> {
    let refers = rules.references().map(|(field, reference)| format!("{} ({field})", reference.entity));
    let refers: Vec<String> = refers.collect();
    vec![name.to_owned(), rules.fields.len().to_string(), dash(refers.join(", ")), rules.on_conflict.as_str().to_owned()]
}

fn operation_row(name: &str, rules: &OperationRules) -> Vec<String> {
    let roles: Vec<&str> = rules.roles.iter().map(Role::as_str).collect();
    let shape = rules.shape.iter().flatten().map(|(entity, count)| format!("{entity} {count}"));
    let shape: Vec<String> = shape.collect();
    let invariants: Vec<&str> = rules.invariants.iter().map(|rule| rule.name.as_str()).collect();
    vec![name.to_owned(), dash(roles.join(", ")), dash(shape.join(", ")), dash(invariants.join(", "))]
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

fn entity_json(name: &str, rules: &EntityRules) -> Value {
    let references =
        rules.references().map(|(field, reference)| json!({ "field": field, "entity": reference.entity.as_str() }));
    json!({
        "name": name, "fields": rules.fields.len(), "references": references.collect::<Vec<_>>(),
        "on_conflict": rules.on_conflict.as_str(), "invariants": rules.invariants.len(),
    })
}

fn operation_json(name: &str, rules: &OperationRules) -> Value {
    let shape = rules.shape.as_ref().map(|shape| {
        let counts = shape.iter().map(|(entity, count)| (entity.to_string(), Value::String(count.to_string())));
        Value::Object(counts.collect())
    });
    let invariants: Vec<&str> = rules.invariants.iter().map(|rule| rule.name.as_str()).collect();
    let roles: Vec<&str> = rules.roles.iter().map(Role::as_str).collect();
    json!({ "name": name, "roles": roles, "shape": shape, "invariants": invariants })
}
