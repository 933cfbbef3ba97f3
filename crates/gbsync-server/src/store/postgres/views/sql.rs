//! The statements that make views.
//!
//! Invariant: a view never fails on a record. A value that does not fit its field's type, as one from before the schema may not,
//! is NULL, and stands in `gbsync_payload` as it is.

use gbsync_core::digest::Digest;
use gbsync_core::id::Entity;
use gbsync_core::schema::{EntityRules, Field, FieldKind};

/// Bytes of a name; PostgreSQL cuts what is longer.
const NAME_BYTES: usize = 63;
/// Characters of the digest that ends a name that was cut.
const DIGEST_CHARS: usize = 8;

/// Where tables and views are.
pub(super) struct Place {
    /// The schema of the database with the tables.
    tables: String,
    /// The one with the views.
    pub(super) views: String,
}

impl Place {
    pub(super) fn new(schema: &str) -> Self {
        Self { tables: schema.to_owned(), views: format!("{schema}_views") }
    }

    /// The full name of a view.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.views), identifier(name))
    }

    /// What views read dates and times with: NULL for what is none.
    pub(super) fn functions(&self) -> String {
        let views = identifier(&self.views);
        format!(
            "CREATE OR REPLACE FUNCTION {views}.gbsync_as_date(t text) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$
               SELECT CASE WHEN t ~ '^[0-9]{{4}}-(0[1-9]|1[0-2])-[0-9]{{2}}$' AND left(t, 4) <> '0000' THEN
                 CASE WHEN substr(t, 9, 2)::int BETWEEN 1 AND extract(day FROM
                     make_date(substr(t, 1, 4)::int, substr(t, 6, 2)::int, 1) + interval '1 month' - interval '1 day')
                   THEN make_date(substr(t, 1, 4)::int, substr(t, 6, 2)::int, substr(t, 9, 2)::int) END END $f$;
             CREATE OR REPLACE FUNCTION {views}.gbsync_as_time(t text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $f$
               SELECT CASE WHEN {views}.gbsync_as_date(left(t, 10)) IS NOT NULL AND length(t) <= 40 AND substr(t, 11) ~
                   '^[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]+)?([Zz]|[+]00:00)$'
                 THEN upper(t)::timestamptz END $f$"
        )
    }

    /// The statement that makes the view of a kind of records, or replaces it.
    pub(super) fn view(&self, entity: &Entity, rules: &EntityRules, version: u64) -> String {
        let column = |(field, declared): (&String, &Field)| {
            format!("{} AS {}", self.value(field, declared.kind), identifier(&name(field)))
        };
        let columns: String = rules.fields.iter().map(column).map(|column| format!(", {column}")).collect();
        let (at, tables) = (self.at(&name(entity.as_str())), identifier(&self.tables));
        let comment = literal(&format!("{}{entity} of schema version {version}", super::OURS));
        format!(
            "CREATE OR REPLACE VIEW {at} AS
               SELECT s.space AS gbsync_space, r.id AS id, r.version AS gbsync_version, p.j AS gbsync_payload{columns}
                 FROM {tables}.records r JOIN {tables}.spaces s ON s.space_no = r.space_no
                CROSS JOIN LATERAL (SELECT r.payload::jsonb AS j OFFSET 0) p
                WHERE r.entity = {} AND r.payload IS NOT NULL;
             COMMENT ON VIEW {at} IS {comment}",
            literal(entity.as_str())
        )
    }

    fn value(&self, field: &str, kind: FieldKind) -> String {
        let key = literal(field);
        let (json, text) = (format!("(p.j -> {key})"), format!("(p.j ->> {key})"));
        let (is, views) = (format!("jsonb_typeof{json}"), identifier(&self.views));
        match kind {
            FieldKind::Text => text,
            FieldKind::Integer => format!(
                "CASE WHEN {is} = 'number' THEN CASE WHEN {text}::numeric = trunc({text}::numeric) AND {text}::numeric BETWEEN \
                 -9223372036854775808 AND 9223372036854775807 THEN {text}::numeric::bigint END END"
            ),
            FieldKind::Real => format!("CASE WHEN {is} = 'number' THEN {text}::numeric END"),
            FieldKind::Decimal { .. } => format!(
                "CASE WHEN {is} = 'number' OR {is} = 'string' AND length({text}) <= 400 AND {text} ~ '^-?[0-9]+([.][0-9]+)?$' \
                 THEN {text}::numeric END"
            ),
            FieldKind::Boolean => format!("CASE WHEN {is} = 'boolean' THEN {text}::boolean END"),
            FieldKind::Date => format!("CASE WHEN {is} = 'string' THEN {views}.gbsync_as_date({text}) END"),
            FieldKind::Timestamp => format!("CASE WHEN {is} = 'string' THEN {views}.gbsync_as_time({text}) END"),
            FieldKind::Json => json,
        }
    }
}

/// A name as PostgreSQL keeps it whole: a longer one is cut and ends with a digest, so that no two become one.
pub(super) fn name(name: &str) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    let mut end = NAME_BYTES - DIGEST_CHARS - 1;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let digest = Digest::of(name.as_bytes()).to_string();
    format!("{}~{}", &name[..end], &digest[..DIGEST_CHARS])
}

/// A name in quotes.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in quotes.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart_and_quotes_are_doubled() {
        let (one, other) = (name(&format!("{}a", "n".repeat(100))), name(&format!("{}b", "n".repeat(100))));
        assert_eq!((one.len(), other.len()), (NAME_BYTES, NAME_BYTES));
        assert_ne!(one, other);
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
    }
}
