//! Backups and restores through the command line: made, counted, damaged, interrupted, pruned, brought back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::artifacts::{ObjectStore, object_store};
use crate::support::{Said, folder, mlops, postgres, rounds, run, sample, verify, wait_for};

/// A stack of a database and artifacts, and a place for its backups.
pub(crate) struct Stack {
    pub(crate) home: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) database: PathBuf,
    /// What the addresses of the database begin with.
    addresses: String,
}

pub(crate) fn artifact_folders(database: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut statement = connection
        .prepare("SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models ORDER BY 1")
        .unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

pub(crate) fn aged(file: &Path, content: &[u8]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
    let old = SystemTime::now() - Duration::from_secs(90_000);
    fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
}

impl Stack {
    /// Addresses of the database are those of the sample, behind the proxy.
    pub(crate) fn proxied() -> Stack {
        let home = folder();
        let (root, database) = (home.path().join("artifacts"), home.path().join("mlflow.db"));
        fs::copy(sample(20_000), &database).unwrap();
        let stack = Stack { root, database, home, addresses: "mlflow-artifacts:".to_owned() };
        stack.fill();
        stack
    }

    /// Addresses of the database are paths below the root.
    pub(crate) fn direct() -> Stack {
        let mut stack = Stack::proxied();
        stack.addresses = stack.root.to_str().unwrap().to_owned();
        let connection = rusqlite::Connection::open(&stack.database).unwrap();
        for (table, column) in [
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ] {
            let sql = format!("UPDATE {table} SET {column} = replace({column}, 'mlflow-artifacts:', ?)");
            connection.execute(&sql, [&stack.addresses]).unwrap();
        }
        stack
    }

    fn fill(&self) {
        for (number, address) in artifact_folders(&self.database).iter().enumerate() {
            let place = self.root.join(address.trim_start_matches("mlflow-artifacts:/"));
            aged(&place.join("model/MLmodel"), format!("flavors: {number}\n").repeat(50).as_bytes());
            aged(&place.join("plots/a b ü#%.txt"), b"the same everywhere");
            aged(&place.join("empty"), b"");
        }
        let big: Vec<u8> = (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let first = artifact_folders(&self.database).remove(0);
        aged(&self.root.join(first.trim_start_matches("mlflow-artifacts:/")).join("big.bin"), &big);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn place(&self) -> String {
        self.path("backups").to_str().unwrap().to_owned()
    }

    pub(crate) fn mlops(&self, arguments: &[&str]) -> Said {
        run(self.home.path(), &[arguments, &["--progress", "none"]].concat())
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = mlops(self.home.path());
        command.args(["backup", "--to", &self.place(), "--output", "json", "--progress", "none"]);
        command.args(["--backend-store-uri", self.database.to_str().unwrap()]);
        command.args(["--artifact-root", self.root.to_str().unwrap()]).args(more);
        command
    }

    /// Ids are told apart by the second: a backup that is to be the newest begins in a second of its own.
    fn back_up(&self, more: &[&str]) -> Said {
        let second = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let before = second();
        wait_for("the next second", Duration::from_secs(5), || (second() > before).then_some(()));
        Said::of(self.command(more).output().unwrap())
    }

    /// The result of a backup that ends with this code.
    pub(crate) fn backed_up(&self, code: i32, more: &[&str]) -> Value {
        self.back_up(more).expect(code).json()["result"].clone()
    }

    pub(crate) fn verify(&self, more: &[&str]) -> Said {
        self.mlops(&[&["backup", "verify", "--from", &self.place()], more].concat())
    }

    pub(crate) fn list(&self) -> Vec<Value> {
        let said = self.mlops(&["backup", "list", "--from", &self.place(), "--output", "json"]).expect(0);
        said.json()["result"]["backups"].as_array().unwrap().clone()
    }

    pub(crate) fn restore(&self, to: &str, root: &Path, more: &[&str]) -> Said {
        let place = self.place();
        let root = root.to_str().unwrap();
        self.mlops(&[&["restore", "latest", "--from", &place, "--to", to, "--artifact-root", root], more].concat())
    }
}

/// Every file below a folder with its content.
pub(crate) fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().display().to_string();
                found.push((name, fs::read(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_stack_goes_into_a_backup_and_comes_back_in_either_database() {
    let stack = Stack::proxied();
    let made = stack.backed_up(0, &[]);
    assert_eq!(made["complete"], true);
    assert_eq!(made["artifacts"]["files"].as_u64().unwrap(), tree(&stack.root).len() as u64);
    assert!(made["artifacts"]["stored"].as_u64().unwrap() < made["artifacts"]["bytes"].as_u64().unwrap());
    stack.verify(&["--drill"]).expect(0);
    let listed = stack.list();
    assert!(listed[0]["verified"].is_string() && listed[0]["drilled"].is_string(), "{listed:?}");
    let (root, file) = (stack.path("restored"), stack.path("restored.db"));
    let plan = stack.restore(file.to_str().unwrap(), &root, &["--dry-run"]).expect(0);
    assert!(plan.out.contains("to be written") && !root.exists() && !file.exists(), "{}", plan.out);
    let said = stack.restore(file.to_str().unwrap(), &root, &[]).expect(0);
    assert!(said.out.contains("every row and every file verified"), "{}", said.out);
    assert_eq!(tree(&root), tree(&stack.root));
    let source = stack.database.to_str().unwrap();
    verify(stack.home.path(), source, file.to_str().unwrap()).expect(0);
    let target = postgres(15).database("restored");
    let said = stack.restore(&target.url(), &root, &[]).expect(0);
    assert!(said.out.contains("0 written"), "{}", said.out);
    verify(stack.home.path(), source, &target.url()).expect(0);
    // And from there to SQLite again.
    let arguments = ["backup", "--to", &stack.place(), "--artifact-root", root.to_str().unwrap()];
    let url = target.url();
    stack.mlops(&[&arguments[..], &["--backend-store-uri", &url]].concat()).expect(0);
    let back = stack.path("back.db");
    stack.restore(back.to_str().unwrap(), &root, &[]).expect(0);
    verify(stack.home.path(), source, back.to_str().unwrap()).expect(0);
    // What is there is not restored over.
    stack.restore(back.to_str().unwrap(), &root, &["--yes"]).expect(9);
}

#[test]
fn addresses_follow_the_artifacts_to_another_root() {
    let stack = Stack::direct();
    stack.backed_up(0, &[]);
    let (root, file) = (stack.path("else where"), stack.path("moved.db"));
    let said = stack.restore(file.to_str().unwrap(), &root, &[]).expect(0);
    assert!(said.out.contains(&format!("{} becomes {}", stack.addresses, root.display())), "{}", said.out);
    assert_eq!(tree(&root), tree(&stack.root));
    for address in artifact_folders(&file) {
        assert!(address.starts_with(root.to_str().unwrap()) && Path::new(&address).exists(), "{address}");
    }
    let rewrite = format!("{}={}", stack.addresses, root.display());
    let source = stack.database.to_str().unwrap();
    let both = ["--source", source, "--target", file.to_str().unwrap(), "--rewrite-artifacts", &rewrite];
    stack.mlops(&[&["migrate", "verify"], &both[..]].concat()).expect(0);
    // In place, over what was lost and what was changed.
    let first = Path::new(&artifact_folders(&stack.database)[0]).join("model/MLmodel");
    let last = Path::new(&artifact_folders(&stack.database).pop().unwrap()).join("empty");
    let content = fs::read(&first).unwrap();
    fs::write(&first, "damaged").unwrap();
    fs::remove_file(&last).unwrap();
    let target = stack.path("again.db");
    stack.restore(target.to_str().unwrap(), &stack.root, &[]).expect(9);
    assert!(!target.exists() && !last.exists());
    let said = stack.restore(target.to_str().unwrap(), &stack.root, &["--yes"]).expect(0);
    assert!(said.out.contains("2 written") && fs::read(&first).unwrap() == content && last.exists(), "{}", said.out);
    assert_eq!(artifact_folders(&target), artifact_folders(&stack.database));
}

#[test]
fn the_next_backup_reads_and_stores_what_is_new() {
    let stack = Stack::proxied();
    let run = artifact_folders(&stack.database).remove(1);
    let place = stack.root.join(run.trim_start_matches("mlflow-artifacts:/"));
    for number in 0..10_000 {
        aged(&place.join(format!("many/{}/{number}.txt", number % 100)), format!("content {number}").as_bytes());
    }
    let first = stack.backed_up(0, &[]);
    let files = first["artifacts"]["files"].as_u64().unwrap();
    assert!(files > 10_000 && first["artifacts"]["read"] == files);
    // What was written just now may be written again within the clock's tick, and is read again.
    wait_for("a backup that reads nothing", Duration::from_secs(60), || {
        (stack.backed_up(0, &[])["artifacts"]["read"] == 0).then_some(())
    });
    for number in 0..10 {
        aged(&place.join(format!("new/{number}")), format!("new {number}").as_bytes());
    }
    let second = stack.backed_up(0, &[]);
    assert_eq!((&second["artifacts"]["read"], &second["artifacts"]["new_files"]), (&10.into(), &10.into()));
    assert_eq!(second["artifacts"]["files"].as_u64(), Some(files + 10));
    let third = stack.backed_up(0, &["--rehash"]);
    assert_eq!((&third["artifacts"]["read"], &third["artifacts"]["new_files"]), (&(files + 10).into(), &0.into()));
    let registered = stack.backed_up(0, &["--artifacts", "registered"]);
    let some = registered["artifacts"]["files"].as_u64().unwrap();
    assert!(some > 0 && some < files / 2, "{some} of {files}");
    assert_eq!(stack.backed_up(0, &["--artifacts", "none"])["artifacts"]["files"], 0);
    stack.verify(&["--all"]).expect(0);
}

#[test]
fn what_cannot_be_read_is_listed_and_such_a_backup_is_not_complete() {
    let stack = Stack::proxied();
    let whole = stack.backed_up(0, &[]);
    let run = artifact_folders(&stack.database).remove(0);
    let place = stack.root.join(run.trim_start_matches("mlflow-artifacts:/"));
    std::os::unix::fs::symlink("/nowhere/at/all", place.join("dangling")).unwrap();
    let part = stack.backed_up(4, &[]);
    assert_eq!((&part["complete"], &part["artifacts"]["unreadable"]), (&false.into(), &1.into()));
    assert!(part["artifacts"]["unread"][0]["address"].as_str().unwrap().ends_with("dangling"), "{part}");
    let shown = stack.mlops(&["backup", "show", "latest", "--from", &stack.place()]).expect(0);
    assert!(shown.out.contains(whole["id"].as_str().unwrap()), "{}", shown.out);
    // The complete one stays whatever the rules say; the other goes when a complete one is newer.
    let place = stack.place();
    let prune = ["backup", "prune", "--keep-last", "1", "--from", &place, "--output", "json"];
    let kept = |said: Said| {
        let result = said.expect(0).json()["result"]["backups"].clone();
        let kept = result.as_array().unwrap().iter().filter(|b| b["kept"] == true);
        kept.map(|b| b["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let ids = kept(stack.mlops(&prune));
    assert_eq!(ids, [part["id"].as_str().unwrap(), whole["id"].as_str().unwrap()]);
    // A lost mount looks like a stack without artifacts, and is not taken for one.
    fs::rename(&stack.root, stack.path("aside")).unwrap();
    fs::create_dir(&stack.root).unwrap();
    for night in 1..=2 {
        let lost = stack.backed_up(4, &["--prune", "--keep-last", "1", "--yes"]);
        let why = lost["artifacts"]["unread"][0]["reason"].as_str().unwrap();
        assert!(why.contains("nothing is there") && lost["pruned"].is_null(), "night {night}: {lost}");
    }
    // And one of which little is left is told of.
    fs::remove_dir(&stack.root).unwrap();
    fs::rename(stack.path("aside"), &stack.root).unwrap();
    fs::remove_file(stack.root.join(run.trim_start_matches("mlflow-artifacts:/")).join("dangling")).unwrap();
    for address in artifact_folders(&stack.database).iter().skip(1) {
        let _ = fs::remove_dir_all(stack.root.join(address.trim_start_matches("mlflow-artifacts:/")));
    }
    let said = stack.back_up(&[]).expect(0);
    assert!(said.json()["warnings"].to_string().contains("is all of it mounted?"), "{}", said.out);
}

#[test]
fn prune_keeps_what_the_rules_say_and_every_content_that_is_needed() {
    let stack = Stack::proxied();
    let first = stack.backed_up(0, &[]);
    let run = artifact_folders(&stack.database).remove(0);
    let model = stack.root.join(run.trim_start_matches("mlflow-artifacts:/")).join("model/MLmodel");
    aged(&model, b"another content");
    let second = stack.backed_up(0, &[]);
    stack.backed_up(0, &["--artifacts", "none"]);
    let place = stack.place();
    let id = first["id"].as_str().unwrap();
    // What is in the pool is old enough.
    for (name, _) in tree(&stack.path("backups/artifacts")) {
        let old = SystemTime::now() - Duration::from_secs(90_000);
        let file = fs::File::options().write(true).open(stack.path("backups/artifacts").join(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    stack.mlops(&["backup", "pin", second["id"].as_str().unwrap(), "--from", &place]).expect(0);
    let before = tree(&stack.path("backups"));
    let prune = ["backup", "prune", "--keep-last", "1", "--from", &place];
    let said = stack.mlops(&prune).expect(0);
    assert!(said.out.contains("Nothing was: --yes does it"), "{}", said.out);
    assert_eq!(tree(&stack.path("backups")).len(), before.len());
    stack.mlops(&[&prune[..], &["--yes"]].concat()).expect(0);
    let left: Vec<String> = stack.list().iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect();
    assert!(left.len() == 2 && !left.contains(&id.to_owned()), "{left:?}");
    stack.verify(&["--all"]).expect(0);
    let pool = |tree: &[(String, Vec<u8>)]| tree.iter().filter(|(name, _)| name.starts_with("artifacts/")).count();
    assert_eq!(pool(&tree(&stack.path("backups"))), pool(&before) - 1);
    let line = stack.backed_up(0, &["--prune", "--keep-last", "1", "--yes"]);
    assert_eq!(line["pruned"]["done"], true);
    // One without artifacts does not stand in for one with all, nor does that go because of the others.
    assert_eq!(stack.list().len(), 3);
}

#[test]
fn every_flipped_bit_is_found() {
    let stack = Stack::proxied();
    let made = stack.backed_up(0, &[]);
    let id = made["id"].as_str().unwrap().to_owned();
    let backups = stack.path("backups");
    let mut files = vec!["manifest.json", "manifest.sha256", "artifacts.jsonl.gz", "database.tar"];
    files.retain(|file| backups.join(&id).join(file).exists());
    assert_eq!(files.len(), 4);
    let mut places: Vec<PathBuf> = files.iter().map(|file| backups.join(&id).join(file)).collect();
    let pool = tree(&backups.join("artifacts"));
    places.extend(pool.iter().take(3).map(|(name, _)| backups.join("artifacts").join(name)));
    let mut seed = 7u64;
    for (number, place) in places.into_iter().enumerate() {
        let sound = fs::read(&place).unwrap();
        for round in 0..rounds().div_ceil(4) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bit = usize::try_from(seed >> 16).unwrap() % (8 * sound.len());
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&place, &damaged).unwrap();
            let what = format!("bit {bit} of {}", place.display());
            let said = stack.verify(&[&id]);
            assert_eq!(said.code, 11, "{what}: {} {}", said.out, said.err);
            if round == 0 {
                let (file, root) = (stack.path("no.db"), stack.path(&format!("no-{number}")));
                let target = file.to_str().unwrap();
                let root = root.to_str().unwrap();
                let place = stack.place();
                let said = stack.mlops(&["restore", &id, "--from", &place, "--to", target, "--artifact-root", root]);
                assert_eq!(said.code, 11, "{what}: {} {}", said.out, said.err);
                assert!(!file.exists(), "{what}");
            }
        }
        fs::write(&place, &sound).unwrap();
    }
    stack.verify(&[&id]).expect(0);
    // A content that is damaged is stored anew while the stack has it.
    let place = backups.join("artifacts").join(&pool[0].0);
    fs::write(&place, "damaged").unwrap();
    stack.verify(&[&id]).expect(11);
    stack.backed_up(0, &["--rehash"]);
    stack.verify(&["--all"]).expect(0);
}

#[test]
fn whatever_is_killed_leaves_no_backup_that_lies() {
    let stack = Stack::proxied();
    for round in 0..rounds() {
        let mut child = stack.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(20 + 37 * round % 700)));
        let _ = child.kill();
        let _ = child.wait();
        if stack.path("backups").exists() {
            let listed = run(stack.home.path(), &["backup", "list", "--from", &stack.place(), "--output", "json"]);
            // Nothing there yet is no lie either.
            if listed.code == 0 {
                let listed = listed.json()["result"]["backups"].clone();
                assert!(listed.as_array().unwrap().iter().all(|b| b["state"] != "damaged"), "{listed}");
            }
        }
    }
    let made = stack.backed_up(0, &[]);
    assert_eq!(made["artifacts"]["files"].as_u64().unwrap(), tree(&stack.root).len() as u64);
    stack.verify(&["--all", "--drill"]).expect(0);
    assert!(stack.list().iter().all(|b| b["state"] == "complete"), "what was interrupted is gone");
    assert!(
        !fs::read_dir(stack.path("backups"))
            .unwrap()
            .flatten()
            .any(|e| { e.file_name().to_string_lossy().starts_with(".mlops-staging") })
    );
    // A restore that is killed goes on where it was, and the database is there only when all is.
    let (file, root) = (stack.path("killed.db"), stack.path("killed"));
    for round in 0..rounds() {
        let mut command = mlops(stack.home.path());
        command.args(["restore", "latest", "--from", &stack.place(), "--to", file.to_str().unwrap()]);
        command.args(["--artifact-root", root.to_str().unwrap(), "--progress", "none"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(30 + 23 * round)));
        let _ = child.kill();
        let _ = child.wait();
        if file.exists() {
            break;
        }
    }
    if !file.exists() {
        stack.restore(file.to_str().unwrap(), &root, &[]).expect(0);
    }
    let whole: Vec<_> = tree(&root).into_iter().filter(|(name, _)| !name.starts_with(".mlops-staging")).collect();
    assert!(whole == tree(&stack.root));
    verify(stack.home.path(), stack.database.to_str().unwrap(), file.to_str().unwrap()).expect(0);
}

#[test]
fn one_works_on_a_place_at_a_time() {
    let stack = Stack::proxied();
    stack.backed_up(0, &[]);
    let lock = fs::File::options().write(true).open(stack.path("backups/lock")).unwrap();
    lock.lock().unwrap();
    stack.back_up(&[]).expect(10);
    let prune = ["backup", "prune", "--keep-last", "1", "--from", &stack.place()];
    stack.mlops(&[&prune[..], &["--yes"]].concat()).expect(10);
    // Reading needs no lock.
    stack.mlops(&prune).expect(0);
    stack.verify(&[]).expect(0);
    drop(lock);
    stack.backed_up(0, &[]);
}

#[test]
fn wrong_places_and_arguments_are_told() {
    let stack = Stack::proxied();
    let empty = stack.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    stack.mlops(&["backup", "list", "--from", empty]).expect(6);
    stack.mlops(&["restore", "latest", "--from", empty, "--to", "x.db", "--artifact-root", "/x"]).expect(6);
    stack.backed_up(0, &[]);
    let place = stack.place();
    let restore = ["restore", "latest", "--from", &place, "--to", "x.db"];
    let said = stack.mlops(&restore).expect(2);
    assert!(said.err.contains("--artifact-root"), "{}", said.err);
    stack
        .mlops(&["restore", "20200101T000000Z-00000000", "--from", &place, "--to", "x.db", "--no-artifacts"])
        .expect(2);
    stack.mlops(&["backup", "prune", "--from", &place]).expect(2);
    stack.mlops(&["backup", "verify", "--from", &place, "--read-data-subset", "8/7"]).expect(2);
    stack.mlops(&["backup", "verify", "--from", &place, "--read-data-subset", "7/7"]).expect(0);
    stack.mlops(&["backup"]).expect(2);
    stack.back_up(&["--prune"]).expect(2);
    let file = stack.path("alone.db");
    stack.mlops(&["restore", "latest", "--from", &place, "--to", file.to_str().unwrap(), "--no-artifacts"]).expect(0);
}

#[test]
fn backups_lie_in_s3_as_well() {
    let stack = Stack::proxied();
    let ObjectStore { access, _process } = object_store(stack.home.path(), &["--empty"]);
    let key = access.key.clone().unwrap();
    let s3 = |arguments: &[&str]| {
        use secrecy::ExposeSecret;
        let mut command = mlops(stack.home.path());
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
        command.env("MLFLOW_S3_ENDPOINT_URL", access.endpoint.as_deref().unwrap());
        Said::of(command.args(arguments).args(["--progress", "none"]).output().unwrap())
    };
    let (database, root) = (stack.database.to_str().unwrap(), stack.root.to_str().unwrap());
    let place = "s3://artifacts/backups";
    let back_up = ["backup", "--to", place, "--backend-store-uri", database, "--output", "json"];
    let made = s3(&[&back_up[..], &["--artifact-root", root]].concat()).expect(0).json()["result"].clone();
    assert_eq!(made["artifacts"]["files"].as_u64().unwrap(), tree(&stack.root).len() as u64);
    s3(&["backup", "verify", "--from", place, "--drill"]).expect(0);
    // To S3, whose objects are then the artifacts of the next backup, and from there to a folder.
    let file = stack.path("from_s3.db");
    let to = ["--to", file.to_str().unwrap(), "--artifact-root", "s3://artifacts/restored"];
    s3(&[&["restore", "latest", "--from", place], &to[..]].concat()).expect(0);
    let again = s3(&[&back_up[..], &["--artifact-root", "s3://artifacts/restored"]].concat()).expect(0);
    let again = again.json()["result"].clone();
    assert_eq!(
        (&again["artifacts"]["files"], &again["artifacts"]["new_files"]),
        (&made["artifacts"]["files"], &0.into())
    );
    let third = s3(&[&back_up[..], &["--artifact-root", "s3://artifacts/restored"]].concat()).expect(0);
    assert_eq!(third.json()["result"]["artifacts"]["read"], 0);
    let (file, root) = (stack.path("folder.db"), stack.path("folder"));
    let to = ["--to", file.to_str().unwrap(), "--artifact-root", root.to_str().unwrap()];
    s3(&[&["restore", "latest", "--from", place], &to[..]].concat()).expect(0);
    assert!(tree(&root) == tree(&stack.root));
    verify(stack.home.path(), database, file.to_str().unwrap()).expect(0);
    s3(&["backup", "prune", "--from", place, "--keep-last", "1", "--yes"]).expect(0);
    s3(&["backup", "verify", "--all", "--from", place]).expect(0);
    drop(_process);
    let said = s3(&back_up);
    assert!([7, 8].contains(&said.code), "{} {}", said.code, said.err);
}

#[test]
fn a_backup_can_be_one_file() {
    let stack = Stack::proxied();
    let (file, root) = (stack.path("one.tar"), stack.root.to_str().unwrap());
    let path = file.to_str().unwrap();
    let make = ["backup", "--file", path, "--backend-store-uri", stack.database.to_str().unwrap()];
    let made = stack.mlops(&[&make[..], &["--artifact-root", root, "--output", "json"]].concat()).expect(0);
    let id = made.json()["result"]["id"].as_str().unwrap().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds all that a store holds");
    stack.mlops(&make).expect(9);
    let said = stack.mlops(&["backup", "verify", path, "--drill"]).expect(0);
    assert!(said.out.contains(&id), "{}", said.out);
    assert!(stack.mlops(&["backup", "show", path]).expect(0).out.contains(&id));
    stack.mlops(&["backup", "list", "--from", path]).expect(0);
    let (restored, database) = (stack.path("restored"), stack.path("restored.db"));
    let to = ["--to", database.to_str().unwrap(), "--artifact-root", restored.to_str().unwrap()];
    stack.mlops(&[&["restore", path], &to[..]].concat()).expect(0);
    assert!(tree(&restored) == tree(&stack.root));
    verify(stack.home.path(), stack.database.to_str().unwrap(), database.to_str().unwrap()).expect(0);
    // It never changes, and `tar` makes a place of backups of it.
    for change in [&["pin", path][..], &["prune", "--from", path, "--keep-last", "1"]] {
        stack.mlops(&[&["backup"], change].concat()).expect(2);
    }
    let place = stack.path("place");
    fs::create_dir(&place).unwrap();
    assert!(Command::new("tar").arg("xf").arg(&file).arg("-C").arg(&place).status().unwrap().success());
    stack.mlops(&["backup", "verify", &id, "--from", place.to_str().unwrap()]).expect(0);
    stack.mlops(&["backup", "verify", place.join(&id).to_str().unwrap()]).expect(0);
}

#[test]
fn a_file_that_was_changed_or_cut_is_no_backup() {
    let stack = Stack::proxied();
    let file = stack.path("one.tar");
    let (path, root) = (file.to_str().unwrap(), stack.root.to_str().unwrap());
    let make = ["backup", "--file", path, "--backend-store-uri", stack.database.to_str().unwrap()];
    stack.mlops(&[&make[..], &["--artifact-root", root]].concat()).expect(0);
    let sound = fs::read(&file).unwrap();
    let damaged = |content: &[u8], what: &str| {
        fs::write(&file, content).unwrap();
        assert_eq!(stack.mlops(&["backup", "verify", path]).code, 11, "{what}");
        let (to, root) = (stack.path("no.db"), stack.path("no"));
        let to = ["--to", to.to_str().unwrap(), "--artifact-root", root.to_str().unwrap()];
        assert_eq!(stack.mlops(&[&["restore", path], &to[..]].concat()).code, 11, "{what}");
        assert!(!stack.path("no.db").exists(), "{what}");
    };
    let mut seed = 11u64;
    for _ in 0..rounds() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(seed >> 16).unwrap() % (8 * sound.len());
        let mut flipped = sound.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        damaged(&flipped, &format!("bit {at}"));
        damaged(&sound[..at / 8], &format!("cut at {}", at / 8));
    }
    damaged(&[&sound[..], &[0; 512]].concat(), "longer");
    damaged(b"no tar at all", "something else");
}

#[test]
fn what_lies_behind_the_proxy_is_read_through_it() {
    let home = folder();
    let store = format!("sqlite:///{}", home.path().join("mlflow.db").display());
    let server = crate::flows::Server::start("3.4.0", &store, home.path(), &["--serve-artifacts"]);
    server.script("fill_artifacts.py", &["--files", "50"]).expect(0);
    let place = home.path().join("backups");
    let back_up = ["backup", "--to", place.to_str().unwrap(), "--backend-store-uri", &store, "--progress", "none"];
    let back_up = |more: &[&str]| run(home.path(), &[&back_up[..], &["--output", "json"], more].concat());
    let unread = back_up(&[]).expect(4).json()["result"].clone();
    assert!(unread["artifacts"]["unread"][0]["reason"].as_str().unwrap().contains("--tracking-uri"), "{unread}");
    let through = back_up(&["--tracking-uri", &server.url]).expect(0).json()["result"].clone();
    let root = home.path().join("artifacts");
    let beside = back_up(&["--artifact-root", root.to_str().unwrap()]).expect(0).json()["result"].clone();
    for of in ["files", "bytes", "stored"] {
        assert_eq!(through["artifacts"][of], beside["artifacts"][of], "{of}");
    }
    assert!(through["artifacts"]["files"].as_u64().unwrap() > 60 && beside["artifacts"]["new_files"] == 0);
    let (restored, file) = (home.path().join("restored"), home.path().join("restored.db"));
    let to = ["--to", file.to_str().unwrap(), "--artifact-root", restored.to_str().unwrap()];
    let id = through["id"].as_str().unwrap();
    let from = ["restore", id, "--from", place.to_str().unwrap(), "--progress", "none"];
    run(home.path(), &[&from[..], &to[..]].concat()).expect(0);
    assert!(tree(&restored) == tree(&root));
    // What it cannot read any more is never taken for gone.
    drop(server);
    let gone = back_up(&["--tracking-uri", "http://127.0.0.1:1"]).expect(4).json()["result"].clone();
    assert!(gone["artifacts"]["unreadable"].as_u64().unwrap() > 0, "{gone}");
}

#[test]
fn a_drill_on_a_server_leaves_nothing_there() {
    let stack = Stack::proxied();
    let made = stack.backed_up(0, &[]);
    // A server on which no other test looks for such databases.
    let target = postgres(18).database("drills");
    let databases = || target.texts("SELECT datname::text FROM pg_database WHERE datname LIKE 'mlops_drill_%'");
    let said = stack.verify(&["--drill", "--drill-on", &target.url()]).expect(0);
    assert!(said.out.contains(made["id"].as_str().unwrap()), "{}", said.out);
    assert!(stack.list()[0]["drilled"].is_string());
    assert_eq!(databases(), Vec::<String>::new());
    assert_eq!(target.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);
    stack.verify(&["--drill-on", &target.url()]).expect(2);
    stack.verify(&["--drill", "--drill-on", "sqlite:////tmp/x.db"]).expect(2);
    // Damaged rows are found there as well, and leave nothing either.
    let archive = stack.path("backups").join(made["id"].as_str().unwrap()).join("database.tar");
    let mut content = fs::read(&archive).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&archive, content).unwrap();
    stack.verify(&["--drill", "--drill-on", &target.url()]).expect(11);
    assert_eq!(databases(), Vec::<String>::new());
}

#[test]
fn one_experiment_comes_back_alone() {
    let stack = Stack::proxied();
    stack.backed_up(0, &[]);
    let source = rusqlite::Connection::open(&stack.database).unwrap();
    let of = |connection: &rusqlite::Connection, sql: &str| -> String {
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let id = of(
        &source,
        "SELECT CAST(r.experiment_id AS TEXT) FROM model_versions v JOIN runs r ON r.run_uuid = v.run_id LIMIT 1",
    );
    let name = of(&source, &format!("SELECT name FROM experiments WHERE experiment_id = {id}"));
    let (root, file) = (stack.path("part"), stack.path("part.db"));
    stack.restore(file.to_str().unwrap(), &root, &["--experiment", "no such thing"]).expect(2);
    let plan = stack.restore(file.to_str().unwrap(), &root, &["--experiment", &name, "--dry-run"]).expect(0);
    assert!(plan.out.contains(&name) && plan.out.contains("left out") && !file.exists(), "{}", plan.out);
    stack.restore(file.to_str().unwrap(), &root, &["--experiment", &name]).expect(0);
    let part = rusqlite::Connection::open(&file).unwrap();
    let asked =
        format!("SELECT group_concat(run_uuid) FROM (SELECT * FROM runs WHERE experiment_id = {id} ORDER BY 1)");
    assert_eq!(of(&part, "SELECT group_concat(name) FROM experiments"), name);
    assert_eq!(of(&part, &asked), of(&source, &asked));
    for table in ["metrics", "params", "tags", "latest_metrics"] {
        let sum = |whole: bool| {
            let within = if whole { format!("WHERE experiment_id = {id}") } else { String::new() };
            let sql = "SELECT CAST(count(*) AS TEXT) FROM TABLE WHERE run_uuid IN (SELECT run_uuid FROM runs WITHIN)";
            let sql = sql.replace("TABLE", table).replace("WITHIN", &within);
            of(if whole { &source } else { &part }, &sql)
        };
        assert_eq!(sum(false), sum(true), "{table}");
    }
    let stray = "SELECT CAST(count(*) AS TEXT) FROM model_versions WHERE run_id NOT IN (SELECT run_uuid FROM runs)";
    assert_eq!(of(&part, stray), "0");
    assert_ne!(of(&part, "SELECT CAST(count(*) AS TEXT) FROM model_versions"), "0");
    assert_eq!(part.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)), Ok(0));
    // Its files and no others.
    let folders = artifact_folders(&file);
    let wanted: Vec<(String, Vec<u8>)> = tree(&stack.root)
        .into_iter()
        .filter(|(path, _)| {
            folders
                .iter()
                .any(|folder| path.starts_with(&format!("{}/", folder.trim_start_matches("mlflow-artifacts:/"))))
        })
        .collect();
    assert!(!wanted.is_empty() && wanted.len() < tree(&stack.root).len());
    assert!(tree(&root) == wanted);
    // The same on PostgreSQL, by its id and with another, and what was restored works.
    let target = postgres(15).database("part");
    stack.restore(&target.url(), &root, &["--experiment", &id, "--experiment", "0"]).expect(0);
    assert_eq!(target.number("SELECT count(*) FROM experiments"), 2);
    stack.mlops(&["db", "doctor", &target.url()]).expect(0);
}

#[test]
fn a_backup_that_lost_its_seal_is_not_thrown_away() {
    let stack = Stack::proxied();
    let first = stack.backed_up(0, &[]);
    let folder = stack.path("backups").join(first["id"].as_str().unwrap());
    let prune = ["backup", "prune", "--keep-last", "10", "--yes", "--from", &stack.place()];
    for pinned in [false, true] {
        if pinned {
            stack.mlops(&["backup", "pin", first["id"].as_str().unwrap(), "--from", &stack.place()]).expect(0);
        }
        fs::remove_file(folder.join("manifest.sha256")).unwrap();
        stack.mlops(&prune).expect(0);
        stack.verify(&[first["id"].as_str().unwrap()]).expect(0);
        fs::remove_file(folder.join("manifest.sha256")).unwrap();
        let said = stack.back_up(&[]).expect(0);
        assert!(said.json()["warnings"].to_string().contains("has it now"), "{}", said.out);
        stack.verify(&[first["id"].as_str().unwrap()]).expect(0);
    }
    // One without its manifest is damaged, and is left for people to decide on.
    fs::remove_file(folder.join("manifest.json")).unwrap();
    stack.back_up(&[]).expect(0);
    assert!(folder.join("database.tar").exists());
    stack.verify(&["--all"]).expect(11);
    stack.mlops(&prune).expect(11);
}

#[test]
fn backups_of_one_second_have_an_order() {
    let stack = Stack::proxied();
    let ids: Vec<String> = (0..4)
        .map(|_| {
            let output = stack.command(&["--artifacts", "none"]).output().unwrap();
            Said::of(output).expect(0).json()["result"]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(ids.is_sorted() && stack.list().last().unwrap()["id"] == ids[3].as_str(), "{ids:?}");
}

#[test]
fn a_place_has_the_name_that_it_was_given() {
    let stack = Stack::proxied();
    for name in ["100%25 daily", "a b", "ü#?"] {
        let place = stack.path(name);
        let (database, root) = (stack.database.to_str().unwrap(), stack.root.to_str().unwrap());
        let source = ["--backend-store-uri", database, "--artifact-root", root];
        stack.mlops(&[&["backup", "--to", place.to_str().unwrap()], &source[..]].concat()).expect(0);
        assert!(place.join("artifacts").is_dir(), "{name}");
        stack.mlops(&["backup", "verify", "--from", place.to_str().unwrap()]).expect(0);
        let file = stack.path(&format!("{name}.tar"));
        stack.mlops(&[&["backup", "--file", file.to_str().unwrap()], &source[..]].concat()).expect(0);
        assert!(file.is_file(), "{name}");
        stack.mlops(&["backup", "verify", file.to_str().unwrap()]).expect(0);
    }
}

#[test]
fn latest_says_what_else_it_could_have_been() {
    let stack = Stack::proxied();
    let full = stack.backed_up(0, &[]);
    stack.backed_up(0, &["--artifacts", "none"]);
    let (file, root) = (stack.path("r.db"), stack.path("r"));
    let said = stack.restore(file.to_str().unwrap(), &root, &["--output", "json"]).expect(0);
    let warnings = said.json()["warnings"].to_string();
    assert!(warnings.contains("artifacts: none") && warnings.contains(full["id"].as_str().unwrap()), "{warnings}");
    let said = stack.verify(&["--output", "json"]).expect(0);
    assert_eq!(said.json()["result"]["backups"].as_array().map(Vec::len), Some(1), "{}", said.out);
    let none = stack.path("none");
    fs::create_dir_all(none.join("20260101T000000Z-00000000")).unwrap();
    stack.mlops(&["backup", "verify", "--all", "--from", none.to_str().unwrap()]).expect(2);
}
