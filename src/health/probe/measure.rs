//! One probe's question and what came back, before it is judged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use serde_json::Value;

use crate::domain::address::StoreAddress;
use crate::domain::condition::json_path;
use crate::domain::harmless;
use crate::domain::health::settings::Probe;
use crate::domain::health::{Reading, Status};
use crate::engine::cancel::Cancel;
use crate::health::Stack;
use crate::shell;
use crate::store::postgres::cell;
use crate::store::postgres::connect::Postgres;
use crate::tls;

/// No answer that a number is looked for in is larger.
const MOST: usize = 4 << 20;
/// The longest that one probe is waited for.
const LONGEST: Duration = Duration::from_secs(10);

/// What came back.
pub(super) struct Seen {
    /// The time of the answer.
    pub(super) took: Duration,
    /// The number, where there is one.
    pub(super) number: Option<f64>,
    /// What was seen, in a few words.
    pub(super) said: String,
    /// The answer, where it is JSON.
    pub(super) document: Option<Value>,
}

/// What is known of the way to others.
#[derive(Clone, Default)]
pub(super) struct Roots {
    system: Option<PathBuf>,
    own: Option<PathBuf>,
}

impl Roots {
    /// These files.
    pub(super) fn new(system: Option<PathBuf>, own: Option<PathBuf>) -> Roots {
        Roots { system, own }
    }

    /// Whom the stack's own server is believed by, others are as well.
    pub(super) fn of(stack: &Stack) -> Roots {
        stack.server.as_ref().map_or_else(Roots::default, |(connection, _)| Roots {
            system: connection.system_roots.clone(),
            own: connection.ca_file.clone(),
        })
    }
}

/// Asks. `Err`: what is told in the place of a value.
pub(super) async fn measure(stack: &Stack, probe: &Probe) -> Result<Option<Seen>, Reading> {
    let within = stack.patience(LONGEST);
    let id = super::id(probe);
    let broken = |what: String| Reading::new(id.clone(), probe.level.status(), what);
    if let Some(url) = &probe.url {
        return within_time(probe, url, Roots::of(stack), within).await.map(Some).map_err(broken);
    }
    if let Some(address) = &probe.tcp {
        let begun = Instant::now();
        return match tokio::time::timeout(within, tokio::net::TcpStream::connect(address.as_str())).await {
            Ok(Ok(_)) => {
                let took = begun.elapsed();
                let said = format!("{address} takes a connection in {}", milliseconds(took));
                Ok(Some(Seen { took, number: None, said, document: None }))
            }
            Ok(Err(e)) => Err(broken(format!("{address} takes no connection: {e}"))),
            Err(_) => Err(broken(format!("{address} takes no connection within {:.1} s", within.as_secs_f64()))),
        };
    }
    if let Some(query) = &probe.query {
        return ask_database(stack, probe, query, within).await.map(Some);
    }
    if let Some(command) = &probe.command {
        return run(command, within, &stack.look.cancel).await.map(Some).map_err(broken);
    }
    Ok(None)
}

pub(super) fn milliseconds(took: Duration) -> String {
    match took.as_secs_f64() {
        s if s < 0.0095 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// The causes of an error, without the address: it may hold a password.
fn words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = inner.source();
    }
    words
}

async fn within_time(probe: &Probe, url: &str, roots: Roots, within: Duration) -> Result<Seen, String> {
    let late = |_| Err(format!("no answer within {:.1} s", within.as_secs_f64()));
    tokio::time::timeout(within, fetch(probe, url, roots)).await.unwrap_or_else(late)
}

/// What a probe over HTTP gets.
pub(super) async fn fetched(probe: &Probe, roots: Roots, within: Duration) -> Result<Seen, String> {
    let url = probe.url.as_deref().ok_or_else(|| "there is no address to ask".to_owned())?;
    within_time(probe, url, roots, within).await
}

async fn fetch(probe: &Probe, url: &str, roots: Roots) -> Result<Seen, String> {
    let tls = tls::client(roots.system.as_deref(), roots.own.as_deref()).map_err(|f| f.message)?;
    let redirects = probe.status.is_some_and(|s| (300..=399).contains(&s));
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .user_agent(concat!("mlops/", env!("CARGO_PKG_VERSION")))
        .redirect(if redirects { Policy::none() } else { Policy::limited(5) })
        .build()
        .map_err(words)?;
    let begun = Instant::now();
    let mut response = http.get(url).send().await.map_err(|e| format!("no answer: {}", words(e)))?;
    let status = response.status().as_u16();
    let wanted = probe.status.map_or((200..=299).contains(&status), |wanted| wanted == status);
    if !wanted {
        let wanted = probe.status.map_or("200 to 299".to_owned(), |s| s.to_string());
        return Err(format!("HTTP {status}, where {wanted} is expected"));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| format!("the answer breaks off: {}", words(e)))? {
        if body.len() + chunk.len() > MOST {
            return Err(format!("the answer is larger than {} MiB", MOST >> 20));
        }
        body.extend_from_slice(&chunk);
    }
    let took = begun.elapsed();
    let mut seen =
        Seen { took, number: None, said: format!("HTTP {status} in {}", milliseconds(took)), document: None };
    if probe.value.is_some() || !probe.expect.is_empty() || !probe.alarm.is_empty() {
        let document = serde_json::from_slice(&body).ok();
        if document.is_none() && (probe.value.is_some() || speaks_of_paths(probe)) {
            return Err(format!("{}, and the answer is no JSON", seen.said));
        }
        seen.document = document;
    }
    if let (Some(value), Some(document)) = (&probe.value, &seen.document) {
        let found = json_path(value).ok().and_then(|path| path.find(document));
        seen.number = found.and_then(number);
        if seen.number.is_none() {
            let is = found.map_or("is not in the answer".to_owned(), |v| format!("is no number but {}", kind(v)));
            return Err(format!("{}, and {value} {is}", seen.said));
        }
    }
    Ok(seen)
}

fn speaks_of_paths(probe: &Probe) -> bool {
    use crate::domain::condition::{Condition, Operand};
    let conditions = probe.expect.iter().chain(&probe.alarm).filter_map(|text| Condition::parse(text).ok());
    conditions.into_iter().any(|c| c.operands().iter().any(|o| matches!(o, Operand::Path(_))))
}

/// A number, also one in quotes; a truth as 0 or 1.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

async fn ask_database(stack: &Stack, probe: &Probe, query: &str, within: Duration) -> Result<Seen, Reading> {
    let id = super::id(probe);
    let own = stack.look.settings.databases.get(&probe.name);
    let address = match own.or(stack.database.as_ref()) {
        Some(StoreAddress::Postgres(address)) => address.clone(),
        _ => {
            let reading = Reading::unknown(id, "there is no PostgreSQL to ask: the backend database is none");
            return Err(reading.hint("give the probe a `database`"));
        }
    };
    let broken = |status: Status, what: String| {
        let reading = Reading::new(id.clone(), status, what);
        if own.is_none() { reading.needs("database.connect") } else { reading }
    };
    let (run, cancel, query) = (stack.look.id.clone(), stack.look.cancel.clone(), query.to_owned());
    let asked = tokio::task::spawn_blocking(move || {
        // The driver must not be called on a thread that runs asynchronous work.
        let begun = Instant::now();
        let database = Postgres::new(&address, &run, &cancel)?;
        cell::first(&database, &query, within).map(|cell| (cell, begun.elapsed()))
    });
    // The server's own bound is the same; a server that hangs does not keep to it.
    let level = probe.level.status();
    let late = || broken(level, format!("no answer within {:.1} s", within.as_secs_f64()));
    match tokio::time::timeout(within, asked).await {
        Err(_) => Err(late()),
        Ok(Err(_)) => Err(broken(Status::Unknown, "the driver failed".to_owned())),
        Ok(Ok(Err(failure))) => {
            let reading = broken(level, failure.message);
            Err(match failure.hint {
                Some(hint) => reading.hint(hint),
                None => reading,
            })
        }
        Ok(Ok(Ok((None, _)))) => Err(broken(level, "the query gives no value: no row, or NULL".to_owned())),
        Ok(Ok(Ok((Some(text), took)))) => Ok(valued(&text, took)),
    }
}

async fn run(command: &str, within: Duration, cancel: &Cancel) -> Result<Seen, String> {
    let (command, cancel) = (command.to_owned(), cancel.clone());
    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(move || shell::run(&command, &[], within, &cancel))
        .await
        .map_err(|_| "the command could not be run".to_owned())??;
    let took = begun.elapsed();
    if !ended.status.success() {
        let last = ended.err.lines().rev().find(|l| !l.trim().is_empty()).map(|l| format!(": {}", clip(l)));
        let how = ended.status.code().map_or("it was ended by a signal".to_owned(), |code| format!("exit code {code}"));
        return Err(format!("{how}{}", last.unwrap_or_default()));
    }
    Ok(valued(ended.out.lines().next().unwrap_or_default(), took))
}

/// A word that is a number, or a truth as PostgreSQL writes it.
fn valued(text: &str, took: Duration) -> Seen {
    let text = text.trim();
    let number = match text {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => text.parse().ok(),
    };
    let said = if text.is_empty() { "nothing is said".to_owned() } else { clip(text) };
    Seen { took, number, said: format!("{said} ({})", milliseconds(took)), document: None }
}

fn clip(text: &str) -> String {
    let plain: String =
        harmless::masked(text.trim()).chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    plain
}
