//! A message for a chat, `{"text": ...}`, as Slack's incoming webhooks take it, and Mattermost, Rocket.Chat, Discord
//! (`/slack`) and Google Chat after it. Only a change of state is worth one: the caller remembers the last state.

use serde_json::json;

use super::address::SecretAddress;
use super::send::{Message, Sender};
use crate::domain::failure::Outcome;
use crate::domain::harmless::short;
use crate::domain::health::{Examination, Reading, Status};

/// Findings that are named.
const FINDINGS: usize = 5;

/// Sends the text.
///
/// # Errors
/// Unreachable: not delivered in time, so the caller should not take the state for told. Target: refused.
pub fn send(sender: &Sender, address: &SecretAddress, text: &str) -> Outcome<()> {
    let body = json!({"text": text}).to_string();
    let content = "application/json; charset=utf-8";
    let message = Message { to: address, url: address.url()?, content, body, repeatable: false };
    sender.send(&message).map(|_| ())
}

/// The message on a change of state: from what to what, on which machine, the first broken check, the worst findings.
pub fn change(before: Option<Status>, examination: &Examination, host: &str) -> String {
    let now = examination.status();
    let word = |status: Status| status.word().to_uppercase();
    let from = before.map_or(String::new(), |b| format!("{} → ", word(b)));
    let mut text = format!("{} *MLflow {from}{}* seen from {}\n", sign(now), word(now), escaped(host, 100));
    let stack: Vec<String> = examination.stack.iter().map(|(part, at)| format!("{part} {}", code(at))).collect();
    if !stack.is_empty() {
        text.push_str(&format!("{}\n", stack.join(", ")));
    }
    let Some(first) = examination.first_broken() else {
        text.push_str(&format!("All {} checks are ok.\n", examination.readings.len()));
        return text;
    };
    let standing = match examination.standing_on(&first.id) {
        0 => String::new(),
        1 => " (1 check stands on it)".to_owned(),
        n => format!(" ({n} checks stand on it)"),
    };
    text.push_str(&format!("First broken: {}{standing}\n", finding(first)));
    let worst = examination.worst_first();
    let others: Vec<&Reading> =
        worst.into_iter().filter(|r| r.status != Status::Ok && r.root().is_none() && r.id != first.id).collect();
    for reading in others.iter().take(FINDINGS) {
        text.push_str(&format!("• {}: {}\n", word(reading.status), finding(reading)));
    }
    match others.len().saturating_sub(FINDINGS) {
        0 => {}
        n => text.push_str(&format!("• and {n} more\n")),
    }
    if let Some(hint) = &first.hint {
        text.push_str(&format!("What to do: {}\n", escaped(hint, 300)));
    }
    text
}

fn finding(reading: &Reading) -> String {
    format!("{} {}", code(&reading.id), escaped(&reading.summary, 300))
}

/// A name or an address as code, in which only a backtick means anything.
fn code(text: &str) -> String {
    let text = short(text, 200).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("`{}`", text.replace('`', "'"))
}

fn sign(status: Status) -> &'static str {
    match status {
        Status::Ok => ":white_check_mark:",
        Status::Unknown => ":grey_question:",
        Status::Warning => ":warning:",
        Status::Critical => ":rotating_light:",
    }
}

/// Text from outside: no mention of a channel or a person, no link under another name, no markup (Slack, "Formatting
/// text for app surfaces").
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in short(text, most).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '`' => out.push('\''),
            '*' => out.push('∗'),
            '@' if !before.is_alphanumeric() && before != '*' => out.push_str("@\u{200b}"),
            '(' if before == ']' => out.push_str(" ("),
            c => out.push(c),
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_called_by_the_name_of_a_run() {
        let text = escaped("<!channel> @everyone [a](http://b) `c` *d* me@home u:***@h\u{1b}[1m", 200);
        assert_eq!(text, "&lt;!channel&gt; @\u{200b}everyone [a] (http://b) 'c' ∗d∗ me@home u:∗∗∗@h\\u{1b}[1m");
    }
}
