//! A SQLite file: what its outside says, and one private copy for all that must be read.

use std::path::Path;
use std::time::Instant;

use super::{Asker, CONNECT, Seen, bytes, identity, of_failure};
use crate::doctor::{self, Depth};
use crate::domain::address::shown;
use crate::domain::catalogue::Catalogue;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::health::{Reading, Status, Unit};
use crate::engine::event::Silent;
use crate::store::sqlite::introspect;
use crate::store::sqlite::monitor::{self, Vitals};
use crate::store::sqlite::outline::outline;
use crate::store::sqlite::snapshot::Snapshot;

/// Above this, what reads every page is for `--deep`: a copy of the file, and `quick_check`. A cron job that copies
/// more than that every few minutes would be a burden of its own.
const WHOLE: u64 = 64 << 20;
/// Up to this the doctor looks at the rows as well: half a second.
const ROWS: u64 = 32 << 20;

pub(super) fn ask(asker: &Asker, path: &Path) {
    if asker.wants("database.path") {
        asker.tell(place(path));
    }
    let all = asker.patience(asker.question.deadline.saturating_duration_since(Instant::now()));
    asker.begin("database.connect", CONNECT.min(all));
    let vitals = match monitor::vitals(path) {
        Ok(vitals) => vitals,
        Err(failure) => return asker.tell(refused(path, failure)),
    };
    // The lock is waited for, and the bytes are copied.
    asker.begin("database.connect", all);
    let copy = copy(asker, path, &vitals);
    match &copy {
        Err(failure) if failure.kind == Kind::Source => asker.tell(refused(path, failure.clone())),
        Err(failure) => {
            let reading = Reading::unknown("database.connect", format!("not opened: {failure}"));
            asker.tell(of_failure(reading, failure.clone()));
        }
        Ok(_) => asker.tell(Reading::ok("database.connect", format!("opened {}", shown(path)))),
    }
    sizes(asker, &vitals);
    match copy {
        Ok(copy) => contents(asker, path, &copy, &vitals),
        // Nothing is wrong with the file itself.
        Err(failure) if failure.kind != Kind::Source => {
            for id in ["database.integrity", "database.revision", "database.schema"] {
                let reading = Reading::unknown(id, format!("not read: {failure}"));
                asker.tell(of_failure(reading, failure.clone()));
            }
        }
        Err(_) => {}
    }
}

/// A private copy of the file, or where that is too much, of its schema.
fn copy(asker: &Asker, path: &Path, vitals: &Vitals) -> Outcome<Snapshot> {
    let work_dir = &asker.question.work_dir;
    if !whole(asker, vitals)
        && let Some(outline) = outline(path, work_dir)?
    {
        return Ok(outline);
    }
    Snapshot::take(path, work_dir, &asker.cancel, &Silent)
}

/// What comes from `source_failure` and the snapshot as a reading of `database.connect`.
fn refused(path: &Path, failure: Failure) -> Reading {
    let words = failure.message.replace(&shown(path), "");
    let cause = [
        ("there is no such file", "the file was moved or deleted, or the path is relative to another folder"),
        ("is empty", "MLflow's first start was cut, or something made the file anew"),
        ("ermission denied", "this user may not read the file or go into its folder"),
        ("stayed locked", "a long write, or a program that died with its transaction open in another process"),
        ("not a SQLite database", "another program wrote over it, or the address is wrong"),
        ("malformed", "pages of the file are damaged"),
    ];
    let found = cause.iter().find(|(known, _)| words.contains(known)).map(|(_, cause)| *cause);
    let reading = of_failure(Reading::critical("database.connect", failure.message.clone()), failure);
    match found {
        Some(cause) => reading.cause(cause),
        None => reading,
    }
}

fn place(path: &Path) -> Reading {
    const ID: &str = "database.path";
    if path.is_relative() {
        return Reading::warning(ID, format!("{} is relative to the folder a program is started in", shown(path)))
            .cause("a server that is started elsewhere makes a new, empty database there")
            .hint("give the whole path, with four slashes: sqlite:////srv/mlflow/mlflow.db");
    }
    match monitor::fleeting(path) {
        Some(why) => Reading::warning(ID, format!("{}: {why}", shown(path)))
            .cause("a restart of the machine, or a clean-up by age, may remove the database")
            .hint("stop the server, move the file to a disk that keeps it, and change --backend-store-uri"),
        None => Reading::ok(ID, shown(path)),
    }
}

fn sizes(asker: &Asker, vitals: &Vitals) {
    let all = vitals.bytes + vitals.wal;
    let mut summary = bytes(all);
    if vitals.wal > 0 {
        summary.push_str(&format!(", {} of it in the -wal", bytes(vitals.wal)));
    }
    asker.tell(asker.measured("database.size", all as f64, Unit::Bytes, summary));
    let mode = if vitals.wal_mode { "wal" } else { "rollback journal" };
    asker.tell(Reading::ok("database.journal-mode", mode));
}

fn whole(asker: &Asker, vitals: &Vitals) -> bool {
    asker.question.deep || vitals.bytes <= WHOLE
}

fn contents(asker: &Asker, path: &Path, copy: &Snapshot, vitals: &Vitals) {
    let all = asker.patience(asker.question.deadline.saturating_duration_since(Instant::now()));
    let mut damaged = false;
    if asker.wants("database.integrity") {
        if whole(asker, vitals) {
            asker.begin("database.integrity", all);
            let reading = integrity(copy.check(&asker.cancel));
            damaged = reading.status == Status::Critical;
            asker.tell(reading);
        } else {
            let why = format!("quick_check reads all of a file: above {} with --deep only", bytes(WHOLE));
            asker.leave("database.integrity", why);
        }
    }
    asker.begin("database.revision", all);
    let seen = Catalogue::embedded().and_then(|c| Ok(identity::revision(&introspect::observe(copy)?, c)));
    let (reading, revision) = seen.unwrap_or_else(|failure| {
        (of_failure(Reading::critical("database.revision", failure.message.clone()), failure), None)
    });
    // What a damaged file says of itself is no finding of its own.
    let on = |reading: Reading| if damaged { reading.needs("database.integrity") } else { reading };
    // A revision before MLflow 2 has no creation time: then there is nothing to compare.
    let experiments = monitor::experiments(copy).unwrap_or_default();
    asker.knows(Seen { revision, experiments, ..Seen::default() });
    asker.tell(on(reading));
    if asker.wants("database.schema") {
        asker.begin("database.schema", all);
        let depth = if asker.question.deep || vitals.bytes <= ROWS { Depth::Rows } else { Depth::Structure };
        let reading = match doctor::examine_snapshot(copy, path, depth) {
            Ok(diagnosis) => identity::schema(asker, &diagnosis, depth),
            Err(failure) => identity::no_schema(failure),
        };
        asker.tell(on(reading));
    }
}

fn integrity(checked: Outcome<()>) -> Reading {
    const ID: &str = "database.integrity";
    match checked {
        Ok(()) => Reading::ok(ID, "quick_check finds no damage"),
        Err(failure) if failure.kind == Kind::Source => {
            of_failure(Reading::critical(ID, failure.message.clone()), failure)
                .cause("a disk that lost writes, a copy taken of a file in use, or two machines on one network folder")
        }
        Err(failure) => of_failure(Reading::unknown(ID, failure.message.clone()), failure),
    }
}
