//! Two moments side by side: what is wrong, what is ordinary work, and whether the server still runs on its database.

use std::collections::BTreeSet;

use crate::domain::failure::Outcome;
use crate::domain::verify::account::Finding;
use crate::domain::verify::fingerprint::{self, Change, Difference, Entity, Kind, Rules, What};
use crate::domain::verify::ledger::{self, Ledger};
use crate::engine::compare as rows;
use crate::engine::copy::{Work, digest};
use crate::mlflow::Client;

use super::ledger::Reading;
use super::snapshot::Snapshot;

/// Things that are named, of each kind of finding; the rest is counted.
const NAMED: u64 = 20;
/// Changes of one thing that are told.
const CHANGES: usize = 5;
/// Lost things that the server is asked for once more, one by one: what is deleted meanwhile shifts its pages.
const ASKED: u64 = 500;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Compared {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is new or went on, and should be known.
    pub noted: Vec<Finding>,
    /// Things of the earlier moment.
    pub compared: u64,
    /// Of those, the ones that are gone.
    pub lost: u64,
    /// And those that are others now.
    pub changed: u64,
    /// Those in which work went on.
    pub went_on: u64,
    /// Things that are new.
    pub new: u64,
    /// Whether anybody else worked there in between.
    pub others: bool,
    /// Whether not one experiment of before is there.
    pub nothing_left: bool,
}

/// What is lost comes back from a backup alone; whether it is a loss, people know.
const HINT: &str =
    "did people delete or change it in between? Else stop writing, and bring back a backup: mlops restore";

/// A finding, with what to do where something is lost or changed.
fn finding(id: impl Into<String>, object: impl Into<String>, what: impl Into<String>) -> Finding {
    let found = Finding::new(id, object, what);
    if found.id.starts_with("lost_") || found.id.starts_with("changed_") { found.hint(HINT) } else { found }
}

fn changes(changes: &[Change]) -> String {
    let mut told: Vec<String> = changes.iter().take(CHANGES).map(Change::shown).collect();
    if changes.len() > CHANGES {
        told.push(format!("and {} more", changes.len() - CHANGES));
    }
    told.join("; ")
}

/// Counts by kind, so that a thousand lost runs are one line after the first of them.
#[derive(Default)]
struct Tally(std::collections::BTreeMap<(bool, String), u64>);

impl Compared {
    /// In a line.
    pub(super) fn words(&self) -> String {
        format!(
            "{} things compared: {} lost, {} changed; work went on in {}, {} new",
            self.compared, self.lost, self.changed, self.went_on, self.new
        )
    }
}

impl Tally {
    fn count(&mut self, ordinary: bool, name: &str) -> u64 {
        let count = self.0.entry((ordinary, name.to_owned())).or_default();
        *count += 1;
        *count
    }
}

/// Compares two fingerprints.
///
/// # Errors
/// The server, or a file of ours, failed.
pub(super) async fn fingerprints(
    client: &Client,
    before: &Snapshot,
    after: &Snapshot,
    rules: Rules,
) -> Outcome<Compared> {
    let (mut out, mut tally, mut doubtful) = (Compared::default(), Tally::default(), Vec::new());
    let (mut experiments, mut lost_experiments) = (0_u64, 0_u64);
    let counted = before.things()?.inspect(|e| {
        experiments += u64::from(e.as_ref().is_ok_and(|e| e.kind == Kind::Experiment));
    });
    let mut tell = |out: &mut Compared, difference: Difference| {
        let Difference { entity, what, ordinary } = difference;
        let (verb, told) = match &what {
            What::Lost => {
                out.lost += 1;
                ("lost", "it was there, and is gone".to_owned())
            }
            What::Changed(all) => {
                *(if ordinary { &mut out.went_on } else { &mut out.changed }) += 1;
                ("changed", changes(all))
            }
            What::New => {
                out.new += 1;
                ("new", "it was not there before".to_owned())
            }
        };
        out.others |= ordinary;
        let name = format!("{verb}_{}", entity.kind.word());
        if tally.count(ordinary, &name) <= NAMED {
            let list = if ordinary { &mut out.noted } else { &mut out.findings };
            list.push(finding(name, entity.shown(), told));
        }
    };
    let compared = fingerprint::compare(counted, after.things()?, rules, |difference| {
        if difference.what == What::Lost && (doubtful.len() as u64) < ASKED {
            doubtful.push(difference.entity);
        } else {
            lost_experiments += u64::from(is_another_experiment(&difference));
            tell(&mut out, difference);
        }
        Ok(())
    })?;
    out.compared = compared;
    for entity in doubtful {
        let now = again(client, &entity).await?;
        if let Some(difference) = fingerprint::difference(Some(&entity), now.as_ref(), rules) {
            lost_experiments += u64::from(is_another_experiment(&difference));
            tell(&mut out, difference);
        }
    }
    out.nothing_left = experiments > 0 && lost_experiments == experiments;
    for ((ordinary, name), count) in tally.0.into_iter().filter(|(_, count)| *count > NAMED) {
        let list = if ordinary { &mut out.noted } else { &mut out.findings };
        list.push(finding(name, format!("{} more", count - NAMED), "as those that are named"));
    }
    Ok(out)
}

/// Whether an experiment of before is not there. Every store has one of the number 0, each with its own birthday.
fn is_another_experiment(difference: &Difference) -> bool {
    difference.entity.kind == Kind::Experiment
        && match &difference.what {
            What::Lost => true,
            What::Changed(changes) => changes.iter().any(|c| c.field == "info.creation_time" && c.before.is_some()),
            What::New => false,
        }
}

/// The thing as it is now, asked for by its name.
async fn again(client: &Client, entity: &Entity) -> Outcome<Option<Entity>> {
    Ok(match entity.kind {
        Kind::Experiment => client.experiment(&entity.id).await?.as_ref().map(Entity::of_experiment),
        Kind::Run => client.run(&entity.id).await?.as_ref().map(Entity::of_run),
        Kind::Model => client.registered_model(&entity.id).await?.as_ref().map(Entity::of_model),
        Kind::Version => match entity.id.rsplit_once('/').and_then(|(name, n)| Some((name, n.parse().ok()?))) {
            Some((name, number)) => client.model_version(name, number).await?.as_ref().map(Entity::of_version),
            None => None,
        },
        Kind::LoggedModel => client.logged_model(&entity.id).await?.as_ref().map(Entity::of_logged_model),
        Kind::History | Kind::Artifact => None,
    })
}

/// Compares two readings of a database. `others`: somebody else worked there, so that rows that are others now may be theirs.
///
/// # Errors
/// A private copy could not be read.
pub(super) fn databases(
    before: &Ledger,
    copy: Option<&Reading>,
    after: &Reading,
    rules: Rules,
    others: bool,
    work: &Work<'_>,
) -> Outcome<(Vec<Finding>, Vec<Finding>)> {
    let (mut findings, mut noted, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
    for divergence in ledger::compare(before, &after.ledger, rules) {
        let ledger::Divergence { kind, on, told } = divergence;
        // What ordinary work does to the rows of a table in which somebody is at work.
        let ordinary = |kind| {
            let grows = kind == ledger::NEW;
            !rules.frozen && (grows || others && kind == ledger::CHANGED && !ledger::written_once(&on))
        };
        let table = format!("table {on}");
        match kind {
            ledger::LOST | ledger::CHANGED | ledger::NEW => {
                if named.contains(&on) {
                    continue;
                }
                match by_row(copy, after, &on, work)? {
                    Some(rows) => {
                        for (kind, row) in rows {
                            let list = if ordinary(kind) { &mut noted } else { &mut findings };
                            list.push(finding(kind, table.clone(), row));
                        }
                        named.insert(on);
                    }
                    None if ordinary(kind) => noted.push(finding(kind, table, told)),
                    None => findings.push(finding(kind, table, told)),
                }
            }
            ledger::GONE => findings.push(finding(kind, table, told)),
            ledger::MOVED => noted.push(finding(kind, table, told)),
            _ => findings.push(finding(kind, on, told)),
        }
    }
    Ok((findings, noted))
}

/// The rows of a table that are not the same, where there is a copy of both moments.
fn by_row(
    before: Option<&Reading>,
    after: &Reading,
    table: &str,
    work: &Work<'_>,
) -> Outcome<Option<Vec<(&'static str, String)>>> {
    let (Some(before), Some(now)) = (before.and_then(|b| b.copy.as_ref()), after.copy.as_ref()) else {
        return Ok(None);
    };
    let of = |store: &crate::source::OpenStore| store.source.shapes().iter().find(|s| s.name == table).cloned();
    let (Some(shape), Some(other)) = (of(before), of(now)) else { return Ok(None) };
    if shape.columns != other.columns {
        return Ok(None);
    }
    let shapes = [shape];
    let read = |store: &crate::source::OpenStore| {
        let rows = crate::engine::copy::count(store.source.as_ref(), &shapes, work)?;
        digest(store.source.as_ref(), &shapes, &rows, work)
    };
    let (a, b) = (read(before)?, read(now)?);
    let verdicts = rows::verdicts(before.source.as_ref(), now.source.as_ref(), &shapes, &a, &b, work)?;
    let mut out = Vec::new();
    for verdict in verdicts {
        for difference in &verdict.differences {
            let key: Vec<String> = difference.key.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let key = key.join(", ");
            out.push(match &difference.what {
                rows::What::Missing => (ledger::LOST, format!("the row {key} is gone")),
                rows::What::Extra => (ledger::NEW, format!("the row {key} is new")),
                rows::What::Changed(cells) => {
                    let cells: Vec<String> = cells
                        .iter()
                        .take(CHANGES)
                        .map(|c| format!("{}: {} -> {}", c.column, c.source, c.target))
                        .collect();
                    (ledger::CHANGED, format!("the row {key}: {}", cells.join("; ")))
                }
            });
        }
        let told = verdict.differences.len() as u64;
        if verdict.differing_rows > told || !verdict.counted_all {
            let least = if verdict.counted_all { "" } else { "at least " };
            let worst = out
                .iter()
                .map(|(kind, _)| *kind)
                .min_by_key(|k| [ledger::LOST, ledger::CHANGED, ledger::NEW].iter().position(|w| w == k));
            out.push((worst.unwrap_or(ledger::CHANGED), format!("{least}{} rows more", verdict.differing_rows - told)));
        }
    }
    Ok(Some(out))
}
