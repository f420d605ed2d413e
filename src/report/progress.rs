//! Progress on stderr.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Progress, human, stderr};
use crate::engine::event::{Event, Events, Silent};

/// A listener for that mode.
pub(super) fn listener(mode: Progress) -> Box<dyn Events> {
    match mode {
        Progress::None => Box::new(Silent),
        Progress::Auto => Box::new(Bar { bar: Mutex::new(None) }),
        Progress::Plain => Box::new(Lines { state: Mutex::new(None), json: false }),
        Progress::Json => Box::new(Lines { state: Mutex::new(None), json: true }),
    }
}

/// One bar for the running phase.
struct Bar {
    bar: Mutex<Option<ProgressBar>>,
}

impl Events for Bar {
    fn event(&self, event: Event) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, total, unit } => {
                if let Some(old) = bar.take() {
                    old.finish_and_clear();
                }
                let template = match (total, unit) {
                    (None, _) => "{spinner} {msg}".to_owned(),
                    (_, "bytes") => "{msg:<26} [{bar:32}] {bytes}/{total_bytes}".to_owned(),
                    _ => format!("{{msg:<26}} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit} {{rate}} ETA {{eta}}"),
                };
                let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
                let new = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(8));
                let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:.0}/s", state.per_sec());
                };
                new.set_style(style.with_key("rate", rate).progress_chars("=> "));
                new.set_message(name);
                new.enable_steady_tick(Duration::from_millis(250));
                *bar = Some(new);
            }
            Event::Done { units, .. } => {
                if let Some(bar) = bar.as_ref() {
                    bar.inc(units);
                }
            }
            Event::Warning(text) => match bar.as_ref() {
                Some(bar) => bar.suspend(|| stderr(&human::warning(&text))),
                None => stderr(&human::warning(&text)),
            },
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

/// A line at the start of each phase and every few seconds.
struct Lines {
    state: Mutex<Option<Running>>,
    json: bool,
}

struct Running {
    name: &'static str,
    total: Option<u64>,
    unit: &'static str,
    done: u64,
    begun: Instant,
    told: Instant,
}

const EVERY: Duration = Duration::from_secs(5);

impl Lines {
    fn tell(&self, running: &Running) {
        let seconds = running.begun.elapsed().as_secs_f64();
        if self.json {
            let line = serde_json::json!({
                "event": "progress", "phase": running.name, "done": running.done,
                "total": running.total, "unit": running.unit, "seconds": (seconds * 10.0).round() / 10.0,
            });
            stderr(&format!("{line}\n"));
        } else if running.done == 0 {
            stderr(&format!("{} ...\n", running.name));
        } else {
            let total = running.total.map_or(String::new(), |t| format!(" of {t}"));
            let speed = (running.done as f64 / seconds.max(0.001)) as u64;
            stderr(&format!("{}: {}{total} {}, {speed}/s\n", running.name, running.done, running.unit));
        }
    }
}

impl Events for Lines {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Phase { name, total, unit } => {
                let now = Instant::now();
                let running = Running { name, total, unit, done: 0, begun: now, told: now };
                self.tell(&running);
                *state = Some(running);
            }
            Event::Done { units, .. } => {
                if let Some(running) = state.as_mut() {
                    running.done += units;
                    if running.told.elapsed() >= EVERY {
                        running.told = Instant::now();
                        self.tell(running);
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
