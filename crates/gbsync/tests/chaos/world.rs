//! A world: a server, devices, links, and those who watch over them.

use crate::database::Database;
pub use crate::device::Device;
use crate::fate::{Fate, SPOILING};
use crate::link::Link;
use crate::server::{Backend, Station};
use crate::shop::{Dice, Shop};
use crate::{books, deeds, rest, storm, verdict, writer};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const DEVICES: [&str; 3] = ["a", "b", "c"];
/// Kills of a world in which operations must have been refused, and each thing that spoils a message must have happened.
pub const LONG_CYCLES: u64 = 40;
/// What the shop's schema lacks: a record of which there are many in one operation.
const COUNTS: &str = "
[entities.counts]
fields.take = { type = \"text\", required = true }
fields.records = { type = \"integer\", required = true }
fields.note = \"text\"
";

/// What a world is to go through.
pub struct Plan {
    pub has_schema: bool,
    pub is_on_postgresql: bool,
    pub seed: u64,
    pub cycles: u64,
    pub partitions: u64,
}

impl Plan {
    pub fn name(&self) -> &'static str {
        match (self.is_on_postgresql, self.has_schema) {
            (true, _) => "chaos_on_postgresql",
            (false, true) => "chaos_with_a_schema",
            (false, false) => "chaos_without_a_schema",
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, cycles, partitions, .. } = self;
        write!(f, "{}: GBSYNC_CHAOS_SEED={seed}, {cycles} kills, {partitions} partitions", self.name())
    }
}

/// What all threads of a world share.
pub struct Shared {
    pub has_schema: bool,
    pub logs: PathBuf,
    /// How often everything was looked at.
    pub looks: AtomicU64,
    is_over: AtomicBool,
    has_ended: AtomicBool,
    failure: Mutex<Option<String>>,
    events: Mutex<File>,
    begun: Instant,
}

impl Shared {
    /// Whether nobody is to write any more.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Notes why the world failed; the first reason counts.
    pub fn fail(&self, why: &str) {
        self.note(&format!("FAILED: {why}"));
        self.failure.lock().unwrap().get_or_insert(why.to_owned());
    }

    /// Notes what happens, for whoever reads the logs of a failure.
    pub fn note(&self, what: &str) {
        let ms = self.begun.elapsed().as_millis();
        writeln!(self.events.lock().unwrap(), "{ms:>7} {} {what}", clock()).unwrap();
    }
}

/// The time as the logs of the processes have it.
pub fn clock() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let s = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}Z", s / 3600, s / 60 % 60, s % 60, since.subsec_millis())
}

pub struct World {
    pub plan: Plan,
    pub shop: Shop,
    pub shared: Arc<Shared>,
    pub server: Station,
    pub devices: Vec<Arc<Device>>,
    pub dice: Dice,
    /// What was done to it.
    pub done: storm::Done,
    threads: Vec<JoinHandle<()>>,
    _runtime: tokio::runtime::Runtime,
}

/// Lets a world go through its plan; panics when it fails.
pub fn run(plan: Plan) -> String {
    let mut world = World::open(plan);
    world.storm();
    let healed = Instant::now();
    world.end_writers();
    rest::reach(&mut world);
    let rest = healed.elapsed();
    let operations = verdict::judge(&mut world);
    world.report(rest, &operations)
}

impl World {
    /// Server and devices that know what is on the shelf.
    fn open(plan: Plan) -> Self {
        let shop = Shop::new();
        let logs = shop.path("logs");
        std::fs::create_dir(&logs).unwrap();
        let schema = plan.has_schema.then(|| with_schema(&shop));
        let schema = schema.as_deref();
        let backend = match plan.is_on_postgresql {
            true => Backend::Database(Arc::new(Database::start())),
            false => Backend::Folder(shop.data()),
        };
        let server = Station::start(backend, schema, &logs);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut dice = Dice(plan.seed.wrapping_mul(2).wrapping_add(plan.has_schema.into()));
        let device = |(name, dice)| {
            let link = Link::start(runtime.handle(), server.address, dice, &logs.join(format!("{name}-link.log")));
            Arc::new(Device::new(&shop, &server.backend, name, link, schema))
        };
        let devices: Vec<_> = DEVICES.into_iter().map(|name| (name, Dice(dice.next()))).map(device).collect();
        shop.apply("a.db", &deeds::shelf());
        for name in DEVICES {
            shop.run(&["sync", &format!("{name}.db")]).done();
        }
        let shared = Arc::new(Shared {
            has_schema: plan.has_schema,
            events: Mutex::new(File::create(logs.join("chaos.log")).unwrap()),
            logs,
            looks: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            failure: Mutex::new(None),
            begun: Instant::now(),
        });
        let (done, threads) = (storm::Done::default(), Vec::new());
        let mut world = Self { plan, shop, shared, server, devices, dice, done, threads, _runtime: runtime };
        world.populate();
        world
    }

    /// Starts what syncs, writes and looks.
    fn populate(&mut self) {
        for device in &self.devices {
            device.start_sync(&self.shared.logs);
            device.link.calm(false);
            let (shared, device, dice) = (Arc::clone(&self.shared), Arc::clone(device), Dice(self.dice.next()));
            self.threads.push(thread::spawn(move || writer::run(&shared, &device, dice)));
        }
        let (shared, devices) = (Arc::clone(&self.shared), self.devices.clone());
        let backend = self.server.backend.clone();
        self.threads.push(thread::spawn(move || books::watch(&shared, &devices, &backend)));
    }

    /// Panics when somebody found something wrong, or when a process ended that nobody killed.
    #[track_caller]
    pub fn insist(&mut self) {
        if self.threads.iter().any(|thread| thread.is_finished()) && !self.shared.is_over() {
            self.shared.fail("a writer, or who looks, has ended");
        }
        if let Some(status) = self.server.process().ended() {
            self.shared.fail(&format!("the server ended: {status}"));
        }
        for device in &self.devices {
            let ended = device.sync.lock().unwrap().as_mut().and_then(|process| process.ended());
            if let Some(status) = ended {
                self.shared.fail(&format!("sync --watch of {} ended: {status}", device.name));
            }
        }
        let failure = self.shared.failure.lock().unwrap().clone();
        if let Some(failure) = failure {
            panic!("{}: {failure}", self.plan);
        }
    }

    /// Lets the writers finish what they are at.
    fn end_writers(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for writer in self.threads.drain(..DEVICES.len()) {
            writer.join().unwrap();
        }
        self.insist();
    }

    /// Ends whoever looks.
    pub fn end_looks(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        for looker in self.threads.drain(..) {
            looker.join().unwrap();
        }
        self.insist();
    }

    /// How many messages of all devices had which fate.
    fn fates(&self) -> BTreeMap<Fate, u64> {
        let mut fates: BTreeMap<Fate, u64> = BTreeMap::new();
        for device in &self.devices {
            device.link.fates().into_iter().for_each(|(fate, count)| *fates.entry(fate).or_default() += count);
        }
        fates
    }

    pub fn fates_that_never_happened(&self) -> Vec<Fate> {
        let fates = self.fates();
        SPOILING.into_iter().chain([Fate::StreamCut]).filter(|fate| !fates.contains_key(fate)).collect()
    }

    fn report(&self, rest: Duration, operations: &verdict::Operations) -> String {
        let fates = self.fates();
        let messages: u64 = fates.iter().filter(|(fate, _)| **fate != Fate::StreamCut).map(|(_, count)| count).sum();
        let spoiled: u64 = SPOILING.iter().filter_map(|fate| fates.get(fate)).sum();
        let verdict::Operations { acknowledged, accepted, parked } = operations;
        format!(
            "{}: ok, {:.1} s\n  {}\n  {messages} messages, {spoiled} spoiled {fates:?}\n  {acknowledged} operations acknowledged: \
             {accepted} accepted, {parked} parked; everything looked at {} times; at rest {:.1} s after the storm",
            self.plan.name(),
            self.shared.begun.elapsed().as_secs_f64(),
            self.done,
            self.shared.looks.load(Ordering::Relaxed),
            rest.as_secs_f64(),
        )
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.shared.has_ended.store(true, Ordering::Relaxed);
        if thread::panicking() || std::env::var_os("GBSYNC_CHAOS_KEEP").is_some() {
            self.shop.folder.disable_cleanup(true);
            let ended = if thread::panicking() { "failed" } else { "ended" };
            println!("{} {ended}; all files and logs are kept in {}", self.plan, self.shop.folder.path().display());
        }
        for device in &self.devices {
            device.kill_writer();
        }
        for thread in self.threads.drain(..) {
            // What it panicked of is on standard error by now.
            let _ = thread.join();
        }
    }
}

/// The shop's schema, with what is counted.
fn with_schema(shop: &Shop) -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop/gbsync.toml");
    shop.write("gbsync.toml", &(std::fs::read_to_string(example).unwrap() + COUNTS));
    shop.path("gbsync.toml")
}
