//! `vectors/wire/`: golden messages of a log that was restored.

use gbsync_core::change::{Base, Change, Edit, Payload};
use gbsync_core::digest::Digest;
use gbsync_core::group::{Group, Header};
use gbsync_core::id::{BatchId, DeviceId, DeviceSeq, EpochId, GroupId, GroupType, LogId, RecordKey, Seq, SpaceId};
use gbsync_core::limits::Limits;
use gbsync_core::time::Timestamp;
use gbsync_core::wire::{
    Ancestor, Handshake, LogPlace, MadeOn, PushRequest, group_json, made_on_another, offered_again, push_json_at,
};

fn golden(file: &str) -> String {
    let path = format!("{}/../../vectors/wire/{file}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

fn log(name: &str) -> LogId {
    LogId::new(name).unwrap()
}

fn time() -> Timestamp {
    Timestamp::new("2026-06-03T20:52:59.123Z").unwrap()
}

#[test]
fn a_group_that_is_offered_again_is_written_and_read_as_the_golden_one() {
    let payload = Payload::parse(r#"{"total":"2.00"}"#, &Limits::default()).unwrap();
    let key = RecordKey::new("receipts", "r1").unwrap();
    let change = Change::new(key, Edit::Patch(payload), Base { version: Seq(130), group: None }).unwrap();
    let header = Header {
        id: GroupId::new("receipt-edit:r1:0192-a").unwrap(),
        group_type: Some(GroupType::new("receipt-edit").unwrap()),
        device_seq: DeviceSeq(17),
        actor: None,
        created_at: time(),
        schema_version: 0,
        depends_on: vec![],
        replaces: None,
        family: None,
        log: Some(log("log-a")),
        hlc: None,
        clears: vec![],
    };
    let group = Group::seal(header, vec![change], &Limits::default()).unwrap();
    let places = [(log("log-a"), Seq(131)), (log("log-b"), Seq(122))];
    let at = LogPlace { log: log("log-c"), seq: Seq(120), chain: Digest::of(b"place") };
    let (device, epoch) = (DeviceId::new("device-1").unwrap(), EpochId::new("epoch-1").unwrap());
    let base = GroupId::new("receipt-edit:r1:0192-b").unwrap();
    let made_on = MadeOn { shared: Seq(118), bases: [(Seq(130), base)].into() };
    let sent = made_on_another(offered_again(group_json(&group), &places), Some(&made_on));
    let text = push_json_at(&device, &epoch, &BatchId::new("batch-4").unwrap(), Some(&at), [sent.as_str()]);
    assert_eq!(text, golden("push-request-after-a-restore"));

    let request = PushRequest::parse(text.as_bytes(), &Limits::default()).unwrap();
    assert_eq!((request.at, request.groups[0].accepted_as.as_slice()), (Some(at), &places[..]));
    assert_eq!(request.groups[0].made_on, Some(made_on));
}

#[test]
fn the_handshake_of_a_restored_log_is_written_and_read_as_the_golden_one() {
    let ancestor = |name: &str, up_to| Ancestor { log: log(name), up_to: Seq(up_to) };
    let shake = Handshake {
        space: SpaceId::new("shop").unwrap(),
        log: log("log-c"),
        ancestors: vec![ancestor("log-b", 120), ancestor("log-a", 100)],
        schema_version: 0,
        head: Seq(125),
        chain: Digest::of(b"place"),
        agrees: Some(false),
        agrees_up_to: Some(Seq(118)),
        horizon: Seq(0),
        server_time: time(),
        device: None,
        token: None,
        scope_set: None,
        scopes: Default::default(),
        limits: Limits::default(),
    };
    assert_eq!(shake.to_json(), golden("handshake-of-a-restored-log"));
    assert_eq!(Handshake::parse(shake.to_json().as_bytes()).unwrap(), shake);
}

#[test]
fn what_says_where_somebody_stands_and_cannot_be_read_is_malformed() {
    let refused = |from: &str, to: &str| {
        let text = golden("push-request-after-a-restore").replacen(from, to, 1);
        PushRequest::parse(text.as_bytes(), &Limits::default()).unwrap_err().pointer
    };
    assert_eq!(refused("\"seq\":120", "\"seq\":-1"), "/at/seq");
    assert_eq!(refused("\"chain\":\"", "\"chain\":\"x"), "/at/chain");
    assert_eq!(refused("\"seq\":131", "\"seq\":0"), "/groups/0/acceptedAs/0/seq");
    assert_eq!(
        refused("[{\"log\":\"log-a\",", &format!("[{}{{\"log\":\"log-a\",", "{\"log\":\"x\",\"seq\":1},".repeat(16))),
        "/groups/0/acceptedAs"
    );
    assert_eq!(refused("\"shared\":118", "\"shared\":-1"), "/groups/0/madeOn/shared");
    assert_eq!(refused("\"group\":\"", "\"group\":\"\n"), "/groups/0/madeOn/bases/0/group");
    let base = "{\"seq\":1,\"group\":\"g\"},".repeat(1_000);
    assert_eq!(refused("\"bases\":[", &format!("\"bases\":[{base}")), "/groups/0/madeOn/bases");
}
