//! The plan of a promotion: who goes where, who leaves, and what the gates say.

use jiff::Timestamp;

use super::{audit, gates, read};
use crate::domain::consent::{Confirmed, Consent};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::promotion::choice::{self, Which};
use crate::domain::promotion::gate::{self, Gate};
use crate::domain::promotion::history::Told;
use crate::domain::promotion::place::{Aliases, Mode, Place, Registered, Standing};
use crate::domain::promotion::record::{Action, Record, State};
use crate::domain::promotion::settings::Asked;
use crate::domain::tracking::ModelVersion;
use crate::engine::cancel::Cancel;
use crate::mlflow::Client;

/// What is wanted.
pub struct Request<'a> {
    /// The run's id.
    pub id: &'a str,
    /// The server, for people and for the log.
    pub server: &'a str,
    /// The model.
    pub model: &'a str,
    /// The version; `None`: back to the former champion.
    pub which: Option<Which>,
    /// Whether this is a way back.
    pub action: Action,
    /// Where to, where it was said.
    pub to: Option<&'a str>,
    /// How the champion is marked, where it was said.
    pub mode: Option<Mode>,
    /// What the aliases are called.
    pub aliases: &'a Aliases,
    /// What is asked of it.
    pub asked: &'a Asked,
    /// Who wants it: `user@host`.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Whether a verdict is wanted of a version that stands there already, too.
    pub verdict: bool,
    /// What the log of the state folder tells of this model.
    pub log: &'a [Record],
    /// The time.
    pub now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The run's id.
    pub id: String,
    /// What it is.
    pub action: Action,
    /// The server, for people.
    pub server: String,
    /// The version that is put in its place.
    pub challenger: ModelVersion,
    /// The place.
    pub to: Place,
    /// Who stands there.
    pub before: Standing,
    /// The champion that it follows there.
    pub former: Option<u64>,
    /// The version in production that it was judged beside.
    pub champion: Option<u64>,
    /// Where the version in production is today.
    pub champions: Place,
    /// Whether the place is one of champions, which a rollback goes back in.
    pub to_champions: bool,
    /// What was asked of it, and what came of it.
    pub gates: Vec<Gate>,
    /// Whether it stands there already, alone: there is nothing to do.
    pub already: bool,
    /// Who wants it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// What is to be known of it.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether every gate lets it through.
    pub fn passed(&self) -> bool {
        gate::passed(&self.gates)
    }

    /// The versions that leave the place for it.
    pub fn replaced(&self) -> Vec<u64> {
        let staged = self.before.staged.iter().copied().filter(|_| self.to.archives());
        let mut all: Vec<u64> = staged.chain(self.before.aliased).filter(|v| *v != self.challenger.version).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Asks for consent where a version loses its place; else there is nothing to ask.
    ///
    /// # Errors
    /// Refused: no.
    pub fn consent(&self, consent: &Consent<'_>) -> Outcome<Option<Confirmed>> {
        let replaced = self.replaced();
        if replaced.is_empty() {
            return Ok(None);
        }
        let replaced: Vec<String> = replaced.iter().map(u64::to_string).collect();
        let what = format!(
            "{} version {} takes the place of version {} in {}",
            self.challenger.name,
            self.challenger.version,
            replaced.join(" and "),
            self.to
        );
        consent.to(&what).map(Some)
    }

    /// What is kept of it.
    pub(super) fn record(&self, state: State) -> Record {
        // Of places that hold many only what changes counts.
        let staged = if self.to.archives() { self.before.staged.clone() } else { Default::default() };
        Record {
            id: self.id.clone(),
            at: Timestamp::now(),
            action: self.action,
            version: self.challenger.version,
            from: self.challenger.stage.clone(),
            to: self.to.clone(),
            former: self.former,
            before: Standing { staged, aliased: self.before.aliased },
            by: self.by.clone(),
            reason: self.reason.clone(),
            gates: self.gates.clone(),
            state,
            lock: String::new(),
            model: self.challenger.name.clone(),
            server: Some(self.server.clone()),
        }
    }
}

/// Reads the registry and judges. Nothing is changed; a command that is a gate is run.
///
/// # Errors
/// Source: the model or the version is not there. Usage: it is not clear what is meant. Any fault of the server.
pub async fn prepare(client: &Client, request: &Request<'_>, cancel: &Cancel) -> Outcome<Plan> {
    let registered = read::registered(client, request.model).await?;
    let (aliases, today) = (request.aliases, registered.mode(request.aliases));
    let to = choice::destination(request.to, request.mode, today, aliases)?;
    if request.action == Action::Rollback && !is_champions(&to, aliases) {
        return Err(Failure::usage(format!("{to} is no place of champions, which a rollback puts back"))
            .hint("`mlops promote --to` moves a version anywhere"));
    }
    let told = audit::told(&registered, request.log);
    let number = match &request.which {
        Some(which) => choice::version(which, &registered, request.mode, aliases)?,
        None => back(&registered, &told, &to)?,
    };
    let Some(challenger) = registered.version(number) else {
        return Err(Failure::source(format!("{} has no version {number} any more", request.model)));
    };
    let before = registered.standing(&to);
    let champions = Place::of_champion(request.mode.or(today).unwrap_or(Mode::Stage), aliases);
    let other = |place: &Place| {
        let standing = registered.standing(place);
        let others = standing.staged.iter().rev().copied();
        standing.aliased.into_iter().chain(others).find(|version| *version != number)
    };
    // Whoever is in production today is the one to beat, however he is marked, where nobody is in the place itself.
    let everywhere = Place::of_champion(Mode::Both, aliases);
    let there = Some(&to).filter(|to| is_champions(to, aliases)).and_then(other);
    let champion = there.or_else(|| other(&everywhere)).and_then(|version| registered.version(version));
    let nobody = if registered.standing(&everywhere).touches(number) {
        "it is the champion itself: there is nobody to compare with"
    } else {
        "there is no champion yet to compare with"
    };
    let already = before.is(&to, number);
    let mut gates = Vec::new();
    if !already || request.verdict {
        let records: Vec<Record> = told.iter().map(|one| one.record.clone()).collect();
        let (now, records) = (request.now, &records[..]);
        let trial =
            gates::Trial { client, registered: &registered, challenger, champion, records, nobody, now, cancel };
        gates = trial.judge(request.asked).await?;
        gates.extend(gates::stays(&registered, number, &to, &champions));
        if request.which == Some(Which::Challenger) {
            gates.extend(rolled_back(&told, number));
        }
    }
    Ok(Plan {
        id: request.id.to_owned(),
        action: request.action,
        server: request.server.to_owned(),
        former: other(&to).filter(|_| to.is_single()),
        champion: champion.map(|v| v.version),
        challenger: challenger.clone(),
        already,
        gates,
        by: request.by.to_owned(),
        reason: request.reason.map(str::to_owned),
        notes: notes(&registered, request, &told, number, &to),
        champions,
        to_champions: is_champions(&to, aliases),
        before,
        to,
    })
}

/// Whether it is a place of champions: challengers wait in others.
fn is_champions(to: &Place, aliases: &Aliases) -> bool {
    to.archives() || to.alias.as_ref().is_some_and(|alias| *alias != aliases.challenger)
}

/// The version that a rollback goes back to.
fn back(registered: &Registered, told: &[Told], to: &Place) -> Outcome<u64> {
    let model = &registered.model.name;
    let Some(champion) = registered.standing(to).champion() else {
        return Err(Failure::source(format!("{model}: no version is in {to}, so there is nothing to go back from"))
            .hint("`mlops promote` puts one there"));
    };
    let said = "--to-version N names it; `mlops models history` shows who was champion when";
    let Some(former) = crate::domain::promotion::history::former(told, champion, to) else {
        return Err(Failure::usage(format!(
            "{model}: which version was in {to} before version {champion} is not known: no promotion by mlops put it there \
             in the place of another"
        ))
        .hint(said));
    };
    if registered.version(former).is_none() {
        return Err(
            Failure::source(format!("{model}: version {former}, which was in {to} before, is deleted")).hint(said)
        );
    }
    Ok(former)
}

/// A champion that was rolled back from does not come again by itself.
fn rolled_back(told: &[Told], number: u64) -> Option<Gate> {
    let about = |record: &&Record| {
        record.state == State::Done
            && match record.action {
                Action::Promote => record.version == number && record.to.is_single(),
                Action::Rollback => record.former == Some(number),
            }
    };
    let last = told.iter().map(|one| &one.record).rfind(about).filter(|record| record.action == Action::Rollback)?;
    let at = last.at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let said = format!("it was rolled back from at {at}: --version {number} promotes it all the same");
    Some(Gate::new("rollback", "it was not rolled back from", Err(said)))
}

fn notes(registered: &Registered, request: &Request<'_>, told: &[Told], number: u64, to: &Place) -> Vec<String> {
    let (mut notes, aliases) = (Vec::new(), request.aliases);
    let known = |alias: &String| *alias == aliases.champion || *alias == aliases.challenger;
    if let Some(new) = to.alias.as_ref().filter(|alias| !known(alias) && registered.under(alias).is_none()) {
        notes.push(format!("no version has had the alias @{new}: it is a new one"));
    }
    let was = |one: &Told| one.record.state == State::Done && one.record.to.is_single() && one.record.version == number;
    let was_before = |one: &Told| one.record.former == Some(number) || one.record.before.touches(number);
    if request.action == Action::Rollback && !told.iter().any(|one| was(one) || was_before(one)) {
        notes.push(format!("no record tells that version {number} ever was champion"));
    }
    let both = registered.standing(&Place::of_champion(Mode::Both, aliases));
    if both.staged.len() > 1 {
        let listed: Vec<String> = both.staged.iter().map(u64::to_string).collect();
        notes.push(format!("{} versions are in Production: {}", listed.len(), listed.join(", ")));
    }
    let alias = &aliases.champion;
    if to.archives()
        && to.alias.is_none()
        && let Some(other) = both.aliased.filter(|other| *other != number)
    {
        notes.push(format!("@{alias} stays version {other}: --mode both moves it as well"));
    }
    if to.stage.is_none()
        && to.alias.as_ref() == Some(alias)
        && let Some(other) = both.staged.iter().find(|other| **other != number)
    {
        notes.push(format!("version {other} stays in Production: --mode both moves it as well"));
    }
    notes
}
