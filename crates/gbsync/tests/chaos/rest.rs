//! All is healed: every device comes to rest by itself, within a bounded time (P10).

use crate::server::look_into;
use crate::world::{Device, World};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The longest that all may stand still: a device waits up to a minute after failures in a row.
const STILL_MOST: Duration = Duration::from_secs(120);
/// The longest that it may take them to send and fetch everything, on a machine that is busy with other things.
const REST_MOST: Duration = Duration::from_secs(600);

/// Waits until every device is at rest, with nothing but the processes that run.
pub fn reach(world: &mut World) {
    for device in &world.devices {
        device.link.cut(None);
        device.link.calm(true);
    }
    world.shared.note("all is healed");
    let (begun, mut moved, mut noted) = (Instant::now(), Instant::now(), Vec::new());
    loop {
        world.insist();
        let head = head(world);
        let restless: Vec<String> = world.devices.iter().filter_map(|device| unrest(device, head)).collect();
        if restless != noted {
            world.shared.note(&format!("still to do: {restless:?}"));
            noted.clone_from(&restless);
            moved = Instant::now();
        }
        if restless.is_empty() {
            break;
        }
        let is_stuck = moved.elapsed() > STILL_MOST || begun.elapsed() > REST_MOST;
        assert!(!is_stuck, "{}: stuck: {}", world.plan, restless.join("; "));
        thread::sleep(Duration::from_millis(50));
    }
    // Those who look have seen the last state as well.
    world.end_looks();
}

/// The end of the log.
pub fn head(world: &World) -> u64 {
    world.server.backend.look(&["spaces"]).query_row("SELECT head FROM spaces", [], |row| row.get(0)).unwrap()
}

/// How much of the log a device has.
pub fn cursor(device: &Device) -> u64 {
    look_into(&device.file).query_row("SELECT cursor FROM gbsync_state", [], |row| row.get(0)).unwrap()
}

/// What a device still has to do.
fn unrest(device: &Arc<Device>, head: u64) -> Option<String> {
    let connection = look_into(&device.file);
    let sql = "SELECT (SELECT count(*) FROM gbsync_capture),
                      (SELECT count(*) FROM gbsync_group WHERE state NOT IN ('accepted', 'parked')),
                      (SELECT count(*) FROM gbsync_overlay), cursor, coalesce(error_message, '-')
                 FROM gbsync_state";
    let row = |row: &rusqlite::Row<'_>| {
        let numbers: [u64; 4] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
        Ok((numbers, row.get::<_, String>(4)?))
    };
    let ([captured, undecided, overlay, cursor], error) = connection.query_row(sql, [], row).unwrap();
    let is_at_rest = [captured, undecided, overlay, cursor] == [0, 0, 0, head];
    (!is_at_rest).then(|| {
        format!(
            "device {}: {captured} captures, {undecided} groups undecided, {overlay} rows over the base, cursor {cursor} of {head}, \
             last error {error}",
            device.name
        )
    })
}
