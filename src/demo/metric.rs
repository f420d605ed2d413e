//! Metrics: series of points, each point made from its index alone, and the latest point of each series.

use super::chance::{Chance, fraction, mix};
use super::project::{Curve, MetricKind};
use super::row::{Rows, broken};
use super::run::{Run, Status};
use super::stack::Stack;
use crate::domain::cell::{Batch, Cell};
use crate::domain::failure::Outcome;
use crate::domain::table::Shape;

/// How MLflow stores infinity.
const INFINITY: f64 = f64::MAX;

/// One measurement as MLflow stores it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) step: i64,
    pub(super) time: i64,
    pub(super) value: f64,
    pub(super) nan: bool,
}

impl Point {
    const NAN: (f64, bool) = (0.0, true);

    /// MLflow's rule for `latest_metrics`: the greatest (step, timestamp, stored value).
    fn is_after(&self, other: &Point) -> bool {
        (self.step, self.time, self.value) > (other.step, other.time, other.value)
    }
}

/// The metric of one key in one run.
pub(super) struct Series {
    pub(super) key: &'static str,
    curve: Curve,
    points: u64,
    start: i64,
    duration: i64,
    seed: u64,
    scale: f64,
    /// From this point on it is NaN, and infinite at the one before.
    diverges: u64,
    /// Whether the training was resumed from an older checkpoint near its end: steps then repeat, at later times.
    resumed: bool,
    /// Whether the last point was measured a second time.
    repeated: bool,
    /// Whether the first point is no number, or -infinity of a likelihood.
    blank: bool,
}

impl Series {
    fn new(run: &Run, metric: &MetricKind, place: u64, points: u64) -> Series {
        let (key, curve, _) = *metric;
        let mut chance = Chance::of(key, (u64::from(run.index) << 8) | place);
        let diverges = if curve == Curve::Falling && run.status == Status::Failed && points >= 8 {
            points - (points / 50).max(2)
        } else {
            points
        };
        Series {
            key,
            curve,
            points,
            start: run.start,
            duration: run.duration(),
            seed: chance.next(),
            scale: 0.5 + 2.0 * chance.fraction(),
            diverges,
            resumed: curve == Curve::Falling && run.index % 9 == 4 && points >= 20 && diverges == points,
            repeated: curve == Curve::Rising && run.index % 7 == 2 && points >= 4,
            blank: run.index % 6 == 1 && points >= 4,
        }
    }

    /// The point of that index.
    fn point(&self, index: u64) -> Point {
        let mut at = index;
        if self.repeated && index + 1 == self.points {
            at -= 1;
        }
        let mut step = at.cast_signed();
        if self.resumed && index >= self.points - self.points / 10 {
            step -= (self.points / 4).cast_signed();
        }
        if self.curve == Curve::Rising {
            step -= 1;
        }
        let (value, nan) = self.value(index);
        Point { step, time: self.start + self.duration * at.cast_signed() / self.points.cast_signed(), value, nan }
    }

    fn value(&self, index: u64) -> (f64, bool) {
        let done = index as f64 / self.points as f64;
        let noise = fraction(mix(self.seed ^ index));
        match self.curve {
            Curve::Falling if index >= self.diverges => Point::NAN,
            Curve::Falling if self.diverges < self.points && index + 1 == self.diverges => (INFINITY, false),
            Curve::Rising if self.blank && index == 0 => Point::NAN,
            Curve::Likelihood if self.blank && index == 0 => (-INFINITY, false),
            Curve::Falling => (self.scale / (1.0 + 12.0 * done) * (1.0 + 0.1 * noise), false),
            Curve::Rising => (0.5 + 0.48 * done / (done + 0.1 * self.scale) + 0.02 * noise, false),
            Curve::Likelihood => (-self.scale * 900.0 / (1.0 + 3.0 * done) - noise, false),
            Curve::Rate => ([0.001, 0.0005, 0.00025].get((4.0 * done) as usize).copied().unwrap_or(0.000_125), false),
            Curve::Busy => (20.0 + 30.0 * self.scale * noise, false),
            Curve::Memory => (4000.0 + 6000.0 * self.scale * done + 100.0 * noise, false),
        }
    }

    /// All points in the order in which they were logged.
    fn each(&self) -> impl Iterator<Item = Point> + '_ {
        (0..self.points).map(|index| self.point(index))
    }

    /// The point that stands in `latest_metrics`.
    pub(super) fn latest(&self) -> Option<Point> {
        self.each().reduce(|latest, point| if point.is_after(&latest) { point } else { latest })
    }
}

/// The columns of `metrics` and `latest_metrics`.
#[derive(Clone, Copy)]
enum Field {
    Key,
    Value,
    Time,
    Step,
    Nan,
    Run,
}

/// What each column holds, found once per table.
fn fields(shape: &Shape) -> Outcome<Vec<Field>> {
    let names = [
        ("key", Field::Key),
        ("value", Field::Value),
        ("timestamp", Field::Time),
        ("step", Field::Step),
        ("is_nan", Field::Nan),
        ("run_uuid", Field::Run),
    ];
    if let Some((name, _)) = names.iter().find(|(name, _)| shape.columns.iter().all(|c| c.name != *name)) {
        return Err(broken(shape, name, "is no column of it"));
    }
    let field = |name: &str| names.iter().find(|(n, _)| *n == name).map(|(_, field)| *field);
    let found = shape.columns.iter().map(|c| field(&c.name).ok_or_else(|| broken(shape, &c.name, "is not known here")));
    found.collect()
}

fn push(batch: &mut Batch, fields: &[Field], run: &str, key: &str, point: Point) {
    for field in fields {
        match field {
            Field::Key => batch.push_bytes(Cell::Text, key.as_bytes()),
            Field::Value => batch.push(Cell::Float(point.value)),
            Field::Time => batch.push(Cell::Int(point.time)),
            Field::Step => batch.push(Cell::Int(point.step)),
            Field::Nan => batch.push(Cell::Bool(point.nan)),
            Field::Run => batch.push_bytes(Cell::Text, run.as_bytes()),
        }
    }
}

impl Stack {
    /// Every series that has a point.
    pub(super) fn each_series(&self, each: &mut dyn FnMut(&Run, &Series) -> Outcome<()>) -> Outcome<()> {
        for (index, share) in self.metric_shares().filter(|(_, share)| *share > 0) {
            let run = self.run(index);
            let metrics = run.experiment.project.metrics;
            let whole: u64 = metrics.iter().map(|(_, _, part)| part).sum();
            let (mut parts, mut before) = (0u64, 0u64);
            for (place, metric) in metrics.iter().enumerate() {
                parts += metric.2;
                // No overflow: the size of a sample is limited.
                let until = (share * parts).checked_div(whole).unwrap_or(0);
                if until > before {
                    each(&run, &Series::new(&run, metric, place as u64, until - before))?;
                }
                before = until;
            }
        }
        Ok(())
    }

    pub(super) fn metrics(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        let fields = fields(rows.shape())?;
        self.each_series(&mut |run, series| {
            series.each().try_for_each(|point| rows.add_cells(|b| push(b, &fields, &run.id, series.key, point)))
        })
    }

    pub(super) fn latest_metrics(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        let fields = fields(rows.shape())?;
        self.each_series(&mut |run, series| {
            let Some(point) = series.latest() else { return Ok(()) };
            rows.add_cells(|b| push(b, &fields, &run.id, series.key, point))
        })
    }

    /// The number of rows of `latest_metrics`.
    pub(super) fn series(&self) -> Outcome<u64> {
        let mut count = 0;
        self.each_series(&mut |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }
}
