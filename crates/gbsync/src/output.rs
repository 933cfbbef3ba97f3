//! The one place that prints: data on standard output, progress and notes on standard error.
//!
//! Invariant: a reader that goes away (`gbsync query … | head`) never makes a verb panic, nor stop half-way through work that
//! must be finished; printing is infallible for the verbs, and [`Output::finish`] reports a device that refused to be
//! written. Rejected: `println!`, which panics on a broken pipe and takes the lock for every line.

use crate::exit::Failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Prints for a verb. Clones share one standard output.
#[derive(Clone)]
pub struct Output {
    is_json: bool,
    is_terminal: bool,
    is_coloured: bool,
    stdout: Arc<Mutex<Stdout>>,
}

struct Stdout {
    writer: BufWriter<io::Stdout>,
    broken: Option<io::Error>,
}

impl Output {
    /// Printing as text or, with `--json`, as JSON. Colours only on a terminal and never with `NO_COLOR`.
    pub fn new(is_json: bool) -> Self {
        let stdout = Stdout { writer: BufWriter::with_capacity(64 * 1024, io::stdout()), broken: None };
        Self {
            is_json,
            is_terminal: io::stdout().is_terminal(),
            is_coloured: is_stderr_coloured(),
            stdout: Arc::new(Mutex::new(stdout)),
        }
    }

    /// Whether the reader asked for JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether standard output can no longer be written: a verb that only prints may stop.
    pub fn is_closed(&self) -> bool {
        self.lock().broken.is_some()
    }

    /// Prints a line of data. On a terminal it shows at once, elsewhere at the next [`Self::flush`].
    pub fn line(&self, text: impl Display) {
        self.write(|writer| writeln!(writer, "{text}"));
    }

    /// Prints a value as one line of JSON.
    pub fn json(&self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("what a verb prints is plain data with text keys");
        self.line(text);
    }

    /// Hands everything printed so far to the reader.
    pub fn flush(&self) {
        self.write(|writer| writer.flush());
    }

    /// Prints a note for a person on standard error.
    pub fn note(&self, text: impl Display) {
        self.flush();
        // A closed standard error leaves nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Prints a failure on standard error: `error[code]: sentence` with indented lines, or with `--json` an object.
    pub fn failure(&self, failure: &Failure) {
        if self.is_json {
            let Failure { code, message, details, help, .. } = failure;
            let error =
                serde_json::json!({ "error": { "code": code, "message": message, "details": details, "help": help } });
            return self.note(error);
        }
        let (red, bold, plain) = if self.is_coloured { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error[{}]{plain}{bold}:{plain} {}", failure.code, failure.message);
        for line in &failure.details {
            text.push_str(&format!("\n  {line}"));
        }
        if let Some(help) = &failure.help {
            text.push_str(&format!("\n  {bold}help:{plain} {help}"));
        }
        self.note(text);
    }

    /// A progress bar over `bytes` on standard error, or `None` where nobody sees one.
    pub fn progress_bytes(&self, bytes: u64) -> Option<ProgressBar> {
        if !io::stderr().is_terminal() || self.is_json {
            return None;
        }
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}")
            .expect("the template is constant and well-formed");
        Some(ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr()).with_style(style))
    }

    /// A bar for the parts of something that travels; `None` where nobody watches.
    pub fn parts_bar(&self, parts: u64, what: &str) -> Option<ProgressBar> {
        if !io::stderr().is_terminal() || self.is_json {
            return None;
        }
        let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} parts {eta}")
            .expect("the template is constant and well-formed");
        let bar = ProgressBar::with_draw_target(Some(parts), ProgressDrawTarget::stderr()).with_style(style);
        Some(bar.with_message(what.to_owned()))
    }

    /// Flushes, and says whether standard output took everything. A reader that went away is no failure.
    pub fn finish(&self) -> Option<Failure> {
        self.flush();
        let stdout = self.lock();
        let error = stdout.broken.as_ref().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)?;
        let failure = Failure::new("output", format!("standard output could not be written: {error}"));
        Some(failure.help("what the command did is done; only the printing is incomplete"))
    }

    fn write(&self, write: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>) {
        let mut stdout = self.lock();
        if stdout.broken.is_some() {
            return;
        }
        let mut result = write(&mut stdout.writer);
        if result.is_ok() && self.is_terminal {
            result = stdout.writer.flush();
        }
        stdout.broken = result.err();
    }

    fn lock(&self) -> MutexGuard<'_, Stdout> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether standard error shows colours: on a terminal that has them, and never with `NO_COLOR`.
pub fn is_stderr_coloured() -> bool {
    let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let has_none = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !wants_none && !has_none
}

/// Aligns rows under their headings, two spaces between columns; numbers are for the caller to format.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![aligned(headings.iter().copied(), &widths)];
    lines.extend(rows.iter().map(|row| aligned(row.iter().map(String::as_str), &widths)));
    lines.join("\n")
}

/// One row of a table, padded to `widths`, without spaces at its end.
pub fn aligned<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        let padding = width.saturating_sub(cell.chars().count()) + 2;
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', padding));
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

/// A number with its word, in the plural where it is not one.
pub fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// A text as one word of a shell, for commands that are to be pasted.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_to_paste_survive_a_folder_with_a_space_and_a_quote() {
        assert_eq!(shell_word("/tmp/a b's"), r"'/tmp/a b'\''s'");
        assert_eq!(shell_word("/tmp/server"), "/tmp/server");
    }
}
