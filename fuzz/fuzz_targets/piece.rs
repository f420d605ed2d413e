//! The bytes of one data entry. The first byte chooses the compression and what is expected of it.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mlops::archive::layout::Compression;
use mlops::archive::rows::{Expected, read_rows, read_stored};
use mlops::domain::table::{Column, TableShape, Type};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let kinds = [Type::Text, Type::Int8, Type::Float, Type::Bytes];
    let width = 1 + usize::from(choice >> 6);
    let columns = kinds.iter().take(width).map(|kind| Column {
        name: kind.word().to_owned(),
        kind: *kind,
        max_chars: None,
        not_null: false,
    });
    let shape = Arc::new(TableShape { name: "t".to_owned(), columns: columns.collect(), key: vec![0], only: None });
    let expected = Expected { rows: u64::from(choice >> 2 & 15), raw_bytes: bytes.len() as u64 * 50 };
    let mut rows = 0;
    let mut each = |batch: &mlops::domain::cell::Batch| {
        rows += batch.rows() as u64;
        Ok(())
    };
    let outcome = match choice & 3 {
        0 => read_stored(bytes, Compression::Gzip, None, expected, &shape, &mut each),
        1 => read_stored(bytes, Compression::Zstd, None, expected, &shape, &mut each),
        _ => {
            let expected = Expected { raw_bytes: bytes.len() as u64, ..expected };
            read_rows(&mut &bytes[..], expected, &shape, &mut each)
        }
    };
    assert!(rows <= expected.rows && (outcome.is_err() || rows == expected.rows));
});
