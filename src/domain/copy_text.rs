//! PostgreSQL's COPY text format, both directions, one row a line.
//!
//! Source: PostgreSQL documentation, "COPY", section "Text Format": tabs between the fields, `\N` for NULL, backslash
//! escapes for what would be taken for something else.
//!
//! An archive must hold every cell that a SQLite file can hold, what PostgreSQL cannot hold included. A cell that is
//! not of its column's type, or text that begins with U+0000, is a field that begins with `\000`, COPY's escape for
//! that character, then a letter for the cell's class, then the value. PostgreSQL takes U+0000 in no field, so its own
//! COPY refuses such a line loudly and never reads it as something else; and as no other field begins so, it is
//! unambiguous here.

use crate::domain::cell::{Batch, Cell, Span};
use crate::domain::table::{Shape, Type};

const NULL: &[u8] = b"\\N";
/// Begins a field whose cell is not of its column's type.
const ODD: &[u8] = b"\\000";
/// Begins a `bytea` in its hex form; the backslash is escaped once for COPY.
const HEX: &[u8] = b"\\\\x";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends one row of `batch` with its line feed.
pub fn encode(batch: &Batch, row: &[Cell], out: &mut Vec<u8>) {
    for (index, (column, cell)) in batch.shape().columns.iter().zip(row).enumerate() {
        if index > 0 {
            out.push(b'\t');
        }
        match (column.kind, *cell) {
            (_, Cell::Null) => out.extend_from_slice(NULL),
            (Type::Int4 | Type::Int8, Cell::Int(value)) => put_int(out, value),
            (Type::Float, Cell::Float(value)) => put_float(out, value),
            (Type::Bool, Cell::Bool(value)) => put_bool(out, value),
            (Type::Text | Type::Date, Cell::Text(span)) | (Type::Json, Cell::Json(span))
                if batch.bytes(span).first() != Some(&0) =>
            {
                put_text(out, batch.bytes(span));
            }
            (Type::Bytes, Cell::Bytes(span)) => {
                out.extend_from_slice(HEX);
                put_hex(out, batch.bytes(span));
            }
            (_, cell) => put_odd(out, batch, cell),
        }
    }
    out.push(b'\n');
}

fn put_odd(out: &mut Vec<u8>, batch: &Batch, cell: Cell) {
    out.extend_from_slice(ODD);
    match cell {
        Cell::Null => {}
        Cell::Int(value) => {
            out.push(b'i');
            put_int(out, value);
        }
        Cell::Float(value) => {
            out.push(b'f');
            put_float(out, value);
        }
        Cell::Bool(value) => {
            out.push(b'b');
            put_bool(out, value);
        }
        Cell::Text(span) => {
            out.push(b't');
            put_text(out, batch.bytes(span));
        }
        Cell::Json(span) => {
            out.push(b'j');
            put_text(out, batch.bytes(span));
        }
        Cell::Bytes(span) => {
            out.push(b'y');
            put_hex(out, batch.bytes(span));
        }
    }
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same bits, in PostgreSQL as here.
fn put_float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { b't' } else { b'f' });
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(2 * bytes.len());
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

/// Whether a byte may need an escape. A few bytes too many are looked at (1 to 7), which costs nothing, and this
/// test of two comparisons runs on many bytes at once.
fn is_special(byte: u8) -> bool {
    byte < 14 || byte == b'\\'
}

fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nearly all text needs no escape: whole stretches of it are looked at and taken over at once.
    for stretch in bytes.chunks(64) {
        if !stretch.iter().fold(false, |any, byte| any | is_special(*byte)) {
            out.extend_from_slice(stretch);
            continue;
        }
        for byte in stretch {
            match escape(*byte) {
                Some(escape) => out.extend_from_slice(escape),
                None => out.push(*byte),
            }
        }
    }
}

fn escape(byte: u8) -> Option<&'static [u8]> {
    Some(match byte {
        0 => b"\\000",
        8 => b"\\b",
        b'\t' => b"\\t",
        b'\n' => b"\\n",
        11 => b"\\v",
        12 => b"\\f",
        b'\r' => b"\\r",
        b'\\' => b"\\\\",
        _ => return None,
    })
}

/// Why a line is not one that [`encode`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Position of the column; `None`: the line as a whole.
    pub column: Option<usize>,
    /// What is wrong: "an unknown escape".
    pub why: &'static str,
}

/// Reads lines back; keeps its scratch memory between them. It reads what [`encode`] writes and nothing else: COPY
/// text of another program may write the same value in other ways.
#[derive(Debug)]
pub struct Decoder {
    shape: Shape,
    scratch: Vec<u8>,
}

impl Decoder {
    /// A decoder of rows of that shape.
    pub fn new(shape: Shape) -> Self {
        Decoder { shape, scratch: Vec::new() }
    }

    /// Appends the row of one line, given without its line feed, to a batch of the same shape.
    ///
    /// # Errors
    /// The line is malformed. The batch then ends with a torn row and must be thrown away.
    pub fn line(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), Malformed> {
        self.scratch.shrink_to(1 << 20);
        let mut columns = self.shape.columns.iter().enumerate();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\t', line).chain(std::iter::once(line.len())) {
            let Some((index, column)) = columns.next() else {
                return Err(Malformed { column: None, why: "it has more fields than the table has columns" });
            };
            let field = line.get(start..end).unwrap_or_default();
            start = end + 1;
            read(column.kind, field, batch, &mut self.scratch).map_err(|why| Malformed { column: Some(index), why })?;
        }
        match columns.next() {
            None => Ok(()),
            Some(_) => Err(Malformed { column: None, why: "it has fewer fields than the table has columns" }),
        }
    }
}

fn read(kind: Type, field: &[u8], batch: &mut Batch, scratch: &mut Vec<u8>) -> Result<(), &'static str> {
    if field == NULL {
        batch.push(Cell::Null);
        return Ok(());
    }
    if let Some(odd) = field.strip_prefix(ODD) {
        return read_odd(kind, odd, batch, scratch);
    }
    match kind {
        Type::Int4 | Type::Int8 => batch.push(Cell::Int(int(field)?)),
        Type::Float => batch.push(Cell::Float(float(field)?)),
        Type::Bool => batch.push(Cell::Bool(boolean(field)?)),
        Type::Text | Type::Date => text(field, Cell::Text, batch, scratch)?,
        Type::Json => text(field, Cell::Json, batch, scratch)?,
        Type::Bytes => {
            let digits = field.strip_prefix(HEX).ok_or("bytes that do not begin with \\\\x")?;
            bytes(digits, batch, scratch)?;
        }
    }
    Ok(())
}

/// A cell that is not of its column's type. What could have been written plainly is refused: each cell has one form.
fn read_odd(kind: Type, field: &[u8], batch: &mut Batch, scratch: &mut Vec<u8>) -> Result<(), &'static str> {
    let plain = "a value in the form for another type than its column's, though it is of that type";
    let (class, value) = field.split_first().ok_or("an escape without a class")?;
    match (class, kind) {
        (b'i', Type::Int4 | Type::Int8) | (b'f', Type::Float) | (b'b', Type::Bool) | (b'y', Type::Bytes) => Err(plain),
        (b't', Type::Text | Type::Date) | (b'j', Type::Json) if !value.starts_with(ODD) => Err(plain),
        (b'i', _) => {
            batch.push(Cell::Int(int(value)?));
            Ok(())
        }
        (b'f', _) => {
            batch.push(Cell::Float(float(value)?));
            Ok(())
        }
        (b'b', _) => {
            batch.push(Cell::Bool(boolean(value)?));
            Ok(())
        }
        (b't', _) => text(value, Cell::Text, batch, scratch),
        (b'j', _) => text(value, Cell::Json, batch, scratch),
        (b'y', _) => bytes(value, batch, scratch),
        _ => Err("an escape of an unknown class"),
    }
}

fn int(field: &[u8]) -> Result<i64, &'static str> {
    const WRONG: &str = "not an integer of 64 bits";
    let digits = field.strip_prefix(b"-").unwrap_or(field);
    // Also what Rust would take and we never write: a plus sign, leading zeros.
    let sound = match digits.first() {
        Some(b'0') => field.len() == 1,
        Some(first) => first.is_ascii_digit(),
        None => false,
    };
    let digits = std::str::from_utf8(field).map_err(|_| WRONG)?;
    if sound { digits.parse().map_err(|_| WRONG) } else { Err(WRONG) }
}

fn float(field: &[u8]) -> Result<f64, &'static str> {
    const WRONG: &str = "not a float";
    match field {
        b"NaN" => return Ok(f64::NAN),
        b"Infinity" => return Ok(f64::INFINITY),
        b"-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let sound = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'+');
    if field.len() > 32 || !field.iter().all(sound) {
        return Err(WRONG);
    }
    let value: f64 = std::str::from_utf8(field).map_err(|_| WRONG)?.parse().map_err(|_| WRONG)?;
    if value.is_finite() { Ok(value) } else { Err("a float that is too large") }
}

fn boolean(field: &[u8]) -> Result<bool, &'static str> {
    match field {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err("neither t nor f"),
    }
}

fn bytes(digits: &[u8], batch: &mut Batch, scratch: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "not pairs of hexadecimal digits";
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(WRONG),
    };
    scratch.clear();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(WRONG);
    }
    for [high, low] in pairs {
        scratch.push(value(*high)? << 4 | value(*low)?);
    }
    batch.push_bytes(Cell::Bytes, scratch);
    Ok(())
}

fn text(field: &[u8], make: fn(Span) -> Cell, batch: &mut Batch, scratch: &mut Vec<u8>) -> Result<(), &'static str> {
    if !field.iter().fold(false, |any, byte| any | is_special(*byte)) {
        batch.push_bytes(make, field);
        return Ok(());
    }
    scratch.clear();
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            if escape(*byte).is_some() {
                return Err("a control character that is not escaped");
            }
            scratch.push(*byte);
            continue;
        }
        let (letter, after) = rest.split_first().ok_or("a backslash at the end")?;
        rest = after;
        scratch.push(match letter {
            b'\\' => b'\\',
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            b'0' => {
                rest = rest.strip_prefix(b"00").ok_or("an unknown escape")?;
                0
            }
            _ => return Err("an unknown escape"),
        });
    }
    batch.push_bytes(make, scratch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::table::{Column, TableShape};

    const KINDS: [Type; 8] =
        [Type::Int4, Type::Int8, Type::Float, Type::Bool, Type::Text, Type::Json, Type::Bytes, Type::Date];

    /// A cell with bytes of its own.
    #[derive(Debug, Clone, PartialEq)]
    enum Value {
        Plain(Cell),
        Text(Vec<u8>),
        Json(Vec<u8>),
        Bytes(Vec<u8>),
    }

    fn shape(kinds: &[Type]) -> Shape {
        let columns = kinds.iter().enumerate().map(|(i, kind)| Column {
            name: format!("c{i}"),
            kind: *kind,
            max_chars: None,
            not_null: i == 0,
        });
        Arc::new(TableShape { name: "t".to_owned(), columns: columns.collect(), key: vec![], only: None })
    }

    fn values(batch: &Batch) -> Vec<Value> {
        let value = |cell: &Cell| match *cell {
            Cell::Text(span) => Value::Text(batch.bytes(span).to_vec()),
            Cell::Json(span) => Value::Json(batch.bytes(span).to_vec()),
            Cell::Bytes(span) => Value::Bytes(batch.bytes(span).to_vec()),
            // So that NaN equals itself and the sign of zero counts.
            Cell::Float(float) => Value::Text(float.to_bits().to_be_bytes().to_vec()),
            plain => Value::Plain(plain),
        };
        batch.iter().flatten().map(value).collect()
    }

    fn value() -> impl Strategy<Value = Value> {
        let hard = ["", "\0", "\0t", "a\0b", "\\N", "\\.", "\\000t", "\t\n\r\\", "\u{8}\u{b}\u{c}\u{1}", "ä\u{7f}"];
        let bytes = prop_oneof![
            prop::sample::select(hard.to_vec()).prop_map(|t| t.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..200),
            ".*".prop_map(String::into_bytes),
        ];
        (0..9, bytes, any::<i64>(), any::<u64>()).prop_map(|(class, bytes, int, bits)| match class {
            0 => Value::Plain(Cell::Null),
            1 => Value::Plain(Cell::Int(int)),
            2 => Value::Plain(Cell::Int(int >> 50)),
            3 => Value::Plain(Cell::Float(f64::from_bits(bits))),
            4 => Value::Plain(Cell::Float([0.0, -0.0, f64::NAN, f64::INFINITY, -f64::INFINITY][(bits % 5) as usize])),
            5 => Value::Plain(Cell::Bool(int < 0)),
            6 => Value::Text(bytes),
            7 => Value::Json(bytes),
            _ => Value::Bytes(bytes),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_cell_in_every_column_comes_back(row in prop::collection::vec((0..8usize, value()), 1..12)) {
            let shape = shape(&row.iter().map(|(kind, _)| KINDS[*kind]).collect::<Vec<_>>());
            let mut batch = Batch::new(shape.clone());
            for (_, value) in &row {
                match value {
                    Value::Plain(Cell::Float(f)) if f.is_nan() => batch.push(Cell::Float(f64::NAN)),
                    Value::Plain(cell) => batch.push(*cell),
                    Value::Text(bytes) => batch.push_bytes(Cell::Text, bytes),
                    Value::Json(bytes) => batch.push_bytes(Cell::Json, bytes),
                    Value::Bytes(bytes) => batch.push_bytes(Cell::Bytes, bytes),
                }
            }
            let mut text = Vec::new();
            for cells in batch.iter() {
                encode(&batch, cells, &mut text);
            }
            let line = text.strip_suffix(b"\n").expect("a line ends");
            prop_assert!(!line.contains(&b'\n') && !line.contains(&0) && !line.contains(&b'\r'));
            let mut back = Batch::new(shape.clone());
            prop_assert_eq!(Decoder::new(shape).line(line, &mut back), Ok(()));
            prop_assert_eq!(values(&back), values(&batch));
        }

        /// What the decoder takes is what the encoder writes of it: each row has one form (floats apart, which may be
        /// written longer than need be).
        #[test]
        fn any_bytes_are_refused_or_have_one_form(
            line in prop::collection::vec(prop::sample::select(b"\\\\\\0001tnrbvfyxj\tN-9.a\x80\r\0".to_vec()), 0..40),
        ) {
            let shape = shape(&[Type::Text, Type::Bytes, Type::Int8, Type::Json, Type::Bool]);
            for width in 1..=5 {
                let shape = Arc::new(TableShape { columns: shape.columns[..width].to_vec(), ..(*shape).clone() });
                let mut batch = Batch::new(shape.clone());
                if Decoder::new(shape).line(&line, &mut batch).is_ok() {
                    let mut text = Vec::new();
                    let row: Vec<Cell> = batch.iter().flatten().copied().collect();
                    encode(&batch, &row, &mut text);
                    text.pop();
                    let odd_float = line.windows(5).any(|w| w == b"\\000f");
                    prop_assert!(text == line || odd_float, "{:?} {:?}", text, line);
                }
            }
        }
    }

    #[test]
    fn lines_that_are_never_written_are_refused() {
        for (kind, fields) in [
            (Type::Int8, ["", "+1", "01", "-0", "1.0", "9223372036854775808", "\\000i5", " 1", "\\n"].as_slice()),
            (Type::Float, &["", "inf", "nan", "1e999", "0x1p3", "infinity", "\\000f1", "1_0", "--1"]),
            (Type::Bool, &["", "1", "true", "T"]),
            (Type::Text, &["\\", "\\x", "\\01", "\\001", "\\000", "\\000q", "\\000ta", "\r", "\u{c}", "\0", "\\NN"]),
            (Type::Bytes, &["", "\\x00", "\\\\x0", "\\\\xAB", "\\\\xg0", "00", "\\000y00"]),
            (Type::Json, &["\\u0041", "\\000j1"]),
        ] {
            for field in fields {
                let shape = shape(&[kind]);
                let result = Decoder::new(shape.clone()).line(field.as_bytes(), &mut Batch::new(shape));
                assert_eq!(result.map_err(|m| m.column), Err(Some(0)), "{kind:?} {field:?}");
            }
        }
        let two = shape(&[Type::Text, Type::Text]);
        for line in ["", "a", "a\tb\tc"] {
            let result = Decoder::new(two.clone()).line(line.as_bytes(), &mut Batch::new(two.clone()));
            assert_eq!(result.map_err(|m| m.column), Err(None), "{line:?}");
        }
    }
}
