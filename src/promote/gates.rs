//! The gates, asked one after the other; all of them, also after one that refused.

use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless;
use crate::domain::promotion::gate::{self, Gate, Verdict};
use crate::domain::promotion::place::{Place, Registered};
use crate::domain::promotion::record::Record;
use crate::domain::promotion::requirement::{Requirement, Values};
use crate::domain::promotion::settings::Asked;
use crate::domain::tracking::ModelVersion;
use crate::engine::cancel::Cancel;
use crate::mlflow::Client;
use crate::registry::metrics::{Origin, origin};
use crate::registry::mlmodel::mlmodel;
use crate::shell;

/// Characters of a command's words that are kept.
const KEPT: usize = 200;

/// Who is judged, and beside whom.
pub(super) struct Trial<'a> {
    pub(super) client: &'a Client,
    pub(super) registered: &'a Registered,
    pub(super) challenger: &'a ModelVersion,
    /// The version in production now.
    pub(super) champion: Option<&'a ModelVersion>,
    pub(super) records: &'a [Record],
    /// What is said where there is nobody to compare with.
    pub(super) nobody: &'a str,
    pub(super) now: jiff::Timestamp,
    pub(super) cancel: &'a Cancel,
}

impl Trial<'_> {
    /// Asks all of them.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn judge(&self, asked: &Asked) -> Outcome<Vec<Gate>> {
        let version = self.challenger;
        let mut gates = Vec::new();
        if !asked.require.is_empty() {
            gates.extend(self.requirements(asked).await?);
        }
        gates.extend(of_version(version, asked));
        if asked.signature {
            gates.push(self.signature().await);
        }
        gates.extend(asked.max_age.map(|most| gate::age(version, most, self.now)));
        gates.extend(
            asked.soak.map(|least| gate::soak(self.registered, version.version, self.records, least, self.now)),
        );
        for command in &asked.checks {
            gates.push(self.check(command, asked).await?);
        }
        // What is always asked comes first.
        gates.sort_by_key(|gate| gate.gate != "ready");
        Ok(gates)
    }

    async fn requirements(&self, asked: &Asked) -> Outcome<Vec<Gate>> {
        let own = origin(self.client, self.challenger).await?;
        let champion: Option<Origin> = match self.champion {
            Some(version) if asked.require.iter().any(|r| r.compares()) => Some(origin(self.client, version).await?),
            _ => None,
        };
        let value = |name: &str| own.metric(name);
        let beside = |name: &str| champion.as_ref().and_then(|champion| champion.metric(name));
        let judge = |requirement: &Requirement| {
            let values: Option<Values<'_>> = if champion.is_some() { Some(&beside) } else { None };
            let mut gate = gate::requirement(requirement, &value, values, self.nobody);
            let many = requirement.metrics().iter().find_map(|metric| own.several(metric));
            if let (Verdict::Refused, Some(names)) = (gate.verdict, many) {
                gate.reason = format!("{}; it was measured on several datasets: name one of {names}", gate.reason);
            }
            gate
        };
        Ok(asked.require.iter().map(judge).collect())
    }

    async fn signature(&self) -> Gate {
        let verdict = match mlmodel(self.client, self.challenger).await {
            Ok(model) if model.signature.is_some() => Ok("its MLmodel has a signature".to_owned()),
            Ok(_) => Err("its MLmodel has no signature".to_owned()),
            Err(why) => Err(format!("its MLmodel could not be read: {why}")),
        };
        Gate::new("signature", "the model has a signature", verdict)
    }

    async fn check(&self, command: &str, asked: &Asked) -> Outcome<Gate> {
        let version = self.challenger;
        let champion = self.champion.map(|v| v.version.to_string()).unwrap_or_default();
        let variables = [
            ("MODEL_NAME", version.name.clone()),
            ("VERSION", version.version.to_string()),
            ("RUN_ID", version.run_id.clone()),
            ("MODEL_URI", format!("models:/{}/{}", version.name, version.version)),
            ("CHAMPION_VERSION", champion),
        ];
        let (text, within, cancel) = (command.to_owned(), asked.check_timeout, self.cancel.clone());
        let ended = tokio::task::spawn_blocking(move || shell::run(&text, &variables, within, &cancel)).await;
        self.cancel.check()?;
        let verdict = match ended.map_err(|e| Failure::internal(format!("the check could not be run: {e}")))? {
            Err(why) => Err(why),
            Ok(ended) => {
                let words = last_line(&ended.err).or_else(|| last_line(&ended.out));
                let words = words.map_or(String::new(), |words| format!(": {words}"));
                match ended.status.code() {
                    Some(0) => Ok(format!("exit code 0{words}")),
                    Some(code) => Err(format!("exit code {code}{words}")),
                    None => Err(format!("{}{words}", ended.status)),
                }
            }
        };
        Ok(Gate::new("check", harmless::line(command), verdict))
    }
}

/// The gates that the version itself answers.
pub(super) fn of_version(version: &ModelVersion, asked: &Asked) -> Vec<Gate> {
    let mut gates = vec![gate::ready(version)];
    gates.extend(asked.tags.iter().map(|(key, wanted)| gate::tag(version, key, wanted.as_deref())));
    gates.extend(asked.approvals.iter().map(|key| gate::approval(version, key)));
    gates
}

/// A version that leaves production has to leave somebody there.
pub(super) fn stays(registered: &Registered, version: u64, to: &Place, champions: &Place) -> Option<Gate> {
    let standing = registered.standing(champions);
    let leaves = to.stage.is_some() && champions.stage.is_some() && to.stage != champions.stage;
    let alone = standing.staged.iter().eq([&version]);
    (leaves && alone).then(|| {
        let said = format!("it is the only one in {champions}: promote another version, or roll back, and it leaves");
        Gate::new("champion", "production is not left empty", Err(said))
    })
}

fn last_line(text: &str) -> Option<String> {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(harmless::short(line, KEPT))
}
