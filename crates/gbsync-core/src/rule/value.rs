//! What a rule calculates with.

use crate::id::RecordKey;
use crate::json::{self, Decimal, Node};
use crate::schema::EntityRules;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A value of a rule. Copies are cheap.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Decimal(Decimal),
    Text(Cow<'a, str>),
    List(Rc<Vec<Value<'a>>>),
    Map(Rc<BTreeMap<Box<str>, Value<'a>>>),
    Record(Rc<RecordValue<'a>>),
}

/// A record whose fields are looked up when a rule asks for them.
#[derive(Debug)]
pub(crate) struct RecordValue<'a> {
    pub(crate) key: &'a RecordKey,
    pub(crate) rules: Option<&'a EntityRules>,
    pub(crate) node: Rc<Node<'a>>,
    /// Whether it is the record before the group.
    pub(crate) is_before: bool,
}

impl<'a> Value<'a> {
    /// A value of JSON; `None` for a number that has too many digits to calculate with.
    pub(crate) fn of_json(node: &Node<'a>) -> Option<Self> {
        Some(match &node.value {
            json::Value::Null => Self::Null,
            json::Value::Bool(value) => Self::Bool(*value),
            json::Value::Number(digits) => match digits.parse() {
                Ok(integer) => Self::Integer(integer),
                Err(_) => Self::Decimal(Decimal::parse(digits)?),
            },
            json::Value::String(text) => Self::Text(text.clone()),
            json::Value::Array(items) => Self::List(Rc::new(items.iter().map(Self::of_json).collect::<Option<_>>()?)),
            json::Value::Object(members) => {
                let members = members.iter().map(|(name, value)| Some((Box::from(&**name), Self::of_json(value)?)));
                Self::Map(Rc::new(members.collect::<Option<_>>()?))
            }
        })
    }

    /// The steps that making it of JSON counts as.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 64,
            Self::List(items) => items.len() + items.iter().map(Self::weight).sum::<usize>(),
            Self::Map(map) => map.len() + map.values().map(Self::weight).sum::<usize>(),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Decimal(_) | Self::Record(_) => 0,
        }
    }

    /// A list of values.
    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    /// The exact value of a number.
    pub(super) fn decimal(&self) -> Option<Decimal> {
        match self {
            Self::Integer(value) => Some(Decimal::from(*value)),
            Self::Decimal(value) => Some(*value),
            _ => None,
        }
    }

    /// What a message calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Decimal(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Record(_) => "a record",
        }
    }
}
