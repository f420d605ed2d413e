//! Secrets that stand elsewhere: `KEY_file`, `KEY_env` and `KEY_command` in the configuration file in the place of `KEY`.
//! They are read when they are needed, and only then.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::environment::Environment;
use crate::domain::address::shown;
use crate::domain::failure::{Failure, Outcome};
use crate::domain::harmless;
use crate::engine::cancel::Cancel;
use crate::shell;

/// How long a command may take: a password manager may ask a server.
const PATIENCE: Duration = Duration::from_secs(30);
/// A line that is longer is no secret.
const LONGEST: u64 = 64 << 10;

/// How a value is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// As it is.
    Plain(String),
    /// It is what a file holds.
    File(PathBuf),
    /// It is what an environment variable holds.
    Env(String),
    /// It is what a shell command prints.
    Command(String),
}

/// What a word in the file says.
pub(super) type Way = fn(String) -> Given;

/// What is put behind the name of a key, and what its value is then.
pub(super) const WAYS: [(&str, Way); 3] =
    [("_file", |text| Given::File(PathBuf::from(text))), ("_env", Given::Env), ("_command", Given::Command)];

impl Given {
    /// Where the value is, for people; nothing where it stands for itself.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Given::Plain(_) => None,
            Given::File(path) => Some(format!("the file {}", shown(path))),
            Given::Env(name) => Some(format!("the environment variable {name}")),
            Given::Command(command) => Some(match command.split_whitespace().next() {
                // What follows may be a password of its own, and so may a variable before it.
                Some(program) if !program.contains('=') => format!("the command `{}`", harmless::short(program, 60)),
                _ => "a command".to_owned(),
            }),
        }
    }

    /// The value. `key`: whose it is, for complaints.
    ///
    /// # Errors
    /// Configuration: the file cannot be read, the variable is not set, the command failed, or it is not one line.
    pub(super) fn read(&self, key: &str, environment: &Environment) -> Outcome<SecretString> {
        let failed = |why: String| {
            let told = self.told().unwrap_or_default();
            Failure::configuration(format!("{key} is to come from {told}: {why}"))
        };
        match self {
            Given::Plain(text) => Ok(SecretString::from(text.clone())),
            Given::File(path) => of_file(path).and_then(|text| line(&text)).map_err(failed),
            Given::Env(name) => {
                let text = environment.get(name).ok_or_else(|| "it is not set or is empty".to_owned());
                text.and_then(|text| line(&text)).map_err(failed)
            }
            Given::Command(command) => {
                let ended = shell::run(command, &[], PATIENCE, &Cancel::new()).map_err(failed)?;
                if !ended.status.success() {
                    // What it said is not repeated: it may hold the very secret.
                    return Err(failed(ended.status.to_string()).hint("run it by hand: what does it say?"));
                }
                line(&ended.out).map_err(failed)
            }
        }
    }
}

/// What a file holds.
pub(super) fn of_file(path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > LONGEST => Err("it is too long to be one".to_owned()),
        Ok(_) => std::fs::read_to_string(path).map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

/// The one line that a secret has.
pub(super) fn line(text: &str) -> Result<SecretString, String> {
    let line = text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t));
    match line {
        "" => Err("it is empty".to_owned()),
        _ if line.contains(['\0', '\n', '\r']) => Err("it holds more than one line, and a secret has one".to_owned()),
        _ => Ok(SecretString::from(line)),
    }
}

/// What is to be said of a file with a secret that everybody on the machine can read.
pub(super) fn exposed(path: &Path) -> Option<String> {
    let meta = std::fs::metadata(path).ok()?;
    let file = shown(path);
    (meta.is_file() && meta.mode() & 0o004 != 0)
        .then(|| format!("{file} holds a secret and everybody on this machine can read it: chmod 600 {file}"))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(given: &Given) -> Result<String, String> {
        let environment = Environment::of(&[("PASSWORD", "of a variable")]);
        let read = given.read("tracking_password", &environment);
        read.map(|s| s.expose_secret().to_owned()).map_err(|f| f.message)
    }

    #[test]
    fn a_secret_is_one_line_from_where_it_stands() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            Given::File(path)
        };
        let command = |text: &str| Given::Command(text.to_owned());
        for (given, wanted) in [
            (Given::Plain("as it is".to_owned()), "as it is"),
            (file("a", "of a file\n"), "of a file"),
            (file("b", " blanks stay \r\n"), " blanks stay "),
            (Given::Env("PASSWORD".to_owned()), "of a variable"),
            (command("echo said"), "said"),
        ] {
            assert_eq!(read(&given).as_deref(), Ok(wanted));
        }
        for (given, says) in [
            (file("empty", "\n"), "it is empty"),
            (file("two", "hunter2\nhunter3\n"), "more than one line"),
            (Given::File(folder.path().join("none")), "No such file"),
            (Given::Env("OTHER".to_owned()), "not set"),
            (command("echo hunter2; echo hunter2 is locked >&2; exit 3"), "exit status: 3"),
            (command("true"), "it is empty"),
        ] {
            let why = read(&given).expect_err(says);
            assert!(why.contains(says) && why.starts_with("tracking_password is to come from the "), "{why}");
            assert!(!why.contains("hunter2") || matches!(given, Given::Command(_)), "{why}");
        }
    }
}
