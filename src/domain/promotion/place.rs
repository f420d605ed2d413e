//! Where versions stand: in a stage, under an alias, or both.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::tracking::{ModelVersion, RegisteredModel};

/// A stage, as MLflow calls it (entities/model_registry/model_version_stages.py).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// None.
    None,
    /// Staging.
    Staging,
    /// Production.
    Production,
    /// Archived.
    Archived,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 4] = [Stage::None, Stage::Staging, Stage::Production, Stage::Archived];

    /// MLflow's word.
    pub const fn word(self) -> &'static str {
        match self {
            Stage::None => "None",
            Stage::Staging => "Staging",
            Stage::Production => "Production",
            Stage::Archived => "Archived",
        }
    }

    /// Reads one; case does not matter, as in MLflow.
    pub fn parse(text: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.word().eq_ignore_ascii_case(text))
    }
}

/// How a model's champion is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By its stage.
    Stage,
    /// By an alias.
    Alias,
    /// By both.
    Both,
}

impl Mode {
    /// Whether it is one by stage.
    pub fn stage(self) -> bool {
        self != Mode::Alias
    }

    /// Whether it is one by alias.
    pub fn alias(self) -> bool {
        self != Mode::Stage
    }
}

/// The alias of versions in production, where no other is configured.
pub const CHAMPION: &str = "champion";
/// That of the ones that are to follow them.
pub const CHALLENGER: &str = "challenger";

/// The names that a model's aliases have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aliases {
    /// Of the version in production.
    pub champion: String,
    /// Of the one that is to follow it.
    pub challenger: String,
}

/// Where a version is put. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The alias, without `@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

impl Place {
    /// Where the version in production stands.
    pub fn of_champion(mode: Mode, aliases: &Aliases) -> Place {
        Place {
            stage: mode.stage().then_some(Stage::Production),
            alias: mode.alias().then(|| aliases.champion.clone()),
        }
    }

    /// Where the next one waits.
    pub fn of_challenger(mode: Mode, aliases: &Aliases) -> Place {
        Place { stage: mode.stage().then_some(Stage::Staging), alias: mode.alias().then(|| aliases.challenger.clone()) }
    }

    /// Whether it holds one version only. Several may wait in Staging, and many are Archived.
    pub fn is_single(&self) -> bool {
        self.alias.is_some() || self.stage == Some(Stage::Production)
    }

    /// Whether a version that is put there takes another's stage from it.
    pub fn archives(&self) -> bool {
        self.stage == Some(Stage::Production)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stage, &self.alias) {
            (Some(stage), Some(alias)) => write!(f, "{} and @{alias}", stage.word()),
            (Some(stage), None) => f.write_str(stage.word()),
            (None, Some(alias)) => write!(f, "@{alias}"),
            (None, None) => f.write_str("nowhere"),
        }
    }
}

/// A model with all its versions.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The model, with its aliases.
    pub model: RegisteredModel,
    /// Its versions.
    pub versions: Vec<ModelVersion>,
}

/// Who stands in a place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Versions in its stage.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub staged: BTreeSet<u64>,
    /// The version under its alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliased: Option<u64>,
}

impl Registered {
    /// A version.
    pub fn version(&self, number: u64) -> Option<&ModelVersion> {
        self.versions.iter().find(|v| v.version == number)
    }

    /// The versions in a stage.
    pub fn in_stage(&self, stage: Stage) -> BTreeSet<u64> {
        self.versions.iter().filter(|v| Stage::parse(&v.stage) == Some(stage)).map(|v| v.version).collect()
    }

    /// The version under an alias.
    pub fn under(&self, alias: &str) -> Option<u64> {
        let named = self.model.aliases.iter().find(|(name, _)| name == alias);
        named.and_then(|(_, version)| version.parse().ok())
    }

    /// Who stands in a place.
    pub fn standing(&self, place: &Place) -> Standing {
        Standing {
            staged: place.stage.map(|stage| self.in_stage(stage)).unwrap_or_default(),
            aliased: place.alias.as_deref().and_then(|alias| self.under(alias)),
        }
    }

    /// How the version in production is marked today; `None`: there is none.
    pub fn mode(&self, aliases: &Aliases) -> Option<Mode> {
        match (self.under(&aliases.champion), self.in_stage(Stage::Production).is_empty()) {
            (Some(_), false) => Some(Mode::Both),
            (Some(_), true) => Some(Mode::Alias),
            (None, false) => Some(Mode::Stage),
            (None, true) => None,
        }
    }
}

impl Standing {
    /// The version that counts as the one in this place: the one under the alias, else the newest in the stage.
    pub fn champion(&self) -> Option<u64> {
        self.aliased.or_else(|| self.staged.last().copied())
    }

    /// Whether a version, and in a single place no other one, stands in all of a place.
    pub fn is(&self, place: &Place, version: u64) -> bool {
        let staged = match (place.stage, place.archives()) {
            (None, _) => true,
            (Some(_), true) => self.staged.iter().eq([&version]),
            (Some(_), false) => self.staged.contains(&version),
        };
        staged && (place.alias.is_none() || self.aliased == Some(version))
    }

    /// Whether a version stands in any part of a place.
    pub fn touches(&self, version: u64) -> bool {
        self.staged.contains(&version) || self.aliased == Some(version)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A model whose versions, from 1 on, are in these stages.
    pub(in super::super) fn registered(stages: &[&str], aliases: &[(&str, u64)]) -> Registered {
        let version = |(index, stage): (usize, &&str)| ModelVersion {
            name: "m".to_owned(),
            version: index as u64 + 1,
            status: "READY".to_owned(),
            status_message: String::new(),
            stage: (*stage).to_owned(),
            source: String::new(),
            run_id: format!("run{}", index + 1),
            created: Some(1_000 * (index as i64 + 1)),
            updated: None,
            description: String::new(),
            aliases: Vec::new(),
            tags: Vec::new(),
        };
        Registered {
            model: RegisteredModel {
                name: "m".to_owned(),
                created: None,
                updated: None,
                description: String::new(),
                latest_versions: Vec::new(),
                aliases: aliases.iter().map(|(name, version)| ((*name).to_owned(), version.to_string())).collect(),
                tags: Vec::new(),
            },
            versions: stages.iter().enumerate().map(version).collect(),
        }
    }

    pub(in super::super) fn aliases() -> Aliases {
        Aliases { champion: "champion".to_owned(), challenger: "challenger".to_owned() }
    }

    #[test]
    fn who_stands_where() {
        let place = Place::of_champion(Mode::Both, &aliases());
        for (stages, alias, champion, is_two) in [
            (&["None", "Production"][..], None, Some(2), false),
            (&["Production", "Production"], Some(2), Some(2), false),
            (&["Archived", "production"], Some(2), Some(2), true),
            (&["Production", "None"], Some(2), Some(2), false),
            (&["None"], None, None, false),
        ] {
            let named: Vec<(&str, u64)> = alias.map(|v| ("champion", v)).into_iter().collect();
            let standing = registered(stages, &named).standing(&place);
            assert_eq!(standing.champion(), champion, "{stages:?} {alias:?}");
            assert_eq!(standing.is(&place, 2), is_two, "{stages:?} {alias:?}");
        }
        let staging = Place::of_challenger(Mode::Stage, &aliases());
        assert!(registered(&["Staging", "Staging"], &[]).standing(&staging).is(&staging, 1));
        assert_eq!(place.to_string(), "Production and @champion");
    }
}
