//! The live stream: what is read of it however it is cut, and what is refused.

use gbsync_core::digest::Digest;
use gbsync_core::id::{LogId, Seq, SpaceId};
use gbsync_core::wire::*;
use proptest::prelude::*;

const MOST_BYTES: usize = 64 * 1024;

fn entry(seq: u64) -> String {
    format!(
        r#"{{"seq":{seq},"syncGroupId":"g-{seq}","syncGroupType":null,"device":"d","epoch":"e","deviceSeq":{seq},"changeCount":1,"changes":[{{"entity":"notes","id":"n","action":"upsert","version":{seq},"payload":{{"x":"ä\n"}}}}]}}"#
    )
}

fn head(after: u64, next: u64) -> LiveHead {
    let (space, log) = (SpaceId::new("shop").unwrap(), LogId::new("l-1").unwrap());
    LiveHead { space, log, after: Seq(after), next: Seq(next), chain: Digest::of(&next.to_be_bytes()), head: Seq(57) }
}

/// Entries 41 to 43 in two pages, a comment, a heartbeat and an end.
fn stream() -> String {
    let mut out = String::new();
    for seq in [41, 42] {
        push_group_frame(&mut out, &entry(seq)).unwrap();
    }
    head(40, 42).write(&mut out);
    out.push_str(": a comment\n\n");
    push_group_frame(&mut out, &entry(43)).unwrap();
    head(42, 44).write(&mut out);
    head(44, 44).write(&mut out);
    out.push_str(&EndReason::Stopping.frame());
    out
}

fn read(pieces: &[&[u8]]) -> Result<Vec<LiveEvent>, WireError> {
    let (mut reader, mut events) = (LiveReader::new(MOST_BYTES), Vec::new());
    for piece in pieces {
        reader.push(piece);
        while let Some(event) = reader.next()? {
            events.push(event);
        }
    }
    Ok(events)
}

#[test]
fn a_stream_is_written_as_the_golden_one_and_read_as_pages() {
    assert_eq!(stream(), crate::vectors::text("wire/live.txt"));
    let events = read(&[stream().as_bytes()]).unwrap();
    let seqs = |event: &LiveEvent| match event {
        LiveEvent::Page(LivePage { after, page, .. }) => {
            (after.0, page.entries.iter().map(|entry| entry.seq.0).collect::<Vec<_>>(), page.next.0)
        }
        LiveEvent::End(_) => (0, vec![], 0),
    };
    let read: Vec<_> = events.iter().map(seqs).collect();
    assert_eq!(read, [(40, vec![41, 42], 42), (42, vec![43], 44), (44, vec![], 44), (0, vec![], 0)]);
    assert_eq!(events[3], LiveEvent::End(EndReason::Stopping));
    let LiveEvent::Page(page) = &events[0] else { panic!("a page") };
    let as_page = page_json([entry(41), entry(42)].iter().map(String::as_str), Seq(42), head(40, 42).chain, Seq(57));
    assert_eq!(page.page, LogPage::parse(as_page.as_bytes()).unwrap());
    assert_eq!((page.space.as_str(), page.log.as_str()), ("shop", "l-1"));
}

#[test]
fn lines_may_end_as_a_proxy_likes() {
    let text = stream().replace('\n', "\r\n");
    assert_eq!(read(&[text.as_bytes()]).unwrap(), read(&[stream().as_bytes()]).unwrap());
}

#[test]
fn half_a_frame_is_no_event_and_never_half_a_page() {
    let text = stream();
    for end in 0..text.len() {
        let events = read(&[&text.as_bytes()[..end]]).unwrap();
        let whole = read(&[text.as_bytes()]).unwrap();
        assert_eq!(events[..], whole[..events.len()], "{end}");
    }
}

#[test]
fn what_is_no_stream_is_refused() {
    let refused = |text: &str| assert!(read(&[text.as_bytes()]).is_err(), "{text}");
    refused("<html><body>Sign in to the hotel's network</body></html>\n\n");
    refused("event: group\ndata: {\"seq\":41}\n\n");
    refused(&stream().replace("id: 41", "id: 40"));
    refused(&stream().replace("\"after\":42", "\"after\":43"));
    refused(&stream().replace("\"next\":42", "\"next\":41"));
    refused(&stream().replace("\"head\":57", "\"head\":43"));
    refused(&stream().replace("\"space\":\"shop\"", "\"space\":7"));
    refused(&stream().replacen("\"seq\":42", "\"seq\":41", 1).replace("id: 42\ndata: {\"seq\"", "id: 41\ndata: {\"seq\""));
    refused("event: head\ndata: {}\n\n");
    refused("event: end\ndata: {}\n\n");
    let endless = "x".repeat(MOST_BYTES + 1);
    refused(&endless);
    let mut unclosed = String::new();
    (1..400).for_each(|seq| push_group_frame(&mut unclosed, &entry(seq)).unwrap());
    refused(&unclosed);
}

#[test]
fn an_event_of_a_later_version_is_passed_over() {
    let text = format!("event: news\ndata: [\n\nretry: 5\n\n{}", stream());
    assert_eq!(read(&[text.as_bytes()]).unwrap(), read(&[stream().as_bytes()]).unwrap());
    assert_eq!(Frame::parse(b"event: end\ndata: {\"reason\":\"tired\"}"), Ok(Frame::End(EndReason::Other)));
}

#[test]
fn what_is_no_entry_is_not_written() {
    let mut out = String::new();
    for entry in ["", "{}", "{\"seq\":x}", "{\"seq\":1,\n}"] {
        assert_eq!(push_group_frame(&mut out, entry), None);
    }
    assert_eq!(out, "");
}

proptest! {
    #[test]
    fn it_does_not_matter_where_a_stream_is_cut(mut cuts in proptest::collection::vec(0_usize..1_500, 0..12)) {
        let text = stream();
        cuts.retain(|cut| *cut < text.len());
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(read(&pieces).unwrap(), read(&[text.as_bytes()]).unwrap());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..8)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let _ = read(&pieces);
    }
}
