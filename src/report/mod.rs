//! The only room that prints. The result goes to stdout, everything else to stderr.

mod backup;
mod cleanup;
mod cleanup_orphans;
mod cleanup_purge;
mod config;
mod doctor;
mod exit;
pub mod health;
mod human;
mod init_view;
mod json;
mod logging;
mod models;
mod progress;
mod promote;
mod table;
mod verify;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::backup::create::Created;
use crate::backup::manifest::Manifest;
use crate::backup::prune;
use crate::backup::repository::Listed;
use crate::backup::restore::{Ready, Restored};
use crate::backup::verify::{Verified, Wanted};
use crate::cleanup::Cleanup;
use crate::cleanup::orphans::PutBack;
use crate::cleanup::undo::{Batched, Undone};
use crate::config::Setting;
use crate::demo::Shown;
use crate::doctor::{Diagnosis, Mended};
use crate::domain::failure::{Failure, Kind};
use crate::domain::health::Examination;
use crate::domain::tried::Tried;
use crate::domain::verify::account::{Account, Conclusion};
use crate::engine::event::Events;
use crate::health::plan::Planned;
use crate::migrate::outcome::Migrated;
use crate::migrate::plan::Plan;
use crate::migrate::survey::Finding;
use crate::migrate::verify::Compared;
use crate::promote::audit::History;
use crate::promote::plan::Plan as PromotionPlan;
use crate::promote::switch::Promotion;
use crate::source::OpenStore;
use crate::state::Told;
use crate::store::postgres::provision as init;

pub use exit::{Codes, PARTIAL, code};
pub use json::{CERTIFICATE, certificate, time};
pub use models::Models;
pub use verify::page as verification;

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// The output of a monitoring plugin.
    Nagios,
    /// Prometheus' text format.
    Prometheus,
    /// For a ticket or a chat.
    Markdown,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bars on a terminal, else lines.
    Auto,
    /// A line every few seconds.
    Plain,
    /// One JSON object a line.
    Json,
    /// Not at all.
    None,
}

/// What a command found or did.
pub enum Result<'a> {
    /// A plan, with `--dry-run`, and what would keep it from being carried out.
    Plan(&'a Plan, &'a [Finding]),
    /// A migration.
    Migrated(&'a Migrated),
    /// A migration into a private database that is gone again.
    Rehearsed(&'a Migrated),
    /// A comparison.
    Compared(&'a Compared),
    /// A database, its tables with their rows, and with their bytes.
    Info(&'a OpenStore, &'a [(String, u64)], &'a [(String, u64)]),
    /// What the doctor found.
    Diagnosed(&'a Diagnosis),
    /// The SQL that would mend it.
    Mending(&'a Diagnosis),
    /// What was mended, and what is left.
    Mended(&'a Mended),
    /// The health of a stack.
    Health(&'a Examination),
    /// The addresses of a stack, and the checks that would be made of it.
    HealthPlan(&'a [(&'static str, String)], &'a [Planned]),
    /// A backup that was made, and what was pruned after it.
    BackedUp(&'a Created, Option<(&'a prune::Plan, bool)>),
    /// The backups of a place.
    Backups(&'a [Listed]),
    /// One backup.
    Backup(&'a Listed),
    /// Backups that were looked at.
    Verified(&'a [Verified], &'a Wanted),
    /// What pruning removes, and whether it did.
    Pruned(&'a prune::Plan, bool),
    /// A backup that is kept for ever from now on, or not any more.
    Pinned(&'a str, bool),
    /// The plan of a restore.
    RestorePlan(&'a Ready),
    /// A restore.
    Restored(&'a Restored),
    /// The plan of a promotion, and whether it was only asked for.
    PromotionPlan(&'a PromotionPlan, bool),
    /// What the gates say of a version, in a word, and whether that was left with it.
    Judged(&'a PromotionPlan, &'a str, bool),
    /// A promotion or a rollback.
    Promoted(&'a Promotion),
    /// Who was champion when.
    PromotionHistory(&'a History),
    /// Something of the model registry.
    Models(Models<'a>),
    /// A clean-up: planned, or done.
    Cleanup(&'a Cleanup),
    /// The same by each entry of the configuration.
    CleanupByPolicy(&'a [Cleanup]),
    /// A batch that came back from quarantine.
    PutBack(&'a PutBack),
    /// Batches, and what of them can be put back.
    CleanupBatches(&'a [(Told, Batched)]),
    /// A batch that was put back.
    CleanupUndone(&'a str, &'a Undone),
    /// What a verification came to.
    Account(&'a Account),
    /// Settings.
    Settings(&'a [Setting]),
    /// The configuration file, and settings that were tried.
    Tried(Option<&'a Path>, &'a [Tried]),
    /// A configuration file that was written, the keys that are set in it, and whether it is found without being named.
    Drafted(&'a Path, &'a [&'a str], bool),
    /// A demonstration.
    Demo(&'a Shown),
    /// A role and a database for MLflow: planned, or made.
    Init(&'a init::Plan),
    /// A script that is the result.
    Script(&'a str),
}

/// What a clean-up that ended early has done, in a sentence.
pub fn so_far(it: &Cleanup) -> String {
    cleanup::so_far(it)
}

/// Prints for one run.
#[derive(Clone)]
pub struct Reporter {
    /// The form of the result.
    pub format: Format,
    /// Nothing on stderr but errors.
    pub quiet: bool,
    /// The command, for the schema's name: `migrate.sqlite-to-pg`.
    pub command: &'static str,
    /// Whose meaning the exit codes have.
    pub codes: Codes,
    /// When the run began.
    pub started: jiff::Timestamp,
    /// Standard output carries an archive, so the result goes to stderr.
    pub aside: bool,
}

/// One line on a backup, for a message.
pub fn backup_line(manifest: &Manifest) -> String {
    backup::line(manifest)
}

/// The plan of a promotion, for people.
pub fn promotion_plan(plan: &PromotionPlan) -> String {
    promote::plan(plan, false)
}

/// The exit code of a verification.
pub fn concluded(account: &Account) -> u8 {
    match account.conclusion() {
        Conclusion::Passed => 0,
        Conclusion::Unfinished => PARTIAL,
        Conclusion::Away => code(Kind::Unreachable),
        // With a failure, whose own code counts.
        Conclusion::Refused | Conclusion::Cut => code(Kind::Differs),
    }
}

/// Whether colours are used, for all that is printed from here on.
pub fn set_color(word: &str) {
    match word {
        "always" => anstream::ColorChoice::Always,
        "never" => anstream::ColorChoice::Never,
        _ => anstream::ColorChoice::Auto,
    }
    .write_global();
}

/// Logging to stderr: nothing, what is done, or every statement.
pub fn set_logging(verbose: u8) {
    logging::start(verbose);
}

/// A listener that shows progress on stderr.
pub fn progress(mode: Progress, quiet: bool) -> Box<dyn Events> {
    let mode = match mode {
        _ if quiet => Progress::None,
        Progress::Auto if std::io::stderr().is_terminal() => Progress::Auto,
        Progress::Auto => Progress::Plain,
        other => other,
    };
    progress::listener(mode)
}

/// Asks a question on the terminal; `None` where there is none to ask on.
pub fn ask(question: &str) -> Option<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    stderr(&format!("{question}. Go on? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Asks for a line on the terminal; `None` where there is none to ask on, or it came to its end.
pub fn question(question: &str) -> Option<String> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    stderr(question);
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).ok()?;
    (read > 0).then(|| answer.trim().to_owned())
}

/// Writes to stdout as it is; a reader that went away is no failure of ours.
fn stdout(text: &str) {
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn stderr(text: &str) {
    let mut out = anstream::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Standard output, for a result that is a stream of bytes.
pub fn stream() -> Box<dyn Write + Send> {
    Box::new(std::io::stdout())
}

/// Prints a text that is the result: a completion script.
pub fn raw(bytes: &[u8]) {
    let _ = std::io::stdout().lock().write_all(bytes);
}

/// Prints clap's help, version or complaint and returns the exit code. A complaint is JSON where JSON was asked for.
pub fn arguments(error: &clap::Error, json_wanted: bool, codes: Codes) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    let code = codes.of(Kind::Usage);
    if json_wanted {
        let text = error.to_string();
        let message = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        let reporter = Reporter {
            format: Format::Json,
            quiet: true,
            command: "error",
            codes,
            started: jiff::Timestamp::now(),
            aside: false,
        };
        reporter.failure(&Failure::usage(message.trim()).hint("mlops --help"), &[]);
    } else {
        let _ = error.print();
    }
    code
}

impl Reporter {
    /// Prints a result with its warnings.
    pub fn result(&self, result: &Result<'_>, exit: u8, warnings: &[String]) {
        match self.format {
            Format::Json => self.print(&json::document(self, Some(result), exit, warnings, None)),
            Format::Table => {
                self.warnings(warnings);
                if !(self.aside && self.quiet) {
                    self.print(&human::text(result));
                }
            }
            Format::Nagios | Format::Prometheus | Format::Markdown => {
                self.warnings(warnings);
                self.print(&self.special(result, warnings));
            }
        }
    }

    /// A form that only health has.
    fn special(&self, result: &Result<'_>, warnings: &[String]) -> String {
        match (self.format, result) {
            (Format::Nagios, Result::Health(examination)) => health::nagios::text(examination, warnings),
            (Format::Prometheus, Result::Health(examination)) => health::prometheus::text(examination),
            (Format::Markdown, Result::Health(examination)) => health::markdown::text(examination, warnings),
            _ => human::text(result),
        }
    }

    fn print(&self, text: &str) {
        if self.aside { stderr(text) } else { stdout(text) }
    }

    /// Prints a failure and returns its exit code.
    pub fn failure(&self, failure: &Failure, warnings: &[String]) -> u8 {
        self.ended(None, failure, warnings)
    }

    /// The same with what was found or done before it.
    pub fn ended(&self, so_far: Option<&Result<'_>>, failure: &Failure, warnings: &[String]) -> u8 {
        let exit = self.codes.of(failure.kind);
        match self.format {
            Format::Json => self.print(&json::document(self, so_far, exit, warnings, Some(failure))),
            Format::Nagios => self.print(&health::nagios::failure(failure)),
            Format::Table | Format::Prometheus | Format::Markdown => {
                self.warnings(warnings);
                if let Some(so_far) = so_far {
                    self.print(&human::text(so_far));
                }
                stderr(&human::failure(failure));
            }
        }
        exit
    }

    /// A line on stderr that is neither a result nor an error.
    pub fn say(&self, text: &str) {
        if !self.quiet && self.format == Format::Table {
            stderr(&format!("{text}\n"));
        }
    }

    /// Asks for something that the command waits for, whatever else is not to be said. On a terminal they say with Enter
    /// that it is done: then the receiver hears of it.
    pub fn request(&self, what: &str, most: Duration) -> Option<Receiver<()>> {
        let minutes = most.as_secs() / 60;
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            stderr(&format!("now {what}: it is waited for up to {minutes} min, and watched\n"));
            return None;
        }
        stderr(&format!("now {what}, then press Enter ({minutes} min at most)\n"));
        let (send, receive) = channel();
        // A read cannot be ended: whoever is interrupted does not wait for it.
        std::thread::spawn(move || {
            if std::io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {
                let _ = send.send(());
            }
        });
        Some(receive)
    }

    fn warnings(&self, warnings: &[String]) {
        if !self.quiet {
            for warning in warnings {
                stderr(&human::warning(warning));
            }
        }
    }
}
