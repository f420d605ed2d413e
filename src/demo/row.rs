//! Rows by the names of their columns, on their way into batches.

use std::borrow::Cow;
use std::sync::Arc;

use crate::domain::cell::{Batch, Cell};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::{Column, Shape, Type};

/// One value of a row.
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value without its own text.
    pub(super) fn borrowed(&self) -> Value<'_> {
        match self {
            Value::Null => Value::Null,
            Value::Int(v) => Value::Int(*v),
            Value::Float(v) => Value::Float(*v),
            Value::Bool(v) => Value::Bool(*v),
            Value::Text(v) => Value::Text(Cow::Borrowed(v)),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $value:ident => $made:expr;)*) => {
        $(impl<'a> From<$from> for Value<'a> {
            fn from($value: $from) -> Self { $made }
        })*
    };
}

value_from! {
    i64 => v => Value::Int(v);
    u32 => v => Value::Int(v.into());
    f64 => v => Value::Float(v);
    bool => v => Value::Bool(v);
    String => v => Value::Text(Cow::Owned(v));
    &'a str => v => Value::Text(Cow::Borrowed(v));
    &'a String => v => Value::Text(Cow::Borrowed(v));
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// Puts rows of one table into batches and hands these on.
pub(super) struct Rows<'e> {
    batch: Batch,
    each: &'e mut dyn FnMut(&Batch) -> Outcome<()>,
}

impl<'e> Rows<'e> {
    /// For rows of that shape.
    pub(super) fn new(shape: &Shape, each: &'e mut dyn FnMut(&Batch) -> Outcome<()>) -> Self {
        Rows { batch: Batch::new(Arc::clone(shape)), each }
    }

    /// The shape of the rows.
    pub(super) fn shape(&self) -> &Shape {
        self.batch.shape()
    }

    /// Adds a row. A column that is not named is NULL; a name that is no column, a value that is not of its column's
    /// type and NULL where that is refused are errors.
    pub(super) fn add(&mut self, values: &[(&str, Value<'_>)]) -> Outcome<()> {
        let shape = Arc::clone(self.batch.shape());
        for (place, (name, _)) in values.iter().enumerate() {
            let known = shape.columns.iter().any(|c| c.name == *name);
            if !known || values.iter().take(place).any(|(earlier, _)| earlier == name) {
                return Err(broken(&shape, name, "is no column of it or is given twice"));
            }
        }
        for column in &shape.columns {
            let value = values.iter().find(|(name, _)| *name == column.name).map(|(_, value)| value);
            self.push(&shape, column, value.unwrap_or(&Value::Null))?;
        }
        self.added()
    }

    fn push(&mut self, shape: &Shape, column: &Column, value: &Value<'_>) -> Outcome<()> {
        match (column.kind, value) {
            (_, Value::Null) if !column.not_null => self.batch.push(Cell::Null),
            (Type::Int4 | Type::Int8, Value::Int(v)) => self.batch.push(Cell::Int(*v)),
            (Type::Float, Value::Float(v)) => self.batch.push(Cell::Float(*v)),
            (Type::Bool, Value::Bool(v)) => self.batch.push(Cell::Bool(*v)),
            (Type::Text | Type::Json, Value::Text(v)) => self.batch.push_text(column.kind, v.as_bytes()),
            _ => return Err(broken(shape, &column.name, "has no value or one of another type")),
        }
        Ok(())
    }

    /// Adds the cells of a row as they come from `cells`, in the order of the columns.
    pub(super) fn add_cells(&mut self, cells: impl FnOnce(&mut Batch)) -> Outcome<()> {
        cells(&mut self.batch);
        self.added()
    }

    fn added(&mut self) -> Outcome<()> {
        if self.batch.is_full() {
            (self.each)(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }

    /// Hands on the last rows.
    pub(super) fn finish(self) -> Outcome<()> {
        if self.batch.is_empty() { Ok(()) } else { (self.each)(&self.batch) }
    }
}

/// A row of the sample that is not as its table wants it.
pub(super) fn broken(shape: &Shape, column: &str, what: &str) -> Failure {
    Failure::internal(format!("the sample's `{}`: `{column}` {what}", shape.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::table::TableShape;

    fn shape() -> Shape {
        let column = |name: &str, kind, not_null| Column { name: name.into(), kind, max_chars: None, not_null };
        let columns = vec![column("a", Type::Int4, true), column("b", Type::Text, false)];
        Arc::new(TableShape { name: "t".into(), columns, key: vec![0], only: None })
    }

    #[test]
    fn a_row_is_placed_by_name_and_refused_where_it_does_not_fit() {
        let mut seen = Vec::new();
        let mut each = |batch: &Batch| {
            seen.extend(batch.iter().map(<[Cell]>::to_vec));
            Ok(())
        };
        let mut rows = Rows::new(&shape(), &mut each);
        for wrong in [
            rows.add(&[("c", Value::Int(1))]),
            rows.add(&[("a", Value::Int(1)), ("a", Value::Int(1))]),
            rows.add(&[("b", "x".into())]),
        ] {
            assert!(wrong.is_err());
        }
        assert!(Rows::new(&shape(), &mut |_| Ok(())).add(&[("a", "text".into())]).is_err());
        let mut rows = Rows::new(&shape(), rows.each);
        rows.add(&[("b", Value::Null), ("a", 7i64.into())]).unwrap();
        rows.finish().unwrap();
        assert_eq!(seen, [[Cell::Int(7), Cell::Null]]);
    }
}
