//! Histories of one log: a server's folder that was put back by hand more than once.

use crate::common::{Device, Fault, World, is_push};
use gbsync_client::GroupState;

fn edit(device: &Device, text: &str) {
    device.client.upsert("notes", "n", format!(r#"{{"text":"{text}"}}"#).as_str()).unwrap();
}

/// A server whose log had a note at 1, another edit of it at 2 in each of two histories that were lost, and is at 1 again. The
/// devices: who made the edit of the first history, who saw it and edited it once more, and who made that of the second.
fn put_back_twice() -> (World, [Device; 3]) {
    let mut world = World::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| world.device(name));
    edit(&a, "made");
    for device in [&a, &b, &c] {
        device.sync();
    }
    world.copy_server("server", "kept");
    edit(&a, "by a");
    a.sync();
    b.sync();
    edit(&b, "by b, on a's");
    world.copy_server("kept", "server");
    edit(&c, "by c");
    c.sync();
    world.copy_server("kept", "server");
    (world, [a, b, c])
}

#[test]
fn an_edit_made_in_one_history_is_not_taken_for_made_in_another_of_the_same_name() {
    let (world, [a, b, c]) = put_back_twice();
    // The log begins anew with what c brings back: place 2 of the name is c's edit to the server.
    c.sync();
    assert_eq!(c.read("notes", "n").unwrap(), r#"{"text":"by c"}"#);
    // b never saw c's edit.
    b.sync();
    assert_eq!(b.states(), [(GroupState::Sealed, Some("blocked".into()))]);
    a.sync();
    assert!(a.states().contains(&(GroupState::Parked, Some("conflict".into()))));
    let reader = world.device("reader");
    reader.sync();
    assert_eq!(reader.read("notes", "n").unwrap(), r#"{"text":"by c"}"#);
}

#[test]
fn an_edit_made_in_a_history_that_comes_back_is_read_as_made_on_what_stood_there() {
    let (world, [a, b, c]) = put_back_twice();
    a.sync();
    c.sync();
    assert_eq!(c.states(), [(GroupState::Parked, Some("conflict".into()))]);
    b.sync();
    assert_eq!(b.states(), [(GroupState::Accepted, None)]);
    let reader = world.device("reader");
    reader.sync();
    assert_eq!(reader.read("notes", "n").unwrap(), r#"{"text":"by b, on a's"}"#);
}

#[test]
fn an_edit_on_an_own_one_whose_base_is_not_back_yet_is_not_taken_for_made_on_that_base() {
    let mut world = World::new();
    let [a, b] = ["a", "b"].map(|name| world.device(name));
    a.client.upsert("products", "p", r#"{"name":"roll","price":"1"}"#).unwrap();
    a.sync();
    b.sync();
    world.copy_server("server", "kept");
    a.client.patch("products", "p", r#"{"price":"2"}"#).unwrap();
    a.sync();
    b.sync();
    b.client.patch("products", "p", r#"{"name":"bun"}"#).unwrap();
    world.copy_server("kept", "server");
    b.sync();
    assert_eq!(b.read("products", "p").unwrap(), r#"{"name":"bun","price":"1"}"#, "the price of 2 is not back");
    b.client.patch("products", "p", r#"{"price":"3"}"#).unwrap();
    a.sync();
    b.sync();
    let second = (GroupState::Parked, Some("conflict".into()));
    assert_eq!(b.states(), [(GroupState::Accepted, None), second], "who made it 3 had seen 1, not 2");
    assert_eq!(b.read("products", "p").unwrap(), r#"{"name":"bun","price":"2"}"#);
    a.sync();
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn an_edit_on_an_own_one_of_what_this_device_brings_back_is_made_on_all_of_it() {
    let mut world = World::new();
    let a = world.device("a");
    a.client.upsert("notes", "other", r#"{"text":"of before"}"#).unwrap();
    a.sync();
    world.copy_server("server", "kept");
    edit(&a, "made");
    a.sync();
    edit(&a, "edited");
    a.sync();
    edit(&a, "edited twice");
    world.copy_server("kept", "server");
    a.transport.plan(|request| if is_push(request) { Fault::DropRequest } else { Fault::Pass });
    a.try_sync().unwrap_err();
    assert_eq!(a.states().len(), 4, "nothing is back yet: {:?}", a.states());
    edit(&a, "edited on what is not back");
    a.transport.heal();
    a.sync();
    assert!(a.states().iter().all(|state| *state == (GroupState::Accepted, None)), "{:?}", a.states());
    let reader = world.device("reader");
    reader.sync();
    assert_eq!(reader.read("notes", "n").unwrap(), r#"{"text":"edited on what is not back"}"#);
}
