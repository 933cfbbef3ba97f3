//! Loss of power: a scripted run of devices and a server on the noting disk, and then every image that a crash can leave.
//!
//! Each place of the journal is crashed in four ways: everything unsynced lost, a prefix of it kept, any subset kept, and
//! a subset with torn sectors. Each image is opened by the real code and held against what the people in front of the devices
//! had been told by then. Every so many device images sync with the server that went on, and must end equal to it.

mod device;
mod script;
mod server;

use crate::disk::{self, Images, Loss};
use crate::random::Random;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use script::Course;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

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
    /// Every so many device images one is synced with the server
    #[arg(long, default_value_t = 25)]
    sync_every: u64,
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
    failures: Vec<String>,
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
    for failure in &tally.failures {
        println!("FAILED {failure}");
    }
    println!(
        "{} images opened, {} synced afterwards, {} failed, in {:.1} s",
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
    let arguments = Arguments { images, first_seed: seed, seed: Some(seed), image: None, plant: None, sync_every: 25 };
    let mut tally = Tally::default();
    sweep(seed, &arguments, &mut tally, &ProgressBar::hidden())?;
    Ok(tally.failures)
}

/// One run and all its images.
fn sweep(seed: u64, arguments: &Arguments, tally: &mut Tally, progress: &ProgressBar) -> Result<()> {
    let course = Course::run(seed, arguments.plant).with_context(|| format!("seed {seed}: the run itself failed"))?;
    let mut number = 0;
    for (file, folder) in [("device", course.device_folder()), ("server", course.server_folder())] {
        let journal = course.journal.below(&folder);
        let mut images = Images::of(&journal);
        progress.set_message(format!("seed {seed}, {file}, {} places", images.len()));
        while let Some(is_change) = images.step() {
            if !is_change {
                continue;
            }
            for loss in Loss::ALL {
                number += 1;
                if arguments.image.is_some_and(|image| image != number) {
                    continue;
                }
                if tally.images >= arguments.images && arguments.image.is_none() {
                    return Ok(());
                }
                let mut random = Random::of(seed ^ (number << 20));
                let to = tempfile::Builder::new().prefix("gbsync-image-").tempdir_in(course.scratch())?;
                images.write(loss, &mut random, &folder, to.path())?;
                let must_sync = file == "device" && number.is_multiple_of(arguments.sync_every);
                let checked = check(file, &course, to.path(), images.told(), must_sync);
                disk::forget(to.path());
                tally.images += 1;
                tally.synced += u64::from(must_sync);
                *tally.by_kind.entry((file, name(loss))).or_default() += 1;
                progress.inc(1);
                if let Err(error) = checked {
                    let kept = arguments.image.is_some().then(|| to.keep());
                    let kept = kept.map_or_else(String::new, |path| format!("; files in {}", path.display()));
                    let loss = name(loss);
                    tally.failures.push(format!("seed {seed}, image {number} ({file}, {loss}): {error:#}{kept}"));
                }
            }
        }
    }
    course.end()
}

fn check(file: &str, course: &Course, folder: &Path, told: &[&disk::Mark], must_sync: bool) -> Result<()> {
    match file {
        "device" => device::check(course, folder, told, must_sync),
        _ => server::check(course, folder, told),
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
