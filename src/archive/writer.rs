//! The archive as a sink. Each load compresses on its own thread; finished pieces are appended one after the other.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::about::About;
use super::frame::{BLOCK, Frame, MAX_BYTES};
use super::layout::{self, Compression, MAX_ENTRIES, MAX_MANIFEST_BYTES, MAX_ROW_BYTES, PIECE_BYTES};
use super::manifest::{EntryRecord, Manifest, TableRecord, Widened};
use super::output::{Destination, Output};
use super::piece::{Closed, Piece};
use super::script;
use crate::domain::cell::{Batch, Cell};
use crate::domain::copy_text;
use crate::domain::digest::TableDigest;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::fit::{self, Misfit};
use crate::domain::table::Shape;
use crate::engine::compare::key_text;
use crate::engine::copy::ROWS_A_PART;
use crate::engine::{Part, RowSink, RowWriter};

/// How an archive is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Of the data entries.
    pub compression: Compression,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Bytes of the archive.
    pub bytes: u64,
    /// Its entries, manifest and seal included.
    pub entries: usize,
    /// Per table: cells that PostgreSQL cannot hold, and columns that `restore.sql` makes wider.
    pub tables: Vec<TableRecord>,
}

/// An archive that is being written. Until [`ArchiveSink::publish`] nothing stands under its final name, and one that
/// is dropped before leaves nothing. After a load has failed it cannot be finished any more: pieces of that load may
/// be in it.
pub struct ArchiveSink {
    state: Mutex<State>,
    path: Option<PathBuf>,
    about: About,
    /// The row counts that were announced, in the order of `about.shapes`.
    rows: Vec<u64>,
    compression: Compression,
    seconds: u64,
}

struct State {
    output: Output,
    bytes: u64,
    entries: Vec<EntryRecord>,
    tables: Vec<Progress>,
    /// Why nothing may be appended any more.
    closed: Option<&'static str>,
}

/// What is known of a table so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    rows: u64,
    pieces: usize,
    unfit: u64,
    /// The most characters of a text in each column that is longer than its column takes, by position.
    longest: Vec<u64>,
}

impl Progress {
    fn note(&mut self, column: usize, characters: u64) {
        if self.longest.len() <= column {
            self.longest.resize(column + 1, 0);
        }
        if let Some(longest) = self.longest.get_mut(column) {
            *longest = characters.max(*longest);
        }
    }
}

impl ArchiveSink {
    /// Begins an archive of `about.shapes`, whose tables have so many `rows`.
    ///
    /// # Errors
    /// Refused: the file is there already. Target: it cannot be written. Source: a name that no script can carry.
    pub fn create(to: Destination, about: &About, rows: &[u64], options: Options) -> Outcome<ArchiveSink> {
        script::check_names(about)?;
        let seconds = about.started.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_second()).ok());
        let output = Output::open(to)?;
        let sink = ArchiveSink {
            path: output.path().map(Path::to_owned),
            state: Mutex::new(State {
                output,
                bytes: 0,
                entries: Vec::new(),
                tables: vec![Progress::default(); about.shapes.len()],
                closed: None,
            }),
            about: about.clone(),
            rows: rows.to_vec(),
            compression: options.compression,
            seconds: seconds.unwrap_or(0),
        };
        let mut state = sink.state();
        sink.text(&mut state, layout::ABOUT, &about.render(options.compression)?)?;
        sink.text(&mut state, layout::TABLES, script::tables(about).as_bytes())?;
        sink.text(&mut state, layout::POST_DATA, script::post_data(about).as_bytes())?;
        if let Some(ddl) = &about.sqlite_ddl {
            sink.text(&mut state, layout::SQLITE, ddl.as_bytes())?;
        }
        drop(state);
        Ok(sink)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an entry that is not compressed.
    fn text(&self, state: &mut State, name: &str, text: &[u8]) -> Outcome<()> {
        if layout::limit(name).is_some_and(|most| text.len() as u64 > most) {
            return Err(Failure::source(format!("`{name}` of the archive would be larger than any reader takes")));
        }
        let record = EntryRecord {
            name: name.to_owned(),
            bytes: text.len() as u64,
            sha256: layout::sha256_hex(text),
            raw_bytes: text.len() as u64,
            rows: None,
            part: None,
        };
        self.append(state, record, text)
    }

    fn append(&self, state: &mut State, record: EntryRecord, stored: &[u8]) -> Outcome<()> {
        if let Some(why) = state.closed {
            return Err(Failure::internal(format!("`{}` comes too late: the archive {why}", record.name)));
        }
        if state.entries.len() + 2 >= MAX_ENTRIES || record.bytes > MAX_BYTES {
            return Err(Failure::source("the store is larger than an archive can be")
                .hint("archives hold some 800 GB of rows; use PostgreSQL's own backup for more"));
        }
        let frame = Frame { name: record.name.clone(), bytes: record.bytes, seconds: self.seconds };
        let padding = [0; BLOCK];
        let padding = padding.get(..frame.padding()).unwrap_or_default();
        // What is torn by an error here is never published.
        state.closed = Some("could not be written");
        for part in [&frame.header(), stored, padding] {
            state.output.append(part)?;
            state.bytes += part.len() as u64;
        }
        state.closed = None;
        state.entries.push(record);
        Ok(())
    }

    /// Appends a piece of a part of the table at `index`. `only`: the table has no other piece.
    fn piece(&self, index: usize, shape: &Shape, part: Part, piece: &Closed, only: bool) -> Outcome<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(progress) = state.tables.get_mut(index) else {
            return Err(Failure::internal(format!("the archive has no table `{}`", shape.name)));
        };
        progress.pieces += 1;
        progress.rows += piece.rows;
        if only && progress.pieces > 1 {
            return Err(Failure::internal(format!("`{}` is loaded in parts, though it is small", shape.name)));
        }
        let number = if only { None } else { Some(progress.pieces) };
        let record = EntryRecord {
            name: layout::piece_name(&shape.name, number, self.compression),
            bytes: piece.stored.len() as u64,
            sha256: piece.sha256.clone(),
            raw_bytes: piece.raw_bytes,
            rows: Some((shape.name.clone(), piece.rows)),
            part: part.from,
        };
        self.append(state, record, &piece.stored)
    }

    /// Completes the archive with `restore.sql` and the manifest, and lets it reach the disk. `digests` are those of the
    /// rows that were sent, in the order of the tables.
    ///
    /// # Errors
    /// Target: it cannot be written. Internal: the digests count other rows than were loaded, or a load failed.
    pub fn finish(&self, digests: &[TableDigest]) -> Outcome<Written> {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(why) = state.closed {
            return Err(Failure::internal(format!("the archive cannot be finished: it {why}")));
        }
        if digests.len() != state.tables.len() {
            return Err(Failure::internal("an archive was finished with digests of other tables"));
        }
        let mut manifest = Manifest::default();
        for ((shape, digest), progress) in self.about.shapes.iter().zip(digests).zip(&state.tables) {
            if digest.rows != progress.rows {
                return Err(Failure::internal(format!(
                    "`{}`: {} rows were counted and {} were written",
                    shape.name, digest.rows, progress.rows
                )));
            }
            let widened = shape.columns.iter().zip(&progress.longest).filter(|(_, longest)| **longest > 0);
            let widened = widened.filter_map(|(column, longest)| {
                Some(Widened { column: column.name.clone(), limit: column.max_chars?, longest: *longest })
            });
            manifest.tables.push(TableRecord {
                name: shape.name.clone(),
                digest: *digest,
                unfit: progress.unfit,
                widened: widened.collect(),
            });
        }
        manifest.entries = state.entries.clone();
        let restore = script::restore(&self.about, &manifest, self.compression);
        self.text(state, layout::RESTORE, restore.as_bytes())?;
        manifest.entries = state.entries.clone();
        let rendered = manifest.render()?;
        if rendered.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Failure::source("the store is larger than an archive can be"));
        }
        self.text(state, layout::MANIFEST, &rendered)?;
        self.text(state, layout::SEAL, layout::seal(&rendered).as_bytes())?;
        state.output.append(&[0; 2 * BLOCK])?;
        state.bytes += 2 * BLOCK as u64;
        state.output.flush()?;
        state.closed = Some("is complete");
        Ok(Written { bytes: state.bytes, entries: state.entries.len(), tables: manifest.tables })
    }

    /// Where the unpublished file is, so that it can be read back; `None`: it is a stream.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Gives a finished archive its name. A stream has none.
    ///
    /// # Errors
    /// Refused: the file appeared meanwhile. Target: the disk failed. Internal: it is not finished.
    pub fn publish(self) -> Outcome<()> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.closed != Some("is complete") {
            return Err(Failure::internal("an archive was to be published that is not finished"));
        }
        state.output.publish()
    }
}

impl RowSink for ArchiveSink {
    fn load(&self, shape: &Shape, part: Part, fill: &mut dyn FnMut(&mut dyn RowWriter) -> Outcome<()>) -> Outcome<u64> {
        let index = self.about.shapes.iter().position(|s| s.name == shape.name);
        let index = index.ok_or_else(|| Failure::internal(format!("the archive has no table `{}`", shape.name)))?;
        let small = self.rows.get(index).is_some_and(|rows| *rows <= ROWS_A_PART);
        let mut load = Load {
            sink: self,
            shape,
            index,
            part,
            numbered: !small,
            piece: None,
            scratch: Vec::new(),
            seen: Progress::default(),
        };
        let outcome = fill(&mut load).and_then(|()| load.close(true));
        let mut state = self.state();
        match (&outcome, state.tables.get_mut(index)) {
            (Ok(()), Some(progress)) => {
                progress.unfit += load.seen.unfit;
                for (column, longest) in load.seen.longest.iter().enumerate() {
                    progress.note(column, *longest);
                }
            }
            _ => state.closed = Some("lacks rows: a load failed"),
        }
        outcome.map(|()| load.seen.rows)
    }
}

/// The rows of one load on their way.
struct Load<'a> {
    sink: &'a ArchiveSink,
    shape: &'a Shape,
    index: usize,
    part: Part,
    /// Whether pieces of this table are numbered.
    numbered: bool,
    piece: Option<Piece>,
    scratch: Vec<u8>,
    seen: Progress,
}

impl Load<'_> {
    /// Closes the running piece; `last`: no row comes after it.
    fn close(&mut self, last: bool) -> Outcome<()> {
        let Some(piece) = self.piece.take() else { return Ok(()) };
        let closed = piece.close()?;
        self.numbered |= !last;
        self.sink.piece(self.index, self.shape, self.part, &closed, !self.numbered)
    }

    /// Hands what is encoded to the running piece.
    fn hand_on(&mut self, rows: u64) -> Outcome<()> {
        if rows == 0 {
            return Ok(());
        }
        let piece = match &mut self.piece {
            Some(piece) => piece,
            empty => empty.insert(Piece::new(self.sink.compression)?),
        };
        piece.take(&self.scratch, rows)?;
        self.scratch.clear();
        self.scratch.shrink_to(4 << 20);
        Ok(())
    }

    fn judge(&mut self, batch: &Batch, row: &[Cell]) {
        for (index, (column, cell)) in self.shape.columns.iter().zip(row).enumerate() {
            match (fit::check(column, batch, *cell), *cell) {
                (Ok(()), _) => {}
                (Err(Misfit::TooLong { .. }), Cell::Text(span)) => {
                    let text = String::from_utf8_lossy(batch.bytes(span));
                    self.seen.note(index, text.chars().count() as u64);
                }
                (Err(_), _) => self.seen.unfit += 1,
            }
        }
    }
}

impl RowWriter for Load<'_> {
    fn write(&mut self, batch: &Batch) -> Outcome<()> {
        let mut waiting = 0;
        for row in batch.iter() {
            let there = self.piece.as_ref().map_or(0, |p| p.raw_bytes) + self.scratch.len() as u64;
            // Closed when the next row comes and not when the last one went: else every table whose rows happen to
            // fill a piece would have an empty one after it.
            if there >= PIECE_BYTES {
                self.hand_on(waiting)?;
                waiting = 0;
                self.close(false)?;
            }
            let before = self.scratch.len();
            copy_text::encode(batch, row, &mut self.scratch);
            if self.scratch.len() - before > MAX_ROW_BYTES {
                let key: Vec<String> = key_text(self.shape, batch, row)
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                return Err(Failure::source(format!(
                    "the row {} of `{}` has more than {} MiB, which no archive holds",
                    key.join(", "),
                    self.shape.name,
                    MAX_ROW_BYTES >> 20
                )));
            }
            self.judge(batch, row);
            self.seen.rows += 1;
            waiting += 1;
        }
        self.hand_on(waiting)
    }
}
