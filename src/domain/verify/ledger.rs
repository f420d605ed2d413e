//! What a database is and what is in its tables, at two moments: is it still the same one, and are its rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fingerprint::Rules;

/// Into so many heaps the rows of a table are put, those of one run (or trace, or model) into the same one: what somebody
/// writes meanwhile hides only what lies in its heap.
pub const HEAPS: u128 = 4_096;

/// Columns that tell what a row belongs to; the first that a table has, else the first of its key.
pub const OWNERS: [&str; 9] = [
    "run_uuid",
    "run_id",
    "request_id",
    "trace_id",
    "model_id",
    "destination_id",
    "dataset_uuid",
    "experiment_id",
    "name",
];

/// Tables whose rows are written once and never again: another value is no ordinary work.
const WRITTEN_ONCE: [&str; 2] = ["metrics", "params"];

/// Tables from which an upgrade of MLflow's moves rows into columns of others (store/db_migrations/versions/75868b020152:
/// names, sessions, tokens and costs of traces).
const MOVED_BY_UPGRADES: [&str; 4] = ["trace_tags", "trace_request_metadata", "trace_metrics", "span_metrics"];

/// Whether rows of a table are only ever added by ordinary work.
pub fn written_once(table: &str) -> bool {
    WRITTEN_ONCE.contains(&table)
}

/// Some rows of a table: how many, and the sum over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heap(pub u64, #[serde(with = "hex")] pub u64);

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(sum: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{sum:x}"))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// The rows of a table by heap.
pub type Heaps = BTreeMap<u16, Heap>;

/// Puts a row where it belongs. `owner`: a hash of what it belongs to, `sum`: of the row.
pub fn put(heaps: &mut Heaps, owner: u128, sum: u128) {
    let heap = heaps.entry((owner % HEAPS) as u16).or_default();
    heap.0 += 1;
    heap.1 = heap.1.wrapping_add(sum as u64);
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    #[serde(rename = "table")]
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The digest over these columns, 32 hex digits.
    pub digest: String,
    /// The columns, in the order they were digested in.
    pub columns: Vec<String>,
    /// Its rows by heap, over the same columns.
    pub heaps: Heaps,
    /// Columns that an earlier reading had and that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// A database at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Its address, masked.
    pub address: String,
    /// `SQLite` or `PostgreSQL`.
    pub engine: String,
    /// The engine's version.
    pub version: String,
    /// MLflow's revision, for people.
    #[serde(rename = "revision_text")]
    pub revision: String,
    /// What makes it this database and no other, by name: file, device and inode; system identifier and oid.
    pub identity: Vec<(String, String)>,
    /// MLflow's tables, but for the one that holds the revision.
    pub tables: Vec<Table>,
}

/// Something that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// Its kind, a stable word.
    pub kind: &'static str,
    /// On which thing.
    pub on: String,
    /// What is wrong.
    pub told: String,
}

/// It is another database.
pub const ANOTHER: &str = "another_database";
/// Its schema is of another release.
pub const UPGRADED: &str = "schema_upgraded";
/// Rows that are gone.
pub const LOST: &str = "lost_rows";
/// Rows that are not what they were.
pub const CHANGED: &str = "changed_rows";
/// Rows that were not there.
pub const NEW: &str = "new_rows";
/// Rows or columns that an upgrade moves elsewhere.
pub const MOVED: &str = "moved_rows";
/// A table or a column that is gone.
pub const GONE: &str = "lost_table";

impl Ledger {
    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|t| t.rows).sum()
    }

    fn identity_text(&self) -> String {
        self.identity.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// What is not the same. The later one was read over the columns of the earlier one, as far as it has them.
pub fn compare(before: &Ledger, after: &Ledger, rules: Rules) -> Vec<Divergence> {
    let mut found = Vec::new();
    let mut add = |kind, on: &str, told: String| found.push(Divergence { kind, on: on.to_owned(), told });
    let moved = before.engine != after.engine;
    if moved && !rules.upgrade {
        add(ANOTHER, &after.address, format!("it was {} and is {} now", before.engine, after.engine));
    } else if !moved && before.identity != after.identity {
        let told = format!("it was {}, and is {}", before.identity_text(), after.identity_text());
        add(ANOTHER, &after.address, told);
    }
    if before.revision != after.revision && !rules.upgrade {
        let told = format!("its revision was {}, and is {} now", before.revision, after.revision);
        add(UPGRADED, &after.address, told);
    }
    for table in &before.tables {
        let Some(now) = after.tables.iter().find(|t| t.name == table.name) else {
            if table.rows > 0 {
                add(GONE, &table.name, format!("the table is gone, with {} rows", table.rows));
            }
            continue;
        };
        // Both schemas were found sound: which columns there are is the revision's affair.
        if !now.gone.is_empty() && table.rows > 0 {
            let kind = if rules.upgrade && before.revision != after.revision { MOVED } else { GONE };
            add(kind, &table.name, format!("its columns {} are gone", now.gone.join(", ")));
        }
        if now.digest == table.digest && now.rows == table.rows {
            continue;
        }
        let moved =
            rules.upgrade && before.revision != after.revision && MOVED_BY_UPGRADES.contains(&table.name.as_str());
        for (kind, told) in heaps(table, now) {
            if moved && kind != NEW {
                let why = "an upgrade of MLflow's moves rows of this table into others, which cannot be told from it";
                add(MOVED, &table.name, format!("{told}; {why}"));
            } else {
                add(kind, &table.name, told);
            }
        }
    }
    found
}

/// What became of the rows of a table, as far as heaps tell.
fn heaps(before: &Table, now: &Table) -> Vec<(&'static str, String)> {
    let (mut lost, mut changed, mut beside) = (0, 0, 0);
    for (number, heap) in &before.heaps {
        match now.heaps.get(number).copied().unwrap_or_default() {
            Heap(rows, _) if rows < heap.0 => lost += heap.0 - rows,
            Heap(rows, _) if rows > heap.0 => beside += heap.0,
            Heap(_, sum) if sum != heap.1 => changed += heap.0,
            Heap(..) => {}
        }
    }
    let grown = now
        .heaps
        .iter()
        .map(|(number, heap)| heap.0.saturating_sub(before.heaps.get(number).copied().unwrap_or_default().0));
    let new: u64 = grown.sum();
    let mut found = Vec::new();
    if lost > 0 {
        found.push((LOST, format!("{} rows were there, and {} are: {lost} at least are lost", before.rows, now.rows)));
    }
    if changed > 0 {
        found.push((
            CHANGED,
            format!("at least one of {changed} rows is another one, of {} that were there", before.rows),
        ));
    }
    if new > 0 {
        let judged = match beside {
            0 => String::new(),
            n => format!("; {n} rows of before lie beside them and could not be judged"),
        };
        found.push((NEW, format!("{new} rows more than before{judged}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(tables: &[(&str, u64, &str)]) -> Ledger {
        let table = |(name, rows, digest): &(&str, u64, &str)| Table {
            name: (*name).to_owned(),
            rows: *rows,
            digest: (*digest).to_owned(),
            columns: vec!["a".to_owned()],
            heaps: [(0, Heap(*rows, u64::from(digest.as_bytes()[0])))].into_iter().filter(|_| *rows > 0).collect(),
            gone: Vec::new(),
        };
        Ledger {
            address: "/srv/mlflow.db".to_owned(),
            engine: "SQLite".to_owned(),
            version: "3".to_owned(),
            revision: "r1".to_owned(),
            identity: vec![("inode".to_owned(), "1".to_owned())],
            tables: tables.iter().map(table).collect(),
        }
    }

    #[test]
    fn what_is_new_hides_only_what_lies_in_its_heap() {
        let table = |heaps: &[(u16, Heap)]| {
            let rows = heaps.iter().map(|(_, heap)| heap.0).sum();
            let digest = format!("{heaps:?}");
            Table {
                name: "metrics".to_owned(),
                rows,
                digest,
                columns: Vec::new(),
                heaps: heaps.iter().copied().collect(),
                gone: Vec::new(),
            }
        };
        let before = table(&[(1, Heap(3, 7)), (2, Heap(5, 9)), (3, Heap(4, 4)), (4, Heap(2, 2))]);
        let now = table(&[(1, Heap(2, 6)), (2, Heap(6, 1)), (3, Heap(4, 5)), (4, Heap(2, 2)), (9, Heap(8, 8))]);
        let kinds: Vec<&str> = heaps(&before, &now).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [LOST, CHANGED, NEW]);
        assert!(heaps(&before, &now)[2].1.starts_with("9 rows more than before; 5 rows of before"));
        assert!(heaps(&before, &before).is_empty());
        let text = serde_json::to_string(&now).expect("text");
        assert_eq!(serde_json::from_str::<Table>(&text).expect("read"), now);
    }

    #[test]
    fn rows_that_an_upgrade_moves_are_told_and_no_loss() {
        let before = ledger(&[("trace_tags", 2, "x"), ("tags", 2, "x")]);
        let mut after = ledger(&[("trace_tags", 1, "y"), ("tags", 1, "y")]);
        let kinds = |after: &Ledger, upgrade| -> Vec<&str> {
            compare(&before, after, Rules { frozen: false, upgrade }).into_iter().map(|d| d.kind).collect()
        };
        assert_eq!(kinds(&after, true), [LOST, LOST]);
        after.revision = "r2".to_owned();
        assert_eq!(kinds(&after, true), [MOVED, LOST]);
        assert_eq!(kinds(&after, false), [UPGRADED, LOST, LOST]);
    }

    #[test]
    fn each_way_to_be_another_has_its_name() {
        let before = ledger(&[("a", 1, "x"), ("b", 2, "x"), ("c", 3, "x"), ("d", 1, "x"), ("e", 0, "x")]);
        let mut after = ledger(&[("a", 1, "x"), ("b", 1, "y"), ("c", 3, "y"), ("f", 9, "x")]);
        let kinds = |after: &Ledger, rules| -> Vec<(&str, String)> {
            compare(&before, after, rules).into_iter().map(|d| (d.kind, d.on)).collect()
        };
        let rows = [(LOST, "b".to_owned()), (CHANGED, "c".to_owned()), (GONE, "d".to_owned())];
        assert_eq!(kinds(&after, Rules::default()), rows);
        after.identity = vec![("inode".to_owned(), "2".to_owned())];
        after.revision = "r2".to_owned();
        let place = "/srv/mlflow.db".to_owned();
        let more = [(ANOTHER, place.clone()), (UPGRADED, place)];
        assert_eq!(kinds(&after, Rules::default()), [&more[..], &rows].concat());
        let upgrade = Rules { frozen: false, upgrade: true };
        assert_eq!(kinds(&after, upgrade), [&more[..1], &rows].concat());
        after.engine = "PostgreSQL".to_owned();
        assert_eq!(kinds(&after, upgrade), rows);
    }
}
