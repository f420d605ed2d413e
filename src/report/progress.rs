//! Progress on stderr: bars on a terminal, else a line at the start of each phase and every few seconds.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Progress, human, stderr};
use crate::engine::event::{Event, Events, Silent};

/// A listener for that mode.
pub(super) fn listener(mode: Progress) -> Box<dyn Events> {
    match mode {
        Progress::None => Box::new(Silent),
        Progress::Auto => Box::new(Bars::new(ProgressDrawTarget::stderr_with_hz(DRAWN))),
        Progress::Plain => Box::new(Lines { state: Mutex::new(None), json: false }),
        Progress::Json => Box::new(Lines { state: Mutex::new(None), json: true }),
    }
}

/// How often bars are drawn, in a second.
const DRAWN: u8 = 8;
/// Tables that have a bar at the same time; more would push the total off a small terminal.
const TABLE_BARS: usize = 8;
/// A table with fewer rows is done before its bar could be read.
const WORTH_A_BAR: u64 = 10_000;
/// How often a line is written.
const EVERY: Duration = Duration::from_secs(5);

/// What is known of the running phase.
struct Running {
    name: &'static str,
    total: Option<u64>,
    unit: &'static str,
    done: u64,
    /// The tables that are being worked on, in the order in which work on them began.
    tables: Vec<Table>,
}

struct Table {
    name: String,
    total: u64,
    done: u64,
    bar: Option<ProgressBar>,
}

impl Running {
    fn new(name: &'static str, total: Option<u64>, unit: &'static str) -> Running {
        Running { name, total, unit, done: 0, tables: Vec::new() }
    }

    fn begin(&mut self, name: String, total: u64) {
        match self.tables.iter_mut().find(|t| t.name == name) {
            Some(table) => table.total += total,
            None => self.tables.push(Table { name, total, done: 0, bar: None }),
        }
    }

    /// Counts what was done, and gives back the table if that was the last of it.
    fn add(&mut self, name: &str, units: u64) -> Option<Table> {
        self.done += units;
        let index = self.tables.iter().position(|t| t.name == name)?;
        let table = self.tables.get_mut(index)?;
        table.done += units;
        if let Some(bar) = &table.bar {
            bar.set_position(table.done);
        }
        (table.done >= table.total).then(|| self.tables.remove(index))
    }

    /// Units a second since the phase began, and the seconds that are left at that speed.
    fn speed(&self, elapsed: Duration) -> (u64, Option<u64>) {
        let per_second = self.done as f64 / elapsed.as_secs_f64().max(0.001);
        let left = self.total.map(|total| total.saturating_sub(self.done));
        let eta = left.filter(|_| self.done > 0).map(|left| (left as f64 / per_second).ceil() as u64);
        (per_second as u64, eta)
    }

    /// The line for people.
    fn line(&self, elapsed: Duration) -> String {
        if self.done == 0 {
            return format!("{} ...\n", self.name);
        }
        let (per_second, eta) = self.speed(elapsed);
        let mut line = format!("{}: {}", self.name, self.done);
        if let Some(total) = self.total {
            let percent = self.done.min(total) * 100 / total.max(1);
            line.push_str(&format!(" of {total} {} ({percent} %)", self.unit));
        } else {
            line.push_str(&format!(" {}", self.unit));
        }
        line.push_str(&format!(", {per_second}/s"));
        if let Some(eta) = eta {
            line.push_str(&format!(", ETA {}", clock(eta)));
        }
        let tables: Vec<String> = self
            .tables
            .iter()
            .map(|t| format!("{} {} %", printable(&t.name), t.done.min(t.total) * 100 / t.total.max(1)))
            .collect();
        if !tables.is_empty() {
            line.push_str(&format!("; {}", tables.join(", ")));
        }
        line.push('\n');
        line
    }

    /// The line for programs.
    fn json(&self, elapsed: Duration) -> String {
        let (per_second, eta) = self.speed(elapsed);
        let tables: Vec<serde_json::Value> = self
            .tables
            .iter()
            .map(|t| serde_json::json!({"table": t.name, "done": t.done, "total": t.total}))
            .collect();
        let line = serde_json::json!({
            "event": "progress", "phase": self.name, "done": self.done, "total": self.total, "unit": self.unit,
            "seconds": (elapsed.as_secs_f64() * 10.0).round() / 10.0, "per_second": per_second, "eta_seconds": eta,
            "tables": tables,
        });
        format!("{line}\n")
    }
}

/// A table that MLflow does not own may be called anything.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Seconds as `1:02:03` or `2:03`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// A bar for each table that is worked on, and below them the total of the running phase.
struct Bars {
    bars: MultiProgress,
    state: Mutex<Option<(Running, ProgressBar)>>,
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", rate).progress_chars("=> ")
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Bars {
        Bars { bars: MultiProgress::with_draw_target(target), state: Mutex::new(None) }
    }

    fn total(&self, running: &Running) -> ProgressBar {
        let template = match (running.total, running.unit) {
            (None, _) => "{spinner} {msg}".to_owned(),
            (_, "bytes") => "{msg:<26} [{bar:24}] {bytes}/{total_bytes}".to_owned(),
            (_, unit) => format!("{{msg:<26}} [{{bar:24}}] {{human_pos}}/{{human_len}} {unit} {{rate}} ETA {{eta}}"),
        };
        // With its style and words before it is added: adding and changing a shown bar draws it.
        let bar = ProgressBar::with_draw_target(running.total, ProgressDrawTarget::hidden());
        bar.set_style(style(&template));
        bar.set_message(running.name);
        let bar = self.bars.add(bar);
        bar.tick();
        // Redrawn also while nothing is done, so that it is seen to live.
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }

    /// Gives a bar to the tables that have waited longest for one.
    fn show_tables(&self, running: &mut Running, total: &ProgressBar) {
        let shown = running.tables.iter().filter(|t| t.bar.is_some()).count();
        let waiting = running.tables.iter_mut().filter(|t| t.bar.is_none() && t.total >= WORTH_A_BAR);
        for table in waiting.take(TABLE_BARS.saturating_sub(shown)) {
            let bar = ProgressBar::with_draw_target(Some(table.total), ProgressDrawTarget::hidden());
            bar.set_style(style("  {msg:<24!} [{bar:24}] {human_pos} of {human_len}"));
            bar.set_message(printable(&table.name));
            bar.set_position(table.done);
            let bar = self.bars.insert_before(total, bar);
            bar.tick();
            table.bar = Some(bar);
        }
    }

    fn clear(&self, running: &Running, total: &ProgressBar) {
        for bar in running.tables.iter().filter_map(|t| t.bar.as_ref()) {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
        total.finish_and_clear();
        self.bars.remove(total);
    }
}

impl Events for Bars {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, total, unit } => {
                if let Some((running, bar)) = state.take() {
                    self.clear(&running, &bar);
                }
                let running = Running::new(name, total, unit);
                let bar = self.total(&running);
                *state = Some((running, bar));
            }
            Event::Table { table, total } => {
                if let Some((running, bar)) = state.as_mut() {
                    running.begin(table, total);
                    self.show_tables(running, bar);
                }
            }
            Event::Done { table, units } => {
                if let Some((running, total)) = state.as_mut() {
                    total.inc(units);
                    if let Some(bar) = running.add(&table, units).and_then(|t| t.bar) {
                        bar.finish_and_clear();
                        self.bars.remove(&bar);
                        self.show_tables(running, total);
                    }
                }
            }
            Event::Warning(text) => self.bars.suspend(|| stderr(&human::warning(&text))),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some((running, bar)) = self.state.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.clear(&running, &bar);
        }
    }
}

/// A line at the start of each phase and every few seconds.
struct Lines {
    state: Mutex<Option<(Running, Times)>>,
    json: bool,
}

struct Times {
    begun: Instant,
    told: Instant,
}

impl Lines {
    fn tell(&self, running: &Running, elapsed: Duration) {
        stderr(&if self.json { running.json(elapsed) } else { running.line(elapsed) });
    }
}

impl Events for Lines {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, total, unit } => {
                let running = Running::new(name, total, unit);
                self.tell(&running, Duration::ZERO);
                let now = Instant::now();
                *state = Some((running, Times { begun: now, told: now }));
            }
            Event::Table { table, total } => {
                if let Some((running, _)) = state.as_mut() {
                    running.begin(table, total);
                }
            }
            Event::Done { table, units } => {
                if let Some((running, times)) = state.as_mut() {
                    running.add(&table, units);
                    if times.told.elapsed() >= EVERY {
                        times.told = Instant::now();
                        self.tell(running, times.begun.elapsed());
                    }
                }
            }
            Event::Warning(text) if self.json => {
                stderr(&format!("{}\n", serde_json::json!({"event": "warning", "message": text})));
            }
            Event::Warning(text) => stderr(&human::warning(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying() -> Running {
        let mut running = Running::new("copying rows", Some(4_000_000), "rows");
        running.begin("metrics".to_owned(), 3_000_000);
        running.begin("params".to_owned(), 500_000);
        running
    }

    /// A terminal that remembers the lines that were drawn.
    #[derive(Debug, Clone, Default)]
    struct Screen(std::sync::Arc<Mutex<String>>);

    impl indicatif::TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, s: &str) -> std::io::Result<()> {
            self.write_str(&format!("{s}\n"))
        }
        fn write_str(&self, s: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(s);
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            self.0.lock().unwrap().push('|');
            Ok(())
        }
    }

    #[test]
    fn a_bar_for_each_running_table_above_the_total() {
        let screen = Screen::default();
        let last = || screen.0.lock().unwrap().trim_end_matches('|').rsplit('|').next().unwrap().to_owned();
        let bars = Bars::new(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        bars.event(Event::Phase { name: "copying rows", total: Some(5_000_000), unit: "rows" });
        for n in 0..12 {
            bars.event(Event::Table { table: format!("table_{n:02}"), total: 100_000 });
        }
        bars.event(Event::Table { table: "small".to_owned(), total: 10 });
        bars.event(Event::Done { table: "table_03".to_owned(), units: 60_000 });
        let drawn = last();
        let at = |drawn: &str, what: &str| drawn.find(what).unwrap_or_else(|| panic!("{what} is not in {drawn}"));
        assert!(at(&drawn, "60,000 of 100,000") < at(&drawn, "table_07"), "{drawn}");
        assert!(at(&drawn, "table_07") < at(&drawn, "copying rows"), "{drawn}");
        assert!(!drawn.contains("table_08") && !drawn.contains("small"), "{drawn}");
        bars.event(Event::Done { table: "table_03".to_owned(), units: 40_000 });
        let drawn = last();
        assert!(!drawn.contains("table_03") && drawn.contains("table_08"), "{drawn}");
        bars.event(Event::Phase { name: "publishing", total: None, unit: "" });
        assert!(!last().contains("table_"), "{}", last());
    }

    #[test]
    fn lines_for_people() {
        let mut running = copying();
        assert_eq!(running.line(Duration::ZERO), "copying rows ...\n");
        assert!(running.add("metrics", 900_000).is_none() && running.add("params", 100_000).is_none());
        assert_eq!(
            running.line(Duration::from_secs(5)),
            "copying rows: 1000000 of 4000000 rows (25 %), 200000/s, ETA 0:15; metrics 30 %, params 20 %\n"
        );
        assert_eq!(running.add("params", 400_000).map(|t| t.name).as_deref(), Some("params"));
        running.add("small", 100_000);
        assert_eq!(
            running.line(Duration::from_secs(10_000)),
            "copying rows: 1500000 of 4000000 rows (37 %), 150/s, ETA 4:37:47; metrics 30 %\n"
        );
        let mut endless = Running::new("inspecting", None, "rows");
        endless.add("runs", 10);
        assert_eq!(endless.line(Duration::from_secs(1)), "inspecting: 10 rows, 10/s\n");
    }

    #[test]
    fn lines_for_programs() {
        let mut running = copying();
        let first: serde_json::Value = serde_json::from_str(&running.json(Duration::ZERO)).unwrap();
        assert!(first["eta_seconds"].is_null() && first["per_second"] == 0);
        running.add("metrics", 1_000_000);
        let line: serde_json::Value = serde_json::from_str(&running.json(Duration::from_millis(5_040))).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "event": "progress", "phase": "copying rows", "done": 1_000_000, "total": 4_000_000, "unit": "rows",
                "seconds": 5.0, "per_second": 198_412, "eta_seconds": 16, "tables": [
                    {"table": "metrics", "done": 1_000_000, "total": 3_000_000},
                    {"table": "params", "done": 0, "total": 500_000},
                ],
            })
        );
    }

    #[test]
    fn a_table_of_two_stores_counts_twice_and_one_of_wrong_size_does_no_harm() {
        let mut running = Running::new("comparing", Some(10), "rows");
        running.begin("runs".to_owned(), 5);
        running.begin("runs".to_owned(), 5);
        assert!(running.add("runs", 5).is_none());
        assert!(running.add("runs", 7).is_some());
        assert!(running.add("runs", 1).is_none());
        assert!(running.line(Duration::ZERO).contains("13 of 10 rows (100 %)"));
    }
}
