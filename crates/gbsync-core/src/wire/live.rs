//! `GET …/live`: the log as a stream of server-sent events (WHATWG HTML, 9.2).
//!
//! A `group` event is one entry of the log. A `head` event closes a page: the groups since the last one are all that there is
//! from `after` to `next`, and `chain` is the one there. So what a stream brings is a page like any other, and is applied like
//! any other. An `end` event says why the stream ends.
//!
//! Rejected alternative: applying each `group` event by itself. Nothing would tell that one before it was lost.

use super::log::{LogEntry, LogPage, log_entry};
use super::read::{Fields, Read, WireError, parse, parse_passing, push_count, push_text};
use crate::digest::Digest;
use crate::id::{LogId, Seq, SpaceId};
use crate::json::push_string;
use crate::limits::PAYLOAD_DEPTH;

/// Levels of an entry around a payload: entry, changes, change.
const DEPTH: usize = PAYLOAD_DEPTH + 3;

/// One event of a live stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An entry of the log.
    Group(Box<LogEntry>),
    /// The groups since the last head are a page.
    Head(LiveHead),
    /// The stream ends.
    End(EndReason),
    /// A comment, or an event of a later version: passed over.
    Other,
}

/// What closes a page of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHead {
    /// The space that the stream is of.
    pub space: SpaceId,
    /// Its log.
    pub log: LogId,
    /// The cursor before the page.
    pub after: Seq,
    /// The cursor after it.
    pub next: Seq,
    /// The chain at `next`.
    pub chain: Digest,
    /// The last `seq` of the log.
    pub head: Seq,
}

macro_rules! end_reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal;)*) => {
        /// Why a stream ends.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum EndReason {
            $($(#[$doc])* $variant,)*
            /// A reason of a later version: connect again.
            Other,
        }

        impl EndReason {
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* Self::Other => "other" }
            }

            /// The reason with this word.
            pub fn from_wire(word: &str) -> Self {
                match word { $($word => Self::$variant,)* _ => Self::Other }
            }
        }
    };
}

end_reasons! {
    /// The server stops: connect again, after a moment.
    Stopping = "stopping";
    /// The reader fell too far behind: connect again from the cursor.
    TooSlow = "too_slow";
    /// The token is no longer valid.
    Unauthenticated = "unauthenticated";
    /// The cursor is no longer one of this log: a round finds out what to do.
    ResyncRequired = "resync_required";
    /// The server cannot read its store: connect again, after a moment.
    Unavailable = "unavailable";
}

impl Frame {
    /// Reads one event: its lines, with or without the empty one that ends it.
    ///
    /// # Errors
    /// [`WireError`] when it is not what the protocol says: then nothing of the stream since the last head may be applied.
    ///
    /// ```
    /// use gbsync_core::wire::{EndReason, Frame};
    /// let frame = Frame::parse(b"event: end\ndata: {\"reason\":\"stopping\"}\n\n");
    /// assert_eq!(frame, Ok(Frame::End(EndReason::Stopping)));
    /// assert_eq!(Frame::parse(b": nothing to do\n\n"), Ok(Frame::Other));
    /// assert!(Frame::parse(b"event: group\nid: 4\ndata: {\"seq\":5").is_err());
    /// ```
    pub fn parse(text: &[u8]) -> Result<Self, WireError> {
        let Event { name, id, data } = Event::read(text)?;
        match name {
            b"group" => {
                let (node, text) = parse_passing(&data, DEPTH)?;
                let entry = log_entry(&node, text)?;
                if id.is_none_or(|id| id != entry.seq.to_string().as_bytes()) {
                    return Err(WireError::new("the event's id is not the entry's seq"));
                }
                Ok(Self::Group(Box::new(entry)))
            }
            b"head" => LiveHead::read(&data).map(Self::Head),
            b"end" => {
                let (node, _) = parse(&data, 4)?;
                Ok(Self::End(EndReason::from_wire(Fields::of(&node)?.text("reason")?)))
            }
            _ => Ok(Self::Other),
        }
    }
}

impl LiveHead {
    fn read(data: &[u8]) -> Read<Self> {
        let (node, _) = parse(data, 8)?;
        let fields = Fields::of(&node)?;
        let chain =
            Digest::from_hex(fields.text("chain")?).ok_or_else(|| WireError::new("is no SHA-256").within("chain"))?;
        Ok(Self {
            space: fields.id("space", |text| SpaceId::new(text))?,
            log: fields.id("log", |text| LogId::new(text))?,
            after: Seq(fields.count("after")?),
            next: Seq(fields.count("next")?),
            chain,
            head: Seq(fields.count("head")?),
        })
    }

    /// Appends the event.
    pub fn write(&self, out: &mut String) {
        out.push_str(&format!("event: head\nid: {}\ndata: {{\"space\":", self.next));
        push_string(out, self.space.as_str());
        push_text(out, "log", self.log.as_str());
        push_count(out, "after", self.after.0);
        push_count(out, "next", self.next.0);
        push_text(out, "chain", &self.chain.to_string());
        push_count(out, "head", self.head.0);
        out.push_str("}\n\n");
    }
}

impl EndReason {
    /// The event.
    ///
    /// ```
    /// let frame = gbsync_core::wire::EndReason::TooSlow.frame();
    /// assert_eq!(frame, "event: end\ndata: {\"reason\":\"too_slow\"}\n\n");
    /// ```
    pub fn frame(self) -> String {
        format!("event: end\ndata: {{\"reason\":\"{}\"}}\n\n", self.as_str())
    }
}

/// Appends the event of an entry in wire form, as the log stores it. `None` when it is no entry: then nothing is appended.
///
/// ```
/// let mut out = String::new();
/// gbsync_core::wire::push_group_frame(&mut out, r#"{"seq":42,"syncGroupId":"g"}"#).unwrap();
/// assert_eq!(out, "event: group\nid: 42\ndata: {\"seq\":42,\"syncGroupId\":\"g\"}\n\n");
/// ```
pub fn push_group_frame(out: &mut String, entry: &str) -> Option<()> {
    let rest = entry.strip_prefix("{\"seq\":")?;
    let digits = rest.bytes().position(|byte| !byte.is_ascii_digit()).filter(|digits| *digits > 0)?;
    // A line feed would end the event; JSON without white space has none.
    if entry.contains(['\n', '\r']) {
        return None;
    }
    out.push_str("event: group\nid: ");
    out.push_str(&rest[..digits]);
    out.push_str("\ndata: ");
    out.push_str(entry);
    out.push_str("\n\n");
    Some(())
}

/// The fields of one event.
#[derive(Default)]
struct Event<'t> {
    name: &'t [u8],
    id: Option<&'t [u8]>,
    data: Vec<u8>,
}

impl<'t> Event<'t> {
    fn read(text: &'t [u8]) -> Read<Self> {
        let (mut event, mut lines) = (Self::default(), 0);
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &line[..colon] {
                b"event" => event.name = value,
                b"id" => event.id = Some(value),
                b"data" => {
                    if lines > 0 {
                        event.data.push(b'\n');
                    }
                    event.data.extend_from_slice(value);
                    lines += 1;
                }
                // A comment, an empty line, or a field that means nothing here.
                b"" | b"retry" => {}
                _ => return Err(WireError::new("a line is no field of a server-sent event")),
            }
        }
        Ok(event)
    }
}

/// A page that a stream brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    /// The space.
    pub space: SpaceId,
    /// Its log.
    pub log: LogId,
    /// The cursor that it follows.
    pub after: Seq,
    /// The page.
    pub page: LogPage,
}

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveEvent {
    /// A page, perhaps an empty one.
    Page(LivePage),
    /// The stream ends.
    End(EndReason),
}

/// Reads a stream as it comes, in pieces cut anywhere.
///
/// ```
/// use gbsync_core::wire::{EndReason, LiveEvent, LiveReader};
/// let mut reader = LiveReader::new(1024);
/// reader.push(b"event: end\nda");
/// assert_eq!(reader.next(), Ok(None));
/// reader.push(b"ta: {\"reason\":\"stopping\"}\n\n");
/// assert_eq!(reader.next(), Ok(Some(LiveEvent::End(EndReason::Stopping))));
/// ```
#[derive(Debug)]
pub struct LiveReader {
    most_bytes: usize,
    buffer: Vec<u8>,
    /// How much of the buffer was read.
    read: usize,
    /// From where on the end of an event is to be looked for.
    searched: usize,
    entries: Vec<LogEntry>,
    /// Bytes of the entries that no head closed yet.
    entry_bytes: usize,
}

impl LiveReader {
    /// A reader that holds at most about `most_bytes` of a page that is not complete.
    pub fn new(most_bytes: usize) -> Self {
        Self { most_bytes, buffer: Vec::new(), read: 0, searched: 0, entries: Vec::new(), entry_bytes: 0 }
    }

    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.searched -= self.read;
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next page or end that is here whole; `None` until more came.
    ///
    /// # Errors
    /// [`WireError`] when the stream is not what the protocol says, or a page is larger than the reader may hold: give the
    /// stream up and ask the log.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at `None`, where this goes on")]
    pub fn next(&mut self) -> Result<Option<LiveEvent>, WireError> {
        while let Some(end) = self.end_of_event() {
            let from = std::mem::replace(&mut self.read, end);
            let text = &self.buffer[from..end];
            match Frame::parse(text)? {
                Frame::Group(entry) => {
                    self.entry_bytes += text.len();
                    self.entries.push(*entry);
                }
                Frame::Head(head) => {
                    self.entry_bytes = 0;
                    return close(head, std::mem::take(&mut self.entries)).map(|page| Some(LiveEvent::Page(page)));
                }
                Frame::End(reason) => return Ok(Some(LiveEvent::End(reason))),
                Frame::Other => {}
            }
        }
        if self.buffer.len() - self.read + self.entry_bytes > self.most_bytes {
            return Err(WireError::new(format!("a page is longer than {} bytes", self.most_bytes)));
        }
        Ok(None)
    }

    /// Where the first event that was not read ends, its empty line included.
    fn end_of_event(&mut self) -> Option<usize> {
        for at in self.searched.max(self.read)..self.buffer.len() {
            let before = &self.buffer[self.read..at];
            if self.buffer[at] == b'\n' && (before.is_empty() || before.ends_with(b"\n") || before.ends_with(b"\n\r")) {
                self.searched = at + 1;
                return Some(at + 1);
            }
        }
        self.searched = self.buffer.len();
        None
    }
}

/// A page of what came between two heads, if it goes forward without a step back.
fn close(head: LiveHead, entries: Vec<LogEntry>) -> Read<LivePage> {
    let LiveHead { space, log, after, next, chain, head } = head;
    let page = LogPage { entries, next, chain, head };
    if page.entries.first().is_some_and(|first| first.seq <= after) || after > next {
        return Err(WireError::new("a page does not follow its cursor"));
    }
    page.check_order()?;
    Ok(LivePage { space, log, after, page })
}
