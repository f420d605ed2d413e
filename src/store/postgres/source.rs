//! Rows out of a schema of a PostgreSQL database, as of one moment.

use std::io::BufRead;
use std::sync::{Arc, Mutex, PoisonError};

use postgres::Client;
use postgres::types::Type as PgType;

use super::connect::Postgres;
use super::{source_failure, text};
use crate::domain::cell::Batch;
use crate::domain::copy_codec::{Decoder, Wire};
use crate::domain::ddl::{literal, quote};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::{Part, RowSource};

/// A source over one exported snapshot: all connections see the same moment.
pub struct PgSource {
    postgres: Arc<Postgres>,
    schema: String,
    shapes: Vec<Shape>,
    /// The moment's name, and the session that keeps it. `None`: nobody else writes to the tables, so there is no other
    /// moment.
    moment: Option<(String, Mutex<Client>)>,
    idle: Mutex<Vec<Client>>,
}

const MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl PgSource {
    /// Fixes the moment and names the tables `shapes` of `schema`.
    ///
    /// # Errors
    /// Source: the database failed.
    pub fn new(postgres: Arc<Postgres>, schema: &str, shapes: Vec<Shape>) -> Outcome<PgSource> {
        let mut keeper = postgres.connect().map_err(Failure::as_source)?;
        let fix = |client: &mut Client| -> Result<String, postgres::Error> {
            client.batch_execute(MOMENT)?;
            client.query_one("SELECT pg_export_snapshot()", &[])?.try_get(0)
        };
        let snapshot = fix(&mut keeper).map_err(|e| source_failure("fixing a moment to read", &e))?;
        let moment = Some((snapshot, Mutex::new(keeper)));
        Ok(PgSource { postgres, schema: schema.to_owned(), shapes, moment, idle: Mutex::new(Vec::new()) })
    }

    /// The same over tables that nobody but this run can write to, a stage's: no transaction stays open, so statements
    /// that lock these tables do not wait for it.
    pub fn of_stage(postgres: Arc<Postgres>, stage: &str, shapes: Vec<Shape>) -> PgSource {
        PgSource { postgres, schema: stage.to_owned(), shapes, moment: None, idle: Mutex::new(Vec::new()) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Client) -> Outcome<T>) -> Outcome<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut client = match idle {
            Some(client) => client,
            None => {
                let mut client = self.postgres.connect().map_err(Failure::as_source)?;
                if let Some((snapshot, _)) = &self.moment {
                    client
                        .batch_execute(&format!("{MOMENT}; SET TRANSACTION SNAPSHOT {}", literal(snapshot)))
                        .map_err(|e| source_failure("joining the moment to read", &e))?;
                }
                client
            }
        };
        let result = work(&mut client);
        if result.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
        result
    }

    fn table(&self, shape: &Shape) -> String {
        format!("{}.{}", quote(&self.schema), quote(&shape.name))
    }
}

/// The rows of a shape that shares its table with another program.
fn only(shape: &Shape) -> Option<String> {
    let values: Vec<String> = shape.only.as_ref()?.iter().map(|v| literal(v)).collect();
    Some(format!("{} IN ({})", quote(&shape.columns.first()?.name), values.join(", ")))
}

/// How a column of that type comes over the wire; `None`: it is asked for as text.
fn wire(kind: &PgType) -> Option<Wire> {
    Some(match *kind {
        PgType::INT2 => Wire::Int2,
        PgType::INT4 => Wire::Int4,
        PgType::INT8 => Wire::Int8,
        PgType::FLOAT4 => Wire::Float4,
        PgType::FLOAT8 => Wire::Float8,
        PgType::BOOL => Wire::Bool,
        PgType::BYTEA => Wire::Bytea,
        PgType::TEXT | PgType::VARCHAR | PgType::JSON => Wire::Text,
        _ => return None,
    })
}

impl RowSource for PgSource {
    fn address(&self) -> String {
        self.postgres.address()
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn rows(&self, shape: &Shape) -> Outcome<u64> {
        let filter = only(shape).map_or(String::new(), |f| format!(" WHERE {f}"));
        let sql = format!("SELECT count(*) FROM {}{filter}", self.table(shape));
        self.with(|client| {
            let count: Result<i64, _> = client.query_one(&sql, &[]).and_then(|row| row.try_get(0));
            count
                .map(|n| u64::try_from(n).unwrap_or(0))
                .map_err(|e| source_failure(&format!("counting {}", shape.name), &e))
        })
    }

    fn parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        if wanted <= 1 || shape.only.is_some() {
            return Ok(vec![Part::ALL]);
        }
        let sql = "SELECT (pg_relation_size($1::text::regclass) / current_setting('block_size')::int)::bigint";
        let blocks: i64 = self.with(|client| {
            client
                .query_one(sql, &[&self.table(shape)])
                .and_then(|row| row.try_get(0))
                .map_err(|e| source_failure(&format!("measuring {}", shape.name), &e))
        })?;
        let wanted = i64::try_from(wanted).unwrap_or(1).min(blocks.max(1));
        let edge = |n: i64| blocks * n / wanted;
        Ok((0..wanted)
            .map(|n| {
                let from = if n == 0 { None } else { Some(edge(n)) };
                let to = if n + 1 == wanted { None } else { Some(edge(n + 1)) };
                Part::range(from, to)
            })
            .collect())
    }

    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()> {
        let doing = format!("reading {} of {}", shape.name, self.address());
        self.with(|client| {
            let failed = |e: postgres::Error| source_failure(&doing, &e);
            let names: Vec<String> = shape.column_names().map(quote).collect();
            let table = self.table(shape);
            let statement = client.prepare(&format!("SELECT {} FROM {table}", names.join(", "))).map_err(failed)?;
            let mut columns = Vec::new();
            let mut wires = Vec::new();
            for (name, column) in names.iter().zip(statement.columns()) {
                let known = wire(column.type_());
                columns.push(if known.is_some() { name.clone() } else { format!("{name}::text") });
                wires.push(known.unwrap_or(Wire::Text));
            }
            let mut filters: Vec<String> = only(shape).into_iter().collect();
            for (bound, word) in [(part.from, ">="), (part.to, "<")] {
                filters.extend(bound.map(|block| format!("ctid {word} '({block},0)'::tid")));
            }
            let filter = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
            let sql = format!("COPY (SELECT {} FROM {table}{filter}) TO STDOUT (FORMAT binary)", columns.join(", "));
            tracing::debug!(%sql, "reading");
            let reader = client.copy_out(&sql).map_err(failed)?;
            stream(reader, &wires, shape, &doing, each)
        })
    }
}

fn stream(
    mut reader: impl BufRead,
    wires: &[Wire],
    shape: &Shape,
    doing: &str,
    each: &mut dyn FnMut(&Batch) -> Outcome<()>,
) -> Outcome<()> {
    let mut decoder = Decoder::default();
    let mut batch = Batch::new(shape.clone());
    // What has arrived of a row that is not yet whole; PostgreSQL sends whole rows, so this is empty as a rule.
    let mut carry: Vec<u8> = Vec::new();
    loop {
        let chunk = reader.fill_buf().map_err(|e| read_failure(doing, &e))?;
        if chunk.is_empty() {
            break;
        }
        let arrived = chunk.len();
        let mut input: &[u8] = chunk;
        if !carry.is_empty() {
            carry.extend_from_slice(chunk);
            input = &carry;
        }
        let mut taken = 0;
        while let Some(n) = decoder.row(input.get(taken..).unwrap_or_default(), wires, &mut batch)? {
            taken += n;
            if batch.is_full() {
                each(&batch)?;
                batch.clear();
            }
        }
        let rest = input.get(taken..).unwrap_or_default().to_vec();
        carry = rest;
        reader.consume(arrived);
    }
    if !decoder.is_done() {
        return Err(Failure::source(format!("{doing}: the stream of rows was cut")));
    }
    if batch.is_empty() { Ok(()) } else { each(&batch) }
}

fn read_failure(doing: &str, error: &std::io::Error) -> Failure {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<postgres::Error>());
    Failure::source(format!("{doing}: {}", inner.map_or_else(|| error.to_string(), text)))
}

impl Drop for PgSource {
    /// Ends the transactions before the connections: a server process that is still closing would hold its locks.
    fn drop(&mut self) {
        let Some((_, keeper)) = &mut self.moment else { return };
        let keeper = keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        for client in std::iter::once(keeper).chain(idle) {
            let _ = client.batch_execute("ROLLBACK");
        }
    }
}
