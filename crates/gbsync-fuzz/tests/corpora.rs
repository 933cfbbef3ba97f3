//! The corpora, replayed and changed at random with a fixed seed: what the fuzzer found stays found.

use gbsync_fuzz::{Mutator, TARGETS, Target};
use std::path::{Path, PathBuf};

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let read = |file: PathBuf| (file.clone(), std::fs::read(file).expect("a file of the corpus"));
    files.into_iter().map(read).collect()
}

/// Looks at inputs, and keeps those that fail.
fn look(name: &str, inputs: impl Iterator<Item = (String, Vec<u8>)>) {
    let failed = inputs.filter(|(_, input)| std::panic::catch_unwind(|| target(name)(input)).is_err());
    let keep = |(what, input): (String, Vec<u8>)| {
        let file = std::env::temp_dir().join(format!("gbsync-fuzz-{name}-{}", what.rsplit('/').next().unwrap_or_default()));
        std::fs::write(&file, input).expect("room for the input");
        format!("{what}: the input is in {}", file.display())
    };
    let failed: Vec<String> = failed.map(keep).collect();
    assert!(failed.is_empty(), "{name}:\n{}", failed.join("\n"));
}

fn replay(name: &str) {
    let inputs = corpus(name);
    assert!(inputs.len() >= 10, "{name}: the corpus is gone");
    look(name, inputs.into_iter().map(|(file, input)| (file.display().to_string(), input)));
}

fn change(name: &str, runs: usize) {
    let inputs: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::of(4);
    look(name, (0..runs).map(|run| (format!("changed-{run}"), mutator.input(&inputs))));
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1
}

macro_rules! corpora {
    ($($name:ident: $runs:literal,)*) => {
        /// Each target has a corpus, and each of them is run.
        #[test]
        fn every_target_is_run() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }

        $(mod $name {
            #[test]
            fn what_was_found_stays_found() {
                super::replay(stringify!($name));
            }

            #[test]
            fn changed_inputs_do_no_harm() {
                super::change(stringify!($name), $runs);
            }
        })*
    };
}

corpora! {
    canonical_form: 20_000,
    push_body: 2_000,
    log_page: 400,
    live_frames: 5_000,
    token: 3_000,
    gzip_body: 2_000,
    schema_file: 500,
    operations_file: 500,
    outbox_rows: 200,
    snapshot_file: 300,
}
