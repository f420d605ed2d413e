//! Runs of the experiments that a pattern names, the newest first, and how they are told.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Stack;
use crate::domain::glob;
use crate::domain::tracking::{Experiment, Run, View};
use crate::mlflow::fault::Reply;
use crate::mlflow::{Client, Runs};

/// The longest that one question is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How far a trainer's clock may be ahead of this one.
const AHEAD: SignedDuration = SignedDuration::from_mins(10);
/// Experiments in one search: a server's filter over hundreds of ids is slow.
const AT_ONCE: usize = 50;
/// Experiments of one pattern that are looked at.
const MOST_EXPERIMENTS: usize = 1_000;
/// Experiments in a page of their list.
const PAGE: u32 = 1_000;

/// MLflow's order by which the newest come first; runs that never started come last.
pub(super) const NEWEST: &[&str] = &["attributes.start_time DESC"];
/// And the oldest.
pub(super) const OLDEST: &[&str] = &["attributes.start_time ASC"];

/// A client that waits no longer than there is time.
pub(super) fn patient(stack: &Stack, client: &Client) -> Client {
    client.within(stack.patience(PATIENCE))
}

/// The ids of the experiments that a pattern matches and that are not deleted.
pub(super) async fn experiments(client: &Client, pattern: &str) -> Reply<Vec<String>> {
    if !pattern.contains(['*', '?']) {
        let found = client.experiment_by_name(pattern).await?;
        return Ok(found.filter(|e| !e.deleted).map(|e| e.id).into_iter().collect());
    }
    let mut pages = client.experiments(&like(pattern), View::Active, PAGE);
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await? {
        let matching = |e: &Experiment| glob::matches(pattern, &e.name);
        ids.extend(page.into_iter().filter(matching).map(|e| e.id));
        if ids.len() >= MOST_EXPERIMENTS {
            ids.truncate(MOST_EXPERIMENTS);
            break;
        }
    }
    Ok(ids)
}

/// A filter that lets through what a pattern matches, and perhaps more: `_` and `%` in names are SQL's own.
fn like(pattern: &str) -> String {
    if pattern.contains(['\'', '"', '\\']) {
        return String::new();
    }
    format!("name LIKE '{}'", pattern.replace('*', "%").replace('?', "_"))
}

/// The first runs in an order, over any number of experiments.
pub(super) async fn first(
    client: &Client,
    experiments: &[String],
    filter: &str,
    order: &[&str],
    most: u32,
) -> Reply<Vec<Run>> {
    // A run that is dated in the future, by a clock that was wrong, would be the newest for ever.
    let until = (Timestamp::now() + AHEAD).as_millisecond();
    let and = if filter.is_empty() { "" } else { " AND " };
    let filter = &format!("{filter}{and}attributes.start_time <= {until}");
    let mut found = Vec::new();
    for some in experiments.chunks(AT_ONCE) {
        let asked = Runs { experiments: some, filter, view: View::Active, order_by: order, page: most };
        found.extend(client.runs(&asked).next().await?.unwrap_or_default());
        // Each search gives its own first ones; those of all of them are the first of these.
        let start = |r: &Run| r.start.unwrap_or(if order == NEWEST { i64::MIN } else { i64::MAX });
        if order == NEWEST {
            found.sort_by_key(|r| std::cmp::Reverse(start(r)));
        } else {
            found.sort_by_key(start);
        }
        found.truncate(most as usize);
    }
    Ok(found)
}

/// How many deleted runs these experiments have, counted to a bound.
pub(super) async fn deleted(client: &Client, experiments: &[String], most: usize) -> Reply<usize> {
    let mut count = 0;
    for some in experiments.chunks(AT_ONCE) {
        // Small pages: a run comes with all of its params and metrics.
        let asked = Runs { experiments: some, filter: "", view: View::Deleted, order_by: NEWEST, page: 200 };
        let mut pages = client.runs(&asked);
        while let Some(page) = pages.next().await? {
            count += page.len();
            if count >= most {
                return Ok(most);
            }
        }
    }
    Ok(count)
}

/// Seconds since a time of MLflow's.
pub(super) fn age(now: Timestamp, milliseconds: i64) -> f64 {
    (now.as_millisecond() - milliseconds) as f64 / 1e3
}

/// A time as people say it: `3 days`, `5.2 h`, `12 min`, `40 s`.
pub(super) fn span(seconds: f64) -> String {
    let text = |number: f64, unit: &str| {
        let number = if number < 9.95 { format!("{number:.1}") } else { format!("{number:.0}") };
        format!("{} {unit}", number.strip_suffix(".0").unwrap_or(&number))
    };
    match seconds {
        s if s < 0.0 => format!("-{}", span(-s)),
        s if s < 120.0 => text(s, "s"),
        s if s < 7_200.0 => text(s / 60.0, "min"),
        s if s < 172_800.0 => text(s / 3_600.0, "h"),
        s => text(s / 86_400.0, "days"),
    }
}

/// A run by name and id.
pub(super) fn called(run: &Run) -> String {
    if run.name.is_empty() { format!("run {}", run.id) } else { format!("run {} ({})", run.name, run.id) }
}

/// The same with its age.
pub(super) fn told(run: &Run, now: Timestamp) -> String {
    let age = run.start.map_or("never started".to_owned(), |s| format!("started {} ago", span(age(now, s))));
    format!("{}: {}, {age}", called(run), run.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_say_them() {
        let spans = [0.0, 59.94, 600.0, 5_400.0, 90_000.0, 864_000.0, -300.0].map(span);
        assert_eq!(spans, ["0 s", "60 s", "10 min", "90 min", "25 h", "10 days", "-5 min"]);
        assert_eq!(like("a-*?"), "name LIKE 'a-%_'");
        assert_eq!(like("it's*"), "");
    }
}
