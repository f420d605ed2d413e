//! The beginning of an incident's log: what was found, since when, what is behind it, what to do, by urgency.

use super::super::json::time;
use super::markdown::{code, escaped, headline, longest_run, prose, summary};
use super::words::{age, findings, followers, question, seen, value};
use crate::domain::harmless::{line, short};
use crate::domain::health::{Examination, Reading, Status};

/// Lines of evidence of one finding.
const EVIDENCE: usize = 20;

/// The text in Markdown; `None` where all is well. Such a run writes nothing and leaves the file of an earlier incident
/// alone: it is what one needs after the incident.
pub fn text(examination: &Examination, warnings: &[String]) -> Option<String> {
    if examination.status() == Status::Ok {
        return None;
    }
    let mut out = format!("# MLflow {}\n\n", headline(examination));
    out.push_str(&format!("- found: {}\n- {}\n", time(examination.at), escaped(&summary(examination))));
    for (part, address) in &examination.stack {
        out.push_str(&format!("- {part}: {}\n", code(address)));
    }
    for warning in warnings {
        out.push_str(&format!("- warning: {}\n", escaped(warning)));
    }
    let followers = followers(examination);
    for (status, urgency) in [
        (Status::Critical, "Now: critical"),
        (Status::Warning, "Today: warnings"),
        (Status::Unknown, "Have a look: unknown"),
    ] {
        let list: Vec<&Reading> = findings(examination).into_iter().filter(|r| r.status == status).collect();
        if list.is_empty() {
            continue;
        }
        out.push_str(&format!("\n## {urgency}\n"));
        for reading in list {
            let on: Vec<&Reading> =
                followers.iter().filter(|(root, _)| *root == reading.id).flat_map(|(_, l)| l.iter().copied()).collect();
            out.push_str(&finding(reading, &on, examination));
        }
    }
    // What they stand on was broken and is no finding itself: it is not part of this run.
    let known = |id: &str| findings(examination).iter().any(|r| r.id == id);
    for (root, list) in followers.iter().filter(|(root, _)| !known(root)) {
        let ids: Vec<String> = list.iter().map(|r| code(&r.id)).collect();
        out.push_str(&format!("\n## Have a look: not judged, for {} is broken\n\n{}\n", code(root), ids.join(", ")));
    }
    let fine: Vec<String> =
        examination.readings.iter().filter(|r| r.status == Status::Ok).map(|r| code(&r.id)).collect();
    if !fine.is_empty() {
        out.push_str(&format!("\n## Fine\n\n{}\n", fine.join(", ")));
    }
    Some(out)
}

fn finding(reading: &Reading, on: &[&Reading], examination: &Examination) -> String {
    let mut out = format!("\n### {}: {}\n\n", code(&reading.id), escaped(&short(&seen(reading), 200)));
    if let Some(question) = question(&reading.id) {
        out.push_str(&format!("- {}\n", escaped(&question)));
    }
    let mut told = |word: &str, text: String| out.push_str(&format!("- {word}: {text}\n"));
    if reading.measure.is_some() {
        told("value", escaped(&value(reading)));
    }
    match reading.since {
        Some(since) => told("since", format!("{} ({})", time(since), age(since, examination.at))),
        None => told("since", "not known: no earlier run is remembered".to_owned()),
    }
    if let Some(cause) = &reading.cause {
        told("likely cause", prose(cause));
    }
    for hint in reading.hint.iter().flat_map(|h| h.lines()).filter(|l| !l.trim().is_empty()) {
        told("what helps", prose(hint));
    }
    if !on.is_empty() {
        let ids: Vec<String> = on.iter().map(|r| code(&r.id)).collect();
        told("stands on it, and is not judged", ids.join(", "));
    }
    told("look again", code(&format!("mlops health --only {}", quoted(&reading.id))));
    let mut seen: Vec<String> = reading.evidence.iter().take(EVIDENCE).map(|e| short(e, 400)).collect();
    for follower in on {
        seen.extend(follower.evidence.iter().take(2).map(|e| short(&format!("{}: {e}", follower.id), 400)));
    }
    match reading.evidence.len().saturating_sub(EVIDENCE) {
        0 => {}
        n => seen.push(format!("and {n} more")),
    }
    if !seen.is_empty() {
        let fence = "`".repeat(seen.iter().map(|l| longest_run(l)).max().unwrap_or(0).max(2) + 1);
        out.push_str(&format!("\n{fence}text\n{}\n{fence}\n", seen.join("\n")));
    }
    out
}

/// The id as one word of a shell.
fn quoted(id: &str) -> String {
    let id = line(id);
    if !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return id;
    }
    format!("'{}'", id.replace('\'', "'\\''"))
}
