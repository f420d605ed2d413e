//! A deployment proved by one model: logged, registered, found, downloaded, moved, tagged, searched, deleted. Step by step,
//! as MLflow's client does it, and judged by what comes back.

mod logging;
pub mod model;
mod registering;
pub mod service;

use std::time::Duration;

use crate::artifact::Waiting;
use crate::backup::place::Ways;
use crate::domain::failure::{Failure, Kind, Outcome};
use crate::domain::health::settings::Probe;
use crate::domain::tracking::Pairs;
use crate::domain::verify::account::Account;
use crate::health;
use crate::mlflow::{Client, Reply};
use crate::verify::MARKER;
use crate::verify::markers::Markers;
use crate::verify::steps::{Seen, Steps};
use model::File;

/// The longest that a service is waited for.
const SERVICE: Duration = Duration::from_secs(10);

/// What is asked for.
pub struct Request {
    /// The name of the registered model.
    pub model: String,
    /// Whether all stays on the server.
    pub keep: bool,
    /// Other parts of the deployment.
    pub services: Vec<Probe>,
}

/// A deployment that is being verified.
struct Trial<'a> {
    ways: &'a Ways,
    client: &'a Client,
    waiting: Waiting,
    markers: &'a mut Markers,
    request: &'a Request,
    tags: Pairs,
    release: String,
}

/// What was logged, as far as it was: the old way, and on MLflow 3 the new one.
#[derive(Default)]
struct Logged {
    experiment: String,
    /// Empty: there is none.
    run: String,
    /// The model among the run's artifacts.
    old: Option<Uploaded>,
    /// The logged model: its id, and what is in it.
    new: Option<(String, Uploaded)>,
}

/// A model whose files are in the store.
#[derive(Clone)]
struct Uploaded {
    /// The address of its folder.
    address: String,
    files: Vec<File>,
}

/// That the model's name is free. Not to be called within the runtime.
///
/// # Errors
/// Refused: it is taken. Any fault of the server. Interrupted.
pub fn free(ways: &Ways, client: &Client, model: &str) -> Outcome<()> {
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    match waiting.on(client.registered_model(model))?.map_err(Failure::from)? {
        None => Ok(()),
        Some(_) => Err(Failure::refused(format!("the registered model {model} is there already"))
            .hint("--model takes a name that is free: what is made under it is removed again")),
    }
}

/// Verifies, into the account. Not to be called within the runtime.
///
/// # Errors
/// Refused: the model's name is taken. Interrupted. Whatever else goes wrong stands in the account.
pub fn verify(
    ways: &Ways,
    client: &Client,
    markers: &mut Markers,
    request: &Request,
    account: &mut Account,
) -> Outcome<()> {
    account.procedure = procedure(request);
    free(ways, client, &request.model)?;
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let tags = vec![(MARKER.to_owned(), markers.id().to_owned())];
    let mut steps = Steps::new(&ways.cancel);
    let mut trial = Trial { ways, client, waiting, markers, request, tags, release: String::new() };
    let outcome = trial.all(&mut steps);
    let Steps { done, findings, away, .. } = steps;
    account.steps = done;
    account.findings = findings;
    // A server that answers now was there, and what failed is its fault.
    if let Some(why) = away
        && ways.runtime.block_on(client.within(SERVICE).live()).is_err()
    {
        account.away = Some(why);
    }
    outcome
}

/// What is done, in sentences.
pub fn procedure(request: &Request) -> Vec<String> {
    let mut told = vec![
        format!("An experiment and a run are made, with the tag `{MARKER}`; a metric, a param and a tag are logged and read back."),
        "A model made by this program - a python function without a pickle, with signature, input example and metadata - is \
         uploaded among the run's artifacts, and on MLflow 3 as a logged model, by the way that the server names."
            .to_owned(),
        format!("Both become versions of the registered model `{}`.", request.model),
        "The versions are found by name, number, alias, run and id, and by searches; their files are downloaded and compared \
         with what was uploaded, byte by byte, from their store and through the server."
            .to_owned(),
        "A version is moved between stages and tagged, and read back.".to_owned(),
    ];
    if !request.keep {
        told.push("Versions and model are deleted, and looked for; then all else that was made is removed.".to_owned());
    }
    if !request.services.is_empty() {
        told.push(
            "Other parts of the deployment are asked over HTTP, and conditions on their answers are judged.".to_owned(),
        );
    }
    told
}

/// A step that passed.
fn right<T>(value: T, evidence: impl Into<String>) -> Outcome<Seen<T>> {
    Ok(Seen::Right(value, evidence.into()))
}

/// What has to be so.
fn must(holds: bool, wrong: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(Failure::differs(wrong())) }
}

impl Trial<'_> {
    /// A call.
    fn call<T>(&self, work: impl Future<Output = Reply<T>>) -> Outcome<T> {
        Ok(self.waiting.on(work)??)
    }

    /// Whether the release has logged models.
    fn is_new(&self) -> bool {
        self.release.split('.').next().and_then(|n| n.parse::<u32>().ok()).is_some_and(|major| major >= 3)
    }

    fn all(&mut self, steps: &mut Steps) -> Outcome<()> {
        let release = steps.step("server", &[], || {
            let release = self.call(self.client.version())?;
            let took = release.exchange.took.as_secs_f64() * 1e3;
            right(release.value.clone(), format!("MLflow {} answers in {took:.0} ms", release.value))
        })?;
        self.release = release.unwrap_or_default();
        let logged = self.log(steps)?;
        self.register(steps, &logged)?;
        for probe in &self.request.services {
            let connection = self.client.connection();
            let (system, own) = (connection.system_roots.clone(), connection.ca_file.clone());
            steps.step(&format!("service {}", probe.name), &[], || {
                let told = self.waiting.on(health::ask(probe, system, own, SERVICE))?;
                told.map_or_else(|why| Err(Failure::new(Kind::Differs, why)), |said| right((), said))
            })?;
        }
        Ok(())
    }
}
