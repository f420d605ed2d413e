//! The switch: under a lock, from the plan to what is read back. Whatever is told was seen in the registry.

use std::time::Duration;

use super::plan::Plan;
use super::{gates, read};
use crate::domain::consent::Confirmed;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::promotion::gate::Verdict;
use crate::domain::promotion::place::{Registered, Standing};
use crate::domain::promotion::record::{Action, Record, Replaced, State};
use crate::domain::promotion::settings::Asked;
use crate::domain::tracking::value;
use crate::mlflow::fault::Reply;
use crate::mlflow::{Client, Fault, Trouble};

/// Pauses between looks at what became of a call whose answer was lost: a server that failed may still be at it.
const LOOKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// How often another client's change in the same moment is put right.
const REPAIRS: usize = 3;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was there already: nothing was done.
    Already,
    /// It was done, and read back.
    Done,
    /// It was done, and read back, but the audit trail is not complete.
    Unrecorded,
    /// It was done, and another client's change is what stands now.
    Overtaken,
    /// It is done in part, or nobody knows.
    Open,
}

/// What became of a plan.
#[derive(Debug)]
pub struct Promotion {
    /// The plan.
    pub plan: Plan,
    /// How it ended.
    pub ended: Ended,
    /// Who stands in the place now, as it was read back last.
    pub after: Option<Standing>,
    /// What came up on the way.
    pub said: Vec<String>,
    /// What goes into the log.
    pub record: Option<Record>,
}

/// What became of a call.
enum Sent {
    Done,
    /// The server did not do it.
    Not(Failure),
    /// Nobody knows.
    Unknown(Failure),
}

struct Switch<'a> {
    client: &'a Client,
    plan: &'a Plan,
    record: Record,
    said: Vec<String>,
}

/// Carries out a plan. The caller holds `lock`. `asked`: of which what the version itself tells is asked once more.
///
/// # Errors
/// Differs: a gate says no by now. Refused: a version would lose its place, and nobody agreed. Locked: the registry is
/// not what the plan saw; nothing was done. Else what the server refused or failed at, with nothing changed.
pub async fn carry_out(
    client: &Client,
    plan: Plan,
    asked: &Asked,
    lock: &str,
    confirmed: Option<&Confirmed>,
) -> Outcome<Promotion> {
    if plan.already {
        let after = Some(plan.before.clone());
        return Ok(Promotion { plan, ended: Ended::Already, after, said: Vec::new(), record: None });
    }
    if !plan.passed() {
        return Err(Failure::internal("a version that a gate refuses is not promoted"));
    }
    if !plan.replaced().is_empty() && confirmed.is_none() {
        return Err(Failure::refused("a version would lose its place, and nobody agreed to that"));
    }
    unchanged(client, &plan, asked).await?;
    let mut switch = Switch {
        client,
        record: Record { lock: lock.to_owned(), ..plan.record(State::Begun) },
        plan: &plan,
        said: Vec::new(),
    };
    let (ended, after) = switch.make().await?;
    let (said, record) = (switch.said, Some(switch.record));
    Ok(Promotion { plan, ended, after, said, record })
}

/// Whether the registry is what the plan saw.
async fn unchanged(client: &Client, plan: &Plan, asked: &Asked) -> Outcome<()> {
    let model = &plan.challenger.name;
    let now = read::registered(client, model).await?;
    let moved = |what: String| {
        Err(Failure::locked(format!("{model}: {what} since the plan was made; nothing was done"))
            .hint("somebody else is at it: look with `mlops models show`, and try again"))
    };
    let standing = now.standing(&plan.to);
    // Who else waits in Staging is no matter.
    if plan.to.is_single() && standing != plan.before {
        return moved(format!("{} was changed ({})", plan.to, told(&standing)));
    }
    match now.version(plan.challenger.version) {
        None => moved(format!("version {} was deleted", plan.challenger.version)),
        Some(v) if (&v.stage, &v.status) != (&plan.challenger.stage, &plan.challenger.status) => {
            moved(format!("version {} was moved to {} ({})", v.version, v.stage, v.status))
        }
        Some(version) => {
            // What a tag says may have changed while a check ran.
            let mut gates = if plan.action == Action::Promote { gates::of_version(version, asked) } else { Vec::new() };
            gates.extend(gates::stays(&now, version.version, &plan.to, &plan.champions));
            match gates.into_iter().find(|gate| gate.verdict == Verdict::Refused) {
                Some(gate) => Err(Failure::differs(format!(
                    "{model}: since the plan was made a gate says no ({}): {}; nothing was done",
                    gate.asked, gate.reason
                ))),
                None => Ok(()),
            }
        }
    }
}

/// Who stands there, for people.
pub(super) fn told(standing: &Standing) -> String {
    let staged: Vec<String> = standing.staged.iter().map(u64::to_string).collect();
    let staged = if staged.is_empty() { None } else { Some(format!("in the stage: {}", staged.join(", "))) };
    let aliased = standing.aliased.map(|version| format!("under the alias: {version}"));
    let parts: Vec<String> = staged.into_iter().chain(aliased).collect();
    if parts.is_empty() { "nobody is there".to_owned() } else { parts.join("; ") }
}

/// What became of a call, by what is in the registry where its answer was lost.
async fn became<T>(client: &Client, model: &str, reply: Reply<T>, holds: impl Fn(&Registered) -> bool) -> Sent {
    let trouble = match reply {
        Ok(_) => return Sent::Done,
        Err(trouble) if !trouble.fault.leaves_open() => return Sent::Not(trouble.failure),
        Err(trouble) => trouble,
    };
    let mut seen = false;
    for pause in LOOKS {
        tokio::time::sleep(pause).await;
        let look = read::look(client, model).await;
        if let Ok(Some(registered)) = &look {
            if holds(registered) {
                return Sent::Done;
            }
            seen = true;
        }
    }
    // A server, or one behind a proxy, that takes so long to answer may still do it.
    let late = matches!(trouble.fault, Fault::Timeout | Fault::Server(504));
    if seen && !late { Sent::Not(trouble.failure) } else { Sent::Unknown(trouble.failure) }
}

impl Switch<'_> {
    fn model(&self) -> &str {
        &self.plan.challenger.name
    }

    fn version(&self) -> u64 {
        self.plan.challenger.version
    }

    /// Leaves the record with the version, whatever became of the one before.
    async fn note(&mut self, state: State) -> Outcome<()> {
        (self.record.state, self.record.at) = (state, jiff::Timestamp::now());
        match tell(self.client, &self.record, self.version(), &self.record.tag()).await {
            Ok(()) => Ok(()),
            Err(trouble) => Err(trouble.failure),
        }
    }

    async fn make(&mut self) -> Outcome<(Ended, Option<Standing>)> {
        self.note(State::Begun).await.map_err(unmarked)?;
        let (to, before) = (&self.plan.to, &self.plan.before);
        let (model, version) = (self.model().to_owned(), self.version());
        let mut aliased = false;
        if let Some(alias) = to.alias.as_deref().filter(|_| before.aliased != Some(version)) {
            let reply = self.client.set_alias(&model, alias, version).await;
            match became(self.client, &model, reply, |r| r.under(alias) == Some(version)).await {
                Sent::Done => aliased = true,
                Sent::Not(failure) => return Err(self.undone(failure, false).await?),
                Sent::Unknown(failure) => return Ok(self.open(&failure)),
            }
        }
        let staged =
            to.stage.filter(|_| !(before.staged.contains(&version) && (!to.archives() || before.staged.len() == 1)));
        if let Some(stage) = staged {
            let reply = self.client.transition(&model, version, stage.word(), to.archives()).await.map_err(stageless);
            // Where it was one of two there already, it has come when the other is gone.
            let come = |r: &Registered| {
                let there = r.in_stage(stage);
                there.contains(&version) && (!before.staged.contains(&version) || there.len() == 1)
            };
            match became(self.client, &model, reply, come).await {
                Sent::Done => {}
                Sent::Not(failure) => match self.undone(failure.clone(), aliased).await {
                    Ok(failure) => return Err(failure),
                    Err(back) => return Ok(self.half_done(&failure, &back)),
                },
                Sent::Unknown(failure) => return Ok(self.open(&failure)),
            }
        }
        self.read_back().await
    }

    /// Puts back what was done before a step that failed; the failure to end with, or that of putting it back.
    async fn undone(&mut self, failure: Failure, aliased: bool) -> Outcome<Failure> {
        let mut what = "nothing was changed".to_owned();
        if let (true, Some(alias)) = (aliased, &self.plan.to.alias) {
            put_back(self.client, self.model(), alias, self.version(), self.plan.before.aliased).await?;
            what = format!("@{alias} is put back as it was");
        }
        let noted = self.note(State::Undone).await;
        let failure = Failure { message: format!("{}; {what}", failure.message), ..failure };
        Ok(match noted {
            Ok(()) => failure,
            Err(_) => Failure {
                message: format!("{} (the version keeps the tag {} of this try)", failure.message, self.record.key()),
                ..failure
            },
        })
    }

    /// The alias is set, the stage is not, and the alias could not be put back.
    fn half_done(&mut self, failure: &Failure, back: &Failure) -> (Ended, Option<Standing>) {
        let (model, to, version) = (self.model().to_owned(), self.plan.to.clone(), self.version());
        let alias = to.alias.as_deref().unwrap_or_default();
        let stage = to.stage.map_or("its stage", |stage| stage.word());
        self.said.push(format!(
            "@{alias} names version {version}, which was not put into {stage}: {}. Putting @{alias} back failed: {}. The \
             next `mlops promote` or `mlops rollback` of {model} does it",
            failure.message, back.message
        ));
        (Ended::Open, None)
    }

    fn open(&mut self, failure: &Failure) -> (Ended, Option<Standing>) {
        let model = self.model().to_owned();
        self.said.push(format!(
            "whether it is done, or will be, is not known: {}. The next `mlops promote` or `mlops rollback` of {model} \
             finds out, and finishes or undoes it; `mlops models show` shows what is there",
            failure.message
        ));
        (Ended::Open, None)
    }

    /// Reads back, and puts right what a client without a lock did in the same moment.
    async fn read_back(&mut self) -> Outcome<(Ended, Option<Standing>)> {
        let (to, version, model) = (self.plan.to.clone(), self.version(), self.model().to_owned());
        let mut standing = match self.look().await {
            Ok(standing) => standing,
            Err(failure) => return Ok(self.open(&failure)),
        };
        for _ in 0..REPAIRS {
            if standing.is(&to, version) {
                break;
            }
            let alone = to.alias.is_none() || standing.aliased == Some(version);
            let others: Vec<String> = standing.staged.iter().filter(|v| **v != version).map(u64::to_string).collect();
            let replaced = !standing.staged.contains(&version) && !others.is_empty();
            let Some(stage) = to.stage.filter(|_| to.archives() && alone && !replaced) else { break };
            let what = match others.as_slice() {
                [] => format!("another client took version {version} out of {} in the same moment", stage.word()),
                others => format!(
                    "another client put version {} into {} in the same moment",
                    others.join(" and "),
                    stage.word()
                ),
            };
            let reply = self.client.transition(&model, version, stage.word(), true).await;
            match became(self.client, &model, reply, |r| r.in_stage(stage).iter().eq([&version])).await {
                Sent::Done => self.said.push(format!("{what}: version {version} was put there again, alone")),
                Sent::Not(failure) | Sent::Unknown(failure) => {
                    self.said.push(format!("{what}, and putting that right failed: {}", failure.message));
                    break;
                }
            }
            standing = match self.look().await {
                Ok(standing) => standing,
                Err(failure) => return Ok(self.open(&failure)),
            };
        }
        if standing.is(&to, version) {
            let complete = self.record_done().await;
            return Ok((if complete { Ended::Done } else { Ended::Unrecorded }, Some(standing)));
        }
        Ok(self.overtaken(standing).await)
    }

    async fn look(&self) -> Outcome<Standing> {
        let registered = match read::look(self.client, self.model()).await {
            // A second look for a single lost answer.
            Err(trouble) if trouble.fault.leaves_open() => read::look(self.client, self.model()).await?,
            other => other?,
        };
        Ok(registered.map(|registered| registered.standing(&self.plan.to)).unwrap_or_default())
    }

    /// Tells the versions what happened to them; whether all were told.
    async fn record_done(&mut self) -> bool {
        let mut complete = true;
        if let Err(failure) = self.note(State::Done).await {
            self.said.push(format!(
                "it is done, but its record could not be completed: {}; the next promotion completes it",
                failure.message
            ));
            complete = false;
        }
        complete & leave(self.client, &self.record, &self.plan.replaced(), &mut self.said).await
    }

    /// Somebody else's change is what stands.
    async fn overtaken(&mut self, standing: Standing) -> (Ended, Option<Standing>) {
        let (model, version, to) = (self.model().to_owned(), self.version(), self.plan.to.clone());
        self.said.push(format!(
            "{model}: another client changed {to} in the same moment; version {version} was put there and is not there \
             alone now ({})",
            told(&standing)
        ));
        if let Err(failure) = self.note(State::Overtaken).await {
            self.said.push(format!("its record could not be completed: {}", failure.message));
        }
        (Ended::Overtaken, Some(standing))
    }
}

/// Stages are deprecated since MLflow 2.9, and the newest seen still has them.
fn stageless(mut trouble: Trouble) -> Trouble {
    if trouble.fault == Fault::NotFound {
        trouble.failure = trouble.failure.hint("if this MLflow has no stages any more: --mode alias");
    }
    trouble
}

/// What is said of a server that does not even take a tag.
fn unmarked(failure: Failure) -> Failure {
    let message = format!("the promotion could not be announced: {}; nothing was changed", failure.message);
    Failure { message, ..failure }
}

/// Leaves a version its part of a record, and looks whether it is there where the answer was lost.
pub(super) async fn tell(client: &Client, record: &Record, version: u64, text: &str) -> Reply<()> {
    let (model, key) = (&record.model, record.key());
    let reply = client.set_version_tag(model, version, &key, text).await;
    let trouble = match &reply {
        Err(trouble) if trouble.fault.leaves_open() => trouble.clone(),
        _ => return reply,
    };
    let told = |r: &Registered| r.version(version).and_then(|v| value(&v.tags, &key)) == Some(text);
    match became(client, model, reply, told).await {
        Sent::Done => Ok(()),
        Sent::Not(_) | Sent::Unknown(_) => Err(trouble),
    }
}

/// Points an alias back to whom it named before, if it still names the version that was put there.
pub(super) async fn put_back(
    client: &Client,
    model: &str,
    alias: &str,
    version: u64,
    before: Option<u64>,
) -> Outcome<()> {
    let registered = read::registered(client, model).await?;
    if registered.under(alias) != Some(version) || before == Some(version) {
        return Ok(());
    }
    // Whom it named may be deleted since.
    let before = before.filter(|before| registered.version(*before).is_some());
    let reply = match before {
        Some(before) => client.set_alias(model, alias, before).await,
        None => client.delete_alias(model, alias).await,
    };
    match became(client, model, reply, |r| r.under(alias) == before).await {
        Sent::Done => Ok(()),
        Sent::Not(failure) | Sent::Unknown(failure) => Err(failure),
    }
}

/// Tells versions that another one took their place; whether all were told.
pub(super) async fn leave(client: &Client, record: &Record, replaced: &[u64], said: &mut Vec<String>) -> bool {
    let told = Replaced {
        id: record.id.clone(),
        at: record.at,
        model: record.model.clone(),
        replaced_by: record.version,
        place: record.to.clone(),
        by: record.by.clone(),
    };
    let text = serde_json::to_string(&told).unwrap_or_default();
    let mut complete = true;
    for version in replaced {
        match tell(client, record, *version, &text).await {
            Ok(()) => {}
            // One that was deleted meanwhile needs no tag.
            Err(trouble) if trouble.is_absent() => {}
            Err(trouble) => {
                said.push(format!(
                    "version {version} could not be told who took its place: {}",
                    trouble.failure.message
                ));
                complete = false;
            }
        }
    }
    complete
}
