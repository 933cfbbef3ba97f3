//! Bugs that are planted on purpose, and which judge finds each: the proof of the proof.
//!
//! A bug is planted in a process of its own, because the engine has threads, and because a bug that hangs or ends the process
//! must not take the others along. It counts as found only when a promise's check says so: a panic or an error that names
//! no promise does not count. The same seeds of the same judges without any bug must pass.

mod hunt;
mod table;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum as _;
use gbsync_core::mutant::Mutant;
use hunt::{Found, Judge};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What to do with planted bugs.
#[derive(clap::Args)]
#[group(id = "planted")]
pub struct Arguments {
    /// Plant every bug in turn, and write into docs/proof.md which promise found it (a build with --features mutants)
    #[arg(long)]
    mutants: bool,
    /// Only say which bugs there are
    #[arg(long, requires = "mutants")]
    list: bool,
    /// Plant this bug alone, and print the trace of the world that finds it
    #[arg(long, value_name = "NAME", conflicts_with = "mutants")]
    mutant: Option<String>,
    /// Look with this judge; without one, a bug is looked for by its own, and no bug by all
    #[arg(long, requires = "mutant")]
    judge: Option<Judge>,
    /// Print one line for the process that started this one
    #[arg(long, hide = true, requires = "mutant")]
    report: bool,
    /// Seeds that a bug may take
    #[arg(long, default_value_t = 500)]
    mutant_seeds: u64,
}

/// The name under which nothing is planted.
const CONTROL: &str = "none";

impl Arguments {
    /// Whether this is about bugs at all.
    pub fn is_asked(&self) -> bool {
        self.mutants || self.mutant.is_some()
    }
}

/// Runs what was asked; `false` when a bug escaped, or a promise was broken without any.
///
/// # Errors
/// When no bug can be planted, or a process cannot be started.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for mutant in Mutant::ALL {
            println!("{:<34} {}", mutant.name(), mutant.bug());
        }
        return Ok(true);
    }
    ensure!(cfg!(feature = "mutants"), "this build cannot plant bugs; build it with --features mutants");
    match &arguments.mutant {
        Some(name) => one(name, arguments),
        None => all(arguments.mutant_seeds),
    }
}

/// Hunts one bug in this process.
fn one(name: &str, arguments: &Arguments) -> Result<bool> {
    let mutant = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
    if mutant.is_none() && name != CONTROL {
        bail!("{name} is no bug; --mutants --list says which there are");
    }
    hunt::plant(mutant);
    let judges = match (arguments.judge, mutant) {
        (Some(judge), _) => vec![judge],
        (None, Some(mutant)) => vec![Judge::of(mutant)],
        (None, None) => Judge::value_variants().to_vec(),
    };
    let hunt = |judge| hunt::hunt(judge, mutant, arguments.mutant_seeds, !arguments.report).transpose();
    let ended = judges.into_iter().find_map(hunt).transpose()?;
    match &ended {
        Some(found) if arguments.report => println!("{}", found.line()),
        Some(found) => println!("{} {}: {}", found.judge.name(), found.seed, found.message),
        None => println!("{}", hunt::ESCAPED),
    }
    Ok(ended.is_some() == mutant.is_some())
}

/// Hunts every bug, as many at a time as the machine has cores, then runs the seeds that each judge needed without any.
fn all(seeds: u64) -> Result<bool> {
    let started = Instant::now();
    let progress = ProgressBar::new(Mutant::ALL.len() as u64)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos}/{len} bugs {msg}")?);
    let hunts: Vec<_> = Mutant::ALL.iter().map(|mutant| (*mutant, Judge::of(*mutant))).collect();
    let hunted = each(&hunts, |(mutant, judge)| {
        let found = in_own_process(mutant.name(), *judge, seeds)?;
        progress.suspend(|| println!("{}", table::line(*mutant, found.as_ref())));
        progress.inc(1);
        Ok((*mutant, found))
    })?;
    let hunted: BTreeMap<Mutant, Option<Found>> = hunted.into_iter().collect();
    let needed = needed(&hunted);
    let says: Vec<String> = needed.iter().map(|(judge, seeds)| format!("{seeds} of {}", judge.name())).collect();
    let says = says.join(", ");
    progress.set_message(format!("without a bug: {says}"));
    let control = each(&needed, |(judge, seeds)| in_own_process(CONTROL, *judge, *seeds))?;
    progress.finish_and_clear();
    let escaped = hunted.values().filter(|found| found.is_none()).count();
    for found in control.iter().flatten() {
        println!("FAILED without any bug: {} {}: {}", found.judge.name(), found.seed, found.message);
    }
    let has_passed = control.iter().all(Option::is_none);
    println!(
        "{} bugs, {escaped} escaped {seeds} seeds; seeds without a bug ({says}) {}, {:.0} s",
        hunted.len(),
        if has_passed { "passed" } else { "FAILED" },
        started.elapsed().as_secs_f64()
    );
    table::write(&hunted)?;
    Ok(escaped == 0 && has_passed)
}

/// How many seeds each judge needed that a bug was hunted with: so many must pass without any.
fn needed(hunted: &BTreeMap<Mutant, Option<Found>>) -> Vec<(Judge, u64)> {
    let mut needed = BTreeMap::new();
    for (mutant, found) in hunted {
        let seeds = needed.entry(Judge::of(*mutant)).or_insert(1);
        *seeds = found.as_ref().map_or(1, |found| found.seed).max(*seeds);
    }
    needed.into_iter().collect()
}

/// Does something for each, as many at a time as the machine has cores.
fn each<T: Sync, R: Send>(all: &[T], run: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<()> {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ran = run(one)?;
            done.lock().map_err(|_| anyhow::anyhow!("a hunter panicked"))?.push(ran);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let hunters: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        hunters.into_iter().try_for_each(|hunter| hunter.join().unwrap_or_else(|_| bail!("a hunter panicked")))
    })?;
    Ok(done.into_inner().unwrap_or_default())
}

/// Hunts a bug in a process of its own.
fn in_own_process(name: &str, judge: Judge, seeds: u64) -> Result<Option<Found>> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(["--mutant", name, "--judge", judge.name(), "--report", "--mutant-seeds", &seeds.to_string()]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("a process of its own")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let unread = || format!("{name}, {}: {text}", judge.name());
    Ok(if last == hunt::ESCAPED { None } else { Some(Found::read(last).with_context(unread)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    #[test]
    fn every_judge_that_looks_for_a_bug_must_pass_without_one() {
        let found = |judge, seed| Found { judge, seed, promise: "P4".into(), message: "P4: gone".into() };
        let seed_of = |mutant| if mutant == Mutant::SnapshotCursorWrong { 7 } else { 2 };
        let hunt = |mutant: &Mutant| (*mutant, Some(found(Judge::of(*mutant), seed_of(*mutant))));
        let needed = needed(&Mutant::ALL.iter().map(hunt).collect());
        let seeds = |judge: &Judge| (*judge, if *judge == Judge::Horizon { 7 } else { 2 });
        assert_eq!(needed, Judge::value_variants().iter().map(seeds).collect::<Vec<_>>());
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry of it").path();
            match path.is_dir() {
                true => sources(&path, found),
                false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
                false => {}
            }
        }
    }

    /// A condition with `is` is a constant without the feature. What is more than a condition says in its first line which bug it
    /// is, and stands in a file or behind an attribute that leaves it out.
    #[test]
    fn what_a_bug_needs_is_compiled_with_the_feature_alone() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/");
        let mut files = Vec::new();
        for name in ["gbsync-core", "gbsync-client", "gbsync-server"] {
            let source = crates.join(name).join("src");
            sources(&source, &mut files);
            let root = std::fs::read_to_string(source.join("lib.rs")).expect("lib.rs");
            assert!(
                !root.contains("mod planted;") || root.contains("#[cfg(feature = \"mutants\")]\nmod planted;"),
                "{name}"
            );
        }
        files.retain(|path| path.file_name().is_some_and(|name| name != "planted.rs"));
        let mut planted = 0;
        for path in files {
            let text = std::fs::read_to_string(&path).expect("a source");
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("/// [`Mutant::")) {
                let item = lines[at..].iter().find(|line| !line.starts_with("///"));
                assert_eq!(item, Some(&"#[cfg(feature = \"mutants\")]"), "{}:{}", path.display(), at + 1);
                planted += 1;
            }
        }
        assert!(planted > 0, "it looks where there is something");
    }
}
