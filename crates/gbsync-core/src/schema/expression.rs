//! A rule in CEL, compiled once.
//!
//! Invariant: a rule in memory is bounded in length and depth, so that neither compiling nor evaluating it can overflow the
//! stack, whoever wrote it.
//!
//! Rejected alternative: compiling where it is evaluated; a rule that does not compile would surface with the first sale.

use super::scope;
use crate::limits::{EXPRESSION_BRACKETS, EXPRESSION_BYTES, EXPRESSION_DEPTH, EXPRESSION_LINKS};
use crate::rule::Rule;
use std::sync::Arc;

/// A compiled rule. Two are equal when their texts are.
#[derive(Clone)]
pub struct Expression {
    source: Box<str>,
    program: Arc<cel::Program>,
    rule: Arc<Rule>,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Bytes of the text before the place at fault, where that is known.
    pub offset: Option<usize>,
}

impl Expression {
    /// Compiles a rule.
    ///
    /// # Errors
    /// [`ExpressionError`] says what is wrong.
    ///
    /// ```
    /// use gbsync_core::schema::Expression;
    /// assert!(Expression::compile("receipts.all(r, r.total >= 0)").is_ok());
    /// assert!(Expression::compile("receipts.all(r, ").is_err());
    /// ```
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > EXPRESSION_BYTES {
            return refuse(format!("it has over {EXPRESSION_BYTES} bytes"), None);
        }
        if let Some(offset) = place_too_deep(source) {
            let message = "it opens too many brackets, or goes on too long without && or ||; write it as several rules";
            return refuse(message.to_owned(), Some(offset));
        }
        let program = match cel::Program::compile(source) {
            Ok(program) => program,
            Err(errors) => return Err(first_error(source, &errors)),
        };
        if scope::is_deeper(program.expression(), EXPRESSION_DEPTH) {
            return refuse(format!("it is nested over {EXPRESSION_DEPTH} levels deep; write it as several rules"), None);
        }
        match Rule::compile(program.expression()) {
            Ok(rule) => Ok(Self { source: source.into(), program: Arc::new(program), rule: Arc::new(rule) }),
            Err((message, id)) => {
                let offset = program.source_info().offset_for(id).map(|(start, _)| start as usize);
                refuse(message, offset)
            }
        }
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The entities whose records it names, after the group or before it.
    ///
    /// ```
    /// use gbsync_core::schema::Expression;
    /// let rule = Expression::compile("receipts.all(r, r.total >= 0) && size(before.stock) > 0").unwrap();
    /// assert_eq!(rule.variables().collect::<Vec<_>>(), ["receipts", "stock"]);
    /// ```
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.rule.entities.iter().map(|name| &**name)
    }

    /// What is evaluated.
    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The compiled program.
    pub(crate) fn program(&self) -> &cel::Program {
        &self.program
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

fn refuse<T>(message: String, offset: Option<usize>) -> Result<T, ExpressionError> {
    Err(ExpressionError { message, offset })
}

/// Where a bracket opens, or a chain of members and operators goes on, one time too many. What stands in strings counts
/// too: a rule needs none of so many there either.
fn place_too_deep(source: &str) -> Option<usize> {
    // Links of the chain at hand, for each bracket that is open, and below them for the whole.
    let mut open: Vec<usize> = Vec::new();
    let mut links = 0;
    source.bytes().position(|byte| {
        match byte {
            b'(' | b'[' | b'{' => {
                open.push(links + 1);
                links = 0;
            }
            b')' | b']' | b'}' => links = open.pop().unwrap_or(links),
            b',' | b'&' | b'|' | b'?' | b':' => links = 0,
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'=' | b'<' | b'>' | b'!' => links += 1,
            _ => {}
        }
        links > EXPRESSION_LINKS || open.len() > EXPRESSION_BRACKETS
    })
}

/// The first thing that the compiler did not understand; what follows from it is noise.
fn first_error(source: &str, errors: &cel::ParseErrors) -> ExpressionError {
    let Some(error) = errors.errors.first() else {
        return ExpressionError { message: "it is no expression".to_owned(), offset: None };
    };
    // Lines and columns are counted from 1, in characters.
    let offset = usize::try_from(error.pos.0 - 1).ok().and_then(|line| {
        let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
        let column = usize::try_from(error.pos.1 - 1).ok()?;
        let rest = source.get(start..)?;
        Some(start + rest.chars().take(column).map(char::len_utf8).sum::<usize>())
    });
    // The parser lists every token that it would have taken.
    let message = error.msg.trim().trim_start_matches("Syntax error: ").replace('\n', " ");
    let message = message.split(" expecting {").next().unwrap_or_default();
    let message = if message.contains("'<EOF>'") { "it ends too early" } else { message };
    ExpressionError { message: message.to_owned(), offset }
}
