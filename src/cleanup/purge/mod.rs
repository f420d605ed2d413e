//! `mlops cleanup purge`: artifacts first, then the rows of the same things, batch by batch. One failure never stops
//! the rest; what could not go keeps its rows, and the next purge finds it.

mod artifacts;
mod backup_first;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use backup_first::{Kept, write as back_up};
pub use plan::{Plan, Request, plan};

use crate::artifact::Cleared;
use crate::backup::place::Ways;
use crate::cleanup::list::{List, Stays};
use crate::domain::cleanup::belongings::Root;
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::copy::Work;
use crate::engine::event::Event;
use crate::engine::pool;
use crate::engine::purge::{Counts, Purge, Removed};
use crate::store::sqlite::docket::Entry;
use artifacts::{empty, own_place, tidy};

/// What a purge came to.
pub struct Purged {
    /// What it was about.
    pub plan: Plan,
    /// Things that are gone, by kind.
    pub gone: BTreeMap<Root, u64>,
    /// Rows that are gone, by table.
    pub rows: Counts,
    /// Rows that stay and whose reference was emptied, by table.
    pub cleared: Counts,
    /// Files that are gone.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was to go and stays.
    pub failures: List<Stays>,
    /// What was restored when its artifacts had just been removed, and stays without them.
    pub bereft: List<Stays>,
    /// Things of which no file was there.
    pub without_files: u64,
    /// Things that were restored, kept or put to use in the meantime, with all that is theirs.
    pub spared: u64,
    /// The archive of what went, where one was asked for.
    pub kept: Option<Kept>,
    /// How long it took.
    pub took: Duration,
}

/// Things whose artifacts go together, before the database is asked again.
const BATCH: usize = 200;

/// Things whose deletion is looked at once more right before their artifacts are removed.
const CLOSE: usize = 16;

const RESTORED: &str = "something in it was restored in the meantime";

struct Purging<'a> {
    store: &'a mut dyn Purge,
    ways: &'a Ways,
    work: &'a Work<'a>,
    done: Purged,
}

/// Carries a plan out. Gives what it came to also where it ended early: interrupted, or the database failed. The next
/// purge goes on.
pub fn carry_out(
    plan: Plan,
    store: &mut dyn Purge,
    ways: &Ways,
    work: &Work<'_>,
    _: &Confirmed,
) -> (Purged, Outcome<()>) {
    let begun = Instant::now();
    let total: u64 = plan.things.iter().map(|(_, count)| count).sum();
    work.events.event(Event::Phase { name: "removing", total: Some(total), unit: "things" });
    let failures = plan.stuck.clone();
    let done = Purged {
        plan,
        gone: BTreeMap::new(),
        rows: Counts::new(),
        cleared: Counts::new(),
        files: 0,
        bytes: 0,
        failures,
        bereft: List::default(),
        without_files: 0,
        spared: 0,
        kept: None,
        took: Duration::ZERO,
    };
    let mut purging = Purging { store, ways, work, done };
    let ended = purging.run();
    let mut done = purging.done;
    done.took = begun.elapsed();
    (done, ended)
}

impl Purging<'_> {
    fn run(&mut self) -> Outcome<()> {
        self.all(Root::Run)?;
        self.all(Root::Model)?;
        self.experiments()
    }

    fn size(&self) -> usize {
        if self.done.plan.request.artifacts { BATCH } else { plan::PAGE }
    }

    /// All runs, or all logged models.
    fn all(&mut self, kind: Root) -> Outcome<()> {
        let mut after = 0;
        loop {
            let page = self.done.plan.docket.entries(kind, after, self.size())?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            self.batch(kind, &page)?;
        }
    }

    /// What was to go stays, and its experiment with it.
    fn stays(&mut self, kind: Root, entry: &Entry, why: &str) -> Outcome<()> {
        self.done.failures.add(kind, &entry.id, why);
        self.done.plan.docket.hold(&entry.experiment, &format!("the {} {} in it stays", kind.word(), entry.id))
    }

    /// Artifacts, then rows.
    fn batch(&mut self, kind: Root, entries: &[Entry]) -> Outcome<()> {
        self.work.cancel.check()?;
        let mut emptied: BTreeMap<&str, Cleared> = BTreeMap::new();
        let mut going: Vec<&Entry> = Vec::new();
        let artifacts = self.done.plan.request.artifacts;
        if !artifacts {
            going.extend(entries);
        }
        for close in entries.chunks(CLOSE).filter(|_| artifacts) {
            let still = self.still(kind, close)?;
            let results = self.empty(kind, &still)?;
            for (entry, result) in still.into_iter().zip(results) {
                match result {
                    Ok(cleared) => {
                        self.done.files += cleared.files;
                        self.done.bytes += cleared.bytes;
                        self.done.without_files += u64::from(cleared.files == 0);
                        emptied.insert(&entry.id, cleared);
                        going.push(entry);
                    }
                    Err(why) => self.stays(kind, entry, &why)?,
                }
            }
        }
        let ids: Vec<String> = going.iter().map(|entry| entry.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let selection = self.done.plan.selection.clone();
        let removed = self.store.remove(kind, &selection, &ids, self.work.cancel)?;
        for entry in &going {
            if let Some((_, why)) = removed.stayed.iter().find(|(id, _)| *id == entry.id) {
                self.stays(kind, entry, why)?;
            } else if removed.spared.contains(&entry.id) {
                match emptied.get(entry.id.as_str()).filter(|cleared| cleared.files > 0) {
                    Some(cleared) => {
                        let why = format!("its {} files had been removed when it was restored", cleared.files);
                        self.done.bereft.add(kind, &entry.id, why);
                        self.done.plan.docket.hold(&entry.experiment, RESTORED)?;
                    }
                    None => self.spare(entry)?,
                }
            }
        }
        self.count(kind, removed);
        Ok(())
    }

    fn spare(&mut self, entry: &Entry) -> Outcome<()> {
        self.done.spared += 1;
        self.done.plan.docket.hold(&entry.experiment, RESTORED)
    }

    fn count(&mut self, kind: Root, removed: Removed) {
        let gone = removed.gone.len() as u64;
        *self.done.gone.entry(kind).or_default() += gone;
        self.work.events.event(Event::Done { table: kind.table().to_owned(), units: gone });
        for (own, other) in [(&mut self.done.rows, removed.rows), (&mut self.done.cleared, removed.cleared)] {
            for (table, rows) in other.into_iter().filter(|(_, rows)| *rows > 0) {
                *own.entry(table).or_default() += rows;
            }
        }
    }

    /// Those that may still go, right before their artifacts do.
    fn still<'e>(&mut self, kind: Root, entries: &'e [Entry]) -> Outcome<Vec<&'e Entry>> {
        let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
        let still: BTreeSet<String> = self.store.still(kind, &self.done.plan.selection, &ids)?.into_iter().collect();
        let (going, spared): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|e| still.contains(&e.id));
        for entry in spared {
            self.spare(entry)?;
        }
        Ok(going)
    }

    /// Empties the places of all of them, side by side.
    fn empty(&self, kind: Root, entries: &[&Entry]) -> Outcome<Vec<Result<Cleared, String>>> {
        let plan = &self.done.plan;
        let mut tasks = Vec::new();
        for entry in entries {
            let root = plan.request.artifact_root.as_ref();
            let place = own_place(&plan.docket, root, kind, &entry.id, entry.address.as_deref())?;
            tasks.push((*entry, place));
        }
        let ways = self.ways;
        pool::run(self.work.jobs, tasks, self.work.cancel, |(entry, place)| {
            Ok(match place {
                Ok(Some(place)) => empty(ways, &place, &entry.id, &entry.experiment),
                Ok(None) => Ok(Cleared::default()),
                Err(why) => Err(why),
            })
        })
    }

    fn experiments(&mut self) -> Outcome<()> {
        let mut after = 0;
        loop {
            let page = self.done.plan.docket.entries(Root::Experiment, after, BATCH)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            let mut going = Vec::new();
            for entry in &page {
                self.work.cancel.check()?;
                if self.done.plan.docket.held(&entry.id)?.is_none() && self.store.has(Root::Trace) {
                    self.traces(&entry.id)?;
                }
                match self.done.plan.docket.held(&entry.id)? {
                    Some(why) if why == RESTORED => self.done.spared += 1,
                    Some(why) => self.done.failures.add(Root::Experiment, &entry.id, why),
                    None => going.push(entry),
                }
            }
            self.last(&going)?;
        }
    }

    /// The experiments themselves, when nothing is in them any more.
    fn last(&mut self, entries: &[&Entry]) -> Outcome<()> {
        let mut ids = Vec::new();
        for entry in entries {
            let tidied = match entry.address.as_deref().filter(|_| self.done.plan.request.artifacts) {
                Some(address) => tidy(self.ways, self.done.plan.request.artifact_root.as_ref(), &entry.id, address),
                None => Ok(()),
            };
            match tidied {
                Ok(()) => ids.push(entry.id.clone()),
                Err(why) => self.stays(Root::Experiment, entry, &why)?,
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        let selection = self.done.plan.selection.clone();
        let removed = self.store.remove(Root::Experiment, &selection, &ids, self.work.cancel)?;
        self.done.spared += removed.spared.len() as u64;
        for (id, why) in &removed.stayed {
            self.done.failures.add(Root::Experiment, id, why.clone());
        }
        self.count(Root::Experiment, removed);
        Ok(())
    }

    /// The traces of an experiment that goes.
    fn traces(&mut self, experiment: &str) -> Outcome<()> {
        let mut after = String::new();
        loop {
            let page = self.store.traces(experiment, &after, plan::PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            if *last <= after {
                return Err(Failure::internal("the list of traces goes round in a circle"));
            }
            after.clone_from(last);
            let entry = |(id, address): (String, Option<String>)| Entry {
                number: 0,
                id,
                experiment: experiment.to_owned(),
                address,
            };
            let entries: Vec<Entry> = page.into_iter().map(entry).collect();
            for batch in entries.chunks(self.size()) {
                self.batch(Root::Trace, batch)?;
            }
        }
    }
}
