//! `compare`: are two stores equal, and if not, which rows and columns differ.
//!
//! First the digests of all tables. Only where they differ the rows are looked at: both sides are read once more into
//! a fixed number of buckets by the hash of the row's key, and then the rows of differing buckets only are read and
//! put side by side. So memory is bounded, no order is needed (engines collate differently), and equal data cost one
//! reading.

use std::collections::{BTreeMap, HashSet};

use crate::domain::cell::{Batch, Cell};
use crate::domain::digest::{RowHasher, TableDigest};
use crate::domain::failure::Outcome;
use crate::domain::harmless;
use crate::domain::table::Shape;
use crate::engine::copy::{Work, count, digest};
use crate::engine::event::Event;
use crate::engine::{Part, RowSource};

/// The verdict on one table.
#[derive(Debug, Clone)]
pub struct TableComparison {
    /// The table.
    pub table: String,
    /// The digest of the first store's rows.
    pub source: TableDigest,
    /// The digest of the second store's rows.
    pub target: TableDigest,
    /// What differs, as far as it was looked at; empty for equal tables.
    pub differences: Vec<Difference>,
    /// Differing rows found, of which `differences` lists the first.
    pub differing_rows: u64,
    /// Whether all differing rows were counted; if not, there are more.
    pub counted_all: bool,
}

impl TableComparison {
    /// Whether the tables are equal to the cell.
    pub fn equal(&self) -> bool {
        self.source == self.target
    }
}

/// A row that is not the same in both stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The row's key: columns and values.
    pub key: Vec<(String, String)>,
    /// What is wrong with it.
    pub what: What,
}

/// How a row differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Only the first store has it.
    Missing,
    /// Only the second store has it.
    Extra,
    /// Both have it with other values.
    Changed(Vec<ChangedCell>),
}

/// A cell with two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedCell {
    /// The column.
    pub column: String,
    /// The first store's value, for people.
    pub source: String,
    /// The second store's value.
    pub target: String,
}

/// Compares the tables `shapes` of two stores.
///
/// # Errors
/// A store failed, or the interruption. A difference is no error.
pub fn compare(
    source: &dyn RowSource,
    target: &dyn RowSource,
    shapes: &[Shape],
    work: &Work<'_>,
) -> Outcome<Vec<TableComparison>> {
    let (source_rows, target_rows) = (count(source, shapes, work)?, count(target, shapes, work)?);
    let total = source_rows.iter().sum::<u64>() + target_rows.iter().sum::<u64>();
    work.events.event(Event::Phase { name: "comparing", total: Some(total), unit: "rows" });
    let sources = digest(source, shapes, &source_rows, work)?;
    let targets = digest(target, shapes, &target_rows, work)?;
    verdicts(source, target, shapes, &sources, &targets, work)
}

/// The verdicts over digests that are known already; rows are read only where these differ.
///
/// # Errors
/// As [`compare`].
pub fn verdicts(
    source: &dyn RowSource,
    target: &dyn RowSource,
    shapes: &[Shape],
    sources: &[TableDigest],
    targets: &[TableDigest],
    work: &Work<'_>,
) -> Outcome<Vec<TableComparison>> {
    let mut out = Vec::new();
    for ((shape, a), b) in shapes.iter().zip(sources).zip(targets) {
        let mut verdict = TableComparison {
            table: shape.name.clone(),
            source: *a,
            target: *b,
            differences: Vec::new(),
            differing_rows: 0,
            counted_all: true,
        };
        if !verdict.equal() {
            locate(source, target, shape, work, &mut verdict)?;
        }
        out.push(verdict);
    }
    Ok(out)
}

const BUCKETS: usize = 4096;
/// Differing rows that are listed.
const LISTED: usize = 20;
/// Bounds of what is held in memory while rows are put side by side.
const MOST_ROWS: u64 = 20_000;
const MOST_BYTES: usize = 32 << 20;

fn bucket_of(key: u128) -> usize {
    (key % BUCKETS as u128) as usize
}

fn locate(
    source: &dyn RowSource,
    target: &dyn RowSource,
    shape: &Shape,
    work: &Work<'_>,
    verdict: &mut TableComparison,
) -> Outcome<()> {
    let (a, b) = (buckets(source, shape, work)?, buckets(target, shape, work)?);
    let mut chosen: HashSet<usize> = HashSet::new();
    let mut rows = 0;
    for (index, (a, b)) in a.iter().zip(&b).enumerate() {
        if a == b {
            continue;
        }
        if !chosen.is_empty() && rows + a.rows + b.rows > MOST_ROWS {
            verdict.counted_all = false;
            break;
        }
        rows += a.rows + b.rows;
        chosen.insert(index);
    }
    let (a, b) = (pick(source, shape, &chosen, work)?, pick(target, shape, &chosen, work)?);
    if a.cut || b.cut {
        verdict.counted_all = false;
    }
    side_by_side(shape, &a, &b, verdict);
    Ok(())
}

fn key_cells<'a>(shape: &Shape, row: &'a [Cell]) -> Vec<&'a Cell> {
    shape.identifying().iter().filter_map(|i| row.get(*i)).collect()
}

fn buckets(store: &dyn RowSource, shape: &Shape, work: &Work<'_>) -> Outcome<Vec<TableDigest>> {
    let mut buckets = vec![TableDigest::default(); BUCKETS];
    let mut hasher = RowHasher::new(&shape.name);
    store.read(shape, Part::ALL, &mut |batch| {
        work.cancel.check()?;
        for row in batch.iter() {
            let key = hasher.cells(batch, key_cells(shape, row).into_iter());
            if let Some(bucket) = buckets.get_mut(bucket_of(key)) {
                bucket.add(TableDigest { rows: 1, sum: hasher.row(batch, row) });
            }
        }
        Ok(())
    })?;
    Ok(buckets)
}

/// Rows of the chosen buckets with the hashes of their keys and of themselves.
struct Picked {
    batch: Batch,
    hashes: Vec<(u128, u128)>,
    cut: bool,
}

fn pick(store: &dyn RowSource, shape: &Shape, chosen: &HashSet<usize>, work: &Work<'_>) -> Outcome<Picked> {
    let mut picked = Picked { batch: Batch::new(shape.clone()), hashes: Vec::new(), cut: false };
    let mut hasher = RowHasher::new(&shape.name);
    store.read(shape, Part::ALL, &mut |batch| {
        work.cancel.check()?;
        for row in batch.iter() {
            let key = hasher.cells(batch, key_cells(shape, row).into_iter());
            if !chosen.contains(&bucket_of(key)) {
                continue;
            }
            if picked.batch.weight() > MOST_BYTES {
                picked.cut = true;
                continue;
            }
            picked.batch.push_row(batch, row);
            picked.hashes.push((key, hasher.row(batch, row)));
        }
        Ok(())
    })?;
    Ok(picked)
}

fn side_by_side(shape: &Shape, a: &Picked, b: &Picked, verdict: &mut TableComparison) {
    // Rows by key. A damaged target may have lost its primary key, so a key can stand for several rows.
    let mut by_key: BTreeMap<u128, [Vec<usize>; 2]> = BTreeMap::new();
    for (side, picked) in [a, b].into_iter().enumerate() {
        for (index, (key, _)) in picked.hashes.iter().enumerate() {
            if let Some(list) = by_key.entry(*key).or_default().get_mut(side) {
                list.push(index);
            }
        }
    }
    let (rows_a, rows_b): (Vec<&[Cell]>, Vec<&[Cell]>) = (a.batch.iter().collect(), b.batch.iter().collect());
    for [mut left, mut right] in by_key.into_values() {
        left.retain(|l| {
            let hash = a.hashes.get(*l).map(|h| h.1);
            match right.iter().position(|r| b.hashes.get(*r).map(|h| h.1) == hash) {
                Some(same) => {
                    right.swap_remove(same);
                    false
                }
                None => true,
            }
        });
        for turn in 0..left.len().max(right.len()) {
            verdict.differing_rows += 1;
            if verdict.differences.len() >= LISTED {
                continue;
            }
            let row_a = left.get(turn).and_then(|i| rows_a.get(*i)).copied();
            let row_b = right.get(turn).and_then(|i| rows_b.get(*i)).copied();
            let (key, what) = match (row_a, row_b) {
                (Some(x), Some(y)) => (key_text(shape, &a.batch, x), What::Changed(changed(shape, a, x, b, y))),
                (Some(x), None) => (key_text(shape, &a.batch, x), What::Missing),
                (None, Some(y)) => (key_text(shape, &b.batch, y), What::Extra),
                (None, None) => continue,
            };
            verdict.differences.push(Difference { key, what });
        }
    }
}

fn changed(shape: &Shape, a: &Picked, x: &[Cell], b: &Picked, y: &[Cell]) -> Vec<ChangedCell> {
    let mut hasher = RowHasher::new("");
    let mut out = Vec::new();
    for ((column, x), y) in shape.columns.iter().zip(x).zip(y) {
        if hasher.cells(&a.batch, std::iter::once(x)) != hasher.cells(&b.batch, std::iter::once(y)) {
            let shown = |batch: &Batch, cell: Cell| match cell {
                // Hashes of passwords and encrypted keys are nobody's business, not even on one's own terminal.
                Cell::Text(_) | Cell::Json(_) | Cell::Bytes(_) if is_secret(&shape.name, &column.name) => {
                    "(not shown)".to_owned()
                }
                cell => show(batch, cell),
            };
            out.push(ChangedCell {
                column: column.name.clone(),
                source: shown(&a.batch, *x),
                target: shown(&b.batch, *y),
            });
        }
    }
    out
}

/// Columns whose values are secrets: basic-auth's password hashes, the gateway's keys, webhooks' secrets.
fn is_secret(table: &str, column: &str) -> bool {
    table == "secrets" || column.contains("password") || column.contains("secret")
}

/// The key of a row for people: columns and values.
pub fn key_text(shape: &Shape, batch: &Batch, row: &[Cell]) -> Vec<(String, String)> {
    let part = |i: usize| Some((shape.columns.get(i)?.name.clone(), show(batch, *row.get(i)?)));
    shape.identifying().into_iter().filter_map(part).collect()
}

/// A value for people, at most about a line long, with its type visible: text is quoted.
pub fn show(batch: &Batch, cell: Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Int(v) => v.to_string(),
        Cell::Float(v) => format!("{v:?}"),
        Cell::Bool(v) => v.to_string(),
        Cell::Text(s) | Cell::Json(s) => show_text(batch.bytes(s)),
        Cell::Bytes(s) => {
            let bytes = batch.bytes(s);
            let head: String = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
            format!("{} bytes x'{head}{}'", bytes.len(), if bytes.len() > 16 { "..." } else { "" })
        }
    }
}

/// Artifact addresses may hold a password (`ftp://user:password@host/`), or what they are signed with.
fn show_text(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = harmless::masked(&String::from_utf8_lossy(bytes));
    let count = text.chars().count();
    if count <= SHOWN {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head:?}... ({count} characters)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_artifact_address_is_not_shown() {
        assert_eq!(show_text(b"ftp://user:hunter2@host/x"), "\"ftp://user:***@host/x\"");
        for text in ["s3://bucket/a:b@c", "plain:text@x", "ftp://user@host/x", "file:///C:/x"] {
            assert_eq!(show_text(text.as_bytes()), format!("{text:?}"));
        }
    }
}
