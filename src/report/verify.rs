//! The account of a verification, for people, for documents, and as a page.

use serde_json::{Map, Value, json};

use super::health::markdown::{code, escaped, prose};
use super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::json::time;
use super::table::{counted, folded, grouped, seconds, table};
use crate::TOOL;
use crate::domain::harmless::{line, short};
use crate::domain::verify::account::{Account, Conclusion, Figures, Finding, Step, Verdict};

/// Lines of a list on the terminal; documents and the page have all.
const LISTED: usize = 50;
/// Notes of one kind on the terminal.
const OF_A_KIND: usize = 3;
/// Characters of a step's evidence on the terminal.
const WIDE: usize = 160;

fn loud(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "FAILED",
        Verdict::Skipped(_) => "skipped",
        Verdict::Unknown => "UNKNOWN",
    }
}

/// What was seen, or why nothing was.
fn evidence(step: &Step) -> &str {
    match &step.verdict {
        Verdict::Skipped(why) => why,
        _ => &step.evidence,
    }
}

fn took(step: &Step) -> String {
    if matches!(step.verdict, Verdict::Skipped(_)) { String::new() } else { seconds(step.took) }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The verdict in a sentence, and how much it rests on.
fn sentence(account: &Account) -> (&'static str, String) {
    let count = |wanted: fn(&Verdict) -> bool| account.steps.iter().filter(|s| wanted(&s.verdict)).count();
    let passed = count(|v| *v == Verdict::Passed);
    let bad = count(|v| matches!(v, Verdict::Failed | Verdict::Unknown));
    let skipped = count(|v| matches!(v, Verdict::Skipped(_)));
    let mut parts = vec![format!("{passed} of {} steps passed", account.steps.len() - skipped)];
    if bad > 0 {
        parts.push(format!("{bad} did not"));
    }
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    if !account.findings.is_empty() {
        parts.push(counted(account.findings.len(), "finding"));
    }
    let rest = parts.join(", ");
    match account.conclusion() {
        Conclusion::Passed => ("Passed:", rest),
        Conclusion::Unfinished => ("Passed, and not all is removed:", rest),
        Conclusion::Away => {
            ("Not verified:", format!("the server went away ({}); {rest}", account.away.as_deref().unwrap_or_default()))
        }
        Conclusion::Cut => (
            "Not verified:",
            format!("the check was cut short ({}); {rest}", account.cut.as_deref().unwrap_or_default()),
        ),
        Conclusion::Refused => ("Failed:", rest),
    }
}

fn listed(title: &str, style: anstyle::Style, list: &[String]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut out = format!("\n{}\n", painted(style, title));
    for entry in list.iter().take(LISTED) {
        out.push_str(&format!("  {}\n", folded(&line(entry), 4)));
    }
    if list.len() > LISTED {
        out.push_str(&format!("  and {} more: --output json has all\n", list.len() - LISTED));
    }
    out
}

fn numbers(figures: &Figures) -> Vec<usize> {
    figures.columns.iter().enumerate().filter(|(_, (.., number))| *number).map(|(index, _)| index).collect()
}

fn figures_text(figures: &Figures) -> String {
    let head: Vec<&str> = figures.columns.iter().map(|(_, title, _)| title.as_str()).collect();
    let rows = figures.rows.iter().map(|row| row.iter().map(|f| line(&f.text)).collect()).collect();
    format!("\n{}\n{}", painted(BOLD, &figures.title), table(&head, rows, &numbers(figures)))
}

fn finding_text(finding: &Finding) -> String {
    let hint = finding.hint.as_ref().map_or(String::new(), |hint| format!(" - {}", line(hint)));
    format!("{}, {}: {}{hint}", finding.id, finding.object, finding.what)
}

/// The first of each kind: a busy server has new runs by the hundred.
fn of_each_kind(noted: &[Finding]) -> Vec<String> {
    let mut kinds: Vec<(&str, Vec<&Finding>)> = Vec::new();
    for note in noted {
        match kinds.iter_mut().find(|(id, _)| *id == note.id) {
            Some((_, list)) => list.push(note),
            None => kinds.push((&note.id, vec![note])),
        }
    }
    let mut lines = Vec::new();
    for (id, list) in kinds {
        lines.extend(list.iter().take(OF_A_KIND).map(|note| finding_text(note)));
        if let more @ 1.. = list.len().saturating_sub(OF_A_KIND) {
            lines.push(format!("{id}: {more} more, --output json has all"));
        }
    }
    lines
}

fn counts_text(account: &Account) -> String {
    if account.counts.is_empty() {
        return String::new();
    }
    let counts: Vec<String> =
        account.counts.iter().map(|(name, n)| format!("{} {}", words(name), grouped(*n))).collect();
    format!("\n{}\n", folded(&counts.join(", "), 0))
}

fn plan(account: &Account) -> String {
    let mut out = format!("{} {}\n", painted(BOLD, &format!("Plan: verify {} of", account.subject)), account.server);
    for (index, sentence) in account.procedure.iter().enumerate() {
        out.push_str(&format!("  {}. {}\n", index + 1, line(sentence)));
    }
    out.push_str("Nothing was done.\n");
    out
}

/// For the terminal.
pub(super) fn text(account: &Account) -> String {
    if account.planned {
        return plan(account);
    }
    let mut out = format!("{} {}\n", painted(BOLD, &format!("Verified {} of", account.subject)), account.server);
    for (name, value) in &account.environment {
        out.push_str(&format!("  {:<10} {}\n", name, line(value)));
    }
    if !account.steps.is_empty() {
        let row = |s: &Step| vec![s.name.clone(), loud(&s.verdict).to_owned(), took(s), short(evidence(s), WIDE)];
        out.push('\n');
        out.push_str(&table(&["step", "verdict", "took", "seen"], account.steps.iter().map(row).collect(), &[2]));
    }
    account.figures.iter().for_each(|figures| out.push_str(&figures_text(figures)));
    out.push_str(&counts_text(account));
    let findings: Vec<String> = account.findings.iter().map(finding_text).collect();
    out.push_str(&listed("Findings", BAD, &findings));
    out.push_str(&listed("To be known", CARE, &of_each_kind(&account.noted)));
    out.push_str(&listed("Could not be removed", BAD, &account.unfinished));
    if !account.soft_deleted.is_empty() {
        let list = short(&account.soft_deleted.join(", "), 300);
        let told = format!(
            "Soft-deleted, as REST can do no more; `mlops cleanup purge` removes them for good: {} ({list})",
            account.soft_deleted.len()
        );
        out.push_str(&format!("\n{}\n", folded(&told, 0)));
    }
    out.push_str(&listed("Kept, as was asked", BOLD, &account.kept));
    let (word, rest) = sentence(account);
    let style = match account.conclusion() {
        Conclusion::Passed => GOOD,
        Conclusion::Unfinished => CARE,
        Conclusion::Away | Conclusion::Cut | Conclusion::Refused => BAD,
    };
    out.push_str(&format!("\n{} {}\n", painted(style, word), folded(&format!("{rest}."), word.len() + 1)));
    out
}

fn figures_value(figures: &Figures) -> Value {
    let row = |row: &Vec<crate::domain::verify::account::Figure>| {
        let pairs = figures.columns.iter().zip(row).map(|((key, ..), figure)| (key.clone(), figure.value.clone()));
        Value::Object(pairs.collect::<Map<String, Value>>())
    };
    figures.rows.iter().map(row).collect()
}

/// For documents.
pub(super) fn value(account: &Account) -> Value {
    let step = |s: &Step| {
        json!({
            "name": s.name, "verdict": s.verdict.word(), "milliseconds": s.took.as_millis() as u64, "evidence": evidence(s),
        })
    };
    let finding = |f: &Finding| json!({"id": f.id, "object": f.object, "what": f.what, "hint": f.hint});
    let object = |pairs: &[(String, String)]| -> Map<String, Value> {
        pairs.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect()
    };
    let counts: Map<String, Value> = account.counts.iter().map(|(k, n)| (k.clone(), (*n).into())).collect();
    let figures: Map<String, Value> = account.figures.iter().map(|f| (f.name.clone(), figures_value(f))).collect();
    json!({
        "subject": account.subject, "id": account.id, "server": account.server, "done": !account.planned,
        "verdict": if account.planned { None } else { Some(account.conclusion().word()) },
        "environment": object(&account.environment), "procedure": account.procedure,
        "steps": account.steps.iter().map(step).collect::<Vec<_>>(), "counts": counts, "figures": figures,
        "findings": account.findings.iter().map(finding).collect::<Vec<_>>(),
        "noted": account.noted.iter().map(finding).collect::<Vec<_>>(), "away": account.away, "cut_short": account.cut,
        "unfinished": account.unfinished, "soft_deleted": account.soft_deleted, "kept": account.kept,
    })
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn markdown_table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, right: &[usize]) -> String {
    let mut out = row(&head.iter().map(|h| escaped(h)).collect::<Vec<_>>());
    let rule = |index| if right.contains(&index) { "---:".to_owned() } else { "---".to_owned() };
    out.push_str(&row(&(0..head.len()).map(rule).collect::<Vec<_>>()));
    // A bar ends a cell, even within code.
    let cell = |text: &String| text.replace("\\|", "|").replace('|', "\\|");
    rows.for_each(|cells| out.push_str(&row(&cells.iter().map(cell).collect::<Vec<_>>())));
    out
}

fn section(title: &str, list: &[String]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let lines: String = list.iter().map(|entry| format!("- {}\n", prose(entry))).collect();
    format!("\n## {title}\n\n{lines}")
}

/// The page: what was done, what was seen, and the verdict, for whoever was not there. Times are UTC.
pub fn page(account: &Account, started: jiff::Timestamp, finished: jiff::Timestamp) -> String {
    let (word, rest) = sentence(account);
    let mut out = format!("# Verification: {}\n\n**{word}** {}.\n\n", escaped(&account.subject), escaped(&rest));
    let mut about = vec![
        ("server".to_owned(), account.server.clone()),
        ("began".to_owned(), time(started)),
        ("ended".to_owned(), time(finished)),
        ("id".to_owned(), account.id.clone()),
    ];
    about.extend(account.environment.iter().cloned());
    let about = about.iter().map(|(name, value)| vec![escaped(name), code(value)]);
    out.push_str(&markdown_table(&["", ""], about, &[]));
    if !account.procedure.is_empty() {
        out.push_str("\n## Procedure\n\n");
        for (index, sentence) in account.procedure.iter().enumerate() {
            out.push_str(&format!("{}. {}\n", index + 1, prose(sentence)));
        }
    }
    if !account.steps.is_empty() {
        out.push_str("\n## Checkpoints\n\n");
        let cells = |s: &Step| vec![escaped(&s.name), loud(&s.verdict).to_owned(), took(s), prose(evidence(s))];
        out.push_str(&markdown_table(&["step", "verdict", "took", "seen"], account.steps.iter().map(cells), &[2]));
    }
    if !account.counts.is_empty() {
        out.push_str("\n## Counts\n\n");
        let cells = account.counts.iter().map(|(name, n)| vec![escaped(&words(name)), grouped(*n)]);
        out.push_str(&markdown_table(&["what", "how many"], cells, &[1]));
    }
    for figures in &account.figures {
        out.push_str(&format!("\n## {}\n\n", escaped(&figures.title)));
        let head: Vec<&str> = figures.columns.iter().map(|(_, title, _)| title.as_str()).collect();
        let cells = figures.rows.iter().map(|row| row.iter().map(|f| escaped(&f.text)).collect());
        out.push_str(&markdown_table(&head, cells, &numbers(figures)));
    }
    if !account.findings.is_empty() {
        out.push_str("\n## Findings\n\n");
        let hint = |f: &Finding| f.hint.as_deref().map_or(String::new(), prose);
        let cells = account.findings.iter().map(|f| vec![code(&f.id), escaped(&f.object), prose(&f.what), hint(f)]);
        out.push_str(&markdown_table(&["finding", "on", "what is wrong", "what to do"], cells, &[]));
    }
    out.push_str(&section("To be known", &account.noted.iter().map(finding_text).collect::<Vec<_>>()));
    out.push_str(&section("Could not be removed", &account.unfinished));
    out.push_str(&section(
        "Soft-deleted, not gone: `mlops cleanup purge --name NAME` removes them",
        &account.soft_deleted,
    ));
    out.push_str(&section("Kept, as was asked", &account.kept));
    out.push_str(&format!("\nWritten by {TOOL}.\n"));
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::verify::account::Figure;

    #[test]
    fn nothing_of_the_outside_breaks_the_page() {
        let step = Step {
            name: "find | by name".to_owned(),
            verdict: Verdict::Failed,
            took: Duration::from_millis(12),
            evidence: "a\n# b | <script> `c`".to_owned(),
        };
        let column = |name: &str, number| (name.to_owned(), name.to_owned(), number);
        let figures = Figures {
            name: "operations".to_owned(),
            title: "Operations".to_owned(),
            columns: vec![column("operation", false), column("p50_ms", true)],
            rows: vec![vec![Figure::text("log|metric"), Figure::number(1.5, "1.5 ms")]],
        };
        let finding = Finding {
            id: "lost_row".to_owned(),
            object: "run\nx".to_owned(),
            what: "a|b".to_owned(),
            hint: Some("run `mlflow gc | x`".to_owned()),
        };
        let account = Account {
            subject: "deployment".to_owned(),
            server: "http://h".to_owned(),
            steps: vec![step],
            figures: vec![figures],
            findings: vec![finding],
            ..Account::default()
        };
        let at = jiff::Timestamp::from_second(1_700_000_000).expect("a time");
        let page = page(&account, at, at);
        assert!(page.contains("| find \\| by name | FAILED | 12 ms | a \\# b \\| &lt;script&gt; `c` |\n"), "{page}");
        assert!(page.contains("| log\\|metric | 1.5 ms |\n"), "{page}");
        assert!(page.contains("| `lost_row` | run x | a\\|b | run `mlflow gc \\| x` |\n"), "{page}");
        assert!(page.contains("began | `2023-11-14T22:13:20Z`"), "{page}");
        assert!(!page.lines().any(|l| l.starts_with("# b")), "{page}");
        let value = value(&account);
        assert_eq!(value["figures"]["operations"][0]["p50_ms"], 1.5);
        assert_eq!((&value["verdict"], &value["steps"][0]["verdict"]), (&json!("failed"), &json!("failed")));
    }
}
