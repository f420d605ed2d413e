//! The execution of a migration's plan.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::archive::about::About;
use crate::archive::manifest::TableRecord;
use crate::archive::output::Destination as Output;
use crate::archive::reader::ArchiveSource;
use crate::archive::writer::{ArchiveSink, Options};
use crate::domain::consent::{Confirmed, Consent};
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::table::Shape;
use crate::engine::RowSource;
use crate::engine::compare::{self, TableComparison, What};
use crate::engine::copy::{Work, copy, count, digest};
use crate::engine::event::Event;
use crate::migrate::outcome::{Migrated, MigratedTable};
use crate::migrate::pipeline::{Loaded, Pipeline};
use crate::migrate::plan::{Destination, Existing, Plan, Prepared};
use crate::migrate::survey::{Taker, refusal, survey, zeros_note};
use crate::newfile::NewFile;
use crate::source::OpenStore;
use crate::store::postgres::connect::Postgres;
use crate::store::postgres::source::PgSource;
use crate::store::postgres::stage::{Stage, recheck};
use crate::store::postgres::target;
use crate::store::sqlite::occupied;
use crate::store::sqlite::rules;
use crate::store::sqlite::sink::SqliteSink;
use crate::store::sqlite::source::SqliteSource;

/// Asks for consent where the plan changes what exists. A migration into an empty target asks nothing.
///
/// # Errors
/// Refused.
pub fn consent(plan: &Plan, consent: &Consent<'_>) -> Outcome<Option<Confirmed>> {
    match &plan.existing {
        Existing::MovedTo(aside, _) if plan.target.engine == "SQLite" => consent
            .to(&format!("put a new file in the place of {}, which is then found as {aside}", plan.target.address))
            .map(Some),
        Existing::MovedTo(schema, tables) => consent
            .to(&format!("move {tables} tables with data in {} to the schema {schema}", plan.target.address))
            .map(Some),
        Existing::Nothing | Existing::FreshServer(_) => Ok(None),
    }
}

/// Phases with their durations.
struct Clock {
    begun: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn new(begun: Instant) -> Self {
        let mut clock = Clock { begun, last: begun, phases: Vec::new() };
        clock.lap("preflight");
        clock
    }

    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        tracing::info!(phase = name, took = ?(now - self.last), "done");
        self.phases.push((name, now - self.last));
        self.last = now;
    }
}

/// Does what the plan says. `begun` is when the work began, preflight included.
///
/// # Errors
/// Source, Target, Differs, Locked, Interrupted - and then the target is as it was, or the message says otherwise.
pub fn execute(
    prepared: Prepared,
    confirmed: Option<&Confirmed>,
    begun: Instant,
    work: &Work<'_>,
) -> Outcome<Migrated> {
    let clock = Clock::new(begun);
    prepared.fits()?;
    let Prepared { plan, store, shapes, destination, aside, stream, findings: _ } = prepared;
    let (taker, engine) = (destination.taker(), plan.target.engine);
    // An archive takes every value: there is nothing to look for.
    let surveyed = plan.applied.surveyed || taker == Taker::Archive;
    let outcome = match destination {
        Destination::Archive(path) => {
            let to = match stream {
                Some(stream) => Output::Stream(stream, "standard output".to_owned()),
                None => Output::File(path),
            };
            to_archive(plan, &store, &shapes, to, clock, work)
        }
        Destination::Sqlite(path) => to_sqlite(plan, &store, &shapes, (&path, confirmed), aside, clock, work),
        Destination::Postgres { postgres, seen, place } => {
            let seen = (&seen, &place);
            to_postgres(plan, &store, &shapes, &postgres, seen, confirmed, aside, clock, work)
        }
    };
    let outcome = work.cancel.explain(outcome);
    match outcome {
        // A value that does not fit, or a broken key: say all of them at once, not only the first.
        Err(failure) if failure.kind == Kind::Source && !surveyed => {
            store.check(work.cancel)?;
            let findings = survey(&store, &shapes, taker, work)?.findings;
            if findings.is_empty() { Err(failure) } else { Err(refusal(&store.address, engine, &findings)) }
        }
        other => other,
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a prepared migration, taken apart once")]
fn to_postgres(
    plan: Plan,
    store: &OpenStore,
    shapes: &[Shape],
    postgres: &Arc<Postgres>,
    (seen, place): (&target::Target, &target::Place),
    confirmed: Option<&Confirmed>,
    aside: Option<NewFile>,
    mut clock: Clock,
    work: &Work<'_>,
) -> Outcome<Migrated> {
    let mut warnings = plan.notes.clone();
    let mut main = target::connect_locked(postgres, &seen.schema, work.cancel)?;
    // Another run may have published while this one waited for the lock: better known before the work than after it.
    recheck(&mut main, seen, place, confirmed.is_some())?;
    for stage in target::drop_abandoned(&mut main, work.cancel)? {
        warnings.push(format!("removed the stage {stage}, which an earlier run that did not finish had left"));
    }
    let foreign = store.foreign(shapes);
    let tables = &store.identity.tables;
    let stage = Stage::create(postgres, main, &plan.id, tables, &foreign, work.jobs)?;
    let rows: Vec<u64> = plan.tables.iter().map(|(_, rows)| *rows).collect();
    let post = Stage::post_data(tables, &foreign);
    let verify = plan.verify;
    let pipeline = Pipeline { store, stage: &stage, postgres, shapes, rows: &rows, post: &post, verify, work };
    let Loaded { sources, targets } = pipeline.run()?;
    store.prove(&sources)?;
    clock.lap(if verify { "copy, indexes and verification" } else { "copy and indexes" });
    if let Some(targets) = &targets {
        let back = PgSource::of_stage(postgres.clone(), stage.name(), shapes.to_vec());
        equal(store.source.as_ref(), &back, shapes, (&sources, targets), work)?;
    }
    stage.finish(tables, &post, &plan.applied.taken, work)?;
    clock.lap("keys");
    work.cancel.check()?;
    work.events.event(Event::Phase { name: "publishing", total: None, unit: "" });
    let keep_in = match &plan.existing {
        Existing::MovedTo(schema, _) => {
            let confirmed =
                confirmed.ok_or_else(|| Failure::internal("tables would be moved aside without consent"))?;
            Some((schema.as_str(), confirmed))
        }
        Existing::Nothing | Existing::FreshServer(_) => None,
    };
    // Rows that are put aside are safe before the others are seen.
    with_rows_aside(aside, || stage.publish(seen, place, tables, &foreign, keep_in))?;
    clock.lap("publishing");
    warnings.extend(outdated(store, &plan));
    Ok(migrated(plan, shapes, &sources, targets.as_deref(), clock, warnings))
}

fn to_archive(
    mut plan: Plan,
    store: &OpenStore,
    shapes: &[Shape],
    to: Output,
    mut clock: Clock,
    work: &Work<'_>,
) -> Outcome<Migrated> {
    store.check(work.cancel)?;
    let about = About {
        tool: crate::TOOL.to_owned(),
        started: plan.started.clone(),
        engine: store.engine.to_owned(),
        version: store.version.clone(),
        revisions: store.identity.revisions.iter().map(|r| (r.line, r.id.clone())).collect(),
        tables: store.identity.tables.clone(),
        shapes: shapes.to_vec(),
        sqlite_ddl: store.sqlite_ddl()?,
    };
    let rows: Vec<u64> = plan.tables.iter().map(|(_, rows)| *rows).collect();
    let sink = ArchiveSink::create(to, &about, &rows, Options { compression: plan.compression })?;
    work.events.event(Event::Phase { name: "copying rows", total: Some(plan.rows()), unit: "rows" });
    // What PostgreSQL's rules say of the rows is looked at beside the copying.
    let (sources, broken) = std::thread::scope(|scope| {
        let broken = scope.spawn(|| broken_rules(store, shapes));
        let sources = copy(store.source.as_ref(), &sink, shapes, &rows, work);
        (sources, broken.join())
    });
    let sources = sources?;
    let broken = broken.map_err(|_| Failure::internal("the look at the rows' rules ended early"))??;
    store.prove(&sources)?;
    let written = sink.finish(&sources)?;
    plan.target.bytes = Some(written.bytes);
    clock.lap("copy");
    let mut targets = None;
    if let (true, Some(file)) = (plan.verify, sink.path()) {
        let back = ArchiveSource::open(file, work.cancel).map_err(|f| Failure { kind: Kind::Target, ..f })?;
        targets = Some(verify(store.source.as_ref(), &back, shapes, &sources, work)?);
        clock.lap("verification");
    }
    work.cancel.check()?;
    sink.publish()?;
    clock.lap("publishing");
    let mut warnings = plan.notes.clone();
    warnings.extend(outdated(store, &plan));
    warnings.extend(written.tables.iter().flat_map(unfit));
    warnings.extend(broken);
    Ok(migrated(plan, shapes, &sources, targets.as_deref(), clock, warnings))
}

/// Rows of a SQLite file that break what PostgreSQL enforces, in words.
fn broken_rules(store: &OpenStore, shapes: &[Shape]) -> Outcome<Vec<String>> {
    let Some(snapshot) = &store.snapshot else { return Ok(Vec::new()) };
    let broken = rules::broken(snapshot, &store.identity.tables, shapes, 1)?;
    let words = broken.into_iter().map(|b| {
        format!(
            "a row of `{}` {} ({} rows; first: {}): it is in the archive as it is, but restore.sql stops at it, and an \
             import into PostgreSQL needs --bad-rows quarantine",
            b.table,
            b.what,
            b.rows,
            b.first.join("")
        )
    });
    Ok(words.collect())
}

/// What of an archived table PostgreSQL does not take as it is.
fn unfit(table: &TableRecord) -> Vec<String> {
    let mut warnings = Vec::new();
    if table.unfit > 0 {
        warnings.push(format!(
            "{} values of `{}` are in the archive as they are, but PostgreSQL cannot hold them: restore.sql stops at them; \
             `migrate import --dry-run` into PostgreSQL names them and the policy that each needs",
            table.unfit, table.name
        ));
    }
    warnings.extend(table.widened.iter().map(|wide| {
        format!(
            "`{}.{}` holds text of {} characters where MLflow's PostgreSQL schema takes {}: restore.sql makes the column \
             {}, an import into PostgreSQL needs --widen",
            table.name,
            wide.column,
            wide.longest,
            wide.limit,
            wide.postgres_type()
        )
    }));
    warnings
}

fn to_sqlite(
    plan: Plan,
    store: &OpenStore,
    shapes: &[Shape],
    (path, confirmed): (&Path, Option<&Confirmed>),
    aside: Option<NewFile>,
    mut clock: Clock,
    work: &Work<'_>,
) -> Outcome<Migrated> {
    store.check(work.cancel)?;
    let tables = &store.identity.tables;
    let foreign = store.foreign(shapes);
    let sink = match &plan.existing {
        Existing::MovedTo(..) => {
            let confirmed = confirmed.ok_or_else(|| Failure::internal("a file would be replaced without consent"))?;
            SqliteSink::replacing(path, &occupied::aside(path, &plan.id), tables, &foreign, confirmed)?
        }
        Existing::Nothing | Existing::FreshServer(_) => SqliteSink::create(path, tables, &foreign)?,
    };
    let rows: Vec<u64> = plan.tables.iter().map(|(_, rows)| *rows).collect();
    work.events.event(Event::Phase { name: "copying rows", total: Some(plan.rows()), unit: "rows" });
    let sources = copy(store.source.as_ref(), &sink, shapes, &rows, work)?;
    store.prove(&sources)?;
    clock.lap("copy");
    sink.finish_schema(tables)?;
    clock.lap("indexes and keys");
    let mut targets = None;
    if plan.verify {
        let back = SqliteSource::new(sink.path().to_owned(), path.to_owned(), shapes.to_vec());
        targets = Some(verify(store.source.as_ref(), &back, shapes, &sources, work)?);
        clock.lap("verification");
    }
    work.cancel.check()?;
    let zeros = if plan.applied.surveyed { None } else { zeros_note(sink.negative_zeros()) };
    with_rows_aside(aside, || sink.publish())?;
    clock.lap("publishing");
    let mut warnings = plan.notes.clone();
    warnings.extend(zeros);
    warnings.extend(outdated(store, &plan));
    Ok(migrated(plan, shapes, &sources, targets.as_deref(), clock, warnings))
}

/// Publishes the rows that are put aside, then the others; if these cannot be, the former go away again.
fn with_rows_aside(aside: Option<NewFile>, publish: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let path = aside.as_ref().map(|file| file.target().to_owned());
    aside.map_or(Ok(()), NewFile::publish)?;
    publish().inspect_err(|_| {
        if let Some(path) = path {
            let _ = std::fs::remove_file(path);
        }
    })
}

/// A word on a source that was written to after its copy was taken.
fn outdated(store: &OpenStore, plan: &Plan) -> Option<String> {
    store.snapshot.as_ref().filter(|s| s.is_outdated() && plan.target.engine != "archive").map(|_| {
        format!(
            "{} was written to after its copy was taken; what was written since is not in the target: stop the server on \
             it and migrate once more (--replace)",
            store.address
        )
    })
}

/// Reads the target back and compares it with what was read from the source.
fn verify(
    source: &dyn RowSource,
    target: &dyn RowSource,
    shapes: &[Shape],
    sources: &[TableDigest],
    work: &Work<'_>,
) -> Outcome<Vec<TableDigest>> {
    let total = sources.iter().map(|d| d.rows).sum();
    work.events.event(Event::Phase { name: "verifying", total: Some(total), unit: "rows" });
    let stored = count(target, shapes, work).map_err(Failure::as_target)?;
    let targets = digest(target, shapes, &stored, work).map_err(Failure::as_target)?;
    equal(source, target, shapes, (sources, &targets), work)?;
    Ok(targets)
}

/// Are the digests of both sides equal? If not, names what differs.
fn equal(
    source: &dyn RowSource,
    target: &dyn RowSource,
    shapes: &[Shape],
    (sources, targets): (&[TableDigest], &[TableDigest]),
    work: &Work<'_>,
) -> Outcome<()> {
    if targets == sources {
        return Ok(());
    }
    let verdicts = compare::verdicts(source, target, shapes, sources, targets, work)?;
    Err(Failure::differs(format!(
        "the target does not hold what the source holds, so nothing was published:{}",
        verdicts.iter().filter(|v| !v.equal()).map(difference_lines).collect::<String>()
    ))
    .hint("this must not happen: please report it with this message"))
}

/// The differences of one table, each on a line of its own.
pub fn difference_lines(verdict: &TableComparison) -> String {
    let mut lines = format!(
        "\n  {}: {} rows against {}, {}{} differ",
        verdict.table,
        verdict.source.rows,
        verdict.target.rows,
        if verdict.counted_all { "" } else { "at least " },
        verdict.differing_rows
    );
    for difference in &verdict.differences {
        let key: Vec<String> = difference.key.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let what = match &difference.what {
            What::Missing => "only in the source".to_owned(),
            What::Extra => "only in the target".to_owned(),
            What::Changed(cells) => cells
                .iter()
                .map(|c| format!("{}: {} in the source, {} in the target", c.column, c.source, c.target))
                .collect::<Vec<_>>()
                .join("; "),
        };
        lines.push_str(&format!("\n    {}: {what}", key.join(", ")));
    }
    lines
}

fn migrated(
    plan: Plan,
    shapes: &[Shape],
    sources: &[TableDigest],
    targets: Option<&[TableDigest]>,
    clock: Clock,
    warnings: Vec<String>,
) -> Migrated {
    let tables = shapes.iter().zip(sources).enumerate().map(|(i, (shape, source))| MigratedTable {
        name: shape.name.clone(),
        source: *source,
        target: targets.and_then(|t| t.get(i)).copied(),
    });
    Migrated {
        tables: tables.collect(),
        verified: plan.verify,
        plan,
        took: clock.begun.elapsed(),
        phases: clock.phases,
        warnings,
    }
}
