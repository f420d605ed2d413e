//! A backend database out of which deleted things are removed for good, whatever its engine.

use std::collections::BTreeMap;

use crate::domain::cleanup::belongings::Root;
use crate::domain::failure::Outcome;
use crate::engine::cancel::Cancel;

/// Which deleted things are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Deleted before that time, in milliseconds since 1970.
    pub before: i64,
    /// Of these experiments alone, by id.
    pub experiments: Option<Vec<String>>,
}

/// A deleted run or logged model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Its id.
    pub id: String,
    /// Its experiment.
    pub experiment: String,
    /// Where its artifacts are.
    pub address: Option<String>,
    /// Whether itself was deleted before the time; else only its experiment was (a logged model).
    pub itself: bool,
    /// Why it stays whatever is asked for: a tag, a child, a row of another application's.
    pub kept: Option<String>,
    /// Whether the database tells when it was deleted; else its end has to do.
    pub dated: bool,
}

/// A deleted experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedExperiment {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its artifacts are by default.
    pub address: Option<String>,
    /// Runs in it that are not deleted.
    pub active: u64,
    /// Deleted runs in it that were not deleted before the time.
    pub young: u64,
    /// Why it stays whatever is asked for: a tag, a row of another application's.
    pub kept: Option<String>,
    /// Whether a guardrail of the gateway uses a scorer of it.
    pub guards: bool,
    /// Whether it was deleted before the time.
    pub old: bool,
}

/// What a model version that is not deleted says of where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The model and the number, for people.
    pub name: String,
    /// Its run.
    pub run: Option<String>,
    /// Its files.
    pub addresses: Vec<String>,
}

/// The experiments of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it is deleted.
    pub deleted: bool,
}

/// Rows by table.
pub type Counts = BTreeMap<String, u64>;

/// What a removal came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Roots that are gone.
    pub gone: Vec<String>,
    /// Roots that were not to be removed any more: restored, kept or referred to in the meantime. All that was theirs
    /// is still there.
    pub spared: Vec<String>,
    /// Roots that stay for another reason: others hold locks on them, refer to them, or they were restored while their
    /// rows went piece by piece.
    pub stayed: Vec<(String, String)>,
    /// Removed rows by table.
    pub rows: Counts,
    /// Rows that stay and whose reference was emptied, by table.
    pub cleared: Counts,
}

impl Removed {
    /// Adds another one to this.
    pub fn add(&mut self, more: Removed) {
        self.gone.extend(more.gone);
        self.spared.extend(more.spared);
        self.stayed.extend(more.stayed);
        for (own, other) in [(&mut self.rows, more.rows), (&mut self.cleared, more.cleared)] {
            for (table, rows) in other {
                *own.entry(table).or_default() += rows;
            }
        }
    }
}

/// A database that can be purged.
///
/// Contract: `remove` removes a root with all that belongs to it or leaves all of it, in transactions that look once
/// more at whether it is still deleted; where a root is too big for one transaction that others can wait for, it goes
/// piece by piece, and one that is restored meanwhile is told in `stayed`. Foreign keys are enforced all the time.
/// Lists are streamed: nothing is kept in memory but what `each` keeps.
pub trait Purge {
    /// The database, masked.
    fn address(&self) -> String;

    /// Its revision, for people.
    fn revision(&self) -> String;

    /// Whether rows of that kind exist at this revision.
    fn has(&self, root: Root) -> bool;

    /// What an operator should know of how the revision tells deletions.
    fn remarks(&self) -> Vec<String>;

    /// Keeps other purges of this database away, as long as this lives.
    ///
    /// # Errors
    /// Locked: one is at work. Target: the database failed.
    fn lock(&mut self, cancel: &Cancel) -> Outcome<()>;

    /// The experiments of that name or id.
    ///
    /// # Errors
    /// Target: the database failed; the same for all that follow.
    fn named(&mut self, word: &str) -> Outcome<Vec<Named>>;

    /// How many logged models that are not deleted lose metrics: the deleted runs that measured them take them along.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn losers(&mut self, selection: &Selection) -> Outcome<u64>;

    /// Every model version that is not deleted.
    ///
    /// # Errors
    /// As [`Purge::named`], or what `each` failed with; the same for the next ones.
    fn versions(&mut self, each: &mut dyn FnMut(Version) -> Outcome<()>) -> Outcome<()>;

    /// Deleted runs, in the order in which they began: their rows lie side by side.
    ///
    /// # Errors
    /// As [`Purge::versions`].
    fn runs(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()>;

    /// Deleted logged models, and those in deleted experiments.
    ///
    /// # Errors
    /// As [`Purge::versions`].
    fn models(&mut self, selection: &Selection, each: &mut dyn FnMut(Deleted) -> Outcome<()>) -> Outcome<()>;

    /// Deleted experiments, also those that were deleted after the time.
    ///
    /// # Errors
    /// As [`Purge::versions`].
    fn experiments(
        &mut self,
        selection: &Selection,
        each: &mut dyn FnMut(DeletedExperiment) -> Outcome<()>,
    ) -> Outcome<()>;

    /// The address of every run, logged model, trace and experiment that has one, with its kind and id.
    ///
    /// # Errors
    /// As [`Purge::versions`].
    fn places(&mut self, each: &mut dyn FnMut(Root, &str, &str) -> Outcome<()>) -> Outcome<()>;

    /// The next traces of an experiment after that id, with the addresses of their artifacts.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn traces(&mut self, experiment: &str, after: &str, most: usize) -> Outcome<Vec<(String, Option<String>)>>;

    /// Those of the roots that may still be removed.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn still(&mut self, root: Root, selection: &Selection, ids: &[String]) -> Outcome<Vec<String>>;

    /// How many rows would go with those roots, by table.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn count(&mut self, root: Root, ids: &[String]) -> Outcome<Counts>;

    /// Removes roots with all that belongs to them.
    ///
    /// # Errors
    /// As [`Purge::named`]; interrupted. What is gone by then is gone.
    fn remove(&mut self, root: Root, selection: &Selection, ids: &[String], cancel: &Cancel) -> Outcome<Removed>;

    /// Those of the ids that there are, deleted or not.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn known(&mut self, root: Root, ids: &[String]) -> Outcome<Vec<String>>;

    /// The id and the address of every logged model that should have files.
    ///
    /// # Errors
    /// As [`Purge::versions`].
    fn ready_models(&mut self, each: &mut dyn FnMut(&str, &str) -> Outcome<()>) -> Outcome<()>;

    /// How many rows belong to runs, logged models, traces and experiments that are not there, by table.
    ///
    /// # Errors
    /// As [`Purge::named`].
    fn parentless(&mut self) -> Outcome<Counts>;

    /// Removes these rows in short transactions. Before each of them is committed, `keep` is given the table and its
    /// rows as JSON.
    ///
    /// # Errors
    /// As [`Purge::remove`], or what `keep` failed with: then those rows stay. What a lock of others kept from going is told
    /// by table.
    fn remove_parentless(&mut self, keep: &mut Keep<'_>, cancel: &Cancel) -> Outcome<(Counts, Vec<(String, String)>)>;
}

/// Is given the rows of a table before they are gone.
pub type Keep<'a> = dyn FnMut(&str, &[String]) -> Outcome<()> + 'a;
