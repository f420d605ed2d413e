//! `mlops cleanup orphans`: what no row refers to goes into quarantine first and is removed by a later run, if there is
//! still no row for it; rows without those that they belong to are kept in a file and removed; rows whose files are gone
//! are told.

mod plan;
mod quarantine;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use plan::{Batch, Plan, Request, plan};
pub use quarantine::{PutBack, put_back};

use crate::backup::place::Ways;
use crate::cleanup::list::Told;
use crate::domain::address::shown;
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::Work;
use crate::engine::purge::{Counts, Purge};

/// What is named of a list.
const NAMED: usize = 1_000;

/// Places, and what is in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Places: of runs, logged models, traces.
    pub places: u64,
    /// Files in them.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, files: u64, bytes: u64) {
        self.places += 1;
        self.files += files;
        self.bytes += bytes;
    }
}

/// What became of a plan.
pub struct Swept {
    /// The plan.
    pub plan: Plan,
    /// The batch that was put into quarantine.
    pub batch: String,
    /// What was put into quarantine.
    pub aside: Sum,
    /// What came back from there, since there is a row for it.
    pub back: Sum,
    /// What was in quarantine and is gone.
    pub removed: Sum,
    /// Rows that are gone, by table.
    pub rows: Counts,
    /// Where these rows are kept.
    pub rows_file: Option<PathBuf>,
    /// What could not be done.
    pub failures: Told,
    /// How long it took.
    pub took: Duration,
}

/// Carries a plan out. `batch` is its id, `rows_file` a new file for rows that go. Gives what it came to also where it ended
/// early: interrupted, or the database or the file failed. The next run goes on.
pub fn carry_out(
    plan: Plan,
    batch: &str,
    rows_file: &Path,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    confirmed: &Confirmed,
) -> (Swept, Outcome<()>) {
    let begun = Instant::now();
    let mut swept = Swept {
        plan,
        batch: batch.to_owned(),
        aside: Sum::default(),
        back: Sum::default(),
        removed: Sum::default(),
        rows: Counts::new(),
        rows_file: None,
        failures: Told::default(),
        took: Duration::ZERO,
    };
    let ended = sweep(&mut swept, rows_file, store, ways, work, confirmed);
    swept.took = begun.elapsed();
    (swept, ended)
}

fn sweep(
    swept: &mut Swept,
    rows_file: &Path,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    confirmed: &Confirmed,
) -> Outcome<()> {
    if let Some(failure) = &swept.plan.refused {
        return Err(failure.clone());
    }
    // Where rows cannot be kept, nothing is begun.
    let file = if swept.plan.rows.is_empty() { None } else { Some(private(rows_file)?) };
    quarantine::empty(swept, store, ways, work, confirmed)?;
    quarantine::fill(swept, store, ways, work, confirmed)?;
    match file {
        Some(file) => rows(swept, rows_file, file, store, work),
        None => Ok(()),
    }
}

fn unkept(path: &Path, error: &std::io::Error) -> Failure {
    Failure::target(format!("the rows that go cannot be kept in {}: {error}", shown(path)))
        .hint("--state-dir DIR names another folder; what was not kept is still in the database")
}

/// Removes rows without a parent, each when it is on the disk elsewhere.
fn rows(swept: &mut Swept, path: &Path, mut file: File, store: &mut dyn Purge, work: &Work<'_>) -> Outcome<()> {
    let failed = |e: std::io::Error| unkept(path, &e);
    let Swept { rows, failures, rows_file, .. } = swept;
    let done = store.remove_parentless(
        &mut |table, gone| {
            for row in gone {
                writeln!(file, "{{\"table\":{},\"row\":{row}}}", serde_json::Value::from(table)).map_err(failed)?;
            }
            file.sync_data().map_err(failed)?;
            *rows_file = Some(path.to_owned());
            *rows.entry(table.to_owned()).or_default() += gone.len() as u64;
            Ok(())
        },
        work.cancel,
    );
    let (removed, stays) = done?;
    *rows = removed;
    for (table, why) in stays {
        failures.add(&format!("rows of {table}"), why);
    }
    Ok(())
}

/// A new file that only its owner reads.
fn private(path: &Path) -> Outcome<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let file = made.and_then(|()| File::options().write(true).create_new(true).mode(0o600).open(path));
    file.map_err(|e| unkept(path, &e))
}
