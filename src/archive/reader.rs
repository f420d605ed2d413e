//! The archive as a source.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::about::ArchivedAbout;
use super::layout::Compression;
use super::manifest::TableRecord;
use super::rows::{self, Expected};
use super::stored::{Stored, Stretch};
use super::walk;
use crate::domain::address::shown;
use crate::domain::cell::Batch;
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::table::Shape;
use crate::engine::cancel::Cancel;
use crate::engine::{Part, RowSource};

/// An archive every stored byte of which was checked when it was opened. Its parts are ranges of a table's pieces.
pub struct ArchiveSource {
    stored: Box<dyn Stored>,
    name: String,
    about: ArchivedAbout,
    shapes: Vec<Shape>,
    tables: Vec<TableRecord>,
    /// Of each table, in the order of `shapes`.
    pieces: Vec<Vec<Piece>>,
    sqlite: Option<String>,
}

/// Where rows are, and what they must be.
struct Piece {
    entry: String,
    at: u64,
    bytes: u64,
    sha256: String,
    expected: Expected,
}

impl ArchiveSource {
    /// Opens an archive and checks all of it but the rows themselves, which are checked as they are read.
    ///
    /// # Errors
    /// Source: the file cannot be read. Damaged: it is no archive, or damaged, unfinished, or of a newer format.
    /// Interrupted.
    pub fn open(path: &Path, cancel: &Cancel) -> Outcome<ArchiveSource> {
        let name = shown(path);
        let cannot = |e: std::io::Error| Failure::source(format!("{name} cannot be read: {e}"));
        let file = File::open(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(Failure::source(format!("{name} is not a file")));
        }
        Self::of(Box::new(file), name, cancel)
    }

    /// The same for bytes that are stored anywhere, which messages call `name`.
    ///
    /// # Errors
    /// As [`ArchiveSource::open`].
    pub fn of(stored: Box<dyn Stored>, name: String, cancel: &Cancel) -> Outcome<ArchiveSource> {
        let walked = walk::walk(stored.as_ref(), cancel).map_err(|mut f| {
            if matches!(f.kind, Kind::Damaged | Kind::Source) {
                f.message = format!("{name} {}", f.message);
            }
            f
        })?;
        let mut pieces: Vec<Vec<Piece>> = walked.about.tables.iter().map(|_| Vec::new()).collect();
        let places: BTreeMap<&str, usize> =
            walked.about.tables.iter().enumerate().map(|(i, t)| (t.shape.name.as_str(), i)).collect();
        let mut stored_at: Vec<_> = walked.manifest.entries.into_iter().zip(walked.places).collect();
        stored_at.sort_by_key(|(entry, _)| entry.order());
        for (entry, at) in stored_at {
            let Some((table, rows)) = entry.rows else { continue };
            if let Some(pieces) = places.get(table.as_str()).and_then(|i| pieces.get_mut(*i)) {
                pieces.push(Piece {
                    entry: entry.name,
                    at,
                    bytes: entry.bytes,
                    sha256: entry.sha256,
                    expected: Expected { rows, raw_bytes: entry.raw_bytes },
                });
            }
        }
        Ok(ArchiveSource {
            stored,
            name,
            shapes: walked.about.tables.iter().map(|t| Arc::clone(&t.shape)).collect(),
            about: walked.about,
            tables: walked.manifest.tables,
            pieces,
            sqlite: walked.sqlite,
        })
    }

    /// What it says of itself.
    pub fn about(&self) -> &ArchivedAbout {
        &self.about
    }

    /// What it says of its tables, in the order of the shapes: rows and digest as they were read from the source, what
    /// PostgreSQL cannot hold, columns that must be wider.
    pub fn tables(&self) -> &[TableRecord] {
        &self.tables
    }

    /// The digests that the rows must have, in the order of the shapes.
    pub fn digests(&self) -> Vec<TableDigest> {
        self.tables.iter().map(|t| t.digest).collect()
    }

    /// The source's own statements, of a SQLite source.
    pub fn sqlite_ddl(&self) -> Option<&str> {
        self.sqlite.as_deref()
    }

    /// Bytes of its rows before compression.
    pub fn raw_bytes(&self) -> u64 {
        self.pieces.iter().flatten().map(|piece| piece.expected.raw_bytes).sum()
    }

    /// How its rows are compressed.
    pub fn compression(&self) -> Compression {
        self.about.compression
    }

    /// The pieces of a table. Its columns must be those of the archive, for they decide how the text is read.
    fn pieces(&self, shape: &Shape) -> Outcome<&[Piece]> {
        let index = self.shapes.iter().position(|s| s.name == shape.name);
        let stored = index.and_then(|i| self.shapes.get(i));
        let same = stored.is_some_and(|stored| {
            stored.columns.len() == shape.columns.len()
                && stored.columns.iter().zip(&shape.columns).all(|(a, b)| a.name == b.name && a.kind == b.kind)
        });
        match index.and_then(|i| self.pieces.get(i)) {
            Some(pieces) if same => Ok(pieces),
            Some(_) => Err(Failure::source(format!(
                "{}: the columns of `{}` are not those of MLflow's schema at its revision",
                self.name, shape.name
            ))),
            None => Err(Failure::source(format!("{} has no table `{}`", self.name, shape.name))),
        }
    }
}

impl RowSource for ArchiveSource {
    fn address(&self) -> String {
        self.name.clone()
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn rows(&self, shape: &Shape) -> Outcome<u64> {
        Ok(self.pieces(shape)?.iter().map(|p| p.expected.rows).sum())
    }

    fn parts(&self, shape: &Shape, wanted: usize) -> Outcome<Vec<Part>> {
        let pieces = self.pieces(shape)?.len();
        let wanted = wanted.min(pieces);
        if wanted <= 1 {
            return Ok(vec![Part::ALL]);
        }
        let edge = |n: usize| i64::try_from(pieces * n / wanted).ok();
        Ok((0..wanted)
            .map(|n| {
                let from = if n == 0 { None } else { edge(n) };
                let to = if n + 1 == wanted { None } else { edge(n + 1) };
                Part::range(from, to)
            })
            .collect())
    }

    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()> {
        for (number, piece) in self.pieces(shape)?.iter().enumerate() {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            if part.from.is_some_and(|from| number < from) || part.to.is_some_and(|to| number >= to) {
                continue;
            }
            let stored = Stretch::new(self.stored.as_ref(), piece.at, piece.bytes);
            // An error of `each` is the caller's and keeps its words, whatever its kind.
            let mut theirs = None;
            let read = rows::read_stored(
                stored,
                self.about.compression,
                Some(&piece.sha256),
                piece.expected,
                shape,
                &mut |batch| each(batch).inspect_err(|failure| theirs = Some(failure.clone())),
            );
            if let Some(failure) = theirs {
                return Err(failure);
            }
            read.map_err(|f| f.on(format!("{} is damaged: `{}`", self.name, piece.entry)))?;
        }
        Ok(())
    }
}
