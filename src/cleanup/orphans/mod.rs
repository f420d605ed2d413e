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
pub use quarantine::put_back;

use crate::backup::place::Ways;
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

/// Paths and what is to be said of them: the first by name, all of them counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// The first of them.
    pub named: Vec<(String, String)>,
    /// How many there are.
    pub total: u64,
}

impl Told {
    fn add(&mut self, path: &str, why: impl Into<String>) {
        self.total += 1;
        if self.named.len() < NAMED {
            self.named.push((path.to_owned(), why.into()));
        }
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

/// Carries a plan out. `batch` is its id, `rows_file` a new file for rows that go.
///
/// # Errors
/// Interrupted. Target: the database failed. Refused: the plan was. What is done by then is done; the next run goes on.
pub fn carry_out(
    plan: Plan,
    batch: &str,
    rows_file: &Path,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    confirmed: &Confirmed,
) -> Outcome<Swept> {
    let begun = Instant::now();
    if let Some(failure) = &plan.refused {
        return Err(failure.clone());
    }
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
    quarantine::empty(&mut swept, store, ways, work, confirmed)?;
    quarantine::fill(&mut swept, store, ways, work, confirmed)?;
    if swept.plan.rows.values().any(|rows| *rows > 0) {
        rows(&mut swept, rows_file, store, work)?;
    }
    swept.took = begun.elapsed();
    Ok(swept)
}

/// Removes rows without a parent, each when it is on the disk elsewhere.
fn rows(swept: &mut Swept, path: &Path, store: &mut dyn Purge, work: &Work<'_>) -> Outcome<()> {
    let failed = |e: std::io::Error| {
        Failure::target(format!("the rows that go cannot be kept in {}: {e}", shown(path)))
            .hint("--state-dir DIR names another folder; those rows are still in the database")
    };
    let mut file = private(path).map_err(failed)?;
    let kept = store.remove_parentless(
        &mut |table, rows| {
            for row in rows {
                writeln!(file, "{{\"table\":{},\"row\":{row}}}", serde_json::Value::from(table)).map_err(failed)?;
            }
            file.sync_data().map_err(failed)
        },
        work.cancel,
    );
    swept.rows_file = Some(path.to_owned());
    swept.rows = kept?;
    Ok(())
}

/// A new file that only its owner reads.
fn private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
