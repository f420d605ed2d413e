//! The model registry: registered models with versions, stages, aliases and tags, and prompts, which MLflow keeps as
//! registered models too.

use super::model::model_artifacts;
use super::row::{Rows, Value};
use super::stack::{DAY, END, MINUTE, SECOND, Stack};
use crate::domain::failure::Outcome;

/// Where a version stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    None,
    Staging,
    Production,
    Archived,
    Deleted,
}

impl Stage {
    /// The stage of version `number` of `newest`.
    fn of(number: usize, newest: usize) -> Stage {
        match newest - number {
            _ if number == 2 && newest >= 6 => Stage::Deleted,
            0 if newest == 1 => Stage::Production,
            0 => Stage::None,
            1 if newest == 2 => Stage::Production,
            1 => Stage::Staging,
            2 => Stage::Production,
            _ => Stage::Archived,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Stage::None => "None",
            Stage::Staging => "Staging",
            Stage::Production => "Production",
            Stage::Archived => "Archived",
            Stage::Deleted => "Deleted_Internal",
        }
    }
}

/// A version of a registered model.
struct Version<'a> {
    model: &'a str,
    number: i64,
    stage: Stage,
    newest: bool,
    run: u32,
    created: i64,
    updated: i64,
}

/// Takes (experiment, registered model, its versions).
type EachModel<'f> = &'f mut dyn FnMut(u32, &str, &[Version<'_>]) -> Outcome<()>;

/// A prompt: its name, what its versions are for, its texts.
struct Prompt {
    name: &'static str,
    kind: &'static str,
    about: [&'static str; 3],
    texts: [&'static str; 3],
}

const PROMPTS: [Prompt; 2] = [
    Prompt {
        name: "support-answer",
        kind: "text",
        about: ["first", "shorter", "in the customer's language"],
        texts: [
            "Answer the question from the handbook.\n\nQuestion: {{question}}\nHandbook: {{context}}",
            "Answer in two sentences: {{question}}\n\n{{context}}",
            "Answer in {{language}}, in two sentences, from this text only:\n\n{{context}}\n\n{{question}}",
        ],
    },
    Prompt {
        name: "summarise-ticket",
        kind: "chat",
        about: ["first", "with the product", "höflich"],
        texts: [
            r#"[{"role": "user", "content": "Summarise: {{ticket}}"}]"#,
            r#"[{"role": "system", "content": "You know {{product}}."}, {"role": "user", "content": "Summarise: {{ticket}}"}]"#,
            r#"[{"role": "system", "content": "You know {{product}} – and you are polite."}, {"role": "user", "content": "{{ticket}}"}]"#,
        ],
    },
];

impl Prompt {
    /// When a version of it, from 0, was made.
    fn created(version: usize) -> i64 {
        END - 90 * DAY + i64::try_from(version).unwrap_or(0) * 17 * DAY
    }

    /// Its versions: number, what it is for, text, time.
    fn versions(&self) -> impl Iterator<Item = (i64, &'static str, &'static str, i64)> {
        let both = self.about.into_iter().zip(self.texts).enumerate();
        both.map(|(place, (about, text))| (1 + place as i64, about, text, Prompt::created(place)))
    }
}

impl Stack {
    /// The versions of the model of each experiment that has any, oldest first.
    fn each_registered(&self, each: EachModel<'_>) -> Outcome<()> {
        for (id, runs) in (0u32..).zip(&self.registered) {
            let Some(model) = self.experiment(id).model().filter(|_| !runs.is_empty()) else { continue };
            let versions: Vec<Version<'_>> = (1usize..)
                .zip(runs)
                .map(|(number, index)| {
                    let run = self.run(*index);
                    let created = run.end.unwrap_or(run.start) + 5 * MINUTE;
                    let stage = Stage::of(number, runs.len());
                    let updated = if stage == Stage::None { created } else { created + 3 * DAY };
                    let newest = number == runs.len();
                    Version { model: &model, number: number as i64, stage, newest, run: *index, created, updated }
                })
                .collect();
            each(id, &model, &versions)?;
        }
        Ok(())
    }

    pub(super) fn registered_models(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_registered(&mut |id, model, versions| {
            let created = versions.iter().map(|v| v.created).min().unwrap_or(END) - SECOND;
            let updated = versions.iter().map(|v| v.updated).max().unwrap_or(END);
            rows.add(&[
                ("name", model.into()),
                ("creation_time", created.into()),
                ("last_updated_time", updated.into()),
                ("description", self.experiment(id).project.about.into()),
                ("workspace", "default".into()),
            ])
        })?;
        for prompt in &PROMPTS {
            rows.add(&[
                ("name", prompt.name.into()),
                ("creation_time", (Prompt::created(0) - SECOND).into()),
                ("last_updated_time", Prompt::created(2).into()),
                ("description", "first".into()),
                ("workspace", "default".into()),
            ])?;
        }
        Ok(())
    }

    pub(super) fn registered_model_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        let mut add = |name: &str, key: &str, value: Value<'_>| {
            rows.add(&[("key", key.into()), ("value", value), ("name", name.into()), ("workspace", "default".into())])
        };
        self.each_registered(&mut |id, model, _| {
            add(model, "team", self.experiment(id).project.team.into())?;
            add(model, "flavor", self.experiment(id).project.flavor.into())
        })?;
        for prompt in &PROMPTS {
            add(prompt.name, "mlflow.prompt.is_prompt", "true".into())?;
            add(prompt.name, "_mlflow_experiment_ids", format!(",{},", self.traced.0).into())?;
        }
        Ok(())
    }

    pub(super) fn registered_model_aliases(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        let mut add = |name: &str, alias: &str, version: i64| {
            rows.add(&[
                ("alias", alias.into()),
                ("version", version.into()),
                ("name", name.into()),
                ("workspace", "default".into()),
            ])
        };
        self.each_registered(&mut |_, model, versions| {
            for version in versions {
                match version.stage {
                    Stage::Production => add(model, "champion", version.number)?,
                    Stage::None if version.newest => add(model, "challenger", version.number)?,
                    _ => {}
                }
            }
            Ok(())
        })?;
        PROMPTS.iter().try_for_each(|prompt| add(prompt.name, "production", 2))
    }

    pub(super) fn model_versions(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        self.each_registered(&mut |_, _, versions| versions.iter().try_for_each(|v| self.model_version(rows, v)))?;
        for prompt in &PROMPTS {
            for (number, about, _, created) in prompt.versions() {
                rows.add(&[
                    ("name", prompt.name.into()),
                    ("version", number.into()),
                    ("creation_time", created.into()),
                    ("last_updated_time", created.into()),
                    ("description", about.into()),
                    ("current_stage", Stage::None.word().into()),
                    ("source", "dummy-source".into()),
                    ("status", "READY".into()),
                    ("storage_location", "dummy-source".into()),
                    ("workspace", "default".into()),
                ])?;
            }
        }
        Ok(())
    }

    fn model_version(&self, rows: &mut Rows<'_>, version: &Version<'_>) -> Outcome<()> {
        let run = self.run(version.run);
        let logged = run.model().unwrap_or_default();
        // What MLflow leaves of a deleted version.
        let gone = version.stage == Stage::Deleted;
        let redacted = |kept: String, name: &str| if gone { format!("REDACTED-{name}") } else { kept };
        let about = format!("Trained by {} as {}.", run.user, run.name());
        rows.add(&[
            ("name", version.model.into()),
            ("version", version.number.into()),
            ("creation_time", version.created.into()),
            ("last_updated_time", version.updated.into()),
            ("description", (!gone).then_some(about).into()),
            ("current_stage", version.stage.word().into()),
            ("source", redacted(format!("models:/{logged}"), "SOURCE-PATH").into()),
            ("run_id", redacted(run.id.clone(), "RUN-ID").into()),
            ("status", "READY".into()),
            ("run_link", gone.then_some("REDACTED-RUN-LINK").into()),
            ("storage_location", model_artifacts(&run, &logged).into()),
            ("workspace", "default".into()),
        ])
    }

    pub(super) fn model_version_tags(&self, rows: &mut Rows<'_>) -> Outcome<()> {
        let mut add = |name: &str, version: i64, key: &str, value: &str| {
            rows.add(&[
                ("key", key.into()),
                ("value", value.into()),
                ("name", name.into()),
                ("version", version.into()),
                ("workspace", "default".into()),
            ])
        };
        self.each_registered(&mut |_, model, versions| {
            for version in versions.iter().filter(|v| v.stage != Stage::Deleted) {
                let state = if version.stage == Stage::None { "pending" } else { "approved" };
                add(model, version.number, "validation_status", state)?;
                if version.stage == Stage::Production {
                    add(model, version.number, "note", "live since the release – 本番")?;
                }
            }
            Ok(())
        })?;
        for prompt in &PROMPTS {
            for (number, _, text, _) in prompt.versions() {
                add(prompt.name, number, "mlflow.prompt.is_prompt", "true")?;
                add(prompt.name, number, "_mlflow_prompt_type", prompt.kind)?;
                add(prompt.name, number, "mlflow.prompt.text", text)?;
            }
        }
        Ok(())
    }
}
