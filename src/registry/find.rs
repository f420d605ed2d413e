//! What a name on the command line means: a model, a version of it, or a logged model.

use crate::domain::failure::{Failure, Outcome};
use crate::domain::tracking::{LoggedModel, ModelVersion, PROMPT, RegisteredModel, value};
use crate::mlflow::fault::Reply;
use crate::mlflow::{Client, Fault};

/// Models whose names are looked through for one that is alike.
const LOOKED_THROUGH: usize = 10_000;
/// Names that are told.
const TOLD: usize = 3;
/// From here on two names are alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// A model.
    Model(RegisteredModel),
    /// A version.
    Version(ModelVersion),
    /// A logged model.
    Logged(LoggedModel),
}

/// A name's end, split off.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Version(&'a str, u64),
    Alias(&'a str, &'a str),
}

/// `name/3`, `name@champion`: split at the last `/` or `@`, as names may hold both.
fn split(text: &str) -> Option<Part<'_>> {
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    match text.rsplit_once('/') {
        Some((name, version)) if !name.is_empty() && !version.is_empty() => {
            if let Some(version) = number(version) {
                return Some(Part::Version(name, version));
            }
        }
        _ => {}
    }
    // MLflow: utils/validation.py, `_validate_model_alias_name`: letters, digits, `_` and `-`.
    let alias = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
    match text.rsplit_once('@') {
        Some((name, after)) if !name.is_empty() && alias(after) => Some(Part::Alias(name, after)),
        _ => None,
    }
}

/// Finds what a text names: a model of that whole name goes first.
///
/// # Errors
/// Source: it is not there. Any fault.
pub async fn find(client: &Client, text: &str) -> Outcome<Found> {
    if text.trim().is_empty() {
        return Err(Failure::usage("the model's name is empty"));
    }
    let part = split(text);
    let version = async {
        match &part {
            Some(Part::Version(name, version)) => client.model_version(name, *version).await,
            Some(Part::Alias(name, alias)) => client.model_version_by_alias(name, alias).await,
            None => Ok(None),
        }
    };
    let logged = async {
        match text.starts_with("m-") {
            true => client.logged_model(text).await,
            false => Ok(None),
        }
    };
    let (model, version, logged) = tokio::join!(client.registered_model(text), version, logged);
    if let Some(model) = allowed(model)? {
        return Ok(Found::Model(model));
    }
    if let Some(version) = allowed(version)? {
        return Ok(Found::Version(version));
    }
    if let Some(logged) = logged? {
        return Ok(Found::Logged(logged));
    }
    Err(match part {
        Some(Part::Version(name, version)) => match allowed(client.registered_model(name).await)? {
            Some(model) => {
                let newest = client.latest_versions(name, &[]).await?.unwrap_or_default();
                let newest = newest.iter().map(|v| v.version).max();
                let failure = Failure::source(format!("the model {} has no version {version}", model.name));
                match newest {
                    Some(newest) => failure.hint(format!("its newest version is {newest}")),
                    None => failure.hint("it has no versions"),
                }
            }
            None => nobody(client, name).await?,
        },
        Some(Part::Alias(name, alias)) => match allowed(client.registered_model(name).await)? {
            Some(model) => {
                let all: Vec<String> =
                    model.aliases.iter().map(|(alias, version)| format!("{alias}={version}")).collect();
                let failure = Failure::source(format!("the model {} has no alias {alias}", model.name));
                failure.hint(match all.is_empty() {
                    true => "it has no aliases".to_owned(),
                    false => format!("its aliases: {}", all.join(", ")),
                })
            }
            None => nobody(client, name).await?,
        },
        None if is_logged(text) => no_logged(text),
        None => nobody(client, text).await?,
    })
}

/// Later releases refuse names that hold `/` or `:` (utils/validation.py, `_validate_model_name`): what cannot be made is
/// not there.
fn allowed<T>(reply: Reply<Option<T>>) -> Reply<Option<T>> {
    match reply {
        Err(trouble) if trouble.fault == (Fault::Api { code: "INVALID_PARAMETER_VALUE".to_owned() }) => Ok(None),
        other => other,
    }
}

/// Whether a text has the form of a logged model's id (MLflow: `m-` and 32 hex digits).
fn is_logged(text: &str) -> bool {
    text.strip_prefix("m-").is_some_and(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()))
}

/// That a text can be a logged model's id.
///
/// # Errors
/// Usage: it cannot.
pub fn logged_id(text: &str) -> Outcome<&str> {
    let sound = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    text.strip_prefix("m-").filter(|id| sound(id)).map(|_| text).ok_or_else(|| {
        Failure::usage(format!("`{}` is no logged model's id", text.escape_debug()))
            .hint("it begins with `m-`: `model_id` in the file MLmodel, or the address of the model's page in MLflow")
    })
}

/// That there is no such logged model.
pub fn no_logged(id: &str) -> Failure {
    Failure::source(format!("there is no logged model {id}"))
        .hint("is it deleted, or on another server? Releases before MLflow 3 have no logged models")
}

/// That no model has this name, with those that are alike.
///
/// # Errors
/// Any fault.
pub async fn nobody(client: &Client, name: &str) -> Outcome<Failure> {
    let mut alike: Vec<(f64, String)> = Vec::new();
    let (mut seen, mut pages) = (0, client.registered_models(""));
    while let Some(page) = pages.next().await? {
        seen += page.len();
        for model in page.into_iter().filter(|m| value(&m.tags, PROMPT).is_none()) {
            let like = strsim::jaro_winkler(&model.name.to_lowercase(), &name.to_lowercase());
            if like >= ALIKE {
                alike.push((like, model.name));
                alike.sort_by(|a, b| b.0.total_cmp(&a.0));
                alike.truncate(TOLD);
            }
        }
        if seen >= LOOKED_THROUGH {
            break;
        }
    }
    let failure = Failure::source(format!("no model is called `{}`", name.escape_debug()));
    let names: Vec<String> = alike.into_iter().map(|(_, name)| format!("`{}`", name.escape_debug())).collect();
    Ok(match (names.is_empty(), seen) {
        (false, _) => failure.hint(format!("did you mean {}?", names.join(" or "))),
        (true, 0) => failure.hint("the registry is empty"),
        (true, _) => failure.hint("`mlops models list` names all"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_last_sign() {
        for (text, wanted) in [
            ("m", None),
            ("m/3", Some(Part::Version("m", 3))),
            ("team/m/12", Some(Part::Version("team/m", 12))),
            ("team/m", None),
            ("m@champion", Some(Part::Alias("m", "champion"))),
            ("a@b@c", Some(Part::Alias("a@b", "c"))),
            ("a@b/3", Some(Part::Version("a@b", 3))),
            ("a/3@b-1", Some(Part::Alias("a/3", "b-1"))),
            ("a@b/c", None),
            ("/3", None),
            ("@a", None),
            ("m/", None),
            ("m/99999999999999999999999", None),
            ("m/+3", None),
        ] {
            assert_eq!(split(text), wanted, "{text}");
        }
    }

    #[test]
    fn ids_of_logged_models() {
        assert!(logged_id("m-ae3e7aa783254041ae0e95be97ed16b4").is_ok());
        for text in ["", "m-", "ae3e7aa783254041ae0e95be97ed16b4", "m-a/b", "m-a'b", "models:/m-1"] {
            assert!(logged_id(text).is_err(), "{text}");
        }
        assert!(is_logged("m-ae3e7aa783254041ae0e95be97ed16b4") && !is_logged("m-production"));
    }
}
