//! The configuration file: TOML, with profiles.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Flags, KEYS, Origin};
use crate::config::environment::Environment;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};

/// A file that was read.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    profile: Option<(String, Table)>,
    base: Table,
}

impl ConfigFile {
    /// The value of a key as text, the profile's before the file's own.
    pub(super) fn get(&self, key: &str) -> Option<(String, Origin)> {
        if let Some((name, table)) = &self.profile
            && let Some(value) = table.get(key)
        {
            return Some((text(value), Origin::File(self.path.clone(), Some(name.clone()))));
        }
        self.base.get(key).map(|value| (text(value), Origin::File(self.path.clone(), None)))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Finds and reads the file: `--config`, `MLOPS_CONFIG`, the user's, the system's. `None`: there is none.
///
/// # Errors
/// Configuration: a named file that is not there, a file that is not TOML or holds an unknown key, an unknown profile.
pub(super) fn read(flags: &Flags, environment: &Environment) -> Outcome<Option<ConfigFile>> {
    let named = flags.file.clone().or_else(|| environment.get("MLOPS_CONFIG").map(PathBuf::from));
    let profile = flags.profile.clone().or_else(|| environment.get("MLOPS_PROFILE"));
    let path = match named {
        Some(path) => Some(path),
        None => {
            let user = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
            let user = user.or_else(|| Some(Path::new(&environment.get("HOME")?).join(".config")));
            let places =
                user.map(|p| p.join("mlops/config.toml")).into_iter().chain([PathBuf::from("/etc/mlops/config.toml")]);
            places.into_iter().find(|p| p.is_file())
        }
    };
    let Some(path) = path else {
        return match profile {
            Some(name) => Err(Failure::configuration(format!(
                "the profile {name} is asked for and there is no configuration file"
            ))
            .hint("name one with --config")),
            None => Ok(None),
        };
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Failure::configuration(format!("the configuration file {} cannot be read: {e}", shown(&path))))?;
    parse(path, &text, profile.as_deref()).map(Some)
}

fn parse(path: PathBuf, text: &str, profile: Option<&str>) -> Outcome<ConfigFile> {
    let mut base: Table = text.parse().map_err(|e: toml::de::Error| {
        // The message shows the place, but also the line itself, which may hold a password: only the place is told.
        let line = e.span().map_or(0, |s| text.get(..s.start).unwrap_or_default().lines().count().max(1));
        Failure::configuration(format!("{} line {line}: {}", shown(&path), e.message()))
    })?;
    let profiles = match base.remove("profile") {
        None => Table::new(),
        Some(Value::Table(profiles)) => profiles,
        Some(_) => return Err(Failure::configuration(format!("{}: `profile` is not a table", shown(&path)))),
    };
    check_keys(&path, text, &base)?;
    let mut chosen = None;
    for (name, table) in profiles {
        let Value::Table(table) = table else {
            return Err(Failure::configuration(format!("{}: `profile.{name}` is not a table", shown(&path))));
        };
        check_keys(&path, text, &table)?;
        if Some(name.as_str()) == profile {
            chosen = Some((name, table));
        }
    }
    if let (Some(name), None) = (profile, &chosen) {
        return Err(Failure::configuration(format!("{} has no profile {name}", shown(&path))));
    }
    Ok(ConfigFile { path, profile: chosen, base })
}

fn check_keys(path: &Path, text: &str, table: &Table) -> Outcome<()> {
    for (key, value) in table {
        let line = text
            .lines()
            .position(|l| l.trim_start().trim_start_matches('[').starts_with(key.as_str()))
            .map_or(0, |n| n + 1);
        if !KEYS.iter().any(|k| k.name == key) {
            let nearest = KEYS
                .iter()
                .map(|k| k.name)
                .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
            return Err(Failure::configuration(format!("{} line {line}: unknown key `{key}`", shown(path)))
                .hint(format!("did you mean `{}`?", nearest.unwrap_or_default())));
        }
        if !matches!(value, Value::String(_) | Value::Integer(_) | Value::Boolean(_)) {
            return Err(Failure::configuration(format!("{} line {line}: `{key}` takes one plain value", shown(path))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_beats_the_file_and_unknown_keys_are_named() {
        let text = "jobs = 2\nwork_dir = \"/var/tmp\"\n[profile.prod]\njobs = 8\n";
        let file = parse(PathBuf::from("c.toml"), text, Some("prod")).expect("sound");
        assert_eq!(file.get("jobs").map(|v| v.0).as_deref(), Some("8"));
        assert_eq!(file.get("work_dir").map(|v| v.0).as_deref(), Some("/var/tmp"));
        let failure = parse(PathBuf::from("c.toml"), "jobs = 1\nwork_dri = \"x\"\n", None).err().expect("unknown key");
        assert_eq!(failure.message, "c.toml line 2: unknown key `work_dri`");
        assert_eq!(failure.hint.as_deref(), Some("did you mean `work_dir`?"));
        assert!(parse(PathBuf::from("c.toml"), text, Some("dev")).is_err());
    }
}
