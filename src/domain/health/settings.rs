//! What the configuration says of health: limits of built-in checks, and checks of its own.
//!
//! These are read from the file as they are; amounts are text with a unit (`48h`, `1 GB`, `10%`) or plain numbers
//! (seconds, bytes, per cent).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Bound, Limits, Status, Unit};
use crate::domain::address::StoreAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::span;

/// A number, with or without its unit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "an amount is a number, or text like \"48h\", \"1 GB\", \"10%\"")]
pub enum Amount {
    /// `0.85`, `30`.
    Number(f64),
    /// `48h`, `1 GB`, `10%`.
    Text(String),
}

impl Amount {
    /// The number in the unit: seconds, bytes, per cent.
    ///
    /// # Errors
    /// Configuration: text that is no amount of that unit.
    pub fn in_unit(&self, unit: Unit) -> Outcome<f64> {
        let text = match self {
            Amount::Number(number) => return Ok(*number),
            Amount::Text(text) => text.trim(),
        };
        let (number, form) = match unit {
            Unit::Seconds => (seconds(text), "`48h`, `100 ms`, `2 days`"),
            Unit::Bytes => (text.parse::<bytesize::ByteSize>().ok().map(|b| b.as_u64() as f64), "`1 GB`, `500 MiB`"),
            Unit::Percent => (text.trim_end_matches('%').trim_end().parse().ok(), "`10%`"),
            Unit::Count | Unit::Number => (text.parse().ok(), "a plain number"),
        };
        number
            .filter(|n: &f64| n.is_finite())
            .ok_or_else(|| Failure::configuration(format!("`{text}` is no amount that is understood here")).hint(form))
    }
}

fn seconds(text: &str) -> Option<f64> {
    span::parse(text).map(|span| span.as_secs_f64())
}

/// Limits of one check, and how often in a row it must fail before that counts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table: { warning = ..., critical = ... }")]
pub struct Judgement {
    /// A warning beyond it.
    pub warning: Option<Amount>,
    /// Critical beyond it.
    pub critical: Option<Amount>,
    /// Failures in a row before it counts.
    pub after: Option<u32>,
}

impl Judgement {
    /// The limits as upper bounds in that unit.
    ///
    /// # Errors
    /// Configuration: not an amount.
    pub fn at_most(&self, unit: Unit) -> Outcome<Limits> {
        self.limits(unit, Bound::AtMost)
    }

    /// The limits as lower bounds in that unit.
    ///
    /// # Errors
    /// Configuration: not an amount.
    pub fn at_least(&self, unit: Unit) -> Outcome<Limits> {
        self.limits(unit, Bound::AtLeast)
    }

    fn limits(&self, unit: Unit, bound: fn(f64) -> Bound) -> Outcome<Limits> {
        let of = |amount: &Option<Amount>| amount.as_ref().map(|a| a.in_unit(unit).map(bound)).transpose();
        Ok(Limits { warning: of(&self.warning)?, critical: of(&self.critical)? })
    }
}

/// What a broken expectation counts as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A warning.
    Warning,
    /// Critical.
    #[default]
    Critical,
}

impl Level {
    /// The status of a broken expectation.
    pub fn status(self) -> Status {
        match self {
            Level::Warning => Status::Warning,
            Level::Critical => Status::Critical,
        }
    }
}

/// `[[activity]]`: what is expected of the runs of some experiments.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Activity {
    /// The second part of its checks' ids.
    pub name: String,
    /// A pattern of experiment names: `forecast-*`.
    pub experiments: String,
    /// Age of the newest run's start.
    pub newest: Option<Judgement>,
    /// How many runs there should be within a time.
    pub runs: Option<Frequency>,
    /// Share of FAILED and KILLED among the newest runs.
    pub failed: Option<FailedShare>,
    /// Age of the oldest run that is RUNNING.
    pub running: Option<Judgement>,
    /// The longest of the newest finished runs.
    pub duration: Option<Judgement>,
    /// Failures in a row before one counts.
    pub after: Option<u32>,
}

/// `runs = { within = "7d", warning = 5, critical = 1 }`: fewer than that is a problem.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequency {
    /// The time that is looked back.
    pub within: Amount,
    /// Fewer are a warning.
    pub warning: Option<Amount>,
    /// Fewer are critical.
    pub critical: Option<Amount>,
}

/// `failed = { of = 20, warning = "10%" }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedShare {
    /// How many of the newest runs are looked at.
    #[serde(default = "twenty")]
    pub of: u32,
    /// A greater share is a warning.
    pub warning: Option<Amount>,
    /// A greater share is critical.
    pub critical: Option<Amount>,
}

fn twenty() -> u32 {
    20
}

/// `[[metric]]`: what is expected of metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metric {
    /// The second part of its checks' ids.
    pub name: String,
    /// A pattern of experiment names; the newest finished runs are judged.
    pub experiments: Option<String>,
    /// A registered model; the run of its champion alias or Production version is judged.
    pub model: Option<String>,
    /// What must hold: `r2 >= 0.85`.
    pub expect: Vec<String>,
    /// How many of the newest runs are judged (default 1).
    pub runs: Option<u32>,
    /// A decline over the last runs.
    pub trend: Option<Trend>,
    /// What a broken expectation counts as.
    pub level: Level,
    /// Failures in a row before one counts.
    pub after: Option<u32>,
}

/// `trend = { metric = "r2", runs = 30, better = "higher" }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trend {
    /// The metric's key.
    pub metric: String,
    /// How many of the newest runs are looked at.
    #[serde(default = "twenty")]
    pub runs: u32,
    /// Which way is good.
    #[serde(default)]
    pub better: Better,
}

/// Which way a metric gets better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Accuracy, r2.
    #[default]
    Higher,
    /// Errors, losses.
    Lower,
}

/// `[[probe]]`: another service that the stack lives with. One of `url`, `tcp`, `query`, `command`, or none of them:
/// then only its expectations are judged, over other probes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// The second part of its id, and its name in expectations.
    pub name: String,
    /// Fetched with GET.
    pub url: Option<String>,
    /// `host:port` that takes a connection.
    pub tcp: Option<String>,
    /// SQL whose first cell is the value; read-only, on PostgreSQL.
    pub query: Option<String>,
    /// The database of the query (default: the backend database).
    pub database: Option<String>,
    /// A shell command whose output is the value.
    pub command: Option<String>,
    /// The HTTP status (default: 200 to 299).
    pub status: Option<u16>,
    /// Where in the JSON answer the value stands: `.data.records_found`.
    pub value: Option<String>,
    /// What must hold: `.data.records_found > 0`, `weather >= 0.5 * energy`.
    pub expect: Vec<String>,
    /// What must not hold: `weather < 0.5 * energy`.
    pub alarm: Vec<String>,
    /// The time of the answer.
    pub latency: Option<Judgement>,
    /// How much the value may grow in a time: restarts of a container.
    pub increase: Option<Increase>,
    /// What a broken expectation counts as.
    pub level: Level,
    /// Failures in a row before one counts.
    pub after: Option<u32>,
}

/// `increase = { within = "24h", warning = 1, critical = 3 }`: that much, or more, is a problem.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Increase {
    /// The time that is looked back.
    pub within: Amount,
    /// That much is a warning.
    pub warning: Option<Amount>,
    /// That much is critical.
    pub critical: Option<Amount>,
}

/// `[registry]`: which models are in use.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Patterns of model names that each must have exactly one version in production.
    pub production: Vec<String>,
    /// The alias that marks it (default `champion`), beside the stage Production.
    pub alias: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct HealthSettings {
    /// Limits of built-in checks, by layer and name.
    pub limits: BTreeMap<String, BTreeMap<String, Judgement>>,
    /// Configured checks of experiments.
    pub activities: Vec<Activity>,
    /// Configured checks of metrics.
    pub metrics: Vec<Metric>,
    /// Configured checks of other services.
    pub probes: Vec<Probe>,
    /// Models in use.
    pub registry: Registry,
    /// The databases that probes name for their queries, by the probe's name.
    pub databases: BTreeMap<String, StoreAddress>,
}

impl HealthSettings {
    /// What the configuration says of a built-in check.
    pub fn judgement(&self, id: &str) -> Option<&Judgement> {
        let (layer, name) = id.split_once('.')?;
        self.limits.get(layer)?.get(name)
    }

    /// How often in a row the check of that id must fail before it counts.
    pub fn after(&self, id: &str) -> u32 {
        let mut parts = id.splitn(3, '.');
        let (layer, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let after = match layer {
            "activity" => self.activities.iter().find(|a| a.name == name).and_then(|a| a.after),
            "metrics" => self.metrics.iter().find(|m| m.name == name).and_then(|m| m.after),
            "probe" => self.probes.iter().find(|p| p.name == name).and_then(|p| p.after),
            _ => None,
        };
        after.or_else(|| self.judgement(id)?.after).unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        let of = |text: &str, unit| Amount::Text(text.to_owned()).in_unit(unit);
        assert_eq!(of("48h", Unit::Seconds).ok(), Some(172_800.0));
        assert_eq!(of("100 ms", Unit::Seconds).ok(), Some(0.1));
        assert_eq!(of("2 days", Unit::Seconds).ok(), Some(172_800.0));
        assert_eq!(of("1 GB", Unit::Bytes).ok(), Some(1e9));
        assert_eq!(of("512 MiB", Unit::Bytes).ok(), Some(536_870_912.0));
        assert_eq!(of("10%", Unit::Percent).ok(), Some(10.0));
        assert_eq!(of("0.85", Unit::Number).ok(), Some(0.85));
        assert!(of("soon", Unit::Seconds).is_err() && of("1 month", Unit::Seconds).is_err());
        assert!(of("NaN", Unit::Number).is_err() && of("many", Unit::Bytes).is_err());
    }
}
