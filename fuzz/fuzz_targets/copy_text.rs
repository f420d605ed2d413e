//! Lines of COPY text: refused, or one row that is written back as the same bytes (a float may be written shorter).
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mlops::domain::cell::{Batch, Cell};
use mlops::domain::copy_text::{Decoder, encode};
use mlops::domain::table::{Column, TableShape, Type};

fuzz_target!(|bytes: &[u8]| {
    let kinds = [Type::Text, Type::Json, Type::Bytes, Type::Int8, Type::Int4, Type::Bool, Type::Date, Type::Float];
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let kinds = kinds.iter().enumerate().filter(|(i, _)| choice >> i & 1 == 1).map(|(_, kind)| *kind);
    let columns = kinds.map(|kind| Column { name: kind.word().to_owned(), kind, max_chars: None, not_null: false });
    let shape = Arc::new(TableShape { name: "t".to_owned(), columns: columns.collect(), key: vec![], only: None });
    let mut decoder = Decoder::new(shape.clone());
    for line in bytes.split(|b| *b == b'\n') {
        let mut batch = Batch::new(shape.clone());
        if decoder.line(line, &mut batch).is_err() {
            continue;
        }
        assert_eq!(batch.rows(), usize::from(!shape.columns.is_empty()));
        let floats = batch.iter().flatten().any(|cell| matches!(cell, Cell::Float(_)));
        let mut text = Vec::new();
        for row in batch.iter() {
            encode(&batch, row, &mut text);
        }
        text.pop();
        assert!(floats || shape.columns.is_empty() || text == line);
    }
});
