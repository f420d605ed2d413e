//! `manifest.json`: what every table and every entry of an archive must be.

use serde::{Deserialize, Serialize};

use super::layout::MANIFEST;
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Outcome};

/// The whole of it.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// The tables in the order of `mlops-archive.json`.
    pub tables: Vec<TableRecord>,
    /// The entries before the manifest, in order.
    pub entries: Vec<EntryRecord>,
}

/// What is known of a table after its last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRecord {
    /// Its name.
    pub name: String,
    /// Rows and digest of what was read from the source.
    pub digest: TableDigest,
    /// Cells that PostgreSQL cannot hold; a text that is merely longer than its column takes is not among them.
    pub unfit: u64,
    /// Columns with longer texts than they take.
    pub widened: Vec<Widened>,
}

/// A column whose texts are longer than its type takes. SQLite does not enforce lengths; `restore.sql` makes the
/// column wider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widened {
    /// The column.
    pub column: String,
    /// What it takes in MLflow's schema, in characters.
    pub limit: u32,
    /// The longest text, in characters.
    pub longest: u64,
}

impl Widened {
    /// The type that holds the longest text: the next whole thousand of characters, and `text` beyond what
    /// `varchar(n)` can be (PostgreSQL documentation, "Character Types": n is at most 10,485,760).
    pub fn postgres_type(&self) -> String {
        match self.longest.div_ceil(1000) * 1000 {
            to if to <= 10_485_760 => format!("varchar({to})"),
            _ => "text".to_owned(),
        }
    }
}

/// What an entry must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRecord {
    /// Its name.
    pub name: String,
    /// Its stored bytes.
    pub bytes: u64,
    /// SHA-256 of its stored bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// Its bytes without compression.
    pub raw_bytes: u64,
    /// Of a data entry: the table and the number of rows.
    pub rows: Option<(String, u64)>,
    /// Of a data entry of a table that came in parts: where its part begins, in the source's own coordinate. Parts are
    /// written as they come, and this is their order.
    pub part: Option<i64>,
}

impl EntryRecord {
    /// By this, pieces of a table are in the order that their rows had in the source.
    pub fn order(&self) -> i64 {
        self.part.unwrap_or(i64::MIN)
    }
}

impl Manifest {
    /// The entry's content.
    ///
    /// # Errors
    /// Internal: it cannot be rendered.
    pub fn render(&self) -> Outcome<Vec<u8>> {
        let table = |t: &TableRecord| TableWire {
            name: t.name.clone(),
            rows: t.digest.rows,
            digest: t.digest.to_string(),
            unfit: t.unfit,
            widened: t.widened.iter().map(WidenedWire::of).collect(),
        };
        let entry = |e: &EntryRecord| EntryWire {
            name: e.name.clone(),
            table: e.rows.as_ref().map(|(table, _)| table.clone()),
            rows: e.rows.as_ref().map(|(_, rows)| *rows),
            bytes: e.bytes,
            raw_bytes: e.raw_bytes,
            part: e.part,
            sha256: e.sha256.clone(),
        };
        // A line for each table and entry: short, and still for people's eyes.
        let list = |lines: Result<Vec<String>, serde_json::Error>| lines.map(|l| l.join(",\n  "));
        let tables = list(self.tables.iter().map(|t| serde_json::to_string(&table(t))).collect());
        let entries = list(self.entries.iter().map(|e| serde_json::to_string(&entry(e))).collect());
        match (tables, entries) {
            (Ok(tables), Ok(entries)) => {
                Ok(format!("{{\n\"tables\": [\n  {tables}\n],\n\"entries\": [\n  {entries}\n]\n}}\n").into_bytes())
            }
            (Err(e), _) | (_, Err(e)) => {
                Err(Failure::internal(format!("the archive's manifest cannot be written: {e}")))
            }
        }
    }

    /// Reads the entry.
    ///
    /// # Errors
    /// Damaged: it is not such a document. The message continues a sentence that begins with the archive's name.
    pub fn parse(text: &[u8]) -> Outcome<Manifest> {
        let wire: ManifestWire = serde_json::from_slice(text)
            .map_err(|e| Failure::damaged(format!("is damaged: `{MANIFEST}` is not readable: {e}")))?;
        let tables = wire.tables.into_iter().map(|table| {
            let sum = u128::from_str_radix(&table.digest, 16).ok().filter(|_| table.digest.len() == 32);
            let sum = sum.ok_or_else(|| {
                Failure::damaged(format!("is damaged: the digest of `{}` is none", table.name.escape_debug()))
            })?;
            let digest = TableDigest { rows: table.rows, sum };
            let widened = table.widened.into_iter().map(WidenedWire::domain).collect();
            Ok(TableRecord { name: table.name, digest, unfit: table.unfit, widened })
        });
        let entries = wire.entries.into_iter().map(|entry| EntryRecord {
            rows: entry.table.zip(entry.rows),
            name: entry.name,
            bytes: entry.bytes,
            sha256: entry.sha256,
            raw_bytes: entry.raw_bytes,
            part: entry.part,
        });
        Ok(Manifest { entries: entries.collect(), tables: tables.collect::<Outcome<_>>()? })
    }
}

#[derive(Deserialize)]
struct ManifestWire {
    tables: Vec<TableWire>,
    entries: Vec<EntryWire>,
}

#[derive(Serialize, Deserialize)]
struct TableWire {
    name: String,
    rows: u64,
    digest: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    unfit: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    widened: Vec<WidenedWire>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
struct WidenedWire {
    column: String,
    limit: u32,
    longest: u64,
}

impl WidenedWire {
    fn of(widened: &Widened) -> WidenedWire {
        WidenedWire { column: widened.column.clone(), limit: widened.limit, longest: widened.longest }
    }

    fn domain(self) -> Widened {
        Widened { column: self.column, limit: self.limit, longest: self.longest }
    }
}

#[derive(Serialize, Deserialize)]
struct EntryWire {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    bytes: u64,
    raw_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<i64>,
    sha256: String,
}
