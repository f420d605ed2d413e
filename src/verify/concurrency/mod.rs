//! Concurrent writers: what they are told is done is read back and compared, and what they waited is measured.

mod baseline;
mod judge;
mod measure;
mod read;
mod watch;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

pub use baseline::Baseline;

use crate::artifact::Waiting;
use crate::backup::place::Ways;
use crate::domain::address::{PgAddress, StoreAddress};
use crate::domain::count::counted;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{Pairs, value};
use crate::domain::verify::account::{Account, Finding, Step, Verdict};
use crate::domain::verify::limits::Limits;
use crate::domain::verify::writes::{MOST_POINTS, MOST_RUNS, MOST_WRITERS, Shape, State, Written};
use crate::engine::event::{Event, Events};
use crate::mlflow::Client;
use crate::verify::markers::Markers;
use crate::verify::{MARKER, name};
use judge::Judged;
use measure::Measured;
use watch::Watch;
use writer::Job;

/// All that is remembered of points, at a byte each.
const MOST: u64 = 200_000_000;
/// All runs that are remembered, with what is known of each.
const MOST_IN_ALL: u64 = 1_000_000;
/// Between two looks at how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// What is asked for.
pub struct Request {
    /// Writers.
    pub writers: u32,
    /// Runs of each.
    pub runs: u32,
    /// Points of a run.
    pub metrics: u32,
    /// Instead of so many runs, as many as fit in this time.
    pub duration: Option<Duration>,
    /// What it is judged by.
    pub limits: Limits,
    /// An earlier run.
    pub baseline: Option<Baseline>,
    /// The database behind the server, where it is known.
    pub database: Option<StoreAddress>,
    /// Clients of the same server, one for each writer: each with connections of its own.
    pub clients: Vec<Client>,
}

impl Request {
    /// Whether it can be done.
    ///
    /// # Errors
    /// Usage: more than there is room for.
    pub fn sound(&self) -> Outcome<()> {
        let between = |name: &str, n: u32, most: u32| {
            if (1..=most).contains(&n) {
                return Ok(());
            }
            Err(Failure::usage(format!("--{name}: {n} is not between 1 and {most}")))
        };
        between("writers", self.writers, MOST_WRITERS)?;
        between("runs", self.runs, MOST_RUNS)?;
        between("metrics", self.metrics, MOST_POINTS)?;
        let runs = u64::from(self.writers) * u64::from(self.runs);
        let points = runs * u64::from(self.metrics);
        for (what, count, most) in [("runs", runs, MOST_IN_ALL), ("points", points, MOST)] {
            if self.duration.is_none() && count > most {
                return Err(Failure::usage(format!("{count} {what} are more than are kept in mind ({most})"))
                    .hint("fewer --writers, --runs or --metrics"));
            }
        }
        self.baseline.as_ref().map_or(Ok(()), |baseline| baseline.compares(self.writers, self.metrics))
    }
}

/// What is done, in sentences.
pub fn procedure(request: &Request) -> Vec<String> {
    let shape = Shape::of(request.metrics);
    let runs = match request.duration {
        Some(time) => format!("for {} s", time.as_secs_f64()),
        None => format!("{} runs each", request.runs),
    };
    vec![
        format!("{} experiments are made: one of each writer, and one that all share.", request.writers + 1),
        format!(
            "{} writers write at the same time, {runs}, every other run into the shared experiment. Each writer has \
             connections of its own, and nothing is sent twice.",
            request.writers
        ),
        format!(
            "A run is created, gets a param, {} points one by one and {} points in {} batches with a param and a tag each, \
             is searched for, gets a tag, and is ended.",
            shape.singles,
            shape.batched,
            shape.batches()
        ),
        "All of it is read back. Each value tells who wrote it when; what was acknowledged has to be there once, what failed \
         may be there or not but not in part, and nothing else may be there. What seems wrong is looked at again before \
         it is told."
            .to_owned(),
    ]
}

/// Verifies, into the account. Not to be called within the runtime.
///
/// # Errors
/// The experiments cannot be made. Interrupted. Whatever else goes wrong stands in the account.
pub fn verify(
    ways: &Ways,
    client: &Client,
    markers: &mut Markers,
    request: &Request,
    account: &mut Account,
    events: &dyn Events,
) -> Outcome<()> {
    account.procedure = procedure(request);
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let begun = Instant::now();
    let experiments = prepare(client, markers, request, &waiting)
        .inspect_err(|failure| step(account, "prepare", begun, Verdict::Failed, failure.message.clone()))?;
    step(account, "prepare", begun, Verdict::Passed, format!("{} experiments", experiments.len()));
    let watch = match &request.database {
        Some(StoreAddress::Postgres(address)) => Some(watch(address, markers.id(), ways)),
        Some(_) => {
            let nothing = "SQLite: there are no sessions and no waits to look at".to_owned();
            account.environment.push(("watched".to_owned(), nothing));
            None
        }
        None => None,
    };
    let begun = Instant::now();
    let job = Arc::new(Job {
        id: markers.id().to_owned(),
        experiments,
        shape: Shape::of(request.metrics),
        runs: request.duration.is_none().then_some(request.runs),
        end: request.duration.map(|time| begun + time),
        begun: jiff::Timestamp::now().as_millisecond(),
        measured: Measured::default(),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let total = request.duration.is_none().then_some(u64::from(request.writers) * u64::from(request.runs));
    events.event(Event::Phase { name: "writing runs", total, unit: "runs" });
    let written = waiting.on(write(&job, request, events));
    let took = begun.elapsed();
    let seen = watch.map(Watch::end);
    let judged = Judged::new(&job.measured, took, &request.limits, request.baseline.as_ref());
    let (operations, failed) = judged.counts();
    let evidence = format!("{operations} operations of {}, {failed} failed", counted(request.writers, "writer"));
    let written = match written.flatten() {
        Ok(written) => written,
        Err(failure) => {
            step(account, "write", begun, Verdict::Unknown, format!("{evidence}: {failure}"));
            account.figures = judged.figures(None);
            return Err(failure);
        }
    };
    let beyond = judged.findings();
    let verdict = if beyond.is_empty() { Verdict::Passed } else { Verdict::Failed };
    step(account, "write", begun, verdict, evidence);
    count(account, request, &written, operations, failed);
    if job.stop.load(Ordering::SeqCst) {
        let what = format!(
            "they ended after {} runs in {:.0} s, as no more than {MOST_IN_ALL} runs and {MOST} points are kept in mind",
            written.len(),
            took.as_secs_f64()
        );
        account.noted.push(
            Finding::new("ended_early", "the writers", what)
                .hint("a shorter --duration, or fewer --writers or --metrics"),
        );
    }
    let seen = match seen {
        Some(Ok(seen)) => Some(seen),
        Some(Err(why)) => {
            account.environment.push(("watched".to_owned(), format!("not: {why}")));
            None
        }
        None => None,
    };
    account.figures = judged.figures(seen.as_ref());
    account.findings = beyond;
    if let Some(baseline) = &request.baseline {
        let told = format!("{} with {} writers", baseline.id, baseline.writers);
        account.environment.push(("baseline".to_owned(), told));
    }
    read_back(client, &job, written, account, &waiting, events)
}

fn watch(address: &PgAddress, id: &str, ways: &Ways) -> Watch {
    Watch::begin(address, id, &ways.cancel)
}

fn step(account: &mut Account, name: &str, begun: Instant, verdict: Verdict, evidence: String) {
    account.steps.push(Step::new(name, begun.elapsed(), verdict, evidence));
}

fn prepare(client: &Client, markers: &mut Markers, request: &Request, waiting: &Waiting) -> Outcome<Vec<String>> {
    let own = name(markers.id());
    let tags: Pairs = vec![(MARKER.to_owned(), markers.id().to_owned())];
    let names = (0..request.writers).map(|w| format!("{own}-writer-{w:03}")).chain([format!("{own}-shared")]);
    let mut experiments = Vec::new();
    for name in names {
        markers.will_make_experiment(&name)?;
        let id = waiting.on(experiment(client, &name, &tags))??;
        markers.made_experiment(&name, &id)?;
        experiments.push(id);
    }
    Ok(experiments)
}

/// An experiment. Its name is nobody else's: one of that name with our tag is the one whose answer was lost.
async fn experiment(client: &Client, name: &str, tags: &Pairs) -> Outcome<String> {
    let trouble = match client.create_tagged_experiment(name, tags).await {
        Ok(id) if !id.is_empty() => return Ok(id),
        Ok(_) => Failure::target(format!("{name} was made without an id")),
        Err(trouble) => trouble.failure,
    };
    let ours = |tag: Option<&str>| tag.is_some() && tag == tags.first().map(|(_, id)| id.as_str());
    match client.experiment_by_name(name).await {
        Ok(Some(found)) if ours(value(&found.tags, MARKER)) => Ok(found.id),
        _ => Err(trouble.on(format_args!("making the experiment {name}"))),
    }
}

/// All writers at once, to their end.
async fn write(job: &Arc<Job>, request: &Request, events: &dyn Events) -> Outcome<Vec<Written>> {
    let mut writers = JoinSet::new();
    for (writer, client) in (0..request.writers).zip(&request.clients) {
        writers.spawn(writer::write(job.clone(), client.clone(), writer));
    }
    let (mut all, mut told) = (Vec::new(), 0);
    loop {
        let ended = tokio::time::timeout(PROGRESS, writers.join_next()).await;
        let done = job.done.load(Ordering::SeqCst);
        if done > told {
            events.event(Event::Done { table: String::new(), units: done - told });
            told = done;
        }
        let points = done.saturating_mul(u64::from(request.metrics));
        if points > MOST || done >= MOST_IN_ALL && request.duration.is_some() {
            job.stop.store(true, Ordering::SeqCst);
        }
        match ended {
            Ok(None) => return Ok(all),
            Ok(Some(written)) => {
                all.extend(written.map_err(|e| Failure::internal(format!("a writer ended: {e}")))?);
            }
            Err(_) => {}
        }
    }
}

fn count(account: &mut Account, request: &Request, written: &[Written], operations: u64, failed: u64) {
    let points = |state: State| {
        let single: usize = written.iter().flat_map(|w| &w.singles).filter(|s| **s == state).count();
        single as u64
    };
    let batches = |state: State| written.iter().flat_map(|w| &w.batches).filter(|s| **s == state).count() as u64;
    let made = written.iter().filter(|w| w.id.is_some()).count() as u64;
    account.counts.extend([
        ("writers".to_owned(), u64::from(request.writers)),
        ("metrics_per_run".to_owned(), u64::from(request.metrics)),
        ("operations".to_owned(), operations),
        ("errors".to_owned(), failed),
        ("acknowledged_runs".to_owned(), made),
        ("acknowledged_points".to_owned(), points(State::Acknowledged)),
        ("acknowledged_batches".to_owned(), batches(State::Acknowledged)),
        ("doubtful_runs".to_owned(), written.len() as u64 - made),
        ("doubtful_points".to_owned(), points(State::Doubtful)),
        ("doubtful_batches".to_owned(), batches(State::Doubtful)),
    ]);
}

fn read_back(
    client: &Client,
    job: &Arc<Job>,
    written: Vec<Written>,
    account: &mut Account,
    waiting: &Waiting,
    events: &dyn Events,
) -> Outcome<()> {
    let begun = Instant::now();
    let read = waiting
        .on(read::read(client, job, written, events))
        .inspect_err(|failure| step(account, "read back", begun, Verdict::Unknown, failure.message.clone()))?;
    match read {
        Ok(read) => {
            let faults: u64 = read.faults.values().sum();
            let evidence = format!(
                "{} and {}, {}",
                counted(read.runs, "run"),
                counted(read.points, "point"),
                counted(faults, "fault")
            );
            let verdict = if faults == 0 { Verdict::Passed } else { Verdict::Failed };
            step(account, "read back", begun, verdict, evidence);
            account.counts.extend([("read_runs".to_owned(), read.runs), ("read_points".to_owned(), read.points)]);
            account.counts.extend(read.faults.iter().map(|(fault, n)| ((*fault).to_owned(), *n)));
            let findings = read.wrong.into_iter().map(|wrong| Finding::new(wrong.fault, wrong.on, wrong.told));
            account.findings.extend(findings);
        }
        Err(failure) => {
            if client_is_gone(client, waiting)? {
                account.away = Some(failure.message.clone());
            }
            step(account, "read back", begun, Verdict::Unknown, failure.message);
        }
    }
    Ok(())
}

fn client_is_gone(client: &Client, waiting: &Waiting) -> Outcome<bool> {
    Ok(waiting.on(client.within(Duration::from_secs(10)).live())?.is_err())
}
