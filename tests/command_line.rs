//! The command line as scripts and people meet it: exit codes, JSON, help, masking.

use std::fs;

use crate::support::{Said, folder, mlops, run};

#[test]
fn wrong_arguments_are_2_also_in_json() {
    let home = folder();
    for arguments in [vec!["nonsense"], vec!["migrate", "verify"], vec!["db", "info", "--jobs", "many"], vec![]] {
        let said = run(home.path(), &arguments).expect(2);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{arguments:?}");
    }
    let said = run(home.path(), &["migrate", "verify", "--output", "json"]).expect(2).json();
    assert_eq!((said["exit"].as_u64(), said["error"]["kind"].as_str()), (Some(2), Some("usage")));
}

#[test]
fn help_and_version_are_results() {
    let home = folder();
    let help = run(home.path(), &["--help"]).expect(0);
    assert!(help.out.contains("migrate") && help.out.contains("Exit codes") && help.err.is_empty());
    let version = run(home.path(), &["--version"]).expect(0);
    assert_eq!(version.out, format!("mlops {}\n", env!("CARGO_PKG_VERSION")));
    for command in [vec!["migrate", "sqlite-to-pg"], vec!["migrate", "verify"], vec!["db", "info"], vec!["demo"]] {
        let mut arguments = command.clone();
        arguments.push("--help");
        let help = run(home.path(), &arguments).expect(0).out;
        assert!(help.contains("Usage: mlops") && help.contains("--output"), "{command:?}: {help}");
    }
}

#[test]
fn a_failure_says_what_and_what_next_and_is_json_where_that_is_asked() {
    let home = folder();
    let said = run(home.path(), &["db", "info", "/nowhere/mlflow.db"]).expect(6);
    assert!(said.out.is_empty());
    assert!(
        said.err.contains("error: /nowhere/mlflow.db: there is no such file") && said.err.contains("hint: "),
        "{}",
        said.err
    );
    let json = run(home.path(), &["db", "info", "/nowhere/mlflow.db", "--output", "json"]).expect(6).json();
    assert_eq!(json["schema"], "mlops.db.info.v1");
    assert_eq!(json["error"]["kind"], "source");
    assert!(json["result"].is_null() && json["finished"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn what_is_no_store_of_ours_is_refused_in_words() {
    let home = folder();
    let write = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let other = home.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    for (address, code, words) in [
        (write("empty.db", b""), 6, "is empty (0 bytes)"),
        (write("lfs.db", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), 6, "git-lfs pointer"),
        (write("text.db", b"hello"), 6, "is not a SQLite database"),
        (write("torn.db", b"SQLite format 3\0and then nothing of sense follows here"), 6, "torn.db"),
        (other.display().to_string(), 6, "not an MLflow database: none of its 1 tables"),
        (home.path().display().to_string(), 6, "is not a file"),
        ("http://localhost:5000".to_owned(), 2, "this is a server's address"),
        ("mysql://u:hunter2@h/d".to_owned(), 2, "`mysql` is not served"),
        (
            "postgresql://u:hunter2@127.0.0.1:1/d?connect_timeout=2".to_owned(),
            6,
            "no connection to postgresql://u:***@127.0.0.1:1/d",
        ),
        ("postgresql://u:hunter2@127.0.0.1:1/d?sslmode=perhaps".to_owned(), 3, "sslmode=perhaps is not known"),
        ("postgresql://u:hunter2@127.0.0.1:1/d?colour=red".to_owned(), 3, "a parameter `colour`"),
    ] {
        let said = run(home.path(), &["db", "info", &address]).expect(code);
        assert!(said.err.contains(words), "{address}: {}", said.err);
        assert!(!said.err.contains("hunter2"), "{}", said.err);
    }
}

#[test]
fn settings_say_where_they_come_from_and_mask_passwords() {
    let home = folder();
    let file = home.path().join("mlops.toml");
    fs::write(
        &file,
        "jobs = 3\nbackend_store_uri = \"postgresql://ml:hunter2@db/mlflow\"\n[profile.night]\njobs = 1\n",
    )
    .unwrap();
    let show = |more: &[&str]| {
        let mut command = mlops(home.path());
        command.args(["config", "show", "--config"]).arg(&file).args(more).env("MLOPS_OUTPUT", "table");
        Said::of(command.output().unwrap())
    };
    let said = show(&[]).expect(0);
    assert!(said.out.contains("postgresql://ml:***@db/mlflow") && !said.out.contains("hunter2"), "{}", said.out);
    assert!(said.out.lines().any(|l| l.contains("output") && l.contains("environment MLOPS_OUTPUT")), "{}", said.out);
    let jobs = |said: &Said| said.out.lines().find(|l| l.trim_start().starts_with("jobs")).unwrap().to_owned();
    assert!(jobs(&said).contains('3') && jobs(&said).contains("mlops.toml"));
    assert!(jobs(&show(&["--profile", "night"]).expect(0)).contains("[profile.night]"));
    assert!(jobs(&show(&["--jobs", "7"]).expect(0)).contains("flag"));
    show(&["--profile", "day"]).expect(3);

    fs::write(&file, "jobs = 3\nbackend_store_url = \"postgresql://ml:hunter2@db/mlflow\"\n").unwrap();
    let said = show(&[]).expect(3);
    assert!(
        said.err.contains("line 2: unknown key `backend_store_url`") && said.err.contains("`backend_store_uri`?"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("hunter2"));
    fs::write(&file, "backend_store_uri = \"postgresql://ml:hunter2@db\njobs = 1\n").unwrap();
    let said = show(&[]).expect(3);
    assert!(!said.err.contains("hunter2"), "{}", said.err);
}

#[test]
fn the_demo_without_postgresql_goes_into_a_second_file() {
    let home = folder();
    let mut command = mlops(home.path());
    command.args(["demo", "--metrics", "2000", "--runs", "20", "-q"]).env("MLOPS_POSTGRES_BIN", "/nowhere");
    let said = Said::of(command.output().unwrap()).expect(0);
    assert!(said.out.contains("second SQLite file") && said.out.contains("Verified:"), "{}", said.out);
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with("mlops-")), "{left:?}");
}

#[test]
fn the_demo_with_postgresql_leaves_nothing() {
    let home = folder();
    let mut command = mlops(home.path());
    command.args(["demo", "--metrics", "2000", "--runs", "20", "-q", "--output", "json"]);
    command.env("MLOPS_POSTGRES_BIN", crate::support::programs(15));
    // PostgreSQL runs as another user when this is root, who must reach the folder; a socket's path is short.
    command.env("TMPDIR", "/tmp");
    let said = Said::of(command.output().unwrap()).expect(0).json();
    let migration = &said["result"]["migration"];
    assert_eq!(migration["target"]["engine"], "PostgreSQL");
    assert_eq!(migration["verified"], true);
    let socket = migration["target"]["address"].as_str().unwrap().split("host=").nth(1).unwrap().to_owned();
    assert!(!std::path::Path::new(&socket).exists(), "{socket} is still there");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let home = folder();
    let mut command = mlops(home.path());
    let mut child = command.arg("--help").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert!(status.code().is_some(), "{status}");
}

#[test]
fn logs_go_to_stderr_and_hold_no_secret() {
    let home = folder();
    let database = crate::support::postgres(15).database("logs");
    let url = database.url().replace("mlops@", "mlops:hunter2@");
    let file = crate::support::sample(2_000);
    let quiet = crate::support::migrate(home.path(), &file, &url, &["--dry-run"]).expect(0);
    assert!(quiet.err.is_empty(), "{}", quiet.err);
    let some = crate::support::migrate(home.path(), &file, &url, &["--dry-run", "-v"]).expect(0);
    assert!(some.err.contains("taking a private copy") && !some.err.contains("SELECT"), "{}", some.err);
    let all = crate::support::migrate(home.path(), &file, &url, &["-vv"]).expect(0);
    assert!(all.err.contains("CREATE UNIQUE INDEX") && all.err.contains("SET SCHEMA"), "{}", all.err);
    assert!(!all.err.contains("hunter2") && !all.out.contains("hunter2"));
}

#[test]
fn folders_of_the_operators_are_not_taken_for_ours() {
    let home = folder();
    let kept = ["mlops-demo-project/notes.txt", "mlops-postgres-data/x", "mlops-snapshot-2026/keep.db"];
    for name in kept {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    let file = crate::support::sample(2_000);
    run(home.path(), &["db", "info", "-q", file.to_str().unwrap()]).expect(0);
    let mut command = mlops(home.path());
    command.args(["demo", "--metrics", "200", "--runs", "5", "-q"]).env("MLOPS_POSTGRES_BIN", "/nowhere");
    Said::of(command.output().unwrap()).expect(0);
    assert!(kept.iter().all(|name| home.path().join(name).exists()));
}

#[test]
fn arguments_that_are_not_utf_8_are_wrong_arguments() {
    use std::os::unix::ffi::OsStrExt;
    let home = folder();
    let mut command = mlops(home.path());
    command.args(["db", "info"]).arg(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
    Said::of(command.output().unwrap()).expect(2);
    run(home.path(), &["demo", "--dry-run"]).expect(2);
}

#[test]
fn a_terminal_shows_a_bar_for_each_table_and_one_for_all() {
    let home = folder();
    let file = crate::support::sample(300_000);
    let database = crate::support::postgres(15).database("bars");
    // util-linux' script gives the program a terminal and says what it wrote to it.
    let inner = format!(
        "stty cols 100 rows 40; exec '{}' migrate sqlite-to-pg --jobs 2 --source '{}' --target '{}'",
        env!("CARGO_BIN_EXE_mlops"),
        file.display(),
        database.url()
    );
    let mut command = std::process::Command::new("script");
    command.args(["-q", "-e", "-c", &inner, "/dev/null"]).stdin(std::process::Stdio::null());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("SHELL", "/bin/sh").env("TERM", "xterm");
    command.env("HOME", home.path()).env("TMPDIR", home.path()).env("MLOPS_STATE_DIR", home.path().join("state"));
    let screen = Said::of(command.output().unwrap()).expect(0).out;
    let total = screen.find("copying, indexing, verifying").expect("a bar for all");
    assert!(screen[total..].contains(" rows ") && screen[total..].contains("/s ETA "), "{screen}");
    assert!(screen.contains("  metrics  ") && screen.contains(" of 300,0"), "{screen}");
    assert!(!screen.contains("0/0") && screen.contains("Verified:"), "{screen}");
    let lines = Said::of(mlops(home.path()).args(["db", "info", "--progress", "json"]).arg(&file).output().unwrap());
    for line in lines.expect(0).err.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["event"] == "progress" && line["tables"].is_array() && line["per_second"].is_u64(), "{line}");
    }
}
