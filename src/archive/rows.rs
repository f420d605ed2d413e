//! Rows out of the stored bytes of one piece, at bounded cost whatever the bytes are.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};
use zstd::stream::read::Decoder as ZstdDecoder;

use super::layout::{self, Compression, MAX_ROW_BYTES};
use crate::domain::cell::Batch;
use crate::domain::copy_text::{Decoder, Malformed};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;

/// What a piece must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Its rows.
    pub rows: u64,
    /// Its bytes of COPY text.
    pub raw_bytes: u64,
}

/// What the compressor may ask for: 2 to this many bytes. The writer's level needs less.
const ZSTD_WINDOW_LOG: u32 = 24;
const BUFFER: usize = 128 << 10;

/// Reads the rows of a piece as it is stored, and compares its SHA-256 with `sha256` where that is given: the file may
/// have changed since it was checked as a whole.
///
/// # Errors
/// Damaged: the bytes are not what was expected. Else what `each` failed with.
pub fn read_stored(
    stored: impl Read,
    compression: Compression,
    sha256: Option<&str>,
    expected: Expected,
    shape: &Shape,
    each: &mut dyn FnMut(&Batch) -> Outcome<()>,
) -> Outcome<()> {
    let mut source = BufReader::with_capacity(BUFFER, Hashing { inner: stored, hasher: Sha256::new() });
    match compression {
        // One member and not all of them: what follows it is not the writer's.
        Compression::Gzip => read_rows(&mut GzDecoder::new(&mut source), expected, shape, each)?,
        Compression::Zstd => {
            let mut decoder = ZstdDecoder::with_buffer(&mut source).map_err(|e| torn(&e))?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|e| torn(&e))?;
            read_rows(&mut decoder, expected, shape, each)?;
        }
    }
    if !source.fill_buf().map_err(|e| torn(&e))?.is_empty() {
        return Err(Failure::damaged("something follows its compressed rows"));
    }
    let found = layout::hex(&source.into_inner().hasher.finalize());
    match sha256 {
        Some(sha256) if found != sha256 => {
            Err(Failure::damaged("it changed while it was read").hint("nothing may write to an archive in use"))
        }
        _ => Ok(()),
    }
}

/// Hashes what goes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hasher.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Reads rows of COPY text.
///
/// # Errors
/// Damaged: it is other text than was expected. Else what `each` failed with.
pub fn read_rows(
    text: &mut dyn Read,
    expected: Expected,
    shape: &Shape,
    each: &mut dyn FnMut(&Batch) -> Outcome<()>,
) -> Outcome<()> {
    let mut decoder = Decoder::new(shape.clone());
    let mut batch = Batch::new(shape.clone());
    let mut chunk = vec![0; BUFFER];
    // What has come of a row that is not yet whole.
    let mut carry: Vec<u8> = Vec::new();
    let (mut rows, mut raw_bytes) = (0, 0);
    loop {
        let read = match text.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(torn(&e)),
        };
        raw_bytes += read as u64;
        if raw_bytes > expected.raw_bytes {
            return Err(Failure::damaged(format!("it has more than the {} bytes that it should", expected.raw_bytes)));
        }
        let mut rest = chunk.get(..read).unwrap_or_default();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (head, tail) = rest.split_at(end);
            rest = tail.split_first().map_or(&[], |(_, rest)| rest);
            rows += 1;
            if rows > expected.rows {
                return Err(Failure::damaged(format!("it has more than the {} rows that it should", expected.rows)));
            }
            let line = if carry.is_empty() {
                head
            } else {
                carry.extend_from_slice(head);
                &carry
            };
            decoder.line(line, &mut batch).map_err(|m| malformed(m, rows, shape))?;
            if !carry.is_empty() {
                carry.clear();
                carry.shrink_to(8 * BUFFER);
            }
            if batch.is_full() {
                each(&batch)?;
                batch.clear();
            }
        }
        if carry.len() + rest.len() > MAX_ROW_BYTES {
            return Err(Failure::damaged(format!("line {}: it is longer than any row may be", rows + 1)));
        }
        carry.extend_from_slice(rest);
    }
    if !carry.is_empty() {
        return Err(Failure::damaged(format!("line {}: it does not end", rows + 1)));
    }
    if (rows, raw_bytes) != (expected.rows, expected.raw_bytes) {
        return Err(Failure::damaged(format!(
            "it has {rows} rows in {raw_bytes} bytes, and should have {} in {}",
            expected.rows, expected.raw_bytes
        )));
    }
    if batch.is_empty() { Ok(()) } else { each(&batch) }
}

fn malformed(what: Malformed, line: u64, shape: &Shape) -> Failure {
    match what.column.and_then(|i| shape.columns.get(i)) {
        Some(column) => Failure::damaged(format!("line {line}: `{}`: {}", column.name.escape_debug(), what.why)),
        None => Failure::damaged(format!("line {line}: {}", what.why)),
    }
}

fn torn(error: &io::Error) -> Failure {
    Failure::damaged(format!("it cannot be decompressed: {error}"))
}
