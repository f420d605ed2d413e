//! Promotions that were cut off: each is finished in its record, or undone, by what the registry shows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::read;
use super::switch::{leave, put_back, tell, told};
use crate::domain::failure::{Failure, Outcome};
use crate::domain::promotion::place::{Registered, Standing};
use crate::domain::promotion::record::{Record, State};
use crate::mlflow::Client;

/// How long one that somebody else began may still be under way.
const UNDER_WAY: Duration = Duration::from_secs(60);
/// How long after its beginning the last call of one that was killed may still be on its way through the server.
const IN_FLIGHT: Duration = Duration::from_secs(5);
/// Milliseconds within which a server may still have done what was given up.
const LATE: i64 = 600_000;
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(500);

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

/// Those whose tag does not tell their end, and those that were thought undone and came after all. Where our log knows
/// the end, the tag could not be written, and others would judge by what the registry shows much later.
fn begun(registered: &Registered, log: &[Record]) -> Vec<Record> {
    let mut tags = Record::of_tags(&registered.versions);
    tags.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    let ended = |id: &str| log.iter().rfind(|known| known.id == id && known.state != State::Begun).cloned();
    let came = |record: &Record| {
        let standing = registered.standing(&record.to);
        let newest = tags.iter().rfind(|other| other.to == record.to).is_some_and(|other| other.id == record.id);
        // What came much later was somebody else's doing. An alias has no time: what was seen soon came soon.
        let moved = registered.version(record.version).and_then(|v| v.updated).filter(|_| record.to.stage.is_some());
        let at = moved.unwrap_or_else(|| Timestamp::now().as_millisecond());
        let soon = (at - record.at.as_millisecond()).abs() < LATE;
        newest && soon && standing.is(&record.to, record.version) && !record.before.touches(record.version)
    };
    let open = tags.iter().filter(|record| match record.state {
        State::Begun => true,
        State::Undone => came(record),
        State::Done | State::Overtaken => false,
    });
    let known = |record: &Record| match record.state {
        State::Begun => ended(&record.id).unwrap_or_else(|| record.clone()),
        _ => Record { state: State::Begun, ..record.clone() },
    };
    open.map(known).collect()
}

/// Ends them. The caller holds `locks`: who held one of them is gone.
///
/// # Errors
/// Locked: one may be under way. Else any fault of the server.
pub async fn settle(client: &Client, model: &str, log: &[Record], locks: &str) -> Outcome<Vec<Settled>> {
    let mut settled = Vec::new();
    for record in begun(&read::registered(client, model).await?, log) {
        let age = Timestamp::now().duration_since(record.at).unsigned_abs();
        let ours = record.lock.split(' ').any(|lock| !lock.is_empty() && locks.split(' ').any(|own| own == lock));
        if record.state == State::Begun && !ours && age < UNDER_WAY {
            return Err(Failure::locked(format!(
                "{model}: {} puts version {} into {} right now, or was cut off less than a minute ago",
                record.by, record.version, record.to
            ))
            .hint("wait a minute; with --backend-store-uri of a PostgreSQL one lock keeps all machines apart"));
        }
        if record.state == State::Begun && age < IN_FLIGHT {
            arrive(client, &record, IN_FLIGHT - age).await?;
        }
        settled.push(end(client, record).await?);
    }
    Ok(settled)
}

/// Waits for the last call of one that was killed.
async fn arrive(client: &Client, record: &Record, most: Duration) -> Outcome<()> {
    let end = Instant::now() + most;
    while Instant::now() < end {
        let registered = read::registered(client, &record.model).await?;
        if registered.standing(&record.to).is(&record.to, record.version) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
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
