//! What one run of the checks hands to the next: how often in a row each check failed and since when, and numbers by
//! time, for growth.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Reading, Status};

/// Numbers of this age and younger are kept by the hour, older ones by the day.
const HOURLY: SignedDuration = SignedDuration::from_hours(8 * 24);
/// Numbers older than this are forgotten.
const LONGEST: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Choices of checks whose last announcement is remembered.
const CHOICES: usize = 50;
/// A check that no run has told of for so long is forgotten.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The memory of one stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The verdicts that were announced last, by what was asked.
    told: BTreeMap<String, String>,
    checks: BTreeMap<String, Remembered>,
    numbers: BTreeMap<String, Vec<(Timestamp, f64)>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Remembered {
    status: String,
    since: Timestamp,
    seen: Timestamp,
    failures: u32,
}

impl Memory {
    /// The number that a check told so long ago: the last one that is at least as old, else the oldest there is.
    pub fn before(&self, id: &str, now: Timestamp, ago: SignedDuration) -> Option<(Timestamp, f64)> {
        let numbers = self.numbers.get(id)?;
        let then = now.checked_sub(ago).ok()?;
        numbers.iter().rev().find(|(at, _)| *at <= then).or_else(|| numbers.first()).copied()
    }

    /// Keeps a number: at most one an hour, after eight days one a day, for four hundred days.
    pub fn record(&mut self, id: &str, at: Timestamp, value: f64) {
        if !value.is_finite() {
            return;
        }
        let numbers = self.numbers.entry(id.to_owned()).or_default();
        // A clock that was set back leaves numbers of the future, which would stop the record.
        numbers.retain(|(then, _)| *then <= at && at.duration_since(*then) <= LONGEST);
        let slot = |then: Timestamp, hours: i64| then.as_second().div_euclid(hours * 3600);
        if numbers.last().is_none_or(|(last, _)| slot(*last, 1) != slot(at, 1)) {
            numbers.push((at, value));
        }
        let mut day = None;
        numbers.retain(|(then, _)| {
            if at.duration_since(*then) <= HOURLY {
                return true;
            }
            let first = day != Some(slot(*then, 24));
            day = Some(slot(*then, 24));
            first
        });
    }

    /// The verdict that was announced last.
    pub fn told(&self, choice: &str) -> Option<Status> {
        self.told.get(choice).map(String::as_str).and_then(Status::of)
    }

    /// Takes note that a verdict was announced.
    pub fn tell(&mut self, choice: String, status: Status) {
        while self.told.len() >= CHOICES && !self.told.contains_key(&choice) {
            self.told.pop_first();
        }
        self.told.insert(choice, status.word().to_owned());
    }

    /// Takes note of what this run found: fills in since when each check is as it is, and holds back a failure that was
    /// not seen often enough in a row. What stands on a broken check was not measured and counts as nothing.
    pub fn judge(&mut self, readings: &mut [Reading], now: Timestamp, after: impl Fn(&str) -> u32) {
        for reading in readings.iter_mut().filter(|r| r.root().is_none()) {
            let before = self.checks.get(&reading.id);
            let same = before.filter(|b| b.status == reading.status.word() && b.since <= now);
            let since = same.map_or(now, |b| b.since);
            let failed = reading.status != Status::Ok;
            let failures = if failed { before.map_or(0, |b| b.failures).saturating_add(1) } else { 0 };
            let status = reading.status.word().to_owned();
            self.checks.insert(reading.id.clone(), Remembered { status, since, seen: now, failures });
            reading.since = Some(since);
            let needed = after(&reading.id);
            if failed && failures < needed {
                reading.held = Some((failures, needed));
                reading.status = Status::Ok;
            }
        }
        self.checks.retain(|_, remembered| now.duration_since(remembered.seen) <= FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000 + hours)
    }

    #[test]
    fn a_failure_counts_when_it_was_seen_often_enough_in_a_row() {
        let mut memory = Memory::default();
        let mut see = |hour: i64, status: Status| {
            let mut readings = vec![Reading::new("server.ready", status, "seen")];
            memory.judge(&mut readings, at(hour), |_| 3);
            let reading = readings.remove(0);
            (reading.status, reading.held, reading.since)
        };
        assert_eq!(see(0, Status::Critical), (Status::Ok, Some((1, 3)), Some(at(0))));
        assert_eq!(see(1, Status::Ok), (Status::Ok, None, Some(at(1))));
        assert_eq!(see(2, Status::Critical), (Status::Ok, Some((1, 3)), Some(at(2))));
        assert_eq!(see(3, Status::Critical), (Status::Ok, Some((2, 3)), Some(at(2))));
        assert_eq!(see(4, Status::Critical), (Status::Critical, None, Some(at(2))));
    }

    #[test]
    fn what_was_not_measured_neither_counts_nor_forgives() {
        let mut memory = Memory::default();
        memory.judge(&mut [Reading::warning("server.clock", "2 s")], at(0), |_| 2);
        let mut blind = [Reading::unknown("server.clock", "not judged: server.live is broken")];
        memory.judge(&mut blind, at(1), |_| 2);
        assert_eq!((blind[0].status, blind[0].since), (Status::Unknown, None));
        let mut again = [Reading::warning("server.clock", "2 s")];
        memory.judge(&mut again, at(2), |_| 2);
        assert_eq!((again[0].status, again[0].since), (Status::Warning, Some(at(0))));
    }

    #[test]
    fn numbers_thin_out_and_the_one_of_a_month_ago_is_found() {
        let mut memory = Memory::default();
        for hour in 0..24 * 60 {
            memory.record("artifacts.size", at(hour), hour as f64);
            memory.record("artifacts.size", at(hour), -1.0);
        }
        let numbers = &memory.numbers["artifacts.size"];
        assert!(numbers.len() < 24 * 8 + 60, "{}", numbers.len());
        let now = at(24 * 60 - 1);
        let (then, value) = memory.before("artifacts.size", now, SignedDuration::from_hours(24 * 30)).expect("there");
        let ago = now.duration_since(then).as_hours();
        assert!((24 * 30..24 * 32).contains(&ago) && value >= 0.0, "{ago} {value}");
        assert_eq!(memory.before("artifacts.size", now, SignedDuration::from_hours(24 * 300)).map(|b| b.1), Some(0.0));
        assert_eq!(memory.before("database.size", now, SignedDuration::ZERO), None);
    }
}
