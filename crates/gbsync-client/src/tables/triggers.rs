//! The triggers of an entity's table: `BEFORE` ones refuse with a sentence what could never be a change, `AFTER` ones append
//! to `gbsync_capture` what was done.
//!
//! Invariant: they work in every SQLite since 3.38, on every connection: plain columns and no JSON functions (a program with
//! `trusted_schema=OFF` may not call them here), no constraint that an outer `OR REPLACE` could turn into something else, no
//! dependence on `recursive_triggers`.
//!
//! A decimal is first written the way the rules write it, and what stands then is captured: the long expression that does it
//! stands as seldom as it can, because whoever opens the file reads all triggers.
//!
//! `unique` is checked here and not by an index: `INSERT OR REPLACE` would remove the other record without any trigger.

use super::decimal;
use super::plan::{Column, Table, list, literal, quoted};
use gbsync_core::schema::FieldKind;

/// Terms of one compound SELECT; SQLite takes 500.
const TERMS: usize = 200;

/// Whether an operation is open, and whether the triggers saw it open: one that they did not see was left behind by a
/// program with triggers and foreign keys off, and would swallow what others write.
const LEFT_OPEN: &str = "(SELECT count(*) FROM gbsync_operation)
      <> coalesce((SELECT action = 'open' FROM gbsync_capture WHERE action IN ('open', 'close') ORDER BY no DESC LIMIT 1), 0)";

/// The statements that make the triggers.
pub(super) fn create(table: &Table) -> Vec<String> {
    let written = table.columns.iter().map(is_written).collect::<Vec<_>>();
    let mut triggers = vec![
        trigger(table, "before_insert", "BEFORE INSERT", "", &(checks(table, &insert_checks(table)) + &replace(table))),
        trigger(table, "before_update", "BEFORE UPDATE", "", &checks(table, &update_checks(table))),
        trigger(table, "before_delete", "BEFORE DELETE", "", &checks(table, &[])),
        trigger(table, "after_insert", "AFTER INSERT", "", &(normalize(table) + &capture(&inserted(table)))),
        trigger(table, "after_delete", "AFTER DELETE", "", &capture(&[head(table, "delete", "OLD")])),
    ];
    if !written.is_empty() {
        // Nothing is captured of an UPDATE that changes nothing, such as the normalizing one of another trigger.
        let when = format!("WHEN {}", written.join(" OR "));
        let body = normalize(table) + &capture(&updated(table));
        triggers.push(trigger(table, "after_update", "AFTER UPDATE", &when, &body));
    }
    triggers
}

fn trigger(table: &Table, name: &str, event: &str, when: &str, body: &str) -> String {
    let trigger = quoted(&format!("gbsync_{}_{name}", table.entity));
    format!("CREATE TRIGGER {trigger} {event} ON {} {when} BEGIN\n{body}END", table.name)
}

/// A condition under which a write is refused, and the sentence.
type Check = (String, String);

fn checks(table: &Table, own: &[Check]) -> String {
    let mut all = vec![(
        LEFT_OPEN.to_owned(),
        "an operation was left open by a program with triggers or foreign keys off; it ends when gbsync next opens or syncs \
         this file"
            .to_owned(),
    )];
    if table.needs_operation {
        all.push((
            "NOT EXISTS (SELECT 1 FROM gbsync_operation)".to_owned(),
            format!("{} changes only inside an operation; INSERT INTO gbsync_operation(type, root) first", table.entity),
        ));
    }
    let all = all.iter().chain(own);
    let raise = |(when, sentence): &Check| {
        format!("  SELECT RAISE(ABORT, {}) WHERE {when};\n", literal(&format!("gbsync: {sentence}")))
    };
    all.map(raise).collect()
}

fn insert_checks(table: &Table) -> Vec<Check> {
    let entity = &table.entity;
    let mut checks = vec![
        (
            "NEW.\"id\" IS NULL OR length(CAST(NEW.\"id\" AS BLOB)) NOT BETWEEN 1 AND 256".to_owned(),
            format!("a row of {entity} needs an id of 1 to 256 bytes of text"),
        ),
        (
            "instr(CAST(NEW.\"id\" AS BLOB), x'00')
             OR NEW.\"id\" GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*'"
                .to_owned(),
            format!("the id of a row of {entity} must not hold control characters"),
        ),
    ];
    for column in &table.columns {
        let new = new(column);
        if column.is_required {
            checks.push((format!("{new} IS NULL"), format!("{entity}.{} is required", column.name)));
        }
        checks.extend(fit(table, column));
    }
    checks.extend(table.unique.iter().filter_map(|columns| taken(table, columns)));
    checks
}

fn update_checks(table: &Table) -> Vec<Check> {
    let entity = &table.entity;
    let mut checks = vec![(
        "NEW.\"id\" IS NOT OLD.\"id\"".to_owned(),
        format!("the id of a row of {entity} cannot change; delete the row and insert another"),
    )];
    for column in &table.columns {
        let (old, new) = (old(column), new(column));
        if column.is_required || column.is_counter {
            let what = if column.is_counter { "is a counter and cannot become NULL" } else { "is required" };
            checks.push((format!("{new} IS NULL AND {old} IS NOT NULL"), format!("{entity}.{} {what}", column.name)));
        }
        if column.is_counter && column.kind == FieldKind::Integer {
            checks.push((
                format!("typeof(coalesce({new}, 0) - coalesce({old}, 0)) = 'real'"),
                format!("{entity}.{} changes by more than an integer can hold", column.name),
            ));
        }
        if let (true, FieldKind::Decimal { .. }) = (column.is_counter, column.kind) {
            let (before, after) = (normal(column, &old), normal(column, &new));
            let long = |value: &str| format!("length(replace(ltrim({value}, '-'), '.', '')) > 18");
            checks.push((
                format!(
                    "{new} IS NOT {old} AND ({} OR {} OR ({old} IS NOT NULL AND {before} IS NULL))",
                    long(&before),
                    long(&after)
                ),
                format!(
                    "{entity}.{} has too many digits to tell what is added; increment it with the library, or replace the row",
                    column.name
                ),
            ));
        }
        checks.extend(fit(table, column).map(|(when, sentence)| (format!("{new} IS NOT {old} AND ({when})"), sentence)));
    }
    checks.extend(table.unique.iter().filter_map(|columns| taken(table, columns)));
    checks
}

/// When a value is none of the column's type, as far as the column's own type lets it pass.
fn fit(table: &Table, column: &Column) -> Option<Check> {
    let new = new(column);
    let (day, time) = ("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]", "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]");
    let nul = format!("instr(CAST({new} AS BLOB), x'00')");
    let (when, sentence) = match column.kind {
        FieldKind::Integer => return None,
        FieldKind::Text | FieldKind::Json => (nul, "holds a NUL, which no text may".to_owned()),
        FieldKind::Real => (format!("{new} IN (9e999, -9e999)"), "must be a finite number".to_owned()),
        FieldKind::Boolean => (format!("{new} NOT IN (0, 1)"), "must be 0 or 1".to_owned()),
        FieldKind::Date => (format!("{new} NOT GLOB '{day}' OR {nul}"), "must be a date like 2026-11-25".to_owned()),
        FieldKind::Timestamp => (
            format!("{new} NOT GLOB '{day}T{time}*Z' OR {nul}"),
            "must be a time in UTC like 2026-11-25T13:00:00Z".to_owned(),
        ),
        FieldKind::Decimal { scale } => (
            format!("{new} IS NOT NULL AND {} IS NULL", decimal::normal_sql(&new, scale)),
            format!("must be a decimal with at most {scale} digits after the point"),
        ),
    };
    Some((when, format!("{}.{} {sentence}", table.entity, column.name)))
}

/// When another row has the same values in columns that stand for one record.
fn taken(table: &Table, names: &[String]) -> Option<Check> {
    let columns = names.iter().map(|name| table.column(name)).collect::<Option<Vec<_>>>()?;
    let same = columns.iter().map(|column| format!("t.{} = {}", quoted(&column.name), normal(column, &new(column))));
    let same = same.collect::<Vec<_>>().join(" AND ");
    let when = format!("EXISTS (SELECT 1 FROM {} AS t WHERE {same} AND t.\"id\" <> NEW.\"id\")", table.name);
    Some((when, format!("another row of {} has this {}", table.entity, names.join(" and "))))
}

/// The first captured row of a changed record.
fn head(table: &Table, action: &str, row: &str) -> String {
    format!("SELECT '{action}', {}, {row}.\"id\", NULL, NULL", literal(table.entity.as_str()))
}

fn inserted(table: &Table) -> Vec<String> {
    let set = |column: &Column| {
        let value = now(table, column);
        format!("SELECT 'set', NULL, NULL, {}, {value} WHERE {} IS NOT NULL", literal(&column.name), new(column))
    };
    std::iter::once(head(table, "insert", "NEW")).chain(table.columns.iter().map(set)).collect()
}

fn updated(table: &Table) -> Vec<String> {
    let set = |column: &Column| {
        let now = now(table, column);
        let name = literal(&column.name);
        let (action, value) = match column.kind {
            _ if !column.is_counter => ("set", now),
            FieldKind::Decimal { .. } => {
                ("add_minor", format!("{} - {}", minor(&now), minor(&normal(column, &old(column)))))
            }
            _ => ("add", format!("coalesce({now}, 0) - coalesce({}, 0)", old(column))),
        };
        format!("SELECT '{action}', NULL, NULL, {name}, {value} WHERE {}", differs(table, column))
    };
    let mut head = head(table, "update", "NEW");
    if decimals(table).next().is_some() {
        // The same decimal in another way of writing it is no change; only here is it seen.
        let differ = table.columns.iter().map(|column| differs(table, column)).collect::<Vec<_>>();
        head = format!("{head} WHERE {}", differ.join(" OR "));
    }
    std::iter::once(head).chain(table.columns.iter().map(set)).collect()
}

fn minor(normal: &str) -> String {
    format!("coalesce(CAST(replace({normal}, '.', '') AS INTEGER), 0)")
}

/// Notes that a row with this id is there already: if it is replaced, and the triggers of DELETE tell of it, that is no delete.
fn replace(table: &Table) -> String {
    format!(
        "  INSERT INTO gbsync_capture(action, entity, id) SELECT 'replace', {}, NEW.\"id\"
    WHERE EXISTS (SELECT 1 FROM {} WHERE \"id\" = NEW.\"id\");\n",
        literal(table.entity.as_str()),
        table.name
    )
}

/// Appends rows, in this order.
fn capture(rows: &[String]) -> String {
    let append = |rows: &[String]| {
        let rows = rows.join("\n    UNION ALL ");
        format!("  INSERT INTO gbsync_capture(action, entity, id, field, value)\n    {rows};\n")
    };
    rows.chunks(TERMS).map(append).collect()
}

fn decimals(table: &Table) -> impl Iterator<Item = &Column> {
    table.columns.iter().filter(|column| matches!(column.kind, FieldKind::Decimal { .. }))
}

/// Writes decimals the way the rules write them, where the app did not. Fires the triggers of UPDATE, which find no
/// difference.
fn normalize(table: &Table) -> String {
    let (mut set, mut unlike) = (Vec::new(), Vec::new());
    for column in decimals(table) {
        let name = quoted(&column.name);
        // One that the engine wrote may not fit the scale: it came from before the rules, and stays.
        set.push(format!("{name} = coalesce({}, {name})", normal(column, &name)));
        if let FieldKind::Decimal { scale } = column.kind {
            unlike.push(decimal::unlike_normal_sql(&name, scale));
        }
    }
    if set.is_empty() {
        return String::new();
    }
    let (set, unlike) = (list(set.into_iter()), unlike.join(" OR "));
    format!("  UPDATE {} SET {set} WHERE \"id\" = NEW.\"id\" AND ({unlike});\n", table.name)
}

/// Whether an UPDATE writes something else into a column, as long as it is not the normalizing one.
fn is_written(column: &Column) -> String {
    let (old, new) = (old(column), new(column));
    match column.kind {
        FieldKind::Decimal { .. } => format!("({new} IS NOT {old} AND {new} IS NOT {})", normal(column, &old)),
        _ => format!("{new} IS NOT {old}"),
    }
}

/// Whether an UPDATE changed what a column says, once decimals are normal.
fn differs(table: &Table, column: &Column) -> String {
    let (old, new) = (old(column), new(column));
    match column.kind {
        FieldKind::Decimal { .. } => format!("{new} IS NOT {old} AND {} IS NOT {old}", now(table, column)),
        _ => format!("{new} IS NOT {old}"),
    }
}

/// What a column says once decimals are normal.
fn now(table: &Table, column: &Column) -> String {
    match column.kind {
        FieldKind::Decimal { .. } => {
            format!("(SELECT {} FROM {} WHERE \"id\" = NEW.\"id\")", quoted(&column.name), table.name)
        }
        _ => new(column),
    }
}

fn normal(column: &Column, value: &str) -> String {
    match column.kind {
        FieldKind::Decimal { scale } => decimal::normal_sql(value, scale),
        _ => value.to_owned(),
    }
}

fn old(column: &Column) -> String {
    format!("OLD.{}", quoted(&column.name))
}

fn new(column: &Column) -> String {
    format!("NEW.{}", quoted(&column.name))
}
