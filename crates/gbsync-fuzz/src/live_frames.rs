//! The stream of the log, in pieces cut anywhere.

use gbsync_core::wire::{Frame, LiveEvent, LiveHead, LiveReader, WireError};

/// More than any input has: the bound of a page is a matter of `a_page_is_bounded`.
const MOST_BYTES: usize = 1024 * 1024;

/// A stream says the same however it is cut, and its pages go forward without a step back. The first byte says how long the
/// pieces are.
///
/// # Panics
/// When not, or when more is held than the reader may hold.
pub fn live_frames(data: &[u8]) {
    let Some((length, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1), MOST_BYTES);
    assert_eq!(read(stream, 1 + usize::from(length % 64), MOST_BYTES), whole, "cut otherwise, it says something else");
    let (events, _) = &whole;
    for event in events {
        let LiveEvent::Page(live) = event else { continue };
        let seqs: Vec<u64> = live.page.entries.iter().map(|entry| entry.seq.0).collect();
        assert!(seqs.is_sorted_by(|one, next| one < next), "entries out of order: {seqs:?}");
        assert!(seqs.first().is_none_or(|first| *first > live.after.0), "an entry before the cursor");
        assert!(seqs.last().is_none_or(|last| *last <= live.page.next.0), "an entry after the page");
        assert!(live.after <= live.page.next && live.page.next <= live.page.head, "a page that goes back");
        head_is_written_as_read(live);
    }
    a_page_is_bounded(stream, usize::from(*length));
}

/// What a stream says, up to where it is no stream any more.
fn read(stream: &[u8], length: usize, most_bytes: usize) -> (Vec<LiveEvent>, Option<WireError>) {
    let (mut reader, mut events) = (LiveReader::new(most_bytes), Vec::new());
    for piece in stream.chunks(length) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fn head_is_written_as_read(live: &gbsync_core::wire::LivePage) {
    let head = LiveHead {
        space: live.space.clone(),
        log: live.log.clone(),
        after: live.after,
        next: live.page.next,
        chain: live.page.chain,
        head: live.page.head,
    };
    let mut written = String::new();
    head.write(&mut written);
    assert_eq!(Frame::parse(written.as_bytes()), Ok(Frame::Head(head)), "a head is read as it is written");
}

/// P8: what is not complete is held up to a bound, and refused beyond it.
fn a_page_is_bounded(stream: &[u8], most_bytes: usize) {
    let (_, error) = read(stream, 1, most_bytes);
    let longest = stream.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap_or(0);
    assert!(error.is_some() || longest <= most_bytes, "a line of {longest} bytes was held by a reader of {most_bytes}");
}
