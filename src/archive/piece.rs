//! A piece of a table's rows while it is being written: compressed as the rows come, in memory, and closed before it
//! grows large.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use super::layout::{Compression, sha256_hex};
use crate::domain::failure::{Failure, Outcome};

/// Measured on a sample of a million metrics: gzip at this level is no larger than `pg_dump -Fc` and twice as fast, zstd
/// at this level is smaller and faster than that.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 6;

/// A piece that takes rows.
pub struct Piece {
    encoder: Encoder,
    /// Bytes of COPY text so far.
    pub raw_bytes: u64,
    /// Rows so far.
    pub rows: u64,
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

/// A piece that is complete.
pub struct Closed {
    /// What is stored.
    pub stored: Vec<u8>,
    /// Its SHA-256.
    pub sha256: String,
    /// Bytes of COPY text.
    pub raw_bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl Piece {
    /// An empty piece.
    ///
    /// # Errors
    /// Internal: there is no memory for the compressor.
    pub fn new(compression: Compression) -> Outcome<Piece> {
        let encoder = match compression {
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Compression::Zstd => Encoder::Zstd(ZstdEncoder::new(Vec::new(), ZSTD_LEVEL).map_err(failed)?),
        };
        Ok(Piece { encoder, raw_bytes: 0, rows: 0 })
    }

    /// Takes so many whole rows as COPY text.
    ///
    /// # Errors
    /// Internal: the compressor failed.
    pub fn take(&mut self, text: &[u8], rows: u64) -> Outcome<()> {
        match &mut self.encoder {
            Encoder::Gzip(encoder) => encoder.write_all(text),
            Encoder::Zstd(encoder) => encoder.write_all(text),
        }
        .map_err(failed)?;
        self.raw_bytes += text.len() as u64;
        self.rows += rows;
        Ok(())
    }

    /// Closes it.
    ///
    /// # Errors
    /// Internal: the compressor failed.
    pub fn close(self) -> Outcome<Closed> {
        let stored = match self.encoder {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
        .map_err(failed)?;
        Ok(Closed { sha256: sha256_hex(&stored), stored, raw_bytes: self.raw_bytes, rows: self.rows })
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::internal(format!("compressing failed: {error}"))
}
