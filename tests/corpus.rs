//! Real databases from public repositories: the sound ones migrate and are equal, the others are refused in words.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{folder, migrate, postgres, run, verify};

/// The corpus, or a word that this test was skipped.
fn corpus() -> Option<PathBuf> {
    let folder = std::env::var_os("MLOPS_CORPUS").filter(|v| !v.is_empty());
    if folder.is_none() {
        eprintln!("skipped: MLOPS_CORPUS names no folder with real databases");
    }
    folder.map(PathBuf::from)
}

/// How each ends: the words of the refusal, or `None` for a migration.
const ENDS: &[(&str, Option<&str>)] = &[
    ("2023ac05242__mlops-iris", None),
    ("G-Research__fasttrackml__2", Some("`experiments` has a column `namespace_id` that revision 97727af70f4d")),
    ("KarimLulu__mlops-loan-prediction", None),
    ("Rwatana__master_thesis__2", None),
    ("adehiles__vertebral_models", None),
    ("afonsosousah__MLOPS-Project__3", None),
    ("kennedyopokuasare__trotro_mlops", None),
    ("mlopslabs02__mlopsdemo3", Some("an interrupted first creation")),
    ("mmmsmm16__keiiba-ai__5", Some("an interrupted upgrade: the table `datasets` comes with revision")),
    ("omegaml__omegaml", None),
    ("rdraghescu__Project_repo__4", Some("`experiments.experiment_id` is an integer that the column cannot hold")),
    ("thedatadudech__hate_speech_detector", Some("`tags.value` is longer than the 5000 characters")),
    ("tipresias__augury__2", None),
    ("wolfxweb__Kobe-Bryant", None),
];

fn copy_of(corpus: &Path, name: &str, to: &Path) -> PathBuf {
    for suffix in ["", "-wal", "-journal"] {
        let from = corpus.join(format!("{name}.db{suffix}"));
        if from.exists() {
            // Not fs::copy: the corpus may be read-only and its permissions would come along.
            fs::write(to.join(format!("{name}.db{suffix}")), fs::read(from).unwrap()).unwrap();
        }
    }
    to.join(format!("{name}.db"))
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn each_real_database_ends_as_it_should_and_is_not_touched() {
    let Some(corpus) = corpus() else { return };
    for (name, refusal) in ENDS {
        let (home, place) = (folder(), folder());
        let file = copy_of(&corpus, name, place.path());
        let before = contents(place.path());
        let database = postgres(15).database("corpus");
        let plan = migrate(home.path(), &file, &database.url(), &["--dry-run"]);
        let said = migrate(home.path(), &file, &database.url(), &[]);
        match refusal {
            None => {
                plan.expect(0);
                let said = said.expect(0);
                assert!(said.out.contains("Verified:"), "{name}: {}", said.out);
                verify(home.path(), file.to_str().unwrap(), &database.url()).expect(0);
            }
            Some(words) => {
                assert_eq!(plan.code, 6, "{name}: a dry run says what the real run would: {}{}", plan.out, plan.err);
                let said = said.expect(6);
                assert!(said.err.contains(words), "{name}: {}", said.err);
                assert!(database.tables().is_empty(), "{name}");
            }
        }
        assert!(database.own_schemas().is_empty(), "{name}");
        assert!(contents(place.path()) == before, "{name}: the file or what lies beside it was changed");
    }
}

#[test]
fn rows_that_are_only_in_the_wal_are_read() {
    let Some(corpus) = corpus() else { return };
    let (home, place) = (folder(), folder());
    let file = copy_of(&corpus, "rdraghescu__Project_repo__4", place.path());
    let said = run(home.path(), &["db", "info", file.to_str().unwrap(), "--output", "json", "-q"]).expect(0).json();
    let tables = said["result"]["tables"].as_array().unwrap();
    let rows = |name: &str| tables.iter().find(|t| t["table"] == name).unwrap()["rows"].as_u64().unwrap();
    assert_eq!((rows("runs"), rows("metrics"), rows("params")), (84, 633, 982));
}

#[test]
fn every_real_database_equals_itself() {
    let Some(corpus) = corpus() else { return };
    for (name, refusal) in ENDS {
        // Unfit for PostgreSQL is not unfit for a comparison.
        if refusal.is_some_and(|words| !words.contains("cannot hold") && !words.contains("longer")) {
            continue;
        }
        let (home, place) = (folder(), folder());
        let file = copy_of(&corpus, name, place.path());
        verify(home.path(), file.to_str().unwrap(), file.to_str().unwrap()).expect(0);
    }
}
