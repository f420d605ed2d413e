//! Who else has a file open.

use std::fs;
use std::path::Path;

/// Processes that have the file open, by number and name, as far as this user may see them (Linux: `/proc`).
pub fn users(path: &Path) -> Vec<(u32, String)> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let me = std::process::id();
    let mut found: Vec<(u32, String)> = processes
        .flatten()
        .filter_map(|entry| {
            let number: u32 = entry.file_name().to_str()?.parse().ok()?;
            let open = fs::read_dir(entry.path().join("fd")).ok()?;
            let has_it = open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path));
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            (has_it && number != me).then(|| (number, name.trim().to_owned()))
        })
        .collect();
    found.sort();
    found
}
