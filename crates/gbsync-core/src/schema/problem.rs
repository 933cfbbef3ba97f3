//! What is wrong with a schema: every mistake of a text, each with its place and its mend.

use std::fmt;

/// Everything that is wrong with a text that was to be a schema, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaProblems(Vec<SchemaProblem>);

/// One thing that is wrong.
///
/// Its text is `12:8: unknown key "scael"; did you mean "scale"?`; [`SchemaProblem::in_file`] puts a file's name before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaProblem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The keys that lead to it, e.g. `entities.receipts.fields.total.scael`; empty for the whole text.
    pub path: String,
    /// What kind of mistake it is.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that can be said.
    pub fix: Option<String>,
}

/// Problems of one text for which the nearest name is sought.
const MOST_NEAR: usize = 100;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The kinds of mistakes in a schema.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

codes! {
    /// The text is neither TOML nor JSON.
    Syntax = "syntax",
    /// Too long, or too many of something.
    TooLarge = "too_large",
    /// No such key.
    UnknownKey = "unknown_key",
    /// A key that must be there.
    MissingKey = "missing_key",
    /// A value of another type than the key has.
    WrongType = "wrong_type",
    /// A value that is none of those the key may have.
    UnknownValue = "unknown_value",
    /// A value beyond its range.
    OutOfRange = "out_of_range",
    /// A name that is not allowed.
    InvalidName = "invalid_name",
    /// A name that means something else already.
    ReservedName = "reserved_name",
    /// Two names that would be one in a database.
    NameCollision = "name_collision",
    /// A name that nothing has.
    UnknownName = "unknown_name",
    /// Deletes that would go round in a circle.
    CascadeCycle = "cascade_cycle",
    /// A rule that does not compile.
    InvalidRule = "invalid_rule",
    /// A count like `1..5` that is none.
    InvalidCount = "invalid_count",
    /// A sequence's format that is none.
    InvalidFormat = "invalid_format",
    /// A default that its field could not hold.
    InvalidDefault = "invalid_default",
    /// Two keys that do not go together.
    Contradiction = "contradiction",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SchemaProblems {
    /// The problems, in the order of the text. There is at least one.
    pub fn iter(&self) -> impl Iterator<Item = &SchemaProblem> {
        self.0.iter()
    }
}

impl fmt::Display for SchemaProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SchemaProblems {}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, message, fix, .. } = self;
        write!(f, "{line}:{column}: {message}")?;
        match fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl SchemaProblem {
    /// The line that a person reads: `gbsync.toml:12:8: unknown key "scael"; did you mean "scale"?`.
    pub fn in_file(&self, file: &str) -> String {
        format!("{file}:{self}")
    }
}

/// Problems while a text is read, by byte offset.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(usize, SchemaProblem)>);

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, at: usize, path: &str, code: Code, message: impl Into<String>) {
        self.push(at, path, code, message.into(), None);
    }

    /// Notes a problem with what to do about it.
    pub fn add_with(&mut self, at: usize, path: &str, code: Code, message: impl Into<String>, fix: impl Into<String>) {
        self.push(at, path, code, message.into(), Some(fix.into()));
    }

    /// Notes a name that is none of those known, with the nearest of them.
    pub fn add_unknown(&mut self, at: usize, path: &str, code: Code, message: String, name: &str, known: &[&str]) {
        // Nearness is quadratic in the lengths: it is not sought for each of thousands.
        let near = if self.0.len() < MOST_NEAR { nearest(name, known.iter().copied()) } else { None };
        let fix = match near {
            Some(near) => Some(format!("did you mean {near:?}?")),
            None if known.is_empty() || known.len() > 16 => None,
            None => Some(format!("known are {}", known.join(", "))),
        };
        self.push(at, path, code, message, fix);
    }

    fn push(&mut self, at: usize, path: &str, code: Code, message: String, fix: Option<String>) {
        self.0.push((at, SchemaProblem { line: 0, column: 0, path: path.to_owned(), code, message, fix }));
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems with their lines and columns in `text`, if there is one.
    pub fn into_result(mut self, text: &str) -> Result<(), SchemaProblems> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by_key(|(at, _)| *at);
        let (mut line, mut line_at, mut seen) = (1, 0, 0);
        let mut problems = Vec::with_capacity(self.0.len());
        for (at, mut problem) in self.0 {
            let at = (0..=at.min(text.len())).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0);
            for (offset, _) in text[seen..at].match_indices('\n') {
                line += 1;
                line_at = seen + offset + 1;
            }
            seen = at;
            problem.line = line;
            problem.column = 1 + text[line_at..at].chars().count();
            problems.push(problem);
        }
        Err(SchemaProblems(problems))
    }
}

/// The name that was probably meant, if one is near enough.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = name.to_lowercase();
    let length = name.chars().count();
    let most = 1 + length / 4;
    // A distance is at least the difference of the lengths, and slow to find.
    let may_be_near = |known: &&str| known.chars().count().abs_diff(length) <= most;
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    let is_near = |distance: usize| distance <= most && distance < length;
    let known = known.filter(may_be_near).map(|known| (distance(known), known));
    known.filter(|(distance, _)| is_near(*distance)).min().map(|(_, known)| known)
}
