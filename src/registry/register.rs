//! A model of a run, a logged model or an address becomes a version of a registered model: once, whatever becomes of the
//! answer.

use std::time::{Duration, Instant};

use super::files::{self, Way};
use super::find;
use crate::artifact::Waiting;
use crate::backup::place::Ways;
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::signature::{FILE, MOST, MlModel};
use crate::domain::tracking::{LoggedModel, ModelVersion, PROMPT, Pairs, Run, value};
use crate::mlflow::fault::Trouble;
use crate::mlflow::{Client, Fault, NewVersion};

/// The tag that tells which run of this program made a version: the way to find it when the answer was lost.
pub const MARK: &str = "mlops.register";
/// The tag that says whether a version was validated.
pub const VALIDATION: &str = "validation_status";
/// Its value until somebody validates it.
pub const PENDING: &str = "pending";
/// How long a version is looked for after an answer that never came: the server may still be at it.
const LOOKED_FOR: Duration = Duration::from_secs(15);
/// The same after the server itself said that it failed: then it is done.
const SETTLED: Duration = Duration::from_secs(2);
/// How long it is waited for the version to be READY. MLflow's own store has it READY at once.
const READY: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// What a run has at a path: files, or on MLflow 3 a logged model of that name.
    Run {
        /// The run.
        id: String,
        /// The path.
        path: String,
    },
    /// A logged model.
    Logged(String),
    /// What is at an address.
    Source {
        /// The address.
        address: String,
        /// The run that made it, where it is named.
        run: Option<String>,
    },
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// This run's id.
    pub id: String,
    /// What is registered.
    pub material: Material,
    /// The registered model.
    pub model: String,
    /// The version's description; may be empty.
    pub description: String,
    /// Tags beside our own.
    pub tags: Pairs,
}

/// What will be told to the server.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The version's source.
    pub source: String,
    /// Its run; empty: none.
    pub run_id: String,
    /// Its logged model; empty: none.
    pub model_id: String,
    /// What it says of itself.
    pub mlmodel: MlModel,
}

/// A version that was made, or with `--dry-run` that would be.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The registered model.
    pub model: String,
    /// Whether it had to be made.
    pub new_model: bool,
    /// What was told to the server.
    pub origin: Origin,
    /// All its tags.
    pub tags: Pairs,
    /// The version; `None`: nothing was made.
    pub version: Option<ModelVersion>,
    /// What is to be known.
    pub warnings: Vec<String>,
}

/// Registers, or with `dry` finds out what would be.
///
/// # Errors
/// Source: there is no model in that place. Target: the server refuses, or the version never became READY. Unreachable:
/// the server failed, and whether it has the version is told.
pub fn register(ways: &Ways, client: &Client, request: &Request, dry: bool) -> Outcome<Registered> {
    let waiting = Waiting::new(ways.runtime.handle().clone(), ways.cancel.clone());
    let found =
        waiting.on(async { tokio::join!(look(client, &request.material), client.registered_model(&request.model)) });
    let (looked, model) = found?;
    let (origin, mut warnings) = match looked? {
        Looked::Known(origin, warnings) => (*origin, warnings),
        Looked::Elsewhere(origin, place) => (Origin { mlmodel: from_here(ways, &place)?, ..*origin }, Vec::new()),
    };
    let model = model?;
    if model.as_ref().is_some_and(|m| value(&m.tags, PROMPT).is_some()) {
        return Err(Failure::target(format!("{} is a prompt, not a model", request.model)).hint("give another name"));
    }
    if origin.mlmodel.signature.is_none() {
        warnings.push(format!("its {FILE} has no signature: nobody checks what it is given"));
    }
    let mut tags = request.tags.clone();
    if value(&tags, VALIDATION).is_none() {
        tags.push((VALIDATION.to_owned(), PENDING.to_owned()));
    }
    tags.push((MARK.to_owned(), request.id.clone()));
    let mut registered =
        Registered { model: request.model.clone(), new_model: model.is_none(), origin, tags, version: None, warnings };
    if dry {
        return Ok(registered);
    }
    ways.cancel.check()?;
    // From here on it goes on to an end that can be told, interrupted or not; every call is bounded.
    let version = ways.runtime.block_on(make(client, &registered, &request.description)).map_err(|failure| {
        let about = format!("{}: {}", request.model, failure.message);
        Failure { message: about, ..failure }
    })?;
    registered.version = Some(waiting.on(ready(client, version))??);
    Ok(registered)
}

enum Looked {
    Known(Box<Origin>, Vec<String>),
    /// Its MLmodel has to be read without the server.
    Elsewhere(Box<Origin>, ArtifactAddress),
}

async fn look(client: &Client, material: &Material) -> Outcome<Looked> {
    match material {
        Material::Run { id, path } => of_run(client, id, path).await,
        Material::Logged(id) => of_logged(client, find::logged_id(id)?).await,
        Material::Source { address, run } => match (ArtifactAddress::parse(address), run) {
            (ArtifactAddress::Run { id, path }, None) => of_run(client, &id, &path).await,
            (ArtifactAddress::LoggedModel(id), None) => of_logged(client, find::logged_id(&id)?).await,
            (ArtifactAddress::Run { .. } | ArtifactAddress::LoggedModel(_), Some(_)) => {
                Err(Failure::usage("this source names its run itself").hint("leave --run out"))
            }
            (ArtifactAddress::Placeholder, _) => Err(Failure::usage("this source names no place")),
            (place, run) => of_address(client, address, &place, run.as_deref()).await,
        },
    }
}

/// The run of an id.
async fn the_run(client: &Client, id: &str) -> Outcome<Run> {
    client.run(id).await?.ok_or_else(|| {
        Failure::source(format!("there is no run {id}")).hint("its id stands in the address of its page in MLflow")
    })
}

fn warnings(run: &Run) -> Vec<String> {
    let deleted = run.deleted.then(|| format!("the run {} is deleted: `mlflow gc` removes its files", run.id));
    deleted.into_iter().collect()
}

/// As MLflow's own client does it (tracking/_model_registry/fluent.py, `_register_model`).
async fn of_run(client: &Client, id: &str, path: &str) -> Outcome<Looked> {
    let path = path.trim_matches('/');
    let run = the_run(client, id).await?;
    let file = if path.is_empty() { FILE.to_owned() } else { format!("{path}/{FILE}") };
    let mut pages = client.run_artifacts(&run.id, path);
    while let Some(page) = pages.next().await? {
        if page.iter().any(|f| !f.folder && f.path == file) {
            let bytes = client.run_file(&run.id, &file, MOST).await?;
            let source = format!("{}/{path}", run.artifact_uri.trim_end_matches('/')).trim_end_matches('/').to_owned();
            let origin = Origin { source, run_id: run.id.clone(), model_id: String::new(), mlmodel: parsed(&bytes)? };
            return Ok(Looked::Known(Box::new(origin), warnings(&run)));
        }
    }
    let named = logged_of(client, &run, path).await?;
    match named.as_slice() {
        [model] => of_logged_model(client, model, warnings(&run)).await,
        [] => {
            let others = logged_of(client, &run, "").await?;
            let names: Vec<String> = others.iter().map(|m| format!("`{}`", m.name)).collect();
            let failure = Failure::source(format!(
                "the run {} has no {FILE} at `{path}`, and no logged model of that name",
                run.id
            ));
            Err(if names.is_empty() {
                failure.hint("`--path` names the folder of the model among the run's artifacts")
            } else {
                failure.hint(format!("its logged models: {}", names.join(", ")))
            })
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|m| m.id.as_str()).collect();
            Err(Failure::source(format!("the run {} has {} logged models of the name `{path}`", run.id, several.len()))
                .hint(format!("name one: --uuid {}", ids.join(", or --uuid "))))
        }
    }
}

/// The logged models of a run, of a name or (empty) of all names.
async fn logged_of(client: &Client, run: &Run, name: &str) -> Outcome<Vec<LoggedModel>> {
    let filter = format!("source_run_id = '{}'", run.id);
    if run.id.contains(['\'', '"', '\\']) {
        return Ok(Vec::new());
    }
    let Some(mut pages) = client.logged_models(std::slice::from_ref(&run.experiment_id), &filter, 50).await? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    while let Some(page) = pages.next().await? {
        found.extend(page.into_iter().filter(|m| name.is_empty() || m.name == name));
        // A run logs a model per step at most.
        if found.len() > 50 {
            break;
        }
    }
    Ok(found)
}

async fn of_logged(client: &Client, id: &str) -> Outcome<Looked> {
    let model = client.logged_model(id).await?.ok_or_else(|| find::no_logged(id))?;
    of_logged_model(client, &model, Vec::new()).await
}

async fn of_logged_model(client: &Client, model: &LoggedModel, mut warnings: Vec<String>) -> Outcome<Looked> {
    let mlmodel = super::mlmodel::of_logged_model(client, &model.id).await;
    let mlmodel = mlmodel.map_err(|why| Failure::source(format!("the logged model {}: {why}", model.id)))?;
    if model.status != "LOGGED_MODEL_READY" {
        warnings.push(format!("the logged model {} is not ready: {}", model.id, model.status));
    }
    let source = format!("models:/{}", model.id);
    let origin = Origin { source, run_id: model.source_run_id.clone(), model_id: model.id.clone(), mlmodel };
    Ok(Looked::Known(Box::new(origin), warnings))
}

/// What is at an address: by the server's way where it serves that place, as it needs none of our credentials.
async fn of_address(client: &Client, address: &str, place: &ArtifactAddress, run: Option<&str>) -> Outcome<Looked> {
    let mut origin = Origin { source: address.to_owned(), ..Origin::default() };
    if let ArtifactAddress::Version { name, version } = place {
        let none = || Failure::source(format!("the model {name} has no version {version}"));
        let version = client.model_version(name, *version).await?.ok_or_else(none)?;
        let mlmodel = super::mlmodel::mlmodel(client, &version).await;
        origin.mlmodel = mlmodel.map_err(|why| Failure::source(format!("{place}: {why}")))?;
        return Ok(Looked::Known(Box::new(origin), Vec::new()));
    }
    let run = match run {
        Some(id) => Some(the_run(client, id).await?),
        None => client_run(client, place).await?,
    };
    let inside =
        run.as_ref().and_then(|run| Some((run, files::below(&ArtifactAddress::parse(&run.artifact_uri), place)?)));
    let absent = |trouble: &Trouble| Failure::source(format!("{place}: no {FILE} was read there: {}", trouble.failure));
    let bytes = match (inside, files::direct(client, place)) {
        (Some((run, path)), _) => {
            let file = if path.is_empty() { FILE.to_owned() } else { format!("{path}/{FILE}") };
            let bytes = client.run_file(&run.id, &file, MOST).await.map_err(|t| absent(&t))?;
            origin.run_id.clone_from(&run.id);
            bytes
        }
        (None, Way::Proxy(path)) => proxied(client, &format!("{path}/{FILE}")).await.map_err(|t| absent(&t))?,
        (None, _) => {
            origin.run_id = run.map(|r| r.id).unwrap_or_default();
            return Ok(Looked::Elsewhere(Box::new(origin), place.clone()));
        }
    };
    origin.mlmodel = parsed(&bytes)?;
    Ok(Looked::Known(Box::new(origin), Vec::new()))
}

/// The run whose artifacts a place lies among: MLflow has its id in the address.
async fn client_run(client: &Client, place: &ArtifactAddress) -> Outcome<Option<Run>> {
    let text = place.to_string();
    let is_id = |part: &&str| part.len() == 32 && part.chars().all(|c| c.is_ascii_hexdigit());
    let Some(id) = text.split('/').find(is_id) else { return Ok(None) };
    Ok(client.run(id).await?.filter(|run| files::below(&ArtifactAddress::parse(&run.artifact_uri), place).is_some()))
}

async fn proxied(client: &Client, path: &str) -> Result<Vec<u8>, Trouble> {
    let mut download = client.download(path).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = download.chunk().await? {
        bytes.extend(piece);
        if bytes.len() > MOST {
            break;
        }
    }
    Ok(bytes)
}

fn parsed(bytes: &[u8]) -> Outcome<MlModel> {
    MlModel::parse(bytes).map_err(Failure::source)
}

fn from_here(ways: &Ways, place: &ArtifactAddress) -> Outcome<MlModel> {
    use std::io::Read;
    let files = ways.files(place).map_err(|why| {
        Failure::source(format!("{place}: {why}, so nobody can see whether a model is there"))
            .hint("--run names the run that it belongs to: the server reads a run's files itself")
    })?;
    let opened = files.open(FILE)?.ok_or_else(|| Failure::source(format!("there is no {FILE} in {place}")))?;
    let mut bytes = Vec::new();
    let read = opened.reader.take(MOST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::source(format!("{place}/{FILE}: {e}")))?;
    parsed(&bytes)
}

/// Makes the model if it is not there, and the version. An answer that did not come is not taken for a no.
async fn make(client: &Client, wanted: &Registered, description: &str) -> Outcome<ModelVersion> {
    if wanted.new_model {
        match client.create_registered_model(&wanted.model).await {
            Ok(()) => {}
            Err(trouble) if is_taken(&trouble) => {}
            Err(trouble) => match (trouble.fault.leaves_open(), client.registered_model(&wanted.model).await) {
                (true, Ok(Some(_))) => {}
                _ => return Err(trouble.failure),
            },
        }
    }
    let new = NewVersion {
        model: &wanted.model,
        source: &wanted.origin.source,
        run_id: &wanted.origin.run_id,
        model_id: &wanted.origin.model_id,
        description,
        tags: &wanted.tags,
    };
    let trouble = match client.create_model_version(&new).await {
        Ok(version) => return Ok(version),
        Err(trouble) => trouble,
    };
    let mark = value(&wanted.tags, MARK).unwrap_or_default();
    if !trouble.fault.leaves_open() {
        let left = if wanted.new_model { "; the model was made and has no version" } else { "" };
        return Err(Failure { message: format!("{}{left}", trouble.failure.message), ..trouble.failure });
    }
    let patience = if trouble.fault == Fault::Server(500) { SETTLED } else { LOOKED_FOR };
    match sought(client, &wanted.model, mark, patience).await {
        Ok(Some(version)) => Ok(version),
        Ok(None) => Err(Failure {
            message: format!(
                "{}; the server has no version with the tag {MARK}={mark}: nothing was registered",
                trouble.failure
            ),
            hint: Some("run it again when the server is well".to_owned()),
            ..trouble.failure
        }),
        Err(again) => Err(Failure {
            message: format!("{}; whether the version was made is not known: {}", trouble.failure, again.failure),
            hint: Some(format!(
                "when the server is well, look for a version with the tag {MARK}={mark} before you run it again"
            )),
            ..trouble.failure
        }),
    }
}

fn is_taken(trouble: &Trouble) -> bool {
    trouble.fault == Fault::Api { code: "RESOURCE_ALREADY_EXISTS".to_owned() }
}

/// Looks for the version with our mark until it is there, for as long as the server may still be making it.
async fn sought(client: &Client, model: &str, mark: &str, patience: Duration) -> Result<Option<ModelVersion>, Trouble> {
    let end = Instant::now() + patience;
    loop {
        let looked = client.model_versions(&format!("tags.`{MARK}` = '{mark}'")).next().await;
        let found = looked.map(|page| page.unwrap_or_default().into_iter().find(|v| v.name == model));
        match found {
            Ok(Some(version)) => return Ok(Some(version)),
            last if Instant::now() + PAUSE >= end => return last,
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Waits until a version can be used.
async fn ready(client: &Client, mut version: ModelVersion) -> Outcome<ModelVersion> {
    let end = Instant::now() + READY;
    loop {
        let what = format!("version {} of {} was made and is {}", version.version, version.name, version.status);
        match version.status.as_str() {
            "READY" => return Ok(version),
            "PENDING_REGISTRATION" if Instant::now() < end => tokio::time::sleep(PAUSE).await,
            _ if version.status_message.is_empty() => return Err(Failure::target(what)),
            _ => return Err(Failure::target(format!("{what}: {}", version.status_message))),
        }
        let gone = || Failure::target(format!("version {} of {} is gone again", version.version, version.name));
        version = client.model_version(&version.name, version.version).await?.ok_or_else(gone)?;
    }
}
