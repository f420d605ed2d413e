//! An earlier run's document, to compare with.

use std::path::Path;

use serde::Deserialize;

use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// Bytes of a document that is read.
const MOST: u64 = 64 << 20;

#[derive(Deserialize)]
struct Document {
    schema: String,
    result: Told,
}

#[derive(Deserialize)]
struct Told {
    id: String,
    figures: Figures,
    counts: Counts,
}

#[derive(Deserialize)]
struct Figures {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Counts {
    writers: u64,
    metrics_per_run: Option<u64>,
}

/// One operation of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Operation {
    /// Its word.
    pub operation: String,
    /// Milliseconds.
    pub p95_ms: f64,
    /// Operations a second.
    pub rate: f64,
}

/// An earlier run.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Its id.
    pub id: String,
    /// Its writers.
    pub writers: u64,
    /// Points of a run; `None`: the document does not tell.
    pub metrics: Option<u64>,
    /// Its figures.
    pub operations: Vec<Operation>,
}

impl Baseline {
    /// Reads what `mlops verify concurrency --output json` printed.
    ///
    /// # Errors
    /// Usage: it cannot be read, or is something else.
    pub fn read(file: &Path) -> Outcome<Baseline> {
        use std::io::Read;
        let wrong = |why: String| {
            Failure::usage(format!("--baseline {}: {why}", shown(file)))
                .hint("`mlops verify concurrency ... --output json > FILE` writes one")
        };
        let mut text = String::new();
        let opened = std::fs::File::open(file).map_err(|e| wrong(e.to_string()))?;
        opened.take(MOST).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        let document: Document = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if document.schema != "mlops.verify.concurrency.v1" {
            return Err(wrong(format!("it is a document of {}", document.schema)));
        }
        let Told { id, figures, counts } = document.result;
        let Counts { writers, metrics_per_run: metrics } = counts;
        Ok(Baseline { id, writers, metrics, operations: figures.operations })
    }

    /// Whether it was the same work: more writers wait longer, and that is no fault.
    ///
    /// # Errors
    /// Usage: it was another.
    pub fn compares(&self, writers: u32, metrics: u32) -> Outcome<()> {
        let asked = [("writers", Some(self.writers), writers), ("metrics", self.metrics, metrics)];
        for (flag, was, is) in asked {
            if let Some(was) = was.filter(|was| *was != u64::from(is)) {
                return Err(Failure::usage(format!(
                    "--baseline: the run {} had --{flag} {was}, and this one has {is}: their times do not compare",
                    self.id
                ))
                .hint(format!("--{flag} {was}, or a baseline that was made with --{flag} {is}")));
            }
        }
        Ok(())
    }

    /// The figures of an operation.
    pub fn of(&self, operation: &str) -> Option<&Operation> {
        self.operations.iter().find(|o| o.operation == operation)
    }
}
