//! `mlops health`.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;

use super::{Context, Ended, messages};
use crate::artifact::S3;
use crate::cli::health::{FailOn, Health};
use crate::config::Settings;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::memory::Memory;
use crate::domain::health::settings::HealthSettings;
use crate::domain::health::{Examination, Status};
use crate::domain::server::{Connection, Credentials};
use crate::domain::span;
use crate::health::plan::{self, Choice, Planned};
use crate::health::security::Credential;
use crate::health::watch::Watch;
use crate::health::{self, Look, Places};
use crate::notify::ping::Ping;
use crate::notify::{SecretAddress, Sender, webhook};
use crate::report::{self, Result as Report};
use crate::state::history::{self, History};

/// The longest `--timeout`: beyond it a monitor has given up long since.
const LONGEST: Duration = Duration::from_secs(3_600);
/// The longest `--for`.
const LONGEST_WATCH: Duration = Duration::from_secs(7 * 86_400);

/// What the arguments mean, all checked before anything is asked.
struct Wish {
    choice: Choice,
    timeout: Duration,
    watch: Option<(Duration, Duration)>,
    ping: Option<SecretAddress>,
    webhook: Option<SecretAddress>,
}

pub(super) fn run(context: &Context, arguments: &Health) -> Result<u8, Ended> {
    let wish = wish(&context.settings, arguments)?;
    let settings = context.settings.health()?;
    let places = places(&context.settings, arguments)?;
    let planned = plan::checks(&places.known(), &settings, &wish.choice)?;
    if context.dry_run {
        return context.finish(&Report::HealthPlan(&places.addresses(), &planned), 0, &[]);
    }
    let sender = sender(&context.settings, &wish)?;
    let ping = sender.clone().zip(wish.ping.clone()).map(|(sender, address)| Ping::start(sender, address));
    let job = Job { context, wish: &wish, settings: &settings, places: &places, planned: &planned };
    let mut warnings = Vec::new();
    let ended = job.verdict(&mut warnings).map(|examination| {
        let exit = job.tell(arguments, &examination, sender.as_ref(), &mut warnings);
        (examination, exit)
    });
    let well = matches!(&ended, Ok((_, 0)));
    if let Some(ping) = ping {
        let text = match &ended {
            Ok((examination, _)) => report::health::markdown::text(examination, &warnings),
            Err(failure) => failure.message.clone(),
        };
        warnings.extend(ping.finish(well, &text));
    }
    match ended {
        // A cron line that is silent sends no mail.
        Ok((_, exit)) if well && context.reporter.quiet => Ok(context.exit(exit)),
        Ok((examination, exit)) => context.finish(&Report::Health(&examination), exit, &warnings),
        Err(failure) => Err(Ended { failure, warnings }),
    }
}

fn wish(settings: &Settings, arguments: &Health) -> Outcome<Wish> {
    let timeout = time("--timeout", &arguments.timeout, Duration::from_secs(1), LONGEST)?;
    let watch = match &arguments.watch {
        None => None,
        Some(text) => Some((
            time("--for", text, Duration::from_secs(1), LONGEST_WATCH)?,
            time("--every", &arguments.every, Duration::from_secs(1), LONGEST_WATCH)?,
        )),
    };
    let choice = Choice { only: arguments.only.clone(), skip: arguments.skip.clone(), deep: arguments.deep };
    let notify = settings.notify()?;
    let address = |flag: &Option<String>, setting: Option<SecretString>| {
        let text = flag.clone().map(SecretString::from).or(setting);
        text.map(|text| SecretAddress::parse(&text)).transpose()
    };
    Ok(Wish {
        choice,
        timeout,
        watch,
        ping: address(&arguments.ping, notify.ping)?,
        webhook: address(&arguments.notify, notify.webhook)?,
    })
}

/// Where the parts of the stack are.
fn places(settings: &Settings, arguments: &Health) -> Outcome<Places> {
    let artifacts = settings.artifact_root().map(ArtifactAddress::parse);
    let (server, access) = (settings.tracking()?, settings.s3()?);
    let mut credentials = Vec::new();
    if let Some(Connection { credentials: Credentials::Basic { user, password }, credentials_from, .. }) = &server {
        let (place, user, password) = (credentials_from.clone(), user.clone(), password.clone());
        credentials.push(Credential { place, user, password });
    }
    if let Some(key) = &access.key {
        let (place, user, password) = (access.key_from.clone(), key.id.clone(), key.secret.clone());
        credentials.push(Credential { place, user, password });
    }
    let database = settings.backend_store_uri()?;
    let backups = arguments.backup_to.as_deref().or(settings.backup_to()).map(ArtifactAddress::parse);
    if let Some(other) = &backups
        && !matches!(other, ArtifactAddress::Local(_) | ArtifactAddress::S3 { .. })
    {
        return Err(Failure::usage(format!(
            "the place of the backups: {other} is neither a folder nor s3://bucket/path"
        ))
        .hint("name what `mlops backup --to` is given"));
    }
    Ok(Places { server, database, artifacts, backups, s3: S3::new(access), credentials })
}

/// Who sends messages, where any are to be sent.
fn sender(settings: &Settings, wish: &Wish) -> Outcome<Option<Sender>> {
    if wish.ping.is_none() && wish.webhook.is_none() {
        return Ok(None);
    }
    messages::sender(settings, messages::MESSAGE.min(wish.timeout)).map(Some)
}

/// A time as people write it.
fn time(flag: &str, text: &str, least: Duration, most: Duration) -> Outcome<Duration> {
    span::parse(text).filter(|d| (least..=most).contains(d)).ok_or_else(|| {
        Failure::usage(format!("{flag} {text}: not a time from {} s to {} s", least.as_secs(), most.as_secs()))
            .hint("`30s`, `5 min`, `1h`")
    })
}

struct Job<'a> {
    context: &'a Context,
    wish: &'a Wish,
    settings: &'a HealthSettings,
    places: &'a Places,
    planned: &'a [Planned],
}

impl Job<'_> {
    /// What runs share a memory: those that look at the same stack.
    fn key(&self) -> String {
        self.places.key()
    }

    /// What runs share a verdict: those that also ask the same of it.
    fn choice(&self) -> String {
        format!("{:?}", self.wish.choice)
    }

    /// One look, or many with one verdict.
    fn verdict(&self, warnings: &mut Vec<String>) -> Outcome<Examination> {
        let Some((length, every)) = self.wish.watch else { return self.look(warnings) };
        let (begun, mut watch) = (Instant::now(), Watch::new(Timestamp::now()));
        loop {
            let next = Instant::now() + every;
            let look = self.look(warnings)?;
            self.context.reporter.say(&report::health::line(&look));
            watch.add(&look);
            if next.duration_since(begun) > length {
                return Ok(watch.verdict());
            }
            while Instant::now() < next {
                self.context.cancel.check()?;
                std::thread::sleep(Duration::from_millis(100).min(next.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Looks once and remembers.
    fn look(&self, warnings: &mut Vec<String>) -> Outcome<Examination> {
        let state_dir = self.context.settings.state_dir()?;
        let stack = self.places.stack(Look {
            settings: self.settings.clone(),
            planned: self.planned.to_vec(),
            deep: self.wish.choice.deep,
            now: Timestamp::now(),
            deadline: Instant::now() + self.wish.timeout,
            memory: history::peek(&state_dir, &self.key()),
            work_dir: self.context.settings.work_dir(),
            id: self.context.id.clone(),
            cancel: self.context.cancel.clone(),
        })?;
        let mut examination = health::examine(stack)?;
        let mut judge = |memory: &mut Memory, kept: bool| {
            health::judge(&mut examination, memory, kept, self.settings, &self.wish.choice);
        };
        let told = match History::open(&state_dir, &self.key()) {
            Ok(mut history) => {
                judge(&mut history.memory, true);
                history.save()
            }
            Err(why) => {
                judge(&mut Memory::default(), false);
                Err(why)
            }
        };
        if let Err(why) = told
            && !warnings.contains(&why)
        {
            warnings.push(why);
        }
        Ok(examination)
    }

    /// Tells the verdict to files and people.
    fn tell(
        &self,
        arguments: &Health,
        examination: &Examination,
        sender: Option<&Sender>,
        warnings: &mut Vec<String>,
    ) -> u8 {
        let mut unwritten = false;
        let mut write = |file: &Path, text: &str, warnings: &mut Vec<String>| {
            let told = report::health::textfile::write(file, text);
            unwritten |= told.is_err();
            warnings.extend(told.err().map(|f| f.message));
        };
        if let Some(file) = &arguments.textfile {
            write(file, &report::health::prometheus::text(examination), warnings);
        }
        if let Some(file) = &arguments.incident
            && let Some(text) = report::health::incident::text(examination, warnings)
        {
            write(file, &text, warnings);
        }
        if let (Some(sender), Some(address)) = (sender, &self.wish.webhook) {
            warnings.extend(self.announce(examination, sender, address).err());
        }
        // Whoever reads an old file takes it for the verdict: without it this run is not fine.
        let status = examination.status().max(if unwritten { Status::Unknown } else { Status::Ok });
        match arguments.fail_on {
            None => report::health::code(status),
            Some(FailOn::Warning) => u8::from(status >= Status::Warning),
            Some(FailOn::Critical) => u8::from(status >= Status::Critical),
        }
    }

    /// Posts a message where the verdict is another than the one that was posted last.
    fn announce(&self, examination: &Examination, sender: &Sender, address: &SecretAddress) -> Result<(), String> {
        let mut history = History::open(&self.context.settings.state_dir().map_err(|f| f.message)?, &self.key())?;
        let (before, now) = (history.memory.told(&self.choice()), examination.status());
        // The first run of all says nothing when all is well.
        if before.unwrap_or(Status::Ok) != now {
            let host = self.context.settings.host();
            webhook::send(sender, address, &webhook::change(before, examination, &host)).map_err(|f| f.message)?;
        }
        history.memory.tell(self.choice(), now);
        history.save()
    }
}
