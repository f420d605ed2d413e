//! The stage: a schema of its own that rows are loaded into, indexed and verified in, and whose tables then move to
//! their place in one short transaction. Until that commits the target is as it was; a stage that is dropped before
//! leaves nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use postgres::{Client, GenericClient};

use super::connect::Postgres;
use super::target::{self, Contents, Place, Target};
use super::{rows_failure, target_failure, text};
use crate::domain::catalogue::TableDef;
use crate::domain::cell::Batch;
use crate::domain::consent::Confirmed;
use crate::domain::copy_codec::{self, HEADER, TRAILER};
use crate::domain::ddl::{self, PostData, Statement, quote, quote_list};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::compare::key_text;
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::{Part, RowSink, RowWriter};

/// An unpublished copy of tables in the target database.
pub struct Stage<'a> {
    postgres: &'a Postgres,
    name: String,
    jobs: usize,
    /// Holds the lock on the target's schema.
    main: Mutex<Client>,
    idle: Mutex<Vec<Client>>,
    published: bool,
}

impl<'a> Stage<'a> {
    /// Makes the stage `id` with empty tables, without keys and indexes. `main` holds the lock.
    ///
    /// # Errors
    /// Target: the database refused.
    pub fn create(
        postgres: &'a Postgres,
        main: Client,
        id: &str,
        tables: &[Arc<TableDef>],
        foreign: &[Shape],
        jobs: usize,
    ) -> Outcome<Stage<'a>> {
        let stage = Stage {
            postgres,
            name: target::stage_name(id),
            jobs,
            main: Mutex::new(main),
            idle: Mutex::new(Vec::new()),
            published: false,
        };
        let mut sql = format!("CREATE SCHEMA {}; {};", quote(&stage.name), target::stage_comment(&stage.name));
        sql.push_str(&format!("SET LOCAL search_path = {};", quote(&stage.name)));
        for table in tables {
            sql.push_str(&ddl::create_table(table));
            sql.push(';');
        }
        for shape in foreign {
            sql.push_str(&ddl::create_foreign_table(shape));
            sql.push(';');
        }
        tracing::info!(stage = %stage.name, "making the stage");
        tracing::debug!(%sql, "making the stage");
        stage.in_transaction("making the stage", |transaction| transaction.batch_execute(&sql))?;
        Ok(stage)
    }

    /// The schema's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn in_transaction(
        &self,
        doing: &str,
        work: impl FnOnce(&mut postgres::Transaction<'_>) -> Result<(), postgres::Error>,
    ) -> Outcome<()> {
        let mut main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        let run = |main: &mut Client| {
            let mut transaction = main.transaction()?;
            work(&mut transaction)?;
            transaction.commit()
        };
        run(&mut main).map_err(|e| target_failure(doing, &e))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Client) -> Outcome<T>) -> Outcome<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = match idle {
            Some(client) => client,
            None => {
                let mut client = self.postgres.connect()?;
                // Nothing here has to outlive a crash before the publishing transaction, whose commit flushes all.
                let settings = format!(
                    "SET synchronous_commit = off; SET search_path = {}; {}",
                    quote(&self.name),
                    index_settings(self.jobs)
                );
                client.batch_execute(&settings).map_err(|e| target_failure("setting up a session", &e))?;
                client
            }
        };
        let result = work(&mut client);
        if result.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
        result
    }

    /// Runs one statement that makes something over a table's rows.
    ///
    /// # Errors
    /// Source: the rows break a key or a CHECK. Target: the database failed.
    pub fn make(&self, statement: &Statement) -> Outcome<()> {
        self.with(|client| {
            tracing::debug!(sql = %statement.sql, "post-data");
            client
                .batch_execute(&statement.sql)
                .map_err(|e| rows_failure(&format!("making {} on {}", statement.makes, statement.table), &e))
        })
    }

    /// What is to be made of the tables after their rows: the statements of its `indexes` are independent of each other,
    /// the rest is for [`Stage::finish`].
    pub fn post_data(tables: &[Arc<TableDef>], foreign: &[Shape]) -> PostData {
        let mut post = ddl::post_data(tables);
        post.indexes.extend(foreign.iter().filter_map(|shape| {
            Some(Statement {
                table: shape.name.clone(),
                makes: format!("{}_pkey", shape.name),
                sql: ddl::add_foreign_table_key(shape)?,
                columns: shape.key.len() as u64,
            })
        }));
        post
    }

    /// Gathers statistics of a table, so that the server plans well from its first query on.
    ///
    /// # Errors
    /// Target: the database failed.
    pub fn analyze(&self, shape: &Shape) -> Outcome<()> {
        self.make(&Statement {
            table: shape.name.clone(),
            makes: "statistics".to_owned(),
            sql: format!("ANALYZE {}", quote(&shape.name)),
            columns: 0,
        })
    }

    /// Makes keys of the indexes, then foreign keys and triggers, and sets the sequences, above the numbers that are
    /// `taken` as well.
    ///
    /// # Errors
    /// As [`Stage::make`].
    pub fn finish(
        &self,
        tables: &[Arc<TableDef>],
        post: &PostData,
        taken: &BTreeMap<String, i64>,
        work: &Work<'_>,
    ) -> Outcome<()> {
        let total = (post.keys.len() + post.foreign_keys.len() + post.triggers.len()) as u64;
        work.events.event(Event::Phase { name: "making keys", total: Some(total), unit: "steps" });
        let run = |statement: &Statement| -> Outcome<()> {
            work.cancel.check()?;
            self.make(statement)?;
            work.events.event(Event::Done { table: statement.table.clone(), units: 1 });
            Ok(())
        };
        // Each of these locks the table it refers to, so side by side they would wait for one another.
        post.keys.iter().chain(&post.foreign_keys).chain(&post.triggers).try_for_each(run)?;
        self.set_sequences(tables, taken)
    }

    /// Each sequence goes on after the highest value of its column; on an empty table it begins at 1.
    fn set_sequences(&self, tables: &[Arc<TableDef>], taken: &BTreeMap<String, i64>) -> Outcome<()> {
        self.with(|client| {
            for table in tables {
                for sql in ddl::set_sequences(table, taken) {
                    client
                        .batch_execute(&sql)
                        .map_err(|e| target_failure(&format!("setting the sequence of {}", table.name), &e))?;
                }
            }
            Ok(())
        })
    }

    /// Moves all tables to their place in one transaction, after it has checked that the target is as the plan saw it.
    /// What was there is dropped (a fresh server's empty tables) or moved to the schema `keep_in`.
    ///
    /// # Errors
    /// Refused: the target changed since the plan. Target: the database failed; unless the message says otherwise the
    /// target is as it was.
    pub fn publish(
        mut self,
        plan: &Target,
        place: &Place,
        tables: &[Arc<TableDef>],
        foreign: &[Shape],
        keep_in: Option<(&str, &Confirmed)>,
    ) -> Outcome<()> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: postgres::Error| target_failure("publishing; nothing was changed", &e);
        let mut transaction = main.transaction().map_err(failed)?;
        transaction
            .batch_execute("SET LOCAL lock_timeout = '15s'; SET LOCAL synchronous_commit = on; SET LOCAL client_min_messages = warning")
            .map_err(failed)?;
        let user: String =
            transaction.query_one("SELECT current_user::text", &[]).and_then(|row| row.try_get(0)).map_err(failed)?;
        let there = plan.contents.tables();
        let qualified = |name: &str| format!("{}.{}", quote(&plan.schema), quote(name));
        let list = there.iter().map(|t| qualified(t)).collect::<Vec<_>>().join(", ");
        if !there.is_empty() {
            transaction.batch_execute(&format!("LOCK TABLE {list} IN ACCESS EXCLUSIVE MODE")).map_err(failed)?;
        }
        recheck(&mut transaction, plan, place, keep_in.is_some())?;
        let mut sql = String::new();
        match keep_in {
            Some((schema, _)) if !there.is_empty() => {
                sql.push_str(&format!("CREATE SCHEMA {};", quote(schema)));
                for table in there {
                    sql.push_str(&format!("ALTER TABLE {} SET SCHEMA {};", qualified(table), quote(schema)));
                }
                for function in functions_there(&mut transaction, &plan.schema, there).map_err(failed)? {
                    sql.push_str(&format!("ALTER FUNCTION {function} SET SCHEMA {};", quote(schema)));
                }
            }
            _ if !there.is_empty() => {
                sql.push_str(&format!("DROP TABLE {list};"));
                for function in functions_there(&mut transaction, &plan.schema, there).map_err(failed)? {
                    sql.push_str(&format!("DROP FUNCTION {function};"));
                }
            }
            _ => {}
        }
        for name in tables.iter().map(|t| &t.name).chain(foreign.iter().map(|s| &s.name)) {
            sql.push_str(&format!(
                "ALTER TABLE {}.{} SET SCHEMA {};",
                quote(&self.name),
                quote(name),
                quote(&plan.schema)
            ));
        }
        // A trigger's function does not move with its table, and dropping the stage would take the trigger along.
        for trigger in tables.iter().flat_map(|t| &t.postgres.triggers) {
            let (schema, place) = (quote(&self.name), quote(&plan.schema));
            sql.push_str(&format!("ALTER FUNCTION {schema}.{} SET SCHEMA {place};", trigger.signature));
        }
        sql.push_str(&format!("DROP SCHEMA {} RESTRICT;", quote(&self.name)));
        if plan.owner != user {
            let made = tables.iter().map(|t| &t.name).chain(foreign.iter().map(|s| &s.name));
            sql.extend(made.map(|name| format!("ALTER TABLE {} OWNER TO {};", qualified(name), quote(&plan.owner))));
            for trigger in tables.iter().flat_map(|t| &t.postgres.triggers) {
                let (place, owner) = (quote(&plan.schema), quote(&plan.owner));
                sql.push_str(&format!("ALTER FUNCTION {place}.{} OWNER TO {owner};", trigger.signature));
            }
        }
        tracing::debug!(%sql, "publishing");
        transaction.batch_execute(&sql).map_err(failed)?;
        let number: String =
            transaction.query_one("SELECT txid_current()::text", &[]).and_then(|row| row.try_get(0)).map_err(failed)?;
        let outcome = match transaction.commit() {
            Ok(()) => Ok(()),
            Err(error) => self.was_committed(&number, &error),
        };
        drop(main);
        self.published = outcome.is_ok();
        outcome
    }

    /// The connection broke while COMMIT was under way: the server knows what became of it.
    fn was_committed(&self, number: &str, error: &postgres::Error) -> Outcome<()> {
        let ask = |client: &mut Client| -> Result<Option<String>, postgres::Error> {
            client.query_one(&format!("SELECT txid_status({number})"), &[])?.try_get(0)
        };
        for _ in 0..50 {
            if let Ok(mut client) = self.postgres.connect_steady() {
                match ask(&mut client).ok().flatten().as_deref() {
                    Some("committed") => return Ok(()),
                    Some("aborted") => return Err(target_failure("publishing; nothing was changed", error)),
                    _ => {}
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        Err(Failure::target(format!(
            "the connection was lost while the result was published ({}), and the server does not answer whether it took effect",
            text(error)
        ))
        .hint("it did wholly or not at all: `mlops migrate verify` tells which, once the server answers"))
    }
}

/// Functions of MLflow's in that schema, as ALTER and DROP FUNCTION name them.
fn functions_there(
    transaction: &mut postgres::Transaction<'_>,
    schema: &str,
    tables: &[String],
) -> Result<Vec<String>, postgres::Error> {
    let rows = transaction.query(
        "SELECT DISTINCT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         JOIN pg_trigger t ON t.tgfoid = p.oid JOIN pg_class c ON c.oid = t.tgrelid
         WHERE n.nspname = $1 AND c.relnamespace = n.oid AND c.relname = ANY($2) AND NOT t.tgisinternal",
        &[&schema, &tables],
    )?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Under the lock: is the target what the plan saw?
///
/// # Errors
/// Refused: it changed.
pub fn recheck(transaction: &mut impl GenericClient, plan: &Target, place: &Place, replacing: bool) -> Outcome<()> {
    let now = target::contents(transaction, &plan.schema, place)?;
    let same = match (&plan.contents, &now) {
        (Contents::Data(before, _), Contents::Data(now, _)) => replacing && before == now,
        (before, now) => before == now,
    };
    if same {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the target changed since it was looked at: the schema {} now holds other tables or rows",
        plan.schema
    ))
    .hint("nothing was changed; find out who writes there, then run this again"))
}

/// Memory and workers for CREATE INDEX. Indexes are built side by side, so on few processors PostgreSQL's own parallel
/// workers only get into each other's way; and a sort in memory is worth more than the default of 64 MB allows. What
/// the server has beyond that stays.
fn index_settings(jobs: usize) -> String {
    let memory = (1024 / jobs.max(1)).clamp(64, 256);
    let workers = if jobs == 2 || jobs == 3 { "SET max_parallel_maintenance_workers = 0;" } else { "" };
    format!(
        "SELECT set_config('maintenance_work_mem', '{memory}MB', false)
         WHERE pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes('{memory}MB'); {workers}"
    )
}

impl RowSink for Stage<'_> {
    fn load(&self, shape: &Shape, part: Part, fill: &mut dyn FnMut(&mut dyn RowWriter) -> Outcome<()>) -> Outcome<u64> {
        let doing = format!("loading {}", shape.name);
        self.with(|client| {
            let failed = |e: postgres::Error| rows_failure(&doing, &e);
            let table = quote(&shape.name);
            let mut transaction = client.transaction().map_err(failed)?;
            // Rows that are frozen as they are loaded need no second visit, neither now nor by a later VACUUM. PostgreSQL
            // allows it where the table was truncated in the same transaction, so only the table's one load can do it.
            let freeze = if part.is_whole() {
                transaction.batch_execute(&format!("TRUNCATE {table}")).map_err(failed)?;
                ", FREEZE"
            } else {
                ""
            };
            let columns = quote_list(shape.column_names());
            let sql = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary{freeze})");
            tracing::debug!(%sql, "loading");
            let rows = {
                let writer = transaction.copy_in(&sql).map_err(failed)?;
                let mut writer = CopyWriter { writer, buffer: HEADER.to_vec(), doing: &doing };
                fill(&mut writer)?;
                writer.buffer.extend_from_slice(&TRAILER);
                writer.send()?;
                writer.writer.finish().map_err(failed)?
            };
            transaction.commit().map_err(failed)?;
            Ok(rows)
        })
    }
}

struct CopyWriter<'a> {
    writer: postgres::CopyInWriter<'a>,
    buffer: Vec<u8>,
    doing: &'a str,
}

impl CopyWriter<'_> {
    fn send(&mut self) -> Outcome<()> {
        let sent = self.writer.write_all(&self.buffer).and_then(|()| self.writer.flush());
        self.buffer.clear();
        sent.map_err(|error| match error.get_ref().and_then(|e| e.downcast_ref::<postgres::Error>()) {
            Some(inner) => rows_failure(self.doing, inner),
            None => Failure::target(format!("{}: {error}", self.doing)),
        })
    }
}

impl RowWriter for CopyWriter<'_> {
    fn write(&mut self, batch: &Batch) -> Outcome<()> {
        copy_codec::encode(batch, &mut self.buffer).map_err(|(row, column, misfit)| {
            let shape = batch.shape();
            let key = batch.iter().nth(row).map(|cells| key_text(shape, batch, cells)).unwrap_or_default();
            let key: Vec<String> = key.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            let column = shape.columns.get(column).map_or("", |c| c.name.as_str());
            Failure::source(format!("`{}.{column}` of the row {} {misfit}", shape.name, key.join(", ")))
        })?;
        self.send()
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // Sessions that still load or build would hold the stage's locks: they go first.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        // If the connection is gone, the next run removes the stage.
        let _ = target::drop_stage(&mut main, &self.name);
    }
}
