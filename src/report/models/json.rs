//! `mlops.models.*.v1`. Fields are only ever added. A number that JSON cannot write is text: `"NaN"`, `"Infinity"`; ids of
//! experiments are text, as they have more digits than JavaScript keeps.

use serde_json::{Map, Value, json};

use super::super::health::json::number;
use super::super::json::{merge, time};
use super::{Models, instant};
use crate::domain::artifact_address::ArtifactAddress;
use crate::domain::harmless::masked;
use crate::domain::signature::{Field, MlModel, Signature};
use crate::domain::tracking::{Experiment, LoggedModel, MetricPoint, ModelVersion, Pairs, Run};
use crate::registry::download::Downloaded;
use crate::registry::export::{Export, Taken};
use crate::registry::files::Files;
use crate::registry::overview::{Overview, Staged};
use crate::registry::register::Registered;
use crate::registry::show::{Detail, Shown};

/// The `result` of the document.
pub(in crate::report) fn value(told: &Models<'_>) -> Value {
    match told {
        Models::List(overview) => list(overview),
        Models::Show(shown) => show(shown),
        Models::Registered(registered) => self::registered(registered),
        Models::Exported(export, files) => exported(export, *files),
    }
}

fn moment(milliseconds: Option<i64>) -> Option<String> {
    instant(milliseconds).map(time)
}

fn map(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect::<Map<_, _>>().into()
}

/// Alias and version.
fn aliases(pairs: &Pairs) -> Value {
    let version = |text: &String| text.parse::<u64>().map_or_else(|_| Value::from(text.clone()), Value::from);
    pairs.iter().map(|(alias, number)| (alias.clone(), version(number))).collect::<Map<_, _>>().into()
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

fn list(overview: &Overview) -> Value {
    let staged = |s: &Staged| json!({"count": s.count, "newest": s.newest});
    let models = overview.models.iter().map(|m| {
        json!({
            "name": m.name, "versions": m.versions, "production": staged(&m.production),
            "staging": staged(&m.staging), "aliases": aliases(&m.aliases),
            "newest": m.newest.map(|(version, _)| version), "created": moment(m.newest.and_then(|(_, made)| made)),
            "champion": m.champion, "metric": m.metric.map(number),
        })
    });
    json!({
        "alias": overview.alias, "metric": overview.metric, "models": models.collect::<Vec<_>>(),
        "prompts": overview.prompts,
    })
}

fn version(version: &ModelVersion) -> Value {
    json!({
        "model": version.name, "version": version.version, "stage": given(&version.stage), "aliases": version.aliases,
        "status": version.status, "status_message": given(&version.status_message),
        "created": moment(version.created), "updated": moment(version.updated),
        "description": version.description, "source": masked(&version.source), "run_id": given(&version.run_id),
        "tags": map(&version.tags),
    })
}

fn run(run: &Run) -> Value {
    json!({
        "id": run.id, "name": run.name, "experiment_id": run.experiment_id, "status": run.status,
        "started": moment(run.start), "finished": moment(run.end),
        "milliseconds": run.start.zip(run.end).map(|(start, end)| end.saturating_sub(start)),
        "deleted": run.deleted, "artifact_uri": masked(&run.artifact_uri), "tags": map(&run.tags),
    })
}

fn experiment(e: &Experiment) -> Value {
    json!({"id": e.id, "name": e.name, "deleted": e.deleted})
}

fn logged(model: &LoggedModel) -> Value {
    json!({
        "id": model.id, "name": model.name, "status": model.status, "experiment_id": model.experiment_id,
        "run_id": given(&model.source_run_id), "created": moment(model.created), "updated": moment(model.updated),
        "artifact_uri": masked(&model.artifact_uri), "tags": map(&model.tags),
    })
}

fn metrics(metrics: &[(String, MetricPoint)]) -> Value {
    let one = |(name, point): &(String, MetricPoint)| {
        let at = moment(Some(point.timestamp));
        json!({"name": name, "value": number(point.value), "step": point.step, "at": at})
    };
    metrics.iter().map(one).collect()
}

fn fields(fields: Option<&Vec<Field>>) -> Value {
    let one = |field: &Field| {
        let mut value = json!({"name": field.name, "type": field.kind, "required": field.required});
        if let Some(default) = &field.default {
            merge(&mut value, json!({"default": default}));
        }
        value
    };
    fields.map_or(Value::Null, |fields| fields.iter().map(one).collect())
}

fn signature(signature: &Signature) -> Value {
    json!({
        "inputs": fields(signature.inputs.as_ref()), "outputs": fields(signature.outputs.as_ref()),
        "params": fields(signature.params.as_ref()),
    })
}

fn mlmodel(model: &MlModel) -> Value {
    json!({
        "model_uuid": model.model_uuid, "run_id": model.run_id, "mlflow_version": model.mlflow_version,
        "utc_time_created": model.utc_time_created,
    })
}

fn files(files: &Files) -> Value {
    json!({
        "count": files.count, "bytes": files.bytes, "complete": files.whole,
        "files": files.files.iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes})).collect::<Vec<_>>(),
    })
}

fn detail(detail: &Detail) -> Value {
    let mlmodel_of = detail.mlmodel.as_ref();
    json!({
        "run": detail.run.as_ref().map(run),
        "parent_run": detail.parent.as_ref().map(run),
        "experiment": detail.experiment.as_ref().map(experiment),
        "logged_model": detail.logged.as_ref().map(logged),
        "metrics": metrics(&detail.metrics),
        "params": map(detail.params()),
        "mlmodel": mlmodel_of.ok().map(mlmodel),
        "mlmodel_error": mlmodel_of.err(),
        "signature": mlmodel_of.ok().and_then(|m| m.signature.as_ref()).map(signature),
        "place": detail.place.as_ref().map(ArtifactAddress::to_string),
        "artifacts": detail.files.as_ref().ok().map(files),
        "artifacts_error": detail.files.as_ref().err(),
        "unknown": detail.unknown,
    })
}

fn pair((name, version): &(String, u64)) -> Value {
    json!({"model": name, "version": version})
}

fn show(shown: &Shown) -> Value {
    match shown {
        Shown::Model(model, versions) => json!({
            "kind": "model", "name": model.name, "created": moment(model.created), "updated": moment(model.updated),
            "description": model.description, "tags": map(&model.tags), "aliases": aliases(&model.aliases),
            "versions": versions.iter().map(version).collect::<Vec<_>>(),
        }),
        Shown::Version(shown) => {
            let mut value = json!({"kind": "version"});
            merge(&mut value, version(&shown.version));
            merge(&mut value, detail(&shown.detail));
            merge(
                &mut value,
                json!({"other_versions_of_the_run": shown.siblings.iter().map(pair).collect::<Vec<_>>()}),
            );
            value
        }
        Shown::Logged(shown) => {
            let mut value = json!({"kind": "logged_model"});
            merge(&mut value, logged(&shown.model));
            merge(&mut value, detail(&shown.detail));
            let more = json!({
                "versions": shown.versions.iter().map(version).collect::<Vec<_>>(),
                "versions_gone": shown.gone.iter().map(pair).collect::<Vec<_>>(),
            });
            merge(&mut value, more);
            value
        }
    }
}

fn registered(registered: &Registered) -> Value {
    let origin = &registered.origin;
    json!({
        "model": registered.model, "version": registered.version.as_ref().map(|v| v.version),
        "status": registered.version.as_ref().map(|v| &v.status), "new_model": registered.new_model,
        "source": masked(&origin.source), "run_id": given(&origin.run_id), "model_id": given(&origin.model_id),
        "tags": map(&registered.tags), "signature": origin.mlmodel.signature.as_ref().map(signature),
    })
}

fn exported(export: &Export, files: Option<&Downloaded>) -> Value {
    let folder = |taken: &Taken| {
        let own = |s: &&crate::registry::download::Stored| {
            (&s.model, s.version) == (&taken.version.name, taken.version.version)
        };
        files?.manifest.versions.iter().find(own)
    };
    let one = |taken: &Taken| {
        let origin = &taken.origin;
        let params = origin.logged.as_ref().map(|m| &m.params).filter(|p| !p.is_empty());
        let params = params.or(origin.run.as_ref().map(|r| &r.params)).map_or(&[][..], Vec::as_slice);
        let mut value = version(&taken.version);
        let more = json!({
            "place": taken.place.as_ref().map(ArtifactAddress::to_string),
            "run": origin.run.as_ref().map(run),
            "logged_model": origin.logged.as_ref().map(logged),
            "metrics": metrics(&origin.metrics),
            "params": map(params),
            "mlmodel": taken.mlmodel.as_ref().map(mlmodel),
            "signature": taken.mlmodel.as_ref().and_then(|m| m.signature.as_ref()).map(signature),
            "faults": taken.faults,
        });
        merge(&mut value, more);
        if let Some(stored) = folder(taken) {
            merge(&mut value, json!({"folder": stored.folder, "files": stored.files}));
        }
        value
    };
    json!({
        "choice": export.choice,
        "versions": export.versions.iter().map(one).collect::<Vec<_>>(),
        "without": export.without,
        "files": files.map(|f| json!({
            "folder": f.folder, "written": f.written.0, "bytes_written": f.written.1, "kept": f.kept,
        })),
    })
}
