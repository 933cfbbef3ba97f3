//! An operations file in chunks of parsed lines.
//!
//! Invariant: a chunk has at most [`CHUNK_LINES`] lines and stops growing at [`CHUNK_BYTES`]; one line has at most
//! [`LINE_BYTES`]. On a stream a chunk ends where the next whole line has not arrived, so that nothing read stays unstored
//! while a slow producer thinks.

use super::{Stop, name_of};
use crate::exit::Failure;
use anyhow::Result;
use gbsync_core::limits::Limits;
use gbsync_core::wire::OperationLine;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Most lines of one transaction.
const CHUNK_LINES: usize = 200;
/// Bytes of lines after which a transaction closes.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Most bytes of one line: the largest group, and room for its spaces.
const LINE_BYTES: u64 = 96 * 1024 * 1024;
/// Bytes read from the system at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// The lines of an operations file, read once from the front.
pub struct Lines {
    reader: BufReader<Box<dyn Read>>,
    is_stream: bool,
    length_bytes: Option<u64>,
    position_bytes: u64,
    line: u64,
    from_line: u64,
    limits: Limits,
    text: Vec<u8>,
}

/// Parsed lines with their numbers, and why there are no more, if something is wrong.
pub struct Chunk {
    /// The number of each line.
    pub numbers: Vec<u64>,
    /// What each line says.
    pub operations: Vec<OperationLine>,
    /// Why the file ends here, if it should not.
    pub stop: Option<Stop>,
}

impl Lines {
    /// Opens a file, or standard input for `-`. Lines before `from_line` are passed over unread.
    ///
    /// # Errors
    /// A failure when the file cannot be opened.
    pub fn open(path: &Path, from_line: u64) -> Result<Self> {
        let (input, length_bytes): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
            let (file, metadata) = opened.map_err(|error| {
                let failure = Failure::new("operations_file", format!("{} cannot be read: {error}", name_of(path)));
                failure.help("give the path of an operations file, or - for standard input")
            })?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, input),
            is_stream: length_bytes.is_none(),
            length_bytes,
            position_bytes: 0,
            line: 0,
            from_line,
            limits: Limits::default(),
            text: Vec::new(),
        })
    }

    /// How long the file is; `None` for a stream.
    pub fn length_bytes(&self) -> Option<u64> {
        self.length_bytes
    }

    /// How much of it was read.
    pub fn position_bytes(&self) -> u64 {
        self.position_bytes
    }

    /// The next lines; none at the end.
    pub fn next_chunk(&mut self) -> Chunk {
        let mut chunk = Chunk { numbers: Vec::new(), operations: Vec::new(), stop: None };
        let end_of_chunk = self.position_bytes + CHUNK_BYTES as u64;
        while chunk.operations.len() < CHUNK_LINES && self.position_bytes < end_of_chunk {
            if !chunk.operations.is_empty() && self.would_wait() {
                break;
            }
            match self.next_operation() {
                Ok(Some(operation)) => {
                    chunk.numbers.push(self.line);
                    chunk.operations.push(operation);
                }
                Ok(None) => break,
                Err(stop) => {
                    chunk.stop = Some(stop);
                    break;
                }
            }
        }
        chunk
    }

    /// Whether the next line of a stream has not arrived whole.
    fn would_wait(&self) -> bool {
        self.is_stream && !self.reader.buffer().contains(&b'\n')
    }

    /// The next line that is not blank; `None` at the end.
    fn next_operation(&mut self) -> Result<Option<OperationLine>, Stop> {
        loop {
            if !self.read_line()? {
                return Ok(None);
            }
            let is_blank = self.text.iter().all(u8::is_ascii_whitespace);
            if is_blank || self.line < self.from_line {
                continue;
            }
            let text = std::str::from_utf8(&self.text).map_err(|error| {
                self.refused("malformed", format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1))
            })?;
            let operation = OperationLine::parse(text, &self.limits);
            return operation.map(Some).map_err(|error| self.refused("malformed", error.to_string()));
        }
    }

    fn read_line(&mut self) -> Result<bool, Stop> {
        self.text.clear();
        self.text.shrink_to(CHUNK_BYTES);
        let read = (&mut self.reader).take(LINE_BYTES + 1).read_until(b'\n', &mut self.text);
        let read = read.map_err(|error| {
            Stop::Whole(Failure::new("operations_file", format!("reading stopped after line {}: {error}", self.line)))
        })?;
        if read == 0 {
            return Ok(false);
        }
        self.line += 1;
        self.position_bytes += read as u64;
        if read as u64 > LINE_BYTES {
            return Err(self.refused("too_large", format!("the line has more than {LINE_BYTES} bytes")));
        }
        Ok(true)
    }

    fn refused(&self, code: &str, reason: String) -> Stop {
        Stop::Line { line: self.line, code: code.to_owned(), reason }
    }
}
