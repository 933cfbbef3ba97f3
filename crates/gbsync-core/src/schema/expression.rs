//! A rule in CEL, compiled once.
//!
//! Rejected alternative: compiling where it is evaluated; a rule that does not compile would surface with the first sale.

use std::sync::Arc;

/// A compiled rule. Two are equal when their texts are.
#[derive(Clone)]
pub struct Expression {
    source: Box<str>,
    program: Arc<cel::Program>,
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
        match cel::Program::compile(source) {
            Ok(program) => Ok(Self { source: source.into(), program: Arc::new(program) }),
            Err(errors) => Err(ExpressionError { message: errors.to_string(), offset: None }),
        }
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The compiled program.
    #[expect(dead_code, reason = "rules are evaluated by decide")]
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
