//! Each command, from arguments and settings to a plan, its execution and a report. Thin: no SQL, no printing.

mod backup;
mod cleanup;
mod cleanup_orphans;
mod cleanup_purge;
mod config;
mod db;
mod demo;
mod doctor;
mod generate;
mod health;
mod init;
mod interrupt;
mod journal;
mod messages;
mod migrate;
mod models;
mod promote;
mod restore;
mod server;
mod verify;
mod verify_concurrency;
mod verify_deployment;
mod verify_persistence;

use clap::ValueEnum;

use crate::cli::{
    Command, Global, Output, backup::Command as Kept, cleanup::Cleanup as Deletion, config::Config as Settle,
    migrate::Migrate, models::Models, verify::Verify, word,
};
use crate::config::environment::Environment;
use crate::config::{Flags, Settings};
use crate::domain::consent::Consent;
use crate::domain::failure::{Failure, Outcome};
use crate::engine::cancel::Cancel;
use crate::engine::copy::Work;
use crate::engine::event::Events;
use crate::report::{self, Codes, Format, Progress, Reporter};

/// What every command is handed.
struct Context {
    settings: Settings,
    reporter: Reporter,
    cancel: Cancel,
    events: Box<dyn Events>,
    jobs: usize,
    yes: bool,
    dry_run: bool,
    id: String,
}

impl Context {
    fn work(&self) -> Work<'_> {
        Work { jobs: self.jobs, cancel: &self.cancel, events: self.events.as_ref() }
    }

    /// The exit code of a command that came to its end: never 0 after an interrupt, even one that came too late.
    fn exit(&self, exit: u8) -> u8 {
        self.cancel.failure().map_or(exit, |failure| self.reporter.codes.of(failure.kind))
    }

    /// Prints a result and returns the exit code.
    fn finish(&self, result: &report::Result<'_>, exit: u8, warnings: &[String]) -> Result<u8, Ended> {
        let exit = self.exit(exit);
        let warnings = [self.settings.warnings().as_slice(), warnings].concat();
        self.reporter.result(result, exit, &warnings);
        if self.cancel.failure().is_some() {
            self.reporter.say("interrupted, but only after the work was done: the result stands");
        }
        Ok(exit)
    }

    /// Prints what was done before a failure, and the failure; returns its exit code.
    fn ended(&self, so_far: &report::Result<'_>, failure: &Failure, warnings: &[String]) -> u8 {
        self.reporter.ended(Some(so_far), failure, &[self.settings.warnings().as_slice(), warnings].concat())
    }

    fn consent(&self) -> Consent<'_> {
        Consent { yes: self.yes, ask: &report::ask }
    }
}

/// Runs the program: parses, does, reports, and returns the exit code.
pub fn run() -> u8 {
    let cli = match crate::cli::parsed() {
        Ok(cli) => cli,
        Err(error) => {
            let words: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
            return report::arguments(&error, value(&words, "--output") == Some("json"), codes_of(&words));
        }
    };
    let aside = matches!(&cli.command, Command::Migrate(Migrate::Export(export)) if export.file.as_os_str() == "-");
    // A refusal in the form of another program's plugin would be read as its verdict.
    let own =
        |format: &Format| matches!(cli.command, Command::Health(_)) || matches!(format, Format::Table | Format::Json);
    let reporter = Reporter {
        format: cli.global.output.map(format).filter(own).unwrap_or(Format::Table),
        quiet: cli.global.quiet,
        command: name(&cli.command),
        codes: codes(&cli.command),
        started: jiff::Timestamp::now(),
        aside,
    };
    report::set_color(&cli.global.color.map_or_else(String::new, word));
    report::set_logging(cli.global.verbose);
    let artifact_root = cli.global.artifact_root.clone();
    let context = match context(cli.global, &reporter) {
        Ok(context) => context,
        Err(failure) => return reporter.failure(&failure, &[]),
    };
    let outcome = match cli.command {
        Command::Migrate(Migrate::SqliteToPg(arguments)) => migrate::sqlite_to_pg(&context, arguments),
        Command::Migrate(Migrate::Export(arguments)) => migrate::export(&context, arguments),
        Command::Migrate(Migrate::Import(arguments)) => migrate::import(&context, arguments),
        Command::Migrate(Migrate::Verify(arguments)) => migrate::verify(&context, arguments),
        Command::Db(crate::cli::db::Db::Info(arguments)) => db::info(&context, arguments),
        Command::Db(crate::cli::db::Db::Init(arguments)) => init::run(&context, arguments),
        Command::Db(crate::cli::db::Db::Doctor(arguments)) => doctor::run(&context, arguments),
        Command::Health(arguments) => health::run(&context, &arguments),
        Command::Backup(arguments) => backup::run(&context, *arguments),
        Command::Restore(arguments) => messages::told(&context, &arguments.messages, "mlops restore", || {
            restore::run(&context, &arguments, artifact_root.as_deref())
        }),
        Command::Cleanup(arguments) => cleanup::run(&context, arguments),
        Command::Promote(arguments) => promote::promote(&context, &arguments),
        Command::Rollback(arguments) => promote::rollback(&context, &arguments),
        Command::Models(models) => models::run(&context, &models),
        Command::Verify(arguments) => verify::run(&context, &arguments),
        Command::Demo(arguments) => demo::run(&context, arguments),
        Command::Config(arguments) => config::run(&context, &arguments),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { folder } => generate::man(&folder),
    };
    match outcome {
        Ok(exit) => exit,
        Err(Ended { failure, warnings }) => match context.cancel.explain(Err::<(), _>(failure)) {
            Err(failure) => {
                context.reporter.failure(&failure, &[context.settings.warnings().as_slice(), &warnings].concat())
            }
            Ok(()) => 0,
        },
    }
}

/// A failure and what should be read with it.
struct Ended {
    failure: Failure,
    warnings: Vec<String>,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended { failure, warnings: Vec::new() }
    }
}

/// The name of the command in the schema of its JSON.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Migrate(Migrate::SqliteToPg(_)) => "migrate.sqlite-to-pg",
        Command::Migrate(Migrate::Export(_)) => "migrate.export",
        Command::Migrate(Migrate::Import(_)) => "migrate.import",
        Command::Migrate(Migrate::Verify(_)) => "migrate.verify",
        Command::Db(crate::cli::db::Db::Info(_)) => "db.info",
        Command::Db(crate::cli::db::Db::Init(_)) => "db.init",
        Command::Db(crate::cli::db::Db::Doctor(_)) => "db.doctor",
        Command::Health(_) => "health",
        Command::Backup(backup) => match &backup.command {
            None | Some(Kept::Create(_)) => "backup",
            Some(Kept::List(_)) => "backup.list",
            Some(Kept::Show(_)) => "backup.show",
            Some(Kept::Verify(_)) => "backup.verify",
            Some(Kept::Prune(_)) => "backup.prune",
            Some(Kept::Pin(_)) => "backup.pin",
            Some(Kept::Unpin(_)) => "backup.unpin",
        },
        Command::Restore(_) => "restore",
        Command::Cleanup(Deletion::Experiments(_)) => "cleanup.experiments",
        Command::Cleanup(Deletion::Runs(_)) => "cleanup.runs",
        Command::Cleanup(Deletion::Policy(_)) => "cleanup.policy",
        Command::Cleanup(Deletion::Undo(_)) => "cleanup.undo",
        Command::Cleanup(Deletion::Purge(_)) => "cleanup.purge",
        Command::Cleanup(Deletion::Orphans(_)) => "cleanup.orphans",
        Command::Promote(_) => "promote",
        Command::Rollback(_) => "rollback",
        Command::Models(models) => match models {
            Models::List(_) => "models.list",
            Models::Show(_) => "models.show",
            Models::Register(_) => "models.register",
            Models::Export(_) => "models.export",
            Models::History(_) => "models.history",
        },
        Command::Verify(verify) => match verify {
            Verify::Persistence(_) => "verify.persistence",
            Verify::Snapshot(_) => "verify.snapshot",
            Verify::Compare(_) => "verify.compare",
            Verify::Deployment(_) => "verify.deployment",
            Verify::Concurrency(_) => "verify.concurrency",
        },
        Command::Demo(_) => "demo",
        Command::Config(config) => match config {
            Settle::Show => "config.show",
            Settle::Check => "config.check",
            Settle::Init(_) => "config.init",
        },
        Command::Completions { .. } => "completions",
        Command::Man { .. } => "man",
    }
}

/// Whose meaning the exit codes have.
fn codes(command: &Command) -> Codes {
    match command {
        Command::Health(health) if health.fail_on.is_some() => Codes::Gate,
        Command::Health(_) => Codes::Monitor,
        _ => Codes::Mlops,
    }
}

/// The same of a command line that clap does not understand.
fn codes_of(words: &[String]) -> Codes {
    let definition = crate::cli::definition();
    let command = words.iter().skip(1).find(|word| definition.find_subcommand(word).is_some());
    match command.map(String::as_str) {
        Some("health") if value(words, "--fail-on").is_some() => Codes::Gate,
        Some("health") => Codes::Monitor,
        _ => Codes::Mlops,
    }
}

/// The value of a flag in words that nobody parsed.
fn value<'a>(words: &'a [String], flag: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(index, word)| match word.strip_prefix(flag)? {
        "" => words.get(index + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    })
}

fn format(output: Output) -> Format {
    match output {
        Output::Table => Format::Table,
        Output::Json => Format::Json,
        Output::Nagios => Format::Nagios,
        Output::Prometheus => Format::Prometheus,
        Output::Markdown => Format::Markdown,
    }
}

fn flags(global: &Global) -> Flags {
    let mut values: Vec<(&'static str, String)> = Vec::new();
    values.extend(global.tracking_uri.clone().map(|v| ("tracking_uri", v)));
    values.extend(global.backend_store_uri.clone().map(|v| ("backend_store_uri", v)));
    values.extend(global.artifact_root.clone().map(|v| ("artifact_root", v)));
    values.extend(global.output.map(|v| ("output", word(v))));
    values.extend(global.color.map(|v| ("color", word(v))));
    values.extend(global.progress.map(|v| ("progress", word(v))));
    values.extend(global.jobs.map(|v| ("jobs", v.to_string())));
    values.extend(global.work_dir.as_ref().map(|v| ("work_dir", v.display().to_string())));
    values.extend(global.state_dir.as_ref().map(|v| ("state_dir", v.display().to_string())));
    Flags { file: global.config.clone(), profile: global.profile.clone(), values }
}

fn context(global: Global, before: &Reporter) -> Outcome<Context> {
    let settings = Settings::resolve(&flags(&global), Environment::of_process())?;
    let outputs: Vec<(String, Output)> = Output::value_variants().iter().map(|o| (word(*o), *o)).collect();
    let outputs: Vec<(&str, Output)> = outputs.iter().map(|(word, output)| (word.as_str(), *output)).collect();
    let format = format(settings.word("output", &outputs)?);
    if before.command != "health" && !matches!(format, Format::Table | Format::Json) {
        return Err(Failure::usage("this form of output is for `mlops health`").hint("--output table or json"));
    }
    let color = settings.word("color", &[("auto", "auto"), ("always", "always"), ("never", "never")])?;
    // The flag beats NO_COLOR, as no-color.org asks.
    let no_color = settings.no_color() && global.color.is_none();
    report::set_color(if no_color { "never" } else { color });
    let progress = settings.word(
        "progress",
        &[("auto", Progress::Auto), ("plain", Progress::Plain), ("json", Progress::Json), ("none", Progress::None)],
    )?;
    let cancel = Cancel::new();
    interrupt::listen(&cancel)?;
    Ok(Context {
        jobs: settings.jobs()?,
        reporter: Reporter { format, ..before.clone() },
        events: report::progress(progress, global.quiet),
        settings,
        cancel,
        yes: global.yes,
        dry_run: global.dry_run,
        id: crate::state::new_id(),
    })
}
