//! A place in a JSON document, as `jq` writes it: `.data.records_found`, `.a[0]."odd key"`; `.` is the document.

use std::fmt;

use serde_json::Value;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Steps from the document down to a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// One step further, to a member of an object.
    #[must_use]
    pub(super) fn key(mut self, key: String) -> JsonPath {
        self.0.push(Step::Key(key));
        self
    }

    /// One step further, to an element of an array, counted from 0.
    #[must_use]
    pub(super) fn index(mut self, index: usize) -> JsonPath {
        self.0.push(Step::Index(index));
        self
    }

    /// The value there. Inside an array a key is no step.
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Key(key) => value.as_object()?.get(key),
            Step::Index(index) => value.as_array()?.get(*index),
        })
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.0.first(), Some(Step::Key(_))) {
            f.write_str(".")?;
        }
        for step in &self.0 {
            match step {
                Step::Key(key) if super::token::is_plain_key(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, ".{}", super::token::quoted(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
