//! How long each operation took, and how often it failed in which way. A histogram takes some 100 KiB at most, whatever is
//! recorded; times are exact to 0.1 %.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::mlflow::{Fault, Trouble};

/// What writers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// `runs/create`.
    CreateRun,
    /// `runs/log-metric`.
    LogMetric,
    /// `runs/log-batch`.
    LogBatch,
    /// `runs/log-parameter`.
    LogParam,
    /// `runs/set-tag`.
    SetTag,
    /// `runs/search`.
    Search,
    /// `runs/update`.
    EndRun,
}

impl Operation {
    /// The stable word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Operation::CreateRun => "create_run",
            Operation::LogMetric => "log_metric",
            Operation::LogBatch => "log_batch",
            Operation::LogParam => "log_param",
            Operation::SetTag => "set_tag",
            Operation::Search => "search",
            Operation::EndRun => "end_run",
        }
    }
}

/// One operation's times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Times {
    /// How often it was done, failures included.
    pub(super) count: u64,
    /// The median.
    pub(super) p50: f64,
    /// 95 of 100 took no longer.
    pub(super) p95: f64,
    /// 99 of 100 took no longer.
    pub(super) p99: f64,
    /// The longest.
    pub(super) max: f64,
}

/// What went wrong with an operation: how often, and the first time's words.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    /// The operation.
    pub(super) operation: Operation,
    /// Which kind: `database is locked`.
    pub(super) kind: String,
    /// How often.
    pub(super) count: u64,
    /// What was said the first time.
    pub(super) first: String,
}

#[derive(Default)]
struct Kept {
    times: BTreeMap<Operation, Histogram<u64>>,
    failed: BTreeMap<(Operation, String), (u64, String)>,
}

/// Takes what all writers measure.
#[derive(Default)]
pub(super) struct Measured(Mutex<Kept>);

/// Microseconds; ten minutes are far beyond the bound of a call.
const LONGEST: u64 = 600_000_000;

impl Measured {
    /// An operation, and what was wrong with it.
    pub(super) fn add(&self, operation: Operation, took: Duration, trouble: Option<&Trouble>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST).clamp(1, LONGEST);
        if let (false, Ok(new)) = (kept.times.contains_key(&operation), Histogram::new_with_bounds(1, LONGEST, 3)) {
            kept.times.insert(operation, new);
        }
        if let Some(histogram) = kept.times.get_mut(&operation) {
            histogram.saturating_record(micros);
        }
        if let Some(trouble) = trouble {
            let entry = kept.failed.entry((operation, kind(trouble)));
            entry.or_insert_with(|| (0, trouble.failure.message.clone())).0 += 1;
        }
    }

    /// Each operation that was done, and all of them together.
    pub(super) fn times(&self) -> (Vec<(Operation, Times)>, Times) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut together: Option<Histogram<u64>> = None;
        for histogram in kept.times.values() {
            match &mut together {
                // Both have the same bounds.
                Some(all) => drop(all.add(histogram)),
                None => together = Some(histogram.clone()),
            }
        }
        let each = kept.times.iter().map(|(operation, histogram)| (*operation, times(histogram))).collect();
        (each, together.as_ref().map(times).unwrap_or_default())
    }

    /// Each kind of failure.
    pub(super) fn failed(&self) -> Vec<Failed> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = kept.failed.iter().map(|((operation, kind), (count, first))| Failed {
            operation: *operation,
            kind: kind.clone(),
            count: *count,
            first: first.clone(),
        });
        failed.collect()
    }
}

fn times(histogram: &Histogram<u64>) -> Times {
    let ms = |micros: u64| micros as f64 / 1e3;
    Times {
        count: histogram.len(),
        p50: ms(histogram.value_at_quantile(0.5)),
        p95: ms(histogram.value_at_quantile(0.95)),
        p99: ms(histogram.value_at_quantile(0.99)),
        max: ms(histogram.max()),
    }
}

/// What operators tell failures apart by.
fn kind(trouble: &Trouble) -> String {
    let message = trouble.failure.message.to_ascii_lowercase();
    for known in ["database is locked", "too many clients", "queuepool limit", "deadlock detected"] {
        if message.contains(known) {
            return known.to_owned();
        }
    }
    match &trouble.fault {
        Fault::Timeout => "time-out".to_owned(),
        Fault::Connect => "connection lost".to_owned(),
        Fault::Server(status) => format!("HTTP {status}"),
        Fault::Api { code } => code.to_ascii_lowercase(),
        Fault::Malformed => "malformed answer".to_owned(),
        Fault::Unauthorized | Fault::Forbidden | Fault::HostRefused => "not allowed".to_owned(),
        Fault::NotFound => "no such route".to_owned(),
        Fault::Tls => "TLS".to_owned(),
    }
}
