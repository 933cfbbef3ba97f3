//! The statements that make an entity's table, its indexes and its view, and that drop them.

use super::decimal;
use super::plan::{Column, Table, list, literal, quoted};
use super::triggers;
use gbsync_core::schema::FieldKind;

/// Everything of one entity, in the order in which it is made.
pub(super) fn create(table: &Table) -> Vec<String> {
    let (columns, refused) = (columns(table), &table.refused);
    let mut statements = create_rows(table, &table.name, false);
    statements.push(format!(
        "CREATE TABLE {refused}(local_no INTEGER NOT NULL, \"id\" TEXT NOT NULL{columns}, PRIMARY KEY (local_no, \"id\"))
         STRICT, WITHOUT ROWID"
    ));
    statements.extend(triggers::create(table));
    statements.push(view(table));
    statements
}

/// The table of its rows and the indexes alone, under the shadow's name. `is_second`: the first names of the indexes are taken.
pub(super) fn create_shadow(table: &Table, is_second: bool) -> Vec<String> {
    create_rows(table, &quoted(&table.shadow()), is_second)
}

fn create_rows(table: &Table, name: &str, is_second: bool) -> Vec<String> {
    let columns = columns(table);
    let mut statements = vec![format!("CREATE TABLE {name}(\"id\" TEXT NOT NULL PRIMARY KEY{columns}) STRICT")];
    for (number, index) in table.indexes.iter().enumerate() {
        let index_name = quoted(&index_name(table, number, is_second));
        let columns = list(index.iter().map(|name| quoted(name)));
        statements.push(format!("CREATE INDEX {index_name} ON {name}({columns})"));
    }
    statements
}

/// The name of an index. SQLite cannot rename one: a table and its shadow take turns with two names.
pub(super) fn index_name(table: &Table, number: usize, is_second: bool) -> String {
    format!("gbsync_{}_{}{}", table.entity, number + 1, if is_second { "b" } else { "" })
}

/// Takes it all away; triggers and indexes go with their table.
pub(super) fn drop(table: &Table) -> String {
    let all = quoted(&table.all());
    format!("DROP VIEW IF EXISTS {all}; DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {};", table.name, table.refused)
}

fn columns(table: &Table) -> String {
    table.columns.iter().map(|column| format!(", {}", definition(column))).collect()
}

fn definition(column: &Column) -> String {
    let name = quoted(&column.name);
    let kind = match column.kind {
        FieldKind::Text | FieldKind::Date | FieldKind::Timestamp | FieldKind::Json => "TEXT",
        FieldKind::Integer | FieldKind::Boolean => "INTEGER",
        FieldKind::Real => "REAL",
        FieldKind::Decimal { scale } => {
            let minor = quoted(&format!("{}_minor", column.name));
            // What an UPDATE adds to a counter is captured from values as an app gave them.
            let value = match column.is_counter {
                true => decimal::minor_sql(&name, scale),
                false => decimal::kept_minor_sql(&name, scale),
            };
            return format!("{name} ANY, {minor} INTEGER GENERATED ALWAYS AS ({value}) VIRTUAL");
        }
    };
    format!("{name} {kind}")
}

/// Live rows and parked ones, with what became of them. JSON functions are not used: a program may forbid them in views.
fn view(table: &Table) -> String {
    let columns = std::iter::once("id".to_owned());
    let columns =
        columns.chain(table.columns.iter().flat_map(|column| std::iter::once(column.name.clone()).chain(column.minor())));
    let columns: Vec<String> = columns.map(|name| quoted(&name)).collect();
    let of = |row: &str| list(columns.iter().map(|name| format!("{row}.{name}")));
    let latest = |what: &str| {
        format!(
            "(SELECT {what} FROM gbsync_overlay AS o JOIN gbsync_outbox AS x ON x.local_no = o.local_no
               WHERE o.entity = {} AND o.id = t.\"id\" ORDER BY o.local_no DESC LIMIT 1)",
            literal(table.entity.as_str())
        )
    };
    let state = "CASE WHEN x.state = 'sealed'
                       AND instr((SELECT replace(replace(coalesce(in_flight, ''), '[', ','), ']', ',') FROM gbsync_state),
                                 ',' || x.local_no || ',')
                      THEN 'in_flight' ELSE x.state END";
    format!(
        "CREATE VIEW {}({}, sync_state, sync_message) AS
           SELECT {}, {}, {} FROM {} AS t
           UNION ALL
           SELECT {}, x.state, x.message FROM {} AS r JOIN gbsync_outbox AS x ON x.local_no = r.local_no
            WHERE x.state = 'parked'",
        quoted(&table.all()),
        columns.join(", "),
        of("t"),
        latest(state),
        latest("x.message"),
        table.name,
        of("r"),
        table.refused,
    )
}
