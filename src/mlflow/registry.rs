//! The model registry.

use serde_json::json;

use super::fault::{Fault, Reply, present};
use super::send::Ask;
use super::{Client, Pages, wire};
use crate::domain::tracking::{ModelVersion, RegisteredModel};

/// MLflow's own bound on a page of registered models.
const MODELS: &str = "1000";
/// A page of versions; MLflow would take 200,000.
const VERSIONS: &str = "5000";

impl Client {
    /// Registered models that a filter lets through (empty: all), by name. Prompts are among them.
    pub fn registered_models(&self, filter: &str) -> Pages<RegisteredModel> {
        let query = vec![("filter", filter.to_owned()), ("max_results", MODELS.to_owned())];
        let open = |w: wire::Models| (wire::all(w.registered_models), w.next_page_token);
        Pages::new(self, Ask::get("registered-models/search", filtered(query)), open, |m: &RegisteredModel| {
            m.name.clone()
        })
    }

    /// Versions that a filter lets through (`name = 'x'`; empty: all), by name and number.
    pub fn model_versions(&self, filter: &str) -> Pages<ModelVersion> {
        let query = vec![
            ("filter", filter.to_owned()),
            ("max_results", VERSIONS.to_owned()),
            // An order that nobody's change shifts.
            ("order_by", "name ASC".to_owned()),
            ("order_by", "version_number ASC".to_owned()),
        ];
        let open = |w: wire::Versions| (wire::all(w.model_versions), w.next_page_token);
        Pages::new(self, Ask::get("model-versions/search", filtered(query)), open, |v: &ModelVersion| {
            format!("{}/{}", v.version, v.name)
        })
    }

    /// The newest versions of all models, at most so many, in one call. Prompts' may be among them.
    ///
    /// # Errors
    /// Any fault.
    pub async fn newest_model_versions(&self, most: usize) -> Reply<Vec<ModelVersion>> {
        let query = vec![
            ("max_results", most.to_string()),
            ("order_by", "creation_timestamp DESC".to_owned()),
            ("order_by", "name ASC".to_owned()),
            ("order_by", "version_number ASC".to_owned()),
        ];
        let answer = self.ask::<wire::Versions>(&Ask::get("model-versions/search", query)).await?;
        Ok(wire::all(answer.value.model_versions))
    }

    /// Where the files of a version are, as the registry keeps it: `models:/` in its source is resolved, `runs:/` is
    /// not. `None`: no such version.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn model_version_location(&self, model: &str, version: u64) -> Reply<Option<String>> {
        let query = vec![("name", model.to_owned()), ("version", version.to_string())];
        let got = present(self.ask::<wire::Location>(&Ask::get("model-versions/get-download-uri", query)).await)?;
        Ok(got.map(|a| a.value.artifact_uri))
    }

    /// The version that an alias points to; `None`: no such alias, or no such model.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn model_version_by_alias(&self, model: &str, alias: &str) -> Reply<Option<ModelVersion>> {
        let ask = Ask::get("registered-models/alias", vec![("name", model.to_owned()), ("alias", alias.to_owned())]);
        match present(self.ask::<wire::GotVersion>(&ask).await) {
            // 400 with `Registered model alias x not found.`
            Err(trouble)
                if trouble.fault == (Fault::Api { code: "INVALID_PARAMETER_VALUE".to_owned() })
                    && trouble.failure.message.contains("not found") =>
            {
                Ok(None)
            }
            other => Ok(other?.map(|a| a.value.model_version.into())),
        }
    }

    /// The newest version of a model in each of these stages (none: in every stage); `None`: no such model.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn latest_versions(&self, model: &str, stages: &[&str]) -> Reply<Option<Vec<ModelVersion>>> {
        let ask = Ask::search("registered-models/get-latest-versions", json!({ "name": model, "stages": stages }));
        let got = present(self.ask::<wire::GotVersions>(&ask).await)?;
        Ok(got.map(|a| wire::all(a.value.model_versions)))
    }
}

/// Without a filter that is empty.
fn filtered(query: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    query.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
