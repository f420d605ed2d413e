//! `mlops config`.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Context, Ended};
use crate::cli::config::{Config, Init};
use crate::config::environment::Environment;
use crate::config::{self, Flags, Settings, draft};
use crate::domain::address::shown;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::memory::Memory;
use crate::domain::health::settings::HealthSettings;
use crate::domain::health::{Examination, Status};
use crate::domain::server::ServerAddress;
use crate::domain::tried::{Tried, Went};
use crate::health::plan::{self, Choice};
use crate::health::{self, Look, Places};
use crate::newfile::NewFile;
use crate::notify::SecretAddress;
use crate::report::{self, Result as Report};

/// How long all answers together may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Answers to one question that make no sense, before it is given up.
const TRIES: usize = 3;

pub(super) fn run(context: &Context, arguments: &Config) -> Result<u8, Ended> {
    match arguments {
        Config::Show => context.finish(&Report::Settings(&context.settings.all()), 0, &[]),
        Config::Check => check(context),
        Config::Init(arguments) => init(context, arguments),
    }
}

/// Parts of the stack: the setting that names it, and what `health` asks of it.
const PARTS: [(&str, &[&str]); 4] = [
    ("tracking_uri", &["server.live", "server.ready", "server.version"]),
    ("backend_store_uri", &["database.connect", "database.revision"]),
    ("artifact_root", &["artifacts.root"]),
    ("backup.to", &["backup.place"]),
];

fn check(context: &Context) -> Result<u8, Ended> {
    let settings = &context.settings;
    let mut tried: Vec<Tried> = settings
        .secrets()
        .into_iter()
        .map(|(key, from, read)| match read {
            Ok(()) => Tried::well(key, format!("read from {from}")),
            Err(failure) => Tried::wrong(key, failure.message, failure.hint),
        })
        .collect();
    let unread = |tried: &[Tried], keys: &[&str]| tried.iter().any(|t| t.went == Went::Wrong && keys.contains(&t.key));
    // Who cannot be told of is not asked without.
    let server = (!unread(&tried, &["tracking_password", "tracking_token"])).then(|| settings.tracking());
    let database =
        (!unread(&tried, &["backend_store_uri", "backend_store_password"])).then(|| settings.backend_store_uri());
    let auth = (!unread(&tried, &["auth_store_uri"])).then(|| settings.auth_store_uri());
    let access = (!unread(&tried, &["s3.secret_access_key"])).then(|| settings.s3());
    fn sound<T: Default>(key: &'static str, tried: &mut Vec<Tried>, given: Option<Outcome<T>>) -> T {
        given.unwrap_or_else(|| Ok(T::default())).unwrap_or_else(|failure| {
            tried.push(Tried::wrong(key, failure.message, failure.hint));
            T::default()
        })
    }
    let backups = settings.backup_to().map(ArtifactAddress::parse);
    let places = Places {
        server: sound("tracking_uri", &mut tried, server),
        database: sound("backend_store_uri", &mut tried, database),
        artifacts: settings.artifact_root().map(ArtifactAddress::parse),
        backups,
        s3: crate::artifact::S3::new(sound("s3.endpoint_url", &mut tried, access)),
        credentials: Vec::new(),
    };
    let auth = Places {
        server: None,
        database: sound("auth_store_uri", &mut tried, auth),
        artifacts: None,
        backups: None,
        s3: places.s3.clone(),
        credentials: Vec::new(),
    };
    for (places, parts) in [(&places, &PARTS[..]), (&auth, &[("auth_store_uri", &["database.connect"][..])][..])] {
        let only: Vec<String> = parts.iter().flat_map(|(_, checks)| checks.iter().map(|c| (*c).to_owned())).collect();
        let examination = look(context, places, only)?;
        for (key, checks) in parts {
            if !tried.iter().any(|t| t.key == *key && t.went == Went::Wrong) {
                tried.extend(part(key, checks, &examination));
            }
        }
    }
    tried.extend(folders(context));
    let notify = settings.notify();
    for (key, address) in notify.iter().flat_map(|n| [("notify.ping", &n.ping), ("notify.webhook", &n.webhook)]) {
        if let Some(address) = address {
            tried.push(match SecretAddress::parse(address) {
                Ok(_) => Tried::well(key, "it is an address; nothing was sent to it"),
                Err(failure) => Tried::wrong(key, failure.message, failure.hint),
            });
        }
    }
    let exit = if tried.iter().any(|t| t.went == Went::Wrong) { 5 } else { 0 };
    context.finish(&Report::Tried(settings.file.as_deref(), &tried), exit, &[])
}

/// What `health` says of some checks.
fn look(context: &Context, places: &Places, only: Vec<String>) -> Outcome<Option<Examination>> {
    let (settings, choice) = (HealthSettings::default(), Choice { only, ..Choice::default() });
    let known = places.known();
    if known.database.is_none() && known.server.is_none() && !known.reached && !known.backups {
        return Ok(None);
    }
    let planned = plan::checks(&known, &settings, &choice)?;
    let mut examination = health::examine(places.stack(Look {
        settings: settings.clone(),
        planned,
        deep: false,
        now: Timestamp::now(),
        deadline: Instant::now() + PATIENCE,
        memory: Memory::default(),
        work_dir: context.settings.work_dir(),
        id: context.id.clone(),
        cancel: context.cancel.clone(),
    })?)?;
    health::judge(&mut examination, &mut Memory::default(), false, &settings, &choice);
    Ok(Some(examination))
}

/// One part of the stack: the first thing that is wrong with it, or all that was seen.
fn part(key: &'static str, checks: &[&str], examination: &Option<Examination>) -> Option<Tried> {
    let unset = Tried { key, went: Went::Unset, told: String::new(), hint: None };
    let Some(examination) = examination else { return (key != "auth_store_uri").then_some(unset) };
    let mut readings = examination.readings.iter().filter(|r| checks.contains(&r.id.as_str())).peekable();
    if readings.peek().is_none() {
        return Some(unset);
    }
    let readings: Vec<_> = readings.collect();
    match readings.iter().find(|r| matches!(r.status, Status::Critical | Status::Unknown)) {
        Some(wrong) => Some(Tried::wrong(key, wrong.summary.clone(), wrong.hint.clone())),
        None => {
            let told: Vec<&str> = readings.iter().map(|r| r.summary.as_str()).collect();
            Some(Tried::well(key, told.join("; ")))
        }
    }
}

/// The folders that are written to.
fn folders(context: &Context) -> Vec<Tried> {
    let settings = &context.settings;
    let writable = |key: &'static str, folder: &Path| {
        let made = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        match made.and_then(|mut file| file.write_all(b"mlops")) {
            Ok(()) => Tried::well(key, format!("{} can be written to", shown(folder))),
            Err(e) => Tried::wrong(key, format!("{} cannot be written to: {e}", shown(folder)), None),
        }
    };
    let state = settings
        .state_dir()
        .map_or_else(|f| Tried::wrong("state_dir", f.message, f.hint), |folder| writable("state_dir", &folder));
    let programs = match settings.postgres_programs() {
        Some(folder) => Tried::well("postgres_bin", format!("PostgreSQL's programs are in {}", shown(&folder))),
        None if settings.postgres_bin().is_some() => {
            Tried::wrong("postgres_bin", "PostgreSQL's programs initdb and postgres are not there", None)
        }
        None => Tried {
            key: "postgres_bin",
            went: Went::Unset,
            told: "no PostgreSQL is installed here: rehearsals and drills use SQLite".to_owned(),
            hint: None,
        },
    };
    vec![writable("work_dir", &settings.work_dir()), state, programs]
}

/// What a first file is about: the key, what it is called when it is asked for, and whether an answer makes sense.
type Question = (&'static str, &'static str, fn(&Settings, &str) -> Outcome<()>);

const QUESTIONS: [Question; 4] = [
    ("tracking_uri", "Tracking server, as clients name it (http://host:5000)", |_, text| {
        ServerAddress::parse(text).map(drop)
    }),
    ("backend_store_uri", "Its database, as `mlflow server --backend-store-uri` names it", |settings, text| {
        settings.address(text).map(drop)
    }),
    (
        "artifact_root",
        "Its artifacts, as `--artifacts-destination` names them: a folder or s3://bucket/path",
        |_, _| Ok(()),
    ),
    ("backup.to", "Where backups are to be kept: a folder or s3://bucket/path", |_, _| Ok(())),
];

fn init(context: &Context, arguments: &Init) -> Result<u8, Ended> {
    let settings = &context.settings;
    let file = match &arguments.file {
        Some(file) => file.clone(),
        None => settings.usual_file()?,
    };
    if file.symlink_metadata().is_ok() {
        let failure = Failure::refused(format!("{} is there already, and is not replaced", shown(&file)));
        return Err(failure.hint("name another file, or move it away").into());
    }
    let mut values = Vec::new();
    for (key, question, sound) in QUESTIONS {
        let flag = if key == "backup.to" { arguments.backup_to.as_deref() } else { settings.flag(key) };
        let known = settings.plain(key);
        let value = match flag {
            Some(text) => {
                sound(settings, text)?;
                Some(text.to_owned())
            }
            None => asked(context, question, known, |text| sound(settings, text))?,
        };
        values.extend(value.map(|value| (key, value)));
    }
    if values.is_empty() {
        let failure = Failure::usage("nothing to write: no setting was told");
        return Err(failure
            .hint("run it on a terminal, or give --tracking-uri, --backend-store-uri, --artifact-root, --backup-to")
            .into());
    }
    if context.dry_run {
        // The file is its owner's alone, and what is printed is not.
        let told: Vec<_> = values.iter().map(|(key, value)| (*key, config::told(key, value))).collect();
        report::raw(draft::filled(&told)?.as_bytes());
        return Ok(0);
    }
    let text = draft::filled(&values)?;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| Failure::configuration(format!("{} cannot be made: {e}", shown(folder))))?;
    }
    let mut new = NewFile::create(&file, 0o600)?;
    let wrote = new.file().write_all(text.as_bytes());
    wrote.map_err(|e| Failure::target(format!("{} cannot be written: {e}", shown(&file))))?;
    new.publish()?;
    // What was written is what is read.
    Settings::resolve(&Flags { file: Some(file.clone()), ..Flags::default() }, Environment::of(&[]))?;
    let keys: Vec<&str> = values.iter().map(|(key, _)| *key).collect();
    context.finish(&Report::Drafted(&file, &keys, arguments.file.is_none()), 0, &[])
}

/// The answer to a question; none: nobody can be asked, or the answer is that there is none.
fn asked(
    context: &Context,
    question: &str,
    known: Option<&str>,
    sound: impl Fn(&str) -> Outcome<()>,
) -> Outcome<Option<String>> {
    let default = known.map_or("none".to_owned(), str::to_owned);
    for _ in 0..TRIES {
        let Some(answer) = report::question(&format!("{question} [{default}]: ")) else { return Ok(None) };
        context.cancel.check()?;
        let answer = if answer.is_empty() { known.unwrap_or_default() } else { answer.as_str() };
        if matches!(answer, "" | "none") {
            return Ok(None);
        }
        match sound(answer) {
            Ok(()) => return Ok(Some(answer.to_owned())),
            Err(failure) => context.reporter.say(&failure.message),
        }
    }
    Err(Failure::usage("no answer that makes sense"))
}
