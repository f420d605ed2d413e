//! For a person on call: what is broken first, then everything by layer, the worst layer first.

use anstyle::Style;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use super::super::human::{BAD, BOLD, CARE, GOOD, painted};
use super::super::table::{hung, width};
use super::words::{NOTHING, age, counts, extent, held, loud, question, seen, value};
use crate::domain::harmless::{line, short};
use crate::domain::health::{Examination, Layer, Reading, Status};

const FAINT: Style = Style::new().dimmed();
const UNSURE: Style = anstyle::AnsiColor::Magenta.on_default().bold();
/// Where the check's name begins: after `  CRITICAL  `.
const STATUS: usize = 12;
/// The widest columns of names and numbers; what is wider shifts the rest of its line.
const NAMES: usize = 32;
const NUMBERS: usize = 20;
/// Lines of evidence that are shown of one check.
const EVIDENCE: usize = 5;

/// The text, with local times of that zone. Warnings are told by whoever prints it.
pub fn text(examination: &Examination, zone: &TimeZone) -> String {
    let status = examination.status();
    let mut out = headline(examination);
    if status != Status::Ok {
        out.push_str(&stack(examination));
    }
    let mut layers: Vec<(Layer, Vec<&Reading>)> = Layer::ALL.into_iter().map(|l| (l, Vec::new())).collect();
    for reading in examination.worst_first() {
        if let Some((_, list)) = layers.iter_mut().find(|(layer, _)| *layer == reading.layer()) {
            list.push(reading);
        }
    }
    layers.retain(|(_, list)| !list.is_empty());
    // Stable: equals stay in the order in which one stands on the other.
    layers.sort_by_key(|(_, list)| std::cmp::Reverse(list.iter().map(|r| r.status).max()));
    let columns = Columns::of(examination);
    for (layer, list) in layers {
        out.push_str(&format!("\n{}\n", painted(BOLD, layer.word())));
        for reading in list.iter().filter(|r| r.status != Status::Ok && !bare_follower(r)) {
            out.push_str(&columns.row(reading));
            out.push_str(&details(reading, examination.at, zone));
        }
        out.push_str(&not_judged(&list));
        for reading in list.iter().filter(|r| r.status == Status::Ok) {
            out.push_str(&columns.row(reading));
        }
    }
    if !examination.left.is_empty() {
        out.push_str(&format!("\n{}\n", painted(BOLD, "skipped")));
        for (id, why) in &examination.left {
            out.push_str(&format!("  {}\n", hung(&format!("{}: {}", line(id), line(why)), 2)));
        }
    }
    if status == Status::Ok {
        out.push_str(&stack(examination));
    }
    out
}

/// Says what is broken first, what that means, and how much there is beside it.
fn headline(examination: &Examination) -> String {
    let status = examination.status();
    let word = painted(style(status), loud(status));
    let Some(first) = examination.first_broken() else {
        if examination.readings.is_empty() {
            return format!("{word}  {NOTHING}\n");
        }
        let held = match held(examination) {
            0 => String::new(),
            n => format!("; {n} failed, not yet often enough in a row to count"),
        };
        return format!("{word}  {}{held}\n", extent(examination));
    };
    let indent = loud(status).len() + 2;
    let id = line(&first.id);
    let mut out = format!("{word}  {}\n", hung(&format!("{id}: {}", seen(first)), indent));
    if let Some(end) = out.find(&id).map(|at| at + id.len()) {
        out.replace_range(end - id.len()..end, &painted(BOLD, &id));
    }
    let mut more = |text: &str| out.push_str(&format!("{:indent$}{}\n", "", hung(text, indent)));
    if let Some(question) = question(&first.id) {
        more(&question);
    }
    match examination.standing_on(&first.id) {
        0 => {}
        1 => more("1 other check stands on it and says nothing until it is mended."),
        n => more(&format!("{n} other checks stand on it and say nothing until it is mended.")),
    }
    more(&format!("{}: {}", extent(examination), counts(examination)));
    out
}

fn stack(examination: &Examination) -> String {
    let widest = examination.stack.iter().map(|(part, _)| part.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (part, address) in &examination.stack {
        out.push_str(&format!("  {} {}\n", painted(FAINT, &format!("{part:<widest$} ")), line(address)));
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

/// How wide the columns are, for all layers alike.
struct Columns {
    name: usize,
    number: usize,
}

impl Columns {
    fn of(examination: &Examination) -> Columns {
        let shown = || examination.readings.iter().filter(|r| !bare_follower(r));
        let widest = |width: fn(&Reading) -> usize, most| shown().map(width).filter(|w| *w <= most).max().unwrap_or(0);
        Columns { name: widest(|r| line(&r.id).width(), NAMES), number: widest(|r| value(r).width(), NUMBERS) }
    }

    fn row(&self, reading: &Reading) -> String {
        let (id, number) = (line(&reading.id), value(reading));
        let word = if reading.status == Status::Ok { "ok" } else { loud(reading.status) };
        let gap = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.width()) + 2);
        let mut out = format!("  {}{}", painted(style(reading.status), word), gap(word, STATUS - 4));
        let name = if reading.status == Status::Ok { id.clone() } else { painted(BOLD, &id) };
        out.push_str(&format!("{name}{}", gap(&id, self.name)));
        let mut begin = STATUS + id.width().max(self.name) + 2;
        if self.number > 0 {
            out.push_str(&format!("{number}{}", gap(&number, self.number)));
            begin += number.width().max(self.number) + 2;
        }
        let (what, room) = (seen(reading), width().saturating_sub(begin));
        if what.width() <= room {
            out.push_str(&what);
        } else if reading.status == Status::Ok && reading.held.is_none() {
            // What is as it should be takes one line.
            out.push_str(&short(&what, room.max(20)));
        } else {
            out.truncate(out.trim_end().len());
            out.push_str(&format!("\n{:STATUS$}{}", "", hung(&what, STATUS)));
        }
        format!("{}\n", out.trim_end())
    }
}

/// A reading that has nothing to say but which check it waits for.
fn bare_follower(reading: &Reading) -> bool {
    reading.status != Status::Ok && reading.root().is_some() && reading.evidence.is_empty() && reading.since.is_none()
}

/// What only waits for others, together.
fn not_judged(list: &[&Reading]) -> String {
    let mut roots: Vec<(&str, Vec<String>)> = Vec::new();
    for reading in list.iter().filter(|r| bare_follower(r)) {
        let Some(root) = reading.root() else { continue };
        match roots.iter_mut().find(|(id, _)| *id == root) {
            Some((_, ids)) => ids.push(line(&reading.id)),
            None => roots.push((root, vec![line(&reading.id)])),
        }
    }
    let mut out = String::new();
    for (root, ids) in roots {
        let word = painted(UNSURE, loud(Status::Unknown));
        let wait = if ids.len() == 1 { "1 waits for".to_owned() } else { format!("{} wait for", ids.len()) };
        let text = format!("{wait} {}: {}", line(root), ids.join(", "));
        out.push_str(&format!("  {word}   {}\n", hung(&text, STATUS)));
    }
    out
}

/// What is told of a reading that is not as it should be.
fn details(reading: &Reading, now: Timestamp, zone: &TimeZone) -> String {
    let mut out = String::new();
    let mut told = |word: &str, texts: Vec<String>| {
        for (index, text) in texts.into_iter().enumerate() {
            let word = if index == 0 { word } else { "" };
            let label = painted(FAINT, &format!("{word:<6}"));
            out.push_str(&format!("{:STATUS$}{label} {}\n", "", hung(&text, STATUS + 7)));
        }
    };
    if let Some(since) = reading.since {
        told("since", vec![format!("{} ({} ago)", local(since, zone), age(since, now))]);
    }
    let lines = |text: &Option<String>| text.iter().flat_map(|t| t.lines()).map(line).collect();
    told("cause", lines(&reading.cause));
    told("hint", lines(&reading.hint));
    let mut evidence: Vec<String> = reading.evidence.iter().take(EVIDENCE).map(|e| short(e, 240)).collect();
    match reading.evidence.len().saturating_sub(EVIDENCE) {
        0 => {}
        n => evidence.push(format!("and {n} more: --output json has them all")),
    }
    told("facts", evidence);
    out
}

/// `Sat 2026-11-21 10:47 +01:00`.
fn local(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %:z").to_string()
}

fn style(status: Status) -> Style {
    match status {
        Status::Ok => GOOD,
        Status::Unknown => UNSURE,
        Status::Warning => CARE,
        Status::Critical => BAD,
    }
}
