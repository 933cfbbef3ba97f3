//! Order and arithmetic of values: exact, or an error.

use super::evaluate::Halt;
use super::{Binary, Value};
use crate::time::Timestamp;
use std::cmp::Ordering;

/// The result of an operator on two numbers, or two texts or lists joined.
pub(super) fn calculate<'a>(operator: Binary, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, Halt> {
    if let (Value::Integer(left), Value::Integer(right)) = (&left, &right) {
        return integers(operator, *left, *right).map(Value::Integer);
    }
    let (Some(one), Some(other)) = (left.decimal(), right.decimal()) else {
        let problem = format!("{} and {} cannot be calculated with", left.kind(), right.kind());
        return Err(Halt::Error(problem));
    };
    let result = match operator {
        Binary::Add => one.checked_add(other),
        Binary::Subtract => one.checked_sub(other),
        Binary::Multiply => one.checked_mul(other),
        Binary::Divide => one.checked_div(other),
        _ => return Err(Halt::Error("a remainder is one of integers".to_owned())),
    };
    let problem = || match operator {
        Binary::Divide => format!("{one} / {other} has no exact value"),
        _ => "a number grows over 34 digits".to_owned(),
    };
    result.map(Value::Decimal).ok_or_else(|| Halt::Error(problem()))
}

fn integers(operator: Binary, left: i64, right: i64) -> Result<i64, Halt> {
    let result = match operator {
        Binary::Add => left.checked_add(right),
        Binary::Subtract => left.checked_sub(right),
        Binary::Multiply => left.checked_mul(right),
        Binary::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    let problem = if right == 0 { "nothing can be divided by zero" } else { "an integer leaves its 64 bits" };
    result.ok_or_else(|| Halt::Error(problem.to_owned()))
}

/// The order of two values of one kind.
pub(super) fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Halt> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => Ok(order_texts(left, right)),
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        _ => match (left.decimal(), right.decimal()) {
            (Some(left), Some(right)) => Ok(left.compare(right)),
            _ => Err(Halt::Error(format!("{} and {} have no order", left.kind(), right.kind()))),
        },
    }
}

/// Two times stand in the order of time, however many digits their seconds have; other texts in that of their bytes.
fn order_texts(left: &str, right: &str) -> Ordering {
    let looks_like_time = |text: &str| text.len() >= 20 && text.as_bytes()[10].eq_ignore_ascii_case(&b'T');
    if looks_like_time(left) && looks_like_time(right) {
        let time = |text: &str| Timestamp::new(text).ok()?.as_str().parse::<jiff::Timestamp>().ok();
        if let (Some(left), Some(right)) = (time(left), time(right)) {
            return left.cmp(&right);
        }
    }
    left.as_bytes().cmp(right.as_bytes())
}
