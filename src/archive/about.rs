//! `mlops-archive.json`: what an archive is and which tables it holds, known before its first row is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layout::{ABOUT, Compression, FORMAT, MAX_COLUMNS};
use crate::domain::catalogue::{Line, TableDef};
use crate::domain::digest;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Column, Shape, TableShape, Type};

/// What the writer is told of the store that it is to hold.
#[derive(Debug, Clone)]
pub struct About {
    /// This program with its version: `mlops 0.1.0`.
    pub tool: String,
    /// When the export began, RFC 3339 in UTC.
    pub started: String,
    /// The source's engine: `SQLite`, `PostgreSQL`.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The revisions of MLflow's lines that live in it.
    pub revisions: Vec<(Line, String)>,
    /// The definitions of MLflow's tables, in the catalogue's order.
    pub tables: Vec<Arc<TableDef>>,
    /// Every table whose rows are to come, in order: MLflow's, then others.
    pub shapes: Vec<Shape>,
    /// The source's own statements, of a SQLite source.
    pub sqlite_ddl: Option<String>,
}

impl About {
    /// The tables that MLflow does not own.
    pub fn foreign(&self) -> impl Iterator<Item = &Shape> {
        self.shapes.iter().filter(|s| !self.tables.iter().any(|t| t.name == s.name))
    }

    /// The entry's content.
    ///
    /// # Errors
    /// Internal: it cannot be rendered.
    pub fn render(&self, compression: Compression) -> Outcome<Vec<u8>> {
        let tables = self.shapes.iter().map(|shape| {
            let name = |i: &usize| shape.columns.get(*i).map(|c| c.name.clone());
            TableWire {
                name: shape.name.clone(),
                foreign: self.foreign().any(|f| f.name == shape.name),
                columns: shape.columns.iter().map(ColumnWire::of).collect(),
                key: shape.key.iter().filter_map(name).collect(),
                only: shape.only.clone(),
            }
        });
        let revision =
            |(line, id): &(Line, String)| RevisionWire { line: line.word().to_owned(), revision: id.clone() };
        let head = HeadWire {
            format: FORMAT,
            tool: self.tool.clone(),
            started: self.started.clone(),
            source: SourceWire { engine: self.engine.clone(), version: self.version.clone() },
            revisions: self.revisions.iter().map(revision).collect(),
            digest_encoding: digest::ENCODING,
            compression: compression.word().to_owned(),
        };
        let rendered = || -> serde_json::Result<String> {
            let head = serde_json::to_string_pretty(&head)?;
            let head = head.trim_end_matches('}').trim_end();
            // A line for each table: short, and still for people's eyes.
            let tables = tables.map(|t| serde_json::to_string(&t)).collect::<serde_json::Result<Vec<_>>>()?;
            Ok(format!("{head},\n  \"tables\": [\n    {}\n  ]\n}}\n", tables.join(",\n    ")))
        };
        rendered()
            .map(String::into_bytes)
            .map_err(|e| Failure::internal(format!("the archive's description cannot be written: {e}")))
    }
}

/// What an archive says of itself.
#[derive(Debug, Clone)]
pub struct ArchivedAbout {
    /// The program that wrote it.
    pub tool: String,
    /// When that began.
    pub started: String,
    /// The engine of the source.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The revisions of MLflow's lines; whether they are known is for the caller to say.
    pub revisions: Vec<(Line, String)>,
    /// How data entries are compressed.
    pub compression: Compression,
    /// The tables.
    pub tables: Vec<ArchivedTable>,
}

/// A table of an archive.
#[derive(Debug, Clone)]
pub struct ArchivedTable {
    /// Its shape as it was when it was written.
    pub shape: Shape,
    /// Whether MLflow does not own it.
    pub foreign: bool,
}

impl ArchivedAbout {
    /// Reads the entry.
    ///
    /// # Errors
    /// Damaged: it is not such a document, or one of a newer format. The message continues a sentence that begins with
    /// the archive's name.
    pub fn parse(text: &[u8]) -> Outcome<ArchivedAbout> {
        let broken = |e: serde_json::Error| Failure::damaged(format!("is damaged: `{ABOUT}` is not readable: {e}"));
        let probe: ProbeWire = serde_json::from_slice(text).map_err(broken)?;
        if probe.format != FORMAT {
            return Err(other_format(&probe));
        }
        let AboutWire { head: wire, tables: listed } = serde_json::from_slice(text).map_err(broken)?;
        if wire.digest_encoding != digest::ENCODING {
            return Err(Failure::damaged(format!(
                "has digests of encoding {}, and this mlops knows {}",
                wire.digest_encoding,
                digest::ENCODING
            ))
            .hint(newer(&probe)));
        }
        let wrong = |what: String| Failure::damaged(format!("is damaged: `{ABOUT}` has {what}"));
        let compression = Compression::of_word(&wire.compression)
            .ok_or_else(|| wrong(format!("the compression `{}`", wire.compression.escape_debug())))?;
        let mut revisions = Vec::new();
        for revision in wire.revisions {
            let line = [Line::Tracking, Line::Auth].into_iter().find(|l| l.word() == revision.line);
            let line = line.ok_or_else(|| wrong(format!("the line `{}`", revision.line.escape_debug())))?;
            revisions.push((line, revision.revision));
        }
        let mut tables = Vec::new();
        let mut names = BTreeSet::new();
        for table in listed {
            let name = table.name.clone();
            if !names.insert(name.clone()) {
                return Err(wrong(format!("the table `{}` twice", name.escape_debug())));
            }
            let foreign = table.foreign;
            let shape = table.shape().map_err(|e| wrong(format!("the table `{}` {e}", name.escape_debug())))?;
            tables.push(ArchivedTable { shape: Arc::new(shape), foreign });
        }
        Ok(ArchivedAbout {
            tool: wire.tool,
            started: wire.started,
            engine: wire.source.engine,
            version: wire.source.version,
            revisions,
            compression,
            tables,
        })
    }
}

fn other_format(probe: &ProbeWire) -> Failure {
    if probe.format > FORMAT {
        let message = format!("was written by a newer mlops (format {}; this one reads up to {FORMAT})", probe.format);
        return Failure::damaged(message).hint(newer(probe));
    }
    Failure::damaged(format!("is damaged: there is no format {}", probe.format))
}

fn newer(probe: &ProbeWire) -> String {
    let tool: String = probe.tool.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(60).collect();
    if tool.is_empty() { "use a newer mlops".to_owned() } else { format!("use {tool} or newer") }
}

/// What any format says, so that a newer one can be told from a damaged one.
#[derive(Deserialize)]
struct ProbeWire {
    format: u64,
    #[serde(default)]
    tool: String,
}

#[derive(Serialize, Deserialize)]
struct HeadWire {
    format: u64,
    tool: String,
    started: String,
    source: SourceWire,
    revisions: Vec<RevisionWire>,
    digest_encoding: u8,
    compression: String,
}

#[derive(Deserialize)]
struct AboutWire {
    #[serde(flatten)]
    head: HeadWire,
    tables: Vec<TableWire>,
}

#[derive(Serialize, Deserialize)]
struct SourceWire {
    engine: String,
    version: String,
}

#[derive(Serialize, Deserialize)]
struct RevisionWire {
    line: String,
    revision: String,
}

#[derive(Serialize, Deserialize)]
struct TableWire {
    name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    foreign: bool,
    columns: Vec<ColumnWire>,
    key: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only: Option<Vec<String>>,
}

impl TableWire {
    fn shape(self) -> Result<TableShape, String> {
        if self.columns.is_empty() {
            return Err("without columns".to_owned());
        }
        if self.columns.len() > MAX_COLUMNS || self.key.len() > self.columns.len() {
            return Err("with more columns than a table has".to_owned());
        }
        let mut columns: Vec<Column> = Vec::new();
        let mut names = BTreeSet::new();
        for column in self.columns {
            let kind = Type::of_word(&column.kind)
                .ok_or_else(|| format!("with a column of the type `{}`", column.kind.escape_debug()))?;
            if !names.insert(column.name.clone()) {
                return Err(format!("with the column `{}` twice", column.name.escape_debug()));
            }
            columns.push(Column { name: column.name, kind, max_chars: column.max_chars, not_null: column.not_null });
        }
        let place = |name: &String| {
            let found = columns.iter().position(|c| c.name == *name);
            found.ok_or_else(|| format!("with a key of the column `{}`, which it lacks", name.escape_debug()))
        };
        let key = self.key.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(TableShape { name: self.name, columns, key, only: self.only })
    }
}

#[derive(Serialize, Deserialize)]
struct ColumnWire {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chars: Option<u32>,
    not_null: bool,
}

impl ColumnWire {
    fn of(column: &Column) -> ColumnWire {
        ColumnWire {
            name: column.name.clone(),
            kind: column.kind.word().to_owned(),
            max_chars: column.max_chars,
            not_null: column.not_null,
        }
    }
}
