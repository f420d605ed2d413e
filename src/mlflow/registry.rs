//! The model registry.

use reqwest::Method;
use serde_json::json;

use super::fault::{Fault, Reply, present};
use super::send::Ask;
use super::{Client, Pages, wire};
use crate::domain::tracking::{ModelVersion, Pairs, RegisteredModel};

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

    /// All versions of a model, by number. MLflow's filters have no escape: where none can name the model, all versions
    /// of all models are read and sifted.
    pub fn versions_of(&self, model: &str) -> Pages<ModelVersion> {
        let own = model.to_owned();
        self.model_versions(&named(model)).only(move |v| v.name == own)
    }

    /// Models whose filter asks for prompts; releases that have prompts leave them out of all other searches (MLflow:
    /// store/model_registry/sqlalchemy_store.py, `_is_querying_prompt`).
    pub fn prompts(&self) -> Pages<RegisteredModel> {
        self.registered_models("tags.`mlflow.prompt.is_prompt` = 'true'")
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

    /// A version with its tags and aliases; `None`: there is none.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn model_version(&self, model: &str, version: u64) -> Reply<Option<ModelVersion>> {
        let query = vec![("name", model.to_owned()), ("version", version.to_string())];
        let got = present(self.ask::<wire::GotVersion>(&Ask::get("model-versions/get", query)).await)?;
        Ok(got.map(|a| a.value.model_version.into()))
    }

    /// A model with its aliases; `None`: there is none.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn registered_model(&self, model: &str) -> Reply<Option<RegisteredModel>> {
        let ask = Ask::get("registered-models/get", vec![("name", model.to_owned())]);
        let got = present(self.ask::<wire::GotModel>(&ask).await)?;
        Ok(got.map(|a| a.value.registered_model.into()))
    }

    /// Makes a model without versions. Never sent twice.
    ///
    /// # Errors
    /// Any fault; `RESOURCE_ALREADY_EXISTS` where the name is taken.
    pub async fn create_registered_model(&self, model: &str) -> Reply<()> {
        self.create_tagged_model(model, &Pairs::new()).await
    }

    /// The same with tags.
    ///
    /// # Errors
    /// As [`Client::create_registered_model`].
    pub async fn create_tagged_model(&self, model: &str, tags: &Pairs) -> Reply<()> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let ask = Ask::change("registered-models/create", json!({ "name": model, "tags": tags }));
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Makes a version. Never sent twice.
    ///
    /// # Errors
    /// As [`Client::transition`].
    pub async fn create_model_version(&self, new: &NewVersion<'_>) -> Reply<ModelVersion> {
        let tags: Vec<_> = new.tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let mut body = json!({ "name": new.model, "source": new.source, "tags": tags });
        let optional = [("run_id", new.run_id), ("model_id", new.model_id), ("description", new.description)];
        for (key, value) in optional.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(body) = body.as_object_mut() {
                body.insert(key.to_owned(), value.into());
            }
        }
        let answer = self.ask::<wire::GotVersion>(&Ask::change("model-versions/create", body)).await?;
        Ok(answer.value.model_version.into())
    }

    /// Deletes a model with all its versions, tags and aliases, for good; `false`: it was not there.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn delete_registered_model(&self, model: &str) -> Reply<bool> {
        // What is gone stays gone.
        let ask = Ask::change("registered-models/delete", json!({ "name": model }));
        let ask = Ask { method: Method::DELETE, repeatable: true, ..ask };
        Ok(present(self.ask::<wire::Nothing>(&ask).await)?.is_some())
    }

    /// Deletes a version. What was known of it stays in the database without its source and its run, until the model is
    /// deleted (MLflow: store/model_registry/sqlalchemy_store.py, `delete_model_version`); `false`: it was not there.
    ///
    /// # Errors
    /// Any other fault.
    pub async fn delete_model_version(&self, model: &str, version: u64) -> Reply<bool> {
        let body = json!({ "name": model, "version": version.to_string() });
        let ask = Ask { method: Method::DELETE, repeatable: true, ..Ask::change("model-versions/delete", body) };
        Ok(present(self.ask::<wire::Nothing>(&ask).await)?.is_some())
    }

    /// Sets a tag of a model.
    ///
    /// # Errors
    /// Any fault.
    pub async fn set_model_tag(&self, model: &str, key: &str, value: &str) -> Reply<()> {
        let body = json!({ "name": model, "key": key, "value": value });
        // The same tag twice is the same tag.
        let ask = Ask { repeatable: true, ..Ask::change("registered-models/set-tag", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Puts a version into a stage, and with `archive` whatever else is in that stage into `Archived`, in one transaction
    /// of the server's. Never sent twice.
    ///
    /// # Errors
    /// Any fault; after one without an answer nobody knows whether it was done.
    pub async fn transition(&self, model: &str, version: u64, stage: &str, archive: bool) -> Reply<ModelVersion> {
        let body = json!({
            "name": model, "version": version.to_string(), "stage": stage, "archive_existing_versions": archive,
        });
        let answer = self.ask::<wire::GotVersion>(&Ask::change("model-versions/transition-stage", body)).await?;
        Ok(answer.value.model_version.into())
    }

    /// Points an alias to a version. Never sent twice: in between somebody else may have pointed it elsewhere.
    ///
    /// # Errors
    /// As [`Client::transition`].
    pub async fn set_alias(&self, model: &str, alias: &str, version: u64) -> Reply<()> {
        let body = json!({ "name": model, "alias": alias, "version": version.to_string() });
        self.ask::<wire::Nothing>(&Ask::change("registered-models/alias", body)).await.map(drop)
    }

    /// Removes an alias. Never sent twice. MLflow reads what is deleted in the body, as of every call but GET
    /// (server/handlers.py, `_get_request_message`).
    ///
    /// # Errors
    /// As [`Client::transition`].
    pub async fn delete_alias(&self, model: &str, alias: &str) -> Reply<()> {
        let body = json!({ "name": model, "alias": alias });
        let ask = Ask { method: Method::DELETE, ..Ask::change("registered-models/alias", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }

    /// Sets a tag of a version.
    ///
    /// # Errors
    /// Any fault.
    pub async fn set_version_tag(&self, model: &str, version: u64, key: &str, value: &str) -> Reply<()> {
        let body = json!({ "name": model, "version": version.to_string(), "key": key, "value": value });
        // The same tag twice is the same tag.
        let ask = Ask { repeatable: true, ..Ask::change("model-versions/set-tag", body) };
        self.ask::<wire::Nothing>(&ask).await.map(drop)
    }
}

/// A version to be made.
#[derive(Debug, Clone)]
pub struct NewVersion<'a> {
    /// The model, which has to be there.
    pub model: &'a str,
    /// Where its files are.
    pub source: &'a str,
    /// The run that made it; empty: none is named.
    pub run_id: &'a str,
    /// The logged model that it is (MLflow 3); empty: none.
    pub model_id: &'a str,
    /// Its description; may be empty.
    pub description: &'a str,
    /// Tags.
    pub tags: &'a Pairs,
}

/// A filter that lets one model's versions through, and maybe more: MLflow takes a name in either kind of quotes, has no
/// escape, and answers nothing at all where a name holds both (seen with 2.9.2 and 3.17.2).
fn named(model: &str) -> String {
    match (model.contains('\''), model.contains('"')) {
        _ if model.contains('\\') => String::new(),
        (false, _) => format!("name = '{model}'"),
        (true, false) => format!("name = \"{model}\""),
        (true, true) => String::new(),
    }
}

/// Without a filter that is empty.
fn filtered(query: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    query.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
