//! What came of trying settings.

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// It works.
    Well,
    /// It does not.
    Wrong,
    /// There was nothing to try.
    Unset,
}

impl Went {
    /// The word for documents.
    pub fn id(self) -> &'static str {
        match self {
            Went::Unset => "not_set",
            other => other.word(),
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Went::Well => "ok",
            Went::Wrong => "failed",
            Went::Unset => "not set",
        }
    }
}

/// A setting that was tried.
#[derive(Debug, Clone)]
pub struct Tried {
    /// Its key.
    pub key: &'static str,
    /// How it went.
    pub went: Went,
    /// What was seen.
    pub told: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Tried {
    /// One that works.
    pub fn well(key: &'static str, told: impl Into<String>) -> Tried {
        Tried { key, went: Went::Well, told: told.into(), hint: None }
    }

    /// One that does not.
    pub fn wrong(key: &'static str, told: impl Into<String>, hint: Option<String>) -> Tried {
        Tried { key, went: Went::Wrong, told: told.into(), hint }
    }
}
