//! Backups, prunes and restores that are killed, interrupted, out of room, damaged or watched: what is there is whole,
//! what went wrong is told, and the next run works without anybody's help.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mlops::artifact::Folder;
use mlops::backup::manifest::{Manifest, seal};
use mlops::backup::repository::Repository;
use rustix::process::{Pid, Signal, kill_process};

use crate::backups::{Stack, aged, artifact_folders, tree};
use crate::faults::{untouched_or_complete, wait_for_phase};
use crate::places::noise;
use crate::support::listener::{Answer, Listener};
use crate::support::secrets::KEY;
use crate::support::{Killed, Said, migrate, mlops, postgres, rounds, verify, wait_for};
use crate::targets::auth_store;

const MS: Duration = Duration::from_millis(1);
/// Runs with artifacts of a small stack.
const RUNS: usize = 40;

/// When a run is struck.
enum Moment {
    /// So long after it began.
    After(Duration),
    /// So long after a phase began.
    Phase(&'static str, Duration),
}

/// Begins a run and strikes it. Its exit code; `None`: the signal ended it.
fn struck(stack: &Stack, arguments: &[String], moment: &Moment, signal: Signal) -> Option<i32> {
    let mut command = mlops(stack.home.path());
    command.args(arguments).args(["--progress", "json"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Killed(command.spawn().unwrap());
    match moment {
        Moment::After(time) => std::thread::sleep(*time),
        Moment::Phase(phase, after) => {
            wait_for_phase(&mut child.0, phase);
            std::thread::sleep(*after);
        }
    }
    kill_process(Pid::from_child(&child.0), signal).unwrap();
    let begun = Instant::now();
    let code = child.0.wait().unwrap().code();
    assert!(begun.elapsed() < Duration::from_secs(10), "it ended {:?} after the signal", begun.elapsed());
    code
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn backing_up(stack: &Stack) -> Vec<String> {
    let (database, root) = (stack.database.to_str().unwrap(), stack.root.to_str().unwrap());
    words(&["backup", "--to", &stack.place(), "--backend-store-uri", database, "--artifact-root", root])
}

fn pruning(stack: &Stack) -> Vec<String> {
    words(&["backup", "prune", "--from", &stack.place(), "--keep-last", "1", "--yes"])
}

fn restoring(stack: &Stack, to: &str, root: &Path) -> Vec<String> {
    let root = root.to_str().unwrap();
    words(&["restore", "latest", "--from", &stack.place(), "--to", to, "--artifact-root", root, "--yes"])
}

fn done(stack: &Stack, arguments: &[String]) -> Said {
    stack.mlops(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A stack with artifacts of few runs: what is done again and again should not take long.
fn small() -> Stack {
    let stack = Stack::proxied();
    for address in artifact_folders(&stack.database).iter().skip(RUNS) {
        let place = stack.root.join(address.trim_start_matches("mlflow-artifacts:/"));
        fs::remove_dir_all(&place).unwrap();
        // And the folders that this leaves empty.
        let _ = place.ancestors().skip(1).take_while(|p| *p != stack.root).map(fs::remove_dir).find(Result::is_err);
    }
    stack
}

/// Gives a file of every so many-th run another content.
fn change(stack: &Stack, every: usize, what: &str) {
    for (number, address) in artifact_folders(&stack.database).iter().take(RUNS).enumerate().step_by(every) {
        let place = stack.root.join(address.trim_start_matches("mlflow-artifacts:/"));
        aged(&place.join("model/MLmodel"), format!("{what} {number}").as_bytes());
    }
}

/// A sparse file among the artifacts, so that a run takes its time.
fn large(stack: &Stack, bytes: u64, head: &[u8]) {
    let first = artifact_folders(&stack.database).remove(0);
    let file = stack.root.join(first.trim_start_matches("mlflow-artifacts:/")).join("large.bin");
    fs::write(&file, head).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(bytes).unwrap();
}

/// What lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn ids(stack: &Stack, state: &str) -> Vec<String> {
    let listed = stack.list();
    listed.iter().filter(|b| b["state"] == state).map(|b| b["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backup_that_is_killed_harms_none_that_is_there() {
    let stack = small();
    let first = stack.backed_up(0, &[])["id"].as_str().unwrap().to_owned();
    let more = rounds();
    for round in 0..more {
        change(&stack, 4, &format!("round {round}"));
        let moment = match round % 3 {
            0 => Moment::Phase("copying artifacts", MS * round),
            1 => Moment::Phase("publishing", MS * round / 4),
            _ => Moment::After(MS * (10 + 300 * round / more)),
        };
        let code = struck(&stack, &backing_up(&stack), &moment, Signal::KILL);
        stack.verify(&["--all"]).expect(0);
        let (whole, all) = (ids(&stack, "complete"), stack.list());
        assert!(whole.contains(&first), "{all:?}");
        assert!(all.iter().all(|b| ["complete", "unfinished"].contains(&b["state"].as_str().unwrap())), "{all:?}");
        assert!(code.is_none() || whole.len() > 1, "{code:?} {all:?}");
    }
    let made = stack.backed_up(0, &[]);
    assert_eq!(made["artifacts"]["files"].as_u64().unwrap(), tree(&stack.root).len() as u64);
    assert_eq!(ids(&stack, "complete").len(), stack.list().len(), "what was interrupted is gone");
    stack.verify(&["--all", "--drill"]).expect(0);
    assert_eq!(names(stack.home.path()), ["artifacts", "backups", "mlflow.db", "state"], "nothing is left over");
    assert_eq!(names(&stack.path("backups")).iter().filter(|n| n.starts_with('.')).count(), 0);
}

#[test]
fn a_prune_that_is_struck_takes_nothing_that_is_needed() {
    let stack = small();
    for round in 0..3 {
        change(&stack, 1, &format!("backup {round}"));
        done(&stack, &backing_up(&stack)).expect(0);
    }
    for (name, _) in tree(&stack.path("backups/artifacts")) {
        let file = stack.path("backups/artifacts").join(name);
        let old = SystemTime::now() - Duration::from_secs(90_000);
        fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    }
    fs::rename(stack.path("backups"), stack.path("before")).unwrap();
    let afresh = || {
        let _ = fs::remove_dir_all(stack.path("backups"));
        let copied = Command::new("cp").arg("-a").args([stack.path("before"), stack.path("backups")]).status();
        assert!(copied.unwrap().success());
    };
    let pool = || tree(&stack.path("backups/artifacts")).len();
    afresh();
    let full = pool();
    done(&stack, &pruning(&stack)).expect(0);
    let needed = pool();
    assert!(needed < full, "{needed} of {full}");
    let (mut halfway, more) = (0, rounds());
    for round in 0..more {
        afresh();
        let (signal, end) = [(Signal::KILL, None), (Signal::INT, Some(130)), (Signal::TERM, Some(143))]
            [if round % 2 == 0 { 0 } else { 1 + (round / 2 % 2) as usize }];
        let moment = match round % 4 {
            0 => Moment::After(MS * (5 + 60 * round / more)),
            1 => Moment::Phase("looking for what is needed", MS * round / 8),
            _ => Moment::Phase("removing", MS * round / 4),
        };
        let code = struck(&stack, &pruning(&stack), &moment, signal);
        assert!(code == end || code == Some(0), "{code:?} after {signal:?}");
        stack.verify(&["--all"]).expect(0);
        let (left, whole) = (pool(), ids(&stack, "complete"));
        assert!(!whole.is_empty() && left >= needed, "{whole:?}, {left} contents");
        assert!(code != Some(0) || (whole.len(), left) == (1, needed), "0 means done");
        halfway += u32::from(whole.len() < 3 && left > needed);
        done(&stack, &pruning(&stack)).expect(0);
        assert_eq!((stack.list().len(), pool()), (1, needed));
        stack.verify(&["--all"]).expect(0);
    }
    println!("{halfway} of {more} were struck between the first backup and the last content");
    assert!(halfway > 0, "no strike came in the middle");
    stack.backed_up(0, &[]);
    stack.verify(&["--all"]).expect(0);
}

#[test]
fn a_restore_that_is_killed_leaves_whole_files_and_a_whole_database_or_none() {
    let stack = small();
    stack.backed_up(0, &[]);
    let sound: std::collections::BTreeMap<String, Vec<u8>> = tree(&stack.root).into_iter().collect();
    let (file, root) = (stack.path("restored.db"), stack.path("restored"));
    let mut database = postgres(15).database("killed_restore");
    for round in 0..rounds() {
        let url = database.url();
        let to = if round % 2 == 0 { file.to_str().unwrap() } else { &url };
        let moment = match round % 5 {
            0 => Moment::Phase("restoring artifacts", MS * (3 * round)),
            1 => Moment::Phase("copying rows", MS * (2 * round)),
            2 => Moment::Phase("verifying", MS * (2 * round)),
            3 => Moment::Phase("comparing artifacts", MS * round),
            _ => Moment::After(MS * (30 + 20 * round)),
        };
        // In PostgreSQL the phases have other names.
        let moment = match moment {
            Moment::Phase("copying rows" | "verifying", after) if round % 2 == 1 => {
                Moment::Phase("copying, indexing, verifying", after * 4)
            }
            other => other,
        };
        struck(&stack, &restoring(&stack, to, &root), &moment, Signal::KILL);
        std::thread::sleep(100 * MS);
        let there = if root.exists() { tree(&root) } else { Vec::new() };
        for (name, content) in there.iter().filter(|(name, _)| !name.starts_with(".mlops-staging-")) {
            assert!(sound[name] == *content || content == b"damaged", "{name} is not whole");
        }
        if file.exists() {
            verify(stack.home.path(), stack.database.to_str().unwrap(), file.to_str().unwrap()).expect(0);
            fs::remove_file(&file).unwrap();
        }
        if untouched_or_complete(stack.home.path(), &stack.database, &database) {
            database = postgres(15).database("killed_restore");
        }
        match round % 3 {
            0 => drop(fs::remove_dir_all(&root)),
            1 => there.iter().step_by(7).for_each(|(name, _)| fs::write(root.join(name), "damaged").unwrap()),
            _ => {}
        }
    }
    for to in [file.to_str().unwrap(), &database.url()] {
        done(&stack, &restoring(&stack, to, &root)).expect(0);
        verify(stack.home.path(), stack.database.to_str().unwrap(), to).expect(0);
    }
    assert!(tree(&root) == tree(&stack.root), "every file, and nothing else");
    assert!(database.own_schemas().is_empty());
    let own = ["artifacts", "backups", "mlflow.db", "restored", "restored.db", "state"];
    assert_eq!(names(stack.home.path()), own, "nothing is left over");
}

#[test]
fn an_interrupt_ends_backup_and_restore_in_order() {
    let stack = small();
    large(&stack, 100 << 20, b"head");
    let phase = Moment::Phase;
    for (signal, code, moment) in [
        (Signal::INT, 130, phase("copying rows", MS)),
        (Signal::TERM, 143, phase("listing artifacts", MS)),
        (Signal::INT, 130, phase("copying artifacts", 60 * MS)),
    ] {
        assert_eq!(struck(&stack, &backing_up(&stack), &moment, signal), Some(code));
        let left = names(&stack.path("backups"));
        assert!(left.iter().all(|name| ["artifacts", "lock"].contains(&name.as_str())), "{left:?}");
        assert_eq!(names(stack.home.path()), ["artifacts", "backups", "mlflow.db", "state"]);
    }
    stack.backed_up(0, &[]);
    stack.verify(&["--all"]).expect(0);
    let (file, root) = (stack.path("restored.db"), stack.path("restored"));
    let restoring = restoring(&stack, file.to_str().unwrap(), &root);
    for (signal, code, moment) in [
        (Signal::TERM, 143, phase("restoring artifacts", 60 * MS)),
        (Signal::INT, 130, phase("restoring artifacts", MS)),
    ] {
        assert_eq!(struck(&stack, &restoring, &moment, signal), Some(code));
        assert_eq!(names(stack.home.path()), ["artifacts", "backups", "mlflow.db", "restored", "state"]);
        let left = names(&root);
        assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    }
    done(&stack, &restoring).expect(0);
    assert!(tree(&root) == tree(&stack.root));
}

/// Runs a script in which `$PLACE` is a disk of its own with so little room, and `run NAME COMMAND` keeps what COMMAND
/// says. `None`: this machine lets nobody mount.
fn on_a_small_disk(stack: &Stack, room: u64, script: &str) -> Option<impl Fn(&str) -> Said> {
    let place = stack.path("small");
    let _ = fs::create_dir(&place);
    let frame = "mount -t tmpfs -o \"size=$ROOM\" none \"$PLACE\" || exit 99\n\
        run() { name=$1; shift; \"$@\" > \"$HOME/$name.out\" 2> \"$HOME/$name.err\"; echo $? > \"$HOME/$name.code\"; }\n";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{frame}{script}")]);
    let program = mlops(stack.home.path());
    command.env_clear().envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("MLOPS", program.get_program()).env("ROOM", room.to_string()).env("PLACE", &place);
    command.env("DATABASE", &stack.database).env("ROOT", &stack.root).env("BACKUPS", stack.place());
    let status = command.stderr(Stdio::null()).status().ok()?;
    if !status.success() {
        eprintln!("no disk can be mounted here ({status}): skipped");
        return None;
    }
    let home = stack.home.path().to_owned();
    Some(move |name: &str| {
        let read = |end: &str| fs::read_to_string(home.join(format!("{name}.{end}"))).unwrap();
        Said { code: read("code").trim().parse().unwrap(), out: read("out"), err: read("err") }
    })
}

#[test]
fn a_full_disk_is_told_and_leaves_no_backup_and_no_database() {
    let stack = small();
    stack.backed_up(0, &[]);
    // What the pages of a whole one take.
    let pages = |root: &Path| tree(root).iter().map(|(_, content)| (content.len() as u64).div_ceil(4096) * 4096).sum();
    let (stored, artifacts): (u64, u64) = (pages(&stack.path("backups")), pages(&stack.root));
    let database = fs::metadata(stack.database.as_path()).unwrap().len();
    let script = "
        backup=\"$MLOPS backup --to $PLACE/b --backend-store-uri $DATABASE --artifact-root $ROOT --progress none\"
        run full $backup
        run list $MLOPS backup list --from \"$PLACE/b\" --output json
        mount -o remount,size=64m \"$PLACE\"
        run again $backup
        run verify $MLOPS backup verify --all --from \"$PLACE/b\"
        find \"$PLACE/b\" -name '.mlops*' > \"$HOME/left\"";
    let mut full = 0;
    for room in [64 << 10, stored / 8, stored / 2, stored - (40 << 10), stored - (16 << 10), stored - (4 << 10)] {
        let Some(said) = on_a_small_disk(&stack, room, script) else { return };
        let (backup, list) = (said("full"), said("list"));
        assert!([0, 7].contains(&backup.code), "{room}: {} {}", backup.code, backup.err);
        if backup.code == 7 {
            full += 1;
            assert!(backup.err.contains("small/b"), "the place is named: {}", backup.err);
            assert!(backup.err.contains("full") || backup.err.contains("No space left"), "{}", backup.err);
            let none = list.code == 6 || list.json()["result"]["backups"].as_array().unwrap().is_empty();
            assert!(none, "{room}: {}", list.out);
        }
        said("again").expect(0);
        said("verify").expect(0);
        assert_eq!(fs::read_to_string(stack.path("left")).unwrap(), "");
    }
    assert!(full >= 5, "{full}");

    let script = "
        restore=\"$MLOPS restore latest --from $BACKUPS --to $PLACE/r.db --artifact-root $PLACE/r --yes --progress none\"
        run full $restore
        ls -A \"$PLACE\" > \"$HOME/left\"
        mount -o remount,size=64m \"$PLACE\"
        run again $restore
        run verify $MLOPS migrate verify --source \"$DATABASE\" --target \"$PLACE/r.db\"
        run same diff -r \"$ROOT\" \"$PLACE/r\"";
    for room in [64 << 10, artifacts / 2, artifacts + (32 << 10), artifacts + database / 2] {
        let Some(said) = on_a_small_disk(&stack, room, script) else { return };
        let restore = said("full").expect(7);
        assert!(restore.err.contains("small/r"), "the place is named: {}", restore.err);
        let words = ["full", "No space left"];
        assert!(words.iter().any(|w| restore.err.contains(w)), "{}", restore.err);
        let left = fs::read_to_string(stack.path("left")).unwrap();
        assert!(left.lines().all(|name| name == "r"), "{room}: {left}");
        said("again").expect(0);
        said("verify").expect(0);
        said("same").expect(0);
    }
}

/// A stack with a database of basic-auth beside; the newest backup has both.
fn with_auth(stack: &Stack) -> PathBuf {
    let auth = stack.path("basic_auth.db");
    auth_store(&rusqlite::Connection::open(&auth).unwrap());
    let mut command = mlops(stack.home.path());
    command.args(backing_up(stack)).args(["--progress", "none"]).env("MLOPS_AUTH_STORE_URI", &auth);
    Said::of(command.output().unwrap()).expect(0);
    auth
}

#[test]
fn basic_auths_database_goes_into_a_backup_and_comes_back() {
    let stack = small();
    stack.backed_up(0, &[]);
    let (file, auth_file) = (stack.path("restored.db"), stack.path("restored_auth.db"));
    let auth_to = ["--auth-to", auth_file.to_str().unwrap()];
    let said = stack.restore(file.to_str().unwrap(), &stack.root, &auth_to).expect(2);
    assert!(said.err.contains("has no basic-auth database"), "{}", said.err);
    wait_for("the next second", Duration::from_secs(5), || {
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_millis();
        (second < 100).then_some(())
    });
    let auth = with_auth(&stack);
    stack.verify(&["--drill"]).expect(0);
    let shown = stack.mlops(&["backup", "show", "latest", "--from", &stack.place()]).expect(0);
    assert!(shown.out.contains("MLFLOW_FLASK_SERVER_SECRET_KEY"), "{}", shown.out);
    stack.restore(file.to_str().unwrap(), &stack.root, &auth_to).expect(0);
    verify(stack.home.path(), stack.database.to_str().unwrap(), file.to_str().unwrap()).expect(0);
    verify(stack.home.path(), auth.to_str().unwrap(), auth_file.to_str().unwrap()).expect(0);
    let (main, users) = (postgres(15).database("auth_main"), postgres(15).database("auth_users"));
    stack.restore(&main.url(), &stack.root, &["--auth-to", &users.url()]).expect(0);
    verify(stack.home.path(), auth.to_str().unwrap(), &users.url()).expect(0);
    // Either that is there already keeps the other from being made.
    let fresh = stack.path("fresh.db");
    stack.restore(fresh.to_str().unwrap(), &stack.root, &auth_to).expect(9);
    assert!(!fresh.exists());
    let fresh_auth = ["--auth-to", fresh.to_str().unwrap()];
    stack.restore(file.to_str().unwrap(), &stack.root, &fresh_auth).expect(9);
    assert!(!fresh.exists());
}

#[test]
fn every_damage_is_found_before_a_database_is_made() {
    let stack = small();
    with_auth(&stack);
    stack.verify(&["--drill"]).expect(0);
    let backups = stack.path("backups");
    let id = ids(&stack, "complete").remove(0);
    let repository = Repository { shelf: Box::new(Folder::new(&backups)), fixed: false };

    // Every bit of the manifest and of its seal.
    let text = fs::read(backups.join(&id).join("manifest.json")).unwrap();
    let sealed = seal(&text).into_bytes();
    assert_eq!(fs::read(backups.join(&id).join("manifest.sha256")).unwrap(), sealed);
    for bit in 0..8 * sealed.len() {
        assert!(Manifest::parse(&text, &flipped(&sealed, bit)).is_err(), "bit {bit} of the seal");
    }
    for bit in (0..8 * text.len()).step_by(5) {
        assert!(Manifest::parse(&flipped(&text, bit), &sealed).is_err(), "bit {bit} of the manifest");
    }
    // Of what was proven nothing depends but a date; a pin is one by being there.
    let proof = backups.join(&id).join("proof.json");
    let sound = fs::read(&proof).unwrap();
    for bit in 0..8 * sound.len() {
        fs::write(&proof, flipped(&sound, bit)).unwrap();
        assert!(matches!(repository.look(&id).unwrap().manifest, Some(Ok(_))), "bit {bit} of the proof");
    }
    stack.list();
    fs::write(&proof, &sound).unwrap();
    stack.mlops(&["backup", "pin", &id, "--from", &stack.place()]).expect(0);
    fs::write(backups.join(&id).join("pinned"), [0xff, 0]).unwrap();
    assert_eq!(stack.list()[0]["pinned"], true);

    let pool = tree(&backups.join("artifacts"));
    let (largest, _) = pool.iter().max_by_key(|(_, content)| content.len()).unwrap();
    let own = ["manifest.json", "manifest.sha256", "artifacts.jsonl.gz", "database.tar", "auth.tar"];
    let mut places: Vec<_> = own.iter().map(|name| backups.join(&id).join(name)).collect();
    places.extend([largest, &pool[0].0].map(|name| backups.join("artifacts").join(name)));
    let (file, auth_file) = (stack.path("no.db"), stack.path("no_auth.db"));
    let mut seed = 11u64;
    for (number, place) in places.iter().enumerate() {
        let sound = fs::read(place).unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let somewhere = usize::try_from(seed >> 16).unwrap() % (8 * sound.len());
        let damages = [
            ("its first bit", Some(flipped(&sound, 0))),
            ("its last bit", Some(flipped(&sound, 8 * sound.len() - 1))),
            ("a bit", Some(flipped(&sound, somewhere))),
            ("its second half", Some(sound[..sound.len() / 2].to_vec())),
            ("a byte more", Some([&sound[..], b"\n"].concat())),
            ("all of it", None),
        ];
        for (turn, (damage, content)) in damages.into_iter().enumerate() {
            let what = format!("{damage} of {}", place.display());
            match &content {
                Some(content) => fs::write(place, content).unwrap(),
                None => fs::remove_file(place).unwrap(),
            }
            // What lost its manifest is no backup; by its name it is one that was never finished.
            let by = if content.is_none() && number < 2 { &id } else { "latest" };
            let said = stack.verify(&[by]);
            assert_eq!(said.code, 11, "{what}: {} {}", said.out, said.err);
            let root = stack.path(&format!("no-{number}-{turn}"));
            let (to, root_text, place) = (file.to_str().unwrap(), root.to_str().unwrap(), stack.place());
            let more = ["--artifact-root", root_text, "--auth-to", auth_file.to_str().unwrap()];
            let said = stack.mlops(&[&["restore", by, "--from", &place, "--to", to], &more[..]].concat());
            assert_eq!(said.code, 11, "{what}: {} {}", said.out, said.err);
            assert!(!file.exists() && !auth_file.exists(), "{what}");
            assert!(number >= own.len() || !root.exists(), "{what}: no file is written by a list that is not checked");
            let _ = fs::remove_dir_all(&root);
        }
        fs::write(place, &sound).unwrap();
    }
    stack.verify(&["--all"]).expect(0);

    // An older one does not stand in for a damaged one unasked.
    change(&stack, 4, "later");
    let newer = stack.backed_up(0, &[])["id"].as_str().unwrap().to_owned();
    let manifest = backups.join(&newer).join("manifest.json");
    fs::write(&manifest, flipped(&fs::read(&manifest).unwrap(), 800)).unwrap();
    let said = stack.restore(file.to_str().unwrap(), &stack.path("no"), &[]).expect(11);
    assert!(said.err.contains(&newer) && said.err.contains("older"), "{}", said.err);
    stack.verify(&[&id]).expect(0);
}

fn flipped(sound: &[u8], bit: usize) -> Vec<u8> {
    let mut damaged = sound.to_vec();
    damaged[bit / 8] ^= 1 << (bit % 8);
    damaged
}

#[test]
fn a_monitor_hears_how_a_backup_went() {
    let stack = small();
    let key = KEY;
    // How it ended, what the monitor heard, what the chat was told.
    let told = |code: i32, more: &[&str], wait: Option<Signal>| {
        let (monitor, chat) = (Listener::new(&[Answer::Says(200, "OK")]), Listener::new(&[Answer::Says(200, "ok")]));
        let mut command = mlops(stack.home.path());
        command.args(backing_up(&stack)).args(["--progress", "json"]).args(more);
        command.args(["--ping", &format!("http://127.0.0.1:{}/{key}", monitor.port)]);
        command.args(["--notify", &format!("http://127.0.0.1:{}/{key}", chat.port)]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(signal) = wait {
            wait_for_phase(&mut child, "copying artifacts");
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        Said::of(child.wait_with_output().unwrap()).expect(code);
        let asked = monitor.asked();
        let lines: Vec<&str> = asked.iter().map(|a| a.line.as_str()).collect();
        assert!(lines.len() == 2 && lines[0].starts_with(&format!("POST /{key}/start?rid=")), "{lines:?}");
        let well = lines[1].starts_with(&format!("POST /{key}?rid="));
        assert!(well || lines[1].starts_with(&format!("POST /{key}/fail?rid=")), "{lines:?}");
        let chat: Vec<String> = chat.asked().into_iter().map(|a| a.body).collect();
        assert!(chat.len() <= 1 && chat.is_empty() == well, "{chat:?}");
        (well, asked[1].body.clone(), chat.concat())
    };
    let (well, text, _) = told(0, &[], None);
    assert!(well && text.contains(&ids(&stack, "complete")[0]), "{text}");

    large(&stack, 100 << 20, b"head");
    let (well, text, chat) = told(143, &[], Some(Signal::TERM));
    assert!(!well && text.contains("mlops backup failed: ") && chat.contains("mlops backup failed: "), "{text} {chat}");

    let first = artifact_folders(&stack.database).remove(0);
    let place = stack.root.join(first.trim_start_matches("mlflow-artifacts:/"));
    fs::remove_file(place.join("large.bin")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", place.join("dangling")).unwrap();
    let (well, text, chat) = told(4, &[], None);
    assert!(!well && text.contains('1') && !chat.is_empty(), "{text} {chat}");
    fs::remove_file(place.join("dangling")).unwrap();

    let lock = fs::File::options().write(true).open(stack.path("backups/lock")).unwrap();
    lock.lock().unwrap();
    let (well, text, chat) = told(10, &[], None);
    assert!(!well && text.contains("in use") && chat.contains("in use"), "{text} {chat}");
    drop(lock);

    fs::rename(&stack.database, stack.path("aside.db")).unwrap();
    let (well, text, chat) = told(6, &[], None);
    assert!(!well && text.contains("mlflow.db") && chat.contains("mlflow.db"), "{text} {chat}");
    fs::rename(stack.path("aside.db"), &stack.database).unwrap();

    // The backup is made, and pruning fails.
    let manifest = stack.path("backups").join(&ids(&stack, "complete")[0]).join("manifest.json");
    fs::write(&manifest, "damaged").unwrap();
    let (well, text, _) = told(11, &["--prune", "--keep-last", "1", "--yes"], None);
    assert!(!well && text.contains("but pruning failed: "), "{text}");

    // A monitor that is not there changes nothing but a warning.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = stack.mlops(
        &[
            &backing_up(&stack).iter().map(String::as_str).collect::<Vec<_>>()[..],
            &["--ping", &format!("http://127.0.0.1:{closed}/{key}")],
        ]
        .concat(),
    );
    let said = said.expect(0);
    assert!(said.err.contains("ping (success)") && !said.err.contains("s3cr3t"), "{}", said.err);
}

#[test]
fn writers_of_postgresql_wait_for_no_backup() {
    let stack = small();
    let database = postgres(15).database("writers");
    migrate(stack.home.path(), &stack.database, &database.url(), &["-q"]).expect(0);
    let (run, stop) = (database.texts("SELECT min(run_uuid)::text FROM runs").remove(0), AtomicBool::new(false));
    let write = |writer: u32| {
        let mut client = database.client();
        client.batch_execute("SET statement_timeout = '10s'; SET lock_timeout = '3s'").unwrap();
        let (mut steps, mut slowest) = (0u32, Duration::ZERO);
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let insert = "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES";
            let one = |key: &str| format!("{insert} ('{key}{writer}', {steps}, 1, '{run}', {steps}, false);");
            let update = format!("UPDATE runs SET end_time = {steps} WHERE run_uuid = '{run}';");
            // One transaction.
            client.batch_execute(&format!("BEGIN; {} {update} {} COMMIT", one("left"), one("right"))).unwrap();
            slowest = slowest.max(begun.elapsed());
            steps += 1;
            std::thread::sleep(2 * MS);
        }
        (steps, slowest)
    };
    let backups = 3;
    let written: Vec<(u32, Duration)> = std::thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = (0..3).map(|writer| scope.spawn(move || write(writer))).collect();
        for _ in 0..backups {
            let root = stack.root.to_str().unwrap();
            let url = database.url();
            let arguments = ["backup", "--to", &stack.place(), "--artifact-root", root, "--backend-store-uri", &url];
            stack.mlops(&arguments).expect(0);
        }
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    for (steps, slowest) in written {
        assert!(steps > 20 && slowest < Duration::from_secs(3), "{steps} writes, the slowest took {slowest:?}");
    }
    stack.verify(&["--all"]).expect(0);
    // Each has one moment.
    for (number, id) in ids(&stack, "complete").iter().enumerate() {
        let file = stack.path(&format!("moment-{number}.db"));
        let to = ["restore", id, "--from", &stack.place(), "--to", file.to_str().unwrap(), "--no-artifacts"];
        stack.mlops(&to).expect(0);
        let count = |side: &str| -> i64 {
            let connection = rusqlite::Connection::open(&file).unwrap();
            let sql = format!("SELECT count(*) FROM metrics WHERE key GLOB '{side}[0-9]'");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count("left"), count("right"), "{id}");
    }
    assert_eq!(ids(&stack, "complete").len(), backups);
}

/// The most memory that a run takes, in MB, after it ended well.
fn peak(stack: &Stack, arguments: &[String]) -> u64 {
    let mut command = mlops(stack.home.path());
    command.args(arguments).args(["--progress", "none", "-q"]).stdout(Stdio::null());
    let mut child = Killed(command.spawn().unwrap());
    let status = format!("/proc/{}/status", child.0.id());
    let mut peak = 0;
    let code = loop {
        if let Ok(text) = fs::read_to_string(&status) {
            let most = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
            peak = most.unwrap_or(peak);
        }
        if let Some(status) = child.0.try_wait().unwrap() {
            break status.code();
        }
        std::thread::sleep(2 * MS);
    };
    assert_eq!(code, Some(0), "{arguments:?}");
    assert!(peak > 0, "nothing was seen");
    peak / 1024
}

#[test]
fn memory_does_not_grow_with_a_file() {
    let stack = small();
    large(&stack, 300 << 20, &noise(8 << 20));
    let (file, root) = (stack.path("restored.db"), stack.path("restored"));
    let runs = [
        backing_up(&stack),
        words(&["backup", "verify", "--drill", "--from", &stack.place()]),
        restoring(&stack, file.to_str().unwrap(), &root),
    ];
    for arguments in runs {
        let peak = peak(&stack, &[&arguments[..], &words(&["--jobs", "8"])].concat());
        println!("{peak} MB: {}", arguments[..2].join(" "));
        assert!(peak < 100, "{peak} MB: {arguments:?}");
    }
    let first = artifact_folders(&stack.database).remove(0);
    let name = format!("{}/large.bin", first.trim_start_matches("mlflow-artifacts:/"));
    assert!(Command::new("cmp").args([&stack.root, &root].map(|root| root.join(&name))).status().unwrap().success());
}

#[test]
fn a_backup_without_a_file_is_restored_too() {
    let stack = small();
    stack.backed_up(0, &["--artifacts", "none"]);
    let (file, root) = (stack.path("restored.db"), stack.path("not/there"));
    stack.restore(file.to_str().unwrap(), &root, &[]).expect(0);
    verify(stack.home.path(), stack.database.to_str().unwrap(), file.to_str().unwrap()).expect(0);
}
