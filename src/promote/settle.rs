//! Promotions that were cut off: each is finished in its record, or undone, by what the registry shows.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::read;
use super::switch::{leave, put_back, tell, told};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::promotion::place::{Registered, Standing};
use crate::domain::promotion::record::{Record, State};
use crate::mlflow::Client;

/// How long one that may still be under way on another machine is left alone, in seconds.
const UNDER_WAY: i64 = 60;

/// One that was cut off, and what became of it.
#[derive(Debug)]
pub struct Settled {
    /// Its record, with its end.
    pub record: Record,
    /// For people.
    pub said: String,
}

/// Those that were begun, and whose end nobody told.
///
/// # Errors
/// Source: there is no such model. Any fault of the server.
pub async fn open(client: &Client, model: &str, log: &[Record]) -> Outcome<Vec<Record>> {
    Ok(begun(&read::registered(client, model).await?, log))
}

/// Those whose tag does not tell their end. Where our log knows it, the tag could not be written, and others would judge by
/// what the registry shows much later.
fn begun(registered: &Registered, log: &[Record]) -> Vec<Record> {
    let tags = Record::of_tags(&registered.versions).into_iter().filter(|record| record.state == State::Begun);
    let ended = |id: &str| log.iter().rfind(|known| known.id == id && known.state != State::Begun).cloned();
    let mut begun: Vec<Record> = tags.map(|record| ended(&record.id).unwrap_or(record)).collect();
    begun.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    begun
}

/// Ends them. The caller holds the lock; `shared`: one that keeps away other machines, too. `by`: who we are.
///
/// # Errors
/// Locked: one may be under way on another machine. Else any fault of the server.
pub async fn settle(client: &Client, model: &str, log: &[Record], shared: bool, by: &str) -> Outcome<Vec<Settled>> {
    let host = |by: &str| by.rsplit_once('@').map(|(_, host)| host.to_owned());
    let mut settled = Vec::new();
    for record in begun(&read::registered(client, model).await?, log) {
        let recent = Timestamp::now().duration_since(record.at).as_secs() < UNDER_WAY;
        if record.state == State::Begun && recent && !shared && host(&record.by) != host(by) {
            return Err(Failure::locked(format!(
                "{model}: {} puts version {} into {} right now, or was cut off less than a minute ago",
                record.by, record.version, record.to
            ))
            .hint("wait a minute; with --backend-store-uri one lock keeps all machines apart"));
        }
        settled.push(end(client, record).await?);
    }
    Ok(settled)
}

async fn end(client: &Client, mut record: Record) -> Outcome<Settled> {
    // What is there now, after those that were ended before this one.
    let registered = read::registered(client, &record.model).await?;
    let standing = registered.standing(&record.to);
    let called = format!("the {} {} of version {} to {}", record.action.word(), record.id, record.version, record.to);
    let mut said = Vec::new();
    let known = record.state != State::Begun;
    let what = if known {
        "had not left its end with the version: its record is complete now".to_owned()
    } else if standing.is(&record.to, record.version) {
        record.state = State::Done;
        "was cut off after its switch, which is done: its record is complete now".to_owned()
    } else {
        record.state = State::Undone;
        let staged = if record.to.archives() { standing.staged.clone() } else { BTreeSet::new() };
        let changed = Standing { staged, aliased: standing.aliased } != record.before;
        match &record.to.alias {
            Some(alias) if standing.aliased == Some(record.version) && record.before.aliased != standing.aliased => {
                put_back(client, &record.model, alias, record.version, record.before.aliased).await?;
                format!("was cut off in the middle: @{alias} is put back as it was")
            }
            _ if changed => {
                record.state = State::Overtaken;
                format!(
                    "was cut off, and another client changed {} ({}): whether it came first is not known",
                    record.to,
                    told(&standing)
                )
            }
            _ => "was cut off before its switch: nothing was changed".to_owned(),
        }
    };
    if record.state == State::Done {
        let staged = record.before.staged.iter().filter(|_| record.to.archives());
        let replaced: Vec<u64> =
            staged.copied().chain(record.before.aliased).filter(|v| *v != record.version).collect();
        leave(client, &record, &replaced, &mut said).await;
    }
    tell(client, &record, record.version, &record.tag()).await?;
    said.insert(0, format!("{called} {what}"));
    Ok(Settled { record, said: said.join("; ") })
}
