//! Rules in CEL: a text is parsed by the `cel` crate, compiled into a tree of our own, and evaluated here on exact values.
//!
//! Invariant: an evaluation ends after a bounded number of steps, gives the same result everywhere, and never panics. It
//! sees records and literals, no clock and no randomness, and no float stands between a price and its digits.
//!
//! Rejected alternative: the interpreter of the `cel` crate with values of our own. There a literal on the left decides
//! (`2 * price` and `0 == total` never reach the type of the right side), numbers such as `0.19` are floats before anybody
//! sees them, and nothing counts steps (docs/decisions).

mod call;
mod compile;
mod evaluate;
mod number;
mod value;

pub(crate) use evaluate::{Budget, Evaluation, Halt, World};
pub(crate) use value::{RecordValue, Value};

use crate::json::Decimal;
use regex::Regex;
use std::collections::BTreeSet;

/// A compiled rule.
#[derive(Debug)]
pub(crate) struct Rule {
    root: Term,
    /// Variables that macros bind, at most so many at a time.
    locals: usize,
    /// The lists that it names: of the state after the group or before it.
    pub(crate) entities: BTreeSet<Box<str>>,
    /// The members that it selects of anything.
    pub(crate) members: BTreeSet<Box<str>>,
}

impl Rule {
    /// Compiles a parsed expression. The error is a sentence and the id of the node at fault.
    pub(crate) fn compile(parsed: &cel::IdedExpr) -> Result<Self, (String, u64)> {
        compile::compile(parsed)
    }
}

/// One node of a compiled rule.
#[derive(Debug)]
enum Term {
    Null,
    Bool(bool),
    Integer(i64),
    Decimal(Decimal),
    Text(Box<str>),
    /// A variable that a macro binds.
    Local(usize),
    /// The records of an entity, before or after the group.
    Records {
        entity: Box<str>,
        is_before: bool,
    },
    Member(Box<Term>, Box<str>),
    Has(Box<Term>, Box<str>),
    Not(Box<Term>),
    Negated(Box<Term>),
    And(Vec<Term>),
    Or(Vec<Term>),
    Choice(Box<[Term; 3]>),
    Binary(Binary, Box<[Term; 2]>),
    List(Vec<Term>),
    Map(Vec<(Term, Term)>),
    Macro(Box<Macro>),
    Call(Function, Vec<Term>),
    /// A match with a pattern that stands in the rule.
    Matches(Box<Term>, Box<Regex>),
}

/// An operator with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
}

/// A macro over the items of a list.
#[derive(Debug)]
struct Macro {
    kind: MacroKind,
    range: Term,
    local: usize,
    /// What items must fulfil; of `map` those that are taken.
    condition: Option<Term>,
    /// What `map` makes of an item.
    item: Option<Term>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
}

/// A function of CEL, or `sum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Sum,
    Min,
    Max,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Int,
    Double,
    String,
    Bool,
    Type,
    Dyn,
    /// One that there is not: it gives no value.
    Unknown,
}

/// Compiles a pattern, within bounds.
fn pattern(text: &str) -> Result<Regex, String> {
    const PATTERN_BYTES: usize = 1_000;
    const PROGRAM_BYTES: usize = 64 * 1024;
    if text.len() > PATTERN_BYTES {
        return Err(format!("a pattern has at most {PATTERN_BYTES} bytes"));
    }
    let built =
        regex::RegexBuilder::new(text).size_limit(PROGRAM_BYTES).dfa_size_limit(PROGRAM_BYTES).nest_limit(50).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
        _ => "the pattern cannot be read".to_owned(),
    })
}
