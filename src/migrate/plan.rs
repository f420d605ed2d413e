//! The plan of a migration: what is there, what will be done, and that it may be done.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::layout::Compression;
use crate::domain::address::{PgAddress, StoreAddress, shown};
use crate::domain::catalogue::Catalogue;
use crate::domain::ddl;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::table::Shape;
use crate::engine::copy::{Work, count};
use crate::migrate::policy::{self, Applied, Policies};
use crate::migrate::survey::{Finding, Taker, refusal};
use crate::newfile::NewFile;
use crate::source::{OpenStore, Opening};
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::target::{self, Contents, Place, REPLACED, Target};
use crate::store::sqlite::occupied;

/// What an operator asked for.
#[derive(Clone)]
pub struct Request {
    /// The id of this run, which names its stage.
    pub id: String,
    /// When it began, RFC 3339 in UTC.
    pub started: String,
    /// Where rows come from.
    pub source: StoreAddress,
    /// Where they go.
    pub target: StoreAddress,
    /// Where a private copy of the source goes.
    pub work_dir: PathBuf,
    /// Tables that MLflow does not own and that are to be copied as well.
    pub include: Vec<String>,
    /// Whether tables with data in the target may be moved aside.
    pub replace: bool,
    /// Whether the target is read back and compared before it is published.
    pub verify: bool,
    /// What may be done about rows that do not fit, ids and addresses.
    pub policies: Policies,
    /// How an archive is compressed.
    pub compression: Compression,
    /// Whether the whole source is looked at for what does not fit, also without a policy. Else that comes to light, all
    /// of it, when a value is met that does not fit.
    pub survey: bool,
}

/// What will be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The id of the run.
    pub id: String,
    /// The source.
    pub source: End,
    /// The target.
    pub target: End,
    /// `acf3f17fdcc7 (MLflow 2.8.0 to 2.12.2)`
    pub revision: String,
    /// Revision ids with their lines: `tracking acf3f17fdcc7`.
    pub revisions: Vec<(String, String)>,
    /// Tables and their rows.
    pub tables: Vec<(String, u64)>,
    /// Tables that stay behind.
    pub left_out: Vec<String>,
    /// What happens to what is in the target already, for people.
    pub existing: Existing,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// Whether the target is verified before it is published.
    pub verify: bool,
    /// The role that will own the tables, for PostgreSQL.
    pub owner: Option<String>,
    /// What the policies came to.
    pub applied: Applied,
    /// When the run began, RFC 3339 in UTC.
    pub started: String,
    /// How an archive is compressed.
    pub compression: Compression,
}

impl Plan {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, rows)| rows).sum()
    }
}

/// One end of a migration.
#[derive(Debug, Clone)]
pub struct End {
    /// Masked address.
    pub address: String,
    /// `SQLite` or `PostgreSQL`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// Bytes of the database, for a source.
    pub bytes: Option<u64>,
}

/// What is in the target already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Nothing,
    /// A fresh server's empty tables, which are replaced.
    FreshServer(usize),
    /// Tables with data, which are moved to this schema; for SQLite the whole file, which is kept under this name.
    MovedTo(String, usize),
}

/// A plan with everything opened that its execution needs.
pub struct Prepared {
    /// The plan.
    pub plan: Plan,
    /// The source, as of one moment.
    pub store: OpenStore,
    /// The shapes that are copied.
    pub shapes: Vec<Shape>,
    /// The target.
    pub destination: Destination,
    /// What keeps the plan from being carried out: all that the target cannot hold and no policy takes care of.
    pub findings: Vec<Finding>,
    /// The rows that are put aside, written but without a name.
    pub aside: Option<NewFile>,
    /// Where an archive goes that is streamed.
    pub stream: Option<Box<dyn Write + Send>>,
}

impl Prepared {
    /// Does everything fit the target, or is it taken care of?
    ///
    /// # Errors
    /// Source: no, with every finding.
    pub fn fits(&self) -> Outcome<()> {
        if self.findings.is_empty() {
            Ok(())
        } else {
            Err(refusal(&self.store.address, self.plan.target.engine, &self.findings))
        }
    }
}

/// The target of a plan.
pub enum Destination {
    /// A PostgreSQL database.
    Postgres {
        /// Connections to it.
        postgres: Arc<Postgres>,
        /// As it was seen.
        seen: Target,
        /// Where the tables will be put.
        place: Place,
    },
    /// A SQLite file: one that does not exist yet, or one that is replaced.
    Sqlite(PathBuf),
    /// An archive that does not exist yet; `-` is standard output.
    Archive(PathBuf),
}

impl Destination {
    /// By whose rules rows are judged.
    pub fn taker(&self) -> Taker {
        match self {
            Destination::Postgres { .. } => Taker::Postgres,
            Destination::Sqlite(_) => Taker::Sqlite,
            Destination::Archive(_) => Taker::Archive,
        }
    }
}

/// Looks at both ends and makes the plan. Changes nothing.
///
/// # Errors
/// Source: unfit. Target: unreachable, not permitted. Refused: it holds data.
pub fn prepare(request: &Request, work: &Work<'_>) -> Outcome<Prepared> {
    let opening = Opening { work_dir: &request.work_dir, id: &request.id, cancel: work.cancel, events: work.events };
    let mut store = OpenStore::open(&request.source, &request.include, &opening)?;
    let mut shapes = store.source.shapes().to_vec();
    let mut plan = Plan {
        id: request.id.clone(),
        source: End {
            address: store.address.clone(),
            engine: store.engine,
            version: store.version.clone(),
            bytes: Some(store.bytes),
        },
        target: End {
            address: request.target.to_string(),
            engine: "SQLite",
            version: rusqlite::version().to_owned(),
            bytes: None,
        },
        revision: store.identity.revision_text(),
        revisions: revision_words(&store),
        tables: Vec::new(),
        left_out: left_out(&store, &request.include),
        existing: Existing::Nothing,
        notes: store.notes.clone(),
        verify: request.verify,
        owner: None,
        applied: Applied::default(),
        started: request.started.clone(),
        compression: request.compression,
    };
    let destination = match &request.target {
        StoreAddress::Sqlite(path) => {
            plan.existing = sqlite_existing(request, path)?;
            Destination::Sqlite(path.clone())
        }
        StoreAddress::Archive(path) => {
            plan.target.engine = "archive";
            plan.target.version = format!("format {}", crate::archive::layout::FORMAT);
            // What goes into a pipe cannot be read back; whoever takes it out checks it.
            plan.verify &= path.as_os_str() != "-";
            if path.as_os_str() != "-" {
                NewFile::create(path, 0o600)?;
            }
            Destination::Archive(path.clone())
        }
        StoreAddress::Postgres(address) => postgres_destination(request, address, &store, &mut plan, work)?,
    };
    let (mut findings, mut aside) = (Vec::new(), None);
    if request.survey || request.policies.any() {
        let outcomes =
            policy::apply(&mut store, &mut shapes, &request.policies, destination.taker(), &request.work_dir, work)?;
        plan.notes.extend(outcomes.notes);
        plan.applied = outcomes.applied;
        (findings, aside) = (outcomes.findings, outcomes.aside);
    }
    let rows = count(store.source.as_ref(), &shapes, work)?;
    plan.tables = shapes.iter().map(|s| s.name.clone()).zip(rows).collect();
    Ok(Prepared { plan, store, shapes, destination, findings, aside, stream: None })
}

/// The revisions of a store in words for documents: line and id.
pub fn revision_words(store: &OpenStore) -> Vec<(String, String)> {
    store.identity.revisions.iter().map(|r| (r.line.word().to_owned(), r.id.clone())).collect()
}

/// What is in the place of a SQLite file, where it may be replaced.
fn sqlite_existing(request: &Request, path: &Path) -> Outcome<Existing> {
    if !request.replace || path.symlink_metadata().is_err() {
        // Made and thrown away again: whether the name is free and the folder takes a file.
        NewFile::create(path, 0o600).map_err(|failure| match failure.kind {
            Kind::Refused => failure.hint(
                "name a file that does not exist yet, or give --replace: the file is then kept beside the new one",
            ),
            _ => failure,
        })?;
        occupied::unused(path)?;
        return Ok(Existing::Nothing);
    }
    let tables = match occupied::in_the_way(path)? {
        occupied::Existing::Nothing => return Ok(Existing::Nothing),
        occupied::Existing::Fresh(tables) | occupied::Existing::Data(tables, _) => tables,
        occupied::Existing::Other(what) => {
            return Err(Failure::refused(format!("what is there is no MLflow store and is not replaced: {what}"))
                .hint("move it away by hand, or name another file"));
        }
    };
    NewFile::succeeding(path)?;
    Ok(Existing::MovedTo(shown(&occupied::aside(path, &request.id)), tables))
}

fn left_out(store: &OpenStore, include: &[String]) -> Vec<String> {
    let identity = &store.identity;
    let tables = identity.foreign.iter().filter(|t| !include.contains(t)).map(|t| format!("table {t}"));
    let versions = identity.foreign_versions.iter().map(|(table, value)| format!("row {value} of {table}"));
    tables.chain(versions).chain(identity.others.iter().cloned()).collect()
}

fn postgres_destination(
    request: &Request,
    address: &PgAddress,
    store: &OpenStore,
    plan: &mut Plan,
    work: &Work<'_>,
) -> Outcome<Destination> {
    let postgres = Postgres::new(address, &request.id, work.cancel)?;
    let mut client = postgres.connect()?;
    let place = place(store, &request.include)?;
    let seen = target::look(&mut client, &place)?;
    // Tables and indexes take about what the file has, and until the next checkpoint the log takes as much again.
    target::check_room(&mut client, store.room.saturating_mul(2))?;
    if seen.lost_grants {
        plan.notes.push(
            "the tables that are replaced have grants or owners that the new ones will not have: grant them again"
                .to_owned(),
        );
    }
    plan.owner = Some(seen.owner.clone());
    plan.target.engine = "PostgreSQL";
    plan.target.version = format!("{}.{}", seen.version / 10_000, seen.version % 10_000);
    plan.existing = match &seen.contents {
        Contents::Empty => Existing::Nothing,
        Contents::Fresh(tables) => Existing::FreshServer(tables.len()),
        Contents::Data(tables, _) if request.replace => {
            Existing::MovedTo(format!("{REPLACED}{}", request.id.to_ascii_lowercase()), tables.len())
        }
        Contents::Foreign(what) => {
            return Err(Failure::refused(format!(
                "in the target {} there is something in MLflow's place that is no MLflow store of this kind ({what})",
                postgres.address()
            ))
            .hint("give a database, or with ?options=-csearch_path%3DNAME a schema, of its own"));
        }
        Contents::Data(_, what) => {
            return Err(Failure::refused(format!(
                "the target {} holds MLflow's data already ({what})",
                postgres.address()
            ))
            .hint("give an empty database, or --replace to move those tables aside into a schema mlops_replaced_*, where they stay until you drop them"));
        }
    };
    Ok(Destination::Postgres { postgres: Arc::new(postgres), seen, place })
}

/// The place in the target that the store's tables take.
fn place(store: &OpenStore, include: &[String]) -> Outcome<Place> {
    let catalogue = Catalogue::embedded()?;
    let identity = &store.identity;
    let mut tables: BTreeSet<String> = include.iter().cloned().collect();
    tables.extend(identity.tables.iter().map(|t| t.name.clone()));
    // Any table that the line has ever had would disturb MLflow there, not only those of this revision.
    for revision in &identity.revisions {
        tables.extend(catalogue.table_names(revision.line).into_iter().map(str::to_owned));
    }
    let mut objects: BTreeSet<String> =
        ddl::post_data(&identity.tables).indexes.into_iter().map(|index| index.makes).collect();
    let columns = identity.tables.iter().flat_map(|t| &t.columns);
    objects.extend(columns.filter_map(|c| Some(c.sequence.as_ref()?.name().to_owned())));
    Ok(Place { lines: identity.revisions.iter().map(|r| r.line).collect(), tables, objects })
}
