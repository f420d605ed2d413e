//! Lists whose length is bounded: the first by name, all of them counted.

use crate::domain::cleanup::belongings::Root;

/// Those that are named.
const NAMED: usize = 1_000;

/// A list whose length is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    /// The first of them.
    pub named: Vec<T>,
    /// How many there are.
    pub total: u64,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { named: Vec::new(), total: 0 }
    }
}

impl<T> List<T> {
    fn count(&mut self, one: impl FnOnce() -> T) {
        self.total += 1;
        if self.named.len() < NAMED {
            self.named.push(one());
        }
    }
}

/// A thing of the database that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// What it is.
    pub kind: Root,
    /// Its id.
    pub id: String,
    /// Why, for people.
    pub why: String,
}

impl List<Stays> {
    pub(super) fn add(&mut self, kind: Root, id: &str, why: impl Into<String>) {
        self.count(|| Stays { kind, id: id.to_owned(), why: why.into() });
    }
}

/// Paths, and what is to be said of each.
pub type Told = List<(String, String)>;

impl Told {
    pub(super) fn add(&mut self, path: &str, why: impl Into<String>) {
        self.count(|| (path.to_owned(), why.into()));
    }
}
