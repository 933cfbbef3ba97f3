//! Loss of power: a scripted run of devices and a server on the noting disk, and then every image that a crash can leave.
//!
//! Each place of the journal is crashed in four ways: everything unsynced lost, a prefix of it kept, any subset kept, and
//! a subset with torn sectors. Each image is opened by the real code and held against what the people in front of the devices
//! had been told by then. Every so many device images come under the newest rules and sync with the server that went on, and must
//! end equal to it; every so many server images are started, which finishes what was half done.
//!
//! Images are numbered; which are opened, and what becomes of each, does not depend on how many are looked at at a time.

mod device;
mod log;
mod script;
mod server;
mod way;

use crate::disk::{self, Images, Loss};
use crate::random::Random;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use script::Course;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use way::Way;

/// Lose power at every write and sync of a scripted run, and open each image
#[derive(clap::Args)]
pub struct Arguments {
    /// Images to open, over as many seeds as they need
    #[arg(long, default_value_t = 2_000)]
    images: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// This image of the seed alone; its files are kept
    #[arg(long, requires = "seed")]
    image: Option<u64>,
    /// Break the engine on purpose, to see that the sweep finds it
    #[arg(long, value_name = "BUG")]
    plant: Option<Bug>,
    /// Every so many images one is synced with the server, or started if it is the server's
    #[arg(long, default_value_t = 25)]
    sync_every: u64,
    /// Images at a time; as many as there are cores when absent
    #[arg(long)]
    jobs: Option<u64>,
}

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bug {
    /// The device does not wait for the disk at COMMIT (`synchronous=NORMAL`).
    SynchronousNormal,
}

/// What became of the images.
#[derive(Default)]
struct Tally {
    images: u64,
    synced: u64,
    by_kind: BTreeMap<(&'static str, &'static str), u64>,
    /// By number of the image.
    failures: BTreeMap<(u64, u64), String>,
}

/// Runs the verb; `false` when an image broke a promise.
///
/// # Errors
/// When a run could not be made.
pub fn run(arguments: &Arguments) -> Result<bool> {
    disk::install();
    let started = Instant::now();
    let progress = ProgressBar::new(arguments.images)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} images {msg}")?);
    let mut tally = Tally::default();
    let mut seed = arguments.seed.unwrap_or(arguments.first_seed);
    while tally.images < arguments.images && tally.failures.len() < 5 {
        sweep(seed, arguments, &mut tally, &progress)?;
        seed += 1;
        if arguments.seed.is_some() {
            break;
        }
    }
    progress.finish_and_clear();
    for ((file, loss), images) in &tally.by_kind {
        println!("{file:<8} {loss:<8} {images:>8} images");
    }
    for failure in tally.failures.values() {
        println!("FAILED {failure}");
    }
    println!(
        "{} images opened, {} of them synced or started afterwards, {} failed, in {:.1} s",
        tally.images,
        tally.synced,
        tally.failures.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(tally.failures.is_empty())
}

/// The images of a seed that break a promise, of so many that are opened.
///
/// # Errors
/// When the run could not be made.
pub fn failures(seed: u64, images: u64) -> Result<Vec<String>> {
    disk::install();
    let (image, plant, jobs) = (None, None, Some(1));
    let arguments = Arguments { images, first_seed: seed, seed: Some(seed), image, plant, sync_every: 25, jobs };
    let mut tally = Tally::default();
    sweep(seed, &arguments, &mut tally, &ProgressBar::hidden())?;
    Ok(tally.failures.into_values().collect())
}

/// One run and all its images, some of them at a time.
fn sweep(seed: u64, arguments: &Arguments, tally: &mut Tally, progress: &ProgressBar) -> Result<()> {
    let course = Course::run(seed, arguments.plant).with_context(|| format!("seed {seed}: the run itself failed"))?;
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let jobs = arguments.jobs.unwrap_or_else(cores).max(1);
    let left = arguments.images - tally.images;
    let folders = [("device", course.way.device_folder()), ("server", course.way.server_folder())];
    let mut first = 1;
    for (file, folder) in &folders {
        let journal = course.journal.below(folder);
        let sweep = Sweep { seed, file, folder, journal: &journal, way: &course.way, arguments, first, left, progress };
        let parts: Vec<Result<Tally>> = std::thread::scope(|scope| {
            let sweep = &sweep;
            let workers: Vec<_> = (0..jobs).map(|job| scope.spawn(move || sweep.part(job, jobs))).collect();
            let failed = || Err(anyhow::anyhow!("whoever looked at images of seed {seed} panicked"));
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| failed())).collect()
        });
        for part in parts {
            tally.add(part?);
        }
        first += sweep.images();
    }
    course.end()
}

/// The images of one file of a run.
struct Sweep<'a> {
    seed: u64,
    file: &'static str,
    folder: &'a Path,
    journal: &'a disk::Journal,
    way: &'a Way,
    arguments: &'a Arguments,
    /// The number of the first image.
    first: u64,
    /// How many images of the run are to be opened.
    left: u64,
    progress: &'a ProgressBar,
}

impl Sweep<'_> {
    /// How many images there are.
    fn images(&self) -> u64 {
        let mut images = Images::of(self.journal);
        let changes = std::iter::from_fn(|| images.step()).filter(|is_change| *is_change);
        (changes.count() * Loss::ALL.len()) as u64
    }

    /// Opens those images whose turn it is: one in `jobs`.
    fn part(&self, job: u64, jobs: u64) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut images = Images::of(self.journal);
        let mut number = self.first - 1;
        while let Some(is_change) = images.step() {
            for loss in Loss::ALL.into_iter().filter(|_| is_change) {
                number += 1;
                let is_asked = match self.arguments.image {
                    Some(image) => image == number,
                    None => number <= self.left,
                };
                if is_asked && number % jobs == job {
                    self.open(number, loss, &images, &mut tally)?;
                }
            }
        }
        Ok(tally)
    }

    fn open(&self, number: u64, loss: Loss, images: &Images<'_>, tally: &mut Tally) -> Result<()> {
        let Self { seed, file, way, .. } = *self;
        let mut random = Random::of(seed ^ (number << 20));
        let to = tempfile::Builder::new().prefix("gbsync-image-").tempdir_in(&way.folder)?;
        images.write(loss, &mut random, self.folder, to.path())?;
        let goes_on = number.is_multiple_of(self.arguments.sync_every);
        let checked = match file {
            "device" => device::check(way, to.path(), images.told(), goes_on),
            _ => server::check(way, to.path(), images.told(), goes_on),
        };
        disk::forget(to.path());
        tally.images += 1;
        tally.synced += u64::from(goes_on);
        *tally.by_kind.entry((file, name(loss))).or_default() += 1;
        self.progress.inc(1);
        if let Err(error) = checked {
            let kept = self.arguments.image.is_some().then(|| to.keep());
            let kept = kept.map_or_else(String::new, |path| format!("; files in {}", path.display()));
            let loss = name(loss);
            let failure = format!("seed {seed}, image {number} ({file}, {loss}): {error:#}{kept}");
            tally.failures.insert((seed, number), failure);
        }
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.synced += other.synced;
        for (kind, images) in other.by_kind {
            *self.by_kind.entry(kind).or_default() += images;
        }
        self.failures.extend(other.failures);
    }
}

fn name(loss: Loss) -> &'static str {
    match loss {
        Loss::All => "all",
        Loss::Prefix => "prefix",
        Loss::Subset => "subset",
        Loss::Torn => "torn",
        Loss::None => "none",
    }
}
