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

/// What PostgreSQL cannot hold as it is, and the policy under which it can.
const UNDER_A_POLICY: &[(&str, &[&str], &str)] = &[
    ("rdraghescu__Project_repo__4", &["--remap-experiment-ids"], "490770468155569826 becomes 3"),
    ("thedatadudech__hate_speech_detector", &["--widen"], "tags.value takes 11000 characters instead of 5000 (4 rows"),
];

#[test]
fn real_databases_that_do_not_fit_are_migrated_under_a_policy() {
    let Some(corpus) = corpus() else { return };
    for (name, policy, words) in UNDER_A_POLICY {
        let (home, place) = (folder(), folder());
        let file = copy_of(&corpus, name, place.path());
        let before = contents(place.path());
        let database = postgres(15).database("corpus_policy");
        let plan =
            migrate(home.path(), &file, &database.url(), &[policy, &["--dry-run"] as &[&str]].concat()).expect(0);
        assert!(plan.out.contains(words) && database.tables().is_empty(), "{name}: {}", plan.out);
        let said = migrate(home.path(), &file, &database.url(), policy).expect(0);
        assert!(said.out.contains("Verified:") && said.out.contains(words), "{name}: {}", said.out);
        let arguments = ["migrate", "verify", "-q", "--source", file.to_str().unwrap(), "--target", &database.url()];
        // Against the file as it is, changed ids are differences; a wider column is none.
        let remapped = policy.contains(&"--remap-experiment-ids");
        run(home.path(), &arguments).expect(if remapped { 5 } else { 0 });
        if remapped {
            run(home.path(), &[&arguments, *policy].concat()).expect(0);
        }
        assert!(contents(place.path()) == before, "{name}: the file or what lies beside it was changed");
    }
}

#[test]
fn every_real_database_survives_an_archive_both_ways() {
    let Some(corpus) = corpus() else { return };
    for (name, refusal) in ENDS {
        if refusal.is_some_and(|words| !words.contains("cannot hold") && !words.contains("longer")) {
            continue;
        }
        let (home, place) = (folder(), folder());
        let file = copy_of(&corpus, name, place.path());
        let before = contents(place.path());
        let (archive, copy) = (home.path().join("store.tar"), home.path().join("copy.db"));
        let (archive, copy) = (archive.to_str().unwrap(), copy.to_str().unwrap());
        run(home.path(), &["migrate", "export", "-q", file.to_str().unwrap(), "--file", archive]).expect(0);
        run(home.path(), &["migrate", "import", "-q", archive, "--target", copy]).expect(0);
        for other in [archive, copy] {
            verify(home.path(), file.to_str().unwrap(), other).expect(0);
        }
        let database = postgres(15).database("corpus_archive");
        let said = run(home.path(), &["migrate", "import", "-q", archive, "--target", &database.url()]);
        match refusal {
            None => {
                said.expect(0);
                verify(home.path(), archive, &database.url()).expect(0);
            }
            Some(words) => assert!(said.code == 6 && said.err.contains(words), "{name}: {}", said.err),
        }
        assert!(contents(place.path()) == before, "{name}: the file or what lies beside it was changed");
    }
}

#[test]
fn rows_that_do_not_fit_are_put_aside_whole() {
    let Some(corpus) = corpus() else { return };
    let (home, place) = (folder(), folder());
    let file = copy_of(&corpus, "thedatadudech__hate_speech_detector", place.path());
    let archive = home.path().join("store.tar");
    run(home.path(), &["migrate", "export", "-q", file.to_str().unwrap(), "--file", archive.to_str().unwrap()])
        .expect(0);
    // From the file, and from an archive of it.
    for (turn, source) in [file.to_str().unwrap(), archive.to_str().unwrap()].into_iter().enumerate() {
        let database = postgres(15).database("corpus_aside");
        let aside = home.path().join(format!("aside-{turn}.jsonl"));
        let command: &[&str] =
            if turn == 0 { &["migrate", "sqlite-to-pg", "--source", source] } else { &["migrate", "import", source] };
        let target = database.url();
        let more =
            ["-q", "--target", &target, "--bad-rows", "quarantine", "--quarantine-file", aside.to_str().unwrap()];
        run(home.path(), &[command, &more].concat()).expect(4);
        let lines = fs::read_to_string(&aside).unwrap();
        let rows: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(rows.len(), 4);
        for row in rows {
            assert_eq!(row["table"], "tags");
            assert!(row["row"]["value"].as_str().unwrap().chars().count() > 5000);
        }
        assert_eq!(database.number("SELECT count(*) FROM tags"), 412);
    }
}
