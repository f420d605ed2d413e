//! The model registry, for people and for documents.

mod json;
mod show;

use jiff::Timestamp;

pub(super) use json::value;

use super::health::words::{age, amount};
use super::human::{BOLD, GOOD, painted};
use super::table::counted;
use super::table::table;
use crate::domain::harmless::{line, short};
use crate::domain::health::Unit;
use crate::domain::tracking::Pairs;
use crate::registry::download::Downloaded;
use crate::registry::export::Export;
use crate::registry::overview::{Overview, Staged};
use crate::registry::register::Registered;
use crate::registry::show::Shown;

/// What a command of the registry found or did.
pub enum Models<'a> {
    /// All models.
    List(&'a Overview),
    /// One of them.
    Show(&'a Shown),
    /// A version that was made.
    Registered(&'a Registered),
    /// What is in production, and what was downloaded.
    Exported(&'a Export, Option<&'a Downloaded>),
}

/// A name in a table.
const NAME: usize = 60;
/// Other text in a table.
const CELL: usize = 100;

pub(super) fn text(told: &Models<'_>) -> String {
    match told {
        Models::List(overview) => list(overview),
        Models::Show(shown) => show::text(shown),
        Models::Registered(registered) => self::registered(registered),
        // It is a document in every form.
        Models::Exported(..) => format!("{}\n", serde_json::to_string_pretty(&value(told)).unwrap_or_default()),
    }
}

fn instant(milliseconds: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds?).ok()
}

/// How long ago that was; empty where nobody knows.
fn ago(milliseconds: Option<i64>) -> String {
    instant(milliseconds).map_or(String::new(), |then| age(then, Timestamp::now()))
}

/// A metric's value.
fn number(value: f64) -> String {
    amount(value, Unit::Number)
}

fn staged(staged: &Staged) -> String {
    let newest: Vec<String> = staged.newest.iter().map(u64::to_string).collect();
    match staged.count {
        0 | 1 => newest.join(", "),
        count if count > newest.len() as u64 => format!("{}, ... ({count} of them)", newest.join(", ")),
        count => format!("{} ({count} of them)", newest.join(", ")),
    }
}

fn aliases(aliases: &Pairs) -> String {
    let all: Vec<String> = aliases.iter().map(|(alias, version)| format!("{}={version}", short(alias, NAME))).collect();
    all.join(" ")
}

fn list(overview: &Overview) -> String {
    let row = |model: &crate::registry::overview::Line| {
        let mut row = vec![
            short(&model.name, NAME),
            model.versions.to_string(),
            staged(&model.production),
            staged(&model.staging),
            short(&aliases(&model.aliases), CELL),
            model.newest.map_or(String::new(), |(version, _)| version.to_string()),
        ];
        if overview.metric.is_some() {
            row.push(model.metric.map_or(String::new(), number));
        }
        row.push(ago(model.newest.and_then(|(_, made)| made)));
        row
    };
    let metric = overview.metric.as_deref().map(|name| short(name, NAME));
    let mut head = vec!["name", "versions", "Production", "Staging", "aliases", "newest"];
    head.extend(metric.as_deref());
    head.push("age");
    let mut out = match overview.models.is_empty() {
        true => "No registered model is there, or none is called like that.\n".to_owned(),
        false => table(&head, overview.models.iter().map(row).collect(), &[1, 5, if metric.is_some() { 6 } else { 5 }]),
    };
    if overview.prompts > 0 {
        out.push_str(&format!(
            "{} left out: to MLflow they are models as well.\n",
            counted(overview.prompts, "prompt")
        ));
    }
    out
}

fn registered(registered: &Registered) -> String {
    let name = short(&registered.model, 2 * NAME);
    let origin = &registered.origin;
    let mut out = match &registered.version {
        Some(version) => {
            format!("{} version {} of {name}: {}\n", painted(GOOD, "Registered"), version.version, version.status)
        }
        None => format!("{} a version of {name} would be registered\n", painted(BOLD, "Plan, nothing was changed:")),
    };
    if registered.new_model {
        let word = if registered.version.is_some() { "was" } else { "would be" };
        out.push_str(&format!("  model      {name} {word} made: it was not there\n"));
    }
    out.push_str(&format!("  source     {}\n", line(&origin.source)));
    for (name, value) in [("run", &origin.run_id), ("logged as", &origin.model_id)] {
        if !value.is_empty() {
            out.push_str(&format!("  {name:<10} {}\n", line(value)));
        }
    }
    for (key, value) in &registered.tags {
        out.push_str(&format!("  tag        {}={}\n", short(key, CELL), short(value, CELL)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_in_a_stage_is_seen() {
        let of = |count, newest: &[u64]| staged(&Staged { count, newest: newest.to_vec() });
        assert_eq!(of(0, &[]), "");
        assert_eq!(of(1, &[7]), "7");
        assert_eq!(of(2, &[7, 3]), "7, 3 (2 of them)");
        assert_eq!(of(9, &[7, 6, 5]), "7, 6, 5, ... (9 of them)");
    }
}
