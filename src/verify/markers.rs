//! What a verification makes on the server: journalled before it is made, so that a killed run's is known to the next
//! one, and removed at the end. Registered models go for good; experiments REST can only soft-delete. What the server said
//! is made and is not found is not taken for removed: it may be in another store than the one that is looked at.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::place::Place;
use super::{MARKER, name};
use crate::backup::place::Ways;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{Pairs, value};
use crate::mlflow::{Client, Fault, Reply};
use crate::state::{self, Journal, Unfinished};

/// For all of a removal, and on top of it for each thing: an experiment of 20,000 runs took PostgreSQL 15 s.
const REMOVAL: Duration = Duration::from_secs(600);
/// See [`REMOVAL`].
const EACH: Duration = Duration::from_secs(20);
/// For one call of it.
const CALL: Duration = Duration::from_secs(30);
/// How much longer the server may work on a deletion whose answer did not come.
const WORK: Duration = Duration::from_secs(300);
/// Between two looks at whether a deletion whose answer did not come is done.
const PAUSE: Duration = Duration::from_secs(1);
/// Things that a sentence names.
const NAMED: usize = 5;

/// Something that is about to be made. Names are unique, so that what an answer was lost of is found by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// An experiment of that name.
    Experiment(String),
    /// A registered model of that name.
    Model(String),
    /// Files at an address.
    Files {
        /// The address of their root, which holds nothing else.
        place: String,
        /// Their paths below it.
        paths: Vec<String>,
    },
}

impl Made {
    /// For people.
    fn shown(&self) -> String {
        match self {
            Made::Experiment(name) => format!("the experiment {name}"),
            Made::Model(name) => format!("the registered model {name}"),
            Made::Files { place, .. } => format!("the files in {}", crate::domain::harmless::masked(place)),
        }
    }
}

/// What is learned of it later: further lines of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Learned {
    /// The server said that it is made.
    There {
        /// What.
        made: Made,
        /// Its id, where it has one beside its name.
        id: String,
    },
    /// It was removed.
    Gone(Made),
}

/// Something that was announced, and what is known of it.
#[derive(Debug)]
struct Thing {
    made: Made,
    /// Whether the server said that it is made.
    there: bool,
    gone: bool,
}

#[derive(Debug, Default)]
struct Things(Vec<Thing>);

impl Things {
    fn announce(&mut self, made: Made) {
        self.0.push(Thing { made, there: false, gone: false });
    }

    fn learn(&mut self, learned: &Learned) {
        let (Learned::There { made, .. } | Learned::Gone(made)) = learned;
        for thing in self.0.iter_mut().filter(|thing| thing.made == *made) {
            match learned {
                Learned::There { .. } => thing.there = true,
                Learned::Gone(_) => thing.gone = true,
            }
        }
    }

    /// What a journal says.
    fn told(notes: &[String]) -> Things {
        let mut things = Things::default();
        for note in notes {
            if let Ok(made) = serde_json::from_str(note) {
                things.announce(made);
            } else if let Ok(learned) = serde_json::from_str(note) {
                things.learn(&learned);
            }
        }
        things
    }
}

/// What became of a removal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Experiments that are soft-deleted.
    pub soft_deleted: Vec<String>,
    /// What is still there or was not found, and why.
    pub left: Vec<String>,
}

/// What this run made.
pub struct Markers {
    id: String,
    journal: Journal,
    things: Things,
}

impl Markers {
    /// Begins the journal of a run; the warning says where none is kept.
    pub fn begin(state_dir: &Path, id: &str, command: &str, server: &str) -> (Markers, Option<String>) {
        let (journal, warning) = Journal::begin(state_dir, id, command, server);
        (Markers { id: id.to_owned(), journal, things: Things::default() }, warning)
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Says that this is about to be made. Only then it may be.
    ///
    /// # Errors
    /// Target: the journal cannot be written.
    pub fn will_make(&mut self, made: Made) -> Outcome<()> {
        self.journal.note(&made)?;
        self.things.announce(made);
        Ok(())
    }

    /// An experiment of that name is about to be made.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn will_make_experiment(&mut self, name: &str) -> Outcome<()> {
        self.will_make(Made::Experiment(name.to_owned()))
    }

    /// The server said that the experiment is made, with that id.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn made_experiment(&mut self, name: &str, id: &str) -> Outcome<()> {
        self.learn(Learned::There { made: Made::Experiment(name.to_owned()), id: id.to_owned() })
    }

    /// A registered model of that name is about to be made.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn will_make_model(&mut self, name: &str) -> Outcome<()> {
        self.will_make(Made::Model(name.to_owned()))
    }

    /// The server said that the registered model is made.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn made_model(&mut self, name: &str) -> Outcome<()> {
        self.learn(Learned::There { made: Made::Model(name.to_owned()), id: String::new() })
    }

    /// The registered model was removed by the check itself.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn removed_model(&mut self, name: &str) -> Outcome<()> {
        self.learn(Learned::Gone(Made::Model(name.to_owned())))
    }

    /// Files are about to be written below an address that holds nothing else.
    ///
    /// # Errors
    /// As [`Markers::will_make`].
    pub fn will_write(&mut self, place: &str, paths: &[&str]) -> Outcome<()> {
        let paths = paths.iter().map(|p| (*p).to_owned()).collect();
        self.will_make(Made::Files { place: place.to_owned(), paths })
    }

    fn learn(&mut self, learned: Learned) -> Outcome<()> {
        self.journal.note(&learned)?;
        self.things.learn(&learned);
        Ok(())
    }

    /// Removes all of it, also after an interrupt (of which `ways` must not know). Not to be called within the runtime.
    pub fn remove(&mut self, ways: &Ways, client: &Client) -> Removed {
        let Markers { id, journal, things } = self;
        // What is not noted is told once more, and that is all.
        remove(ways, client, id, things, &mut |learned| drop(journal.note(learned)))
    }

    /// Closes the journal of a run of which nothing is left; what is left is for the next run.
    pub fn end(self, removed: &Removed) {
        if removed.left.is_empty() {
            self.journal.close("removed");
        }
    }

    /// Leaves all of it on the server, for good: the names of what is there.
    pub fn keep(self) -> Vec<String> {
        self.journal.close("kept");
        self.things.0.iter().filter(|thing| !thing.gone).map(|thing| thing.made.shown()).collect()
    }
}

/// What became of what an earlier run left.
pub struct Swept {
    /// What is known of it, in a sentence.
    pub told: String,
    /// Experiments of it that are soft-deleted.
    pub soft_deleted: Vec<String>,
    /// Whether nothing of it is left, but for them.
    pub whole: bool,
}

fn unfinished(run: &Unfinished) -> String {
    format!("the run {} of {} ({}) did not finish", run.id, run.started, run.command)
}

/// What is said of an earlier run on another server.
pub fn elsewhere(run: &Unfinished) -> String {
    format!(
        "{}: `mlops verify` with --tracking-uri {} removes what it left; where that server is gone for good, delete {}",
        unfinished(run),
        run.target,
        shown(run.file())
    )
}

/// Removes what an earlier run of a verification left that was killed.
pub fn sweep(state_dir: &Path, run: &Unfinished, by: &str, ways: &Ways, client: &Client) -> Swept {
    let what = unfinished(run);
    let told = match state::told(state_dir, &run.id) {
        Ok(told) => told,
        Err(failure) => {
            let told = format!("{what}, and what it left is not known: {failure}");
            return Swept { told, soft_deleted: Vec::new(), whole: false };
        }
    };
    let mut note = |learned: &Learned| drop(state::add_to(state_dir, &run.id, learned));
    let removed = remove(ways, client, &run.id, &mut Things::told(&told.notes), &mut note);
    let told = if removed.left.is_empty() {
        // Where it cannot be closed, the next run finds nothing left.
        let _ = run.close(&format!("removed by {by}"));
        let soft = match removed.soft_deleted.len() {
            0 => String::new(),
            n => format!(" ({n} experiments soft-deleted)"),
        };
        format!("{what}; what it left is removed{soft}")
    } else {
        let more = match removed.left.len().saturating_sub(NAMED) {
            0 => String::new(),
            n => format!("; and {n} more"),
        };
        let first = removed.left.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        let file = shown(run.file());
        format!(
            "{what}, and not all that it left could be removed: {first}{more}; the next run tries again, and where it is \
             gone for good, delete {file}"
        )
    };
    Swept { told, whole: removed.left.is_empty(), soft_deleted: removed.soft_deleted }
}

/// Whether what an earlier run made is on this server, whatever the server was called then.
pub fn is_here(state_dir: &Path, run: &Unfinished, ways: &Ways, client: &Client) -> bool {
    let Ok(told) = state::told(state_dir, &run.id) else { return false };
    let things = Things::told(&told.notes);
    let first = things.0.iter().find_map(|thing| match &thing.made {
        Made::Experiment(name) if thing.there => Some(name),
        _ => None,
    });
    let Some(name) = first else { return false };
    let found = ways.runtime.block_on(client.within(CALL).experiment_by_name(name));
    found.is_ok_and(|found| found.is_some_and(|found| is_ours(&found.tags, &run.id)))
}

/// A removal under way.
struct Removal<'a> {
    ways: &'a Ways,
    client: Client,
    id: &'a str,
    end: Instant,
    /// Whether the server gives no answers any more: then nothing further is asked of it.
    silent: bool,
    soft_deleted: Vec<String>,
}

fn remove(ways: &Ways, client: &Client, id: &str, things: &mut Things, note: &mut dyn FnMut(&Learned)) -> Removed {
    let each = EACH.saturating_mul(u32::try_from(things.0.len()).unwrap_or(u32::MAX));
    let (end, client) = (Instant::now() + REMOVAL + each, client.within(CALL));
    let mut removal = Removal { ways, client, id, end, silent: false, soft_deleted: Vec::new() };
    let mut left = Vec::new();
    // In the opposite order: what was made last may stand on what was made before.
    for thing in things.0.iter_mut().rev() {
        match removal.one(thing) {
            Ok(false) => {}
            Ok(true) => {
                thing.gone = true;
                note(&Learned::Gone(thing.made.clone()));
            }
            Err(failure) => left.push(format!("{}: {}", thing.made.shown(), failure.message)),
        }
    }
    Removed { soft_deleted: removal.soft_deleted, left }
}

/// What bears the name and not the mark is somebody else's, and stays.
fn is_ours(tags: &Pairs, id: &str) -> bool {
    value(tags, MARKER) == Some(id)
}

impl Removal<'_> {
    /// Whether it was there and is removed now.
    fn one(&mut self, thing: &Thing) -> Outcome<bool> {
        if Instant::now() >= self.end {
            return Err(Failure::unreachable("there was no time left"));
        }
        if self.silent && !matches!(thing.made, Made::Files { .. }) {
            return Err(Failure::unreachable("the server gives no answer"));
        }
        let runtime = &self.ways.runtime;
        let removed = match &thing.made {
            Made::Files { place, paths } => {
                return Place::at(self.ways, &self.client, place)?.remove(paths, runtime.handle()).map(|()| false);
            }
            Made::Model(model) => {
                let found = self.heard(runtime.block_on(self.client.registered_model(model)))?;
                if !self.may_go(thing, model, found.map(|found| found.tags).as_ref())? {
                    return Ok(false);
                }
                self.heard(runtime.block_on(self.client.delete_registered_model(model)))?;
                true
            }
            Made::Experiment(experiment) => {
                let found = self.heard(runtime.block_on(self.client.experiment_by_name(experiment)))?;
                if !self.may_go(thing, experiment, found.as_ref().map(|found| &found.tags))? {
                    return Ok(false);
                }
                if let Some(found) = found.filter(|found| !found.deleted) {
                    self.soft_delete(&found.id)?;
                }
                self.soft_deleted.push(experiment.clone());
                true
            }
        };
        Ok(removed)
    }

    /// An answer; a server that gives none in time is asked no more.
    fn heard<T>(&mut self, reply: Reply<T>) -> Outcome<T> {
        self.silent |= reply.as_ref().is_err_and(|trouble| trouble.fault == Fault::Timeout);
        Ok(reply?)
    }

    /// Whether what was found under a name, with these tags, is ours to remove; `None`: nothing was found.
    fn may_go(&self, thing: &Thing, called: &str, tags: Option<&Pairs>) -> Outcome<bool> {
        let Some(tags) = tags else {
            if thing.there && !thing.gone {
                let why = "it was made and is not there now: is this the store that it was made in?";
                return Err(Failure::differs(why));
            }
            return Ok(false);
        };
        if is_ours(tags, self.id) {
            return Ok(true);
        }
        // A name that was chosen may have been taken by somebody else in that moment.
        if thing.there || called.starts_with(&name(self.id)) {
            return Err(Failure::differs(format!("it is there without its tag {MARKER}, and is left alone")));
        }
        Ok(false)
    }

    fn soft_delete(&mut self, id: &str) -> Outcome<()> {
        let runtime = &self.ways.runtime;
        let Err(trouble) = runtime.block_on(self.client.delete_experiment(id)) else { return Ok(()) };
        // The answer may be lost and the work done; or it is not awaited any more and the work goes on.
        let goes_on = matches!(trouble.fault, Fault::Timeout | Fault::Server(504));
        let end = self.end.min(Instant::now() + WORK);
        loop {
            let found = runtime.block_on(self.client.experiment(id));
            match self.heard(found) {
                Ok(Some(now)) if now.deleted => return Ok(()),
                Ok(Some(_)) if goes_on && Instant::now() < end => std::thread::sleep(PAUSE),
                _ => return Err(trouble.failure),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_tells_what_was_announced_made_and_removed() {
        let experiment = |name: &str| Made::Experiment(name.to_owned());
        let lines = [
            serde_json::to_string(&experiment("a")).expect("text"),
            serde_json::to_string(&Learned::There { made: experiment("a"), id: "5".to_owned() }).expect("text"),
            // As earlier releases wrote it.
            r#"{"model":"m"}"#.to_owned(),
            serde_json::to_string(&experiment("b")).expect("text"),
            serde_json::to_string(&Learned::There { made: Made::Model("m".to_owned()), id: String::new() })
                .expect("text"),
            serde_json::to_string(&Learned::Gone(Made::Model("m".to_owned()))).expect("text"),
        ];
        let things = Things::told(&lines);
        let known: Vec<(&Made, bool, bool)> = things.0.iter().map(|t| (&t.made, t.there, t.gone)).collect();
        let (a, b, m) = (experiment("a"), experiment("b"), Made::Model("m".to_owned()));
        assert_eq!(known, [(&a, true, false), (&m, true, true), (&b, false, false)]);
    }
}
