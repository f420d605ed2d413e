//! For a ticket or a chat: what is not as it should be, and, folded, what is.

use super::super::json::time;
use super::words::{NOTHING, age, counts, extent, followers, loud, seen, value};
use crate::domain::harmless::{line, short};
use crate::domain::health::{Examination, Reading, Status};

/// The whole text, GitHub's and GitLab's kind of Markdown. Times are UTC: who reads it may be anywhere.
pub fn text(examination: &Examination, warnings: &[String]) -> String {
    let mut out = format!("## {}\n\n", headline(examination));
    for (part, address) in &examination.stack {
        out.push_str(&format!("- {part}: {}\n", code(address)));
    }
    out.push_str(&format!("- found: {}\n- {}\n", time(examination.at), escaped(&summary(examination))));
    for warning in warnings {
        out.push_str(&format!("- warning: {}\n", escaped(warning)));
    }
    let worst = examination.worst_first();
    let broken: Vec<&&Reading> = worst.iter().filter(|r| r.status != Status::Ok && r.root().is_none()).collect();
    if !broken.is_empty() {
        out.push_str("\n| status | check | value | what was seen | since | what to do |\n");
        out.push_str("| --- | --- | --- | --- | --- | --- |\n");
        for reading in broken {
            out.push_str(&row(reading, examination));
        }
    }
    for (root, list) in followers(examination) {
        let ids: Vec<String> = list.iter().map(|r| code(&r.id)).collect();
        out.push_str(&format!("\nNot judged, for {} is broken: {}\n", code(root), ids.join(", ")));
    }
    let fine: Vec<&Reading> = examination.readings.iter().filter(|r| r.status == Status::Ok).collect();
    if !fine.is_empty() {
        out.push_str(&format!("\n<details>\n<summary>{} ok</summary>\n\n", fine.len()));
        for reading in fine {
            let value = Some(value(reading)).filter(|v| !v.is_empty()).map_or(String::new(), |v| format!(" ({v})"));
            out.push_str(&format!("- {}{value}: {}\n", code(&reading.id), escaped(&short(&seen(reading), 200))));
        }
        out.push_str("\n</details>\n");
    }
    if !examination.left.is_empty() {
        let left: Vec<String> =
            examination.left.iter().map(|(id, why)| format!("{} ({})", code(id), escaped(why))).collect();
        out.push_str(&format!("\nNot asked: {}\n", left.join(", ")));
    }
    out
}

/// Status and the first broken check, for a heading.
pub(super) fn headline(examination: &Examination) -> String {
    let status = loud(examination.status());
    match examination.first_broken() {
        _ if examination.readings.is_empty() => format!("{status}: {NOTHING}"),
        None => format!("{status}: {}", extent(examination)),
        Some(first) => format!("{status}: {}: {}", code(&first.id), escaped(&short(&seen(first), 200))),
    }
}

/// How much there is, and how much of it stands on the first broken check.
pub(super) fn summary(examination: &Examination) -> String {
    let mut text = format!("{}: {}", extent(examination), counts(examination));
    if let Some(first) = examination.first_broken() {
        match examination.standing_on(&first.id) {
            0 => {}
            1 => text.push_str("; 1 stands on the first broken one"),
            n => text.push_str(&format!("; {n} stand on the first broken one")),
        }
    }
    text
}

fn row(reading: &Reading, examination: &Examination) -> String {
    let since = reading.since.map_or(String::new(), |s| format!("{} ({})", time(s), age(s, examination.at)));
    let todo = reading.hint.as_deref().map(prose);
    // A bar ends a cell, even within code.
    let cell = |text: String| text.replace("\\|", "|").replace('|', "\\|");
    format!(
        "| {} | {} | {} | {} | {since} | {} |\n",
        loud(reading.status),
        cell(code(&reading.id)),
        cell(escaped(&value(reading))),
        cell(escaped(&short(&seen(reading), 300))),
        cell(todo.unwrap_or_default())
    )
}

/// Text from outside, that stays what it is: no markup, no HTML, no mention of a person.
pub(in crate::report) fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' => out.extend(['\\', c]),
            // `@name` calls a person; an address has a word before its sign.
            '@' if !before.is_alphanumeric() => out.push_str("@\u{200b}"),
            c => out.push(c),
        }
        before = c;
    }
    out
}

/// Our own words, in which backticks mean code, around names that come from outside.
pub(in crate::report) fn prose(text: &str) -> String {
    let text = line(text);
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped(&text);
    }
    let part = |(index, part): (usize, &&str)| match index % 2 {
        0 => escaped_within(part),
        _ if part.trim().is_empty() => String::new(),
        _ => code(part),
    };
    parts.iter().enumerate().map(part).collect()
}

/// The part of a line, whose spaces at the ends stay.
fn escaped_within(part: &str) -> String {
    let before = part.len() - part.trim_start().len();
    let after = part.trim_end().len().max(before);
    let (head, rest) = part.split_at(before);
    let (middle, tail) = rest.split_at(after - before);
    format!("{head}{}{tail}", escaped(middle))
}

/// Text as code, within a fence that is longer than any run of backticks in it.
pub(in crate::report) fn code(text: &str) -> String {
    let text = line(text);
    if text.is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The longest run of backticks.
pub(super) fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_outside_is_markup() {
        assert_eq!(escaped("a|b `c` *d* <e> [f](g)"), "a\\|b \\`c\\` \\*d\\* &lt;e&gt; \\[f\\](g)");
        assert_eq!(escaped("@all me@home"), "@\u{200b}all me@home");
        assert_eq!(escaped("x\n# y"), "x \\# y");
        assert_eq!(code("a``b`"), "``` a``b` ```");
        assert_eq!(prose("run `mlops db *` now_"), "run `mlops db *` now\\_");
        assert_eq!(prose("a ` b"), "a \\` b");
    }
}
