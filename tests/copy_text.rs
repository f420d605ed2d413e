//! The COPY text that archives hold, with PostgreSQL itself as the oracle.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;

use mlops::domain::cell::{Batch, Cell};
use mlops::domain::table::{Column, Shape, TableShape, Type};
use mlops::domain::{copy_codec, copy_text};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{postgres, rounds};

/// A value that PostgreSQL takes in a column of its type.
fn sound_value(kind: Type) -> BoxedStrategy<Option<Vec<u8>>> {
    let hard = ["", "\\N", "\\.", "\t\n\r\u{8}\u{b}\u{c}\\", "\u{1}\u{7f}\u{feff}", "\\x00", "\\000t", "NULL"]
        .map(String::from);
    let text = prop_oneof![1 => prop::sample::select(hard.to_vec()), 3 => "[^\0]*"];
    let float = prop_oneof![
        1 => prop::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX, 1e15, 1e16, 0.1]),
        3 => any::<u64>().prop_map(f64::from_bits),
    ];
    let value = match kind {
        Type::Int4 => any::<i32>().prop_map(|v| i64::from(v).to_be_bytes().to_vec()).boxed(),
        Type::Int8 => any::<i64>().prop_map(|v| v.to_be_bytes().to_vec()).boxed(),
        Type::Float => float.prop_map(|v| v.to_be_bytes().to_vec()).boxed(),
        Type::Bool => any::<bool>().prop_map(|v| vec![u8::from(v)]).boxed(),
        Type::Text => text.prop_map(String::into_bytes).boxed(),
        Type::Json => text.prop_map(|t| serde_json::to_vec(&t).unwrap()).boxed(),
        Type::Bytes => prop::collection::vec(any::<u8>(), 0..100).boxed(),
        Type::Date => {
            (1u32..9999, 1u32..13, 1u32..29).prop_map(|(y, m, d)| format!("{y:04}-{m:02}-{d:02}").into_bytes()).boxed()
        }
    };
    prop::option::weighted(0.9, value).boxed()
}

/// PostgreSQL's own COPY reads our text as the values that its binary COPY, of which we know that it is right, gives
/// back.
#[test]
fn postgresql_reads_the_text_as_the_same_values() {
    let kinds = [Type::Int4, Type::Int8, Type::Float, Type::Bool, Type::Text, Type::Json, Type::Bytes, Type::Date];
    let columns =
        kinds.iter().map(|kind| Column { name: kind.word().to_owned(), kind: *kind, max_chars: None, not_null: false });
    let shape: Shape =
        Arc::new(TableShape { name: "oracle".to_owned(), columns: columns.collect(), key: vec![], only: None });
    let database = postgres(15).database("copy_text");
    let client = RefCell::new(database.client());
    client.borrow_mut().batch_execute(&mlops::domain::ddl::create_foreign_table(&shape)).unwrap();
    client.borrow_mut().batch_execute("CREATE TABLE expected (LIKE oracle)").unwrap();
    let row = kinds.map(sound_value).to_vec();
    let config = Config { cases: rounds(), failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(row, 1..100), |rows| {
            let mut batch = Batch::new(shape.clone());
            for (kind, value) in rows.iter().flat_map(|row| kinds.iter().zip(row)) {
                let fixed = || <[u8; 8]>::try_from(value.as_deref().unwrap()).unwrap();
                match (kind, value) {
                    (_, None) => batch.push(Cell::Null),
                    (Type::Int4 | Type::Int8, _) => batch.push(Cell::Int(i64::from_be_bytes(fixed()))),
                    (Type::Float, _) => batch.push(Cell::Float(f64::from_be_bytes(fixed()))),
                    (Type::Bool, Some(v)) => batch.push(Cell::Bool(v[0] == 1)),
                    (Type::Text | Type::Date, Some(v)) => batch.push_bytes(Cell::Text, v),
                    (Type::Json, Some(v)) => batch.push_bytes(Cell::Json, v),
                    (Type::Bytes, Some(v)) => batch.push_bytes(Cell::Bytes, v),
                }
            }
            let (mut text, mut binary) = (Vec::new(), copy_codec::HEADER.to_vec());
            batch.iter().for_each(|row| copy_text::encode(&batch, row, &mut text));
            copy_codec::encode(&batch, &mut binary).unwrap();
            binary.extend_from_slice(&copy_codec::TRAILER);
            let mut client = client.borrow_mut();
            client.batch_execute("TRUNCATE oracle, expected").unwrap();
            for (sql, bytes) in
                [("COPY oracle FROM STDIN", &text), ("COPY expected FROM STDIN (FORMAT binary)", &binary)]
            {
                let mut writer = client.copy_in(sql).unwrap();
                writer.write_all(bytes).unwrap();
                writer.finish().unwrap();
            }
            let mut read = |sql: &str| {
                let mut bytes = Vec::new();
                client.copy_out(sql).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            };
            // In the order in which they were loaded; floats in a form that tells any two apart.
            prop_assert!(read("COPY oracle TO STDOUT") == read("COPY expected TO STDOUT"));
            Ok(())
        })
        .unwrap();
}
