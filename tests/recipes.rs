//! What the guide to backups tells people to type without mlops, typed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::backups::{aged, artifact_folders, tree};
use crate::support::{Said, folder, postgres, programs, root, run, sample, verify};

/// The guide's only block that has this line.
fn block(line: &str) -> String {
    let guide = fs::read_to_string(root().join("docs/backup.md")).unwrap();
    let mut found = guide.split("```").skip(1).step_by(2).filter(|block| block.lines().any(|l| l.starts_with(line)));
    let block = found.next().expect("a block with that line");
    assert!(found.next().is_none());
    block.split_once('\n').unwrap().1.to_owned()
}

/// The same with the lines that an operator fills in filled in.
fn filled_in(block: &str, lines: &[String]) -> String {
    let names = |line: &str| -> Vec<String> {
        line.split(' ').filter_map(|word| word.split_once('=')).map(|(name, _)| name.to_owned()).collect()
    };
    let mut text = block.to_owned();
    for line in lines {
        let before = block.lines().find(|l| !names(l).is_empty() && names(l) == names(line));
        text = text.replace(before.unwrap_or_else(|| panic!("nothing like `{line}` in {block}")), line);
    }
    text
}

/// Where a program of this machine is.
fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A folder of programs that has these and no others.
fn only(folder: &Path, names: &[&str]) {
    fs::create_dir(folder).unwrap();
    for name in names {
        symlink(which(name).unwrap_or_else(|| panic!("{name} is not installed")), folder.join(name)).unwrap();
    }
}

#[test]
fn a_backup_is_restored_without_mlops() {
    if which("zstd").is_none() {
        eprintln!("skipped: zstd is not installed");
        return;
    }
    let home = folder();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (database, proxied, other) = (path("mlflow.db"), path("artifacts"), path("another root"));
    fs::copy(sample(2_000), &database).unwrap();
    // A run apart from the others, so that there are two roots.
    let folders = artifact_folders(Path::new(&database));
    let apart = folders.iter().find(|f| f.ends_with("/artifacts") && !f.contains("/models/")).unwrap();
    let moved = apart.replace("mlflow-artifacts:", &other);
    let connection = rusqlite::Connection::open(&database).unwrap();
    let changed = connection.execute("UPDATE runs SET artifact_uri = ?1 WHERE artifact_uri = ?2", [&moved, apart]);
    assert_eq!(changed.unwrap(), 1);
    drop(connection);
    let names = [
        "plain",
        "a \"quoted\" 'name'",
        "back\\slash \\n \\0101 \\\\",
        "line\nbreak\ttab\r",
        " blanks ",
        "-dash",
        "ü ✓",
        "100% %41",
        "#/hash, $HOME `x` &|",
        "a/b/c/deep",
        "bell\u{7} \u{1f}\u{7f}",
        "{\"root\":1,\"path\":\"x\",\"bytes\":",
    ];
    for folder in [apart.replace("mlflow-artifacts:", &proxied), moved] {
        for name in names {
            aged(&Path::new(&folder).join(name), format!("{name} in {folder}").as_bytes());
        }
        aged(&Path::new(&folder).join("empty"), b"");
    }
    aged(&Path::new(&proxied).join("not/referred to"), b"by nothing");
    let refer =
        "UPDATE runs SET artifact_uri = ?1 WHERE run_uuid = (SELECT min(run_uuid) FROM runs WHERE artifact_uri <> ?2)";
    let connection = rusqlite::Connection::open(&database).unwrap();
    assert_eq!(connection.execute(refer, [apart, &apart.replace("mlflow-artifacts:", &other)]).unwrap(), 1);
    drop(connection);

    let backups = path("backups");
    let back_up = ["backup", "--backend-store-uri", &database, "--artifact-root", &proxied, "--to", &backups];
    let made = run(home.path(), &[&back_up[..], &["-q", "--output", "json"]].concat()).expect(0).json();
    let made = &made["result"];
    let list = home.path().join("backups").join(made["id"].as_str().unwrap()).join("manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    let roots: Vec<&str> = manifest["artifacts"]["roots"].as_array().unwrap().iter().flat_map(|r| r.as_str()).collect();
    assert!(roots.len() == 2 && roots.contains(&"mlflow-artifacts:"), "{roots:?}");

    let (new, new_other) = (path("new"), path("new other"));
    let places: Vec<String> = roots
        .iter()
        .map(|r| format!("'{}'", if r.starts_with("mlflow-artifacts") { &new } else { &new_other }))
        .collect();
    let target = postgres(15).database("recipe");
    let (tools, id) = (home.path().join("bin"), made["id"].as_str().unwrap());
    let script = filled_in(
        &block("DEST="),
        &[
            format!("DEST='{backups}' ID={id} DATABASE={}", target.address.database.as_deref().unwrap()),
            format!("ROOTS=({})", places.join(" ")),
        ],
    );
    only(&tools, &["sha256sum", "cut", "grep", "mktemp", "tar", "rm", "zcat", "gzip", "sed", "mkdir", "zstd"]);
    symlink(programs(15).join("psql"), tools.join("psql")).unwrap();
    let typed = |script: &str| {
        let mut command = Command::new(which("bash").unwrap());
        command.args(["-c", script]).env_clear().env("PATH", &tools).env("TMPDIR", home.path());
        command.env("PGHOST", &target.address.hosts[0].0).env("PGUSER", target.address.user.as_deref().unwrap());
        Said::of(command.output().unwrap())
    };
    typed(&script).expect(0);
    verify(home.path(), &database, &target.url()).expect(0);
    fs::remove_dir_all(Path::new(&proxied).join("not")).unwrap();
    for (restored, lost) in [(&new, &proxied), (&new_other, &other)] {
        assert_eq!(tree(Path::new(restored)), tree(Path::new(lost)));
    }
    assert_eq!(tree(Path::new(&new)).len(), names.len() + 1);

    // What is damaged stops it: a content, and before anything is written the list.
    let target = postgres(15).database("recipe");
    fs::remove_dir_all(&new).unwrap();
    let list = home.path().join("backups").join(id).join("artifacts.jsonl.gz");
    let sound = fs::read(&list).unwrap();
    fs::write(&list, &sound[..sound.len() - 1]).unwrap();
    assert_ne!(typed(&script).code, 0);
    assert!(target.tables().is_empty() && !Path::new(&new).exists());
    fs::write(&list, sound).unwrap();
    let pool = home.path().join("backups/artifacts");
    fs::write(pool.join(&tree(&pool)[0].0), "damaged").unwrap();
    assert_ne!(typed(&script).code, 0);
}
