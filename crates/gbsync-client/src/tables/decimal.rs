//! Exact decimals in SQLite, which has none: the text with all its digits, and beside it the integer of its smallest unit.
//!
//! The column is `ANY` in a `STRICT` table: any other type would turn `'12.50'` into a floating point number, or hide that
//! one came.

/// Most digits whose integer certainly fits SQLite's.
const MINOR_DIGITS: usize = 18;

/// The text of a decimal with `scale` digits after the point, as the rules write it; `None` when `text`, a number in JSON's
/// syntax, does not fit.
pub(super) fn normal(text: &str, scale: u32) -> Option<String> {
    Some(gbsync_core::json::Decimal::parse(text)?.with_scale(scale)?.to_string())
}

/// Whether a text already is what [`normal`] would make of it: for the many that are, nothing has to be computed.
pub(super) fn is_normal(text: &str, scale: u32) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_whole = matches!(whole.as_bytes(), [b'0'] | [b'1'..=b'9', ..]) && whole.len() <= 15;
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let has_point = digits.len() > whole.len();
    // Minus zero is zero, and is left to the exact way.
    let is_minus_zero = text.len() > digits.len() && !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    is_whole
        && are_digits(whole)
        && are_digits(fraction)
        && fraction.len() == scale as usize
        && has_point == (scale > 0)
        && !is_minus_zero
}

/// The SQL of the integer of a decimal's smallest unit, of a text as [`normal`] writes it: what a table keeps. SQLite computes
/// a generated column whenever a row is written, so this is as short as it can be.
pub(super) fn kept_minor_sql(value: &str, scale: u32) -> String {
    if scale == 0 {
        return minor_sql(value, scale);
    }
    let point = -(i64::from(scale) + 1);
    // As many digits as certainly fit, the point, and a minus, which stands before every digit.
    let most = MINOR_DIGITS + 1;
    format!(
        "CASE WHEN substr({value}, {point}, 1) = '.' AND length({value}) <= {most} + ({value} < '0')
              THEN CAST(replace({value}, '.', '') AS INTEGER) END"
    )
}

/// The SQL of [`normal`], for a value of an app's: NULL for one that is no decimal with at most `scale` digits after the
/// point. A floating point number is rounded to the scale; text must fit it.
pub(super) fn normal_sql(value: &str, scale: u32) -> String {
    let zeros = "0".repeat(scale as usize);
    let zero = if scale == 0 { "0".to_owned() } else { format!("0.{zeros}") };
    // Padding, and what comes after the point.
    let (whole, padded, fits) = match scale {
        0 => (format!("CAST({value} AS TEXT)"), value.to_owned(), format!("instr({value}, '.') = 0")),
        _ => (
            format!("{value} || '.{zeros}'"),
            format!(
                "CASE instr({value}, '.') WHEN 0 THEN {value} || '.{zeros}'
                 ELSE {value} || substr('{zeros}', length({value}) - instr({value}, '.') + 1) END"
            ),
            format!("(instr({value}, '.') = 0 OR length({value}) - instr({value}, '.') BETWEEN 1 AND {scale})"),
        ),
    };
    let digits = format!("ltrim({value}, '-')");
    format!(
        "CASE typeof({value})
           WHEN 'integer' THEN {whole}
           WHEN 'real' THEN CASE WHEN abs({value}) < 1e15
                THEN replace(printf('%.{scale}f', {value}), '-{zero}', '{zero}') END
           WHEN 'text' THEN CASE
             WHEN {digits} GLOB '[0-9]*' AND {digits} NOT GLOB '*[^0-9.]*' AND {digits} NOT GLOB '0[0-9]*'
              AND length({value}) - length({digits}) <= 1 AND {digits} NOT GLOB '*.*.*' AND {fits}
              AND length({value}) <= 34 AND length(CAST({value} AS BLOB)) = length({value})
             THEN replace({padded}, '-{zero}', '{zero}') END
         END"
    )
}

/// The SQL of whether a value that [`normal_sql`] takes is not yet what it makes of it; true for some that it does not take.
pub(super) fn unlike_normal_sql(value: &str, scale: u32) -> String {
    let (point, zero) = match scale {
        0 => (String::new(), "0".to_owned()),
        _ => {
            let point = format!(" OR substr({value}, {}, 1) <> '.'", -(i64::from(scale) + 1));
            (point, format!("0.{}", "0".repeat(scale as usize)))
        }
    };
    format!("{value} IS NOT NULL AND (typeof({value}) <> 'text'{point} OR {value} = '-{zero}')")
}

/// The SQL of the integer of a decimal's smallest unit; NULL where there is none or it does not fit.
pub(super) fn minor_sql(value: &str, scale: u32) -> String {
    let factor = 10_u64.pow(scale.min(18));
    let point = match scale {
        0 => format!("instr({value}, '.') = 0"),
        _ => format!("substr({value}, {}, 1) = '.'", -(i64::from(scale) + 1)),
    };
    let digits = format!("replace({value}, '.', '')");
    format!(
        "CASE typeof({value})
           WHEN 'text' THEN CASE WHEN {point} AND length(ltrim({digits}, '-')) <= {MINOR_DIGITS}
                THEN CAST({digits} AS INTEGER) END
           WHEN 'integer' THEN {value} * {factor}
           WHEN 'real' THEN CAST(round({value} * {factor}) AS INTEGER)
         END"
    )
}

/// A count of smallest units as a number in JSON's syntax.
pub(crate) fn from_minor(minor: i64, scale: u32) -> String {
    let (sign, digits) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs().to_string());
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;
    use rusqlite::types::Value;

    #[test]
    fn what_is_normal_already_stays_as_it_is() {
        for scale in [0, 2, 4] {
            for text in [
                "0",
                "-0",
                "00",
                "12",
                "-7",
                "0.00",
                "-0.00",
                "-0.01",
                "12.50",
                "12.5",
                "12.5000",
                "1e2",
                "",
                "-",
                ".",
                "1.",
                ".50",
                "012.50",
                "123456789012345.00",
                "1234567890123456.00",
                "12.5a",
                "1 2.50",
                "+1.00",
            ] {
                if is_normal(text, scale) {
                    assert_eq!(normal(text, scale).as_deref(), Some(text), "{text} at {scale}");
                }
            }
            let padded = format!("12{}{}", if scale > 0 { "." } else { "" }, "0".repeat(scale as usize));
            assert!(is_normal(&padded, scale), "{padded}");
        }
    }

    #[test]
    fn sqlite_and_rust_write_the_same_decimal() {
        let db = Connection::open_in_memory().expect("memory");
        let ask = |value: &str, scale| -> Option<String> {
            db.query_row(&format!("SELECT {}", normal_sql(value, scale)), [], |row| row.get(0)).expect(value)
        };
        for (value, scale, expected) in [
            ("'12.5'", 2, Some("12.50")),
            ("'12.50'", 2, Some("12.50")),
            ("'-0.00'", 2, Some("0.00")),
            ("'-0.05'", 2, Some("-0.05")),
            ("'5.125'", 2, None),
            ("'5.'", 2, None),
            ("'.5'", 2, None),
            ("'--5'", 2, None),
            ("'5-'", 2, None),
            ("'05'", 2, None),
            ("'1.2.3'", 2, None),
            ("''", 2, None),
            ("'abc'", 2, None),
            ("'7'", 0, Some("7")),
            ("'-0'", 0, Some("0")),
            ("'7.0'", 0, None),
            ("12.5", 2, Some("12.50")),
            ("-0.001", 2, Some("0.00")),
            ("7", 2, Some("7.00")),
            ("-7", 0, Some("-7")),
            ("7.6", 0, Some("8")),
            ("1e300", 2, None),
            ("x'3132'", 2, None),
            ("NULL", 2, None),
        ] {
            assert_eq!(ask(value, scale).as_deref(), expected, "{value} at {scale}");
            let unlike: bool =
                db.query_row(&format!("SELECT {}", unlike_normal_sql(value, scale)), [], |row| row.get(0)).expect(value);
            if let Some(expected) = expected {
                assert_eq!(unlike, value != format!("'{expected}'"), "{value} at {scale}");
            }
            if let Some(text) = value.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
                assert_eq!(normal(text, scale).as_deref(), expected, "{text} at {scale}");
            }
        }
        assert_eq!(normal("1.25e1", 2).as_deref(), Some("12.50"));
    }

    #[test]
    fn the_short_way_says_what_the_long_one_says_of_every_text_that_is_kept() {
        let db = Connection::open_in_memory().expect("memory");
        for scale in [0, 1, 2, 6] {
            for text in
                ["0", "7", "-7", "12.5", "0.05", "-0.05", "12345678901234567", "-12345678901234567", "999999999999999.9"]
            {
                let Some(kept) = normal(text, scale) else { continue };
                let ask =
                    |sql: &str| -> Value { db.query_row(&format!("SELECT {sql}"), [], |row| row.get(0)).expect("a value") };
                let value = format!("'{kept}'");
                assert_eq!(ask(&kept_minor_sql(&value, scale)), ask(&minor_sql(&value, scale)), "{kept} at {scale}");
            }
            for text in ["NULL", "'5.1234567'", "'abc'"] {
                let found: Value =
                    db.query_row(&format!("SELECT {}", kept_minor_sql(text, 2)), [], |row| row.get(0)).expect("a value");
                assert_eq!(found, Value::Null, "{text}");
            }
        }
    }

    #[test]
    fn the_smallest_units_of_a_decimal_are_an_exact_integer() {
        let db = Connection::open_in_memory().expect("memory");
        let minor = |value: &str, scale| -> Value {
            db.query_row(&format!("SELECT {}", minor_sql(value, scale)), [], |row| row.get(0)).expect(value)
        };
        assert_eq!(minor("'12.50'", 2), Value::Integer(1250));
        assert_eq!(minor("'-0.05'", 2), Value::Integer(-5));
        assert_eq!(minor("'7'", 0), Value::Integer(7));
        assert_eq!(minor("12.5", 2), Value::Integer(1250));
        assert_eq!(minor("'5.125'", 2), Value::Null);
        assert_eq!(minor("'12345678901234567.89'", 2), Value::Null);
        assert_eq!(
            (from_minor(-5, 2).as_str(), from_minor(1250, 2).as_str(), from_minor(7, 0).as_str()),
            ("-0.05", "12.50", "7")
        );
    }
}
