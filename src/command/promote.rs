//! `mlops promote`, `mlops rollback` and `mlops models history`.

use tokio::runtime::Runtime;

use super::server::{called, runtime, server};
use super::{Context, Ended, journal, messages};
use crate::cli::promote::{Gates, Mode as ModeWord, Promote, Rollback, Story, Which as WhichFlags};
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::harmless;
use crate::domain::promotion::choice::{Which, alias_name};
use crate::domain::promotion::place::{Aliases, CHALLENGER, Stage};
use crate::domain::promotion::record::{Action, Record};
use crate::domain::promotion::settings::{Asked, Wanted};
use crate::mlflow::Client;
use crate::promote::lock::{Claim, Lock};
use crate::promote::plan::{Plan, Request, prepare};
use crate::promote::switch::{self, Ended as End};
use crate::promote::{audit, settle};
use crate::report::{self, Result as Report};
use crate::state::promotions;

/// The tag that `--set-validation-status` writes.
const VALIDATION: &str = "validation_status";

pub(super) fn promote(context: &Context, arguments: &Promote) -> Result<u8, Ended> {
    messages::told(context, &arguments.messages, &format!("mlops promote of {}", arguments.model), || {
        let gates = &arguments.gates;
        let which = which(&arguments.which)?;
        let wanted = context.settings.promotion(&arguments.model).with(wanted(gates, arguments.mode.mode));
        let job = Job::new(context, &arguments.model, wanted, &arguments.story)?;
        let aim = Aim { action: Action::Promote, which: Some(which), to: arguments.to.as_deref() };
        job.run(&aim, arguments.set_validation_status)
    })
}

pub(super) fn rollback(context: &Context, arguments: &Rollback) -> Result<u8, Ended> {
    messages::told(context, &arguments.messages, &format!("mlops rollback of {}", arguments.model), || {
        let own = context.settings.promotion(&arguments.model);
        let mode = arguments.mode.mode.map(word);
        // The way back is not barred by what is asked of the way there.
        let wanted =
            Wanted { mode: mode.or(own.mode), champion: own.champion, challenger: own.challenger, ..Wanted::default() };
        let job = Job::new(context, &arguments.model, wanted, &arguments.story)?;
        let which = arguments.to_version.map(Which::Number);
        job.run(&Aim { action: Action::Rollback, which, to: arguments.to.as_deref() }, false)
    })
}

/// `mlops models history`.
pub(super) fn history(context: &Context, model: &str) -> Result<u8, Ended> {
    let job = Job::new(context, model, context.settings.promotion(model), &Story { reason: None, by: None })?;
    let history = job.runtime.block_on(audit::history(&job.client, model, &job.aliases, &job.log))?;
    context.finish(&Report::PromotionHistory(&history), 0, &job.warnings)
}

fn word(mode: ModeWord) -> String {
    crate::cli::word(mode)
}

fn which(flags: &WhichFlags) -> Outcome<Which> {
    let alias = flags.alias.as_deref().map(|alias| alias_name(alias.trim_start_matches('@'))).transpose()?;
    let stage = flags.stage.as_deref().map(|text| {
        Stage::parse(text).ok_or_else(|| {
            Failure::usage(format!("--stage {text}: no such stage")).hint("Staging, Production, Archived or None")
        })
    });
    Ok(match (flags.version, alias, stage.transpose()?, &flags.run, &flags.uuid) {
        (Some(number), ..) => Which::Number(number),
        (_, Some(alias), ..) => Which::Alias(alias),
        (.., Some(stage), _, _) => Which::InStage(stage),
        (.., Some(run), _) => Which::Run(run.clone()),
        (.., Some(id)) => Which::Logged(id.strip_prefix("models:/").unwrap_or(id).to_owned()),
        _ if flags.latest => Which::Latest,
        _ => Which::Challenger,
    })
}

fn wanted(gates: &Gates, mode: Option<ModeWord>) -> Wanted {
    Wanted {
        mode: mode.map(word),
        champion: None,
        challenger: None,
        require: gates.require.clone(),
        require_tag: gates.require_tag.clone(),
        require_signature: gates.require_signature,
        max_age: gates.max_age.clone(),
        soak: gates.soak.clone(),
        approve_by_tag: gates.approve_by_tag.clone(),
        check: gates.check.clone(),
        check_timeout: gates.check_timeout.clone(),
    }
}

fn as_usage(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Configuration => Failure { kind: Kind::Usage, ..failure },
        _ => failure,
    }
}

/// Who goes where.
struct Aim<'a> {
    action: Action,
    which: Option<Which>,
    to: Option<&'a str>,
}

/// One model on one server, and what is known of it before it is asked for.
struct Job<'a> {
    context: &'a Context,
    model: &'a str,
    wanted: Wanted,
    aliases: Aliases,
    client: Client,
    runtime: Runtime,
    /// The server, for people and for the log.
    address: String,
    by: String,
    reason: Option<String>,
    log: Vec<Record>,
    warnings: Vec<String>,
}

impl<'a> Job<'a> {
    fn new(context: &'a Context, model: &'a str, wanted: Wanted, story: &Story) -> Outcome<Job<'a>> {
        let (client, runtime) = (server(context)?, runtime()?);
        let settings = &context.settings;
        let aliases = Aliases {
            champion: wanted.champion.clone().unwrap_or_else(|| settings.champion().to_owned()),
            challenger: wanted.challenger.clone().unwrap_or_else(|| CHALLENGER.to_owned()),
        };
        let address = called(&client);
        let mut warnings = Vec::new();
        let log = match promotions::of(&settings.state_dir()?, &address, model) {
            Ok((log, 0)) => log,
            Ok((log, damaged)) => {
                warnings.push(format!("{damaged} lines of the log of promotions cannot be read"));
                log
            }
            Err(warning) => {
                warnings.push(warning);
                Vec::new()
            }
        };
        let host = settings.host();
        let by = story.by.as_ref().map_or_else(|| settings.who(), |name| format!("{name}@{host}"));
        let reason = story.reason.as_deref().map(harmless::masked);
        Ok(Job { context, model, wanted, aliases, client, runtime, address, by, reason, log, warnings })
    }

    /// What is asked. A mistake in it is a flag's: the file was found sound when it was read.
    fn asked(&self) -> Outcome<Asked> {
        self.wanted.asked().map_err(as_usage)
    }

    fn plan(&self, aim: &Aim<'_>, asked: &Asked, verdict: bool) -> Outcome<Plan> {
        let mode = self.wanted.mode().map_err(as_usage)?;
        let request = Request {
            id: &self.context.id,
            server: &self.address,
            model: self.model,
            which: aim.which.clone(),
            action: aim.action,
            to: aim.to,
            mode,
            aliases: &self.aliases,
            asked,
            by: &self.by,
            reason: self.reason.as_deref(),
            verdict,
            log: &self.log,
            now: jiff::Timestamp::now(),
        };
        self.runtime.block_on(prepare(&self.client, &request, &self.context.cancel))
    }

    /// Promotes, or with `judge` leaves a verdict alone. What came up on the way is told however it ends.
    fn run(mut self, aim: &Aim<'_>, judge: bool) -> Result<u8, Ended> {
        let ended = if judge { self.validate(aim) } else { self.attempt(aim) };
        ended.map_err(|failure| Ended { failure, warnings: self.warnings })
    }

    /// Judges, and leaves the verdict with the version.
    fn validate(&mut self, aim: &Aim<'_>) -> Outcome<u8> {
        let mut asked = self.asked()?;
        // The verdict cannot wait for itself.
        asked.tags.retain(|(key, _)| key != VALIDATION);
        let mut plan = self.plan(aim, &asked, true)?;
        self.warnings.append(&mut plan.notes);
        let verdict = if plan.passed() { "passed" } else { "failed" };
        let (model, version) = (&plan.challenger.name, plan.challenger.version);
        if !self.context.dry_run {
            let written = self.client.set_version_tag(model, version, VALIDATION, verdict);
            self.runtime.block_on(written).map_err(|trouble| {
                let failure = trouble.failure;
                let message = format!("the verdict is {verdict}, and could not be left: {}", failure.message);
                Failure { message, ..failure }
            })?;
        }
        self.told(&Report::Judged(&plan, verdict, !self.context.dry_run), self.verdict(&plan))
    }

    fn verdict(&self, plan: &Plan) -> u8 {
        if plan.passed() { 0 } else { report::code(Kind::Differs) }
    }

    fn attempt(&mut self, aim: &Aim<'_>) -> Outcome<u8> {
        let context = self.context;
        self.settle()?;
        let asked = self.asked()?;
        let mut plan = self.plan(aim, &asked, false)?;
        self.warnings.append(&mut plan.notes);
        if context.dry_run || !plan.passed() {
            let exit = self.verdict(&plan);
            return self.told(&Report::PromotionPlan(&plan, context.dry_run), exit);
        }
        if !plan.already {
            context.reporter.say(report::promotion_plan(&plan).trim_end());
        }
        let confirmed = plan.consent(&context.consent())?;
        let lock = self.lock()?;
        context.cancel.check()?;
        let target = format!("{} on {}", self.model, self.address);
        let (journal, warnings) = journal::begin(context, &target, "what it left is settled")?;
        self.warnings.extend(warnings);
        let switched = switch::carry_out(&self.client, plan, &asked, &lock.names, confirmed.as_ref());
        let promotion = match self.runtime.block_on(switched) {
            Ok(promotion) => promotion,
            Err(failure) => {
                journal.close("failed");
                return Err(failure);
            }
        };
        journal.close("done");
        if let Some(record) = promotion.record.as_ref().filter(|_| promotion.ended != End::Open) {
            self.remember(record);
        }
        self.warnings.extend(promotion.said.iter().cloned());
        let exit = match promotion.ended {
            End::Already | End::Done => 0,
            End::Unrecorded | End::Overtaken | End::Open => report::PARTIAL,
        };
        self.told(&Report::Promoted(&promotion), exit)
    }

    fn told(&self, result: &Report<'_>, exit: u8) -> Outcome<u8> {
        self.context.finish(result, exit, &self.warnings).map_err(|ended| ended.failure)
    }

    fn lock(&mut self) -> Outcome<Lock> {
        let database = self.context.settings.backend_store_uri()?;
        let state_dir = self.context.settings.state_dir()?;
        let claim = Claim {
            id: &self.context.id,
            model: self.model,
            server: &self.address,
            host: &self.context.settings.host(),
            database: database.as_ref(),
            state_dir: &state_dir,
        };
        let (lock, warnings) = claim.take(&self.context.cancel)?;
        self.warnings.extend(warnings.into_iter().filter(|w| !self.warnings.contains(w)).collect::<Vec<_>>());
        Ok(lock)
    }

    /// Ends what was cut off before; a dry run only tells of it.
    fn settle(&mut self) -> Outcome<()> {
        let open = self.runtime.block_on(settle::open(&self.client, self.model, &self.log))?;
        if open.is_empty() {
            return Ok(());
        }
        if self.context.dry_run {
            let told = open.iter().map(|record| {
                format!(
                    "the {} {} did not come to its end; the next one finds out how it ended",
                    record.action.word(),
                    record.id
                )
            });
            self.warnings.extend(told);
            return Ok(());
        }
        let lock = self.lock()?;
        let (client, model) = (&self.client, self.model);
        let settled = self.runtime.block_on(settle::settle(client, model, &self.log, &lock.names))?;
        for one in settled {
            self.remember(&one.record);
            self.log.push(one.record);
            self.warnings.push(one.said);
        }
        Ok(())
    }

    /// Adds it to the log of this machine. The registry has it as well: that it cannot be written here is a warning.
    fn remember(&mut self, record: &Record) {
        let record = Record { server: Some(self.address.clone()), ..record.clone() };
        let written = self.context.settings.state_dir().map_err(|f| f.message);
        self.warnings.extend(written.and_then(|folder| promotions::add(&folder, &record)).err());
    }
}
