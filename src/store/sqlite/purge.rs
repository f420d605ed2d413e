//! Removing deleted things from a live SQLite file, beside MLflow's own writers. SQLite has one lock for all who write,
//! so transactions are short, and between two of them the lock is given away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};

use super::snapshot::look_at_header;
use super::{Explain, introspect, lock, sqlite_text};
use crate::domain::address::shown;
use crate::domain::catalogue::Catalogue;
use crate::domain::cleanup::belongings::{Root, Step};
use crate::domain::ddl::quote;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity::{self, Identity};
use crate::engine::cancel::Cancel;
use crate::engine::purge::{Counts, Deleted, DeletedExperiment, Keep, Named, Purge, Removed, Selection, Version};
use crate::store::parentless::Sweep;
use crate::store::removal::{Dialect, Referrer, Statements};

/// How long this one waits for the lock. Others come first, but not for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows of the first transaction; after that, as many as go in the time that one may take.
const FIRST: u64 = 20_000;
/// The fewest and the most.
const ROWS: (u64, u64) = (5_000, 200_000);
/// The time that a transaction may take where nobody else is there.
const ALONE: Duration = Duration::from_millis(500);
/// The same where somebody writes.
const BESIDE: Duration = Duration::from_millis(150);
/// Rows without a parent in one transaction.
const CHUNK: usize = 2_000;
/// Roots in one transaction.
const MOST: usize = 1_000;
/// SQLite's own waiting looks at the lock at least every 100 ms (os `sqliteDefaultBusyCallback`): in so long a pause
/// every writer has its chance.
const PAUSE: Duration = Duration::from_millis(120);
/// The lock is held for so long in all before such a pause, where nobody was seen to write.
const STRETCH: Duration = Duration::from_secs(4);
/// Pages in memory, so that a transaction is written once: KiB.
const CACHE: i64 = 64 << 10;

/// How long another purge is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// A file that is purged.
pub struct SqlitePurge {
    connection: Connection,
    path: PathBuf,
    identity: Identity,
    statements: Statements,
    pace: Pace,
    /// Roots that the next transaction takes.
    size: usize,
    /// Closed after the connection: closing any descriptor of the file drops SQLite's locks of this process.
    _lock: Option<File>,
}

/// When the lock is given away.
struct Pace {
    /// Changes whenever another connection has written.
    version: i64,
    /// Somebody wrote.
    shared: bool,
    held: Duration,
    /// Rows that the next transaction takes.
    rows: u64,
}

impl Pace {
    /// Learns from a transaction that removed so many rows.
    fn learn(&mut self, rows: u64, took: Duration) {
        let wanted = if self.shared { BESIDE } else { ALONE };
        let fitting = rows as f64 * wanted.as_secs_f64() / took.as_secs_f64().max(0.001);
        let (least, most) = ROWS;
        // A small transaction is mostly its syncs, and says little of a bigger one.
        self.rows = (fitting as u64).clamp(self.rows / 4, self.rows * 2).clamp(least, most);
    }
}

impl SqlitePurge {
    /// Opens the file for changes and finds out what it is.
    ///
    /// # Errors
    /// Target: no such file, or no sound MLflow store.
    pub fn open(path: &Path, cancel: &Cancel) -> Outcome<SqlitePurge> {
        look_at_header(path).map_err(Failure::as_target)?;
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
            connection.execute_batch(&format!("PRAGMA cache_size = -{CACHE}; PRAGMA temp_store = MEMORY;"))?;
            Ok(connection)
        };
        let connection = open().of_target(path)?;
        let observed = introspect::look(&connection).of_target(path)?;
        let identity = identity::identify(&observed, Catalogue::embedded()?);
        let identity = identity.map_err(|f| f.as_target().on(shown(path)))?;
        let referrers = referrers(&connection, &identity).of_target(path)?;
        let statements = Statements::new(Dialect::Sqlite, &identity.tables, referrers);
        let interrupt = connection.get_interrupt_handle();
        cancel.on_cancel(move || interrupt.interrupt());
        let version = data_version(&connection).of_target(path)?;
        // The first pause comes at once: whoever waits shows himself.
        let pace = Pace { version, shared: false, held: STRETCH, rows: FIRST };
        Ok(SqlitePurge { connection, path: path.to_owned(), identity, statements, pace, size: 50, _lock: None })
    }

    fn each(&self, sql: &str, each: &mut dyn FnMut(&Row<'_>) -> Outcome<()>) -> Outcome<()> {
        let mut statement = self.connection.prepare(sql).of_target(&self.path)?;
        let mut rows = statement.query([]).of_target(&self.path)?;
        while let Some(row) = rows.next().of_target(&self.path)? {
            each(row)?;
        }
        Ok(())
    }

    /// Whether no more rows go with these roots than a transaction takes.
    fn fits(&self, plan: &Plan, ids: &str) -> rusqlite::Result<Option<u64>> {
        let most = self.pace.rows;
        let mut rows = 0;
        for (table, condition) in &plan.conditions {
            let left = most.saturating_sub(rows) + 1;
            let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT {left})");
            rows += self.connection.prepare_cached(&sql)?.query_row([ids], |row| row.get::<_, i64>(0))?.unsigned_abs();
            if rows > most {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    /// One transaction.
    /// Removes those of the rows that are still without a parent, when `keep` has them.
    fn sweep(&mut self, sweep: &Sweep, rows: &[i64], keep: &mut Keep<'_>) -> Outcome<u64> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = transaction.of_target(&self.path)?;
        let rows = serde_json::Value::from(rows).to_string();
        let remove = || -> rusqlite::Result<Vec<String>> {
            transaction.prepare_cached(&sweep.remove)?.query_map([rows], |row| row.get(0))?.collect()
        };
        let gone = remove().of_target(&self.path)?;
        if !gone.is_empty() {
            keep(&sweep.table, &gone)?;
        }
        transaction.commit().of_target(&self.path)?;
        Ok(gone.len() as u64)
    }

    fn transaction(&mut self, plan: &Plan, ids: &[String]) -> rusqlite::Result<(Removed, Duration)> {
        let mut removed = Removed::default();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let begun = Instant::now();
        removed.gone = {
            let mut statement = transaction.prepare_cached(&plan.still)?;
            statement.query_map([list(ids)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        if removed.gone.len() < ids.len() {
            removed.spared = ids.iter().filter(|id| !removed.gone.contains(id)).cloned().collect();
        }
        let mut serving = Vec::new();
        if !removed.gone.is_empty() {
            let gone = list(&removed.gone);
            serving = serve(&transaction, plan, removed.gone.len())?;
            for (step, sql) in &plan.steps {
                let rows = transaction.prepare_cached(sql)?.execute([&gone])? as u64;
                let counts = if step.clears.is_some() { &mut removed.cleared } else { &mut removed.rows };
                if rows > 0 {
                    *counts.entry(step.table.clone()).or_default() += rows;
                }
            }
        }
        for index in serving {
            transaction.execute_batch(&format!("DROP INDEX {index}"))?;
        }
        // The commit may wait for readers to end, which says nothing of how much was done.
        let took = begun.elapsed();
        transaction.commit()?;
        Ok((removed, took))
    }

    /// One root that is too big for a transaction: piece by piece, and each time it is looked at again.
    fn piecewise(&mut self, plan: &Plan, id: &String, cancel: &Cancel) -> Outcome<Removed> {
        let mut removed = Removed::default();
        let ids = list(std::slice::from_ref(id));
        for (step, sql) in plan.steps.iter().take(plan.steps.len().saturating_sub(1)) {
            let Some(condition) = plan.condition_of(step) else {
                let rows = self.connection.execute(sql, [&ids]).of_target(&self.path)? as u64;
                *removed.cleared.entry(step.table.clone()).or_default() += rows;
                continue;
            };
            loop {
                cancel.check()?;
                let most = self.pace.rows;
                let table = quote(&step.table);
                let sql = format!(
                    "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {condition} LIMIT {most})"
                );
                let piece = |connection: &mut Connection| -> rusqlite::Result<Option<(u64, Duration)>> {
                    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                    let begun = Instant::now();
                    if !transaction.prepare_cached(&plan.still)?.exists([&ids])? {
                        return Ok(None);
                    }
                    let rows = transaction.prepare_cached(&sql)?.execute([&ids])? as u64;
                    let took = begun.elapsed();
                    transaction.commit()?;
                    Ok(Some((rows, took)))
                };
                let Some((rows, took)) = piece(&mut self.connection).of_target(&self.path)? else {
                    let lost: u64 = removed.rows.values().sum();
                    if lost == 0 {
                        removed.spared.push(id.clone());
                    } else {
                        let why =
                            format!("it was restored while its rows were removed piece by piece: {lost} are gone");
                        removed.stayed.push((id.clone(), why));
                    }
                    return Ok(removed);
                };
                self.pace.learn(rows, took);
                self.give_way(took)?;
                if rows > 0 {
                    *removed.rows.entry(step.table.clone()).or_default() += rows;
                }
                if rows < most {
                    break;
                }
            }
        }
        // What is left is the root, and what has come to it meanwhile.
        let (last, took) = self.transaction(plan, std::slice::from_ref(id)).of_target(&self.path)?;
        self.give_way(took)?;
        removed.add(last);
        Ok(removed)
    }

    /// After a transaction: others have their turn.
    fn give_way(&mut self, took: Duration) -> Outcome<()> {
        self.pace.held += took;
        let now = data_version(&self.connection).of_target(&self.path)?;
        let wrote = now != self.pace.version;
        self.pace.version = now;
        if !(wrote || self.pace.shared || self.pace.held >= STRETCH) {
            return Ok(());
        }
        // Where the lock is wanted all the time, others have it for two thirds of it.
        std::thread::sleep(if self.pace.shared { PAUSE.max(took * 2) } else { PAUSE });
        let after = data_version(&self.connection).of_target(&self.path)?;
        let shared = wrote || after != now;
        self.pace = Pace { version: after, shared, held: Duration::ZERO, rows: self.pace.rows };
        Ok(())
    }
}

/// From so many roots on an index is made sooner than a table is read for each of them; small tables need none.
const WORTH: (usize, i64) = (20, 200);

/// Makes indexes for keys that have none. They live within the transaction: nobody else ever sees them.
fn serve(transaction: &Transaction<'_>, plan: &Plan, roots: usize) -> rusqlite::Result<Vec<String>> {
    let (most, small) = WORTH;
    let mut made = Vec::new();
    for (number, (table, columns)) in plan.unserved.iter().enumerate().filter(|_| roots >= most) {
        let sql = format!("SELECT 1 FROM {table} LIMIT 1 OFFSET {small}");
        if transaction.prepare_cached(&sql)?.exists([])? {
            let index = quote(&format!("mlops_serves_{number}"));
            transaction.execute_batch(&format!("CREATE INDEX {index} ON {table} ({columns})"))?;
            made.push(index);
        }
    }
    Ok(made)
}

/// What `PRAGMA data_version` says: another number when another connection has committed.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Ids as the JSON list that statements take.
fn list(ids: &[String]) -> String {
    serde_json::Value::from(ids.to_vec()).to_string()
}

/// Foreign keys of one column into MLflow's tables, from tables that are not MLflow's.
fn referrers(connection: &Connection, identity: &Identity) -> rusqlite::Result<Vec<Referrer>> {
    // A key that names no column of the parent means its primary key.
    let mut statement = connection.prepare(
        "SELECT \"table\", \"from\", coalesce(\"to\", (SELECT name FROM pragma_table_info(\"table\") WHERE pk = 1))
         FROM pragma_foreign_key_list(?1) GROUP BY id HAVING count(*) = 1",
    )?;
    let mut found = Vec::new();
    for table in &identity.foreign {
        let keys = statement.query_map([table], |row| {
            Ok(Referrer { table: quote(table), parent: row.get(0)?, column: row.get(1)?, key: row.get(2)? })
        })?;
        found.extend(keys.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(found)
}

/// The statements of one kind of root.
struct Plan {
    still: String,
    steps: Vec<(Step, String)>,
    /// Table and condition of the rows that go.
    conditions: Vec<(String, String)>,
    /// The step of each of them.
    of: Vec<Step>,
    /// Tables and columns of keys that no index serves.
    unserved: Vec<(String, String)>,
}

impl Plan {
    fn of(statements: &Statements, root: Root, selection: &Selection) -> Outcome<Plan> {
        let steps = statements.steps(root)?;
        let deletes: Vec<Step> = steps.iter().filter(|s| s.clears.is_none()).cloned().collect();
        Ok(Plan {
            still: statements.still(root, selection, false),
            conditions: deletes.iter().map(|s| (quote(&s.table), statements.condition(root, s))).collect(),
            of: deletes,
            unserved: statements.unserved(root),
            steps: steps.into_iter().map(|s| (s.clone(), statements.statement(root, &s))).collect(),
        })
    }

    fn condition_of(&self, step: &Step) -> Option<&str> {
        let at = self.of.iter().position(|s| s == step)?;
        self.conditions.get(at).map(|(_, condition)| condition.as_str())
    }
}

fn deleted(row: &Row<'_>) -> rusqlite::Result<Deleted> {
    Ok(Deleted {
        id: row.get(0)?,
        experiment: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
        address: row.get(2)?,
        itself: row.get(3)?,
        kept: row.get(4)?,
        dated: row.get(5)?,
    })
}

fn experiment(row: &Row<'_>) -> rusqlite::Result<DeletedExperiment> {
    Ok(DeletedExperiment {
        id: row.get(0)?,
        name: row.get(1)?,
        address: row.get(2)?,
        active: row.get::<_, i64>(3)?.unsigned_abs(),
        young: row.get::<_, i64>(4)?.unsigned_abs(),
        kept: row.get(5)?,
        guards: row.get(6)?,
        old: row.get(7)?,
    })
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    let addresses: [Option<String>; 2] = [row.get(2)?, row.get(3)?];
    let addresses = addresses.into_iter().flatten().filter(|a| !a.is_empty()).collect();
    Ok(Version { name: row.get(0)?, run: row.get(1)?, addresses })
}

impl Purge for SqlitePurge {
    fn address(&self) -> String {
        shown(&self.path)
    }

    fn revision(&self) -> String {
        self.identity.revision_text()
    }

    fn has(&self, root: Root) -> bool {
        self.statements.has_root(root)
    }

    fn remarks(&self) -> Vec<String> {
        self.statements.remarks()
    }

    fn lock(&mut self, cancel: &Cancel) -> Outcome<()> {
        self._lock = lock::hold(&self.path, LOCK_PATIENCE, cancel)?;
        Ok(())
    }

    fn named(&mut self, word: &str) -> Outcome<Vec<Named>> {
        let look = || -> rusqlite::Result<Vec<Named>> {
            let mut statement = self.connection.prepare(&self.statements.named())?;
            let named = |row: &Row<'_>| {
                let deleted = row.get::<_, Option<bool>>(2)?.unwrap_or(false);
                Ok(Named { id: row.get(0)?, name: row.get(1)?, deleted })
            };
            statement.query_map([word], named)?.collect()
        };
        look().of_target(&self.path)
    }

    fn losers(&mut self, selection: &Selection) -> Outcome<u64> {
        let Some(sql) = self.statements.losers(selection) else { return Ok(0) };
        let count = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).of_target(&self.path)?;
        Ok(count.unsigned_abs())
    }

    fn versions(&mut self, each: &mut dyn FnMut(Version) -> Outcome<()>) -> Outcome<()> {
        let Some(sql) = self.statements.versions() else { return Ok(()) };
        self.each(&sql, &mut |row| each(version(row).of_target(&self.path)?))
    }

    fn runs(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()> {
        self.each(&self.statements.runs(selection), &mut |row| each(deleted(row).of_target(&self.path)?))
    }

    fn models(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()> {
        if !self.has(Root::Model) {
            return Ok(());
        }
        self.each(&self.statements.models(selection), &mut |row| each(deleted(row).of_target(&self.path)?))
    }

    fn experiments(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(DeletedExperiment) -> Outcome<()>,
    ) -> Outcome<()> {
        self.each(&self.statements.experiments(selection), &mut |row| each(experiment(row).of_target(&self.path)?))
    }

    fn places(&mut self, each: &mut dyn FnMut(Root, &str, &str) -> Outcome<()>) -> Outcome<()> {
        for root in Root::ALL {
            let Some(sql) = self.statements.places(root) else { continue };
            self.each(&sql, &mut |row| {
                let pair = || -> rusqlite::Result<(String, String)> { Ok((row.get(0)?, row.get(1)?)) };
                let (id, address) = pair().of_target(&self.path)?;
                each(root, &id, &address)
            })?;
        }
        Ok(())
    }

    fn traces(&mut self, experiment: &str, after: &str, most: usize) -> Outcome<Vec<(String, Option<String>)>> {
        let look = || -> rusqlite::Result<Vec<(String, Option<String>)>> {
            let mut statement = self.connection.prepare_cached(&self.statements.traces(most))?;
            statement.query_map(params![experiment, after], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        look().of_target(&self.path)
    }

    fn still(&mut self, root: Root, selection: &Selection, ids: &[String]) -> Outcome<Vec<String>> {
        let look = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare_cached(&self.statements.still(root, selection, false))?;
            statement.query_map([list(ids)], |row| row.get(0))?.collect()
        };
        look().of_target(&self.path)
    }

    fn count(&mut self, root: Root, ids: &[String]) -> Outcome<Counts> {
        let mut counts = Counts::new();
        let ids = list(ids);
        for (table, sql) in self.statements.counts(root)? {
            let count = self.connection.prepare_cached(&sql).and_then(|mut s| s.query_row([&ids], |row| row.get(0)));
            let rows: i64 = count.of_target(&self.path)?;
            if rows > 0 {
                counts.insert(table, rows.unsigned_abs());
            }
        }
        Ok(counts)
    }

    fn remove(&mut self, root: Root, selection: &Selection, ids: &[String], cancel: &Cancel) -> Outcome<Removed> {
        let plan = Plan::of(&self.statements, root, selection)?;
        let mut removed = Removed::default();
        let mut left = ids;
        while !left.is_empty() {
            cancel.check()?;
            let (batch, rest) = left.split_at(self.size.min(left.len()));
            let Some(rows) = self.fits(&plan, &list(batch)).of_target(&self.path)? else {
                match batch {
                    [one] => {
                        removed.add(self.piecewise(&plan, one, cancel)?);
                        left = rest;
                    }
                    _ => self.size = (batch.len() / 2).max(1),
                }
                continue;
            };
            match self.transaction(&plan, batch) {
                Ok((done, took)) => {
                    removed.add(done);
                    left = rest;
                    self.pace.learn(rows, took);
                    if rows.saturating_mul(2) < self.pace.rows && batch.len() == self.size {
                        self.size = (self.size * 2).min(MOST);
                    }
                    self.give_way(took)?;
                }
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => match batch {
                    // A row of a table that is not MLflow's refers to it.
                    [one] => {
                        removed.stayed.push((one.clone(), sqlite_text(&error)));
                        left = rest;
                    }
                    _ => self.size = (batch.len() / 2).max(1),
                },
                Err(error) => return Err(error).of_target(&self.path),
            }
        }
        Ok(removed)
    }

    fn known(&mut self, root: Root, ids: &[String]) -> Outcome<Vec<String>> {
        let look = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.connection.prepare_cached(&self.statements.known(root))?;
            statement.query_map([list(ids)], |row| row.get(0))?.collect()
        };
        look().of_target(&self.path)
    }

    fn ready_models(&mut self, each: &mut dyn FnMut(&str, &str) -> Outcome<()>) -> Outcome<()> {
        let Some(sql) = self.statements.ready_models() else { return Ok(()) };
        self.each(&sql, &mut |row| {
            let pair = || -> rusqlite::Result<(String, String)> { Ok((row.get(0)?, row.get(1)?)) };
            let (id, address) = pair().of_target(&self.path)?;
            each(&id, &address)
        })
    }

    fn parentless(&mut self) -> Outcome<Counts> {
        let mut counts = Counts::new();
        for sweep in self.statements.sweeps(CHUNK)? {
            let rows: i64 = self.connection.query_row(&sweep.count, [], |row| row.get(0)).of_target(&self.path)?;
            if rows > 0 {
                counts.insert(sweep.table, rows.unsigned_abs());
            }
        }
        Ok(counts)
    }

    fn remove_parentless(&mut self, keep: &mut Keep<'_>, cancel: &Cancel) -> Outcome<(Counts, Vec<(String, String)>)> {
        let mut counts = Counts::new();
        for sweep in self.statements.sweeps(CHUNK)? {
            let mut after = i64::MIN;
            loop {
                cancel.check()?;
                let find = || -> rusqlite::Result<Vec<i64>> {
                    self.connection.prepare_cached(&sweep.find)?.query_map([after], |row| row.get(0))?.collect()
                };
                let found = find().of_target(&self.path)?;
                let Some(last) = found.last() else { break };
                after = *last;
                let begun = Instant::now();
                let gone = self.sweep(&sweep, &found, keep)?;
                if gone > 0 {
                    *counts.entry(sweep.table.clone()).or_default() += gone;
                }
                self.give_way(begun.elapsed())?;
            }
        }
        Ok((counts, Vec::new()))
    }
}
