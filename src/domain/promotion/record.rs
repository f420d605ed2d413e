//! What is kept of a promotion: as a tag `mlops.promote.<id>` of the version, and as a line in the state folder.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::gate::Gate;
use super::place::{Place, Standing};
use crate::domain::tracking::ModelVersion;

/// The beginning of our tags' names.
pub const TAG: &str = "mlops.promote.";
/// Characters that a tag's value may have: 5,000 up to MLflow 2.9 at least (utils/validation.py,
/// `MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH`).
const MOST: usize = 5_000;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A challenger was put in its place.
    Promote,
    /// A former champion was put back.
    Rollback,
}

impl Action {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Action::Promote => "promote",
            Action::Rollback => "rollback",
        }
    }
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was begun, and nothing more is known.
    Begun,
    /// It was done, and read back.
    Done,
    /// It was not done, or undone.
    Undone,
    /// It was sent, and somebody else's change is what stands.
    Overtaken,
}

/// A promotion or a rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// When it was done, or begun.
    pub at: Timestamp,
    /// What was done.
    pub action: Action,
    /// The version that was put in its place.
    pub version: u64,
    /// The stage that it was in before.
    pub from: String,
    /// The place.
    pub to: Place,
    /// Who was the champion there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<u64>,
    /// Who stood there before, to the last one.
    #[serde(default)]
    pub before: Standing,
    /// Who did it: `user@host`.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was asked of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Gate>,
    /// How far it came.
    pub state: State,
    /// The lock that was held: who holds the same one knows that it is over.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
    /// The model. MLflow copies tags along with versions, from one model to another.
    pub model: String,
    /// The server; in the log only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

/// What a version is told that another one took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// The id of the promotion.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// The model.
    pub model: String,
    /// By which version.
    pub replaced_by: u64,
    /// Where.
    pub place: Place,
    /// Who did it.
    pub by: String,
}

impl Record {
    /// The tag's name.
    pub fn key(&self) -> String {
        format!("{TAG}{}", self.id)
    }

    /// The tag's value: all of it that fits.
    pub fn tag(&self) -> String {
        let mut record = Record { server: None, ..self.clone() };
        let text = |record: &Record| serde_json::to_string(record).unwrap_or_default();
        let clip = |text: &mut String, most: usize| {
            if let Some((at, _)) = text.char_indices().nth(most) {
                text.truncate(at);
                text.push_str("...");
            }
        };
        for most in [usize::MAX, 300, 100, 30] {
            for gate in &mut record.gates {
                clip(&mut gate.asked, most);
                clip(&mut gate.reason, most);
            }
            clip(&mut record.by, most.max(100));
            record.reason.iter_mut().for_each(|reason| clip(reason, most.max(200)));
            let text = text(&record);
            if text.chars().count() <= MOST {
                return text;
            }
        }
        record.gates.truncate(20);
        text(&record)
    }

    /// What its version's tags say, and those of versions that it replaced.
    pub fn of_tags(versions: &[ModelVersion]) -> Vec<Record> {
        let (mut found, mut replaced): (Vec<Record>, Vec<(u64, Replaced)>) = (Vec::new(), Vec::new());
        for version in versions {
            for (key, text) in version.tags.iter().filter(|(key, _)| key.starts_with(TAG)) {
                let own = |id: &str| key.strip_prefix(TAG) == Some(id);
                match serde_json::from_str::<Record>(text) {
                    Ok(record)
                        if own(&record.id) && (record.version, &record.model) == (version.version, &version.name) =>
                    {
                        found.push(record);
                    }
                    // A copy of another version's tags tells nothing of this one.
                    Ok(_) => {}
                    Err(_) => {
                        let told = serde_json::from_str::<Replaced>(text).ok();
                        let told = told.filter(|r| own(&r.id) && r.model == version.name);
                        replaced.extend(told.map(|told| (version.version, told)));
                    }
                }
            }
        }
        // The version that came may be deleted, and its tags with it.
        for (version, told) in replaced {
            if found.iter().any(|record| record.id == told.id) {
                continue;
            }
            found.push(Record {
                before: Standing {
                    staged: told.place.stage.map(|_| version).into_iter().collect(),
                    aliased: told.place.alias.as_ref().map(|_| version),
                },
                id: told.id,
                at: told.at,
                action: Action::Promote,
                version: told.replaced_by,
                from: String::new(),
                to: told.place,
                former: Some(version),
                by: told.by,
                reason: None,
                gates: Vec::new(),
                state: State::Done,
                lock: String::new(),
                model: told.model,
                server: None,
            });
        }
        found
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::place::tests::registered;
    use super::super::place::{Mode, Stage};
    use super::*;

    pub(in super::super) fn record(id: &str, version: u64, to: Place, former: Option<u64>) -> Record {
        Record {
            id: id.to_owned(),
            at: Timestamp::UNIX_EPOCH,
            action: Action::Promote,
            version,
            from: "Staging".to_owned(),
            before: Standing {
                staged: to.stage.and(former).into_iter().collect(),
                aliased: to.alias.as_ref().and(former),
            },
            to,
            former,
            by: "ann@ci".to_owned(),
            reason: None,
            gates: Vec::new(),
            state: State::Done,
            lock: String::new(),
            model: "m".to_owned(),
            server: None,
        }
    }

    #[test]
    fn a_tag_holds_it_within_mlflows_limit() {
        let place = Place::of_champion(Mode::Both, &super::super::place::tests::aliases());
        let mut record = record("20260101T000000Z-00000000", 2, place, Some(1));
        let back: Record = serde_json::from_str(&record.tag()).expect("json");
        assert_eq!(back, record);
        record.reason = Some("ü".repeat(6_000));
        record.gates = (0..200).map(|_| Gate::new("require", "x".repeat(500), Err("y".repeat(900)))).collect();
        let text = record.tag();
        assert!(text.chars().count() <= MOST, "{}", text.chars().count());
        let back: Record = serde_json::from_str(&text).expect("json");
        assert_eq!((back.version, back.former, back.state), (2, Some(1), State::Done));
    }

    #[test]
    fn what_a_deleted_version_replaced_still_tells_of_it() {
        let mut model = registered(&["Archived"], &[]);
        let place = Place { stage: Some(Stage::Production), alias: None };
        let told = Replaced {
            id: "a".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            model: "m".to_owned(),
            replaced_by: 2,
            place,
            by: "ann".to_owned(),
        };
        let json = serde_json::to_string(&told).expect("json");
        model.versions[0].tags = vec![
            ("mlops.promote.a".to_owned(), json.clone()),
            ("mlops.promote.b".to_owned(), json),
            ("x".to_owned(), "{".to_owned()),
        ];
        let found = Record::of_tags(&model.versions);
        assert_eq!(found.iter().map(|r| (r.version, r.former)).collect::<Vec<_>>(), [(2, Some(1))]);
    }
}
