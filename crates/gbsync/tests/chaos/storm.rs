//! The storm: somebody is killed, stopped or cut off, again and again, while everybody works.

use crate::link::Cut;
use crate::rest;
use crate::server::Backend;
use crate::world::{Device, LONG_CYCLES, World};
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long both sides of a partition may take to get on.
const PARTITION_MOST: Duration = Duration::from_secs(60);
/// Operations that a device must write while it is cut off.
const OFFLINE: usize = 4;
/// How long to wait for a writer to be there.
const WRITER_MOST: Duration = Duration::from_secs(2);

/// How long the devices may take after each event to hear of something new before the next one comes.
const GET_ON_MOST: Duration = Duration::from_secs(2);

/// How long a storm may last beyond its plan until everything happened.
const FATES_MOST: Duration = Duration::from_secs(120);

/// What was done to a world.
#[derive(Default)]
pub struct Done {
    cycles: u64,
    servers: u64,
    databases: u64,
    syncs: u64,
    writers: u64,
    stops: u64,
    partitions: u64,
    /// Groups in the log when the storm ended, and how many of them each device had.
    head: u64,
    cursors: Vec<u64>,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cycles, servers, databases, syncs, writers, stops, partitions, head, cursors } = self;
        write!(
            f,
            "{cycles} SIGKILL cycles ({servers} servers, {databases} databases, {syncs} syncing devices, {writers} writers), {stops} SIGSTOPs, \
             {partitions} partitions; {head} groups in the log by then, of which the devices had {cursors:?}"
        )
    }
}

enum Event {
    Kill,
    Partition,
}

impl World {
    /// Goes through the plan in a drawn order.
    pub fn storm(&mut self) {
        let (mut kills, mut partitions) = (self.plan.cycles, self.plan.partitions);
        while kills + partitions > 0 {
            let event = if self.dice.below(kills + partitions) < kills { Event::Kill } else { Event::Partition };
            match event {
                Event::Kill => {
                    kills -= 1;
                    self.cycle();
                }
                Event::Partition => {
                    partitions -= 1;
                    let is_killed = kills > 0 && self.dice.below(2) == 0;
                    kills -= u64::from(is_killed);
                    self.partition(is_killed);
                }
            }
            self.get_on();
            self.insist();
        }
        self.wait_for_each_fate();
        self.done.head = rest::head(self);
        self.done.cursors = self.devices.iter().map(|device| rest::cursor(device)).collect();
        assert_eq!((self.done.cycles, self.done.partitions), (self.plan.cycles, self.plan.partitions));
    }

    /// Lets a long storm go on until all that can become of messages became of one: where a machine is slow, few streams
    /// carry enough to be cut.
    fn wait_for_each_fate(&mut self) {
        let begun = Instant::now();
        while self.plan.cycles >= LONG_CYCLES {
            let never = self.fates_that_never_happened();
            if never.is_empty() {
                return;
            }
            assert!(begun.elapsed() < FATES_MOST, "{}: it never happened: {never:?}", self.plan);
            self.shared.note(&format!("waits for {never:?}"));
            // Who syncs anew opens a stream anew.
            let device = self.draw_device();
            self.kill_sync(&device);
            self.get_on();
            self.insist();
        }
    }

    /// Leaves everybody some time, on a slow machine more than on a fast one.
    fn get_on(&mut self) {
        let heard = |world: &Self| world.devices.iter().map(|device| rest::cursor(device)).sum::<u64>();
        let (before, begun) = (heard(self), Instant::now());
        self.pause(500);
        while heard(self) == before && begun.elapsed() < GET_ON_MOST {
            thread::sleep(Duration::from_millis(25));
        }
    }

    /// Kills somebody, perhaps while somebody else is stopped.
    fn cycle(&mut self) {
        if self.dice.below(3) == 0 {
            let stopped = self.dice.below(7);
            self.signal(stopped, true);
            self.pause(300);
            self.kill();
            self.pause(300);
            self.signal(stopped, false);
        } else {
            self.kill();
        }
        self.done.cycles += 1;
    }

    fn kill(&mut self) {
        let device = self.draw_device();
        match self.dice.below(100) {
            0..28 => self.kill_server_or_database(),
            28..38 => self.kill_all(),
            38..65 => self.kill_writer(&device),
            _ => self.kill_sync(&device),
        }
    }

    fn kill_server_or_database(&mut self) {
        match self.server.backend.clone() {
            Backend::Database(database) if self.dice.below(2) == 0 => {
                self.shared.note("kill database");
                database.crash();
                self.done.databases += 1;
                self.shared.note("database is back");
            }
            _ => self.kill_server(),
        }
    }

    fn kill_server(&mut self) {
        self.shared.note("kill server");
        assert!(self.server.kill(), "the server ended before it was killed");
        self.done.servers += 1;
        self.pause(150);
        self.server.start_again();
        self.shared.note("server is back");
    }

    fn kill_sync(&mut self, device: &Arc<Device>) {
        self.shared.note(&format!("kill sync of {}", device.name));
        assert!(device.kill_sync(), "sync --watch of {} ended before it was killed", device.name);
        self.done.syncs += 1;
        self.pause(150);
        device.start_sync(&self.shared.logs);
    }

    fn kill_writer(&mut self, device: &Arc<Device>) {
        let begun = Instant::now();
        while !device.kill_writer() {
            if begun.elapsed() > WRITER_MOST {
                // Nobody writes, because somebody else is stopped who holds the file.
                return self.kill_sync(device);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.shared.note(&format!("killed writer of {}", device.name));
        self.done.writers += 1;
    }

    /// Everybody at once, as when the lights go out.
    fn kill_all(&mut self) {
        self.shared.note("kill all");
        for device in &self.devices {
            self.done.writers += u64::from(device.kill_writer());
            assert!(device.kill_sync(), "sync --watch of {} ended before it was killed", device.name);
            self.done.syncs += 1;
        }
        assert!(self.server.kill(), "the server ended before it was killed");
        self.done.servers += 1;
        self.pause(150);
        for device in &self.devices {
            device.start_sync(&self.shared.logs);
        }
        self.server.start_again();
        self.shared.note("all are back");
    }

    /// Stops the server, something that syncs or a writer, or lets it go on: whoever is there by then.
    fn signal(&mut self, who: u64, stops: bool) {
        let signal = |process: &mut crate::process::Process| if stops { process.stop() } else { process.go_on() };
        self.shared.note(&format!("{} {who}", if stops { "stop" } else { "go on" }));
        self.done.stops += u64::from(stops);
        match who {
            0 => signal(self.server.process()),
            1..4 => self.devices[who as usize - 1].sync.lock().unwrap().iter_mut().for_each(signal),
            _ => self.devices[who as usize - 4].writer.lock().unwrap().iter_mut().for_each(signal),
        }
    }

    /// Cuts a device off, or two, until both sides got on without each other.
    fn partition(&mut self, is_killed: bool) {
        let first = self.dice.below(3) as usize;
        let count = if self.dice.below(4) == 0 { 2 } else { 1 };
        let (off, on): (Vec<_>, Vec<_>) = (0..3).map(|n| (n, &self.devices[(first + n) % 3])).partition(|(n, _)| *n < count);
        let of =
            |side: Vec<(usize, &Arc<Device>)>| side.into_iter().map(|(_, device)| Arc::clone(device)).collect::<Vec<_>>();
        let (off, on) = (of(off), of(on));
        let cut = [Cut::Reset, Cut::Silent, Cut::OneWay][self.dice.below(3) as usize];
        let names: Vec<&str> = off.iter().map(|device| device.name.as_str()).collect();
        self.shared.note(&format!("cut off {names:?}: {cut:?}"));
        let before: Vec<usize> = off.iter().map(|device| device.ledger.count()).collect();
        let logged = self.accepted_of(&on);
        off.iter().for_each(|device| device.link.cut(Some(cut)));
        if is_killed {
            self.pause(200);
            self.cycle();
        }
        let begun = Instant::now();
        loop {
            let offline = off.iter().zip(&before).all(|(device, before)| device.ledger.count() >= before + OFFLINE);
            let online = self.accepted_of(&on) > logged;
            if offline && online {
                break;
            }
            assert!(
                begun.elapsed() < PARTITION_MOST,
                "{}: in a partition ({cut:?}) without {names:?} one side stood still: offline went on: {offline}, online: {online}",
                self.plan
            );
            self.insist();
            thread::sleep(Duration::from_millis(25));
        }
        self.pause(500);
        off.iter().for_each(|device| device.link.cut(None));
        self.shared.note(&format!("healed {names:?}"));
        self.done.partitions += 1;
    }

    /// How many groups of these devices are in the log.
    fn accepted_of(&self, devices: &[Arc<Device>]) -> u64 {
        let connection = self.server.backend.look(&["groups"]);
        let sql = "SELECT count(*) FROM groups WHERE seq IS NOT NULL AND group_id LIKE '%:' || ?1 || '%:%'";
        devices.iter().map(|device| connection.query_row(sql, [&device.name], |row| row.get::<_, u64>(0)).unwrap()).sum()
    }

    fn draw_device(&mut self) -> Arc<Device> {
        Arc::clone(&self.devices[self.dice.below(3) as usize])
    }

    /// Waits a drawn while.
    fn pause(&mut self, most_ms: u64) {
        thread::sleep(Duration::from_millis(self.dice.below(most_ms)));
    }
}
