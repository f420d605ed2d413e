//! The sample as a source of rows.

use std::sync::Arc;

use super::row::Rows;
use super::stack::Stack;
use crate::domain::catalogue::{Catalogue, Line, TableDef, shapes};
use crate::domain::cell::Batch;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::table::Shape;
use crate::engine::{Part, RowSource};

/// How big the sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Experiments, the one that MLflow makes included; at least that one is made.
    pub experiments: u32,
    /// Runs; for two of them there is one trace.
    pub runs: u32,
    /// Rows of the table `metrics`.
    pub metric_rows: u64,
}

/// Up to these numbers all times and sums fit their types.
const MOST: Size = Size { experiments: 1_000_000, runs: 10_000_000, metric_rows: 10_000_000_000 };

impl Default for Size {
    fn default() -> Self {
        Size { experiments: 8, runs: 200, metric_rows: 100_000 }
    }
}

/// A made-up MLflow store: the same rows for the same size, on every machine and at any time. Rows are made when they
/// are read, from their index, so that its memory does not grow with the metrics.
pub struct Sample {
    tables: &'static [Arc<TableDef>],
    shapes: Vec<Shape>,
    stack: Stack,
}

impl Sample {
    /// A sample of that size, of the newest tracking revision that the catalogue has.
    ///
    /// # Errors
    /// Usage: the size is beyond what a sample can be, or there are metrics and no run to have them.
    pub fn new(size: Size) -> Outcome<Sample> {
        let limits = [
            ("experiments", u64::from(size.experiments), u64::from(MOST.experiments)),
            ("runs", u64::from(size.runs), u64::from(MOST.runs)),
            ("metric rows", size.metric_rows, MOST.metric_rows),
        ];
        if let Some((what, asked, most)) = limits.into_iter().find(|(_, asked, most)| asked > most) {
            return Err(Failure::usage(format!("a sample has at most {most} {what}, not {asked}")));
        }
        if size.metric_rows > 0 && size.runs == 0 {
            return Err(Failure::usage("a sample with metrics needs at least one run"));
        }
        let newest = Catalogue::embedded()?
            .newest(Line::Tracking)
            .ok_or_else(|| Failure::internal("the catalogue has no revision"))?;
        Ok(Sample {
            tables: &newest.tables,
            shapes: shapes(&newest.tables),
            stack: Stack::new(&newest.id, size.experiments, size.runs, size.metric_rows),
        })
    }

    /// All tables of its revision; those of MLflow's rarer features have no rows.
    pub fn tables(&self) -> &[Arc<TableDef>] {
        self.tables
    }
}

impl RowSource for Sample {
    fn address(&self) -> String {
        "the sample store".to_owned()
    }

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn rows(&self, shape: &Shape) -> Outcome<u64> {
        match shape.name.as_str() {
            "metrics" => Ok(self.stack.metric_rows),
            "latest_metrics" => self.stack.series(),
            _ => {
                let mut rows = 0;
                self.read(shape, Part::ALL, &mut |batch| {
                    rows += batch.rows() as u64;
                    Ok(())
                })?;
                Ok(rows)
            }
        }
    }

    fn parts(&self, _: &Shape, _: usize) -> Outcome<Vec<Part>> {
        Ok(vec![Part::ALL])
    }

    fn read(&self, shape: &Shape, part: Part, each: &mut dyn FnMut(&Batch) -> Outcome<()>) -> Outcome<()> {
        if part != Part::ALL {
            return Err(Failure::internal("the sample store is not read in parts"));
        }
        let mut rows = Rows::new(shape, each);
        let stack = &self.stack;
        match shape.name.as_str() {
            "alembic_version" => stack.alembic_version(&mut rows),
            "assessments" => stack.assessments(&mut rows),
            "datasets" => stack.datasets(&mut rows),
            "experiment_tags" => stack.experiment_tags(&mut rows),
            "experiments" => stack.experiments(&mut rows),
            "input_tags" => stack.input_tags(&mut rows),
            "inputs" => stack.inputs(&mut rows),
            "latest_metrics" => stack.latest_metrics(&mut rows),
            "logged_model_metrics" => stack.logged_model_metrics(&mut rows),
            "logged_model_params" => stack.logged_model_params(&mut rows),
            "logged_model_tags" => stack.logged_model_tags(&mut rows),
            "logged_models" => stack.logged_models(&mut rows),
            "metrics" => stack.metrics(&mut rows),
            "model_version_tags" => stack.model_version_tags(&mut rows),
            "model_versions" => stack.model_versions(&mut rows),
            "params" => stack.params(&mut rows),
            "registered_model_aliases" => stack.registered_model_aliases(&mut rows),
            "registered_model_tags" => stack.registered_model_tags(&mut rows),
            "registered_models" => stack.registered_models(&mut rows),
            "runs" => stack.runs(&mut rows),
            "spans" => stack.spans(&mut rows),
            "tags" => stack.tags(&mut rows),
            "trace_info" => stack.trace_info(&mut rows),
            "trace_request_metadata" => stack.trace_request_metadata(&mut rows),
            "trace_tags" => stack.trace_tags(&mut rows),
            "workspaces" => stack.workspaces(&mut rows),
            _ => Ok(()),
        }?;
        rows.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::domain::cell::Cell;
    use crate::domain::digest::{RowHasher, TableDigest};
    use crate::domain::failure::Kind;
    use crate::domain::fit;

    const SIZES: [Size; 5] = [
        Size { experiments: 0, runs: 0, metric_rows: 0 },
        Size { experiments: 1, runs: 1, metric_rows: 1 },
        Size { experiments: 3, runs: 20, metric_rows: 7 },
        Size { experiments: 40, runs: 333, metric_rows: 20_000 },
        Size { experiments: 8, runs: 200, metric_rows: 100_000 },
    ];

    fn shape<'a>(sample: &'a Sample, table: &str) -> &'a Shape {
        sample.shapes().iter().find(|s| s.name == table).unwrap()
    }

    fn digest(sample: &Sample, shape: &Shape) -> TableDigest {
        let mut hasher = RowHasher::new(&shape.name);
        let mut digest = TableDigest::default();
        sample
            .read(shape, Part::ALL, &mut |batch| {
                digest.add(hasher.batch(batch));
                Ok(())
            })
            .unwrap();
        digest
    }

    /// Each row as the texts of some of its columns.
    fn texts(sample: &Sample, table: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let shape = shape(sample, table);
        let places: Vec<usize> =
            columns.iter().map(|name| shape.columns.iter().position(|c| c.name == *name).unwrap()).collect();
        let mut rows = Vec::new();
        sample
            .read(shape, Part::ALL, &mut |batch| {
                for row in batch.iter() {
                    rows.push(places.iter().map(|place| text(batch, row[*place])).collect());
                }
                Ok(())
            })
            .unwrap();
        rows
    }

    fn text(batch: &Batch, cell: Cell) -> String {
        match cell {
            Cell::Null => "NULL".to_owned(),
            Cell::Int(v) => v.to_string(),
            Cell::Float(v) => format!("{v:?}"),
            Cell::Bool(v) => v.to_string(),
            Cell::Text(s) | Cell::Json(s) | Cell::Bytes(s) => String::from_utf8(batch.bytes(s).to_vec()).unwrap(),
        }
    }

    #[test]
    fn the_sample_does_not_change() {
        let size = Size { experiments: 5, runs: 60, metric_rows: 5000 };
        let (a, b) = (Sample::new(size).unwrap(), Sample::new(size).unwrap());
        for shape in a.shapes() {
            assert_eq!(digest(&a, shape), digest(&b, shape), "{}", shape.name);
        }
        assert_eq!(digest(&a, shape(&a, "metrics")).to_string(), "11549bb189363eb9dd361ab278621887");
    }

    #[test]
    fn rows_are_as_many_as_are_counted_and_each_value_fits_its_column_and_each_key_is_there_once() {
        for size in SIZES {
            let sample = Sample::new(size).unwrap();
            for shape in sample.shapes() {
                let (mut rows, mut keys) = (0u64, BTreeSet::new());
                sample
                    .read(shape, Part::ALL, &mut |batch| {
                        for row in batch.iter() {
                            rows += 1;
                            for (column, cell) in shape.columns.iter().zip(row) {
                                let fits = fit::check(column, batch, *cell);
                                assert!(fits.is_ok(), "{}.{}: {cell:?} {fits:?}", shape.name, column.name);
                            }
                            let key: Vec<String> =
                                shape.identifying().iter().map(|place| text(batch, row[*place])).collect();
                            assert!(keys.insert(key.clone()), "{}: {key:?} twice", shape.name);
                        }
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(sample.rows(shape).unwrap(), rows, "{} {size:?}", shape.name);
            }
            assert_eq!(sample.rows(shape(&sample, "runs")).unwrap(), u64::from(size.runs));
            assert_eq!(sample.rows(shape(&sample, "experiments")).unwrap(), u64::from(size.experiments.max(1)));
        }
    }

    #[test]
    fn every_foreign_key_and_unique_constraint_holds() {
        for size in SIZES {
            let sample = Sample::new(size).unwrap();
            for table in sample.tables() {
                for key in &table.postgres.foreign_keys {
                    let names = |columns: &[String]| -> Vec<String> { columns.to_vec() };
                    let (own, other) = (names(&key.columns), names(&key.references));
                    let own: Vec<&str> = own.iter().map(String::as_str).collect();
                    let other: Vec<&str> = other.iter().map(String::as_str).collect();
                    let there: BTreeSet<_> = texts(&sample, &key.table, &other).into_iter().collect();
                    for row in texts(&sample, &table.name, &own) {
                        assert!(
                            row.contains(&"NULL".to_owned()) || there.contains(&row),
                            "{} {row:?} of {}",
                            key.name,
                            table.name
                        );
                    }
                }
                for key in &table.postgres.unique {
                    let columns: Vec<&str> = key.columns.iter().map(String::as_str).collect();
                    let rows = texts(&sample, &table.name, &columns);
                    assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), rows.len(), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn latest_metrics_are_what_mlflow_would_have_kept_of_the_metrics() {
        let columns = ["run_uuid", "key", "step", "timestamp", "value", "is_nan"];
        for size in SIZES {
            let sample = Sample::new(size).unwrap();
            let mut kept: BTreeMap<(String, String), (i64, i64, f64, String)> = BTreeMap::new();
            let latest = |row: &[String]| {
                let key = (row[0].clone(), row[1].clone());
                (key, (row[2].parse().unwrap(), row[3].parse().unwrap(), row[4].parse().unwrap(), row[5].clone()))
            };
            for row in texts(&sample, "metrics", &columns) {
                let (key, new): (_, (i64, i64, f64, String)) = latest(&row);
                let old = kept.entry(key).or_insert_with(|| new.clone());
                if (new.0, new.1, new.2) > (old.0, old.1, old.2) {
                    *old = new;
                }
            }
            let stored: BTreeMap<_, _> = texts(&sample, "latest_metrics", &columns).iter().map(|r| latest(r)).collect();
            assert_eq!(stored, kept);
        }
    }

    #[test]
    fn the_sample_of_the_usual_size_has_all_that_stores_have() {
        let sample = Sample::new(Size::default()).unwrap();
        let has = |table: &str, column: &str, values: &[&str]| {
            let there: BTreeSet<String> = texts(&sample, table, &[column]).concat().into_iter().collect();
            for value in values {
                assert!(there.contains(*value), "{table}.{column} has no {value}: {there:?}");
            }
        };
        has("runs", "status", &["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]);
        has("runs", "lifecycle_stage", &["active", "deleted"]);
        has("experiments", "lifecycle_stage", &["active", "deleted"]);
        has("experiments", "name", &["Default", "Qualitätsprüfung – 品質検査"]);
        has("metrics", "value", &["1.7976931348623157e308", "-1.7976931348623157e308"]);
        has("metrics", "is_nan", &["true", "false"]);
        has("latest_metrics", "is_nan", &["true", "false"]);
        has("metrics", "step", &["-1", "0", "100"]);
        has("tags", "key", &["mlflow.parentRunId", "mlflow.source.git.commit"]);
        has("model_versions", "current_stage", &["None", "Staging", "Production", "Archived", "Deleted_Internal"]);
        has("registered_model_aliases", "alias", &["champion", "challenger", "production"]);
        has("logged_models", "status", &["1", "2", "3"]);
        has("trace_info", "status", &["OK", "ERROR", "IN_PROGRESS"]);
        has("assessments", "assessment_type", &["feedback", "expectation"]);
        has("assessments", "valid", &["true", "false"]);
        has("inputs", "destination_type", &["RUN", "MODEL_OUTPUT"]);
        has("input_tags", "value", &["training", "eval"]);
        has("alembic_version", "version_num", &["dc11669786a5"]);
        has("workspaces", "name", &["default"]);
        let filled = sample.shapes().iter().filter(|s| sample.rows(s).unwrap() > 0).count();
        assert_eq!(filled, 26);
        for content in texts(&sample, "spans", &["content"]).concat() {
            assert!(serde_json::from_str::<serde_json::Value>(&content).is_ok(), "{content}");
        }
    }

    #[test]
    fn a_sample_that_cannot_be_is_refused() {
        for size in [
            Size { runs: 0, ..Size::default() },
            Size { experiments: 1_000_001, ..Size::default() },
            Size { runs: u32::MAX, ..Size::default() },
            Size { metric_rows: u64::MAX, ..Size::default() },
        ] {
            assert_eq!(Sample::new(size).err().map(|f| f.kind), Some(Kind::Usage), "{size:?}");
        }
    }
}
