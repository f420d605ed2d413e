//! Figures, and what the limits say of them.

use std::time::Duration;

use super::baseline::Baseline;
use super::measure::{Failed, Measured, Operation, Times};
use super::watch::Seen;
use crate::domain::verify::account::{Figure, Figures, Finding};
use crate::domain::verify::limits::Limits;

/// The word of all operations together.
const ALL: &str = "all";

fn columns(columns: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    columns.iter().map(|(key, title, number)| ((*key).to_owned(), (*title).to_owned(), *number)).collect()
}

fn ms(value: f64) -> Figure {
    let text = if value < 100.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") };
    Figure::number(rounded(value), text)
}

/// To a tenth: no more of it was measured.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn rate(value: f64) -> Figure {
    Figure::number(rounded(value), format!("{value:.1}"))
}

/// The figures of a run.
pub(super) struct Judged<'a> {
    times: Vec<(Operation, Times)>,
    all: Times,
    failed: Vec<Failed>,
    took: Duration,
    limits: &'a Limits,
    baseline: Option<&'a Baseline>,
}

impl<'a> Judged<'a> {
    pub(super) fn new(
        measured: &Measured,
        took: Duration,
        limits: &'a Limits,
        baseline: Option<&'a Baseline>,
    ) -> Judged<'a> {
        let (times, all) = measured.times();
        Judged { times, all, failed: measured.failed(), took, limits, baseline }
    }

    /// What the most frequent kind of failure calls for.
    fn remedy(&self) -> &'static str {
        match self.failed.iter().max_by_key(|f| f.count).map_or("", |f| f.kind.as_str()) {
            "database is locked" => {
                "SQLite takes one writer at a time; PostgreSQL takes many (`mlops migrate sqlite-to-pg`)"
            }
            "too many clients" => "raise max_connections of the database, or lower the pools of the server's workers",
            // MLflow holds one connection and asks for a second in the same call (store/tracking/sqlalchemy_store.py,
            // log_batch): a pool of 5 + 10 is empty at 15 calls, and all of them wait for each other.
            "queuepool limit" => {
                "the server's pool is too small for so many calls at once: MLFLOW_SQLALCHEMYSTORE_POOL_SIZE and \
                 MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW, two for each of its threads"
            }
            "time-out" if self.failed.iter().any(|f| f.kind == "queuepool limit") => {
                "the server's calls wait for its own pool: MLFLOW_SQLALCHEMYSTORE_POOL_SIZE and \
                 MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW, two for each of its threads"
            }
            _ => "the table of errors tells the kinds, and the server's log the rest",
        }
    }

    fn rate_of(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(1e-3)
    }

    /// Operations that were done, and those of them that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.all.count, self.failed.iter().map(|f| f.count).sum())
    }

    /// How many times slower an operation is than it was: of its 95th percentile, of the rate of all.
    fn slower(&self, word: &str, p95: f64, rate: f64) -> Option<f64> {
        let before = self.baseline?.of(word)?;
        let ratio = if word == ALL { before.rate / rate } else { p95 / before.p95_ms };
        ratio.is_finite().then_some(ratio)
    }

    /// All tables.
    pub(super) fn figures(&self, watched: Option<&Seen>) -> Vec<Figures> {
        let mut all = vec![self.operations()];
        if !self.failed.is_empty() {
            let row = |f: &Failed| {
                vec![
                    Figure::text(f.operation.word()),
                    Figure::text(f.kind.clone()),
                    Figure::number(f.count, f.count.to_string()),
                    Figure::text(crate::domain::harmless::short(&f.first, 200)),
                ]
            };
            all.push(Figures {
                name: "errors".to_owned(),
                title: "Errors by kind".to_owned(),
                columns: columns(&[
                    ("operation", "operation", false),
                    ("kind", "kind", false),
                    ("count", "count", true),
                    ("first", "first", false),
                ]),
                rows: self.failed.iter().map(row).collect(),
            });
        }
        if let Some(seen) = watched {
            all.push(Figures {
                name: "database".to_owned(),
                title: "The database meanwhile, looked at once a second".to_owned(),
                columns: columns(&[
                    ("looks", "looks", true),
                    ("peak_connections", "peak connections", true),
                    ("allowed_connections", "allowed", true),
                    ("peak_waiting", "peak waiting for locks", true),
                    ("longest_wait_ms", "longest wait seen", true),
                ]),
                rows: vec![vec![
                    Figure::number(seen.looks, seen.looks.to_string()),
                    Figure::number(seen.connections, seen.connections.to_string()),
                    Figure::number(seen.allowed, seen.allowed.to_string()),
                    Figure::number(seen.blocked, seen.blocked.to_string()),
                    ms(seen.longest * 1e3),
                ]],
            });
        }
        all
    }

    fn operations(&self) -> Figures {
        let mut heads = vec![
            ("operation", "operation", false),
            ("count", "count", true),
            ("rate", "a second", true),
            ("p50_ms", "p50", true),
            ("p95_ms", "p95", true),
            ("p99_ms", "p99", true),
            ("max_ms", "max", true),
        ];
        if self.baseline.is_some() {
            heads.push(("times_slower", "times slower", true));
        }
        let row = |word: &str, t: &Times| {
            let per_second = self.rate_of(t.count);
            let mut cells = vec![
                Figure::text(word),
                Figure::number(t.count, t.count.to_string()),
                rate(per_second),
                ms(t.p50),
                ms(t.p95),
                ms(t.p99),
                ms(t.max),
            ];
            if self.baseline.is_some() {
                let ratio = self.slower(word, t.p95, per_second);
                cells.push(Figure::number(ratio, ratio.map_or("-".to_owned(), |r| format!("{r:.2}"))));
            }
            cells
        };
        let mut rows: Vec<Vec<Figure>> = self.times.iter().map(|(o, t)| row(o.word(), t)).collect();
        rows.push(row(ALL, &self.all));
        let title = "Operations, failures included".to_owned();
        Figures { name: "operations".to_owned(), title, columns: columns(&heads), rows }
    }

    /// What is beyond the limits.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut find = |name: &str, on: &str, told: String, hint: &str| {
            let hint = Some(hint.to_owned());
            found.push(Finding { id: name.to_owned(), object: on.to_owned(), what: told, hint });
        };
        let (count, failed) = self.counts();
        if failed > self.limits.max_errors {
            let told = format!("{failed} of {count} failed, and {} may (--max-errors)", self.limits.max_errors);
            find("errors", "operations", told, self.remedy());
        }
        for (operation, times) in &self.times {
            let word = operation.word();
            if let Some(limit) = self.limits.max_p95.filter(|limit| times.p95 > *limit) {
                let told = format!("its p95 is {:.0} ms, and {limit:.0} ms are allowed (--max-p95)", times.p95);
                find("slow_operation", word, told, "fewer writers, or more workers of the server");
            }
            let ratio = self.slower(word, times.p95, 0.0);
            if let (Some(ratio), Some(limit)) = (ratio, self.limits.worse_than)
                && ratio > limit
            {
                let told =
                    format!("its p95 is {ratio:.2} times the baseline's, and {limit} are allowed (--worse-than)");
                find("slower_than_baseline", word, told, "what has changed since?");
            }
        }
        let rate = self.rate_of(count);
        if let Some(limit) = self.limits.min_rate.filter(|limit| rate < *limit) {
            let told = format!("{rate:.1} operations a second, and {limit:.1} are asked for (--min-rate)");
            find("low_rate", ALL, told, "fewer writers, or more workers of the server");
        }
        if let (Some(ratio), Some(limit)) = (self.slower(ALL, 0.0, rate), self.limits.worse_than)
            && ratio > limit
        {
            let told = format!(
                "the rate is {ratio:.2} times lower than the baseline's, and {limit} is allowed (--worse-than)"
            );
            find("slower_than_baseline", ALL, told, "what has changed since?");
        }
        found
    }
}
