//! A server in a container, through Docker's own command line: restarted, since when it runs, and whether what it keeps lies
//! on a volume that outlives it.

use std::time::Duration;

use serde::Deserialize;

use crate::domain::failure::{Failure, Outcome};
use crate::domain::verify::ledger::Divergence;
use crate::engine::cancel::Cancel;
use crate::shell;

/// For a question; Docker's own restart takes up to its grace period, and is bounded by the caller.
const QUESTION: Duration = Duration::from_secs(30);

/// What is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// A container by its name or id.
    Container(String),
    /// A service of the Compose file in the current folder.
    Service(String),
}

impl Unit {
    /// Reads `docker:NAME` and `compose:SERVICE`.
    ///
    /// # Errors
    /// Usage: neither.
    pub fn parse(text: &str) -> Outcome<Unit> {
        let plain = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        };
        match text.split_once(':') {
            Some(("docker", name)) if plain(name) => Ok(Unit::Container(name.to_owned())),
            Some(("compose", name)) if plain(name) => Ok(Unit::Service(name.to_owned())),
            _ => Err(Failure::usage("--restart takes docker:CONTAINER or compose:SERVICE")
                .hint("for anything else there is --restart-cmd 'CMD'")),
        }
    }

    /// The command that restarts it.
    pub fn restart(&self) -> String {
        match self {
            Unit::Container(name) => format!("docker restart {name}"),
            Unit::Service(name) => compose(&format!("restart {name}")),
        }
    }

    /// The container; `None`: there is none.
    ///
    /// # Errors
    /// Target: Docker is not there, or does not answer.
    pub fn look(&self, cancel: &Cancel) -> Outcome<Container> {
        let id = match self {
            Unit::Container(name) => name.clone(),
            Unit::Service(name) => {
                let told = asked(&compose(&format!("ps -q {name}")), cancel)?;
                let id = told.lines().next().unwrap_or_default().trim().to_owned();
                if id.is_empty() || !id.chars().all(|c| c.is_ascii_hexdigit()) {
                    return Err(Failure::target(format!("Compose knows no running container of {name}"))
                        .hint("run this in the folder of the Compose file, with the stack up"));
                }
                id
            }
        };
        let told = asked(&format!("docker inspect --type container {id}"), cancel)?;
        let all: Vec<Container> = serde_json::from_str(&told)
            .map_err(|e| Failure::target(format!("`docker inspect {id}` says what is not understood: {e}")))?;
        all.into_iter().next().ok_or_else(|| Failure::target(format!("Docker knows no container {id}")))
    }
}

/// Compose is a plugin of Docker's, or the older program of its own.
fn compose(what: &str) -> String {
    format!("if docker compose version >/dev/null 2>&1; then docker compose {what}; else docker-compose {what}; fi")
}

fn asked(command: &str, cancel: &Cancel) -> Outcome<String> {
    let failed = |why: String| {
        Failure::target(format!("Docker cannot be asked: {why}"))
            .hint("is `docker` installed here, and may this user use it? --restart-cmd needs no Docker")
    };
    let ended = shell::run(command, &[], QUESTION, cancel).map_err(failed)?;
    if ended.status.success() { Ok(ended.out) } else { Err(failed(ended.err.trim().to_owned())) }
}

/// What Docker says of a container.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    state: State,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    path: String,
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    started_at: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    destination: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: String,
}

impl Container {
    /// When it was started, as Docker writes it.
    pub fn started(&self) -> &str {
        &self.state.started_at
    }

    /// What a flag of `mlflow server` or the variable of the same meaning says.
    fn setting(&self, flag: &str, variable: &str) -> Option<String> {
        // A shell's `-c` holds the whole command as one argument.
        let words: Vec<&str> =
            std::iter::once(&self.path).chain(&self.args).flat_map(|a| a.split_whitespace()).collect();
        let flagged = words.iter().enumerate().find_map(|(index, word)| {
            let rest = word.strip_prefix(flag)?;
            rest.strip_prefix('=').or_else(|| words.get(index + 1).copied().filter(|_| rest.is_empty()))
        });
        let named = self.config.env.iter().flatten().find_map(|line| line.strip_prefix(variable)?.strip_prefix('='));
        flagged.or(named).map(|value| value.trim_matches(['\'', '"']).to_owned())
    }

    /// The folders that it keeps things in, and what they are.
    fn kept(&self) -> Vec<(&'static str, String)> {
        let mut kept = Vec::new();
        let absolute = |path: &str| match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{}", self.config.working_dir.trim_end_matches('/'), path.trim_start_matches("./")),
        };
        let store = self.setting("--backend-store-uri", "MLFLOW_BACKEND_STORE_URI");
        if let Some(path) = store.as_deref().and_then(|uri| uri.strip_prefix("sqlite:///")) {
            kept.push(("the database", absolute(path.split('?').next().unwrap_or_default())));
        }
        let root = self
            .setting("--artifacts-destination", "MLFLOW_ARTIFACTS_DESTINATION")
            .or_else(|| self.setting("--default-artifact-root", "MLFLOW_DEFAULT_ARTIFACT_ROOT"));
        if let Some(root) = root {
            let path = root.strip_prefix("file://").unwrap_or(&root);
            if !path.contains(":/") {
                kept.push(("the artifacts", absolute(path)));
            }
        }
        kept
    }

    /// What of its data does not outlive it.
    pub fn fleeting(&self, name: &str) -> Vec<Divergence> {
        let mut found = Vec::new();
        let mut add = |kind, told: String| found.push(Divergence { kind, on: name.to_owned(), told });
        for (what, path) in self.kept() {
            let below = |m: &&Mount| {
                let rest = path.strip_prefix(m.destination.trim_end_matches('/'));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            match self.mounts.iter().filter(below).max_by_key(|m| m.destination.len()) {
                None => add("missing_volume", format!("{what} ({path}) lies in the container itself and goes with it")),
                Some(mount) if mount.kind == "tmpfs" => {
                    add("ephemeral_path", format!("{what} ({path}) lies in memory (tmpfs)"));
                }
                Some(mount) if mount.kind == "volume" && anonymous(&mount.name) => {
                    let told = format!(
                        "{what} ({path}) lies on a volume without a name, which the next container does not get"
                    );
                    add("anonymous_volume", told);
                }
                Some(_) => {}
            }
        }
        found
    }
}

/// Docker names a volume that nobody named by 64 hex digits.
fn anonymous(name: &str) -> bool {
    name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(mounts: &str, args: &str) -> Container {
        let text = format!(
            r#"{{"State": {{"StartedAt": "2026-01-01T00:00:00Z"}}, "Mounts": {mounts}, "Path": "sh", "Args": ["-c", "{args}"],
                "Config": {{"Env": ["MLFLOW_DEFAULT_ARTIFACT_ROOT=/art"], "WorkingDir": "/app"}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn data_without_a_volume_of_its_own_is_named() {
        let kinds = |mounts: &str, args: &str| -> Vec<&str> {
            container(mounts, args).fleeting("c").into_iter().map(|d| d.kind).collect()
        };
        let sqlite = "mlflow server --backend-store-uri sqlite:///data/mlflow.db";
        let volume = |name: &str, to: &str| format!(r#"{{"Type": "volume", "Name": "{name}", "Destination": "{to}"}}"#);
        let hex = "ab".repeat(32);
        let (art, data) = (volume("art", "/art"), volume("data", "/app/data"));
        assert_eq!(kinds(&format!("[{art}, {data}]"), sqlite), [""; 0]);
        assert_eq!(kinds(&format!("[{art}]"), sqlite), ["missing_volume"]);
        assert_eq!(kinds(&format!("[{data}]"), sqlite), ["missing_volume"]);
        assert_eq!(kinds(&format!("[{art}, {}]", volume(&hex, "/app")), sqlite), ["anonymous_volume"]);
        // A mount whose name only begins alike is none of it.
        assert_eq!(kinds(&format!("[{art}, {}]", volume("data", "/app/dat")), sqlite), ["missing_volume"]);
        let bound = r#"[{"Type": "bind", "Source": "/srv", "Destination": "/"}]"#;
        assert_eq!(kinds(bound, sqlite), [""; 0]);
        let absolute = "mlflow server --backend-store-uri=sqlite:////data/m.db";
        assert_eq!(
            kinds(&format!("[{art}, {}]", r#"{"Type": "tmpfs", "Destination": "/data"}"#), absolute),
            ["ephemeral_path"]
        );
        assert_eq!(kinds(&format!("[{art}]"), "mlflow server --backend-store-uri postgresql://db/x"), [""; 0]);
    }

    #[test]
    fn units_are_read_and_shell_is_not() {
        assert_eq!(Unit::parse("docker:ml-flow_1").unwrap().restart(), "docker restart ml-flow_1");
        assert_eq!(Unit::parse("compose:api").unwrap(), Unit::Service("api".to_owned()));
        for bad in ["api", "docker:", "docker:-f", "docker:a b", "compose:a;rm", "podman:x", "docker:$(x)"] {
            assert!(Unit::parse(bad).is_err(), "{bad}");
        }
    }
}
