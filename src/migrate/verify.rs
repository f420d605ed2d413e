//! `migrate verify`: are two stores equal, table by table and cell by cell.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::address::StoreAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::amend::Amended;
use crate::engine::compare::{TableComparison, compare};
use crate::engine::copy::Work;
use crate::migrate::plan::{End, revision_words};
use crate::migrate::policy::{Policies, amendments};
use crate::source::{OpenStore, Opening};

/// What an operator asked for.
pub struct Request {
    /// The id of this run.
    pub id: String,
    /// One store.
    pub source: StoreAddress,
    /// The other.
    pub target: StoreAddress,
    /// Where private copies go.
    pub work_dir: PathBuf,
    /// Tables that MLflow does not own and that are to be compared as well.
    pub include: Vec<String>,
    /// What was changed on the way from the one to the other: ids and addresses.
    pub policies: Policies,
}

/// Two stores side by side.
#[derive(Debug, Clone)]
pub struct Compared {
    /// One store.
    pub source: End,
    /// The other.
    pub target: End,
    /// The revision of both.
    pub revision: String,
    /// Revision ids with their lines.
    pub revisions: Vec<(String, String)>,
    /// The verdict on each table.
    pub tables: Vec<TableComparison>,
    /// Tables of either store that were not compared, because MLflow does not own them.
    pub left_out: Vec<String>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Compared {
    /// Whether every table is equal to the cell.
    pub fn equal(&self) -> bool {
        self.tables.iter().all(TableComparison::equal)
    }
}

/// Compares two stores.
///
/// # Errors
/// Source or target: it could not be read. Differs: they are not of one revision, so their tables cannot be put side
/// by side.
pub fn verify(request: &Request, work: &Work<'_>) -> Outcome<Compared> {
    let begun = Instant::now();
    let opening = Opening { work_dir: &request.work_dir, id: &request.id, cancel: work.cancel, events: work.events };
    let mut source = OpenStore::open(&request.source, &request.include, &opening)?;
    let target = OpenStore::open(&request.target, &request.include, &opening).map_err(Failure::as_target)?;
    if source.identity.revision_ids() != target.identity.revision_ids() {
        return Err(Failure::differs(format!(
            "the stores are of different revisions: {} is {}, {} is {}",
            source.address,
            source.identity.revision_text(),
            target.address,
            target.identity.revision_text()
        ))
        .hint("one of them was upgraded (a newer MLflow server does that on its start): compare before the upgrade"));
    }
    source.check(work.cancel)?;
    let amendments = amendments(&source, &request.policies)?;
    source.source = Arc::new(Amended::new(source.source.clone(), amendments));
    target.check(work.cancel).map_err(Failure::as_target)?;
    let shapes: Vec<Shape> = source.source.shapes().to_vec();
    let tables = compare(source.source.as_ref(), target.source.as_ref(), &shapes, work)?;
    let mut left_out: Vec<String> = source.identity.foreign.iter().chain(&target.identity.foreign).cloned().collect();
    left_out.retain(|t| !request.include.contains(t));
    left_out.sort();
    left_out.dedup();
    let end = |store: &OpenStore| End {
        address: store.address.clone(),
        engine: store.engine,
        version: store.version.clone(),
        bytes: Some(store.bytes),
    };
    Ok(Compared {
        source: end(&source),
        target: end(&target),
        revision: source.identity.revision_text(),
        revisions: revision_words(&source),
        tables,
        left_out,
        notes: source.notes.iter().chain(&target.notes).cloned().collect(),
        took: begun.elapsed(),
    })
}
