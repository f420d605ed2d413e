//! The rules of the house, read off the `use crate::` lines.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root().join("src")).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                // Rules are about the program, not about the tests inside a file.
                found.push((name, text.split("#[cfg(test)]").next().unwrap().to_owned()));
            }
        }
    }
    found.sort();
    found
}

fn all() -> Vec<(String, String)> {
    sources(&root().join("src"))
}

/// Rooms that the files under `room` name with `crate::`.
#[track_caller]
fn uses_only(room: &str, allowed: &[&str]) {
    for (name, text) in all().into_iter().filter(|(name, _)| name.starts_with(room)) {
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(used.is_empty() || allowed.contains(&used.as_str()), "{name} uses crate::{used}: {line}");
            }
        }
    }
}

#[track_caller]
fn nowhere(words: &[&str], but: impl Fn(&str) -> bool) {
    for (name, text) in all().into_iter().filter(|(name, _)| !but(name)) {
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{name}:{} has {word}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn domain_is_pure() {
    uses_only("domain/", &["domain"]);
    let io = [
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "std::time",
        "tokio",
        "reqwest",
        "object_store::",
        "postgres::",
        "rusqlite",
        "clap",
        "async ",
    ];
    nowhere(&io, |name| !name.starts_with("domain/"));
    nowhere(&["Timestamp::now", "Zoned::now"], |name| !name.starts_with("domain/"));
}

#[test]
fn engine_knows_the_domain_and_itself() {
    uses_only("engine/", &["domain", "engine"]);
}

#[test]
fn adapters_do_not_know_each_other_or_a_capability() {
    uses_only("store/", &["domain", "engine", "filelock", "newfile", "store", "tls"]);
    uses_only("artifact/", &["artifact", "domain", "engine", "tls"]);
    uses_only("mlflow/", &["domain", "mlflow", "tls", "TOOL"]);
    uses_only("tls.rs", &["domain"]);
    uses_only("shell.rs", &["engine"]);
    uses_only("archive/", &["domain", "engine", "newfile", "archive"]);
    uses_only("filelock.rs", &["domain", "engine"]);
    uses_only("newfile.rs", &["domain"]);
    uses_only("notify/", &["domain", "notify", "TOOL"]);
    uses_only("source.rs", &["domain", "engine", "store", "archive"]);
    for (one, other) in [("store/sqlite/", "store::postgres"), ("store/postgres/", "store::sqlite")] {
        nowhere(&[other], |name| !name.starts_with(one));
    }
}

#[test]
fn capabilities_neither_print_nor_parse() {
    uses_only("migrate/", &["domain", "engine", "store", "archive", "source", "newfile", "migrate", "TOOL"]);
    let backup = ["domain", "engine", "store", "archive", "artifact", "mlflow", "migrate", "newfile", "backup", "TOOL"];
    uses_only("backup/", &backup);
    let promote = ["domain", "engine", "mlflow", "registry", "shell", "state", "store", "promote"];
    uses_only("promote/", &promote);
    let cleanup = ["domain", "engine", "store", "artifact", "backup", "migrate", "mlflow", "cleanup"];
    uses_only("cleanup/", &cleanup);
    uses_only("demo/", &["domain", "engine", "store", "migrate", "source", "demo"]);
    uses_only("doctor/", &["domain", "engine", "store", "doctor"]);
    let health = ["artifact", "backup", "doctor", "mlflow", "registry", "shell", "store", "tls"];
    uses_only("health/", &[&["domain", "engine", "health"], &health[..]].concat());
    uses_only("registry/", &["domain", "engine", "artifact", "backup", "mlflow", "registry", "TOOL"]);
    let verify = ["artifact", "backup", "health", "mlflow", "newfile", "registry", "shell", "source", "state", "store"];
    uses_only("verify/", &[&["domain", "engine", "verify", "TOOL"], &verify[..]].concat());
    uses_only("state/", &["domain", "engine", "filelock", "newfile", "state"]);
    uses_only("cli/", &["cli", "command"]);
}

#[test]
fn only_report_prints_and_only_config_reads_the_environment() {
    nowhere(&["println!", "print!", "stdout()", "stderr()"], |name| name.starts_with("report/"));
    nowhere(&["std::env::var", "env::vars", "env::var_os"], |name| name.starts_with("config/"));
    nowhere(&["process::exit"], |_| false);
}

#[test]
fn sql_stands_beside_its_adapter() {
    let statements = ["SELECT ", "INSERT INTO", "CREATE TABLE", "PRAGMA "];
    // An archive restores itself with psql.
    let allowed = ["store/", "domain/ddl.rs", "demo/", "archive/script.rs"];
    nowhere(&statements, |name| allowed.iter().any(|place| name.starts_with(place)));
}

#[test]
fn a_room_says_what_it_is() {
    for (name, text) in all() {
        assert!(text.starts_with("//!"), "{name} does not say what it is");
        for word in ["utils", "common", "helpers", "types", "misc"] {
            assert!(!name.split(['/', '.']).any(|part| part == word), "{name} says nothing");
        }
    }
}
