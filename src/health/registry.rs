//! The layer *registry*: is every version whole, and is it clear which version of a model is in production.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::failure::Outcome;
use crate::domain::glob;
use crate::domain::health::{Bound, Limits, Reading, Status, Unit};
use crate::domain::promotion::place::{CHAMPION, Stage};
use crate::domain::tracking::{ModelVersion, PROMPT, RegisteredModel, value};
use crate::mlflow::Client;
use crate::mlflow::fault::Reply;

use super::Stack;
use super::runs::{age, patient, span};
use super::server::{unmeasured, unset};

const VERSIONS: &str = "registry.versions";
const PRODUCTION: &str = "registry.production";
const STAGE: &str = Stage::Production.word();
/// A version is made before its files are copied, which takes its time.
const PENDING: f64 = 3_600.0;
/// Versions and models that stand in for all that were found.
const NAMED: usize = 20;
/// Models that are looked at.
const MOST: usize = 10_000;

fn alias(stack: &Stack) -> &str {
    stack.look.settings.registry.alias.as_deref().unwrap_or(CHAMPION)
}

/// The version of a model that is in production: by its alias, else the newest in stage Production. The inner error
/// says what is missing.
pub(super) async fn in_production(stack: &Stack, client: &Client, model: &str) -> Reply<Result<ModelVersion, String>> {
    let alias = alias(stack);
    if let Some(version) = client.model_version_by_alias(model, alias).await? {
        return Ok(Ok(version));
    }
    Ok(match client.latest_versions(model, &[STAGE]).await? {
        None => Err(format!("no model is called {model}")),
        Some(versions) => versions
            .into_iter()
            .max_by_key(|v| v.version)
            .ok_or_else(|| format!("no version of {model} has the alias {alias} or is in stage {STAGE}")),
    })
}

/// What one pass over all versions finds.
#[derive(Default)]
struct Pass {
    /// Not READY, how many and which.
    unready: usize,
    failed: Vec<String>,
    pending: Vec<String>,
    seen: usize,
    /// Versions in stage Production, by model.
    production: BTreeMap<String, BTreeSet<u64>>,
}

/// Looks at the registry.
pub(super) async fn look(stack: Arc<Stack>) {
    let Some((_, client)) = &stack.server else { return };
    if !stack.wants(VERSIONS) && !stack.wants(PRODUCTION) {
        return;
    }
    let client = patient(&stack, client);
    let tell = |id: &str, reading: Reading| {
        if stack.wants(id) {
            stack.tell(reading);
        }
    };
    let pass = match pass(&stack, &client).await {
        Ok(pass) => pass,
        Err(trouble) => {
            tell(VERSIONS, unmeasured(VERSIONS, &trouble));
            tell(PRODUCTION, unmeasured(PRODUCTION, &trouble));
            return;
        }
    };
    tell(VERSIONS, versions(&stack, &pass));
    if stack.wants(PRODUCTION) {
        stack.tell(match production(&stack, &client, &pass).await {
            Ok(reading) => reading,
            Err(trouble) => unmeasured(PRODUCTION, &trouble),
        });
    }
}

async fn pass(stack: &Stack, client: &Client) -> Reply<Pass> {
    let mut pass = Pass::default();
    let mut pages = client.model_versions("");
    while let Some(page) = pages.next().await? {
        pass.seen += page.len();
        for version in page {
            if version.stage == STAGE && in_use(stack, &version.name) {
                pass.production.entry(version.name.clone()).or_default().insert(version.version);
            }
            let made = version.created.or(version.updated).map(|made| age(stack.look.now, made));
            let copying = version.status == "PENDING_REGISTRATION" && made.is_some_and(|age| age < PENDING);
            if version.status == "READY" || copying {
                continue;
            }
            pass.unready += 1;
            let list = if version.status == "PENDING_REGISTRATION" { &mut pass.pending } else { &mut pass.failed };
            if list.len() < NAMED {
                let since = made.map_or(String::new(), |age| format!(", made {} ago", span(age)));
                let why = match version.status_message.as_str() {
                    "" => String::new(),
                    message => format!(": {}", message.lines().next().unwrap_or_default()),
                };
                list.push(format!("{} version {}: {}{since}{why}", version.name, version.version, version.status));
            }
        }
    }
    Ok(pass)
}

fn in_use(stack: &Stack, model: &str) -> bool {
    stack.look.settings.registry.production.iter().any(|pattern| glob::matches(pattern, model))
}

/// Configured limits, else those.
fn limits(stack: &Stack, id: &str, otherwise: Limits) -> Outcome<Limits> {
    match stack.look.settings.judgement(id).filter(|j| j.warning.is_some() || j.critical.is_some()) {
        None => Ok(otherwise),
        Some(judgement) => judgement.at_most(Unit::Count),
    }
}

fn versions(stack: &Stack, pass: &Pass) -> Reading {
    let limits = match limits(stack, VERSIONS, Limits { warning: Some(Bound::AtMost(0.0)), critical: None }) {
        Ok(limits) => limits,
        Err(failure) => return unset(VERSIONS, &failure),
    };
    let summary = match pass.unready {
        0 if pass.seen == 0 => "no versions".to_owned(),
        0 if pass.seen == 1 => "1 version, and it is READY".to_owned(),
        0 => format!("all {} versions are READY", pass.seen),
        1 => format!("1 of {} versions is not READY", pass.seen),
        n => format!("{n} of {} versions are not READY", pass.seen),
    };
    let reading = Reading::measured(VERSIONS, pass.unready as f64, Unit::Count, limits, summary);
    if pass.unready == 0 {
        return reading;
    }
    reading
        .evidence(pass.failed.iter().chain(&pass.pending).take(NAMED).cloned())
        .cause("the client that registered it failed or died while it copied the model")
        .hint("register the model again, and delete that version")
}

async fn production(stack: &Stack, client: &Client, pass: &Pass) -> Reply<Reading> {
    let alias = alias(stack);
    let mut unmatched: Vec<&String> = stack.look.settings.registry.production.iter().collect();
    let mut found: Vec<(Status, String)> = Vec::new();
    let mut models = 0_usize;
    let mut pages = client.registered_models("");
    while let Some(page) = pages.next().await? {
        for model in page.iter().filter(|m| in_use(stack, &m.name) && value(&m.tags, PROMPT).is_none()) {
            models += 1;
            unmatched.retain(|pattern| !glob::matches(pattern, &model.name));
            found.extend(unclear(model, alias, pass.production.get(&model.name)));
        }
        if models >= MOST {
            break;
        }
    }
    found.extend(unmatched.iter().map(|pattern| (Status::Critical, format!("no model is called {pattern}"))));
    let count = found.len() as f64;
    let worst = found.iter().map(|(status, _)| *status).max().unwrap_or(Status::Ok);
    let zero = Some(Bound::AtMost(0.0));
    let otherwise = match worst {
        Status::Warning => Limits { warning: zero, critical: None },
        _ => Limits { warning: None, critical: zero },
    };
    let limits = match limits(stack, PRODUCTION, otherwise) {
        Ok(limits) => limits,
        Err(failure) => return Ok(unset(PRODUCTION, &failure)),
    };
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut lines = found.into_iter().map(|(_, what)| what);
    let Some(first) = lines.next() else {
        let summary = match models {
            1 => "1 model has one version in production".to_owned(),
            n => format!("{n} models have one version each in production"),
        };
        return Ok(Reading::measured(PRODUCTION, 0.0, Unit::Count, limits, summary));
    };
    let reading = Reading::measured(PRODUCTION, count, Unit::Count, limits, first);
    Ok(reading
        .evidence(lines.take(NAMED))
        .hint("set the alias, or the stage Production, on exactly one version of each"))
}

/// Why it is not clear which version of a model is in production.
fn unclear(model: &RegisteredModel, alias: &str, production: Option<&BTreeSet<u64>>) -> Option<(Status, String)> {
    let name = &model.name;
    let aliased: Option<u64> = value(&model.aliases, alias).and_then(|version| version.parse().ok());
    let staged: Vec<u64> = production.into_iter().flatten().copied().collect();
    let listed = || staged.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match (aliased, staged.as_slice()) {
        (None, []) => Some((Status::Critical, format!("no version of {name} has the alias {alias} or is in {STAGE}"))),
        (_, [_, _, ..]) => {
            let beside = aliased.map_or(String::new(), |v| format!(", and {alias} is version {v}"));
            Some((
                Status::Critical,
                format!("{} versions of {name} are in {STAGE}: {}{beside}", staged.len(), listed()),
            ))
        }
        (Some(aliased), [staged]) if aliased != *staged => {
            let what = format!("{name}: the alias {alias} names version {aliased}, in {STAGE} is version {staged}");
            Some((Status::Warning, what))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clear_which_version_is_in_production() {
        let model = |version: Option<&str>| RegisteredModel {
            name: "m".to_owned(),
            created: None,
            updated: None,
            description: String::new(),
            latest_versions: Vec::new(),
            aliases: version.map(|v| ("champion".to_owned(), v.to_owned())).into_iter().collect(),
            tags: Vec::new(),
        };
        for (alias, staged, wanted) in [
            (Some("3"), &[][..], None),
            (None, &[2], None),
            (Some("2"), &[2], None),
            (Some("3"), &[2], Some(Status::Warning)),
            (None, &[], Some(Status::Critical)),
            (None, &[1, 2], Some(Status::Critical)),
            (Some("1"), &[1, 2], Some(Status::Critical)),
        ] {
            let staged: BTreeSet<u64> = staged.iter().copied().collect();
            let found = unclear(&model(alias), "champion", Some(&staged));
            assert_eq!(found.map(|(status, _)| status), wanted, "{alias:?} {staged:?}");
        }
    }
}
