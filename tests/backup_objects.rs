//! Backups in S3, and of artifacts in S3, when the object store is busy, cuts off, or falls silent, and when a run dies
//! that held the lock: retried for a while, told in bounded time, and never a backup that is none.

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;

use crate::artifacts::{ObjectStore, object_store};
use crate::backups::{Stack, aged, artifact_folders, tree};
use crate::places::noise;
use crate::support::relay::{BUSY, Fate, Relay};
use crate::support::{Killed, Said, mlops, verify, wait_for};

const PLACE: &str = "s3://artifacts/place";

/// A stack with few artifacts, an object store, and a relay in front of it.
struct Away {
    stack: Stack,
    relay: Relay,
    store: ObjectStore,
}

impl Away {
    fn new() -> Away {
        let stack = Stack::proxied();
        fs::remove_dir_all(&stack.root).unwrap();
        for (number, address) in artifact_folders(&stack.database).iter().take(3).enumerate() {
            let place = stack.root.join(address.trim_start_matches("mlflow-artifacts:/"));
            aged(&place.join("model/MLmodel"), format!("flavors: {number}\n").as_bytes());
            aged(&place.join("weights.bin"), &noise((number + 1) * 100_000));
        }
        let store = object_store(stack.home.path(), &[]);
        let url = store.access.endpoint.clone().unwrap();
        let relay = Relay::before(url.rsplit_once(':').unwrap().1.parse().unwrap());
        Away { stack, relay, store }
    }

    /// A run that goes through the relay, or straight to the store.
    fn command(&self, relayed: bool, arguments: &[&str]) -> Command {
        let mut command = mlops(self.stack.home.path());
        let key = self.store.access.key.as_ref().unwrap();
        command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", key.secret.expose_secret());
        let direct = self.store.access.endpoint.clone().unwrap();
        let endpoint = if relayed { format!("http://localhost:{}", self.relay.port) } else { direct };
        command.env("MLFLOW_S3_ENDPOINT_URL", endpoint).args(arguments).args(["--progress", "none"]);
        command
    }

    fn run(&self, relayed: bool, arguments: &[&str]) -> Said {
        Said::of(self.command(relayed, arguments).output().unwrap())
    }

    fn backing_up(&self) -> [&str; 8] {
        let (database, root) = (self.stack.database.to_str().unwrap(), self.stack.root.to_str().unwrap());
        ["backup", "--to", PLACE, "--backend-store-uri", database, "--artifact-root", root, "--output=json"]
    }

    /// How many backups are listed; none of them is damaged.
    fn listed(&self) -> usize {
        let said = self.run(false, &["backup", "list", "--from", PLACE, "--output", "json"]);
        if said.code == 6 {
            return 0;
        }
        let listed = said.expect(0).json()["result"]["backups"].as_array().unwrap().clone();
        assert!(listed.iter().all(|b| b["state"] != "damaged"), "{listed:?}");
        listed.iter().filter(|b| b["state"] == "complete").count()
    }
}

/// Every so many-th request that has this in its head meets that fate, unless the very same did before.
fn every(which: usize, word: &'static str, fate: Fate) -> impl FnMut(&str) -> Fate + Send + 'static {
    let (mut count, mut met) = (0, HashSet::new());
    move |head| {
        if !head.contains(word) {
            return Fate::Through;
        }
        count += 1;
        let line = head.lines().next().unwrap_or_default().to_owned();
        if count % which == 0 && met.insert(line) { fate } else { Fate::Through }
    }
}

/// From the so many-th request with this in its head on, each of those meets that fate. The lock is left out: what a run
/// that cannot remove its lock leaves of it is another test's.
fn after(many: usize, word: &'static str, fate: Fate) -> impl FnMut(&str) -> Fate + Send + 'static {
    let mut count = 0;
    move |head| {
        if !head.contains(word) || head.contains("/place/lock") {
            return Fate::Through;
        }
        count += 1;
        if count > many { fate } else { Fate::Through }
    }
}

/// From the first request with this in its head on, all but the lock's meet that fate.
fn since(word: &'static str, fate: Fate) -> impl FnMut(&str) -> Fate + Send + 'static {
    let mut begun = false;
    move |head| {
        begun |= head.contains(word);
        if begun && !head.contains("/place/lock") { fate } else { Fate::Through }
    }
}

type Judge = Box<dyn FnMut(&str) -> Fate + Send>;

#[test]
fn an_object_store_that_fails_for_a_while_is_asked_again() {
    let away = Away::new();
    let stack = &away.stack;
    let (database, files) = (stack.database.to_str().unwrap(), tree(&stack.root).len() as u64);
    for (number, (which, word, fate)) in
        [(12, "", BUSY), (3, "GET ", Fate::Cut(60_000)), (4, "PUT ", Fate::Swallowed)].into_iter().enumerate()
    {
        let what = format!("{fate:?} of every {which}. {word}");
        let (file, root) = (stack.path(&format!("{number}.db")), format!("s3://artifacts/restored-{number}"));
        let restore = ["restore", "latest", "--from", PLACE, "--to", file.to_str().unwrap(), "--artifact-root", &root];
        away.relay.judge(every(which, word, fate));
        let begun = Instant::now();
        let said = away.run(true, &away.backing_up());
        assert_eq!(said.code, 0, "{what}: {}", said.err);
        let made = said.json()["result"].clone();
        assert_eq!((&made["complete"], &made["artifacts"]["files"]), (&true.into(), &files.into()), "{what}");
        let said = away.run(true, &["backup", "verify", "--from", PLACE]);
        assert_eq!(said.code, 0, "{what}: {}{}", said.out, said.err);
        let said = away.run(true, &restore);
        assert_eq!(said.code, 0, "{what}: {}", said.err);
        // Artifacts that lie in S3 are read in spite of it as well.
        let mut backing_up = away.backing_up();
        backing_up[6] = &root;
        let said = away.run(true, &[&backing_up[..], &["--rehash"]].concat());
        assert_eq!(said.code, 0, "{what}: {}", said.err);
        assert_eq!(said.json()["result"]["artifacts"]["read"], files, "{what}");
        let said = away.run(true, &["backup", "prune", "--from", PLACE, "--keep-last", "1", "--yes"]);
        assert_eq!(said.code, 0, "{what}: {}", said.err);
        println!("{what}: {:?}", begun.elapsed());
        away.relay.judge(|_| Fate::Through);
        assert_eq!(away.listed(), 1, "{what}");
        verify(stack.home.path(), database, file.to_str().unwrap()).expect(0);
    }
    away.run(false, &["backup", "verify", "--all", "--from", PLACE]).expect(0);
}

#[test]
fn an_object_store_that_fails_for_good_is_told_and_nothing_looks_done() {
    let away = Away::new();
    let stack = &away.stack;
    let told = |what: &str, codes: &[i32], arguments: &[&str]| {
        let begun = Instant::now();
        let said = away.run(true, arguments);
        let took = begun.elapsed();
        println!("{what}: {} after {took:?}: {}", said.code, said.err.trim());
        assert!(codes.contains(&said.code), "{what}: {} {} {}", said.code, said.out, said.err);
        assert!(took < Duration::from_secs(30), "{what}: {took:?}");
        said
    };
    // Backups: the place fails.
    let fates: [Judge; 5] = [
        Box::new(after(0, "", BUSY)),
        Box::new(after(8, "", BUSY)),
        Box::new(after(1, "PUT ", BUSY)),
        Box::new(after(6, "PUT ", Fate::Swallowed)),
        Box::new(since("artifacts.jsonl.gz", Fate::Lost)),
    ];
    for (number, judge) in fates.into_iter().enumerate() {
        away.relay.judge(judge);
        let said = told(&format!("backup {number}"), &[6, 7, 8], &away.backing_up());
        assert!(said.json()["error"]["message"].as_str().unwrap().contains("s3://artifacts"), "{number}: {}", said.out);
        assert_eq!(away.listed(), 0, "{number}");
    }
    let made = away.run(false, &away.backing_up()).expect(0);
    assert!(made.json()["warnings"].to_string().contains("never finished"), "{}", made.out);
    away.run(false, &["backup", "verify", "--from", PLACE]).expect(0);

    // Reading fails, which is no damage.
    let (file, root) = (stack.path("no.db"), stack.path("no"));
    let restore = ["restore", "latest", "--from", PLACE, "--artifact-root", root.to_str().unwrap(), "--to"];
    let restore = [&restore[..], &[file.to_str().unwrap()]].concat();
    let cut = Fate::Cut(30);
    for (many, word, fate) in [
        (0, "list-type", Fate::Cut(100)),
        (0, "manifest.json", Fate::Lost),
        (1, "database.tar", cut),
        (1, "artifacts.jsonl.gz", cut),
        (2, "/sha256/", Fate::Cut(20_000)),
    ] {
        away.relay.judge(after(many, word, fate));
        let said = told(&format!("a restore, {fate:?} after {many} {word}"), &[6, 8], &restore);
        assert!(said.err.contains("s3://artifacts"), "{}", said.err);
        assert!(!file.exists());
        if word == "database.tar" {
            away.relay.judge(after(many, word, fate));
            let what = format!("verify, {fate:?} after {many} {word}");
            let said = told(&what, &[6, 8], &["backup", "verify", "--from", PLACE]);
            assert!(said.err.contains("s3://artifacts"), "{}", said.err);
        }
    }
    away.run(false, &away.backing_up()).expect(0);
    let prune = ["backup", "prune", "--from", PLACE, "--keep-last", "1", "--yes"];
    // The first is for what was proven of it, the second for its seal.
    away.relay.judge(after(2, "DELETE ", BUSY));
    told("a prune, busy after its second removal", &[7, 8], &prune);
    assert_eq!(away.listed(), 1);
    away.run(false, &prune).expect(0);
    away.run(false, &["backup", "verify", "--all", "--from", PLACE]).expect(0);

    // Artifacts that cannot be read make no complete backup.
    let to = ["--to", file.to_str().unwrap(), "--artifact-root", "s3://artifacts/models"];
    away.run(false, &[&["restore", "latest", "--from", PLACE], &to[..]].concat()).expect(0);
    let mut backing_up = away.backing_up();
    backing_up[6] = "s3://artifacts/models";
    let backing_up = [&backing_up[..], &["--rehash", "--jobs", "8"]].concat();
    for (word, fate, unreadable) in [("/models", BUSY, 1), ("weights.bin ", Fate::Cut(1000), 3)] {
        away.relay.judge(after(0, word, fate));
        let said = told(&format!("artifacts, {fate:?} of {word}"), &[4], &backing_up);
        let made = said.json()["result"].clone();
        assert_eq!(made["complete"], false);
        assert!(made["artifacts"]["unreadable"].as_u64().unwrap() >= unreadable, "{made}");
    }
    assert_eq!(away.listed(), 1);
}

#[test]
fn a_lock_in_s3_that_nobody_holds_any_more_lasts_less_than_a_minute() {
    let away = Away::new();
    let content = |head: &str| head.starts_with("PUT ") && head.contains("/place/artifacts/");
    // A run that gets no further, but lives.
    let begin = || {
        away.relay.judge(move |head| if content(head) { Fate::Silent } else { Fate::Through });
        let mut command = away.command(true, &away.backing_up());
        let child = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        wait_for("a content", Duration::from_secs(30), || away.relay.asked().iter().any(|l| content(l)).then_some(()));
        child
    };
    let seconds = Duration::from_secs;
    let mut child = begin();
    let begun = Instant::now();
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(143));
    let made = away.run(false, &away.backing_up()).expect(0);
    assert!(begun.elapsed() < seconds(20), "it took its lock away: {:?}", begun.elapsed());
    assert_eq!(made.json()["result"]["complete"], true);

    // The next one needs a content that is not there.
    for address in artifact_folders(&away.stack.database).iter().take(3) {
        let place = away.stack.root.join(address.trim_start_matches("mlflow-artifacts:/"));
        aged(&place.join("more.bin"), address.as_bytes());
    }
    let child = begin();
    let begun = Instant::now();
    let said = away.run(false, &away.backing_up()).expect(10);
    assert!(said.out.contains("in use by mlops backup "), "{}", said.out);
    assert!(begun.elapsed() < seconds(20), "{:?}", begun.elapsed());
    assert_eq!(away.listed(), 1, "reading needs no lock");
    drop(child);
    let begun = Instant::now();
    let said = away.run(false, &away.backing_up()).expect(0);
    println!("after {:?}", begun.elapsed());
    assert!((seconds(30)..seconds(60)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(said.json()["warnings"].to_string().contains("never finished"), "{}", said.out);
    let begun = Instant::now();
    away.run(false, &["backup", "prune", "--from", PLACE, "--keep-last", "1", "--yes"]).expect(0);
    assert!(begun.elapsed() < seconds(20), "{:?}", begun.elapsed());
    away.run(false, &["backup", "verify", "--all", "--from", PLACE]).expect(0);
}
