//! What concurrent writers wrote, and what a store has of it. Each value tells by itself who wrote it when, so that what is
//! lost, doubled, torn or nobody's is known without a copy of the values.

use crate::domain::tracking::{MetricPoint, Pairs, value};

/// Points in a batch.
const BATCH: u32 = 25;
/// The most writers, runs of a writer and points of a run: their numbers together fit the 53 bits of a metric's value.
pub const MOST_WRITERS: u32 = 1_000;
/// See [`MOST_WRITERS`].
pub const MOST_RUNS: u32 = 100_000;
/// See [`MOST_WRITERS`].
pub const MOST_POINTS: u32 = 100_000;

/// The metric that is logged point by point.
pub const SINGLE: &str = "single";
/// The metric that is logged in batches.
pub const BATCHED: &str = "batched";
/// The param that is logged alone.
pub const PARAM: &str = "alone";
/// The tag that is set alone.
pub const TAG: &str = "mlops.verify.alone";
/// What the keys of params of batches begin with.
const BATCH_PARAM: &str = "batch-";
/// What the keys of tags of batches begin with.
const BATCH_TAG: &str = "mlops.verify.batch-";
/// What the keys of all our tags begin with.
const OURS: &str = "mlops.verify.";

/// What is known of a write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It was never sent.
    #[default]
    Unsent,
    /// The server said that it is done.
    Acknowledged,
    /// It was sent, and nobody said that it is done: it may be there or not.
    Doubtful,
}

/// What a run is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Points that are logged one by one.
    pub singles: u32,
    /// Points that are logged in batches.
    pub batched: u32,
}

impl Shape {
    /// Of a run with so many points: half of them alone.
    pub fn of(metrics: u32) -> Shape {
        Shape { singles: metrics.div_ceil(2), batched: metrics / 2 }
    }

    /// How many batches there are.
    pub fn batches(self) -> u32 {
        self.batched.div_ceil(BATCH)
    }

    /// The steps of a batch.
    pub fn steps(self, batch: u32) -> core::ops::Range<u32> {
        (batch * BATCH).min(self.batched)..((batch + 1) * BATCH).min(self.batched)
    }
}

/// Who writes: the writer and its run, counted from 0, and when all began in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// The writer.
    pub writer: u32,
    /// Its run.
    pub run: u32,
    /// The begin.
    pub begun: i64,
}

impl Author {
    /// The run's name, which no other run has.
    pub fn name(&self) -> String {
        format!("writer-{:03}-run-{:05}", self.writer, self.run)
    }

    /// The point of a step: a value that only this author writes there.
    pub fn point(&self, key: &str, step: u32) -> MetricPoint {
        let run = u64::from(self.writer) * u64::from(MOST_RUNS) + u64::from(self.run);
        let place = run * u64::from(MOST_POINTS) + u64::from(step);
        let value = (2 * place + u64::from(key == BATCHED)) as f64;
        MetricPoint { value, timestamp: self.begun + i64::from(step), step: i64::from(step) }
    }

    /// The value of a param or a tag of that key.
    pub fn text(&self, key: &str) -> String {
        format!("{} {key}", self.name())
    }

    /// The param of a batch.
    pub fn batch_param(&self, batch: u32) -> (String, String) {
        let key = format!("{BATCH_PARAM}{batch}");
        (key.clone(), self.text(&key))
    }

    /// The tag of a batch.
    pub fn batch_tag(&self, batch: u32) -> (String, String) {
        let key = format!("{BATCH_TAG}{batch}");
        (key.clone(), self.text(&key))
    }
}

/// What one writer knows of one run.
#[derive(Debug, Clone)]
pub struct Written {
    /// Who.
    pub author: Author,
    /// Whether it lies in the experiment that all share.
    pub shared: bool,
    /// Its id; `None`: no answer told one.
    pub id: Option<String>,
    /// Each point that is logged alone.
    pub singles: Vec<State>,
    /// Each batch.
    pub batches: Vec<State>,
    /// The param that is logged alone.
    pub param: State,
    /// The tag that is set alone.
    pub tag: State,
    /// The end of the run.
    pub end: State,
    /// A search that came after the run was acknowledged and did not tell it.
    pub unseen: bool,
}

impl Written {
    /// A run of which nothing was sent.
    pub fn new(author: Author, shared: bool, shape: Shape) -> Written {
        Written {
            author,
            shared,
            id: None,
            singles: vec![State::Unsent; shape.singles as usize],
            batches: vec![State::Unsent; shape.batches() as usize],
            param: State::Unsent,
            tag: State::Unsent,
            end: State::Unsent,
            unseen: false,
        }
    }
}

/// What a store has of a run.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its status.
    pub status: String,
    /// The newest point of each metric.
    pub newest: Vec<(String, MetricPoint)>,
    /// Params.
    pub params: Pairs,
    /// Tags.
    pub tags: Pairs,
    /// All points of [`SINGLE`].
    pub single: Vec<MetricPoint>,
    /// All points of [`BATCHED`].
    pub batched: Vec<MetricPoint>,
}

/// A kind of fault, a stable word.
pub type Fault = &'static str;
/// A run that was acknowledged is not there.
pub const LOST_RUN: Fault = "lost_run";
/// Two runs where one was made.
pub const DOUBLED_RUN: Fault = "doubled_run";
/// A run of a name that nobody gave.
pub const FOREIGN_RUN: Fault = "foreign_run";

/// A batch is there in part.
pub const TORN_BATCH: Fault = "torn_batch";

/// Something that a store has, or has not, against what its server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its kind.
    pub fault: Fault,
    /// On which thing.
    pub on: String,
    /// What is wrong.
    pub told: String,
}

struct Comparison<'a> {
    written: &'a Written,
    wrong: Vec<Wrong>,
}

/// What is wrong with a run that is there.
pub fn compare(written: &Written, shape: Shape, found: &Found) -> Vec<Wrong> {
    let mut comparison = Comparison { written, wrong: Vec::new() };
    comparison.singles(&found.single);
    comparison.batches(shape, found);
    comparison.texts(found);
    comparison.newest(found);
    comparison.wrong
}

/// Which steps a metric has the right point of, and what else is there.
struct Points {
    /// How often each step is there.
    right: Vec<u32>,
    foreign: Vec<MetricPoint>,
}

impl Points {
    fn sort(author: &Author, key: &str, count: u32, found: &[MetricPoint]) -> Points {
        let mut points = Points { right: vec![0; count as usize], foreign: Vec::new() };
        for point in found {
            let step = u32::try_from(point.step).ok().filter(|step| {
                let wanted = author.point(key, *step);
                wanted.value.to_bits() == point.value.to_bits() && wanted.timestamp == point.timestamp
            });
            match step.and_then(|step| points.right.get_mut(step as usize)) {
                Some(times) => *times += 1,
                None => points.foreign.push(*point),
            }
        }
        points
    }

    fn times(&self, step: u32) -> u32 {
        self.right.get(step as usize).copied().unwrap_or(0)
    }
}

impl Comparison<'_> {
    fn add(&mut self, fault: Fault, what: &str, told: String) {
        self.wrong.push(Wrong { fault, on: format!("{}: {what}", self.written.author.name()), told });
    }

    fn rest(&mut self, key: &str, points: &Points) {
        for (step, times) in points.right.iter().enumerate().filter(|(_, times)| **times > 1) {
            self.add("doubled_point", &format!("{key} step {step}"), format!("it is there {times} times"));
        }
        for point in &points.foreign {
            let (value, time) = (point.value, point.timestamp);
            let told = format!("the value {value} at {time} is there, which nobody wrote");
            self.add("foreign_point", &format!("{key} step {}", point.step), told);
        }
    }

    fn singles(&mut self, found: &[MetricPoint]) {
        let written = self.written;
        let points = Points::sort(&written.author, SINGLE, written.singles.len() as u32, found);
        for (step, state) in written.singles.iter().enumerate() {
            match (state, points.times(step as u32)) {
                (State::Acknowledged, 0) => {
                    self.add(
                        "lost_point",
                        &format!("{SINGLE} step {step}"),
                        "it was acknowledged and is not there".into(),
                    );
                }
                (State::Unsent, n) if n > 0 => {
                    self.add(
                        "foreign_point",
                        &format!("{SINGLE} step {step}"),
                        "it is there and was never sent".into(),
                    );
                }
                _ => {}
            }
        }
        self.rest(SINGLE, &points);
    }

    /// A batch is its points, a param and a tag.
    fn batches(&mut self, shape: Shape, found: &Found) {
        let written = self.written;
        let points = Points::sort(&written.author, BATCHED, shape.batched, &found.batched);
        for (batch, state) in (0_u32..).zip(&written.batches) {
            let steps = shape.steps(batch);
            let all = steps.len() + 2;
            let (param, tag) = (written.author.batch_param(batch), written.author.batch_tag(batch));
            let there = steps.filter(|step| points.times(*step) > 0).count()
                + usize::from(value(&found.params, &param.0) == Some(param.1.as_str()))
                + usize::from(value(&found.tags, &tag.0) == Some(tag.1.as_str()));
            let what = format!("batch {batch}");
            match (state, there) {
                (State::Acknowledged, 0) => {
                    self.add("lost_batch", &what, format!("it was acknowledged and none of its {all} parts is there"));
                }
                (State::Unsent, n) if n > 0 => {
                    self.add("foreign_batch", &what, "it is there and was never sent".into())
                }
                (State::Acknowledged | State::Doubtful, n) if n > 0 && n < all => {
                    let said = if *state == State::Acknowledged { "it was acknowledged" } else { "it failed" };
                    self.add(TORN_BATCH, &what, format!("{said} and {n} of its {all} parts are there"));
                }
                _ => {}
            }
        }
        self.rest(BATCHED, &points);
    }

    fn text(&mut self, what: &str, key: &str, state: State, found: &Pairs) {
        let (wanted, there) = (self.written.author.text(key), value(found, key));
        let (lost, foreign) =
            if what == "param" { ("lost_param", "foreign_param") } else { ("lost_tag", "foreign_tag") };
        let on = format!("{what} {key}");
        match (state, there) {
            (State::Acknowledged, None) => self.add(lost, &on, "it was acknowledged and is not there".into()),
            (State::Unsent, Some(_)) => self.add(foreign, &on, "it is there and was never sent".into()),
            (_, Some(text)) if text != wanted => {
                self.add(foreign, &on, format!("its value is `{text}`, which nobody wrote"));
            }
            _ => {}
        }
    }

    fn texts(&mut self, found: &Found) {
        let written = self.written;
        self.text("param", PARAM, written.param, &found.params);
        self.text("tag", TAG, written.tag, &found.tags);
        let batches = 0..written.batches.len() as u32;
        let params: Vec<(String, String)> = batches.clone().map(|b| written.author.batch_param(b)).collect();
        let tags: Vec<(String, String)> = batches.map(|b| written.author.batch_tag(b)).collect();
        for pair in found.params.iter().filter(|(key, _)| key != PARAM && !params.iter().any(|(k, _)| k == key)) {
            self.add("foreign_param", &format!("param {}", pair.0), "nobody logged it".into());
        }
        for (key, text) in &params {
            if value(&found.params, key).is_some_and(|there| there != text) {
                self.add("foreign_param", &format!("param {key}"), "its value is one that nobody wrote".into());
            }
        }
        let ours = |key: &str| key.starts_with(OURS) && key != TAG && !tags.iter().any(|(k, _)| k == key);
        for (key, _) in found.tags.iter().filter(|(key, _)| ours(key)) {
            self.add("foreign_tag", &format!("tag {key}"), "nobody set it".into());
        }
        for (key, text) in &tags {
            if value(&found.tags, key).is_some_and(|there| there != text) {
                self.add("foreign_tag", &format!("tag {key}"), "its value is one that nobody wrote".into());
            }
        }
        match (written.end, found.status.as_str()) {
            (State::Acknowledged, "FINISHED") | (State::Doubtful, _) | (State::Unsent, "RUNNING") => {}
            (State::Acknowledged, other) => {
                self.add("lost_update", "its end", format!("it was acknowledged and the run is {other}"));
            }
            (State::Unsent, other) => self.add("foreign_update", "its end", format!("it is {other} and was not ended")),
        }
        if written.unseen {
            self.add(
                "unseen_run",
                "a search",
                "the run was acknowledged, and a search after that did not tell it".into(),
            );
        }
    }

    /// MLflow keeps the newest point of each metric beside the history: of those that are there, the last step's. One of
    /// which nobody knows may still come between the two looks.
    fn newest(&mut self, found: &Found) {
        if self.written.singles.iter().chain(&self.written.batches).any(|state| *state == State::Doubtful) {
            return;
        }
        for (key, points) in [(SINGLE, &found.single), (BATCHED, &found.batched)] {
            let last = points.iter().map(|p| p.step).max();
            let told = found.newest.iter().find(|(k, _)| k == key).map(|(_, point)| point.step);
            if last != told {
                let step = |s: Option<i64>| s.map_or("none".to_owned(), |s| format!("step {s}"));
                self.add(
                    "stale_newest",
                    key,
                    format!("{} is the last of its history, and {} is told as its newest", step(last), step(told)),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: u32 = 101;

    fn author() -> Author {
        Author { writer: 999, run: 99_999, begun: 1_700_000_000_000 }
    }

    /// A run of which all was acknowledged, and a store that has all of it.
    fn whole() -> (Written, Shape, Found) {
        let shape = Shape::of(METRICS);
        let mut written = Written::new(author(), true, shape);
        written.singles.fill(State::Acknowledged);
        written.batches.fill(State::Acknowledged);
        (written.param, written.tag, written.end) = (State::Acknowledged, State::Acknowledged, State::Acknowledged);
        let points = |key: &str, count: u32| (0..count).map(|s| author().point(key, s)).collect::<Vec<_>>();
        let (single, batched) = (points(SINGLE, shape.singles), points(BATCHED, shape.batched));
        let mut params = vec![(PARAM.to_owned(), author().text(PARAM))];
        params.extend((0..shape.batches()).map(|b| author().batch_param(b)));
        let mut tags = vec![(TAG.to_owned(), author().text(TAG)), ("mlflow.user".to_owned(), "x".to_owned())];
        tags.extend((0..shape.batches()).map(|b| author().batch_tag(b)));
        let newest = vec![
            (SINGLE.to_owned(), *single.last().expect("one")),
            (BATCHED.to_owned(), *batched.last().expect("one")),
        ];
        (written, shape, Found { status: "FINISHED".to_owned(), newest, params, tags, single, batched })
    }

    #[track_caller]
    fn faults(change: impl FnOnce(&mut Written, &mut Found)) -> Vec<&'static str> {
        let (mut written, shape, mut found) = whole();
        change(&mut written, &mut found);
        compare(&written, shape, &found).into_iter().map(|w| w.fault).collect()
    }

    #[test]
    fn each_value_has_one_author() {
        assert_eq!(Shape::of(METRICS), Shape { singles: 51, batched: 50 });
        assert_eq!((Shape::of(1).batches(), Shape::of(0).batches(), Shape::of(102).batches()), (0, 0, 3));
        let last = Author { writer: MOST_WRITERS, run: MOST_RUNS - 1, begun: 0 };
        let (one, other) = (last.point(BATCHED, MOST_POINTS - 1).value, last.point(SINGLE, MOST_POINTS - 1).value);
        assert!(one < 2_f64.powi(53) && one == other + 1.0);
        let next = Author { writer: 1, run: 0, begun: 0 }.point(SINGLE, 0).value;
        assert!(Author { writer: 0, run: MOST_RUNS - 1, begun: 0 }.point(BATCHED, MOST_POINTS - 1).value < next);
    }

    #[test]
    fn what_is_lost_doubled_torn_and_nobodys_is_named() {
        assert_eq!(faults(|_, _| ()), Vec::<&str>::new());
        assert_eq!(faults(|_, f| _ = f.single.remove(7)), ["lost_point"]);
        assert_eq!(faults(|_, f| f.single.push(author().point(SINGLE, 3))), ["doubled_point"]);
        assert_eq!(faults(|_, f| f.single[3].value += 1.0), ["lost_point", "foreign_point"]);
        assert_eq!(faults(|_, f| f.single[3].timestamp += 1), ["lost_point", "foreign_point"]);
        assert_eq!(faults(|_, f| _ = f.batched.remove(30)), ["torn_batch"]);
        assert_eq!(faults(|_, f| f.params.retain(|(k, _)| k != "batch-1")), ["torn_batch"]);
        let without_first = |f: &mut Found| {
            f.batched.drain(..25);
            f.params.retain(|(k, _)| k != "batch-0");
            f.tags.retain(|(k, _)| k != "mlops.verify.batch-0");
        };
        assert_eq!(faults(|_, f| without_first(f)), ["lost_batch"]);
        assert_eq!(faults(|_, f| f.params.retain(|(k, _)| k != PARAM)), ["lost_param"]);
        assert_eq!(faults(|_, f| f.tags.retain(|(k, _)| k != TAG)), ["lost_tag"]);
        assert_eq!(faults(|_, f| f.params.push(("x".to_owned(), "y".to_owned()))), ["foreign_param"]);
        assert_eq!(faults(|_, f| f.tags.push(("mlops.verify.x".to_owned(), "y".to_owned()))), ["foreign_tag"]);
        assert_eq!(faults(|_, f| f.status = "RUNNING".to_owned()), ["lost_update"]);
        assert_eq!(faults(|_, f| f.newest[0].1.step = 3), ["stale_newest"]);
        assert_eq!(faults(|w, _| w.unseen = true), ["unseen_run"]);
        // What was not acknowledged may be there or not, but not half; what was never sent may not be there.
        assert_eq!(
            faults(|w, f| {
                w.singles[7] = State::Doubtful;
                f.single.remove(7);
            }),
            Vec::<&str>::new()
        );
        assert_eq!(faults(|w, _| w.singles[7] = State::Doubtful), Vec::<&str>::new());
        assert_eq!(
            faults(|w, f| {
                w.batches[0] = State::Doubtful;
                without_first(f);
            }),
            Vec::<&str>::new()
        );
        assert_eq!(
            faults(|w, f| {
                w.batches[0] = State::Doubtful;
                f.batched.remove(0);
            }),
            ["torn_batch"]
        );
        assert_eq!(faults(|w, _| w.batches[0] = State::Unsent), ["foreign_batch"]);
        assert_eq!(faults(|w, _| w.tag = State::Unsent), ["foreign_tag"]);
        assert_eq!(faults(|w, _| w.end = State::Unsent), ["foreign_update"]);
        assert_eq!(faults(|w, _| (w.param, w.end) = (State::Doubtful, State::Doubtful)), Vec::<&str>::new());
    }
}
