//! Whether a value fits the PostgreSQL or SQLite column that it is meant for. The same judgement serves the inspection
//! before a migration and the encoder during it, so that both say the same.

use std::fmt;

use crate::domain::cell::{Batch, Cell, canonical_number};
use crate::domain::table::{Column, Type};

/// Why a value does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    /// NULL in a NOT NULL column.
    Null,
    /// Stored as another type: text in an integer column, say.
    Class(&'static str),
    /// An integer outside the column's range.
    Range,
    /// More characters than the column takes.
    TooLong {
        /// The column's limit in characters.
        limit: u32,
    },
    /// U+0000, which PostgreSQL's text cannot hold.
    Nul,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// A JSON column's text that is no JSON document.
    NotJson,
    /// A date column's text that is no date.
    NotDate,
    /// A JSON document that is nested deeper than PostgreSQL's parser goes.
    TooDeep,
    /// NaN, which SQLite stores as NULL.
    NotANumber,
    /// A JSON document that is one number which SQLite does not give back.
    Digits,
}

impl Misfit {
    /// What is wrong, for a report: "is longer than the 5000 characters that the column takes".
    pub fn describe(self) -> String {
        match self {
            Misfit::Null => "is NULL where NULL is not allowed".to_owned(),
            Misfit::Class(stored) => format!("is stored as {stored}, which is not the column's type"),
            Misfit::Range => "is an integer that the column cannot hold (PostgreSQL integer: 32 bits)".to_owned(),
            Misfit::TooLong { limit } => {
                format!("is longer than the {limit} characters that the column takes in PostgreSQL")
            }
            Misfit::Nul => "contains the character NUL, which PostgreSQL cannot store in text".to_owned(),
            Misfit::NotUtf8 => "is not valid UTF-8".to_owned(),
            Misfit::NotDate => "is not a date of the form YYYY-MM-DD".to_owned(),
            Misfit::TooDeep => {
                format!("is nested deeper than {MOST_LEVELS} levels, where PostgreSQL's parser gives up")
            }
            Misfit::NotANumber => "is NaN, which SQLite stores as NULL".to_owned(),
            Misfit::Digits => {
                "is a JSON document of one number, which SQLite turns into a number of its own and rounds otherwise"
                    .to_owned()
            }
            Misfit::NotJson => "is not a JSON document (NaN and Infinity are not JSON)".to_owned(),
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Judges one value against its column.
///
/// # Errors
/// The misfit, when PostgreSQL would refuse the value or could not keep it exactly.
pub fn check(column: &Column, batch: &Batch, cell: Cell) -> Result<(), Misfit> {
    match (column.kind, cell) {
        (_, Cell::Null) if column.not_null => Err(Misfit::Null),
        (_, Cell::Null)
        | (Type::Int8, Cell::Int(_))
        | (Type::Float, Cell::Float(_))
        | (Type::Bool, Cell::Bool(_))
        | (Type::Bytes, Cell::Bytes(_)) => Ok(()),
        (Type::Int4, Cell::Int(value)) => i32::try_from(value).map(|_| ()).map_err(|_| Misfit::Range),
        (Type::Text, Cell::Text(span)) => text(batch.bytes(span), column.max_chars),
        (Type::Json, Cell::Json(span)) => json(batch.bytes(span)),
        (Type::Date, Cell::Text(span)) => days(batch.bytes(span)).map(|_| ()).ok_or(Misfit::NotDate),
        (_, Cell::Int(_)) => Err(Misfit::Class("an integer")),
        (_, Cell::Float(_)) => Err(Misfit::Class("a float")),
        (_, Cell::Bool(_)) => Err(Misfit::Class("a boolean")),
        (_, Cell::Text(_) | Cell::Json(_)) => Err(Misfit::Class("text")),
        (_, Cell::Bytes(_)) => Err(Misfit::Class("a blob")),
    }
}

/// Judges one value against its column in SQLite, which enforces neither types nor lengths.
///
/// # Errors
/// The misfit, when SQLite would give back a value that is not equal to it. -0.0 comes back as 0.0, which is.
pub fn check_sqlite(column: &Column, batch: &Batch, cell: Cell) -> Result<(), Misfit> {
    match (column.kind, cell) {
        (_, Cell::Float(value)) if value.is_nan() => Err(Misfit::NotANumber),
        (Type::Json, Cell::Json(span)) if !sqlite_keeps(batch.bytes(span)) => Err(Misfit::Digits),
        _ => Ok(()),
    }
}

/// Significant digits that SQLite's conversion of text into a float is exact for; of longer numbers it rounds a few
/// otherwise than the nearest float (seen with 3.54.1, 65,000 numbers).
const SQLITE_DIGITS: usize = 19;

/// Whether a JSON text comes back from a column with NUMERIC affinity as something that is counted equal
/// ([`canonical_number`]).
fn sqlite_keeps(text: &[u8]) -> bool {
    if canonical_number(text).is_none() {
        return true;
    }
    let number = String::from_utf8_lossy(text);
    let number = number.trim_ascii();
    if number.parse::<i64>().is_ok() {
        return true;
    }
    // A float that is a whole number becomes an integer, up to the very last of them; a float of that size stands for
    // itself otherwise.
    let on_the_edge = number.parse::<f64>().is_ok_and(|f| (9.2e18..=9_223_372_036_854_775_808.0).contains(&f.abs()));
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    !on_the_edge && digits.trim_matches('0').len() <= SQLITE_DIGITS
}

fn text(bytes: &[u8], max_chars: Option<u32>) -> Result<(), Misfit> {
    let text = std::str::from_utf8(bytes).map_err(|_| Misfit::NotUtf8)?;
    if bytes.contains(&0) {
        return Err(Misfit::Nul);
    }
    match max_chars {
        // Lengths are characters, not bytes; no need to count where even the bytes are few enough.
        Some(limit) if bytes.len() > limit as usize && text.chars().count() > limit as usize => {
            Err(Misfit::TooLong { limit })
        }
        _ => Ok(()),
    }
}

/// PostgreSQL's parser recurses: its default stack (max_stack_depth, 2 MB) ends at some 6,000 levels.
const MOST_LEVELS: usize = 5_000;

/// PostgreSQL's `json` checks syntax only. Numbers may be of any length, so they are not parsed into floats here.
fn json(bytes: &[u8]) -> Result<(), Misfit> {
    text(bytes, None)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|_| Misfit::NotJson)?;
    // Each level has two brackets.
    if bytes.len() > 2 * MOST_LEVELS && levels(bytes) > MOST_LEVELS { Err(Misfit::TooDeep) } else { Ok(()) }
}

/// How deep a JSON text is nested at most.
fn levels(bytes: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A date in PostgreSQL's binary form: days since 2000-01-01. `None`: the text is not a date as it would be read back.
pub fn days(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok()?;
    let date: jiff::civil::Date = text.parse().ok()?;
    if date.to_string() != text {
        return None;
    }
    let since = date.since((jiff::Unit::Day, jiff::civil::date(2000, 1, 1))).ok()?;
    Some(since.get_days())
}

#[cfg(test)]
mod tests {
    use super::{days, levels, sqlite_keeps};

    #[test]
    fn sqlite_keeps_what_is_no_bare_number_and_numbers_of_few_digits() {
        let kept =
            ["{}", "[1.23456789012345678901]", "\"1\"", "null", "true", "1.0", " -1.10 ", "1e400", "-0.0", "1e-400"];
        for text in
            kept.into_iter().chain(["9223372036854775807", "-9223372036854775808", "1e19", "0.30000000000000004"])
        {
            assert!(sqlite_keeps(text.as_bytes()), "{text}");
        }
        for text in
            ["4307595054005657272807.14435", "9.2e18", "-9223372036854775000.0", "123456789012345678901234567890"]
        {
            assert!(!sqlite_keeps(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn brackets_in_texts_are_no_levels() {
        assert_eq!(levels(br#"{"[[[": ["\"[[", [1], {}]}"#), 3);
    }

    #[test]
    fn dates_are_days_since_2000_and_have_one_form() {
        assert_eq!(days(b"2000-01-01"), Some(0));
        assert_eq!(days(b"1999-12-31"), Some(-1));
        assert_eq!(days(b"2026-11-21"), Some(9821));
        for text in ["2026-1-1", "20260101", "2026-02-30", "", "2026-01-01T00:00:00", "x"] {
            assert_eq!(days(text.as_bytes()), None, "{text}");
        }
    }
}
