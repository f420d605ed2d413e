//! The gates that a challenger passes, or does not. Each tells what was asked, its verdict, and why in a sentence.

use core::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::place::{Place, Registered, Stage};
use super::record::{Record, State};
use super::requirement::{Judgement, Requirement, Values};
use crate::domain::harmless;
use crate::domain::tracking::{ModelVersion, value};

/// What became of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It lets the version through.
    Passed,
    /// It does not.
    Refused,
    /// It compares with a champion, and there is none.
    Skipped,
}

/// A gate that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Which: `ready`, `require`, `tag`, `signature`, `age`, `soak`, `approval`, `check`, `champion`.
    pub gate: String,
    /// What it asks.
    pub asked: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

impl Gate {
    /// A gate that was asked.
    pub fn new(gate: &str, asked: impl Into<String>, verdict: Result<String, String>) -> Gate {
        let (verdict, reason) = match verdict {
            Ok(said) => (Verdict::Passed, said),
            Err(said) => (Verdict::Refused, said),
        };
        Gate { gate: gate.to_owned(), asked: asked.into(), verdict, reason }
    }
}

/// Whether all of them let the version through.
pub fn passed(gates: &[Gate]) -> bool {
    gates.iter().all(|gate| gate.verdict != Verdict::Refused)
}

/// A version is promoted only when its registration is complete.
pub fn ready(version: &ModelVersion) -> Gate {
    let verdict = match (version.status.as_str(), version.status_message.as_str()) {
        ("READY", _) => Ok("it is READY".to_owned()),
        (other, "") => Err(format!("it is {other}")),
        (other, message) => Err(format!("it is {other}: {}", message.lines().next().unwrap_or_default())),
    };
    Gate::new("ready", "the version is READY", verdict)
}

/// A comparison of metrics. `nobody`: what is said where there is no champion to compare with.
pub fn requirement(
    requirement: &Requirement,
    challenger: Values<'_>,
    champion: Option<Values<'_>>,
    nobody: &str,
) -> Gate {
    let asked = requirement.to_string();
    match requirement.judge(challenger, champion) {
        Judgement::Held(said) => Gate::new("require", asked, Ok(said)),
        Judgement::Refused(said) => Gate::new("require", asked, Err(said)),
        Judgement::NoChampion => {
            Gate { gate: "require".to_owned(), asked, verdict: Verdict::Skipped, reason: nobody.to_owned() }
        }
    }
}

/// A tag of the version.
pub fn tag(version: &ModelVersion, key: &str, wanted: Option<&str>) -> Gate {
    let asked = wanted.map_or(format!("tag {key}"), |wanted| format!("tag {key}={wanted}"));
    let verdict = match (value(&version.tags, key), wanted) {
        (None, _) => Err(format!("the version has no tag {key}")),
        (Some(found), Some(wanted)) if found != wanted => {
            Err(format!("its tag {key} is `{}`", harmless::short(found, 100)))
        }
        (Some(found), _) => Ok(format!("its tag {key} is `{}`", harmless::short(found, 100))),
    };
    Gate::new("tag", asked, verdict)
}

/// A tag with the name of who approved.
pub fn approval(version: &ModelVersion, key: &str) -> Gate {
    let verdict = match value(&version.tags, key).map(str::trim) {
        None => Err(format!("nobody approved it: the version has no tag {key}")),
        Some("") => Err(format!("nobody approved it: its tag {key} is empty")),
        Some(who) => Ok(format!("approved by {}", harmless::short(who, 100))),
    };
    Gate::new("approval", format!("tag {key} names who approved"), verdict)
}

/// How old it is.
pub fn age(version: &ModelVersion, most: Duration, now: Timestamp) -> Gate {
    let made = version.created.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let verdict = match made.map(|made| since(made, now)) {
        None => Err("when it was made is not known".to_owned()),
        Some(None) => Err("it was made in the future: the clocks of this machine and the server differ".to_owned()),
        Some(Some(age)) if age > most => Err(format!("it was made {} ago", span(age))),
        Some(Some(age)) => Ok(format!("it was made {} ago", span(age))),
    };
    Gate::new("age", format!("at most {} old", span(most)), verdict)
}

/// How long it has waited where it stands, as our own audit tells. What is not known is refused.
pub fn soak(registered: &Registered, version: u64, records: &[Record], least: Duration, now: Timestamp) -> Gate {
    let waits = |place: &Place| {
        let waiting = !matches!(place.stage, Some(Stage::Archived | Stage::None));
        waiting && registered.standing(place).touches(version)
    };
    // What was moved since then by another client is not known; what mlops moved is.
    let last = records.iter().filter(|r| r.version == version && r.state == State::Done).max_by_key(|r| r.at);
    let verdict = match last.filter(|r| waits(&r.to)).map(|r| (since(r.at, now), &r.to)) {
        None => Err("since when it waits is not known: no promotion by mlops put it where it stands".to_owned()),
        Some((None, _)) => Err("it was put there in the future: the clocks of two machines differ".to_owned()),
        Some((Some(waited), place)) if waited < least => {
            Err(format!("it has been in {place} for {} only", span(waited)))
        }
        Some((Some(waited), place)) => Ok(format!("it has been in {place} for {}", span(waited))),
    };
    Gate::new("soak", format!("at least {} where it waits", span(least)), verdict)
}

/// The time since then; `None`: it is to come. A minute is forgiven to clocks.
fn since(then: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed = now.duration_since(then);
    if passed.as_secs() < -60 { None } else { Some(Duration::try_from(passed).unwrap_or_default()) }
}

/// `26 h`, `3 days`: cut and not rounded, so that what is too short by minutes does not look long enough.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (number, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        7_200..172_800 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::place::tests::registered;
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn each_gate_refuses_for_its_own_reason() {
        let mut model = registered(&["Staging"], &[]);
        let now = Timestamp::from_second(100_000).expect("a time");
        let at = |seconds: i64| Timestamp::from_second(seconds).expect("a time");
        let done = |seconds| {
            [Record { at: at(seconds), ..record("a", 1, Place { stage: Some(Stage::Staging), alias: None }, None) }]
        };
        let hour = Duration::from_secs(3_600);
        let refused = |gate: Gate, why: &str| {
            assert_eq!(gate.verdict, Verdict::Refused, "{gate:?}");
            assert!(gate.reason.contains(why), "{gate:?}");
        };
        let passes = |gate: Gate| assert_eq!(gate.verdict, Verdict::Passed, "{gate:?}");
        passes(ready(&model.versions[0]));
        passes(age(&model.versions[0], hour * 48, now));
        refused(age(&model.versions[0], hour, now), "27 h ago");
        refused(soak(&model, 1, &[], hour, now), "not known");
        refused(soak(&model, 1, &done(99_000), hour, now), "for 16 min only");
        passes(soak(&model, 1, &done(90_000), hour, now));
        refused(tag(&model.versions[0], "a", Some("b")), "no tag a");
        refused(approval(&model.versions[0], "by"), "nobody");
        model.versions[0].tags = vec![("a".to_owned(), "c".to_owned()), ("by".to_owned(), "Ann".to_owned())];
        refused(tag(&model.versions[0], "a", Some("b")), "is `c`");
        passes(tag(&model.versions[0], "a", None));
        passes(approval(&model.versions[0], "by"));
        model.versions[0].status = "PENDING_REGISTRATION".to_owned();
        refused(ready(&model.versions[0]), "PENDING");
        refused(soak(&model, 1, &done(900_000), hour, now), "clocks");
        let moved =
            Record { at: at(91_000), ..record("b", 1, Place { stage: Some(Stage::Archived), alias: None }, None) };
        let [put] = done(90_000);
        refused(soak(&model, 1, &[put, moved], hour, now), "not known");
        // Out of Staging again: the time there does not count.
        model.versions[0].stage = "None".to_owned();
        refused(soak(&model, 1, &done(90_000), hour, now), "not known");
    }
}
