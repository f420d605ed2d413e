//! Removing deleted things from a live PostgreSQL: a batch in a transaction that locks what it removes.

use std::collections::HashMap;

use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{Client, Error, Row, Statement};

use super::connect::Postgres;
use super::{introspect, target, target_failure, text};
use crate::domain::catalogue::Catalogue;
use crate::domain::cleanup::belongings::{Root, Step};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::identity::{self, Identity};
use crate::engine::cancel::Cancel;
use crate::engine::purge::{Counts, Deleted, DeletedExperiment, Keep, Named, Purge, Removed, Selection, Version};
use crate::store::parentless::Sweep;
use crate::store::removal::{Dialect, Referrer, Statements};

/// How often a batch is tried that a lock of others kept from going.
const TRIES: u32 = 3;
/// Rows that a transaction removes, more or less; a root is never torn.
const ROWS: u64 = 150_000;
/// Roots in one transaction.
const MOST: usize = 1_000;
/// Rows without a parent in one transaction.
const CHUNK: usize = 20_000;
/// Others' transactions are waited for so long, and no longer: whoever waits behind this one waits as well.
const LOCK_TIMEOUT: &str = "10s";

/// A database that is purged.
pub struct PgPurge {
    client: Client,
    address: String,
    identity: Identity,
    statements: Statements,
    prepared: HashMap<String, Statement>,
    /// Roots that the next transaction takes.
    size: usize,
}

fn failed(error: &Error) -> Failure {
    target_failure("removing what is deleted", error)
}

/// A lock of others, or a circle of locks: it goes another time.
fn is_contention(error: &Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "55P03" | "40P01" | "40001"))
}

impl PgPurge {
    /// Connects and finds out what it is. An interruption cancels the statement that runs, which undoes its
    /// transaction.
    ///
    /// # Errors
    /// Target: not reachable, or no sound MLflow store.
    pub fn open(postgres: &Postgres) -> Outcome<PgPurge> {
        let mut client = postgres.connect()?;
        let schema = introspect::current_schema(&mut client)
            .map_err(|e| failed(&e))?
            .ok_or_else(|| Failure::target(format!("the search path of {} names no schema", postgres.address())))?;
        let observed = introspect::observe(&mut client, &schema).map_err(|e| failed(&e))?;
        let address = postgres.address();
        let identity = identity::identify(&observed, Catalogue::embedded()?);
        let identity = identity.map_err(|f| f.as_target().on(&address))?;
        let referrers = referrers(&mut client, &schema, &identity).map_err(|e| failed(&e))?;
        let statements = Statements::new(Dialect::Postgres, &identity.tables, referrers);
        Ok(PgPurge { client, address, identity, statements, prepared: HashMap::new(), size: 50 })
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Hands on row by row: the list may be long.
    fn each(&mut self, sql: &str, each: &mut dyn FnMut(&Row) -> Outcome<()>) -> Outcome<()> {
        let none: [&dyn ToSql; 0] = [];
        let mut rows = self.client.query_raw(sql, none).map_err(|e| failed(&e))?;
        while let Some(row) = rows.next().map_err(|e| failed(&e))? {
            each(&row)?;
        }
        Ok(())
    }

    /// Removes the next rows without a parent, when `keep` has them.
    fn sweep(&mut self, sweep: &Sweep, keep: &mut Keep<'_>) -> Result<Outcome<u64>, Error> {
        let mut transaction = self.client.transaction()?;
        transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))?;
        let rows = transaction.query(&sweep.remove, &[])?;
        let gone: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if !gone.is_empty()
            && let Err(failure) = keep(&sweep.table, &gone)
        {
            return Ok(Err(failure));
        }
        transaction.commit()?;
        Ok(Ok(gone.len() as u64))
    }

    fn transaction(&mut self, ids: &[String], plan: &[(Step, Statement)], still: &Statement) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        let mut transaction = self.client.transaction()?;
        transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))?;
        // Under READ COMMITTED a row that another one changes meanwhile is looked at again once its lock is there.
        let rows = transaction.query(still, &[&ids])?;
        removed.gone = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if removed.gone.len() < ids.len() {
            removed.spared = ids.iter().filter(|id| !removed.gone.contains(id)).cloned().collect();
        }
        tracing::debug!(batch = removed.gone.len(), "removing");
        if removed.gone.is_empty() {
            transaction.commit()?;
            return Ok(removed);
        }
        for (step, statement) in plan {
            let rows = transaction.execute(statement, &[&removed.gone])?;
            let counts = if step.clears.is_some() { &mut removed.cleared } else { &mut removed.rows };
            if rows > 0 {
                *counts.entry(step.table.clone()).or_default() += rows;
            }
        }
        transaction.commit()?;
        Ok(removed)
    }
}

/// Foreign keys of one column into MLflow's tables, from tables that are not MLflow's.
fn referrers(client: &mut Client, schema: &str, identity: &Identity) -> Result<Vec<Referrer>, Error> {
    let own: Vec<&str> = identity.tables.iter().map(|t| t.name.as_str()).collect();
    let rows = client.query(
        "SELECT c.conrelid::regclass::text, a.attname::text, p.relname::text, k.attname::text
         FROM pg_constraint c JOIN pg_class p ON p.oid = c.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
         JOIN pg_class o ON o.oid = c.conrelid
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
         JOIN pg_attribute k ON k.attrelid = c.confrelid AND k.attnum = c.confkey[1]
         WHERE c.contype = 'f' AND array_length(c.conkey, 1) = 1 AND n.nspname = $1 AND p.relname = ANY($2)
           AND NOT (o.relnamespace = p.relnamespace AND o.relname = ANY($2)) ORDER BY 1, 2",
        &[&schema, &own],
    )?;
    let referrer = |row: &Row| {
        Ok(Referrer { table: row.try_get(0)?, column: row.try_get(1)?, parent: row.try_get(2)?, key: row.try_get(3)? })
    };
    rows.iter().map(referrer).collect()
}

/// A row of a table that is not MLflow's refers to it.
fn is_referred(error: &Error) -> bool {
    error.code().is_some_and(|code| *code == SqlState::FOREIGN_KEY_VIOLATION)
}

fn deleted(row: &Row) -> Result<Deleted, Error> {
    Ok(Deleted {
        id: row.try_get(0)?,
        experiment: row.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
        address: row.try_get(2)?,
        itself: row.try_get(3)?,
        kept: row.try_get(4)?,
        dated: row.try_get(5)?,
    })
}

fn experiment(row: &Row) -> Result<DeletedExperiment, Error> {
    Ok(DeletedExperiment {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        address: row.try_get(2)?,
        active: row.try_get::<_, i64>(3)?.unsigned_abs(),
        young: row.try_get::<_, i64>(4)?.unsigned_abs(),
        kept: row.try_get(5)?,
        guards: row.try_get(6)?,
        old: row.try_get(7)?,
    })
}

fn version(row: &Row) -> Result<Version, Error> {
    let addresses: [Option<String>; 2] = [row.try_get(2)?, row.try_get(3)?];
    let addresses = addresses.into_iter().flatten().filter(|a| !a.is_empty()).collect();
    Ok(Version { name: row.try_get(0)?, run: row.try_get(1)?, addresses })
}

impl Purge for PgPurge {
    fn address(&self) -> String {
        self.address.clone()
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
        target::lock_on(&mut self.client, "cleanup purge", "purges this database", cancel)
    }

    fn named(&mut self, word: &str) -> Outcome<Vec<Named>> {
        let rows = self.client.query(&self.statements.named(), &[&word]).map_err(|e| failed(&e))?;
        let named = |row: &Row| -> Result<Named, Error> {
            let deleted = row.try_get::<_, Option<bool>>(2)?.unwrap_or(false);
            Ok(Named { id: row.try_get(0)?, name: row.try_get(1)?, deleted })
        };
        rows.iter().map(|row| named(row).map_err(|e| failed(&e))).collect()
    }

    fn losers(&mut self, selection: &Selection) -> Outcome<u64> {
        let Some(sql) = self.statements.losers(selection) else { return Ok(0) };
        let row = self.client.query_one(&sql, &[]).map_err(|e| failed(&e))?;
        row.try_get::<_, i64>(0).map(i64::unsigned_abs).map_err(|e| failed(&e))
    }

    fn versions(&mut self, each: &mut dyn FnMut(Version) -> Outcome<()>) -> Outcome<()> {
        let Some(sql) = self.statements.versions() else { return Ok(()) };
        self.each(&sql, &mut |row| each(version(row).map_err(|e| failed(&e))?))
    }

    fn runs(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()> {
        let sql = self.statements.runs(selection);
        self.each(&sql, &mut |row| each(deleted(row).map_err(|e| failed(&e))?))
    }

    fn models(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()> {
        if !self.has(Root::Model) {
            return Ok(());
        }
        let sql = self.statements.models(selection);
        self.each(&sql, &mut |row| each(deleted(row).map_err(|e| failed(&e))?))
    }

    fn experiments(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(DeletedExperiment) -> Outcome<()>,
    ) -> Outcome<()> {
        let sql = self.statements.experiments(selection);
        self.each(&sql, &mut |row| each(experiment(row).map_err(|e| failed(&e))?))
    }

    fn places(&mut self, each: &mut dyn FnMut(Root, &str, &str) -> Outcome<()>) -> Outcome<()> {
        for root in Root::ALL {
            let Some(sql) = self.statements.places(root) else { continue };
            self.each(&sql, &mut |row| {
                let (id, address) = (row.try_get(0), row.try_get(1));
                each(root, id.map_err(|e| failed(&e))?, address.map_err(|e| failed(&e))?)
            })?;
        }
        Ok(())
    }

    fn traces(&mut self, experiment: &str, after: &str, most: usize) -> Outcome<Vec<(String, Option<String>)>> {
        let sql = self.statements.traces(most);
        let statement = self.prepare(&sql).map_err(|e| failed(&e))?;
        let rows = self.client.query(&statement, &[&experiment, &after]).map_err(|e| failed(&e))?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, Error>>()
            .map_err(|e| failed(&e))
    }

    fn still(&mut self, root: Root, selection: &Selection, ids: &[String]) -> Outcome<Vec<String>> {
        let sql = self.statements.still(root, selection, false);
        let statement = self.prepare(&sql).map_err(|e| failed(&e))?;
        let rows = self.client.query(&statement, &[&ids]).map_err(|e| failed(&e))?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, Error>>().map_err(|e| failed(&e))
    }

    fn count(&mut self, root: Root, ids: &[String]) -> Outcome<Counts> {
        let mut counts = Counts::new();
        for (table, sql) in self.statements.counts(root)? {
            let statement = self.prepare(&sql).map_err(|e| failed(&e))?;
            let row = self.client.query_one(&statement, &[&ids]).map_err(|e| failed(&e))?;
            let rows: i64 = row.try_get(0).map_err(|e| failed(&e))?;
            if rows > 0 {
                counts.insert(table, rows.unsigned_abs());
            }
        }
        Ok(counts)
    }

    fn remove(&mut self, root: Root, selection: &Selection, ids: &[String], cancel: &Cancel) -> Outcome<Removed> {
        let mut plan = Vec::new();
        for step in self.statements.steps(root)? {
            let sql = self.statements.statement(root, &step);
            plan.push((step, self.prepare(&sql).map_err(|e| failed(&e))?));
        }
        let still = self.statements.still(root, selection, true);
        let still = self.prepare(&still).map_err(|e| failed(&e))?;
        let mut removed = Removed::default();
        let mut waiting = vec![ids.to_vec()];
        while let Some(mut batch) = waiting.pop() {
            if batch.len() > self.size {
                waiting.push(batch.split_off(self.size));
            }
            let mut tries = 0;
            let done = loop {
                cancel.check()?;
                tries += 1;
                match self.transaction(&batch, &plan, &still) {
                    Err(error) if is_contention(&error) && tries < TRIES => {
                        tracing::info!(error = text(&error), tries, "another transaction is in the way");
                    }
                    done => break done,
                }
            };
            match (done, batch.as_slice()) {
                (Ok(more), _) => {
                    let rows: u64 = more.rows.values().sum();
                    let each = (rows / batch.len().max(1) as u64).max(1);
                    self.size = usize::try_from(ROWS / each).unwrap_or(1).clamp(1, MOST);
                    removed.add(more);
                }
                (Err(error), [one]) if is_contention(&error) || is_referred(&error) => {
                    removed.stayed.push((one.clone(), text(&error)));
                }
                (Err(error), _) if is_contention(&error) || is_referred(&error) => {
                    // One of them is in the way; the others go.
                    let (first, second) = batch.split_at(batch.len() / 2);
                    waiting.extend([second.to_vec(), first.to_vec()]);
                }
                (Err(error), _) => return Err(failed(&error)),
            }
        }
        Ok(removed)
    }

    fn known(&mut self, root: Root, ids: &[String]) -> Outcome<Vec<String>> {
        let statement = self.prepare(&self.statements.known(root)).map_err(|e| failed(&e))?;
        let rows = self.client.query(&statement, &[&ids]).map_err(|e| failed(&e))?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, Error>>().map_err(|e| failed(&e))
    }

    fn ready_models(&mut self, each: &mut dyn FnMut(&str, &str) -> Outcome<()>) -> Outcome<()> {
        let Some(sql) = self.statements.ready_models() else { return Ok(()) };
        self.each(&sql, &mut |row| {
            let (id, address) = (row.try_get(0), row.try_get(1));
            each(id.map_err(|e| failed(&e))?, address.map_err(|e| failed(&e))?)
        })
    }

    fn parentless(&mut self) -> Outcome<Counts> {
        let mut counts = Counts::new();
        for sweep in self.statements.sweeps(CHUNK)? {
            let row = self.client.query_one(&sweep.count, &[]).map_err(|e| failed(&e))?;
            let rows: i64 = row.try_get(0).map_err(|e| failed(&e))?;
            if rows > 0 {
                counts.insert(sweep.table, rows.unsigned_abs());
            }
        }
        Ok(counts)
    }

    fn remove_parentless(&mut self, keep: &mut Keep<'_>, cancel: &Cancel) -> Outcome<(Counts, Vec<(String, String)>)> {
        let (mut counts, mut stays) = (Counts::new(), Vec::new());
        for sweep in self.statements.sweeps(CHUNK)? {
            let mut tries = 0;
            loop {
                cancel.check()?;
                match self.sweep(&sweep, keep) {
                    Ok(Ok(0)) => break,
                    Ok(Ok(gone)) => *counts.entry(sweep.table.clone()).or_default() += gone,
                    Ok(Err(failure)) => return Err(failure),
                    Err(error) if is_contention(&error) && tries < TRIES => tries += 1,
                    Err(error) if is_contention(&error) || is_referred(&error) => {
                        stays.push((sweep.table.clone(), text(&error)));
                        break;
                    }
                    Err(error) => return Err(failed(&error)),
                }
            }
        }
        Ok((counts, stays))
    }
}
