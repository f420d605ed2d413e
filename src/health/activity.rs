//! The layer *activity*: do the experiments that matter run, often enough, without failing, and to their end.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::domain::failure::Outcome;
use crate::domain::health::settings::{Activity, HealthSettings, Judgement};
use crate::domain::health::{Limits, Reading, Status, Unit};
use crate::domain::tracking::{Run, View};
use crate::mlflow::Client;
use crate::mlflow::fault::{Reply, Trouble};

use super::Stack;
use super::runs::{self, NEWEST, OLDEST, age, called, patient, span, told};
use super::server::{unmeasured, unset};

const READY: &str = "server.ready";
const DELETED: &str = "activity.deleted";
/// What is deleted is counted so far.
const MOST_DELETED: usize = 1_000;
/// Finished runs whose duration is looked at.
const DURATIONS: u32 = 20;
/// Runs that stand in for all that were found.
const NAMED: usize = 10;
/// Neither running nor waiting; releases before 3 know no `IN` for it.
const ENDED: &str = "attributes.status != 'RUNNING' AND attributes.status != 'SCHEDULED'";

/// What can be asked of an activity, by the last part of its id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Newest,
    Runs,
    Failed,
    Running,
    Duration,
}

const QUESTIONS: [(Question, &str, &str); 5] = [
    (Question::Newest, "newest", "age of the newest run"),
    (Question::Runs, "runs", "runs in a time, counted to the highest limit"),
    (Question::Failed, "failed", "share of failed runs among the newest that ended"),
    (Question::Running, "running", "age of the oldest run that is still RUNNING"),
    (Question::Duration, "duration", "the longest of the newest finished runs"),
];

fn asked(activity: &Activity) -> impl Iterator<Item = (Question, String, String)> {
    let there = |question| match question {
        Question::Newest => activity.newest.is_some(),
        Question::Runs => activity.runs.is_some(),
        Question::Failed => activity.failed.is_some(),
        Question::Running => activity.running.is_some(),
        Question::Duration => activity.duration.is_some(),
    };
    QUESTIONS.into_iter().filter(move |(question, ..)| there(*question)).map(|(question, word, about)| {
        (question, format!("activity.{}.{word}", activity.name), format!("{}: {about}", activity.experiments))
    })
}

/// The checks that a configuration asks for, with their questions.
pub(super) fn expected(settings: &HealthSettings) -> Vec<(String, String)> {
    settings.activities.iter().flat_map(asked).map(|(_, id, about)| (id, about)).collect()
}

/// Looks at all activities at once, and at what is deleted.
pub(super) async fn look(stack: Arc<Stack>) {
    let mut tasks = JoinSet::new();
    for activity in stack.look.settings.activities.clone() {
        tasks.spawn(one(stack.clone(), activity));
    }
    if stack.wants(DELETED) {
        tasks.spawn(backlog(stack.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(stack: Arc<Stack>, activity: Activity) {
    let Some((_, client)) = &stack.server else { return };
    let client = patient(&stack, client);
    let questions: Vec<(Question, String)> =
        asked(&activity).filter(|(_, id, _)| stack.wants(id)).map(|(question, id, _)| (question, id)).collect();
    let Some((_, head)) = questions.first() else { return };
    match runs::experiments(&client, &activity.experiments).await {
        Err(trouble) => {
            for (_, id) in &questions {
                stack.tell(unmeasured(id, &trouble).needs(READY));
            }
        }
        Ok(found) if found.is_empty() => {
            let what = format!("no experiment is called {}", activity.experiments);
            stack.tell(
                Reading::critical(head.clone(), what.clone())
                    .hint("is it deleted or renamed, or does this user not see it?")
                    .needs(READY),
            );
            for (_, id) in questions.iter().skip(1) {
                stack.tell(Reading::unknown(id.clone(), what.clone()).needs(head.clone()));
            }
        }
        Ok(found) => {
            // One after the other: a server has few workers, and others ask it as well.
            for (question, id) in &questions {
                stack.tell(answer(&stack, &client, &activity, &found, *question, id).await);
            }
        }
    }
}

async fn answer(
    stack: &Stack,
    client: &Client,
    activity: &Activity,
    experiments: &[String],
    question: Question,
    id: &str,
) -> Reading {
    let look = Look { stack, client, experiments, id };
    let told = match question {
        Question::Newest => look.newest(activity).await,
        Question::Runs => look.frequency(activity).await,
        Question::Failed => look.failed(activity).await,
        Question::Running => look.running(activity).await,
        Question::Duration => look.duration(activity).await,
    };
    told.unwrap_or_else(|trouble| unmeasured(id, &trouble)).needs(READY)
}

struct Look<'a> {
    stack: &'a Stack,
    client: &'a Client,
    experiments: &'a [String],
    id: &'a str,
}

impl Look<'_> {
    async fn first(&self, filter: &str, order: &[&str], most: u32) -> Reply<Vec<Run>> {
        runs::first(self.client, self.experiments, filter, order, most).await
    }

    fn judged(&self, value: f64, unit: Unit, limits: Outcome<Limits>, summary: String) -> Reading {
        match limits {
            Ok(limits) => Reading::measured(self.id, value, unit, limits, summary),
            Err(failure) => unset(self.id, &failure),
        }
    }

    /// Where there is nothing to measure: as bad as the worst limit that is set.
    fn nothing(&self, judgement: &Judgement, summary: String) -> Reading {
        let status = if judgement.critical.is_some() { Status::Critical } else { Status::Warning };
        Reading::new(self.id, status, summary)
    }

    async fn newest(&self, activity: &Activity) -> Result<Reading, Trouble> {
        let judgement = activity.newest.clone().unwrap_or_default();
        let runs = self.first("", NEWEST, 1).await?;
        let start = runs.first().and_then(|run| Some((run, run.start?)));
        let Some((run, start)) = start else {
            let there = match self.experiments {
                [_] => "the experiment".to_owned(),
                several => format!("any of {} experiments", several.len()),
            };
            return Ok(self.nothing(&judgement, format!("there is no run in {there}")));
        };
        let age = age(self.stack.look.now, start);
        let reading = self.judged(
            age,
            Unit::Seconds,
            judgement.at_most(Unit::Seconds),
            format!("the newest run started {} ago", span(age)),
        );
        Ok(reading.evidence([told(run, self.stack.look.now)]))
    }

    async fn frequency(&self, activity: &Activity) -> Result<Reading, Trouble> {
        let Some(frequency) = &activity.runs else { return Ok(Reading::unknown(self.id, "nothing is expected")) };
        let judgement =
            Judgement { warning: frequency.warning.clone(), critical: frequency.critical.clone(), after: None };
        let limits = judgement.at_least(Unit::Count);
        let within = match frequency.within.in_unit(Unit::Seconds) {
            Ok(within) => within,
            Err(failure) => return Ok(unset(self.id, &failure)),
        };
        let highest = [&frequency.warning, &frequency.critical]
            .into_iter()
            .flatten()
            .filter_map(|amount| amount.in_unit(Unit::Count).ok())
            .fold(1.0, f64::max)
            .ceil();
        // The bound stands in the settings' own check.
        let most = highest as u32;
        let since = self.stack.look.now.as_millisecond() - (within * 1e3) as i64;
        let runs = self.first(&format!("attributes.start_time >= {since}"), NEWEST, most).await?;
        let more = if runs.len() as u32 == most { "or more " } else { "" };
        let summary = format!("{} {more}runs in the last {}", runs.len(), span(within));
        Ok(self.judged(runs.len() as f64, Unit::Count, limits, summary))
    }

    async fn failed(&self, activity: &Activity) -> Result<Reading, Trouble> {
        let Some(failed) = &activity.failed else { return Ok(Reading::unknown(self.id, "nothing is expected")) };
        let judgement = Judgement { warning: failed.warning.clone(), critical: failed.critical.clone(), after: None };
        let runs = self.first(ENDED, NEWEST, failed.of).await?;
        if runs.is_empty() {
            return Ok(Reading::unknown(self.id, "no run has ended yet"));
        }
        let broken: Vec<&Run> = runs.iter().filter(|r| r.status == "FAILED" || r.status == "KILLED").collect();
        let share = 100.0 * broken.len() as f64 / runs.len() as f64;
        let summary = format!("{} of the newest {} runs failed", broken.len(), runs.len());
        let reading = self.judged(share, Unit::Percent, judgement.at_most(Unit::Percent), summary);
        Ok(reading.evidence(broken.iter().take(NAMED).map(|run| told(run, self.stack.look.now))))
    }

    async fn running(&self, activity: &Activity) -> Result<Reading, Trouble> {
        let limits = activity.running.clone().unwrap_or_default().at_most(Unit::Seconds);
        let runs = self.first("attributes.status = 'RUNNING'", OLDEST, NAMED as u32).await?;
        let Some((oldest, start)) = runs.first().and_then(|run| Some((run, run.start?))) else {
            return Ok(self.judged(0.0, Unit::Seconds, limits, "no run is RUNNING".to_owned()));
        };
        let age = age(self.stack.look.now, start);
        let summary = format!("{} is RUNNING for {}", called(oldest), span(age));
        let reading = self
            .judged(age, Unit::Seconds, limits, summary)
            .evidence(runs.iter().map(|run| told(run, self.stack.look.now)));
        if reading.status == Status::Ok {
            return Ok(reading);
        }
        Ok(reading
            .cause("its process died without a word: nothing else ends a run in MLflow")
            .hint(format!("if it is dead: MlflowClient().set_terminated(\"{}\", \"KILLED\")", oldest.id)))
    }

    async fn duration(&self, activity: &Activity) -> Result<Reading, Trouble> {
        let limits = activity.duration.clone().unwrap_or_default().at_most(Unit::Seconds);
        let runs = self.first("attributes.status = 'FINISHED'", NEWEST, DURATIONS).await?;
        let mut took: Vec<(f64, &Run)> = runs
            .iter()
            // Clocks that disagree give ends before their beginnings.
            .filter_map(|run| Some((((run.end? - run.start?) as f64 / 1e3).max(0.0), run)))
            .collect();
        took.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((longest, run)) = took.first() else {
            return Ok(Reading::unknown(self.id, "no run has finished yet"));
        };
        let summary = format!("{} took {}, the longest of {}", called(run), span(*longest), took.len());
        let evidence = took.iter().take(NAMED).map(|(took, run)| format!("{} took {}", called(run), span(*took)));
        Ok(self.judged(*longest, Unit::Seconds, limits, summary).evidence(evidence))
    }
}

async fn backlog(stack: Arc<Stack>) {
    let Some((_, client)) = &stack.server else { return };
    let client = patient(&stack, client);
    stack.tell(match counted(&client).await {
        Err(trouble) => unmeasured(DELETED, &trouble),
        Ok((experiments, runs)) => {
            let counted = |number: usize, what: &str| {
                let more = if number >= MOST_DELETED { "+" } else { "" };
                format!("{number}{more} {what}{}", if number == 1 { "" } else { "s" })
            };
            let summary = format!(
                "{} and {} are deleted and still there",
                counted(runs, "run"),
                counted(experiments, "experiment")
            );
            match stack.at_most(DELETED, Unit::Count) {
                Err(failure) => unset(DELETED, &failure),
                Ok(limits) => {
                    let reading = Reading::measured(DELETED, (experiments + runs) as f64, Unit::Count, limits, summary);
                    match reading.status {
                        Status::Ok => reading,
                        _ => reading.hint("`mlflow gc` removes them for good, with their artifacts"),
                    }
                }
            }
        }
    });
}

/// Deleted experiments and deleted runs, each counted to a bound.
async fn counted(client: &Client) -> Reply<(usize, usize)> {
    let (mut ids, mut deleted) = (Vec::new(), 0);
    let mut pages = client.experiments("", View::All, 1_000);
    while let Some(page) = pages.next().await? {
        deleted += page.iter().filter(|e| e.deleted).count();
        ids.extend(page.into_iter().map(|e| e.id));
        if ids.len() >= 10 * MOST_DELETED {
            break;
        }
    }
    Ok((deleted.min(MOST_DELETED), runs::deleted(client, &ids, MOST_DELETED).await?))
}
