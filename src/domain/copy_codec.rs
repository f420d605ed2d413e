//! PostgreSQL's binary COPY format, both directions.
//!
//! Source: PostgreSQL documentation, "COPY", section "Binary Format": a signature, then per row a 16-bit count of
//! fields and per field a 32-bit length (-1 for NULL) and the type's binary form in network byte order, then -1.

use crate::domain::cell::{Batch, Cell};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::fit::{self, Misfit};
use crate::domain::table::{Column, Type};

/// The signature, no flags, no header extension.
pub const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of the data.
pub const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// Appends the rows of a batch to `out`.
///
/// # Errors
/// The first value that does not fit its column: row and column position in the batch, and why. `out` then ends
/// with a torn row and must be thrown away.
pub fn encode(batch: &Batch, out: &mut Vec<u8>) -> Result<(), (usize, usize, Misfit)> {
    let columns = &batch.shape().columns;
    let fields = (columns.len() as i16).to_be_bytes();
    for (index, row) in batch.iter().enumerate() {
        out.extend_from_slice(&fields);
        for (position, (column, cell)) in columns.iter().zip(row).enumerate() {
            fit::check(column, batch, *cell).map_err(|misfit| (index, position, misfit))?;
            encode_cell(column, batch, *cell, out);
        }
    }
    Ok(())
}

/// `cell` has been judged to fit `column`.
fn encode_cell(column: &Column, batch: &Batch, cell: Cell, out: &mut Vec<u8>) {
    match cell {
        Cell::Null => out.extend_from_slice(&(-1i32).to_be_bytes()),
        Cell::Int(value) if column.kind == Type::Int4 => field(out, &(value as i32).to_be_bytes()),
        Cell::Int(value) => field(out, &value.to_be_bytes()),
        Cell::Float(value) => field(out, &value.to_be_bytes()),
        Cell::Bool(value) => field(out, &[u8::from(value)]),
        Cell::Text(span) if column.kind == Type::Date => {
            field(out, &fit::days(batch.bytes(span)).unwrap_or_default().to_be_bytes());
        }
        Cell::Text(span) | Cell::Json(span) | Cell::Bytes(span) => field(out, batch.bytes(span)),
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The binary forms that a column of a PostgreSQL database may come in; a column of any other type is read as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// real
    Float4,
    /// double precision
    Float8,
    /// boolean
    Bool,
    /// bytea
    Bytea,
    /// text, varchar, json: the bytes as they are
    Text,
}

/// Takes fields off a binary COPY stream that is held in memory as far as it has arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    header_seen: bool,
    done: bool,
}

impl Decoder {
    /// Takes one row off the front of `input` into `batch`. `Ok(Some(n))`: the row took n bytes. `Ok(None)`: more
    /// bytes are needed, or the trailer has come.
    ///
    /// # Errors
    /// A stream that is not what PostgreSQL's documentation says.
    pub fn row(&mut self, input: &[u8], wires: &[Wire], batch: &mut Batch) -> Outcome<Option<usize>> {
        let mut rest = input;
        if !self.header_seen {
            if rest.len() < HEADER.len() {
                return Ok(None);
            }
            rest = rest.strip_prefix(HEADER.as_slice()).ok_or_else(|| broken("its header"))?;
            self.header_seen = true;
            return Ok(Some(input.len() - rest.len()));
        }
        let Some(count) = take::<2>(&mut rest) else { return Ok(None) };
        let count = i16::from_be_bytes(count);
        if count == -1 {
            self.done = true;
            return Ok(None);
        }
        if usize::try_from(count).ok() != Some(wires.len()) {
            return Err(broken("the number of fields of a row"));
        }
        // First see whether the whole row is there, so that a batch never holds half a row.
        let mut look = rest;
        for _ in wires {
            let Some(len) = take::<4>(&mut look) else { return Ok(None) };
            let len = usize::try_from(i32::from_be_bytes(len)).unwrap_or(0);
            match look.get(len..) {
                Some(after) => look = after,
                None => return Ok(None),
            }
        }
        let shape = batch.shape().clone();
        for (wire, column) in wires.iter().zip(&shape.columns) {
            let Some(len) = take::<4>(&mut rest) else { return Ok(None) };
            let len = i32::from_be_bytes(len);
            if len < 0 {
                batch.push(Cell::Null);
                continue;
            }
            let (bytes, after) = rest.split_at_checked(len as usize).ok_or_else(|| broken("a field"))?;
            rest = after;
            decode(*wire, column.kind, bytes, batch)?;
        }
        Ok(Some(input.len() - rest.len()))
    }

    /// Whether the trailer has been seen: without it the stream was cut.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

fn decode(wire: Wire, kind: Type, bytes: &[u8], batch: &mut Batch) -> Outcome<()> {
    fn fixed<const N: usize>(bytes: &[u8]) -> Outcome<[u8; N]> {
        bytes.try_into().map_err(|_| broken("the length of a field"))
    }
    match wire {
        Wire::Int2 => batch.push_int(kind, i16::from_be_bytes(fixed(bytes)?).into()),
        Wire::Int4 => batch.push_int(kind, i32::from_be_bytes(fixed(bytes)?).into()),
        Wire::Int8 => batch.push_int(kind, i64::from_be_bytes(fixed(bytes)?)),
        Wire::Float4 => batch.push_float(kind, f32::from_be_bytes(fixed(bytes)?).into()),
        Wire::Float8 => batch.push_float(kind, f64::from_be_bytes(fixed(bytes)?)),
        Wire::Bool => batch.push(Cell::Bool(fixed::<1>(bytes)? == [1])),
        Wire::Bytea => batch.push_bytes(Cell::Bytes, bytes),
        Wire::Text => batch.push_text(kind, bytes),
    }
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn broken(what: &str) -> Failure {
    Failure::internal(format!("PostgreSQL's COPY stream is not what its documentation says: {what} is wrong"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::table::TableShape;

    fn column(kind: Type, max_chars: Option<u32>) -> Column {
        Column { name: kind.word().to_owned(), kind, max_chars, not_null: false }
    }

    fn shape(columns: Vec<Column>) -> Arc<TableShape> {
        Arc::new(TableShape { name: "t".to_owned(), columns, key: vec![0], only: None })
    }

    #[test]
    fn what_is_encoded_is_decoded_in_pieces_of_any_size() {
        let kinds = [Type::Int8, Type::Float, Type::Bool, Type::Text, Type::Json, Type::Bytes, Type::Int4];
        let shape = shape(kinds.iter().map(|k| column(*k, None)).collect());
        let wires = [Wire::Int8, Wire::Float8, Wire::Bool, Wire::Text, Wire::Text, Wire::Bytea, Wire::Int4];
        let mut batch = Batch::new(shape.clone());
        batch.push(Cell::Int(i64::MIN));
        batch.push(Cell::Float(f64::NEG_INFINITY));
        batch.push(Cell::Bool(true));
        batch.push_bytes(Cell::Text, "naïve \n".as_bytes());
        batch.push_bytes(Cell::Json, b"{\"a\": 1}");
        batch.push_bytes(Cell::Bytes, &[0, 255]);
        batch.push(Cell::Int(-1));
        for _ in 0..7 {
            batch.push(Cell::Null);
        }
        let mut stream = HEADER.to_vec();
        encode(&batch, &mut stream).expect("every value fits");
        stream.extend_from_slice(&TRAILER);

        let mut decoder = Decoder::default();
        let mut back = Batch::new(shape);
        let mut seen = 0;
        let mut upto = 0;
        while upto <= stream.len() {
            match decoder.row(&stream[seen..upto], &wires, &mut back).expect("sound stream") {
                Some(n) => seen += n,
                None => upto += 1,
            }
        }
        assert!(decoder.is_done());
        assert_eq!(format!("{:?}", batch), format!("{:?}", back));
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let shape = shape(vec![column(Type::Int4, None), column(Type::Text, Some(3))]);
        for (int, text, expected) in [
            (1 << 40, "abc", (0, 0, Misfit::Range)),
            (1, "äöüß", (0, 1, Misfit::TooLong { limit: 3 })),
            (1, "a\0", (0, 1, Misfit::Nul)),
        ] {
            let mut batch = Batch::new(shape.clone());
            batch.push(Cell::Int(int));
            batch.push_bytes(Cell::Text, text.as_bytes());
            assert_eq!(encode(&batch, &mut Vec::new()), Err(expected));
        }
    }
}
