//! Reading back: all that a server has in the experiments, against what its writers were told. Runs are compared as they
//! are read. What seems wrong is looked at again before it is told: a request whose answer nobody waits for any more may
//! still be on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::writer::Job;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{MetricPoint, Run, View};
use crate::domain::verify::writes::{
    Author, BATCHED, DOUBLED_RUN, FOREIGN_RUN, Found, LOST_RUN, SINGLE, Shape, State, TORN_BATCH, Written, Wrong,
    compare,
};
use crate::engine::event::{Event, Events};
use crate::mlflow::{Client, Reply, Runs};

/// Runs in a page.
const PAGE: u32 = 500;
/// Points in a page.
const POINTS: u32 = 10_000;
/// Histories that are read at once.
const AT_ONCE: usize = 8;
/// Faults that are named; beyond them they are counted.
const NAMED: usize = 1_000;
/// Before what seems wrong is looked at again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a batch that was not acknowledged may stay in part.
const SETTLED: Duration = Duration::from_secs(60);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) runs: u64,
    pub(super) points: u64,
    /// How often each fault.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub(super) wrong: Vec<Wrong>,
}

impl Read {
    fn add(&mut self, wrong: Wrong) {
        *self.faults.entry(wrong.fault).or_default() += 1;
        if self.wrong.len() < NAMED {
            self.wrong.push(wrong);
        }
    }
}

/// A run that was looked at.
struct Seen {
    written: Written,
    points: u64,
    wrong: Vec<Wrong>,
}

impl Seen {
    /// Whether what is wrong may still become right: part of a batch whose answer did not come.
    fn is_open(&self) -> bool {
        self.written.batches.contains(&State::Doubtful) && self.wrong.iter().any(|wrong| wrong.fault == TORN_BATCH)
    }
}

/// Runs that are looked at, some at once.
struct Looks<'a> {
    client: &'a Client,
    shape: Shape,
    tasks: JoinSet<Reply<Seen>>,
}

impl Looks<'_> {
    fn new(client: &Client, shape: Shape) -> Looks<'_> {
        Looks { client, shape, tasks: JoinSet::new() }
    }

    /// Begins a look; where enough are under way, one that has ended. `run`: what a search told of it; `None`: it is asked
    /// for.
    async fn begin(&mut self, written: Written, run: Option<Run>) -> Outcome<Option<Seen>> {
        let ended = if self.tasks.len() < AT_ONCE { None } else { self.next().await? };
        self.tasks.spawn(look(self.client.clone(), self.shape, written, run));
        Ok(ended)
    }

    async fn next(&mut self) -> Outcome<Option<Seen>> {
        match self.tasks.join_next().await {
            None => Ok(None),
            Some(ended) => Ok(Some(ended.map_err(|e| Failure::internal(format!("a reader ended: {e}")))??)),
        }
    }
}

async fn look(client: Client, shape: Shape, written: Written, run: Option<Run>) -> Reply<Seen> {
    let id = written.id.clone().unwrap_or_default();
    let run = match run {
        Some(run) => Some(run),
        None => client.run(&id).await?,
    };
    let Some(run) = run else {
        let told = format!("the run {id} was acknowledged and is not there");
        let wrong = vec![Wrong { fault: LOST_RUN, on: written.author.name(), told }];
        return Ok(Seen { written, points: 0, wrong });
    };
    let found = whole(&client, run).await?;
    let points = (found.single.len() + found.batched.len()) as u64;
    Ok(Seen { wrong: compare(&written, shape, &found), written, points })
}

/// What writers know, without the runs that are read already.
struct Open {
    /// Runs that were acknowledged, by their ids.
    runs: BTreeMap<String, Written>,
    /// Names of runs that were begun without an answer: one of that name may be there.
    unanswered: BTreeSet<String>,
    /// How many runs each writer began.
    begun: BTreeMap<u32, u32>,
}

impl Open {
    fn new(written: Vec<Written>) -> Open {
        let mut open = Open { runs: BTreeMap::new(), unanswered: BTreeSet::new(), begun: BTreeMap::new() };
        for written in written {
            let Author { writer, run, .. } = written.author;
            let begun = open.begun.entry(writer).or_default();
            *begun = (*begun).max(run + 1);
            match written.id.clone() {
                Some(id) => drop(open.runs.insert(id, written)),
                None => drop(open.unanswered.insert(written.author.name())),
            }
        }
        open
    }

    /// Whether a run of that name was begun.
    fn knows(&self, name: &str) -> bool {
        let numbers = name.strip_prefix("writer-").and_then(|rest| rest.split_once("-run-"));
        let Some((Ok(writer), Ok(run))) = numbers.map(|(w, r)| (w.parse(), r.parse())) else { return false };
        let author = Author { writer, run, begun: 0 };
        self.begun.get(&writer).is_some_and(|begun| run < *begun) && author.name() == name
    }
}

/// Reads and compares all.
///
/// # Errors
/// What cannot be read cannot be judged.
pub(super) async fn read(client: &Client, job: &Job, written: Vec<Written>, events: &dyn Events) -> Outcome<Read> {
    let (mut read, mut suspects, mut open) = (Read::default(), Vec::new(), Open::new(written));
    events.event(Event::Phase { name: "reading back", total: Some(open.runs.len() as u64), unit: "runs" });
    let mut looks = Looks::new(client, job.shape);
    let mut take = |seen: Seen, read: &mut Read| {
        events.event(Event::Done { table: String::new(), units: 1 });
        if seen.wrong.is_empty() { read.points += seen.points } else { suspects.push(seen) }
    };
    for experiment in &job.experiments {
        let experiments = std::slice::from_ref(experiment);
        let mut pages = client.runs(&Runs { experiments, filter: "", view: View::All, order_by: &[], page: PAGE });
        while let Some(page) = pages.next().await? {
            for run in page {
                read.runs += 1;
                if let Some(written) = open.runs.remove(&run.id) {
                    if let Some(seen) = looks.begin(written, Some(run)).await? {
                        take(seen, &mut read);
                    }
                } else if !open.unanswered.remove(&run.name) {
                    let (fault, told) = if open.knows(&run.name) {
                        (DOUBLED_RUN, format!("the run {} is there beside the one that was made", run.id))
                    } else {
                        (FOREIGN_RUN, format!("the run {} is there, which nobody made", run.id))
                    };
                    read.add(Wrong { fault, on: run.name, told });
                }
            }
        }
    }
    while let Some(seen) = looks.next().await? {
        take(seen, &mut read);
    }
    for written in std::mem::take(&mut open.runs).into_values() {
        // That no search told it is no proof.
        if let Some(seen) = looks.begin(written, None).await? {
            take(seen, &mut read);
        }
    }
    while let Some(seen) = looks.next().await? {
        take(seen, &mut read);
    }
    settle(client, job.shape, suspects, &mut read).await?;
    Ok(read)
}

/// Looks again at what seems wrong: what is right by now, or is another thing, was on its way.
async fn settle(client: &Client, shape: Shape, mut suspects: Vec<Seen>, read: &mut Read) -> Outcome<()> {
    let end = Instant::now() + SETTLED;
    while !suspects.is_empty() {
        tokio::time::sleep(AGAIN).await;
        let last = Instant::now() >= end;
        let mut before: BTreeMap<String, Vec<Wrong>> = BTreeMap::new();
        let (mut looks, mut ended) = (Looks::new(client, shape), Vec::new());
        for Seen { written, wrong, .. } in suspects.drain(..) {
            before.insert(written.author.name(), wrong);
            ended.extend(looks.begin(written, None).await?);
        }
        while let Some(seen) = looks.next().await? {
            ended.push(seen);
        }
        for seen in ended {
            let same = before.get(&seen.written.author.name()) == Some(&seen.wrong);
            if seen.wrong.is_empty() || last || same && !seen.is_open() {
                read.points += seen.points;
                seen.wrong.into_iter().for_each(|wrong| read.add(wrong));
            } else {
                suspects.push(seen);
            }
        }
    }
    Ok(())
}

async fn whole(client: &Client, run: Run) -> Reply<Found> {
    let (single, batched) = (history(client, &run.id, SINGLE).await?, history(client, &run.id, BATCHED).await?);
    Ok(Found { status: run.status, newest: run.metrics, params: run.params, tags: run.tags, single, batched })
}

async fn history(client: &Client, run: &str, key: &str) -> Reply<Vec<MetricPoint>> {
    let (mut all, mut pages) = (Vec::new(), client.metric_history(run, key, POINTS));
    while let Some(page) = pages.next().await? {
        all.extend(page);
    }
    Ok(all)
}
