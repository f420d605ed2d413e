//! The layer *server*: does it live, does it reach its database, how fast, with which clock and certificate.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::count::counted;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::health::{Bound, Limits, Reading, Unit};
use crate::domain::server::Connection;
use crate::domain::tracking::View;
use crate::mlflow::fault::{Fault, Trouble};
use crate::mlflow::{Answer, Bounds, Client, Exchange, Runs, certificate};

use super::Stack;

/// A server's `/health` reads nothing: who is silent for so long hangs.
const LIVE: Duration = Duration::from_secs(10);
/// Experiments in the search that shows whether the database is reached: what MLflow's own page shows at once.
const EXPERIMENTS: u32 = 100;
/// Points of a history that is read for its time.
const POINTS: u32 = 1_000;
/// Experiments in which a run with metrics is looked for.
const LOOKED_AT: usize = 20;
/// A certificate that ends sooner than this is a warning, sooner than that critical, where nothing else is configured.
const EXPIRES_SOON: f64 = 14.0 * 86_400.0;
const EXPIRES_NOW: f64 = 3.0 * 86_400.0;
/// A clock that is off by more makes ages wrong; beyond 15 minutes S3 refuses signatures ("RequestTimeTooSkewed").
const CLOCK_OFF: f64 = 60.0;
const CLOCK_WRONG: f64 = 600.0;

/// Looks at the server.
pub(super) async fn look(stack: Arc<Stack>) {
    let Some((connection, client)) = &stack.server else { return };
    tokio::join!(
        live(&stack, client),
        version(&stack, client),
        search(&stack, client),
        expiry(&stack, connection),
        history(&stack, client),
    );
}

/// What a fault of the server means for the check that met it.
pub(super) fn broken(id: &str, trouble: &Trouble) -> Reading {
    let reading = Reading::critical(id, trouble.failure.message.clone());
    let reading = match &trouble.fault {
        Fault::Connect => reading.cause("the server does not run, or is not reached under this address"),
        Fault::Timeout => reading.cause("the server hangs, or something between here and there does"),
        _ => reading,
    };
    match &trouble.failure.hint {
        Some(hint) => reading.hint(hint.clone()),
        None => reading,
    }
}

/// What a fault means for a check that only wanted a number.
pub(super) fn unmeasured(id: &str, trouble: &Trouble) -> Reading {
    let reading = Reading::unknown(id, trouble.failure.message.clone());
    match &trouble.failure.hint {
        Some(hint) => reading.hint(hint.clone()),
        None => reading,
    }
}

/// A reading of a setting that means nothing. Settings are checked when they are read, so this is for the reader of a
/// defect.
pub(super) fn unset(id: &str, failure: &Failure) -> Reading {
    Reading::unknown(id, failure.message.clone())
}

async fn live(stack: &Stack, client: &Client) {
    let asked = Timestamp::now();
    match client.within(stack.patience(LIVE)).live().await {
        Ok(Answer { exchange, .. }) => {
            let took = exchange.took.as_secs_f64();
            stack.tell(timed(stack, "server.live", took, "/health answers (it says nothing of the database)"));
            stack.tell(clock(stack, asked, &exchange));
        }
        Err(trouble) => {
            stack.tell(broken("server.live", &trouble));
            stack.tell(Reading::unknown("server.clock", "the server told no time"));
        }
    }
}

/// A duration, judged by the limits that are configured.
fn timed(stack: &Stack, id: &str, seconds: f64, what: impl Into<String>) -> Reading {
    match stack.at_most(id, Unit::Seconds) {
        Ok(limits) => Reading::measured(id, seconds, Unit::Seconds, limits, what),
        Err(failure) => unset(id, &failure),
    }
}

fn clock(stack: &Stack, asked: Timestamp, exchange: &Exchange) -> Reading {
    let id = "server.clock";
    let Some(date) = exchange.date else { return Reading::ok(id, "the server's answers carry no time") };
    let halfway = SignedDuration::try_from(exchange.took / 2).unwrap_or_default();
    // The header counts whole seconds, cut off, and uvicorn makes it anew once a second: it is up to two seconds old.
    let told = date + SignedDuration::from_secs(1);
    let off = told.duration_since(asked + halfway).as_secs_f64();
    // Below what the header and the way there can tell, nothing is known.
    let seen = if off.abs() <= 1.0 + exchange.took.as_secs_f64() { 0.0 } else { off.abs() };
    let limits = or_else(stack.at_most(id, Unit::Seconds), CLOCK_OFF, CLOCK_WRONG, Bound::AtMost);
    let what = match seen {
        0.0 => "the server's clock agrees with this machine's".to_owned(),
        _ if off > 0.0 => "the server's clock is ahead of this machine's".to_owned(),
        _ => "the server's clock is behind this machine's".to_owned(),
    };
    match limits {
        Ok(limits) => Reading::measured(id, seen, Unit::Seconds, limits, what)
            .hint("compare both with `timedatectl status`; one of them needs NTP"),
        Err(failure) => unset(id, &failure),
    }
}

/// The configured limits, or these.
fn or_else(configured: Outcome<Limits>, warning: f64, critical: f64, bound: fn(f64) -> Bound) -> Outcome<Limits> {
    let configured = configured?;
    if configured != Limits::default() {
        return Ok(configured);
    }
    Ok(Limits { warning: Some(bound(warning)), critical: Some(bound(critical)) })
}

async fn version(stack: &Stack, client: &Client) {
    let id = "server.version";
    if !stack.wants(id) {
        return;
    }
    match client.within(stack.patience(LIVE)).version().await {
        Ok(answer) => {
            let _ = stack.release.set(answer.value.clone());
            stack.tell(Reading::ok(id, format!("MLflow {}", answer.value)));
        }
        // basic-auth asks for a password here as well, so who is refused in a search is refused here.
        Err(trouble) => stack.tell(unmeasured(id, &trouble).needs("server.ready")),
    }
}

/// The search that reaches the database. Its bound is the time of the whole run: a slow server is not a broken one.
async fn search(stack: &Stack, client: &Client) {
    let (ready, latency) = ("server.ready", "server.search-latency");
    let mut pages = client.within(stack.patience(Duration::MAX)).experiments("", View::Active, EXPERIMENTS);
    match pages.next().await {
        Ok(page) => {
            let page = page.unwrap_or_default();
            let found = page.len();
            let _ = stack.shown.set(page);
            stack.tell(Reading::ok(
                ready,
                format!("a search answers ({} on the first page)", counted(found, "experiment")),
            ));
            let took = pages.exchange().map_or(0.0, |e| e.took.as_secs_f64());
            stack.tell(timed(stack, latency, took, format!("a search for {}", counted(found, "experiment"))));
        }
        Err(trouble) => {
            let reading = broken(ready, &trouble);
            stack.tell(match trouble.fault {
                Fault::Timeout | Fault::Server(_) => reading
                    .cause("the server lives and cannot answer: its database is down, hangs, or is locked")
                    .hint(if stack.database.is_some() {
                        "look at database.blocked and database.longest-transaction here, and at the server's log"
                    } else {
                        "give --backend-store-uri to look at the database itself; the server's log says more"
                    }),
                _ => reading,
            });
            stack.tell(unmeasured(latency, &trouble));
        }
    }
}

async fn expiry(stack: &Stack, connection: &Connection) {
    let id = "server.certificate";
    if !stack.wants(id) {
        return;
    }
    let bound = stack.patience(LIVE);
    let shown = certificate(connection, Bounds { connect: bound, call: bound }).await;
    let configured = stack.look.settings.judgement(id).map_or(Ok(Limits::default()), |j| j.at_least(Unit::Seconds));
    stack.tell(match (shown, or_else(configured, EXPIRES_SOON, EXPIRES_NOW, Bound::AtLeast)) {
        (Ok(Some(certificate)), Ok(limits)) => {
            let left = certificate.not_after.duration_since(stack.look.now).as_secs_f64();
            let when = certificate.not_after.strftime("%Y-%m-%d");
            let what = if left < 0.0 {
                format!("the certificate of {} expired on {when}", certificate.subject)
            } else {
                format!("the certificate of {} is valid until {when}", certificate.subject)
            };
            Reading::measured(id, left, Unit::Seconds, limits, what).hint("have it renewed, and the proxy reloaded")
        }
        (Ok(None), _) => Reading::ok(id, "no TLS"),
        (Err(trouble), _) => unmeasured(id, &trouble),
        (_, Err(failure)) => unset(id, &failure),
    });
}

/// The time of a history, of a run that has one.
async fn history(stack: &Stack, client: &Client) {
    let id = "server.history-latency";
    if !stack.wants(id) {
        return;
    }
    let client = client.within(stack.patience(Duration::MAX));
    stack.tell(match a_history(&client).await {
        Ok(Some((took, points))) => timed(stack, id, took, format!("a history of {}", counted(points, "point"))),
        Ok(None) => Reading::ok(id, "none of the experiments looked at has a run with metrics"),
        Err(trouble) => unmeasured(id, &trouble),
    });
}

async fn a_history(client: &Client) -> Result<Option<(f64, usize)>, Trouble> {
    let experiments = client.experiments("", View::Active, EXPERIMENTS).next().await?.unwrap_or_default();
    let ids: Vec<String> = experiments.into_iter().map(|e| e.id).take(LOOKED_AT).collect();
    let runs = Runs { experiments: &ids, filter: "", view: View::Active, order_by: &[], page: 10 };
    let runs = client.runs(&runs).next().await?.unwrap_or_default();
    let Some((run, key)) = runs.iter().find_map(|r| Some((r.id.clone(), r.metrics.first()?.0.clone()))) else {
        return Ok(None);
    };
    let mut pages = client.metric_history(&run, &key, POINTS);
    let points = pages.next().await?.map_or(0, |p| p.len());
    Ok(pages.exchange().map(|e| (e.took.as_secs_f64(), points)))
}
