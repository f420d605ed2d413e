//! The steps of a verification, one after the other: each is timed, what it stands on is asked first, and one that fails
//! stops nothing that does not stand on it.

use std::time::{Duration, Instant};

use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::harmless::short;
use crate::domain::verify::account::{Finding, Step, Verdict};
use crate::engine::cancel::Cancel;

/// Characters of evidence that are kept.
const MOST: usize = 500;

/// How a step came out that was not a failure.
pub enum Seen<T> {
    /// As it should, with the evidence.
    Right(T, String),
    /// It does not apply, for that reason.
    Skip(String),
}

/// Steps so far.
pub struct Steps {
    cancel: Cancel,
    /// In their order.
    pub done: Vec<Step>,
    /// What is wrong with what is there, beyond a step that failed.
    pub findings: Vec<Finding>,
    /// Why the server gave no answer, the last time that it gave none.
    pub away: Option<String>,
}

impl Steps {
    /// None yet.
    pub fn new(cancel: &Cancel) -> Steps {
        Steps { cancel: cancel.clone(), done: Vec::new(), findings: Vec::new(), away: None }
    }

    /// Does a step, if all that it stands on was done: names of steps, and whether they were. What it gives is there only
    /// if it passed.
    ///
    /// # Errors
    /// Interrupted; all else is the step's own.
    pub fn step<T>(
        &mut self,
        name: &str,
        stands_on: &[(&str, bool)],
        work: impl FnOnce() -> Outcome<Seen<T>>,
    ) -> Outcome<Option<T>> {
        self.cancel.check()?;
        if let Some((missing, _)) = stands_on.iter().find(|(_, done)| !done) {
            self.tell(name, Verdict::Skipped(format!("stands on `{missing}`")), Duration::ZERO, String::new());
            return Ok(None);
        }
        tracing::info!("step {name}");
        let begun = Instant::now();
        let outcome = work();
        let took = begun.elapsed();
        let (verdict, evidence, value) = match outcome {
            Ok(Seen::Right(value, evidence)) => (Verdict::Passed, evidence, Some(value)),
            Ok(Seen::Skip(why)) => (Verdict::Skipped(why), String::new(), None),
            Err(failure) if matches!(failure.kind, Kind::Interrupted(_)) => {
                self.tell(name, Verdict::Unknown, took, failure.message.clone());
                return Err(failure);
            }
            Err(failure) => {
                if failure.kind == Kind::Unreachable {
                    self.away = Some(failure.message.clone());
                }
                (Verdict::Failed, told(&failure), None)
            }
        };
        self.tell(name, verdict, took, evidence);
        Ok(value)
    }

    /// Says that something that is there is not as it was made.
    pub fn find(&mut self, name: &str, on: impl Into<String>, told: impl Into<String>, hint: Option<&str>) {
        let (on, told) = (on.into(), told.into());
        self.findings.push(Finding { id: name.to_owned(), object: on, what: told, hint: hint.map(str::to_owned) });
    }

    fn tell(&mut self, name: &str, verdict: Verdict, took: Duration, evidence: String) {
        self.done.push(Step::new(name, took, verdict, short(&evidence, MOST)));
    }
}

fn told(failure: &Failure) -> String {
    failure.hint.as_ref().map_or(failure.message.clone(), |hint| format!("{} - {hint}", failure.message))
}
