//! Where `initdb` and `postgres` are.

use std::path::PathBuf;

/// The folder with both; of several versions in the system's folder the newest.
pub(crate) fn folder() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    let of_system = versions.into_iter().map(|(_, folder)| folder);
    let has_both = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    in_path.into_iter().chain(of_system).chain([PathBuf::from("/usr/local/bin")]).find(has_both)
}
