//! An archive of just what a purge removes, written before anything goes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::plan::{PAGE, Plan};
use crate::domain::address::StoreAddress;
use crate::domain::cleanup::belongings::Root;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::Work;
use crate::migrate::execute::execute;
use crate::migrate::part;
use crate::migrate::plan::{Request, prepare};
use crate::store::scratch::Scratch;
use crate::store::sqlite::cut::Cut;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The archive.
    pub file: PathBuf,
    /// Its rows.
    pub rows: u64,
}

/// Writes the archive: a private copy of the store is cut down to what goes and what that refers to. `request` names
/// the store and the new file.
///
/// # Errors
/// As those of an export; Target: no room for the copy.
pub fn write(plan: &Plan, request: Request, work: &Work<'_>) -> Outcome<Kept> {
    let StoreAddress::Archive(file) = request.target.clone() else {
        return Err(Failure::internal("what is kept goes into an archive"));
    };
    // Rows of PostgreSQL's go into a private file first.
    let scratch = match &request.source {
        StoreAddress::Postgres(_) => Some(Scratch::new("mlops-purge-", &request.work_dir)?),
        _ => None,
    };
    let request = match &scratch {
        Some(folder) => Request { source: copy(&request, folder.path(), work)?, ..request },
        None => request,
    };
    let mut prepared = prepare(&request, work)?;
    part::cut(&mut prepared, work, |snapshot, tables, shapes| {
        let cut = Cut::open(snapshot, tables)?;
        for (kind, _) in &plan.things {
            let mut after = 0;
            loop {
                work.cancel.check()?;
                let page = plan.docket.entries(*kind, after, PAGE)?;
                let Some(last) = page.last() else { break };
                after = last.number;
                let ids: Vec<String> = page.into_iter().map(|entry| entry.id).collect();
                cut.keep(*kind, &ids)?;
            }
        }
        cut.close(shapes)
    })?;
    let written = execute(prepared, None, Instant::now(), work)?;
    let known = plan.things.iter().filter(|(kind, _)| *kind == Root::Run);
    let wanted: u64 = known.map(|(_, count)| count).sum();
    let runs = written.tables.iter().find(|t| t.name == Root::Run.table()).map_or(0, |t| t.source.rows);
    if runs < wanted {
        return Err(Failure::differs(format!("{} holds {runs} of the {wanted} runs that are to go", request.target))
            .hint("somebody else removed runs at the same time; nothing was removed: run it again"));
    }
    Ok(Kept { file, rows: written.rows() })
}

fn copy(request: &Request, folder: &Path, work: &Work<'_>) -> Outcome<StoreAddress> {
    let target = StoreAddress::Sqlite(folder.join("copy.db"));
    let request = Request { target: target.clone(), verify: false, ..request.clone() };
    execute(prepare(&request, work)?, None, Instant::now(), work)?;
    Ok(target)
}
