//! One writer: runs after runs, each written the way a training program does it, over a connection of its own. Nothing is
//! sent twice: what failed without an answer is in doubt, and is not called lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::measure::{Measured, Operation};
use crate::domain::tracking::View;
use crate::domain::verify::writes::{Author, BATCHED, MOST_RUNS, PARAM, SINGLE, Shape, State, TAG, Written};
use crate::mlflow::{Batch, Client, Reply, Runs, Trouble};
use crate::verify::MARKER;

/// What all writers share.
pub(super) struct Job {
    /// The run of the verification.
    pub(super) id: String,
    /// Ids of the experiments: one of each writer, then the one that all share.
    pub(super) experiments: Vec<String>,
    pub(super) shape: Shape,
    /// Runs of a writer; `None`: as many as fit in the time.
    pub(super) runs: Option<u32>,
    /// When no run is begun any more.
    pub(super) end: Option<Instant>,
    /// Milliseconds since 1970.
    pub(super) begun: i64,
    pub(super) measured: Measured,
    /// Runs whose writing has ended, for progress.
    pub(super) done: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// After a run could not be made, so that a server that is gone is not asked a thousand times a second.
const BREATH: Duration = Duration::from_millis(500);

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Writes until it is enough; what is known of each run.
pub(super) async fn write(job: Arc<Job>, client: Client, writer: u32) -> Vec<Written> {
    let mut all = Vec::new();
    let most = job.runs.unwrap_or(MOST_RUNS).min(MOST_RUNS);
    for run in 0..most {
        let late = job.end.is_some_and(|end| Instant::now() >= end);
        if job.stop.load(Ordering::SeqCst) || run > 0 && late {
            break;
        }
        // Every other run lies where all others write as well.
        let shared = run % 2 == 1;
        let author = Author { writer, run, begun: job.begun };
        let written = Written::new(author, shared, job.shape);
        let own = job.experiments.get(writer as usize);
        let experiment = if shared { job.experiments.last() } else { own };
        let Some(experiment) = experiment else { break };
        let mut hand = Hand { job: &job, client: &client, experiment, written };
        hand.run().await;
        if hand.written.id.is_none() {
            tokio::time::sleep(BREATH).await;
        }
        all.push(hand.written);
        job.done.fetch_add(1, Ordering::SeqCst);
    }
    all
}

struct Hand<'a> {
    job: &'a Job,
    client: &'a Client,
    experiment: &'a String,
    written: Written,
}

impl Hand<'_> {
    async fn timed<T>(&self, operation: Operation, work: impl Future<Output = Reply<T>>) -> Reply<T> {
        let begun = Instant::now();
        let reply = work.await;
        self.job.measured.add(operation, begun.elapsed(), reply.as_ref().err());
        reply
    }

    async fn state(&self, operation: Operation, work: impl Future<Output = Reply<()>>) -> State {
        match self.timed(operation, work).await {
            Ok(()) => State::Acknowledged,
            Err(_) => State::Doubtful,
        }
    }

    async fn run(&mut self) {
        let (author, client) = (self.written.author, self.client);
        let tags = vec![(MARKER.to_owned(), self.job.id.clone())];
        let made = async {
            let run = client.create_run(self.experiment, &author.name(), now(), &tags).await?;
            if run.id.is_empty() {
                return Err(Trouble::unasked(crate::domain::failure::Failure::target("a run without an id")));
            }
            Ok(run)
        };
        let Ok(run) = self.timed(Operation::CreateRun, made).await else { return };
        self.written.id = Some(run.id.clone());
        let id = run.id.as_str();
        let (singles, batches) = (self.job.shape.singles, self.job.shape.batches());
        let text = author.text(PARAM);
        self.written.param = self.state(Operation::LogParam, client.log_param(id, PARAM, &text)).await;
        // Points and batches take turns, as in a program that logs each step and, now and then, many at once.
        let turns = batches.max(1);
        let mut step = 0;
        for turn in 0..turns {
            let until = singles * (turn + 1) / turns;
            while step < until {
                let point = author.point(SINGLE, step);
                let state = self.state(Operation::LogMetric, client.log_metric(id, SINGLE, &point)).await;
                set(&mut self.written.singles, step, state);
                step += 1;
            }
            if turn < batches {
                let points = self.job.shape.steps(turn).map(|s| (BATCHED.to_owned(), author.point(BATCHED, s)));
                let batch = Batch {
                    metrics: points.collect(),
                    params: vec![author.batch_param(turn)],
                    tags: vec![author.batch_tag(turn)],
                };
                let state = self.state(Operation::LogBatch, client.log_batch(id, &batch)).await;
                set(&mut self.written.batches, turn, state);
            }
            if turn == turns / 2 {
                self.search(id).await;
            }
        }
        let text = author.text(TAG);
        self.written.tag = self.state(Operation::SetTag, client.set_run_tag(id, TAG, &text)).await;
        self.written.end = self.state(Operation::EndRun, client.end_run(id, "FINISHED", now())).await;
    }

    /// A run that was acknowledged is to be found.
    async fn search(&mut self, id: &str) {
        let name = self.written.author.name();
        let filter = format!("attributes.run_name = '{name}'");
        let experiments = std::slice::from_ref(self.experiment);
        let wanted = Runs { experiments, filter: &filter, view: View::Active, order_by: &[], page: 10 };
        let mut pages = self.client.runs(&wanted);
        if let Ok(page) = self.timed(Operation::Search, pages.next()).await {
            self.written.unseen = !page.unwrap_or_default().iter().any(|run| run.id == id);
        }
    }
}

fn set(states: &mut [State], at: u32, state: State) {
    if let Some(place) = states.get_mut(at as usize) {
        *place = state;
    }
}
