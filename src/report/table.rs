//! Tables, lines and numbers for people.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub(super) use crate::domain::count::{counted, grouped};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Lines of sentences end here where no terminal says how wide it is.
const WIDTH: usize = 100;
/// Nobody reads lines that are wider, and narrower ones hold no word.
const TERMINALS: core::ops::RangeInclusive<usize> = 40..=200;

/// Blanks beside the text of a cell.
const PADDING: usize = 2;

/// The width of the terminal that results are printed to; `None`: it is none, and a line is as long as it has to be.
fn terminal() -> Option<usize> {
    width_of(std::io::stdout())
}

fn width_of(stream: impl std::os::fd::AsFd) -> Option<usize> {
    let columns = rustix::termios::tcgetwinsize(stream).ok()?.ws_col;
    // A terminal that does not know its size says 0.
    (columns > 0).then(|| usize::from(columns).clamp(*TERMINALS.start(), *TERMINALS.end()))
}

/// A table without lines: a head, rows, and the columns whose cells are numbers. On a terminal it is as wide as that at
/// most, and what is longer is broken within its cell; elsewhere a row is a line.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>, numbers: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head.to_vec());
    if let Some(width) = terminal().and_then(|w| u16::try_from(w).ok()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for row in rows {
        table.add_row(row);
    }
    for index in numbers {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// The same, but where it is wider than the terminal the first of these columns goes, then the next: programs have all
/// of them, and so has a wider terminal.
pub(super) fn fitted(head: &[&str], rows: Vec<Vec<String>>, numbers: &[usize], least: &[&str]) -> String {
    let Some(room) = terminal() else { return table(head, rows, numbers) };
    let wide = |index: usize, title: &str| {
        let cells = rows.iter().filter_map(|row| row.get(index));
        cells.map(|cell| cell.width()).chain([title.width()]).max().unwrap_or_default() + PADDING
    };
    let mut columns: Vec<(usize, &str, usize)> =
        head.iter().enumerate().map(|(index, title)| (index, *title, wide(index, title))).collect();
    for gone in least {
        if columns.iter().map(|(.., wide)| wide).sum::<usize>() <= room {
            break;
        }
        columns.retain(|(_, title, _)| title != gone);
    }
    let head: Vec<&str> = columns.iter().map(|(_, title, _)| *title).collect();
    let cell = |row: &Vec<String>, index: usize| row.get(index).cloned().unwrap_or_default();
    let rows = rows.iter().map(|row| columns.iter().map(|(index, ..)| cell(row, *index)).collect()).collect();
    let numbers: Vec<usize> =
        columns.iter().enumerate().filter(|(_, (index, ..))| numbers.contains(index)).map(|(place, _)| place).collect();
    table(&head, rows, &numbers)
}

/// Where lines of sentences end.
pub(super) fn width() -> usize {
    terminal().unwrap_or(WIDTH)
}

/// The text in lines that end before [`width`], all but the first of them behind so many spaces.
pub(super) fn hung(text: &str, indent: usize) -> String {
    broken(text, width(), indent, indent)
}

/// Lines that end before the width. The first one begins in that column, the others behind so many spaces.
fn broken(text: &str, width: usize, begin: usize, indent: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut out = String::new();
    let mut used = begin.saturating_sub(indent);
    let mut bare = true;
    let fresh = |out: &mut String| out.push_str(&format!("\n{:indent$}", ""));
    for word in words(text, room) {
        let width = word.width();
        let gap = usize::from(!bare);
        if used > 0 && used + gap + width > room {
            fresh(&mut out);
            used = 0;
        } else if gap > 0 {
            out.push(' ');
            used += gap;
        }
        bare = false;
        if width <= room {
            out.push_str(&word);
            used += width;
            continue;
        }
        for c in word.chars() {
            let width = c.width().unwrap_or(0);
            if used + width > room {
                fresh(&mut out);
                used = 0;
            }
            out.push(c);
            used += width;
        }
    }
    out
}

/// A sentence for standard error behind its label, which takes so many columns; broken where that is a terminal. Lines
/// that it has of its own stay.
pub(super) fn said(label: &str, columns: usize, text: &str) -> String {
    let Some(width) = width_of(std::io::stderr()) else { return format!("{label} {text}\n") };
    let mut out = format!("{label} ");
    for (number, line) in text.lines().enumerate() {
        let words = line.trim_start();
        let lead = if number == 0 { 0 } else { line.len() - words.len() };
        let begin = if number == 0 { columns + 1 } else { lead };
        out.push_str(&format!("{:lead$}{}\n", "", broken(words, width, begin, lead + 2)));
    }
    out
}

/// What stays on one line: words, and commands between backticks as far as they fit.
fn words(text: &str, room: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for word in text.split(' ') {
        match words.last_mut() {
            Some(last) if open && last.width() + 1 + word.width() <= room => last.push_str(&format!(" {word}")),
            _ => words.push(word.to_owned()),
        }
        open ^= word.matches('`').count() % 2 == 1;
    }
    words
}

/// The text [`hung`] on a terminal, and elsewhere in one line: whoever searches a log finds all of it in there.
pub(super) fn folded(text: &str, indent: usize) -> String {
    if terminal().is_some() { hung(text, indent) } else { text.to_owned() }
}

/// A text from outside in one line.
pub(super) fn line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Bytes in the unit that leaves a short number.
pub(super) fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = units.iter();
    let mut name = unit.next();
    while value >= 1024.0 {
        let Some(next) = unit.next() else { break };
        value /= 1024.0;
        name = Some(next);
    }
    let name = name.copied().unwrap_or_default();
    if name == "B" { format!("{number} B") } else { format!("{value:.1} {name}") }
}

/// Seconds with as many digits as are worth reading.
pub(super) fn seconds(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.1 => format!("{:.0} ms", s * 1000.0),
        s if s < 60.0 => format!("{s:.1} s"),
        s => format!("{} min {} s", (s / 60.0) as u64, (s % 60.0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_time_and_lose_nothing() {
        let text = format!("one two {} three 東京東京 {}", "x".repeat(150), "word ".repeat(40).trim_end());
        let hung = hung(&text, 60);
        assert!(hung.lines().all(|l| l.width() <= WIDTH), "{hung}");
        assert!(hung.lines().skip(1).all(|l| l.starts_with(&" ".repeat(60))), "{hung}");
        let squeezed = |t: &str| t.split_whitespace().collect::<String>();
        assert_eq!(squeezed(&hung), squeezed(&text));
    }

    #[test]
    fn sizes_and_times_for_people() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(254 << 20), "254.0 MiB");
        assert_eq!(seconds(std::time::Duration::from_millis(61_500)), "1 min 1 s");
    }
}
