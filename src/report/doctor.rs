//! What the doctor found, for people.

use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::table::counted;
use super::table::table;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::{Diagnosis, Mended};

fn head(diagnosis: &Diagnosis) -> String {
    let mut out = format!("{}\n", painted(BOLD, &diagnosis.address));
    out.push_str(&format!("  engine    {} {}\n", diagnosis.engine, diagnosis.version));
    for revision in &diagnosis.revisions {
        out.push_str(&format!("  revision  {} {} ({})\n", revision.line.word(), revision.id, revision.releases_text()));
    }
    out.push('\n');
    out
}

fn list(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let row = |f: &Finding| {
        let style = match f.severity {
            Severity::Error => BAD,
            Severity::Warning => CARE,
            Severity::Note => BOLD,
        };
        // Whatever a name in the database holds, a finding is one line.
        let line = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let severity = painted(style, f.severity.word());
        vec![severity, f.id.to_owned(), line(&f.object), line(&format!("{}; breaks: {}", f.what, f.breaks))]
    };
    table(
        &["severity", "finding", "object", "what is wrong, and what that breaks"],
        findings.iter().map(row).collect(),
        &[],
    )
}

fn counts(diagnosis: &Diagnosis) -> String {
    [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Note, "note")]
        .map(|(severity, word)| counted(diagnosis.count(severity), word))
        .join(", ")
}

/// What cannot be mended, and why.
fn unmended(diagnosis: &Diagnosis) -> String {
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for finding in diagnosis.findings.iter().filter(|f| f.counts() && !f.fixable()) {
        let why = finding.cannot.as_deref().unwrap_or("there is no SQL for it");
        let which = format!("{} of {}", finding.id, finding.object);
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, list)) => list.push(which),
            None => reasons.push((why, vec![which])),
        }
    }
    let mut out = String::new();
    for (why, list) in reasons {
        out.push_str(&format!("  - {}\n    {why}\n", list.join("\n  - ")));
    }
    if out.is_empty() { out } else { format!("{}\n{out}", painted(CARE, "Not mended by SQL:")) }
}

/// The text of a diagnosis.
pub(super) fn diagnosis(diagnosis: &Diagnosis) -> String {
    let mut out = format!("{}{}", head(diagnosis), list(&diagnosis.findings));
    if diagnosis.sound() {
        out.push_str(&format!("{} {}\n", painted(GOOD, "Sound:"), counts(diagnosis)));
        return out;
    }
    out.push_str(&format!("\n{}\n{}", painted(BOLD, &counts(diagnosis)), unmended(diagnosis)));
    let next = painted(BOLD, "Next:");
    match diagnosis.fixable().count() {
        0 => out.push_str(&format!("{next} nothing here is mended by SQL; see above\n")),
        n => out.push_str(&format!(
            "{next} stop the MLflow server and take a backup, then `mlops db doctor --fix` mends {n} of them; \
             --print shows its SQL\n"
        )),
    }
    out
}

/// The text of what was mended.
pub(super) fn mended(mended: &Mended) -> String {
    let mut out = head(&mended.left);
    out.push_str(&format!("{} {}:\n", painted(GOOD, "Mended"), counted(mended.mended.len(), "finding")));
    for finding in &mended.mended {
        out.push_str(&format!("  - {} of {}\n", finding.id, finding.object));
    }
    out.push('\n');
    out.push_str(&list(&mended.left.findings));
    let style = if mended.left.sound() { GOOD } else { BAD };
    let word = if mended.left.sound() { "Sound now:" } else { "Left:" };
    out.push_str(&format!("{} {}\n{}", painted(style, word), counts(&mended.left), unmended(&mended.left)));
    out
}
