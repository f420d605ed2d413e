//! What people read: every help and the main outputs, held against what was read last. `MLOPS_TEST_BLESS=1` writes them
//! anew, to be read before they are committed.

use std::fs;
use std::path::Path;

use crate::support::{Said, folder, mlops, root};

/// What a command says, with what changes from run to run and from machine to machine put aside: numbers, ids, units, days,
/// where PostgreSQL is installed.
fn settled(text: &str, home: &Path) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let mut out = String::new();
    for line in text.replace(home.to_str().unwrap(), "HOME").lines().filter(|l| !l.contains(" postgres_bin ")) {
        let words: Vec<String> = line.split_whitespace().filter(|w| !DAYS.contains(w)).map(word).collect();
        let mut line = words.join(" ");
        for unit in ["ms", "KiB", "MiB", "bytes"] {
            line = line.replace(&format!("N {unit}"), "N s");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn word(word: &str) -> String {
    let mut named = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (part, more) = rest.split_at(end);
        let id = part.len() >= 8
            && part.chars().all(|c| c.is_ascii_hexdigit())
            && part.contains(|c: char| c.is_ascii_digit());
        named.push_str(if id { "ID" } else { part });
        let sign = more.chars().next().map_or(0, char::len_utf8);
        named.push_str(&more[..sign]);
        rest = &more[sign..];
    }
    let mut out = String::new();
    let mut rest = named.chars().peekable();
    while let Some(c) = rest.next() {
        if !c.is_ascii_digit() {
            out.push(c);
            continue;
        }
        // 1,234.5 and 12:30:05 are one number.
        while let Some(next) = rest.peek().copied() {
            let mut after = rest.clone();
            after.next();
            let joins = ",.:".contains(next) && after.peek().is_some_and(char::is_ascii_digit);
            if !next.is_ascii_digit() && !joins {
                break;
            }
            rest.next();
        }
        out.push('N');
    }
    out
}

#[track_caller]
fn held(name: &str, text: &str) {
    let file = root().join("tests/golden/transcripts").join(name);
    if std::env::var("MLOPS_TEST_BLESS").is_ok() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        return;
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    let differs = known.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        known == text,
        "{name} reads otherwise from line {:?} on; read it, then write it anew with MLOPS_TEST_BLESS=1:\n{text}",
        differs.map(|at| at + 1)
    );
}

fn paths(command: &clap::Command, path: &[String], all: &mut Vec<Vec<String>>) {
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        let path = [path, &[sub.get_name().to_owned()]].concat();
        all.push(path.clone());
        paths(sub, &path, all);
    }
}

#[test]
fn every_help_reads_as_it_was_read_and_fits_80_columns() {
    let home = folder();
    let mut all = vec![Vec::new()];
    paths(&mlops::cli::definition(), &[], &mut all);
    let mut told = String::new();
    for path in all {
        let name = path.join(" ");
        let mut command = mlops(home.path());
        command.args(&path).arg("--help").env("COLUMNS", "80");
        let help = Said::of(command.output().unwrap()).expect(0).out;
        for line in help.lines().filter(|line| line.chars().count() > 80) {
            // Commands are there to be copied.
            assert!(line.starts_with("  ") || line.starts_with("Usage: "), "{name}: {line}");
        }
        // What every help ends with is held once.
        let own = if path.is_empty() { help.as_str() } else { help.split("Global options:").next().unwrap() };
        let after = help.split_once("the number of processors]\n").map_or("", |(_, after)| after);
        told.push_str(&format!(
            "==== mlops {name}\n{}\n",
            if path.is_empty() { own.to_owned() } else { format!("{own}{after}") }
        ));
    }
    let settled: String = told.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    held("help.txt", &settled);
}

#[test]
fn the_main_outputs_read_as_they_were_read() {
    let home = folder();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (store, copy, archive, backups) = (at("sample.db"), at("copy.db"), at("store.tar"), at("backups"));
    let config = at("config.toml");
    let mut told = String::new();
    let commands: &[(i32, &[&str])] = &[
        (0, &["demo", "--only-sample", "--file", &store, "--runs", "20", "--metrics", "400"]),
        (0, &["db", "info", &store]),
        (0, &["db", "doctor", &store]),
        (0, &["migrate", "export", &store, "--file", &archive]),
        (0, &["migrate", "import", &archive, "--target", &copy, "--dry-run"]),
        (0, &["migrate", "import", &archive, "--target", &copy]),
        (0, &["migrate", "verify", "--source", &archive, "--target", &copy]),
        (9, &["migrate", "import", &archive, "--target", &copy]),
        (0, &["backup", "--to", &backups, "--artifacts", "none", "--backend-store-uri", &store]),
        (0, &["backup", "list", "--from", &backups]),
        (0, &["backup", "verify", "latest", "--from", &backups, "--drill"]),
        (0, &["backup", "prune", "--from", &backups, "--keep-last", "1", "--dry-run"]),
        (0, &["restore", "latest", "--from", &backups, "--to", &at("restored.db"), "--no-artifacts"]),
        (0, &["cleanup", "purge", "--older-than", "0s", "--backend-store-uri", &store, "--artifacts", "none"]),
        (0, &["config", "init", &config, "--backend-store-uri", &store, "--backup-to", &backups]),
        (0, &["config", "show", "--config", &config]),
        (0, &["config", "check", "--config", &config]),
        (2, &["health", "--backend-store-uri", "/nowhere/mlflow.db", "--only", "database.connect"]),
        (8, &["models", "list", "--tracking-uri", "http://127.0.0.1:9"]),
        (2, &["verify", "persistence"]),
        (3, &["config", "show", "--config", "/nowhere.toml"]),
    ];
    for (code, arguments) in commands {
        let mut command = mlops(home.path());
        command.args(*arguments).args(["--progress", "none"]).env("PATH", "/usr/bin:/bin").env("TZ", "UTC");
        let said = Said::of(command.output().unwrap()).expect(*code);
        told.push_str(&format!("==== mlops {}\n{}{}(exit {code})\n", arguments.join(" "), said.out, said.err));
    }
    held("outputs.txt", &settled(&told, home.path()));
}
