//! What stays, and why: the first of them by name, all of them counted.

use crate::domain::cleanup::belongings::Root;

/// Those that are named.
const NAMED: usize = 1_000;

/// Something that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// What it is.
    pub kind: Root,
    /// Its id.
    pub id: String,
    /// Why, for people.
    pub why: String,
}

/// A list whose length is bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// The first of them.
    pub named: Vec<Stays>,
    /// How many there are.
    pub total: u64,
}

impl List {
    pub(super) fn add(&mut self, kind: Root, id: &str, why: impl Into<String>) {
        self.total += 1;
        if self.named.len() < NAMED {
            self.named.push(Stays { kind, id: id.to_owned(), why: why.into() });
        }
    }
}
