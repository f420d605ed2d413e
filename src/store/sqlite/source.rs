//! Rows out of a SQLite file that nothing changes any more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::{Explain, open_readonly};
use crate::domain::cell::{Batch, Cell};
use crate::domain::ddl::{quote, quote_list};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Shape, Type};
use crate::engine::{Part, RowSource};

/// A source over an unchanging file; a [`super::snapshot::Snapshot`]'s, as a rule.
pub struct SqliteSource {
    path: PathBuf,
    shown: PathBuf,
    shapes: Vec<Shape>,
    idle: Mutex<Vec<Connection>>,
    /// Of tables that are read in the order of their key, the keys at which parts begin.
    borders: Mutex<BTreeMap<String, Vec<Vec<Value>>>>,
}

impl SqliteSource {
    /// A source of `shapes` in the file `path`, which messages call `shown`.
    pub fn new(path: PathBuf, shown: PathBuf, shapes: Vec<Shape>) -> Self {
        SqliteSource { path, shown, shapes, idle: Mutex::default(), borders: Mutex::default() }
    }

    /// A connection for one call; given back for the next.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = open_readonly(&self.path, true).of_source(&self.shown)?;
                // Rows are read once and in order: a small cache is enough, and a mapped file would count as memory.
                connection.execute_batch("PRAGMA mmap_size=0; PRAGMA cache_size=-4096;").of_source(&self.shown)?;
                connection
            }
        };
        let result = work(&connection);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }
}

/// `WHERE` of a shape that shares its table with another program, and its values.
fn only(shape: &Shape) -> (String, Vec<&String>) {
    match (&shape.only, shape.columns.first()) {
        (Some(values), Some(column)) => {
            let marks = vec!["?"; values.len()].join(", ");
            (format!("{} IN ({marks})", quote(&column.name)), values.iter().collect())
        }
        _ => ("1".to_owned(), Vec::new()),
    }
}

impl RowSource for SqliteSource {
    fn address(&self) -> String {
        crate::domain::address::shown(&self.shown)
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn rows(&self, shape: &Shape) -> Outcome<u64> {
        let (filter, values) = only(shape);
        // NOT INDEXED: the rows of the table itself. An index that lacks some of them must not count them away.
        let sql = format!("SELECT count(*) FROM {} NOT INDEXED WHERE {filter}", quote(&shape.name));
        self.with(|c| c.query_row(&sql, params_from_iter(&values), |row| row.get::<_, i64>(0)).of_source(&self.shown))
            .map(i64::unsigned_abs)
    }

    fn parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        if wanted <= 1 || shape.only.is_some() {
            return Ok(vec![Part::ALL]);
        }
        // Two scalar subqueries: SQLite answers each from the end of the b-tree, but scans for min and max together.
        let table = quote(&shape.name);
        let sql = format!("SELECT (SELECT min(rowid) FROM {table}), (SELECT max(rowid) FROM {table})");
        let ends = self.with(|c| {
            match c.query_row(&sql, [], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))) {
                Ok(ends) => Ok(ends),
                // A table WITHOUT ROWID, which MLflow does not have but another program may.
                Err(e) if e.to_string().contains("rowid") => Ok((None, None)),
                Err(e) => Err(super::source_failure(&self.shown, &e)),
            }
        })?;
        let (Some(first), Some(last)) = ends else { return Ok(vec![Part::ALL]) };
        let step = (i128::from(last) - i128::from(first)) / wanted as i128 + 1;
        let edge = |n: usize| i64::try_from(i128::from(first) + step * n as i128).ok();
        Ok((0..wanted)
            .map(|n| {
                let from = if n == 0 { None } else { edge(n) };
                let to = if n + 1 == wanted { None } else { edge(n + 1) };
                Part::range(from, to)
            })
            .collect())
    }

    fn key_parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        let Some(borders) = self.key_borders(shape, wanted)? else { return self.parts(shape, wanted) };
        let last = i64::try_from(borders).unwrap_or(0);
        let edge = |n: i64| (0 < n && n <= last).then_some(n);
        Ok((0..=last).map(|n| Part { from: edge(n), to: edge(n + 1), by_key: true }).collect())
    }

    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()> {
        self.read_rows(shape, part, None, &mut |batch, _| each(batch))
    }
}

impl SqliteSource {
    /// Finds the keys at which about `wanted` parts begin, of a table that is read in the order of its key; how many.
    fn key_borders(&self, shape: &Shape, wanted: usize) -> Outcome<Option<usize>> {
        // One part has no border, and a table that was counted need not be gone through for it.
        let rows = if wanted > 1 { usize::try_from(self.rows(shape)?).unwrap_or(usize::MAX) } else { 0 };
        let step = rows.div_ceil(wanted.max(1)).max(1);
        self.with(|connection| {
            let find = || -> rusqlite::Result<Option<Vec<Vec<Value>>>> {
                let Some(index) = key_index(connection, shape)? else { return Ok(None) };
                let key = quote_list(key_columns(shape));
                let sql =
                    format!("SELECT {key} FROM {} INDEXED BY {} ORDER BY {key}", quote(&shape.name), quote(&index));
                let mut statement = connection.prepare(&sql)?;
                let mut rows = statement.query([])?;
                let mut borders = Vec::new();
                let mut at = 0;
                while let Some(row) = if wanted > 1 { rows.next()? } else { None } {
                    if at > 0 && at % step == 0 {
                        borders.push((0..shape.key.len()).map(|i| row.get(i)).collect::<rusqlite::Result<_>>()?);
                    }
                    at += 1;
                }
                Ok(Some(borders))
            };
            let Some(borders) = find().of_source(&self.shown)? else { return Ok(None) };
            let count = borders.len();
            self.borders.lock().unwrap_or_else(PoisonError::into_inner).insert(shape.name.clone(), borders);
            Ok(Some(count))
        })
    }

    /// The key at which the part with that number begins; the first part has none.
    fn border(&self, shape: &Shape, number: i64) -> Outcome<Vec<Value>> {
        let borders = self.borders.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(number - 1).ok();
        borders
            .get(&shape.name)
            .and_then(|borders| borders.get(index?).cloned())
            .ok_or_else(|| Failure::internal(format!("`{}` has no part {number}", shape.name)))
    }

    /// As [`RowSource::read`], with the rowid of each row, and in the table's own order.
    ///
    /// # Errors
    /// Source: SQLite could not read it. Else what `each` failed with.
    pub fn read_numbered(
        &self,
        shape: &Shape,
        part: Part,
        each: &mut dyn FnMut(&Batch, &[i64]) -> Outcome<()>,
    ) -> Outcome<()> {
        self.read_rows(shape, part, Some(Vec::new()), each)
    }

    fn read_rows(
        &self,
        shape: &Shape,
        part: Part,
        mut numbers: Option<Vec<i64>>,
        each: &mut dyn FnMut(&Batch, &[i64]) -> Outcome<()>,
    ) -> Outcome<()> {
        let (mut filter, values) = only(shape);
        let mut values: Vec<Value> = values.iter().map(|v| Value::Text((*v).clone())).collect();
        let number = if numbers.is_some() { ", rowid" } else { "" };
        let mut sql = format!("SELECT {}{number} FROM {}", quote_list(shape.column_names()), quote(&shape.name));
        self.with(|connection| {
            let index = if part.by_key { key_index(connection, shape).of_source(&self.shown)? } else { None };
            let bounds = [(part.from, ">="), (part.to, "<")].into_iter();
            let bounds = bounds.filter_map(|(bound, word)| Some((bound?, word)));
            match index {
                Some(index) => {
                    let key = quote_list(key_columns(shape));
                    let marks = vec!["?"; shape.key.len()].join(", ");
                    for (bound, word) in bounds {
                        filter.push_str(&format!(" AND ({key}) {word} ({marks})"));
                        values.extend(self.border(shape, bound)?);
                    }
                    sql.push_str(&format!(" INDEXED BY {} WHERE {filter} ORDER BY {key}", quote(&index)));
                }
                None => {
                    for (bound, word) in bounds {
                        filter.push_str(&format!(" AND rowid {word} ?"));
                        values.push(Value::Integer(bound));
                    }
                    sql.push_str(&format!(" WHERE {filter}"));
                }
            }
            tracing::debug!(%sql, ?part, "reading");
            let mut statement = connection.prepare(&sql).of_source(&self.shown)?;
            let mut rows = statement.query(params_from_iter(&values)).of_source(&self.shown)?;
            let mut batch = Batch::new(shape.clone());
            while let Some(row) = rows.next().of_source(&self.shown)? {
                for (index, column) in shape.columns.iter().enumerate() {
                    push(&mut batch, column.kind, row.get_ref(index).of_source(&self.shown)?);
                }
                if let Some(numbers) = &mut numbers {
                    numbers.push(row.get(shape.columns.len()).of_source(&self.shown)?);
                }
                if batch.is_full() {
                    each(&batch, numbers.as_deref().unwrap_or_default())?;
                    batch.clear();
                    numbers.iter_mut().for_each(Vec::clear);
                }
            }
            if batch.is_empty() { Ok(()) } else { each(&batch, numbers.as_deref().unwrap_or_default()) }
        })
    }
}

fn key_columns(shape: &Shape) -> impl Iterator<Item = &str> {
    shape.key.iter().filter_map(|i| Some(shape.columns.get(*i)?.name.as_str()))
}

/// The index of the primary key, where it holds every column of the table: then rows come out of it in key order at no
/// cost, and whoever builds that key over them has nothing left to sort. MLflow's `metrics` is such a table.
fn key_index(connection: &Connection, shape: &Shape) -> rusqlite::Result<Option<String>> {
    if shape.only.is_some() || shape.key.len() != shape.columns.len() {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT name FROM pragma_index_list(?1) WHERE origin = 'pk'")?;
    let Some(index) = statement.query_map([&shape.name], |row| row.get::<_, String>(0))?.next().transpose()? else {
        return Ok(None);
    };
    let mut statement = connection.prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?;
    let columns: Vec<Option<String>> =
        statement.query_map([&index], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let key = shape.key.iter().map(|i| shape.columns.get(*i).map(|c| c.name.clone()));
    Ok(columns.into_iter().eq(key).then_some(index))
}

fn push(batch: &mut Batch, kind: Type, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => batch.push(Cell::Null),
        ValueRef::Integer(v) => batch.push_int(kind, v),
        ValueRef::Real(v) => batch.push_float(kind, v),
        ValueRef::Text(v) => batch.push_text(kind, v),
        ValueRef::Blob(v) => batch.push_bytes(Cell::Bytes, v),
    }
}
