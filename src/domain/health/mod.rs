//! The health of a stack: what a check found, how findings depend on each other, and the one verdict they give.

pub mod checks;
pub mod memory;
pub mod settings;
pub mod sound;

use jiff::{SignedDuration, Timestamp};

/// How a check ended, the worse the greater (monitoring-plugins' `max_state_alt`: what could not be measured is worse
/// than fine and better than a warning).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Measured, and as it should be.
    Ok,
    /// Not measured: the reason stands in the summary.
    Unknown,
    /// Measured, and soon a problem.
    Warning,
    /// Measured, and a problem.
    Critical,
}

impl Status {
    /// The word in documents and on status lines.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Unknown => "unknown",
            Status::Warning => "warning",
            Status::Critical => "critical",
        }
    }

    /// The status of that word.
    pub fn of(word: &str) -> Option<Status> {
        [Status::Ok, Status::Unknown, Status::Warning, Status::Critical].into_iter().find(|s| s.word() == word)
    }
}

/// A part of the stack, in the order in which one stands on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// The backend database, looked at directly.
    Database,
    /// The tracking server.
    Server,
    /// The artifact store.
    Artifacts,
    /// The model registry.
    Registry,
    /// What experiments and their runs do.
    Activity,
    /// What models are worth.
    Metrics,
    /// Whether all of it could be brought back.
    Backup,
    /// What a stranger could do.
    Security,
    /// What the configuration asks of other services.
    Probe,
}

impl Layer {
    /// All of them.
    pub const ALL: [Layer; 9] = [
        Layer::Database,
        Layer::Server,
        Layer::Artifacts,
        Layer::Registry,
        Layer::Activity,
        Layer::Metrics,
        Layer::Backup,
        Layer::Security,
        Layer::Probe,
    ];

    /// The first part of the ids of its checks.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Database => "database",
            Layer::Server => "server",
            Layer::Artifacts => "artifacts",
            Layer::Registry => "registry",
            Layer::Activity => "activity",
            Layer::Metrics => "metrics",
            Layer::Backup => "backup",
            Layer::Security => "security",
            Layer::Probe => "probe",
        }
    }

    /// The layer that a check's id names.
    pub fn of(id: &str) -> Option<Layer> {
        let first = id.split('.').next()?;
        Layer::ALL.into_iter().find(|layer| layer.word() == first)
    }
}

/// What a measured number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, with fractions.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share of 100.
    Percent,
    /// Things.
    Count,
    /// A number of its own kind: a metric of a model.
    Number,
}

/// Where a number begins to be a problem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// Above this.
    AtMost(f64),
    /// Below this.
    AtLeast(f64),
}

impl Bound {
    /// Whether the number is on the wrong side. What is not a number is.
    pub fn broken_by(self, value: f64) -> bool {
        match self {
            Bound::AtMost(limit) => value.is_nan() || value > limit,
            Bound::AtLeast(limit) => value.is_nan() || value < limit,
        }
    }
}

/// The limits of a number; without any it is shown and not judged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// A warning beyond it.
    pub warning: Option<Bound>,
    /// Critical beyond it.
    pub critical: Option<Bound>,
}

impl Limits {
    /// What a number is by these limits.
    pub fn judge(&self, value: f64) -> Status {
        let broken = |bound: Option<Bound>| bound.is_some_and(|b| b.broken_by(value));
        if broken(self.critical) {
            Status::Critical
        } else if broken(self.warning) {
            Status::Warning
        } else {
            Status::Ok
        }
    }
}

/// A number that a check measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// By which it was judged.
    pub limits: Limits,
    /// The most it can be: the disk's size, the connections that are allowed.
    pub most: Option<f64>,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// `server.ready`, `activity.nightly.newest`.
    pub id: String,
    /// How it ended.
    pub status: Status,
    /// What was seen, in one sentence.
    pub summary: String,
    /// The number, where there is one.
    pub measure: Option<Measure>,
    /// More of what was seen: names of runs, statements, one a line.
    pub evidence: Vec<String>,
    /// Why it probably is so.
    pub cause: Option<String>,
    /// What to do: a command where there is one.
    pub hint: Option<String>,
    /// The checks without which this one says nothing.
    pub needs: Vec<String>,
    /// Since when it is as it is, as far as earlier runs remember.
    pub since: Option<Timestamp>,
    /// It failed, but not often enough in a row to count: so many times, of so many.
    pub held: Option<(u32, u32)>,
    /// What it stands on is critical, and not only unknown.
    pub(super) follows_critical: bool,
}

impl Reading {
    /// A reading without a number.
    pub fn new(id: impl Into<String>, status: Status, summary: impl Into<String>) -> Reading {
        let id = id.into();
        let needs = checks::find(&id).map(|c| c.needs.iter().map(|n| (*n).to_owned()).collect()).unwrap_or_default();
        Reading {
            id,
            status,
            summary: summary.into(),
            measure: None,
            evidence: Vec::new(),
            cause: None,
            hint: None,
            needs,
            since: None,
            held: None,
            follows_critical: false,
        }
    }

    /// All is well.
    pub fn ok(id: impl Into<String>, summary: impl Into<String>) -> Reading {
        Reading::new(id, Status::Ok, summary)
    }

    /// Soon a problem.
    pub fn warning(id: impl Into<String>, summary: impl Into<String>) -> Reading {
        Reading::new(id, Status::Warning, summary)
    }

    /// A problem.
    pub fn critical(id: impl Into<String>, summary: impl Into<String>) -> Reading {
        Reading::new(id, Status::Critical, summary)
    }

    /// It could not be measured.
    pub fn unknown(id: impl Into<String>, summary: impl Into<String>) -> Reading {
        Reading::new(id, Status::Unknown, summary)
    }

    /// A number, judged by its limits.
    pub fn measured(
        id: impl Into<String>,
        value: f64,
        unit: Unit,
        limits: Limits,
        summary: impl Into<String>,
    ) -> Reading {
        let mut reading = Reading::new(id, limits.judge(value), summary);
        reading.measure = Some(Measure { value, unit, limits, most: None });
        reading
    }

    /// The same with the most that its number can be.
    #[must_use]
    pub fn most(mut self, most: f64) -> Reading {
        if let Some(measure) = &mut self.measure {
            measure.most = Some(most);
        }
        self
    }

    /// The same with more of what was seen.
    #[must_use]
    pub fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Reading {
        self.evidence.extend(lines);
        self
    }

    /// The same with its probable cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Reading {
        self.cause = Some(cause.into());
        self
    }

    /// The same with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Reading {
        self.hint = Some(hint.into());
        self
    }

    /// The same with further checks that it needs.
    #[must_use]
    pub fn needs(mut self, id: impl Into<String>) -> Reading {
        self.needs.push(id.into());
        self
    }

    /// The layer it belongs to.
    pub fn layer(&self) -> Layer {
        Layer::of(&self.id).unwrap_or(Layer::Probe)
    }
}

/// Makes unknown what stands on a broken check, and says on which: the broken one is the finding, the rest follows.
///
/// A check is broken when it is critical without a number: one with a number did answer, only beyond its limit, and what
/// stands on it is judged as it is. One that could not be measured itself explains why another could not be either, and
/// takes nothing from what was measured all the same.
pub fn follow_dependencies(readings: &mut [Reading]) {
    // Dependencies are at most a few steps deep; each pass settles one step.
    for _ in 0..Layer::ALL.len() {
        let broken: Vec<(String, String, bool)> = readings
            .iter()
            .filter(|r| r.status == Status::Unknown || r.status == Status::Critical && r.measure.is_none())
            .map(|r| (r.id.clone(), r.root().unwrap_or(&r.id).to_owned(), r.measured_broken()))
            .collect();
        let mut changed = false;
        for reading in readings.iter_mut() {
            let told = reading.status != Status::Unknown;
            let on = broken.iter().find(|(id, _, surely)| reading.needs.contains(id) && (*surely || !told));
            let Some((_, root, surely)) = on else { continue };
            let summary = format!("{STANDS_ON}{root} is broken");
            if reading.summary != summary {
                let seen = std::mem::replace(&mut reading.summary, summary);
                if told && reading.status != Status::Ok {
                    reading.evidence.insert(0, format!("seen all the same: {seen}"));
                }
                reading.status = Status::Unknown;
                reading.follows_critical = *surely;
                reading.measure = None;
                reading.cause = None;
                reading.hint = None;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

const STANDS_ON: &str = "not judged: ";

impl Reading {
    /// Whether what stands on it cannot be well: it is critical, or follows from what is.
    fn measured_broken(&self) -> bool {
        self.status == Status::Critical || self.follows_critical
    }

    /// The broken check that keeps this one from being judged.
    pub fn root(&self) -> Option<&str> {
        self.summary.strip_prefix(STANDS_ON)?.strip_suffix(" is broken")
    }
}

/// All that one run found.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The stack, part by part, with passwords masked: (`server`, `http://localhost:5000`).
    pub stack: Vec<(&'static str, String)>,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: SignedDuration,
    /// What was found, in the order of layers and checks.
    pub readings: Vec<Reading>,
    /// What was not asked after all, and why: it says nothing of the stack, good or bad.
    pub left: Vec<(String, String)>,
}

impl Examination {
    /// The worst status. Nothing measured is unknown, never fine. What stands on a failure that is held back is held
    /// back with it.
    pub fn status(&self) -> Status {
        let counted = self.readings.iter().filter(|r| self.counts(r));
        counted.map(|r| r.status).max().unwrap_or(Status::Unknown)
    }

    fn counts(&self, reading: &Reading) -> bool {
        let root = reading.root().and_then(|root| self.readings.iter().find(|r| r.id == root));
        root.is_none_or(|root| root.held.is_none())
    }

    /// How many readings are of that status.
    pub fn count(&self, status: Status) -> usize {
        self.readings.iter().filter(|r| r.status == status).count()
    }

    /// The readings, the worst first; what follows from another comes after what does not.
    pub fn worst_first(&self) -> Vec<&Reading> {
        let mut sorted: Vec<&Reading> = self.readings.iter().collect();
        sorted.sort_by_key(|r| (std::cmp::Reverse(r.status), r.root().is_some(), r.layer()));
        sorted
    }

    /// The finding to begin with: the worst, and of equals the one that others stand on.
    pub fn first_broken(&self) -> Option<&Reading> {
        self.worst_first().into_iter().find(|r| self.counts(r)).filter(|r| r.status != Status::Ok)
    }

    /// How many readings could not be judged because of that check.
    pub fn standing_on(&self, id: &str) -> usize {
        self.readings.iter().filter(|r| r.root() == Some(id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_a_broken_check_is_unknown_and_names_the_first() {
        let mut readings = vec![
            Reading::critical("database.connect", "connection refused"),
            Reading::critical("server.ready", "500"),
            Reading::ok("server.live", "200"),
            Reading::measured("server.search-latency", 0.1, Unit::Seconds, Limits::default(), "100 ms"),
        ];
        readings[1].needs = vec!["server.live".into(), "database.connect".into()];
        readings[3].needs = vec!["server.ready".into()];
        follow_dependencies(&mut readings);
        let statuses: Vec<Status> = readings.iter().map(|r| r.status).collect();
        assert_eq!(statuses, [Status::Critical, Status::Unknown, Status::Ok, Status::Unknown]);
        assert_eq!(readings[3].root(), Some("database.connect"));
        assert_eq!(readings[1].evidence, ["seen all the same: 500"]);
        assert_eq!(readings[3].measure, None);
        let examination = Examination {
            stack: vec![],
            at: Timestamp::UNIX_EPOCH,
            took: SignedDuration::ZERO,
            readings,
            left: vec![],
        };
        assert_eq!(examination.status(), Status::Critical);
        assert_eq!(examination.first_broken().map(|r| r.id.as_str()), Some("database.connect"));
        assert_eq!(examination.standing_on("database.connect"), 2);
    }

    #[test]
    fn limits_judge_and_nothing_measured_is_not_fine() {
        let limits = Limits { warning: Some(Bound::AtMost(1.0)), critical: Some(Bound::AtMost(2.0)) };
        assert_eq!(
            [0.5, 1.5, 2.5, f64::NAN].map(|v| limits.judge(v)),
            [Status::Ok, Status::Warning, Status::Critical, Status::Critical]
        );
        let none = Examination {
            stack: vec![],
            at: Timestamp::UNIX_EPOCH,
            took: SignedDuration::ZERO,
            readings: vec![],
            left: vec![],
        };
        assert_eq!(none.status(), Status::Unknown);
    }
}
