//! What the engine tells while it works. Events go out, pixels are drawn elsewhere.

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A phase begins, with the amount of work in its own unit where that is known.
    Phase {
        /// What is done, for people: "copying rows".
        name: &'static str,
        /// How many units there are.
        total: Option<u64>,
        /// The unit: "rows", "indexes", "bytes".
        unit: &'static str,
    },
    /// Work on a table begins, for a phase that counts rows. A phase that reads two stores tells a table twice.
    Table {
        /// Its name.
        table: String,
        /// Its rows.
        total: u64,
    },
    /// Units of the running phase were done.
    Done {
        /// The table they belong to.
        table: String,
        /// How many.
        units: u64,
    },
    /// Something an operator should read, now and in the result.
    Warning(String),
}

/// Takes events, from many threads.
pub trait Events: Sync {
    /// Takes one.
    fn event(&self, event: Event);
}

/// For callers that want to hear nothing.
pub struct Silent;

impl Events for Silent {
    fn event(&self, _: Event) {}
}
